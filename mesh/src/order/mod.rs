//! The ordering core: Multi-Paxos with independent slots (Lamport, "Paxos Made Simple", 2001, section 3), sessions, and
//! the decisions of execution. The rules (ARCHITECTURE.md) are named where they are kept.
//!
//! One struct, [`Replica`], with one door, [`Replica::step`]. It never reads a clock, draws chance, sends or writes: all
//! that is input and output. Its handlers live in files named after what they handle.

mod catch_up;
mod diverge;
mod election;
mod execute;
mod generation;
mod image;
mod input;
mod intake;
mod log;
pub mod mutant;
mod normal;
mod output;
mod reads;
mod reconfigure;
mod recovery;
mod sessions;
mod silence;
mod snapshot;
mod status;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_generation;
#[cfg(test)]
mod tests_reads;
#[cfg(test)]
mod tests_reconfigure;
#[cfg(test)]
mod tests_recovery;
mod timers;

pub use generation::{Begun, Kept, Restart};
pub use image::Image;
pub use input::{AppReply, Input, Record, Recovered, Resumed};
pub use mutant::Mutant;
pub use output::{Event, Operation, Output, To};
pub use reads::Unread;
pub use reconfigure::ChangeRefused;
pub use recovery::{Behind, Fault, Scan, Segment, Verdict, judge};
pub use status::{Role, Status};

use crate::auth::{self, Needed, PublicKey, Rejected, Verifier};
use crate::config::{ClusterConfig, Config, Configuration, Durability};
use crate::ids::{Ballot, Life, Lsn, Position, ReplicaId, Slot};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::peer::Batch;
use crate::wire::{Body, Message, Request};
use catch_up::Fetching;
use election::{Candidate, Handing, PreCandidate};
use execute::{Base, Execution};
use image::Work;
use intake::Intake;
use log::Log;
use normal::Leading;
use reads::{Indexed, Reads};
use reconfigure::Pending;
use sessions::{Admitted, Known, Sessions};
use snapshot::Transfer;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use timers::{Timer, Timers};

/// One replica of the ordering core.
#[derive(Debug)]
pub struct Replica {
    config: Config,
    rng: Rng,
    timers: Timers,
    /// The configuration as far as it is known here, which may be further than the log.
    configuration: Configuration,
    /// Whether this life's votes count: the configuration gives it the member's incarnation, and a vote (rule 12).
    voting: bool,
    /// The configuration gives this life the incarnation, or did.
    granted: bool,
    /// Another life has got it since.
    superseded: bool,
    /// Whether there is an application; a witness has none.
    application: bool,
    /// How many voted before the last change.
    voters_before: usize,
    /// This replica led or stood in the configuration before.
    stands_again: bool,
    /// What an operator asked for and is not answered yet.
    pending: Option<Pending>,
    handing: Option<Handing>,
    /// No vote in any ballot below.
    promised: Ballot,
    /// The highest promise that the disk is known to hold.
    promise_durable: Ballot,
    /// What this replica does in the ballot `promised`.
    state: State,
    /// The leader of the ballot `promised`, once it was heard of, and when last.
    leader: Option<ReplicaId>,
    /// What another follower voted for before the own vote was durable.
    heard: Option<(Ballot, Slot)>,
    leader_heard: Instant,
    /// The leader's ballot that this replica suspects because requests are not ordered (rule 5).
    suspects: Option<Ballot>,
    /// The highest round that anybody is known to have used.
    round_seen: u64,

    log: Log,
    /// The next record's place in the journal; everything up to `durable` is durable.
    next_lsn: Lsn,
    durable: Lsn,
    /// What to do when a record is durable, in the order of the records.
    awaiting_disk: VecDeque<(Lsn, AfterDisk)>,
    /// The decided mark that was last journaled.
    decided_recorded: Slot,
    /// What the journal called decided at the start, where not all of that was here: there is no vote before it is.
    decided_before: Slot,
    /// When a slot was decided here last.
    last_decided: Instant,

    /// The highest slot that anybody is known to have decided, and who said so.
    known_decided: Slot,
    known_by: Option<ReplicaId>,
    fetching: Option<Fetching>,
    /// The snapshot that is fetched, or was last.
    transfer: Option<Transfer>,
    /// The settled mark (rule 9), as far as it is known here, and how many requests of the slot after it a majority has
    /// executed too.
    settled: Slot,
    beyond: u32,
    /// The settled mark as the decided log states it.
    log_settled: Slot,
    /// The slot up to which verified snapshots of a majority reach, as far as it is known here.
    covered: Slot,
    /// The lowest snapshot that is being served.
    serving: Option<Slot>,
    /// A snapshot is wanted, due or not; and not before then.
    save: bool,
    next_snapshot: Instant,
    /// The leader says that it is this replica's turn; one is due and waits for that; how long the last one took.
    turn: bool,
    turn_wanted: bool,
    last_pause: Duration,
    /// People were told that the log grows.
    alarmed: bool,

    sessions: Sessions,
    verifier: Verifier,
    /// What the start found, for the first step to say.
    early: Vec<Output>,
    /// Of the last slot that went through the session table: its effective time, and what was ordered up to it.
    admitted: (u64, Work),
    /// The configuration before the first slot.
    bootstrap: ClusterConfig,
    intake: Intake,
    execution: Execution,
    reads: Reads,
    /// Until when this replica neither proposes nor stands: it said that it stops.
    draining: Option<Instant>,
}

/// What a replica does in its ballot. A learner is a follower that does not vote.
#[derive(Debug)]
enum State {
    /// It follows the leader, or waits for one.
    Follower,
    /// It asks whether an election could be won.
    PreCandidate(PreCandidate),
    /// It stands.
    Candidate(Candidate),
    /// It leads.
    Leader(Leading),
}

/// What waits for a record to be durable: a promise and a vote leave only then.
#[derive(Debug)]
enum AfterDisk {
    /// The promise of a ballot, to its candidate (perhaps this replica).
    Promise { ballot: Ballot, to: ReplicaId },
    /// The vote for a slot, to the ballot's leader (perhaps this replica).
    Vote { ballot: Ballot, slot: Slot, to: ReplicaId },
    /// The statement that the application fell silent on a request.
    Silence { at: Position },
    /// The word that a snapshot takes the place of every slot up to here: what the journal has of them may go.
    Jump { slot: Slot },
}

impl AfterDisk {
    fn promises(&self, promised: Ballot) -> bool {
        matches!(self, Self::Promise { ballot, .. } if *ballot == promised)
    }
}

impl Replica {
    /// A replica that knows what `recovered` says.
    ///
    /// # Panics
    /// If `config` does not name this replica as a member: whoever makes it checked that.
    #[must_use]
    pub fn new(config: Config, seed: u64, mut recovered: Recovered, now: Instant) -> Self {
        let configuration = config.configuration.clone();
        let own = configuration.cluster.member(config.id).expect("a replica begins in a configuration that has it");
        let (application, genesis) = (own.application, Image::genesis(configuration.cluster.clone()));
        // Without the application's part an application cannot begin with it.
        let image =
            recovered.image.take().filter(|image| !(image.hollow && application)).map_or(genesis, |image| *image);
        let mut replica = Self {
            // Another chance than that of time-outs, so that they do not depend on what is read.
            reads: Reads::new(Rng::from_seed(!seed).next_u64()),
            rng: Rng::from_seed(seed),
            timers: Timers::default(),
            voting: false,
            granted: false,
            superseded: recovered.superseded,
            application,
            voters_before: configuration.cluster.voter_count(),
            stands_again: false,
            pending: None,
            handing: None,
            promised: recovered.promised,
            promise_durable: recovered.promised,
            state: State::Follower,
            leader: None,
            heard: None,
            leader_heard: now,
            suspects: None,
            round_seen: recovered.promised.round,
            log: Log::after(image.slot),
            next_lsn: Lsn(1),
            durable: Lsn(0),
            awaiting_disk: VecDeque::new(),
            decided_recorded: recovered.decided,
            decided_before: Slot(0),
            last_decided: now,
            known_decided: recovered.decided,
            known_by: None,
            fetching: None,
            transfer: None,
            settled: image.slot,
            beyond: 0,
            log_settled: image.slot,
            covered: Slot(0),
            serving: None,
            save: false,
            next_snapshot: now,
            turn: false,
            turn_wanted: false,
            last_pause: Duration::ZERO,
            alarmed: false,
            sessions: Sessions::new(
                configuration.cluster.sessions,
                configuration.cluster.request_signatures,
                image.generation,
            ),
            verifier: Verifier::default(),
            early: Vec::new(),
            admitted: (0, Work::default()),
            bootstrap: configuration.cluster.clone(),
            intake: Intake::default(),
            execution: Execution::new(Base::of(&image)),
            draining: None,
            configuration,
            config,
        };
        replica.recover(now, recovered, image);
        replica
    }

    /// Takes up what was stored.
    fn recover(&mut self, now: Instant, recovered: Recovered, image: Image) {
        let jumped = image.slot;
        self.execution.answered = self.execution.answered.max(recovered.answered);
        self.recover_log(image.slot, recovered.decided, recovered.entries);
        self.install(image);
        (self.granted, self.voting) = (self.was_granted(), self.may_vote());
        let mut found = Vec::new();
        if recovered.superseded {
            self.early.push(Output::Event(Event::Superseded));
        }
        if jumped > recovered.decided {
            // The snapshot was stored, and then the process ended before it could say so.
            self.jumped(jumped, &mut found);
        }
        self.advance(now, &mut found);
        if self.log.decided() < recovered.decided {
            self.decided_before = recovered.decided;
            self.review_vote(now, &mut found);
        }
        // Nobody waits for an answer yet.
        found.retain(|output| matches!(output, Output::Event(_) | Output::Persist { .. }));
        self.early.append(&mut found);
        // One whose outcome the log knows by now is none.
        let silent = recovered.silent.filter(|at| at.slot > self.execution.snapshot() && !self.is_skipped(*at));
        self.execution.silence = silent.map(|at| silence::Silence { at, stated: true });
        if let Some(resumed) = recovered.resumed {
            self.resume(resumed);
        }
        self.note_known_decided(now, recovered.decided, self.config.id);
        self.arm_election(now);
        if self.own().is_none() {
            self.timers.set_if_stopped(Timer::Repair, now + self.config.timing.repair);
        }
    }

    /// Puts what the journal had into the log: above the snapshot to go on from there, below it for those who are a little
    /// late.
    fn recover_log(&mut self, snapshot: Slot, decided: Slot, entries: Vec<(Slot, Ballot, Arc<Batch>)>) {
        let mut below = BTreeMap::new();
        for (slot, ballot, batch) in entries {
            if slot <= snapshot {
                below.insert(slot, (ballot, batch));
                continue;
            }
            self.log.put(slot, ballot, batch, Lsn(0));
            if slot <= decided {
                self.log.decide(slot);
            }
        }
        // Where the snapshot came from a peer, what the journal has below it may never have been decided.
        if decided >= snapshot {
            self.log.put_tail(below);
        }
    }

    /// The only door in. Outputs are plain data, in order, without conditions: what must wait for the disk is produced
    /// when [`Input::Persisted`] comes back, never before.
    pub fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        self.begin(out);
        self.draining = self.draining.filter(|until| *until > now);
        match input {
            Input::Message { from, life, message } => self.on_message(now, (from, life), message, out),
            Input::Persisted { lsn } => self.on_persisted(now, lsn, out),
            Input::Requests(requests) => {
                for request in requests {
                    let (request, held) = request.into_parts();
                    if let Some(answered) = held {
                        self.verifier.remember(&answered);
                    }
                    let tag = request.tag();
                    if let Err(steer) = self.on_request(now, request, out) {
                        out.push(Output::Steer { tag, steer });
                    }
                }
                self.propose(now, out);
            }
            Input::Reads(reads) => self.on_reads(now, reads, out),
            Input::ReadDone { run, read } => self.on_read_done(run, read),
            Input::Restored { run } => self.on_restored(now, run, out),
            Input::Executed { run, slot, replies } => self.on_executed(now, run, slot, replies, out),
            Input::AppLost { run } => self.on_lost(run, out),
            Input::AppSilent { run, slot, answered } => self.on_silent(run, slot, answered, out),
            Input::SnapshotLost { slot } => self.on_snapshot_lost(now, slot, out),
            Input::Dumped { slot } => self.on_dumped(now, slot, out),
            Input::DumpFailed { slot } => self.on_dump_failed(now, slot, out),
            Input::Received { image } => self.on_received(now, *image, out),
            Input::TransferFailed { from } => self.on_transfer_failed(now, from),
            Input::Serving { slot } => {
                self.serving = slot;
                self.cut(out);
            }
            Input::Save => self.save = true,
            Input::Abort { at } => {
                self.order_abort(at);
                self.propose(now, out);
            }
            Input::Drain => self.on_drain(now, out),
            Input::Change { token, change } => self.on_change(now, token, change, out),
            Input::TransferLeader { token, to } => self.on_transfer_leader(now, token, to, out),
            Input::Left { member } => self.on_left(now, member),
            Input::Timeout => {}
        }
        // Time passes with every input, so that a replica that is kept busy still notices what is due.
        for timer in self.timers.take_due(now) {
            match timer {
                Timer::Election => self.on_election_timeout(now, out),
                Timer::Heartbeat => self.on_heartbeat_due(now, out),
                Timer::Repair => self.on_repair(now, out),
                Timer::Waiting => self.on_waiting(now, out),
                // Looked after at the end of each step.
                Timer::Reads => {}
            }
        }
        self.drop_change(now, out);
        self.end_handing(now, out);
        self.settle_silence(out);
        self.judge_fresh(now, out);
        self.look_after_snapshots(now, out);
        self.look_after_reads(now, out);
        self.check();
    }

    /// The ballot in which it leads and takes requests, if it does.
    #[must_use]
    pub fn reign(&self) -> Option<Ballot> {
        self.leads().then_some(self.promised)
    }

    /// Every slot up to here was executed by the application.
    #[must_use]
    pub fn executed(&self) -> Slot {
        self.execution.executed()
    }

    /// When [`Input::Timeout`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.execution.has_begun() { self.timers.next() } else { Some(Instant::ZERO) }
    }

    fn on_message(&mut self, now: Instant, (from, life): (ReplicaId, Life), message: Message, out: &mut Vec<Output>) {
        if from == self.config.id {
            return self.nonsense(from, "this member's own id", out);
        }
        if message.is_vote() && !self.is_current(from, life) {
            // Of a life that does not count, or not any more: no reason to believe that it remembers.
            return;
        }
        match message {
            Message::PreVote { round, decided, suspects } => {
                self.on_pre_vote(now, from, round, decided, suspects, out);
            }
            Message::PreVoteGranted { round } => self.on_pre_vote_granted(now, from, round, out),
            Message::Prepare { ballot, decided } => self.on_prepare(now, from, ballot, decided, out),
            Message::Promise { ballot, decided, first_kept, settled, accepted } => {
                self.note_settled(settled, 0);
                self.on_promise(now, from, ballot, election::Promise { decided, first_kept, accepted }, out);
            }
            Message::Promised { ballot, slot, accepted, batch } => {
                self.on_promised(now, from, ballot, slot, (accepted, batch), out);
            }
            Message::Outvoted { promised } => self.on_outvoted(now, from, promised, out),
            Message::Accept { ballot, slot, decided, configured, batch } => {
                self.on_accept(now, from, ballot, (slot, configured), batch, out);
                self.on_leader_decided(now, from, ballot, decided, out);
            }
            Message::Accepted { ballot, slots, marks } => self.on_accepted(now, from, ballot, &slots, marks, out),
            Message::Heartbeat { ballot, decided, settled, beyond, covered, turn, answer } => {
                let marks = normal::LeaderMarks { settled, beyond, covered, turn };
                self.on_heartbeat(now, from, ballot, marks, answer, out);
                self.on_leader_decided(now, from, ballot, decided, out);
                if answer {
                    self.ask_to_rejoin(from, decided, out);
                }
            }
            Message::Following { ballot, marks } => self.on_following(now, from, ballot, marks, out),
            Message::ReadIndex { ballot, question } => self.on_read_index(now, from, ballot, question, out),
            Message::Confirm { ballot, round } => self.on_confirm(now, from, ballot, round, out),
            Message::Confirmed { ballot, round, marks } => self.on_confirmed(now, from, (ballot, round), marks, out),
            Message::ReadIndexed { ballot, question, index, decided, settled, beyond } => {
                let indexed = Indexed { question, index, settled, beyond };
                self.on_read_indexed(now, (from, ballot), decided, indexed, out);
            }
            Message::Fetch { from: first, to } => self.on_fetch(from, first, to, out),
            Message::Fetched { from: first, entries, decided } => {
                self.on_fetched(now, from, first, entries, decided, out);
            }
            Message::Cut { snapshot } => self.on_cut(from, snapshot, out),
            Message::Rejoin { over } => self.on_rejoin(now, (from, life), over, out),
            Message::TakeOver { ballot } => self.on_take_over(now, from, ballot, out),
            Message::Forward { request } => self.on_forward(now, from, request, out),
            Message::ForwardRefused { tag } => self.on_forward_refused(now, from, &tag),
            Message::Behind { decided } => {
                self.confirm_change(decided, out);
                self.note_known_decided(now, decided, from);
            }
            Message::Join { application } => self.on_join(now, (from, life), application, out),
        }
    }

    /// Appends a record to the journal.
    fn persist(&mut self, record: Record, after: Option<AfterDisk>, out: &mut Vec<Output>) -> Lsn {
        let lsn = self.next_lsn;
        self.next_lsn = Lsn(lsn.0 + 1);
        if let Some(after) = after {
            self.awaiting_disk.push_back((lsn, after));
        }
        out.push(Output::Persist { lsn, record });
        lsn
    }

    /// The disk holds every record up to `lsn`: now, and not before, promises and votes leave.
    fn on_persisted(&mut self, now: Instant, lsn: Lsn, out: &mut Vec<Output>) {
        assert!(lsn < self.next_lsn, "the journal confirms a record that it was not given");
        self.durable = self.durable.max(lsn);
        let mut votes: Vec<(Ballot, ReplicaId, Vec<Slot>)> = Vec::new();
        while self.awaiting_disk.front().is_some_and(|(at, _)| *at <= self.durable) {
            match self.awaiting_disk.pop_front() {
                Some((_, AfterDisk::Promise { ballot, to })) => self.on_promise_durable(now, ballot, to, out),
                Some((_, AfterDisk::Vote { ballot, slot, to })) => match votes.last_mut() {
                    Some((same, same_to, slots)) if *same == ballot && *same_to == to => slots.push(slot),
                    _ => votes.push((ballot, to, vec![slot])),
                },
                Some((_, AfterDisk::Silence { at })) => self.on_silence_durable(at, out),
                Some((_, AfterDisk::Jump { slot })) => out.push(Output::Cut { through: slot }),
                None => {}
            }
        }
        for (ballot, to, slots) in votes {
            self.on_votes_durable(now, ballot, to, slots, out);
        }
        self.propose(now, out);
    }

    /// The only place that sends: what must hold for a message to leave is asserted here.
    fn send(&self, to: To, message: Message, out: &mut Vec<Output>) {
        if mutant::on(Mutant::EqualBallots) {
            return out.push(Output::Send { to, message });
        }
        match &message {
            Message::Accept { ballot, slot, decided, .. } => {
                assert!(self.voting && ballot.replica == self.config.id && *ballot == self.promised);
                assert!(*slot > Slot(0) && *decided == self.log.decided());
            }
            Message::Accepted { ballot, .. } => {
                assert!(self.voting && *ballot == self.promised && ballot.replica != self.config.id);
                assert!(matches!(to, To::One(leader) if leader == ballot.replica) || self.decides_together());
            }
            Message::Confirmed { ballot, .. } => {
                assert!(self.voting && *ballot == self.promised);
                assert!(matches!(to, To::One(leader) if leader == ballot.replica));
            }
            Message::Promise { ballot, .. } | Message::Promised { ballot, .. } => {
                assert!(self.voting && *ballot == self.promised && *ballot > Ballot::NONE);
            }
            Message::Prepare { ballot, .. }
            | Message::Heartbeat { ballot, .. }
            | Message::TakeOver { ballot }
            | Message::Confirm { ballot, .. }
            | Message::ReadIndexed { ballot, .. } => {
                assert!(self.voting && *ballot == self.promised && ballot.replica == self.config.id);
            }
            Message::PreVote { .. } | Message::PreVoteGranted { .. } => assert!(self.voting),
            _ => {}
        }
        out.push(Output::Send { to, message });
    }

    /// Whose a request must be, for whoever checks it before it is given to [`Replica::step`].
    #[must_use]
    pub fn needed(&self, request: &Request) -> Needed {
        if mutant::on(Mutant::ForgedTaken) {
            return Needed::Nothing;
        }
        self.owner(request).map_or(Needed::Nothing, Needed::Key)
    }

    /// What is known of proofs here.
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The owner of the session that a request names.
    fn owner(&self, request: &Request) -> Option<PublicKey> {
        self.sessions.get(&request.tag()).and_then(|session| session.owner)
    }

    /// Whether a request is its session's owner's, by its bytes and the key alone (rule 16).
    fn authentic(&mut self, request: &Request) -> Result<(), Rejected> {
        if mutant::on(Mutant::ForgedTaken) {
            return Ok(());
        }
        let key = match &request.body {
            // A leader's own.
            Body::Refused(_) | Body::Read(_) => None,
            Body::Open { .. } => auth::opening(request, self.configuration.cluster.request_signatures)?,
            Body::Call(_) | Body::Cancel | Body::Close => self.owner(request),
        };
        let Some(key) = key else { return Ok(()) };
        let proof = request.proof.as_ref().ok_or(Rejected::Unsigned)?;
        let statement = auth::request_statement(&self.config.name, request);
        if self.verifier.holds(proof, &statement, &key) { Ok(()) } else { Err(Rejected::BadSignature) }
    }

    fn nonsense(&self, from: ReplicaId, what: &'static str, out: &mut Vec<Output>) {
        out.push(Output::Event(Event::Nonsense { from, what }));
    }

    /// The place of a member in the member list.
    fn index_of(&self, id: ReplicaId) -> Option<usize> {
        self.configuration.cluster.members.binary_search_by_key(&id, |member| member.id).ok()
    }

    /// This member's place; a place that nobody has where it is none.
    fn own_index(&self) -> usize {
        self.index_of(self.config.id).unwrap_or(usize::MAX)
    }

    fn members(&self) -> usize {
        self.configuration.cluster.members.len()
    }

    fn leads(&self) -> bool {
        matches!(self.state, State::Leader(_))
    }

    /// The leader that this replica follows, and its ballot.
    fn followed(&self) -> Option<(ReplicaId, Ballot)> {
        match self.state {
            State::Follower => self.leader.map(|leader| (leader, self.promised)),
            _ => None,
        }
    }

    /// Whether a follower's vote decides (rule 6): in memory mode with exactly three voters the leader has accepted what it
    /// proposes before it sends it, so the follower's own acceptance makes two of three. Both are known to nobody who
    /// forgot them, because a member that lost its memory never votes again (rule 12).
    fn decides_early(&self) -> bool {
        self.is_one_of_three() && self.configuration.cluster.durability == Durability::Memory
    }

    /// Whether the votes of both followers are a majority that either of them can count.
    fn decides_together(&self) -> bool {
        self.is_one_of_three() && self.configuration.cluster.durability != Durability::Memory
    }

    /// Whether it has one of exactly three votes.
    fn is_one_of_three(&self) -> bool {
        self.voting && self.configuration.cluster.voter_count() == 3
    }

    /// A majority of applications executed every slot up to here, and so many requests of the next.
    fn note_settled(&mut self, settled: Slot, beyond: u32) {
        if settled > self.settled {
            (self.settled, self.beyond) = (settled, beyond);
        } else if settled == self.settled {
            self.beyond = self.beyond.max(beyond);
        }
    }

    /// Everything before this place was executed by a majority of applications.
    fn settled_to(&self) -> Position {
        Position { slot: self.settled.next(), call: self.beyond }
    }

    /// What must hold after every step, in release too.
    fn check(&self) {
        assert!(self.durable < self.next_lsn);
        assert!(self.execution.executed() <= self.log.decided(), "executed what is not decided");
        assert!(self.voting || matches!(self.state, State::Follower), "a learner takes part in elections");
        // Both count by places in the member list.
        let counts_in = match &self.state {
            State::Leader(leading) => Some(leading.epoch),
            State::Candidate(candidate) => Some(candidate.epoch),
            State::PreCandidate(asking) => Some(asking.epoch),
            State::Follower => None,
        };
        assert!(counts_in.is_none_or(|epoch| epoch == self.configuration.epoch), "counted in another configuration");
    }
}
