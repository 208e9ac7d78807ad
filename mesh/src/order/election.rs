//! Leader change: pre-vote, promises, recovery of what may have been decided (rules 1 to 5).

use super::normal::Leading;
use super::{AfterDisk, ChangeRefused, Event, Message, Mutant, Output, Record, Replica, State, Timer, To, mutant};
use crate::ids::{Ballot, Epoch, ReplicaId, Slot};
use crate::quorum::MemberSet;
use crate::time::{Duration, Instant};
use crate::wire::peer::Batch;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Asking around whether an election could be won.
#[derive(Debug)]
pub(super) struct PreCandidate {
    /// The configuration whose places are counted.
    pub epoch: Epoch,
    round: u64,
    granted: MemberSet,
}

/// Standing for election, then fetching what others have decided already.
#[derive(Debug)]
pub(super) struct Candidate {
    /// The configuration whose places are counted.
    pub epoch: Epoch,
    ballot: Ballot,
    /// By place in the member list.
    promises: Vec<Progress>,
    own_durable: bool,
    /// Set once a majority has promised: the highest decided mark among them, and the values above it.
    recovery: Option<Recovery>,
    since: Instant,
}

/// A leader that an operator wants to hand over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handing {
    token: u64,
    to: ReplicaId,
    until: Instant,
}

/// What has arrived of one member's promise.
#[derive(Clone, Debug, Default)]
struct Progress {
    promise: Option<Promise>,
    values: BTreeMap<Slot, (Ballot, Arc<Batch>)>,
}

/// A member's promise.
#[derive(Clone, Debug)]
pub(super) struct Promise {
    pub decided: Slot,
    pub first_kept: Slot,
    pub accepted: Vec<(Slot, Ballot)>,
}

#[derive(Debug)]
struct Recovery {
    floor: Slot,
    /// Who has everything up to the floor.
    source: Option<ReplicaId>,
    values: BTreeMap<Slot, (Ballot, Arc<Batch>)>,
}

/// Rounds above this are nobody's: the number would run out.
const ROUND_MAX: u64 = u64::MAX / 2;

impl Progress {
    fn is_complete(&self) -> bool {
        let arrived = |(slot, ballot): &(Slot, Ballot)| self.values.get(slot).is_some_and(|(b, _)| b == ballot);
        self.promise.as_ref().is_some_and(|promise| promise.accepted.iter().all(arrived))
    }
}

impl Replica {
    /// A new wait for the leader's sign of life, drawn anew each time.
    pub(super) fn arm_election(&mut self, now: Instant) {
        let timing = &self.config.timing;
        let wait = timing.election_timeout + self.rng.duration(timing.election_jitter);
        // Where nobody else votes, there is nobody whose leadership could be disturbed.
        let undisturbed = self.votes_alone() && matches!(self.state, State::Follower);
        let wait = if undisturbed { Duration::ZERO } else { wait };
        if self.voting {
            self.timers.set(Timer::Election, now + wait);
        }
    }

    /// Back to waiting for a leader.
    pub(super) fn step_down(&mut self, now: Instant) {
        self.state = State::Follower;
        self.leader = None;
        self.intake.stop_leading();
        self.timers.stop(Timer::Heartbeat);
        self.arm_election(now);
    }

    pub(super) fn on_election_timeout(&mut self, now: Instant, out: &mut Vec<Output>) {
        if !self.voting || self.leads() {
            return;
        }
        if let State::Candidate(_) = self.state {
            self.step_down(now);
        }
        if self.draining.is_some() {
            // Not `arm_election`: a member alone waits no time at all there.
            return self.timers.set(Timer::Election, now + self.config.timing.election_timeout);
        }
        self.start_pre_vote(now, out);
    }

    /// "Would you elect me?" Costs nobody anything, so that a member that was cut off does not depose a healthy leader.
    pub(super) fn start_pre_vote(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.draining.is_some() || self.leads() {
            return;
        }
        let round = self.promised.round.max(self.round_seen) + 1;
        let mut granted = MemberSet::default();
        granted.insert(self.own_index());
        let suspects = self.suspects.unwrap_or(Ballot::NONE);
        self.leader = None;
        self.state = State::PreCandidate(PreCandidate { epoch: self.configuration.epoch, round, granted });
        self.arm_election(now);
        if granted.len() >= self.quorum() {
            return self.stand(now, round, out);
        }
        let decided = self.log.decided();
        self.send(To::Others, Message::PreVote { round, decided, suspects }, out);
    }

    pub(super) fn on_pre_vote(
        &mut self,
        now: Instant,
        from: ReplicaId,
        round: u64,
        decided: Slot,
        suspects: Ballot,
        out: &mut Vec<Output>,
    ) {
        self.note_known_decided(now, decided, from);
        if !self.voting || self.voter_index(from).is_none() {
            return self.tell_behind(from, decided, out);
        }
        if round > ROUND_MAX {
            return;
        }
        if round <= self.promised.round {
            // It would stand in vain: so that it knows above which round to ask.
            return self.send(To::One(from), Message::Outvoted { promised: self.promised }, out);
        }
        // It lacks what nobody keeps any more (rule 3).
        if decided.next() < self.log.first() {
            return;
        }
        let hears = now.since(self.leader_heard) < self.config.timing.election_timeout && self.leader.is_some();
        let suspicious = self.suspects.is_some_and(|suspect| suspect == suspects && suspect == self.promised);
        let busy = match &self.state {
            State::Leader(_) => true,
            State::Candidate(candidate) => {
                candidate.recovery.is_some() && now.since(candidate.since) < self.config.timing.election_timeout
            }
            State::Follower | State::PreCandidate(_) => hears && !suspicious,
        };
        if !busy {
            self.send(To::One(from), Message::PreVoteGranted { round }, out);
        }
    }

    /// One that does not vote, or not for this candidate, knows something that the candidate does not: perhaps the very
    /// change of the configuration that is the reason.
    fn tell_behind(&self, from: ReplicaId, decided: Slot, out: &mut Vec<Output>) {
        if decided < self.log.decided() {
            self.send(To::One(from), Message::Behind { decided: self.log.decided() }, out);
        }
    }

    pub(super) fn on_pre_vote_granted(&mut self, now: Instant, from: ReplicaId, round: u64, out: &mut Vec<Output>) {
        let Some(index) = self.voter_index(from) else { return };
        let quorum = self.quorum();
        let State::PreCandidate(asking) = &mut self.state else { return };
        if asking.round != round {
            return;
        }
        asking.granted.insert(index);
        if asking.granted.len() >= quorum {
            self.stand(now, round, out);
        }
    }

    /// Phase 1a. The own promise counts once it is durable.
    pub(super) fn stand(&mut self, now: Instant, round: u64, out: &mut Vec<Output>) {
        let id = self.config.id;
        let replica = if mutant::on(Mutant::EqualBallots) { ReplicaId(0) } else { id };
        let incarnation = self.own().expect("only a member stands").incarnation;
        let ballot = Ballot { round, replica, incarnation };
        assert!(ballot > self.promised, "a candidate's ballot is above every one it promised");
        self.promised = ballot;
        self.round_seen = round;
        self.leader = None;
        self.suspects = None;
        self.state = State::Candidate(Candidate {
            epoch: self.configuration.epoch,
            ballot,
            promises: vec![Progress::default(); self.members()],
            own_durable: false,
            recovery: None,
            since: now,
        });
        self.arm_election(now);
        self.timers.set(Timer::Heartbeat, now + self.config.timing.heartbeat);
        out.push(Output::Event(Event::Standing { ballot }));
        self.persist(Record::Promised { ballot }, Some(AfterDisk::Promise { ballot, to: id }), out);
        if self.has_others() {
            self.send(To::Others, Message::Prepare { ballot, decided: self.log.decided() }, out);
        }
    }

    /// Phase 1a arrives.
    pub(super) fn on_prepare(
        &mut self,
        now: Instant,
        from: ReplicaId,
        ballot: Ballot,
        decided: Slot,
        out: &mut Vec<Output>,
    ) {
        self.note_known_decided(now, decided, from);
        if !self.valid_ballot(from, ballot, "prepare in another member's ballot", out) || !self.voting {
            return self.tell_behind(from, decided, out);
        }
        if ballot < self.promised {
            return self.send(To::One(from), Message::Outvoted { promised: self.promised }, out);
        }
        if ballot > self.promised {
            self.give_way(now, ballot, out);
        } else if self.leader == Some(from) {
            // It leads in this ballot already: the question is an old one.
            return;
        } else if ballot == self.promise_durable {
            // The candidate asks again: whatever of the promise arrived is not complete.
            return self.send_promise(from, out);
        } else if self.awaiting_disk.iter().any(|(_, after)| after.promises(ballot)) {
            return;
        }
        self.persist(Record::Promised { ballot }, Some(AfterDisk::Promise { ballot, to: from }), out);
    }

    /// Takes note of a higher ballot of somebody else.
    fn give_way(&mut self, now: Instant, ballot: Ballot, out: &mut Vec<Output>) {
        if let State::Leader(leading) = &self.state {
            out.push(Output::Event(Event::SteppedDown { ballot: leading.ballot, reason: "a higher ballot" }));
        }
        self.promised = ballot;
        self.round_seen = self.round_seen.max(ballot.round);
        self.suspects = None;
        self.step_down(now);
    }

    /// Whether `from` may lead in `ballot`: its own, in its own life, with a round that can be exceeded (rule 1).
    fn valid_ballot(&mut self, from: ReplicaId, ballot: Ballot, what: &'static str, out: &mut Vec<Output>) -> bool {
        let own = from == ballot.replica || mutant::on(Mutant::EqualBallots);
        if !own || ballot.round == 0 || ballot.round > ROUND_MAX {
            self.nonsense(from, what, out);
            return false;
        }
        // Otherwise it is of an earlier life, that is over, or of one that was removed; or of one whose vote is not known
        // here yet: it is in the log.
        let votes = |index: usize| self.configuration.cluster.members[index].incarnation == ballot.incarnation;
        self.voter_index(from).is_some_and(votes)
    }

    /// A message of a leader arrived: follow it, unless a higher ballot was promised. Says whether it is followed.
    pub(super) fn follow(&mut self, now: Instant, from: ReplicaId, ballot: Ballot, out: &mut Vec<Output>) -> bool {
        if !self.valid_ballot(from, ballot, "a leader's message in another member's ballot", out) {
            return false;
        }
        if ballot < self.promised {
            self.send(To::One(from), Message::Outvoted { promised: self.promised }, out);
            return false;
        }
        if ballot > self.promised {
            self.give_way(now, ballot, out);
        }
        if self.leads() {
            // Only with two members in one ballot; a leader does not follow itself.
            return false;
        }
        if self.leader != Some(from) || !matches!(self.state, State::Follower) {
            self.state = State::Follower;
            self.leader = Some(from);
            self.timers.stop(Timer::Heartbeat);
            out.push(Output::Event(Event::Following { ballot }));
        }
        self.leader_heard = now;
        self.arm_election(now);
        true
    }

    /// Phase 1b leaves, now that it is durable.
    pub(super) fn on_promise_durable(&mut self, now: Instant, ballot: Ballot, to: ReplicaId, out: &mut Vec<Output>) {
        self.promise_durable = self.promise_durable.max(ballot);
        if ballot != self.promised || !self.voting {
            return;
        }
        if to != self.config.id {
            return self.send_promise(to, out);
        }
        if let State::Candidate(candidate) = &mut self.state {
            candidate.own_durable = true;
            self.on_election_progress(now, out);
        }
    }

    fn send_promise(&self, to: ReplicaId, out: &mut Vec<Output>) {
        let ballot = self.promised;
        let decided = self.log.decided();
        let (first_kept, settled) = (self.log.first(), self.settled);
        let forgets = mutant::on(Mutant::VoteForgotten);
        let accepted = self.log.above(decided).filter(|_| !forgets);
        let accepted: Vec<(Slot, Ballot)> = accepted.map(|(slot, entry)| (slot, entry.ballot)).collect();
        self.send(To::One(to), Message::Promise { ballot, decided, first_kept, settled, accepted }, out);
        for (slot, entry) in self.log.above(decided).filter(|_| !forgets) {
            let (accepted, batch) = (entry.ballot, Arc::clone(&entry.batch));
            self.send(To::One(to), Message::Promised { ballot, slot, accepted, batch }, out);
        }
    }

    pub(super) fn on_promise(
        &mut self,
        now: Instant,
        from: ReplicaId,
        ballot: Ballot,
        promise: Promise,
        out: &mut Vec<Output>,
    ) {
        self.note_known_decided(now, promise.decided, from);
        let Some(index) = self.voter_index(from) else { return };
        let State::Candidate(candidate) = &mut self.state else { return };
        if candidate.ballot != ballot || candidate.promises[index].is_complete() {
            return;
        }
        candidate.promises[index].promise = Some(promise);
        self.on_election_progress(now, out);
    }

    pub(super) fn on_promised(
        &mut self,
        now: Instant,
        from: ReplicaId,
        ballot: Ballot,
        slot: Slot,
        value: (Ballot, Arc<Batch>),
        out: &mut Vec<Output>,
    ) {
        let Some(index) = self.voter_index(from) else { return };
        // No correct member has more undecided slots than it takes proposals above its decided mark.
        let bound = (self.config.limits.window * 2 + 1) as usize;
        let State::Candidate(candidate) = &mut self.state else { return };
        if candidate.ballot != ballot || candidate.promises[index].values.len() > bound {
            return;
        }
        candidate.promises[index].values.insert(slot, value);
        self.on_election_progress(now, out);
    }

    /// Once a majority has promised: what lies at or below any of their decided marks is fetched, what lies above is
    /// proposed again, holes are filled (rule 3).
    fn on_election_progress(&mut self, now: Instant, out: &mut Vec<Output>) {
        let (own, quorum) = (self.own_index(), self.quorum());
        let own_decided = self.log.decided();
        let State::Candidate(candidate) = &mut self.state else { return };
        if candidate.recovery.is_some() || !candidate.own_durable {
            return;
        }
        let complete = |(_, progress): &(usize, &Progress)| progress.is_complete();
        let promises: Vec<_> = candidate.promises.iter().enumerate().filter(complete).collect();
        if promises.len() + 1 < quorum {
            return;
        }
        let mut recovery = Recovery { floor: own_decided, source: None, values: BTreeMap::new() };
        for (slot, entry) in self.log.above_decided() {
            recovery.values.insert(slot, (entry.ballot, Arc::clone(&entry.batch)));
        }
        for (index, progress) in promises {
            let Some(promise) = progress.promise.as_ref().filter(|_| index != own) else { continue };
            let floor = promise.decided.max(promise.first_kept.previous());
            if floor > recovery.floor && !mutant::on(Mutant::NoopOverCut) {
                recovery.floor = floor;
                recovery.source = Some(self.configuration.cluster.members[index].id);
            }
            for (slot, ballot) in &promise.accepted {
                let Some((accepted, batch)) = progress.values.get(slot) else { continue };
                if accepted == ballot && recovery.values.get(slot).is_none_or(|(other, _)| other < ballot) {
                    recovery.values.insert(*slot, (*ballot, Arc::clone(batch)));
                }
            }
        }
        let (floor, source) = (recovery.floor, recovery.source);
        candidate.recovery = Some(recovery);
        candidate.since = now;
        if floor > own_decided {
            self.known_decided = self.known_decided.max(floor);
            self.arm_election(now);
            self.fetch(now, source, out);
        }
        self.on_recovery_progress(now, out);
    }

    /// Leads as soon as everything that its promisers had decided is here.
    pub(super) fn on_recovery_progress(&mut self, now: Instant, out: &mut Vec<Output>) {
        let decided = self.log.decided();
        let (epoch, members) = (self.configuration.epoch, self.members());
        let State::Candidate(candidate) = &mut self.state else { return };
        let Some(recovery) = &mut candidate.recovery else { return };
        if decided < recovery.floor {
            // What is fetched in time is progress: the next time-out is a new one.
            candidate.since = now;
            return self.arm_election(now);
        }
        let ballot = candidate.ballot;
        let mut values = std::mem::take(&mut recovery.values).split_off(&decided.next());
        let last = values.last_key_value().map_or(decided, |(slot, _)| *slot);
        self.state = State::Leader(Leading::new(ballot, decided, (epoch, members), now));
        self.leader = None;
        self.timers.stop(Timer::Election);
        self.timers.set(Timer::Heartbeat, now);
        out.push(Output::Event(Event::Leading { ballot }));
        let mut slot = decided.next();
        while slot <= last {
            let hole = || Arc::new(Batch { time: 0, settled: self.settled, ..Batch::default() });
            let batch = values.remove(&slot).map_or_else(hole, |(_, batch)| batch);
            self.propose_at(now, slot, batch, out);
            if matches!(&self.state, State::Leader(leading) if leading.is_configuring()) {
                // Nothing goes above it until it is decided; then this replica prepares anew (rule 11).
                break;
            }
            slot = slot.next();
        }
        // A member alone hears of nobody's marks but its own.
        self.update_settled();
        let confirms = slot == decided.next() && self.confirms();
        if let State::Leader(leading) = &mut self.state {
            leading.confirming = confirms;
            leading.rounds.reported = last;
        }
        self.start_leading_intake();
        self.propose(now, out);
    }

    /// The candidate's tick: what was asked or promised may be lost, so ask again; and show life while fetching, so
    /// that nobody else stands meanwhile.
    pub(super) fn on_candidate_tick(&mut self, out: &mut Vec<Output>) {
        let State::Candidate(candidate) = &self.state else { return };
        let ballot = candidate.ballot;
        if candidate.recovery.is_some() {
            let heartbeat = self.heartbeat(ballot, false);
            return self.send(To::Others, heartbeat, out);
        }
        let own = self.own_index();
        let missing = candidate.promises.iter().enumerate().filter(|(index, p)| *index != own && !p.is_complete());
        let voters = missing.map(|(index, _)| &self.configuration.cluster.members[index]).filter(|member| member.votes);
        let missing: Vec<ReplicaId> = voters.map(|member| member.id).collect();
        for id in missing {
            self.send(To::One(id), Message::Prepare { ballot, decided: self.log.decided() }, out);
        }
    }

    /// Somebody has promised a higher ballot: this one is over.
    pub(super) fn on_outvoted(&mut self, now: Instant, from: ReplicaId, promised: Ballot, out: &mut Vec<Output>) {
        if promised.round > ROUND_MAX {
            return self.nonsense(from, "a round out of range", out);
        }
        self.round_seen = self.round_seen.max(promised.round);
        if promised <= self.promised {
            return;
        }
        match &self.state {
            State::Leader(leading) => {
                out.push(Output::Event(Event::SteppedDown { ballot: leading.ballot, reason: "outvoted" }));
                self.step_down(now);
            }
            State::Candidate(_) => self.step_down(now),
            State::Follower | State::PreCandidate(_) => {}
        }
    }

    /// Stops: a leader lets another one take over, and nobody stands any more.
    pub(super) fn on_drain(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.draining = Some(now + self.config.timing.drain);
        self.hand_over(now, out);
    }

    /// A leader that said goodbye and is gone is not waited for. Usually another one leads by then.
    pub(super) fn on_left(&mut self, now: Instant, member: ReplicaId) {
        if self.voting && self.draining.is_none() && self.followed().is_some_and(|(leader, _)| leader == member) {
            // Whoever asks for this vote gets it; a little by chance, so that not all ask at once.
            self.leader = None;
            let hesitation = self.rng.duration(self.config.timing.heartbeat);
            self.timers.set(Timer::Election, now + hesitation);
        }
    }

    pub(super) fn hand_over(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.draining.is_none() {
            return;
        }
        if let (State::Leader(leading), Some(successor)) = (&self.state, self.best_successor(now)) {
            let ballot = leading.ballot;
            self.send(To::One(successor), Message::TakeOver { ballot }, out);
        }
    }

    /// A witness leads only until somebody can who is asked by clients.
    pub(super) fn yield_to_application(&self, now: Instant, out: &mut Vec<Output>) {
        let State::Leader(leading) = &self.state else { return };
        if self.application {
            return;
        }
        let ballot = leading.ballot;
        let level = |id: &ReplicaId| self.index_of(*id).is_some_and(|index| self.is_level(now, index));
        let successor = self.configuration.cluster.applications().map(|member| member.id).find(level);
        if let Some(successor) = successor {
            self.send(To::One(successor), Message::TakeOver { ballot }, out);
        }
    }

    /// An operator wants another leader.
    pub(super) fn on_transfer_leader(&mut self, now: Instant, token: u64, to: ReplicaId, out: &mut Vec<Output>) {
        let result = match &self.state {
            State::Leader(_) if self.handing.is_some() => Err(ChangeRefused::InFlight),
            State::Leader(_) if to == self.config.id => Ok(()),
            State::Leader(_) => match self.configuration.cluster.member(to) {
                None => Err(ChangeRefused::UnknownMember),
                Some(member) if !member.votes => Err(ChangeRefused::NotAVoter),
                Some(_) => {
                    self.handing = Some(Handing { token, to, until: now + self.config.timing.election_timeout * 2 });
                    return self.hand_on(now, out);
                }
            },
            _ => Err(ChangeRefused::NotLeader { leader: self.followed().map(|(leader, _)| leader) }),
        };
        out.push(Output::Changed { token, result });
    }

    /// Lets the member take over that an operator wants to lead, once it is level.
    pub(super) fn hand_on(&self, now: Instant, out: &mut Vec<Output>) {
        let (State::Leader(leading), Some(Handing { to, .. })) = (&self.state, self.handing) else { return };
        let ballot = leading.ballot;
        if self.index_of(to).is_some_and(|index| self.is_level(now, index)) {
            self.send(To::One(to), Message::TakeOver { ballot }, out);
        }
    }

    /// What became of that.
    pub(super) fn end_handing(&mut self, now: Instant, out: &mut Vec<Output>) {
        let Some(Handing { token, to, until }) = self.handing else { return };
        let result = match self.followed() {
            Some((leader, _)) if leader == to => Ok(()),
            Some((leader, _)) => Err(ChangeRefused::NotLeader { leader: Some(leader) }),
            None if now < until => return,
            None if self.index_of(to).is_some_and(|index| self.is_level(now, index)) => Err(ChangeRefused::NotTaken),
            None => Err(ChangeRefused::NotCaughtUp),
        };
        self.handing = None;
        out.push(Output::Changed { token, result });
    }

    /// The leader asks to be replaced: there is nobody to disturb, so no pre-vote is needed.
    pub(super) fn on_take_over(&mut self, now: Instant, from: ReplicaId, ballot: Ballot, out: &mut Vec<Output>) {
        if self.followed() == Some((from, ballot)) && self.voting && self.draining.is_none() {
            let round = self.promised.round.max(self.round_seen) + 1;
            self.stand(now, round, out);
        }
    }
}
