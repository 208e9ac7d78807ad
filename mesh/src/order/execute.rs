//! Execution: decided slots go through the session table and then, in order, to the application. The application's
//! state is a function of the log: whenever it is lost, it is reset and everything is replayed.

use super::log::Admission;
use super::{Admitted, AppReply, Event, Operation, Output, Record, Replica};
use crate::ids::{ClientId, Digest, Run, Slot};
use crate::time::Instant;
use crate::wire::peer::Batch;
use crate::wire::{Body, Outcome, Tag};
use std::collections::VecDeque;
use std::sync::Arc;

/// How far the application is.
#[derive(Debug, Default)]
pub(super) struct Execution {
    /// Counts the resets; results of an earlier run are not listened to.
    run: Run,
    running: bool,
    /// The last slot that was handed to the application.
    sent: Slot,
    /// The last slot whose replies are all here.
    executed: Slot,
    outstanding: VecDeque<Outstanding>,
    /// The rolling hash of the forms of all replies up to `executed`, and at the last slot divisible by 1,000.
    digest: Digest,
    milestone: (Slot, Digest),
}

/// A slot that the application has.
#[derive(Debug)]
struct Outstanding {
    slot: Slot,
    /// The calls whose replies are to come; none for a slot without calls that waits its turn.
    calls: Vec<Tag>,
    /// Whether the application was given anything: a slot with nothing for it is executed when it is first in line.
    handed_over: bool,
}

/// How many slots apart the milestones of the rolling hash are.
const MILESTONE: u64 = 1000;

impl Execution {
    pub(super) fn executed(&self) -> Slot {
        self.executed
    }
    pub(super) fn is_running(&self) -> bool {
        self.running
    }
    pub(super) fn resets(&self) -> u64 {
        self.run.0.saturating_sub(1)
    }
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }
    pub(super) fn milestone(&self) -> (Slot, Digest) {
        self.milestone
    }
    pub(super) fn has_begun(&self) -> bool {
        self.run > Run(0)
    }

    /// Asks for the application at the first step: whatever ran before is not known, so it is reset.
    pub(super) fn begin(&mut self, out: &mut Vec<Output>) {
        if !self.has_begun() {
            self.reset(out);
        }
    }

    fn reset(&mut self, out: &mut Vec<Output>) {
        *self = Self { run: Run(self.run.0 + 1), ..Self::default() };
        out.push(Output::Reset { run: self.run, snapshot: None });
    }

    pub(super) fn on_lost(&mut self, run: Run, out: &mut Vec<Output>) {
        if run == self.run {
            self.reset(out);
        }
    }

    /// The first slot in line was executed.
    fn finish_first(&mut self) {
        if let Some(first) = self.outstanding.pop_front() {
            self.executed = first.slot;
            if self.executed.0.is_multiple_of(MILESTONE) {
                self.milestone = (self.executed, self.digest);
            }
        }
        while self.outstanding.front().is_some_and(|next| !next.handed_over) {
            self.finish_first();
        }
    }
}

impl Replica {
    /// Moves the decided mark as far as it goes and lets every slot through the session table.
    pub(super) fn advance(&mut self, now: Instant, out: &mut Vec<Output>) {
        let before = self.log.decided();
        while let Some((slot, batch)) = self.log.advance() {
            self.admit(slot, &batch, out);
        }
        if self.log.decided() > before {
            self.last_decided = now;
            // Something is ordered: the leader works.
            self.suspects = None;
            self.known_decided = self.known_decided.max(self.log.decided());
            self.execute(out);
        }
    }

    fn admit(&mut self, slot: Slot, batch: &Arc<Batch>, out: &mut Vec<Output>) {
        let before = self.log.get(slot.previous()).map_or(0, |entry| entry.admission.time);
        let mut skipped = Vec::new();
        let mut ended: Vec<(ClientId, Slot)> = Vec::new();
        for (index, request) in batch.requests.iter().enumerate() {
            match self.sessions.admit(slot, request) {
                Admitted::Execute => {}
                Admitted::Skipped => skipped.push(u32::try_from(index).unwrap_or(u32::MAX)),
                Admitted::Done(outcome, end) => {
                    ended.extend(end);
                    Self::reply(request.tag(), slot, outcome, out);
                }
            }
            self.settle_held(request, out);
        }
        self.note_settled(batch.settled);
        let time = batch.time.max(before.saturating_add(1));
        self.log.admit(slot, Admission { time, skipped: skipped.into(), ended: ended.into() });
    }

    /// Hands decided slots to the application, a bounded number ahead of its replies.
    pub(super) fn execute(&mut self, out: &mut Vec<Output>) {
        while self.execution.running
            && self.execution.sent < self.log.decided()
            && self.execution.outstanding.len() < self.config.limits.executing_slots
        {
            let slot = self.execution.sent.next();
            let Some((operations, calls, time)) = self.operations(slot) else { break };
            self.execution.sent = slot;
            let handed_over = !operations.is_empty();
            self.execution.outstanding.push_back(Outstanding { slot, calls, handed_over });
            if handed_over {
                out.push(Output::Execute { run: self.execution.run, slot, time, operations, patient: 0 });
            } else if self.execution.outstanding.len() == 1 {
                self.execution.finish_first();
            }
        }
        self.update_settled();
    }

    /// What the application does in a decided slot.
    fn operations(&self, slot: Slot) -> Option<(Vec<Operation>, Vec<Tag>, u64)> {
        let entry = self.log.get(slot)?;
        let admission = &entry.admission;
        let (mut operations, mut calls) = (Vec::new(), Vec::new());
        for (index, request) in entry.batch.requests.iter().enumerate() {
            let Body::Call(bytes) = &request.body else { continue };
            if admission.skipped.binary_search(&u32::try_from(index).unwrap_or(u32::MAX)).is_err() {
                operations.push(Operation::Call { session: (request.client, request.opened), bytes: bytes.clone() });
                calls.push(request.tag());
            }
        }
        operations.extend(admission.ended.iter().map(|session| Operation::End { session: *session }));
        Some((operations, calls, admission.time))
    }

    pub(super) fn on_restored(&mut self, now: Instant, run: Run, out: &mut Vec<Output>) {
        if run == self.execution.run {
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
        if run != self.execution.run {
            return;
        }
        let calls = match self.execution.outstanding.front_mut() {
            Some(first) if first.slot == slot && first.handed_over => std::mem::take(&mut first.calls),
            _ => panic!("slot {slot} was reported as executed out of order"),
        };
        assert_eq!(calls.len(), replies.len(), "one reply for each call of slot {slot}");
        for (tag, reply) in calls.into_iter().zip(replies) {
            self.execution.digest = self.execution.digest.chain(&reply.form.0);
            if let Err(before) = self.sessions.replied(&tag, &reply, &self.config.limits) {
                out.push(Output::Event(Event::ReplayDiffers { tag, slot, before, now: reply.clone() }));
            }
            let outcome = Some(Outcome::Executed(reply.bytes));
            out.push(Output::Reply { tag, slot, form: reply.form, outcome });
        }
        self.execution.finish_first();
        self.execute(out);
        // What is settled now makes room.
        self.propose(now, out);
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
