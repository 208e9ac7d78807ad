//! The normal case: the leader proposes, followers vote, decisions ride on what is sent anyway.

use super::reads::Rounds;
use super::{AfterDisk, Event, Message, Mutant, Output, Record, Replica, State, Timer, To, mutant};
use crate::ids::{Ballot, Digest, Epoch, Position, ReplicaId, Slot};
use crate::quorum::{MemberSet, reached_by};
use crate::time::{Duration, Instant};
use crate::wire::peer::{Batch, Command, Marks};
use crate::wire::{Body, Refusal};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What a leader keeps.
#[derive(Debug)]
pub(super) struct Leading {
    /// The configuration whose places are counted.
    pub epoch: Epoch,
    pub ballot: Ballot,
    /// The next slot to propose.
    next: Slot,
    /// Proposed and not decided.
    in_flight: BTreeMap<Slot, Flight>,
    /// What is known of each member, in the order of the member list; the own place is not used.
    pub peers: Vec<Peer>,
    /// Bytes of each slot that was proposed and is not settled, and their sum (rule 9).
    unsettled: VecDeque<(Slot, usize)>,
    unsettled_bytes: usize,
    /// The decided mark that the others were told.
    told: Slot,
    /// The cluster's own commands that wait to be proposed.
    commands: VecDeque<Command>,
    /// A change of the configuration is proposed: nothing goes above it until it is decided (rule 11).
    configuring: bool,
    /// A slot is to be decided although there may be nothing to order: somebody was removed in the one before.
    pub confirming: bool,
    /// The decided mark when the members were asked last how far they are.
    pub asked: Slot,
    /// The slot whose rolling hash the followers were asked for, and the last one that was judged.
    pub compare: Slot,
    pub compared: Slot,
    /// A hash that a majority agrees on, for the next proposal; and whether that is to be made at once.
    pub agreed: Option<(Slot, Digest)>,
    pub urgent: bool,
    /// The last hash of a majority from which somebody's differed.
    pub urged: Option<Digest>,
    /// Whose turn it is to take a snapshot, by place in the member list.
    pub turn: Option<usize>,
    /// Who wants to know that it leads.
    pub rounds: Box<Rounds>,
}

/// What a leader's heartbeat says of the cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaderMarks {
    pub settled: Slot,
    pub beyond: u32,
    pub covered: Slot,
    pub turn: Option<ReplicaId>,
}

/// Commands that wait at one time.
const COMMANDS: usize = 64;

#[derive(Debug)]
struct Flight {
    votes: MemberSet,
    sent: Instant,
    /// Of its batch.
    requests: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Peer {
    heard: Instant,
    /// It has said how far it is.
    pub said: bool,
    pub marks: Marks,
}

impl Peer {
    /// Whether it was heard lately.
    pub(super) fn lives(&self, now: Instant, silence: Duration) -> bool {
        now.since(self.heard) < silence
    }
}

/// Heartbeats that one stands for in a cluster that does nothing: each wakes every member up several times. The driver puts
/// them on its grid, 256 ms apart with what ships: the next may be late by nearly as much before the shortest election
/// timeout ends. One that is lost is sent again by its link before that, and a false alarm ends at the pre-vote.
const CALM: u32 = 2;

/// A vote on so many requests at most is sent to the other follower too. With more there is enough to do, and the word on
/// them comes with the next proposal.
const SHARED_REQUESTS: usize = 4;

/// Bytes of proposals that are sent again at one heartbeat, at most.
const RESEND_BYTES: usize = 1 << 20;

impl Leading {
    /// A leader that has decided up to a slot, in a configuration of so many members.
    pub(super) fn new(ballot: Ballot, decided: Slot, (epoch, members): (Epoch, usize), now: Instant) -> Self {
        let peer = Peer { heard: now, said: false, marks: Marks::default() };
        Self {
            epoch,
            ballot,
            next: decided.next(),
            in_flight: BTreeMap::new(),
            peers: vec![peer; members],
            unsettled: VecDeque::new(),
            unsettled_bytes: 0,
            told: decided,
            commands: VecDeque::new(),
            configuring: false,
            confirming: false,
            asked: decided,
            compare: Slot(0),
            compared: Slot(0),
            urged: None,
            agreed: None,
            urgent: false,
            turn: None,
            rounds: Box::default(),
        }
    }

    /// The highest slot that was proposed, or decided before this replica led.
    pub(super) fn proposed(&self) -> Slot {
        self.next.previous()
    }

    /// Whether a change of the configuration is proposed and not decided.
    pub(super) fn is_configuring(&self) -> bool {
        self.configuring
    }

    /// Whether a change of the configuration waits or is proposed.
    pub(super) fn changes(&self) -> bool {
        self.configuring || self.commands.iter().any(Command::configures)
    }

    fn hear(&mut self, index: usize, now: Instant, marks: Marks) {
        let peer = &mut self.peers[index];
        (peer.heard, peer.said) = (now, true);
        // Marks of reordered messages may be older; those of a restarted application are lower and true.
        peer.marks.decided = peer.marks.decided.max(marks.decided);
        peer.marks.executed = marks.executed;
        peer.marks.silent = marks.silent;
        peer.marks.snapshot = marks.snapshot;
        peer.marks.digest = marks.digest.or(peer.marks.digest);
        peer.marks.turn = marks.turn;
    }
}

impl Replica {
    /// Whether a new slot may be opened: the window allows it.
    fn may_open(&self) -> bool {
        let State::Leader(leading) = &self.state else { return false };
        let window = self.config.limits.window;
        let configuring = leading.configuring && !mutant::on(Mutant::TwoChanges);
        self.draining.is_none() && !configuring && (leading.in_flight.len() as u64) < window
    }

    /// Whether requests may be in it: the settled mark allows it (rule 9). The cluster's own commands do not wait for it:
    /// an abort may be what it takes to move the mark.
    pub(super) fn may_propose(&self) -> bool {
        let State::Leader(leading) = &self.state else { return false };
        let limits = &self.config.limits;
        self.may_open()
            && leading.next.0 <= self.settled.0.saturating_add(limits.unsettled_slots)
            && (leading.unsettled_bytes < limits.unsettled_bytes || leading.unsettled.is_empty())
    }

    /// Whether another slot in flight costs more than it gains: what is queued is proposed at once while few slots and few
    /// requests are in flight, else only in whole batches. So batches grow with the load, and each message and sync is
    /// for many requests; every vote that decides a slot opens the way for the next.
    fn is_busy(&self) -> bool {
        let State::Leader(leading) = &self.state else { return false };
        let limits = &self.config.limits;
        let under_way: usize = leading.in_flight.values().map(|flight| flight.requests).sum();
        let few = (leading.in_flight.len() as u64) < limits.pipeline_depth && self.intake.queued() >= under_way / 2;
        !few && self.intake.queued() < limits.batch_requests
    }

    /// Proposes what is queued, unless it is better to wait for more.
    pub(super) fn propose(&mut self, now: Instant, out: &mut Vec<Output>) {
        while self.may_open() {
            let room = self.may_propose();
            let State::Leader(leading) = &mut self.state else { return };
            let confirming = std::mem::take(&mut leading.confirming);
            let own = confirming || !leading.commands.is_empty() || (room && std::mem::take(&mut leading.urgent));
            if !own && (!room || self.intake.queued() == 0) {
                return;
            }
            let slot = leading.next;
            if !own && self.is_busy() {
                return;
            }
            let batch = self.next_batch(now, room);
            if batch.requests.is_empty() && batch.command.is_none() && batch.agreed.is_none() && !confirming {
                return;
            }
            self.propose_at(now, slot, Arc::new(batch), out);
        }
    }

    fn next_batch(&mut self, now: Instant, room: bool) -> Batch {
        let full = self.log_is_full();
        let limits = &self.config.limits;
        let time = self.config.wall_base.saturating_add(now.as_nanos());
        let mut batch = Batch { time, settled: self.settled, ..Batch::default() };
        if let State::Leader(leading) = &mut self.state {
            batch.agreed = leading.agreed.take();
            batch.command = leading.commands.pop_front();
        }
        // What was settled while the abort waited was executed by a majority.
        let settled_to = self.settled_to();
        batch.command = batch.command.filter(|command| !matches!(command, Command::Abort { at } if *at < settled_to));
        let mut bytes = 0;
        while room && batch.requests.len() < limits.batch_requests && bytes < limits.batch_bytes {
            // The first request is taken whatever its size, so that none is too large for ever.
            let fits = if batch.requests.is_empty() { usize::MAX } else { limits.batch_bytes - bytes };
            let Some(mut request) = self.intake.next(fits) else { break };
            if full && matches!(request.body, Body::Call(_)) {
                request.body = Body::Refused(Refusal::LogFull);
            }
            bytes += request.body_bytes();
            batch.requests.push(request);
        }
        batch
    }

    /// Phase 2a, and the leader's own vote, which counts once it is durable.
    pub(super) fn propose_at(&mut self, now: Instant, slot: Slot, batch: Arc<Batch>, out: &mut Vec<Output>) {
        let own = self.config.id;
        let decided = self.log.decided();
        let bytes = batch.body_bytes();
        let State::Leader(leading) = &mut self.state else { return };
        let ballot = leading.ballot;
        leading.next = slot.next().max(leading.next);
        leading
            .in_flight
            .insert(slot, Flight { votes: MemberSet::default(), sent: now, requests: batch.requests.len() });
        self.timers.set_if_later(Timer::Heartbeat, now + self.config.timing.heartbeat);
        leading.unsettled.push_back((slot, bytes));
        leading.unsettled_bytes += bytes;
        leading.told = decided;
        leading.configuring |= batch.command.as_ref().is_some_and(Command::configures);
        let configured = self.configuration.configured;
        self.note_proposed_change(slot, batch.command);
        self.record_decided(out);
        let record = Record::Accepted { slot, ballot, batch: Arc::clone(&batch) };
        let lsn = self.persist(record, Some(AfterDisk::Vote { ballot, slot, to: own }), out);
        self.log.put(slot, ballot, Arc::clone(&batch), lsn);
        if self.has_others() {
            self.send(To::Others, Message::Accept { ballot, slot, decided, configured, batch }, out);
        }
    }

    /// The first request whose abort waits or is proposed and not decided.
    fn aborting(&self) -> Option<Position> {
        let State::Leader(leading) = &self.state else { return None };
        let proposed = self.log.above_decided().filter_map(|(_, entry)| entry.batch.command);
        let aborts = leading.commands.iter().copied().chain(proposed).filter_map(|command| match command {
            Command::Abort { at } => Some(at),
            Command::Configure { .. } | Command::Restart { .. } => None,
        });
        aborts.min()
    }

    /// A command of the cluster waits for its slot, once.
    pub(super) fn order(&mut self, command: Command) {
        let in_flight = self.log.above_decided().any(|(_, entry)| entry.batch.command.as_ref() == Some(&command));
        if let State::Leader(leading) = &mut self.state
            && !in_flight
            && !leading.commands.contains(&command)
            && leading.commands.len() < COMMANDS
        {
            leading.commands.push_back(command);
        }
    }

    /// Phase 2a arrives. The vote leaves when it is durable.
    pub(super) fn on_accept(
        &mut self,
        now: Instant,
        from: ReplicaId,
        ballot: Ballot,
        (slot, configured): (Slot, Slot),
        batch: Arc<Batch>,
        out: &mut Vec<Output>,
    ) {
        if !self.follow(now, from, ballot, out) {
            return;
        }
        // Of a configuration that is not known here yet, or that is over, as its leader does not know yet (rule 11).
        let known = self.configuration.configured;
        let other = configured > self.log.decided() || (configured < known && known < slot);
        if other || slot.0 > self.log.decided().0.saturating_add(self.config.limits.window * 2) {
            // That, or too far ahead to hold: as if it was lost. What is decided of it is fetched.
            return;
        }
        if slot <= self.log.decided() || self.log.get(slot).is_some_and(|entry| entry.ballot >= ballot) {
            return self.vote_again(ballot, slot, from, out);
        }
        self.record_decided(out);
        let after = self.voting.then_some(AfterDisk::Vote { ballot, slot, to: from });
        let record = Record::Accepted { slot, ballot, batch: Arc::clone(&batch) };
        let lsn = self.persist(record, after, out);
        self.log.put(slot, ballot, batch, lsn);
        if mutant::on(Mutant::AcknowledgeBeforeSync) && self.voting {
            let marks = self.marks();
            self.send(To::One(from), Message::Accepted { ballot, slots: vec![slot], marks }, out);
        }
    }

    /// A proposal that is here already: the leader has not heard of the vote. For a decided slot the vote may be given
    /// whatever ballot the value was accepted in: the value is the chosen one.
    fn vote_again(&mut self, ballot: Ballot, slot: Slot, to: ReplicaId, out: &mut Vec<Output>) {
        let Some(entry) = self.log.get(slot) else { return };
        let valid = entry.ballot == ballot || slot <= self.log.decided();
        if self.voting && valid && entry.lsn <= self.durable && ballot == self.promised {
            let marks = self.marks();
            self.send(To::One(to), Message::Accepted { ballot, slots: vec![slot], marks }, out);
        }
    }

    /// Votes of this replica are durable.
    pub(super) fn on_votes_durable(
        &mut self,
        now: Instant,
        ballot: Ballot,
        to: ReplicaId,
        slots: Vec<Slot>,
        out: &mut Vec<Output>,
    ) {
        // A vote in a ballot that was given up meanwhile, or of a life that is over, is of no use to anybody.
        if ballot != self.promised || !self.voting {
            return;
        }
        if to == self.config.id {
            let own = self.own_index();
            return self.count_votes(now, own, &slots, out);
        }
        if self.decides_early() {
            for slot in &slots {
                if self.log.get(*slot).is_some_and(|entry| entry.ballot == ballot) {
                    self.log.decide(*slot);
                }
            }
            self.advance(now, out);
            if ballot != self.promised || !self.voting {
                return;
            }
        }
        // The other follower's vote may have come first.
        let decided = self.heard.filter(|(of, slot)| *of == ballot && slots.contains(slot)).map(|(_, slot)| slot);
        let small =
            |slot: &Slot| self.log.get(*slot).is_some_and(|entry| entry.batch.requests.len() <= SHARED_REQUESTS);
        let shared = self.decides_together() && slots.len() == 1 && slots.iter().all(small);
        let marks = self.marks();
        let to = if shared { To::Others } else { To::One(to) };
        self.send(to, Message::Accepted { ballot, slots, marks }, out);
        if let Some(slot) = decided {
            self.log.decide(slot);
            self.advance(now, out);
        }
    }

    /// The other follower's vote: with the own one it is a majority of three, and nobody need wait for the leader's word.
    fn on_vote_of_other(&mut self, now: Instant, ballot: Ballot, slots: &[Slot], out: &mut Vec<Output>) {
        if ballot != self.promised || !self.decides_together() || slots.len() != 1 {
            return;
        }
        let slot = slots[0];
        let entry = self.log.get(slot).filter(|entry| entry.ballot == ballot);
        let durable = entry.is_some_and(|entry| entry.lsn <= self.durable || mutant::on(Mutant::OthersVoteAlone));
        if durable {
            self.log.decide(slot);
            self.advance(now, out);
        } else {
            self.heard = Some((ballot, slot));
        }
    }

    /// Phase 2b arrives.
    pub(super) fn on_accepted(
        &mut self,
        now: Instant,
        from: ReplicaId,
        ballot: Ballot,
        slots: &[Slot],
        marks: Marks,
        out: &mut Vec<Output>,
    ) {
        // One that was removed by a slot that this leader lacks votes for nothing any more, and has that slot.
        self.note_known_decided(now, marks.decided, from);
        let Some(index) = self.index_of(from) else { return };
        let votes = self.voter_index(from).is_some();
        if votes && matches!(self.state, State::Follower) {
            return self.on_vote_of_other(now, ballot, slots, out);
        }
        let State::Leader(leading) = &mut self.state else { return };
        if ballot != leading.ballot {
            return;
        }
        leading.hear(index, now, marks);
        self.update_settled();
        if marks.silent.is_some() {
            self.consider_abort();
        }
        self.hand_on(now, out);
        if votes {
            self.count_votes(now, index, slots, out);
        }
    }

    fn count_votes(&mut self, now: Instant, index: usize, slots: &[Slot], out: &mut Vec<Output>) {
        let quorum = self.quorum();
        let State::Leader(leading) = &mut self.state else { return };
        for slot in slots {
            let Some(flight) = leading.in_flight.get_mut(slot) else { continue };
            flight.votes.insert(index);
            if flight.votes.len() >= quorum || mutant::on(Mutant::MinorityCommit) {
                leading.in_flight.remove(slot);
                self.log.decide(*slot);
            }
        }
        self.advance(now, out);
        self.propose(now, out);
        self.tell_decisions(out);
    }

    /// Tells the others what is decided, if no proposal has carried it.
    pub(super) fn tell_decisions(&mut self, out: &mut Vec<Output>) {
        let (decided, early) = (self.log.decided(), self.decides_early());
        let alone = !self.has_others();
        let State::Leader(leading) = &mut self.state else { return };
        // Followers that decide early know already.
        if leading.told >= decided || early || alone {
            return;
        }
        leading.told = decided;
        let ballot = leading.ballot;
        let heartbeat = self.heartbeat(ballot, false);
        self.send(To::Others, heartbeat, out);
    }

    /// What a leader says of the cluster.
    pub(super) fn heartbeat(&self, ballot: Ballot, answer: bool) -> Message {
        let (decided, settled, beyond, covered) = (self.log.decided(), self.settled, self.beyond, self.covered);
        let State::Leader(Leading { turn: Some(turn), .. }) = &self.state else {
            return Message::Heartbeat { ballot, decided, settled, beyond, covered, turn: None, answer };
        };
        let turn = Some(self.configuration.cluster.members[*turn].id);
        Message::Heartbeat { ballot, decided, settled, beyond, covered, turn, answer }
    }

    /// How far this replica is.
    pub(super) fn marks(&self) -> Marks {
        let judgement = &self.execution.judgement;
        let executed = self.execution.executed();
        Marks {
            decided: self.log.decided(),
            executed: if judgement.is_quarantined() { executed.min(judgement.matched()) } else { executed },
            silent: self.execution.silence.filter(|silence| silence.stated).map(|silence| silence.at),
            snapshot: self.execution.snapshot(),
            digest: None,
            turn: self.expected_pause(),
        }
    }

    /// The leader's word on what is decided: counts with its ballot (rule 2).
    pub(super) fn on_leader_decided(
        &mut self,
        now: Instant,
        from: ReplicaId,
        ballot: Ballot,
        decided: Slot,
        out: &mut Vec<Output>,
    ) {
        // True whoever says it, also a leader whose incarnation is not known here yet.
        self.note_known_decided(now, decided, from);
        if self.followed() != Some((from, ballot)) {
            return;
        }
        if decided <= self.log.decided() {
            return;
        }
        for (slot, entry) in self.log.undecided_mut(decided) {
            if slot <= decided && (entry.ballot == ballot || mutant::on(Mutant::DecidedAnyBallot)) {
                entry.decided = true;
            }
        }
        self.advance(now, out);
    }

    pub(super) fn on_heartbeat(
        &mut self,
        now: Instant,
        from: ReplicaId,
        ballot: Ballot,
        marks: LeaderMarks,
        answer: bool,
        out: &mut Vec<Output>,
    ) {
        if !self.follow(now, from, ballot, out) {
            return;
        }
        let LeaderMarks { settled, beyond, covered, turn } = marks;
        self.turn = turn == Some(self.config.id);
        self.note_settled(settled, beyond);
        if covered > self.covered {
            self.covered = covered;
            self.cut(out);
        }
        if answer {
            let digest = self.digest_at(settled).filter(|_| self.voting).map(|digest| (settled, digest));
            let marks = Marks { digest, ..self.marks() };
            self.send(To::One(from), Message::Following { ballot, marks }, out);
        }
    }

    pub(super) fn on_following(
        &mut self,
        now: Instant,
        from: ReplicaId,
        ballot: Ballot,
        marks: Marks,
        out: &mut Vec<Output>,
    ) {
        self.note_known_decided(now, marks.decided, from);
        let Some(index) = self.index_of(from) else { return };
        if let State::Leader(leading) = &mut self.state
            && leading.ballot == ballot
        {
            leading.hear(index, now, marks);
            self.update_settled();
            if marks.silent.is_some() {
                self.consider_abort();
            }
            self.propose(now, out);
        }
    }

    /// The settled mark: the highest slot that a majority of applications has executed. It never falls.
    pub(super) fn update_settled(&mut self) {
        let State::Leader(leading) = &self.state else { return };
        // Who fell silent on a request executed everything before it.
        let reached = |marks: &Marks| Position::after(marks.executed).max(marks.silent.unwrap_or_default());
        let mut all: Vec<Position> = self.heard_of_applications(leading).map(|(_, marks)| reached(&marks)).collect();
        let mut reached = reached_by(self.configuration.cluster.settling(), &mut all);
        // What was ordered when others were counted may have been answered by one of them: any execution settles it.
        reached = reached.max(reached_by(1, &mut all).min(Position::after(self.configuration.elected)));
        // What is being aborted is not settled, whatever its execution yields meanwhile.
        if let Some(at) = self.aborting() {
            reached = reached.min(at);
        }
        self.note_settled(reached.slot.previous(), reached.call);
        let State::Leader(leading) = &mut self.state else { return };
        while leading.unsettled.front().is_some_and(|(slot, _)| *slot <= self.settled) {
            if let Some((_, bytes)) = leading.unsettled.pop_front() {
                leading.unsettled_bytes -= bytes;
            }
        }
    }

    /// The marks of each member whose replies count, the leader's own among them.
    pub(super) fn heard_of_applications<'a>(
        &'a self,
        leading: &'a Leading,
    ) -> impl Iterator<Item = (usize, Marks)> + 'a {
        let own = self.own_index();
        let members = self.configuration.cluster.members.iter().enumerate().filter(|(_, member)| member.elects());
        members.map(move |(index, _)| (index, if index == own { self.marks() } else { leading.peers[index].marks }))
    }

    /// The leader's tick: step down without a majority (rule 4), show life, send again what may be lost.
    pub(super) fn on_heartbeat_due(&mut self, now: Instant, out: &mut Vec<Output>) {
        let pause = self.config.timing.heartbeat * if self.is_calm() { CALM } else { 1 };
        self.timers.set(Timer::Heartbeat, now + pause);
        match &self.state {
            State::Candidate(_) => self.on_candidate_tick(out),
            State::Leader(leading) => {
                let (own, silence) = (self.own_index(), self.config.timing.election_timeout);
                let ballot = leading.ballot;
                let members = self.configuration.cluster.members.iter().enumerate();
                let alive = |index: usize| index == own || leading.peers[index].lives(now, silence);
                if members.filter(|(index, member)| member.votes && alive(*index)).count() < self.quorum() {
                    out.push(Output::Event(Event::SteppedDown { ballot, reason: "no answer from a majority" }));
                    return self.step_down(now);
                }
                self.compare_digests(out);
                self.give_turn(now);
                self.consider_abort();
                self.cut(out);
                if let State::Leader(leading) = &mut self.state {
                    leading.compare = self.settled;
                    leading.asked = self.log.decided();
                }
                if self.has_others() {
                    let heartbeat = self.heartbeat(ballot, true);
                    self.send(To::Others, heartbeat, out);
                }
                self.resend(now, out);
                self.record_decided(out);
                self.hand_over(now, out);
                self.hand_on(now, out);
                self.yield_to_application(now, out);
                self.promote_by_itself(now, out);
                self.propose(now, out);
            }
            State::Follower | State::PreCandidate(_) => self.timers.stop(Timer::Heartbeat),
        }
    }

    /// Whether a rarer sign of life is enough: all members have executed all there is, and nothing waits for the next tick.
    fn is_calm(&self) -> bool {
        let State::Leader(leading) = &self.state else { return false };
        let (decided, own) = (self.log.decided(), self.own_index());
        let level = |(index, peer): (usize, &Peer)| {
            index == own || (peer.said && peer.marks.executed == decided && peer.marks.turn.is_none())
        };
        self.application
            && leading.in_flight.is_empty()
            && leading.commands.is_empty()
            && leading.turn.is_none()
            && self.expected_pause().is_none()
            && self.draining.is_none()
            && self.handing.is_none()
            && self.execution.executed() == decided
            && leading.asked == decided
            && leading.peers.iter().enumerate().all(level)
            && self.configuration.cluster.members.iter().all(|member| member.votes)
    }

    /// Sends proposals again that a living member has not voted for in two heartbeats.
    fn resend(&mut self, now: Instant, out: &mut Vec<Output>) {
        let decided = self.log.decided();
        let (patience, silence) = (self.config.timing.heartbeat * 2, self.config.timing.election_timeout);
        let (own, configured) = (self.own_index(), self.configuration.configured);
        let members = &self.configuration.cluster.members;
        let State::Leader(leading) = &mut self.state else { return };
        let ballot = leading.ballot;
        let mut again = Vec::new();
        let mut bytes = 0;
        for (slot, flight) in leading.in_flight.iter_mut().filter(|(_, flight)| now.since(flight.sent) >= patience) {
            let Some(entry) = self.log.get(*slot) else { continue };
            if bytes >= RESEND_BYTES {
                break;
            }
            flight.sent = now;
            for (index, peer) in leading.peers.iter().enumerate() {
                if index != own && members[index].votes && !flight.votes.contains(index) && peer.lives(now, silence) {
                    bytes += entry.batch.body_bytes() + 1024;
                    again.push((members[index].id, *slot, Arc::clone(&entry.batch)));
                }
            }
        }
        for (to, slot, batch) in again {
            self.send(To::One(to), Message::Accept { ballot, slot, decided, configured, batch }, out);
        }
    }

    /// Slots that were fetched as decided need no votes any more. If they reach beyond what this leader proposed,
    /// another one leads already.
    pub(super) fn forget_flights(&mut self, now: Instant, from: Slot, to: Slot, out: &mut Vec<Output>) {
        let State::Leader(leading) = &mut self.state else { return };
        leading.in_flight.retain(|slot, _| *slot < from || *slot >= to);
        if to > leading.next {
            out.push(Output::Event(Event::SteppedDown { ballot: leading.ballot, reason: "another leader decided" }));
            self.step_down(now);
        }
    }

    /// The living member that is furthest, to take over from a leader that stops.
    pub(super) fn best_successor(&self, now: Instant) -> Option<ReplicaId> {
        let State::Leader(leading) = &self.state else { return None };
        let silence = self.config.timing.election_timeout;
        let members = self.configuration.cluster.members.iter().zip(&leading.peers);
        let others = members.filter(|(member, _)| member.votes && member.id != self.config.id);
        let living = others.filter(|(_, peer)| peer.lives(now, silence));
        living.max_by_key(|(_, peer)| peer.marks.decided).map(|(member, _)| member.id)
    }
}
