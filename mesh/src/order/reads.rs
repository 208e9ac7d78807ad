//! Reads past the log (rule 32): the read index of Ongaro, "Consensus: Bridging Theory and Practice" (2014), section 6.4,
//! with the three differences that an application beside the log and an early decision make.
//!
//! A replica with reads asks the leader for an index. The leader asks a majority whether anybody has promised a higher ballot
//! (a *round*, for all who wait when it begins), and answers with the highest slot that it has proposed or recovered. The replica
//! gives the reads to its application behind everything up to there, and answers when what the application had executed is settled.
//!
//! Why that is linearizable. Let a read arrive here at time t.
//!
//! - **Nothing that was chosen before t is missing.** A voter confirms ballot b, after t, only while it has promised no higher
//!   one. The majority of the lowest ballot above b that was ever elected is of the same configuration or of that one change
//!   away (a leader with a change under way begins no round, and one whose change is decided leads no more), so it has a voter
//!   of the round, which promised it after it had confirmed, and so after t. Whatever was chosen before t was chosen in b, and
//!   proposed by the leader, or below b, and then the leader has decided it, proposed it again, or its promises reported it.
//!   The decided mark would not do: followers may decide before the leader does (rule 6), and so may the leader before it.
//! - **Nothing is shown that is taken back.** The application has executed up to some slot e when it answers. What a majority
//!   of applications executed is never aborted (rule 23), so the answer waits until the settled mark has reached e; and until
//!   every abort of what is settled is known here, since the mark may be of an execution without a call that this
//!   application has run.
//! - **The application is the one that executed**: a run that ended voids its reads, and so does everything that makes this
//!   replica's word doubtful (it is quarantined, learns, differs, follows another ballot).
//! - What a later read sees is no older: e was chosen before this answer, so a round that begins after it has an index that is
//!   not below e.
//!
//! No clock is believed in any of that: there are no leases. A read that is void, or late, goes through the log: that is
//! the sender's business.

use super::{Message, Mutant, Output, Replica, State, Timer, To, mutant};
use crate::ids::{Ballot, ReadId, ReplicaId, Run, Slot};
use crate::quorum::MemberSet;
use crate::time::{Duration, Instant};
use crate::wire::peer::Marks;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Why a read ends without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unread {
    /// This replica cannot answer now: it has no vote, no leader, or no application that runs and agrees with the others.
    NotReady,
    /// It holds as many as it may.
    Busy,
    /// No majority confirmed the leader in time, or the application did not come round to it.
    Late,
    /// The application that had it is gone.
    Lost,
}

/// Reads that a replica holds, at most.
const READS: usize = 4096;
/// Those that its application was given and has not answered, at most, void ones too.
const RUNNING: usize = 256;
/// Of a heartbeat: before the leader is asked again how far all are, while an answer waits for what it shows to be settled.
const NUDGES: u32 = 16;

/// The reads of this replica's clients, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// The ballot whose leader is asked: in another one they are void.
    ballot: Ballot,
    /// The name of the last question. One process counts from a number that it draws, so that no answer to an earlier one
    /// is taken for its own.
    question: u64,
    /// They wait for the next question.
    waiting: VecDeque<Waiting>,
    /// The question that is not answered, and the reads that came before it.
    asked: Option<Asked>,
    /// The last question was asked then.
    asked_at: Instant,
    /// They wait for the application to be given everything up to a slot.
    indexed: VecDeque<(Slot, Waiting)>,
    /// The application has them, or has answered.
    running: VecDeque<Running>,
    /// All that it was given in this run and has not answered: one that stands still is not to be given more and more.
    unanswered: (Run, BTreeSet<ReadId>),
    /// Rounds that this replica began as a leader.
    rounds: u64,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    read: ReadId,
    since: Instant,
}

#[derive(Debug)]
struct Asked {
    question: u64,
    at: Instant,
    reads: Vec<Waiting>,
}

#[derive(Debug)]
struct Running {
    read: ReadId,
    since: Instant,
    run: Run,
    /// Behind this slot.
    slot: Slot,
    answered: bool,
}

/// What a leader keeps of who wants to know that it leads.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// The highest slot that the leader's promises reported.
    pub reported: Slot,
    number: u64,
    running: Option<Round>,
    /// Whose question waits for the next round, and its name.
    waiting: BTreeMap<ReplicaId, u64>,
}

#[derive(Debug)]
struct Round {
    index: Slot,
    /// Who has promised no higher ballot, by place in the member list.
    confirmed: MemberSet,
    questions: BTreeMap<ReplicaId, u64>,
    sent: Instant,
}

/// A leader's answer to a question for the index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Indexed {
    pub question: u64,
    pub index: Slot,
    pub settled: Slot,
    pub beyond: u32,
}

impl Reads {
    /// What has none yet; `chance` names its questions.
    pub(super) fn new(chance: u64) -> Self {
        // Far from where it would run over.
        Self { question: chance >> 1, ..Self::default() }
    }

    fn len(&self) -> usize {
        self.waiting.len() + self.asked().len() + self.indexed.len() + self.running.len()
    }

    fn asked(&self) -> &[Waiting] {
        self.asked.as_ref().map_or(&[], |asked| &asked.reads)
    }

    /// Since when the oldest of them waits.
    fn oldest(&self) -> Option<Instant> {
        let (waiting, indexed) = (self.waiting.front(), self.indexed.front().map(|(_, waiting)| waiting));
        let held = waiting.into_iter().chain(indexed).chain(self.asked().first()).map(|waiting| waiting.since);
        held.chain(self.running.front().map(|running| running.since)).min()
    }

    /// Whether an answer waits for what it shows to be settled.
    fn waits_for_mark(&self) -> bool {
        self.running.iter().any(|running| running.answered)
    }

    pub(super) fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Takes out, in no certain order, all for which `void` holds.
    fn take(&mut self, void: impl Fn(Instant, Option<Run>) -> bool) -> Vec<ReadId> {
        let mut taken = Vec::new();
        let mut keep = |read: ReadId, since: Instant, run: Option<Run>| {
            let is_void = void(since, run);
            if is_void {
                taken.push(read);
            }
            !is_void
        };
        self.waiting.retain(|waiting| keep(waiting.read, waiting.since, None));
        if let Some(asked) = &mut self.asked {
            asked.reads.retain(|waiting| keep(waiting.read, waiting.since, None));
        }
        self.indexed.retain(|(_, waiting)| keep(waiting.read, waiting.since, None));
        self.running.retain(|running| keep(running.read, running.since, Some(running.run)));
        taken
    }
}

impl Replica {
    /// Whose round counts here, and in which ballot.
    fn guide(&self) -> Option<(ReplicaId, Ballot)> {
        match &self.state {
            State::Leader(leading) => Some((self.config.id, leading.ballot)),
            _ => self.followed(),
        }
    }

    /// Whether the application's word, unconfirmed by others, may be given to a client.
    fn may_read(&self) -> bool {
        let judgement = &self.execution.judgement;
        let trusted = !judgement.differs() && !judgement.is_stopped();
        self.answers() && trusted && self.execution.is_running() && self.execution.dumping.is_none()
    }

    /// Reads of clients.
    pub(super) fn on_reads(&mut self, now: Instant, reads: Vec<ReadId>, out: &mut Vec<Output>) {
        let ballot = self.guide().filter(|_| self.may_read()).map(|(_, ballot)| ballot);
        for read in reads {
            let refused = match ballot {
                None => Some(Unread::NotReady),
                Some(_) if self.reads.len() >= READS => Some(Unread::Busy),
                Some(_) => None,
            };
            if let Some(why) = refused {
                out.push(Output::ReadVoid { read, why });
                continue;
            }
            if self.reads.len() == 0 {
                self.reads.ballot = ballot.unwrap_or_default();
            }
            self.reads.waiting.push_back(Waiting { read, since: now });
        }
    }

    /// The application has answered a read, after everything that it was given before.
    pub(super) fn on_read_done(&mut self, run: Run, read: ReadId) {
        if self.reads.unanswered.0 == run {
            self.reads.unanswered.1.remove(&read);
        }
        let mut running = self.reads.running.iter_mut();
        if let Some(running) = running.find(|running| running.read == read && running.run == run) {
            running.answered = true;
        }
    }

    /// At the end of each step: what is void ends, what may go on goes on.
    pub(super) fn look_after_reads(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.reads.len() > 0 {
            self.void_reads(now, out);
            self.hand_reads_over(out);
            self.answer_reads(out);
            self.ask_for_index(now, out);
            // A leader that needs nobody has its answer at once.
            self.hand_reads_over(out);
        }
        if self.reads.len() == 0 {
            // Only the mark was asked for.
            self.reads.asked = None;
        }
        self.repeat_round(now, out);
        match self.reads_due() {
            Some(at) => self.timers.set(Timer::Reads, at),
            None => self.timers.stop(Timer::Reads),
        }
    }

    fn void_reads(&mut self, now: Instant, out: &mut Vec<Output>) {
        let guided = self.guide().is_some_and(|(_, ballot)| ballot == self.reads.ballot);
        let (run, patience) = (self.execution.run(), self.config.timing.election_timeout);
        let lost = self.reads.take(|_, of| of.is_some_and(|of| of != run));
        out.extend(lost.into_iter().map(|read| Output::ReadVoid { read, why: Unread::Lost }));
        if self.execution.dumping.is_some() {
            // It forgets them.
            self.reads.unanswered.1.clear();
        }
        if !guided || !self.may_read() {
            let all = self.reads.take(|_, _| true);
            out.extend(all.into_iter().map(|read| Output::ReadVoid { read, why: Unread::NotReady }));
        }
        if self.reads.oldest().is_some_and(|since| now.since(since) >= patience) {
            let late = self.reads.take(|since, _| now.since(since) >= patience);
            out.extend(late.into_iter().map(|read| Output::ReadVoid { read, why: Unread::Late }));
        }
    }

    /// The application is in the state after a slot that is not below the index, or will be when it comes to them.
    fn hand_reads_over(&mut self, out: &mut Vec<Output>) {
        let (run, slot) = (self.execution.run(), self.execution.sent());
        if self.reads.unanswered.0 != run {
            self.reads.unanswered = (run, BTreeSet::new());
        }
        while self.reads.unanswered.1.len() < RUNNING
            && let Some((_, Waiting { read, since })) = self.reads.indexed.pop_front_if(|(index, _)| *index <= slot)
        {
            self.reads.unanswered.1.insert(read);
            self.reads.running.push_back(Running { read, since, run, slot, answered: false });
            out.push(Output::Read { run, read });
        }
    }

    /// What is settled is never taken back, once every abort of it is known here.
    fn answer_reads(&mut self, out: &mut Vec<Output>) {
        let (settled, executed) = (self.settled, self.execution.executed());
        let firm = |slot: Slot| slot <= settled && self.aborts_known(slot) || mutant::on(Mutant::ReadUnsettled);
        let firm: Vec<bool> =
            self.reads.running.iter().map(|of| of.answered && of.slot <= executed && firm(of.slot)).collect();
        let mut firm = firm.into_iter();
        self.reads.running.retain(|running| {
            let answers = firm.next().unwrap_or_default();
            if answers {
                out.push(Output::ReadAnswer { read: running.read, slot: running.slot });
            }
            !answers
        });
    }

    /// One question at a time, for all reads that wait then.
    fn ask_for_index(&mut self, now: Instant, out: &mut Vec<Output>) {
        let Some((leader, ballot)) = self.guide() else { return };
        let (again, nudge) = (self.config.timing.heartbeat, self.config.timing.heartbeat / NUDGES);
        let marks = self.reads.waits_for_mark();
        let reads = &mut self.reads;
        let question = match &mut reads.asked {
            Some(asked) if now.since(asked.at) >= again => {
                asked.at = now;
                asked.question
            }
            Some(_) => return,
            None if !reads.waiting.is_empty() || (marks && now.since(reads.asked_at) >= nudge) => {
                reads.question += 1;
                let asked = reads.waiting.drain(..).collect();
                reads.asked = Some(Asked { question: reads.question, at: now, reads: asked });
                reads.question
            }
            None => return,
        };
        reads.asked_at = now;
        if leader == self.config.id {
            self.on_read_index(now, leader, ballot, question, out);
        } else {
            self.send(To::One(leader), Message::ReadIndex { ballot, question }, out);
        }
    }

    /// A replica wants to know which slot its reads must not be below.
    pub(super) fn on_read_index(
        &mut self,
        now: Instant,
        from: ReplicaId,
        ballot: Ballot,
        question: u64,
        out: &mut Vec<Output>,
    ) {
        let member = self.index_of(from).is_some();
        let State::Leader(leading) = &mut self.state else { return };
        if !member || leading.ballot != ballot {
            return;
        }
        leading.rounds.waiting.insert(from, question);
        self.begin_round(now, out);
    }

    /// One round at a time, for everybody who waits when it begins. While a change of the configuration is under way it
    /// would not be certain whose majority is needed.
    fn begin_round(&mut self, now: Instant, out: &mut Vec<Output>) {
        let (own, decided) = (self.own_index(), self.log.decided());
        let State::Leader(leading) = &mut self.state else { return };
        if leading.rounds.running.is_some() || leading.rounds.waiting.is_empty() || leading.is_configuring() {
            return;
        }
        let ballot = leading.ballot;
        let highest = leading.proposed().max(leading.rounds.reported);
        let rounds = &mut leading.rounds;
        rounds.number += 1;
        let round = rounds.number;
        let mut confirmed = MemberSet::default();
        confirmed.insert(own);
        let index = if mutant::on(Mutant::ReadDecidedIndex) { decided } else { highest };
        let questions = std::mem::take(&mut rounds.waiting);
        rounds.running = Some(Round { index, confirmed, questions, sent: now });
        self.reads.rounds += 1;
        if !self.end_round(now, out) {
            self.send(To::Others, Message::Confirm { ballot, round }, out);
        }
    }

    /// A leader asks whether it leads.
    pub(super) fn on_confirm(
        &mut self,
        now: Instant,
        from: ReplicaId,
        ballot: Ballot,
        round: u64,
        out: &mut Vec<Output>,
    ) {
        if self.follow(now, from, ballot, out) && self.voting {
            let marks = self.marks();
            self.send(To::One(from), Message::Confirmed { ballot, round, marks }, out);
        }
    }

    /// A voter had promised no higher ballot after the round began.
    pub(super) fn on_confirmed(
        &mut self,
        now: Instant,
        from: ReplicaId,
        (ballot, round): (Ballot, u64),
        marks: Marks,
        out: &mut Vec<Output>,
    ) {
        self.on_following(now, from, ballot, marks, out);
        let Some(index) = self.voter_index(from) else { return };
        let State::Leader(leading) = &mut self.state else { return };
        if leading.ballot != ballot || leading.rounds.number != round {
            return;
        }
        if let Some(running) = &mut leading.rounds.running {
            running.confirmed.insert(index);
            self.end_round(now, out);
        }
    }

    /// Answers everybody whose question the round is for, if a majority has confirmed it; then the next one begins.
    fn end_round(&mut self, now: Instant, out: &mut Vec<Output>) -> bool {
        let (quorum, decided, settled, beyond) = (self.quorum(), self.log.decided(), self.settled, self.beyond);
        let State::Leader(leading) = &mut self.state else { return false };
        let ballot = leading.ballot;
        let enough = |round: &mut Round| round.confirmed.len() >= quorum || mutant::on(Mutant::ReadUnconfirmed);
        let Some(Round { index, questions, .. }) = leading.rounds.running.take_if(enough) else { return false };
        for (of, question) in questions {
            if of == self.config.id {
                self.index_known(question, index);
            } else {
                let message = Message::ReadIndexed { ballot, question, index, decided, settled, beyond };
                self.send(To::One(of), message, out);
            }
        }
        self.begin_round(now, out);
        true
    }

    /// What was asked or said may be lost.
    fn repeat_round(&mut self, now: Instant, out: &mut Vec<Output>) {
        let again = self.config.timing.heartbeat;
        let State::Leader(leading) = &mut self.state else { return };
        let (ballot, round) = (leading.ballot, leading.rounds.number);
        if let Some(running) = &mut leading.rounds.running
            && now.since(running.sent) >= again
        {
            running.sent = now;
            self.send(To::Others, Message::Confirm { ballot, round }, out);
        }
    }

    /// The leader led after the question was asked.
    pub(super) fn on_read_indexed(
        &mut self,
        now: Instant,
        (from, ballot): (ReplicaId, Ballot),
        decided: Slot,
        indexed: Indexed,
        out: &mut Vec<Output>,
    ) {
        // What is decided first: an abort may be in it of what is settled without the call.
        self.on_leader_decided(now, from, ballot, decided, out);
        if self.followed() == Some((from, ballot)) {
            self.note_settled(indexed.settled, indexed.beyond);
            self.index_known(indexed.question, indexed.index);
        }
    }

    fn index_known(&mut self, question: u64, index: Slot) {
        if let Some(asked) = self.reads.asked.take_if(|asked| asked.question == question) {
            self.reads.indexed.extend(asked.reads.into_iter().map(|waiting| (index, waiting)));
        }
    }

    /// When something is late, or to be asked again.
    fn reads_due(&self) -> Option<Instant> {
        let timing = &self.config.timing;
        let reads = &self.reads;
        let late = reads.oldest().map(|since| since + timing.election_timeout);
        let again = reads.asked.as_ref().map(|asked| asked.at + timing.heartbeat);
        let waits = reads.asked.is_none() && reads.waits_for_mark();
        let nudge = waits.then(|| reads.asked_at + timing.heartbeat / NUDGES);
        let round = match &self.state {
            State::Leader(leading) => leading.rounds.running.as_ref().map(|round| round.sent + timing.heartbeat),
            _ => None,
        };
        late.into_iter().chain(again).chain(nudge).chain(round).min()
    }
}

const _: () = assert!(RUNNING <= READS && NUDGES as u128 <= Duration::from_millis(100).as_millis());
