//! Execution: decided slots go through the session table and then, in order, to the application. The application's
//! state is a function of the log: whenever it is lost, it is brought back to the newest snapshot and the slots after
//! that are replayed.

use super::diverge::Judgement;
use super::image::{Image, Work};
use super::log::Admission;
use super::silence::Silence;
use super::snapshot::Dumping;
use super::{Admitted, AppReply, Event, Operation, Output, Record, Replica};
use crate::ids::{ClientId, Digest, Opening, Position, Run, Slot};
use crate::time::Instant;
use crate::wire::peer::{Batch, Command};
use crate::wire::{Body, Outcome, Tag};
use std::collections::VecDeque;
use std::sync::Arc;

/// How far the application is.
#[derive(Debug, Default)]
pub(super) struct Execution {
    /// Counts the resets; results of an earlier run are not listened to.
    run: Run,
    running: bool,
    /// Where a reset begins: the newest verified snapshot. `None`: the log was cut behind one that is gone, so a peer's
    /// is needed.
    pub base: Option<Base>,
    /// The last slot that was handed to the application.
    sent: Slot,
    /// The last slot whose replies are all here.
    executed: Slot,
    outstanding: VecDeque<Outstanding>,
    /// The rolling hash of the forms of all replies up to `executed`, and at the last slot divisible by 1,000.
    digest: Digest,
    milestone: (Slot, Digest),
    /// The snapshot that is being taken.
    pub dumping: Option<Dumping>,
    /// The request that the application fell silent on and whose outcome is not known (rule 23).
    pub silence: Option<Silence>,
    /// Requests of this slot up to this one were executed by a majority: here they have no time limit.
    pub forced: Position,
    /// Silence on a slot up to here is not stated: it may have been answered before this process (rule 23).
    pub answered: Slot,
    /// What is known of the others' replies (rule 31).
    pub judgement: Judgement,
    /// What the first step asks for.
    begin: Begin,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Begin {
    #[default]
    Reset,
    Resume,
    Done,
}

/// Where a run begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Base {
    pub slot: Slot,
    pub work: Work,
    pub digest: Digest,
    pub milestone: (Slot, Digest),
    /// Its file is damaged or gone. The application goes on; a new one is taken as soon as it can be.
    pub lost: bool,
}

impl Base {
    pub(super) fn of(image: &Image) -> Self {
        let Image { slot, work, digest, milestone, .. } = *image;
        Self { slot, work, digest, milestone, lost: false }
    }
}

/// A slot that the application has.
#[derive(Debug)]
struct Outstanding {
    slot: Slot,
    /// The calls whose replies are to come, with their places in the batch.
    calls: Vec<(Tag, u32)>,
    /// Whether the application was given anything: a slot with nothing for it is executed when it is first in line.
    handed_over: bool,
}

/// How many slots apart the milestones of the rolling hash are.
const MILESTONE: u64 = 1000;

impl Execution {
    pub(super) fn new(base: Base) -> Self {
        let (sent, executed, digest, milestone) = (base.slot, base.slot, base.digest, base.milestone);
        Self { base: Some(base), sent, executed, digest, milestone, ..Self::default() }
    }

    pub(super) fn executed(&self) -> Slot {
        self.executed
    }
    pub(super) fn sent(&self) -> Slot {
        self.sent
    }
    pub(super) fn is_running(&self) -> bool {
        self.running
    }
    pub(super) fn is_idle(&self) -> bool {
        self.outstanding.is_empty()
    }
    pub(super) fn resets(&self) -> u64 {
        self.run.0.saturating_sub(1)
    }
    pub(super) fn run(&self) -> Run {
        self.run
    }
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }
    pub(super) fn milestone(&self) -> (Slot, Digest) {
        self.milestone
    }
    pub(super) fn has_begun(&self) -> bool {
        self.begin == Begin::Done
    }

    /// The slot of the newest verified snapshot; 0 without one.
    pub(super) fn snapshot(&self) -> Slot {
        self.base.filter(|base| !base.lost).map_or(Slot(0), |base| base.slot)
    }

    /// The application is not used any more, for now or until an operator looks.
    pub(super) fn stop(&mut self) {
        self.running = false;
    }

    /// The last slot that may be handed to the application now.
    fn bound(&self, decided: Slot) -> Slot {
        let silence = self.silence.map_or(decided, |silence| silence.at.slot.previous());
        let dump = self.dumping.as_ref().map_or(decided, |dumping| dumping.image.slot);
        decided.min(silence).min(dump)
    }
}

impl Replica {
    /// Asks for the application at the first step.
    pub(super) fn begin(&mut self, out: &mut Vec<Output>) {
        out.append(&mut self.early);
        match std::mem::replace(&mut self.execution.begin, Begin::Done) {
            Begin::Done => {}
            Begin::Reset => self.restart_app(out),
            Begin::Resume => {
                self.execution.run = Run(self.execution.run.0 + 1);
                out.push(Output::Resume { run: self.execution.run });
            }
        }
    }

    /// Whatever the application did is not known, or is to be undone: it begins anew from the newest snapshot.
    pub(super) fn restart_app(&mut self, out: &mut Vec<Output>) {
        let base = self.execution.base.filter(|base| self.log.replayable() <= base.slot.next());
        let execution = &mut self.execution;
        execution.run = Run(execution.run.0 + 1);
        execution.begin = Begin::Done;
        execution.running = false;
        execution.outstanding.clear();
        execution.dumping = None;
        execution.base = base;
        // A witness has nothing to bring back.
        execution.running = !self.application && base.is_some();
        let from = base.unwrap_or_default();
        (execution.sent, execution.executed) = (from.slot, from.slot);
        (execution.digest, execution.milestone) = (from.digest, from.milestone);
        execution.judgement.begin(from.slot);
        match base {
            Some(_) if !self.application => self.execute(out),
            Some(base) => {
                let snapshot = (base.slot > Slot(0)).then_some(base.slot);
                out.push(Output::Reset { run: execution.run, snapshot });
            }
            // The log before is cut: only a peer's snapshot helps.
            None => self.need_snapshot(out),
        }
    }

    /// The application still runs, and has executed what the marker says (rule 25).
    pub(super) fn resume(&mut self, resumed: super::Resumed) {
        if resumed.executed > self.log.decided() || resumed.executed < self.execution.executed {
            return;
        }
        let mut replies = resumed.replies.into_iter().peekable();
        while self.execution.executed < resumed.executed {
            let slot = self.execution.executed.next();
            let given = replies.next_if(|(of, _)| *of == slot).map(|(_, given)| given).unwrap_or_default();
            let calls = self.operations(slot).map(|(_, calls, _)| calls).unwrap_or_default();
            if calls.len() != given.len() {
                // The marker is of another log: begin anew.
                let base = self.execution.base.unwrap_or_default();
                let execution = &mut self.execution;
                (execution.sent, execution.executed) = (base.slot, base.slot);
                (execution.digest, execution.milestone) = (base.digest, base.milestone);
                return;
            }
            for ((tag, _), reply) in calls.iter().zip(&given) {
                self.execution.digest = self.execution.digest.chain(&reply.form.0);
                // Nothing can differ: the table has no replies after the snapshot yet.
                let _ = self.sessions.replied(tag, reply, &self.config.limits);
            }
            self.execution.sent = slot;
            self.execution.outstanding.push_back(Outstanding { slot, calls: Vec::new(), handed_over: true });
            self.finish_first();
        }
        self.execution.begin = Begin::Resume;
    }

    pub(super) fn on_lost(&mut self, run: Run, out: &mut Vec<Output>) {
        if run == self.execution.run {
            self.restart_app(out);
        }
    }

    /// Moves the decided mark as far as it goes and lets every slot through the session table.
    pub(super) fn advance(&mut self, now: Instant, out: &mut Vec<Output>) {
        let before = self.log.decided();
        while let Some((slot, batch)) = self.log.advance() {
            self.admit(now, slot, &batch, out);
        }
        if self.log.decided() > before {
            self.last_decided = now;
            // Something is ordered: the leader works.
            self.suspects = None;
            self.known_decided = self.known_decided.max(self.log.decided());
            if !self.voting {
                self.review_vote(now, out);
            }
            self.execute(out);
        }
        self.stand_anew(now, out);
    }

    pub(super) fn admit(&mut self, now: Instant, slot: Slot, batch: &Arc<Batch>, out: &mut Vec<Output>) {
        let mut ended: Vec<(ClientId, Opening)> = Vec::new();
        let took_effect = match batch.command {
            Some(Command::Configure { against, change }) => self.configure(now, slot, (against, change), out),
            Some(Command::Abort { at }) => {
                self.abort(slot, at, out);
                true
            }
            Some(Command::Restart { generation, member, life }) => {
                ended = self.restart(now, slot, generation, (member, life), out);
                true
            }
            None => false,
        };
        self.settle_change(slot, batch.command, took_effect, out);
        let mut skipped = Vec::new();
        for (index, request) in batch.requests.iter().enumerate() {
            let admitted = match self.authentic(request) {
                Ok(()) => self.sessions.admit(slot, request),
                Err(why) => {
                    out.push(Output::Event(Event::Forged { tag: request.tag(), why }));
                    Admitted::Skipped
                }
            };
            match admitted {
                Admitted::Execute => {}
                Admitted::Skipped => skipped.push(u32::try_from(index).unwrap_or(u32::MAX)),
                Admitted::Done(outcome, end) => {
                    ended.extend(end);
                    self.reply(request.tag(), slot, outcome, out);
                }
            }
            self.settle_held(request, out);
        }
        let (time, work) = &mut self.admitted;
        *time = batch.time.max(time.saturating_add(1));
        work.requests += batch.requests.len() as u64;
        work.bytes += batch.body_bytes() as u64;
        let admission = Admission { time: *time, work: *work, skipped, ended: ended.into() };
        if let Some(entry) = self.log.get_mut(slot) {
            entry.admission = admission;
        }
        self.note_settled(batch.settled, 0);
        self.log_settled = self.log_settled.max(batch.settled);
        if let Some((agreed, digest)) = batch.agreed {
            self.on_agreed(agreed, digest);
        }
    }

    /// Hands decided slots to the application, a bounded number ahead of its replies.
    pub(super) fn execute(&mut self, out: &mut Vec<Output>) {
        let bound = self.execution.bound(self.log.decided());
        while self.execution.running
            && self.execution.sent < bound
            && self.execution.outstanding.len() < self.config.limits.executing_slots
        {
            let slot = self.execution.sent.next();
            if slot <= self.settled && !self.aborts_known(slot) && self.application {
                break;
            }
            let Some((operations, calls, time)) = self.operations(slot) else { break };
            // Nothing is executed by a witness: every slot is passed.
            let (operations, calls) = if self.application { (operations, calls) } else { Default::default() };
            self.execution.sent = slot;
            let handed_over = !operations.is_empty();
            let patient = self.patience(slot, &calls);
            self.execution.outstanding.push_back(Outstanding { slot, calls, handed_over });
            if handed_over {
                let run = self.execution.run;
                out.push(Output::Execute { run, slot, time, operations, patient });
            } else if self.execution.outstanding.len() == 1 {
                self.finish_first();
            }
        }
        self.update_settled();
    }

    /// Whether every abort of a settled slot's calls is known here: what is settled may be so without a call that is
    /// aborted later in the log. None comes after a slot that states it as settled, and none beyond the decided end
    /// (rule 23).
    pub(super) fn aborts_known(&self, slot: Slot) -> bool {
        slot <= self.log_settled || self.log.decided() >= self.known_decided
    }

    /// What the application does in a decided slot.
    #[expect(clippy::type_complexity, reason = "taken apart at once")]
    fn operations(&self, slot: Slot) -> Option<(Vec<Operation>, Vec<(Tag, u32)>, u64)> {
        let entry = self.log.get(slot)?;
        let admission = &entry.admission;
        let (mut operations, mut calls) = (Vec::new(), Vec::new());
        for (index, request) in entry.batch.requests.iter().enumerate() {
            let Body::Call(bytes) = &request.body else { continue };
            let place = u32::try_from(index).unwrap_or(u32::MAX);
            if admission.skipped.binary_search(&place).is_err() {
                operations.push(Operation::Call { session: (request.client, request.opened), bytes: bytes.clone() });
                calls.push((request.tag(), place));
            }
        }
        operations.extend(admission.ended.iter().map(|session| Operation::End { session: *session }));
        Some((operations, calls, admission.time))
    }

    /// The place in its batch of the first call of a slot that was not answered.
    ///
    /// # Panics
    /// If the driver names another slot than the first outstanding one, or more answers than it has calls.
    pub(super) fn unanswered(&self, slot: Slot, answered: usize) -> Position {
        let first = self.execution.outstanding.front().filter(|first| first.slot == slot);
        let call = first.and_then(|first| first.calls.get(answered));
        let (_, call) = call.unwrap_or_else(|| panic!("slot {slot} has no call {answered} that waits for its answer"));
        Position { slot, call: *call }
    }

    pub(super) fn on_restored(&mut self, now: Instant, run: Run, out: &mut Vec<Output>) {
        if run == self.execution.run && !self.execution.judgement.is_stopped() {
            self.execution.running = true;
            self.execute(out);
            self.propose(now, out);
        }
    }

    /// # Panics
    /// If the driver reports slots out of order or a wrong number of replies: its own fault, never a peer's.
    pub(super) fn on_executed(
        &mut self,
        now: Instant,
        run: Run,
        slot: Slot,
        replies: Vec<AppReply>,
        out: &mut Vec<Output>,
    ) {
        // After a silence, or where it is stopped, nothing more of this run counts.
        if run != self.execution.run || !self.execution.running {
            return;
        }
        let calls = match self.execution.outstanding.front_mut() {
            Some(first) if first.slot == slot && first.handed_over => std::mem::take(&mut first.calls),
            _ => panic!("slot {slot} was reported as executed out of order"),
        };
        assert_eq!(calls.len(), replies.len(), "one reply for each call of slot {slot}");
        let answers = self.answers();
        // From now on it may have been answered, whatever becomes of the application.
        self.execution.answered = self.execution.answered.max(slot);
        for ((tag, _), reply) in calls.into_iter().zip(replies) {
            self.execution.digest = self.execution.digest.chain(&reply.form.0);
            if let Err(before) = self.sessions.replied(&tag, &reply, &self.config.limits) {
                out.push(Output::Event(Event::ReplayDiffers { tag, slot, before, now: reply.clone() }));
            }
            if let Some(dumping) = &mut self.execution.dumping {
                let _ = dumping.sessions.replied(&tag, &reply, &self.config.limits);
            }
            if answers {
                let outcome = Some(Outcome::Executed(reply.bytes));
                out.push(Output::Reply { tag, slot, form: reply.form, outcome });
            }
        }
        self.finish_first();
        self.judge(now, out);
        self.execute(out);
        // What is settled now makes room.
        self.propose(now, out);
    }

    /// The first slots in line were executed.
    fn finish_first(&mut self) {
        let execution = &mut self.execution;
        while let Some(first) = execution.outstanding.pop_front() {
            execution.executed = first.slot;
            if first.slot.0.is_multiple_of(MILESTONE) {
                execution.milestone = (first.slot, execution.digest);
            }
            if let Some(entry) = self.log.get_mut(first.slot) {
                entry.digest = execution.digest;
            }
            if execution.outstanding.front().is_none_or(|next| next.handed_over) {
                break;
            }
        }
    }

    /// The rolling hash at a slot, if this run of the application has come by and it is still known.
    pub(super) fn digest_at(&self, slot: Slot) -> Option<Digest> {
        if slot > self.execution.executed || !self.application {
            return None;
        }
        match self.execution.base {
            Some(base) if base.slot == slot => Some(base.digest),
            Some(base) if base.slot > slot => None,
            _ => self.log.get(slot).map(|entry| entry.digest),
        }
    }

    /// Whether clients may be answered from here: by a voter with an application that is not known to have diverged. A learner's
    /// word could make a majority with that of a member whose earlier life fell silent on the same request.
    pub(super) fn answers(&self) -> bool {
        self.voting && self.application && !self.execution.judgement.is_quarantined()
    }

    /// Journals the decided mark with the next record, so that a restart need not ask for what it has.
    pub(super) fn record_decided(&mut self, out: &mut Vec<Output>) {
        let slot = self.log.decided();
        if slot > self.decided_recorded {
            self.decided_recorded = slot;
            self.persist(Record::Decided { slot }, None, out);
        }
    }
}
