//! The configuration (rules 11 and 12): who is a member, in which life, and who of them votes. It changes by ordered
//! commands, one at a time; whoever led or stood prepares anew behind each, so that nothing that is counted by a member's
//! place in the list outlives the list.
//!
//! A change is in the configuration from the slot after its own on. What a replica knows of the configuration never goes
//! back: one that replays from further below, or begins with an older snapshot, passes over the changes that it has.

use super::{Event, Message, Mutant, Output, Record, Replica, State, Timer, To, mutant};
use crate::config::{ClusterConfig, Configuration, Member, Retired};
use crate::ids::{Epoch, Life, ReplicaId, Slot};
use crate::quorum::majority;
use crate::time::Instant;
use crate::wire::peer::{Change, Command};

/// A change that an operator asked for here and whose end is not known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    token: u64,
    command: Command,
    stage: Stage,
    /// Leadership was lost with it: so long its slot may still tell what became of it.
    until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It waits for its slot.
    Queued,
    /// It is proposed.
    Proposed(Slot),
    /// It is decided, and waits for a slot above that the new configuration decides: then a majority of that has it
    /// durably, since nobody votes there without holding it (rule 11).
    Decided(Slot),
}

/// Between two looks of one that was removed.
const REMOVED_LOOKS: u32 = 5;

impl Replica {
    /// This member's entry, while it is one.
    pub(super) fn own(&self) -> Option<&Member> {
        self.configuration.cluster.member(self.config.id)
    }

    /// Whether the configuration gives this life the member's incarnation.
    fn has_incarnation(&self) -> bool {
        self.own().is_some_and(|own| own.life == self.config.life || mutant::on(Mutant::VoteAfterAmnesia))
    }

    /// Whether it gives or gave it to this life.
    pub(super) fn was_granted(&self) -> bool {
        let retired = &self.configuration.cluster.retired;
        let removed = |retired: &Retired| retired.id == self.config.id && retired.life == self.config.life;
        self.granted || self.has_incarnation() || retired.iter().any(removed)
    }

    /// Whether this life's votes count.
    pub(super) fn may_vote(&self) -> bool {
        let votes = self.own().is_some_and(|own| own.votes || mutant::on(Mutant::LearnerCounted));
        // Nobody votes who does not hold every slot up to the last change: one whose snapshot is gone, and the log cut behind
        // it, does not know which that is before it has again what it had decided.
        let needed = self.configuration.configured.max(self.decided_before);
        votes && self.has_incarnation() && !self.superseded && self.log.decided() >= needed
    }

    /// Whether a message of `from` in this life is a member's.
    pub(super) fn is_current(&self, from: ReplicaId, life: Life) -> bool {
        let member = self.configuration.cluster.member(from);
        member.is_some_and(|member| member.life == life || mutant::on(Mutant::VoteAfterAmnesia))
    }

    /// The place of a voter in the member list.
    pub(super) fn voter_index(&self, id: ReplicaId) -> Option<usize> {
        let votes =
            |index: &usize| self.configuration.cluster.members[*index].votes || mutant::on(Mutant::LearnerCounted);
        self.index_of(id).filter(votes)
    }

    /// How many voters make a majority.
    pub(super) fn quorum(&self) -> usize {
        let voters = self.configuration.cluster.voter_count();
        majority(if mutant::on(Mutant::OldQuorum) { voters.min(self.voters_before) } else { voters })
    }

    /// Whether there is any other member.
    pub(super) fn has_others(&self) -> bool {
        self.configuration.cluster.members.iter().any(|member| member.id != self.config.id)
    }

    /// Whether nobody else's vote is needed.
    pub(super) fn votes_alone(&self) -> bool {
        self.voting && self.configuration.cluster.voter_count() == 1
    }

    /// The configuration as it is known here.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// An ordered change takes effect, unless it is in what is known of the configuration already.
    pub(super) fn configure(
        &mut self,
        now: Instant,
        slot: Slot,
        (against, change): (Epoch, Change),
        out: &mut Vec<Output>,
    ) -> bool {
        if slot <= self.configuration.configured {
            return false;
        }
        let mut cluster = self.configuration.cluster.clone();
        let fits = against == self.configuration.epoch || mutant::on(Mutant::TwoChanges);
        let changes = fits && cluster.apply(&change);
        self.leave_ballot(now, changes && cluster.member(self.config.id).is_none(), out);
        // Also where nothing changes: whoever proposed it waits for that to prepare anew.
        self.configuration.configured = slot;
        if !changes {
            return false;
        }
        if !same_electorate(&self.configuration.cluster, &cluster) {
            self.configuration.elected = slot;
        }
        self.voters_before = self.configuration.cluster.voter_count();
        self.configuration.cluster = cluster;
        self.configuration.epoch = Epoch(self.configuration.epoch.0 + 1);
        out.push(Output::Event(self.change_event(change)));
        self.configuration_changed(now, out);
        true
    }

    fn change_event(&self, change: Change) -> Event {
        match change {
            Change::Rejoin { member, life, .. } => {
                let incarnation = self.configuration.cluster.member(member).map(|entry| entry.incarnation);
                let own = member == self.config.id && life == self.config.life;
                Event::Rejoined { member, incarnation: incarnation.unwrap_or_default(), own }
            }
            change => Event::Configured { epoch: self.configuration.epoch, change },
        }
    }

    /// Whoever leads or stands does so in the configuration before: it tells what is decided, the change included, and
    /// stands again when everything that is decided took effect (rule 11). One that is not in the next configuration lets
    /// somebody else stand.
    pub(super) fn leave_ballot(&mut self, now: Instant, for_ever: bool, out: &mut Vec<Output>) {
        match &self.state {
            State::Follower => return,
            State::PreCandidate(_) => {}
            State::Candidate(_) => self.stands_again = true,
            State::Leader(leading) => {
                let ballot = leading.ballot;
                self.stands_again = true;
                self.tell_decisions(out);
                if let Some(successor) = self.best_successor(now).filter(|_| for_ever) {
                    self.send(To::One(successor), Message::TakeOver { ballot }, out);
                }
            }
        }
        self.step_down(now);
    }

    /// Whoever led or stood before the configuration changed prepares again.
    pub(super) fn stand_anew(&mut self, now: Instant, out: &mut Vec<Output>) {
        if std::mem::take(&mut self.stands_again) && self.voting && self.draining.is_none() {
            let round = self.promised.round.max(self.round_seen) + 1;
            self.stand(now, round, out);
        }
    }

    /// The configuration is another one: what this life is in it.
    pub(super) fn configuration_changed(&mut self, now: Instant, out: &mut Vec<Output>) {
        out.push(Output::Reconfigured(Box::new(self.configuration.clone())));
        let granted = self.granted;
        self.granted = self.was_granted();
        if granted && self.own().is_some() && !self.has_incarnation() && !self.superseded {
            self.superseded = true;
            self.persist(Record::Superseded, None, out);
            out.push(Output::Event(Event::Superseded));
        }
        self.review_vote(now, out);
        if self.own().is_none() {
            self.turn = false;
            self.timers.set_if_stopped(Timer::Repair, now + self.config.timing.repair);
        }
    }

    /// Whether this life votes may have changed.
    pub(super) fn review_vote(&mut self, now: Instant, out: &mut Vec<Output>) {
        let votes = self.may_vote();
        let voted = std::mem::replace(&mut self.voting, votes);
        if voted && !votes {
            self.step_down(now);
            self.timers.stop(Timer::Election);
            // One that starts again must not think that it votes.
            self.record_decided(out);
        } else if !voted && votes {
            // What an earlier life may have answered is not called silent (rule 23).
            self.execution.answered = self.execution.answered.max(self.configuration.configured);
            // Before the first vote: one that starts again must not wait for others to say that it has its vote, since
            // they may be too few without it.
            self.record_decided(out);
            self.arm_election(now);
        }
    }

    /// One whose place another life has, or had, asks for it once it has what the leader decided.
    pub(super) fn ask_to_rejoin(&self, leader: ReplicaId, decided: Slot, out: &mut Vec<Output>) {
        let Some(own) = self.own().filter(|own| own.life != self.config.life) else { return };
        if !self.superseded && self.log.decided() >= decided {
            self.send(To::One(leader), Message::Rejoin { over: own.life }, out);
        }
    }

    pub(super) fn on_rejoin(
        &mut self,
        now: Instant,
        (from, life): (ReplicaId, Life),
        over: Life,
        out: &mut Vec<Output>,
    ) {
        if self.is_current(from, over) && life != over {
            self.change_by_itself(now, Change::Rejoin { member: from, life, over }, out);
        }
    }

    /// One that is no member wants to be one.
    pub(super) fn on_join(
        &mut self,
        now: Instant,
        (from, life): (ReplicaId, Life),
        application: bool,
        out: &mut Vec<Output>,
    ) {
        if self.own().is_some() && self.index_of(from).is_none() {
            self.change_by_itself(now, Change::Add { member: from, life, application }, out);
        }
    }

    /// The leader lets a learner vote that has caught up.
    pub(super) fn promote_by_itself(&mut self, now: Instant, out: &mut Vec<Output>) {
        let learners = self.configuration.cluster.members.iter().filter(|member| !member.votes);
        let changes: Vec<Change> =
            learners.map(|learner| Change::Promote { member: learner.id, life: learner.life }).collect();
        for change in changes {
            self.change_by_itself(now, change, out);
        }
    }

    /// A change that no operator asked for, if it can be.
    fn change_by_itself(&mut self, now: Instant, change: Change, out: &mut Vec<Output>) {
        if self.admits(now, &change).is_ok() {
            self.order(Command::Configure { against: self.configuration.epoch, change });
            self.propose(now, out);
        }
    }

    /// An operator asks for a change.
    pub(super) fn on_change(&mut self, now: Instant, token: u64, change: Change, out: &mut Vec<Output>) {
        let refused = match change {
            // A life asks for itself.
            Change::Rejoin { .. } => Err(ChangeRefused::NotForOperators),
            change => self.admits(now, &change),
        };
        if let Err(why) = refused {
            return out.push(Output::Changed { token, result: Err(why) });
        }
        let command = Command::Configure { against: self.configuration.epoch, change };
        self.pending = Some(Pending { token, command, stage: Stage::Queued, until: None });
        self.order(command);
        self.propose(now, out);
    }

    /// Whether the leader may order a change now.
    fn admits(&self, now: Instant, change: &Change) -> Result<(), ChangeRefused> {
        let State::Leader(leading) = &self.state else {
            return Err(ChangeRefused::NotLeader { leader: self.followed().map(|(leader, _)| leader) });
        };
        if (leading.changes() || self.pending.is_some()) && !mutant::on(Mutant::TwoChanges) {
            return Err(ChangeRefused::InFlight);
        }
        let before = &self.configuration.cluster;
        let mut after = before.clone();
        if !after.apply(change) {
            return Err(self.unfit(change));
        }
        if let Change::Promote { member, .. } = change
            && !self.index_of(*member).is_some_and(|index| self.is_level(now, index))
        {
            return Err(ChangeRefused::NotCaughtUp);
        }
        if !same_electorate(before, &after) && self.settled < self.configuration.elected {
            return Err(ChangeRefused::Unsettled);
        }
        if matches!(change, Change::Promote { .. } | Change::Remove { .. }) && !before.voters().eq(after.voters()) {
            let level = |member: &&Member| self.index_of(member.id).is_some_and(|index| self.is_level(now, index));
            let (alive, needed) = (after.voters().filter(level).count(), majority(after.voter_count()));
            if alive < needed {
                return Err(ChangeRefused::NoQuorum { alive, needed });
            }
            let (alive, needed) = (after.applications().filter(level).count(), after.settling());
            if alive < needed {
                return Err(ChangeRefused::NoApplications { alive, needed });
            }
        }
        Ok(())
    }

    /// Why a change does not fit the configuration.
    fn unfit(&self, change: &Change) -> ChangeRefused {
        let cluster = &self.configuration.cluster;
        match *change {
            Change::Add { member, .. } if cluster.member(member).is_some() => ChangeRefused::AlreadyMember,
            Change::Add { .. } => ChangeRefused::NotAdmitted { target: cluster.target_members },
            Change::Promote { member, .. } | Change::Remove { member } | Change::Rejoin { member, .. }
                if cluster.member(member).is_none() =>
            {
                ChangeRefused::UnknownMember
            }
            Change::Remove { .. } => ChangeRefused::LastApplication,
            Change::Promote { .. } | Change::Rejoin { .. } | Change::SetTarget { .. } => ChangeRefused::NothingToChange,
        }
    }

    /// Whether a member was heard lately and has what the leader had decided when it asked last; its application, if it is
    /// to have one, keeps up too.
    pub(super) fn is_level(&self, now: Instant, index: usize) -> bool {
        let State::Leader(leading) = &self.state else { return false };
        let member = &self.configuration.cluster.members[index];
        let own = member.id == self.config.id;
        let peer = &leading.peers[index];
        let marks = if own { self.marks() } else { peer.marks };
        let near = |slot: Slot, wanted: Slot| slot.0.saturating_add(self.config.limits.window * 2) >= wanted.0;
        (own || (peer.said && peer.lives(now, self.config.timing.election_timeout)))
            && near(marks.decided, leading.asked)
            && (!member.application || near(marks.executed, leading.asked.min(self.settled)))
    }

    /// A command of an operator's got its slot.
    pub(super) fn note_proposed_change(&mut self, slot: Slot, command: Option<Command>) {
        if let Some(pending) = &mut self.pending
            && pending.stage == Stage::Queued
            && Some(pending.command) == command
        {
            pending.stage = Stage::Proposed(slot);
        }
    }

    /// What became of an operator's change, now that a slot is decided.
    pub(super) fn settle_change(
        &mut self,
        slot: Slot,
        command: Option<Command>,
        took_effect: bool,
        out: &mut Vec<Output>,
    ) {
        let Some(pending) = &mut self.pending else { return };
        match pending.stage {
            Stage::Proposed(at) if at == slot => {
                let removes = matches!(pending.command, Command::Configure { change: Change::Remove { .. }, .. });
                let result = match (command == Some(pending.command), took_effect) {
                    (true, true) if removes => return pending.stage = Stage::Decided(slot),
                    (true, true) => Ok(()),
                    (true, false) => Err(ChangeRefused::Overtaken),
                    (false, _) => Err(ChangeRefused::Lost),
                };
                self.end_change(result, out);
            }
            Stage::Decided(at) if at < slot => self.end_change(Ok(()), out),
            Stage::Queued | Stage::Proposed(_) | Stage::Decided(_) => {}
        }
    }

    /// Somebody has decided, or has a snapshot of, everything up to a slot: if that is above a removal, it holds.
    pub(super) fn confirm_change(&mut self, decided: Slot, out: &mut Vec<Output>) {
        if self.pending.is_some_and(|pending| matches!(pending.stage, Stage::Decided(at) if at < decided)) {
            self.end_change(Ok(()), out);
        }
    }

    /// A snapshot took the place of the slots up to `slot`: what became of an operator's change shows in its configuration.
    pub(super) fn settle_change_by_snapshot(&mut self, slot: Slot, out: &mut Vec<Output>) {
        let Some(Pending { command: Command::Configure { change, .. }, stage, .. }) = self.pending else { return };
        let (Stage::Proposed(at) | Stage::Decided(at)) = stage else { return };
        if at <= slot {
            let fits = self.configuration.cluster.clone().apply(&change);
            self.end_change(if fits { Err(ChangeRefused::Lost) } else { Ok(()) }, out);
        }
    }

    /// A leader that leads no more forgets what it had not proposed. What it had proposed the next leader may have found, or
    /// not: that shows as soon as anything is decided in its slot, but there may be nothing to order for long.
    pub(super) fn drop_change(&mut self, now: Instant, out: &mut Vec<Output>) {
        let leads = self.leads();
        let Some(pending) = &mut self.pending else { return };
        if leads {
            pending.until = None;
            return;
        }
        let patience = self.config.timing.election_timeout * 4;
        match pending.stage {
            Stage::Queued => self.end_change(Err(ChangeRefused::NotLeader { leader: None }), out),
            Stage::Proposed(_) if *pending.until.get_or_insert(now + patience) <= now => {
                self.end_change(Err(ChangeRefused::Unknown), out);
            }
            Stage::Proposed(_) | Stage::Decided(_) => {}
        }
    }

    fn end_change(&mut self, result: Result<(), ChangeRefused>, out: &mut Vec<Output>) {
        if let Some(Pending { token, .. }) = self.pending.take() {
            out.push(Output::Changed { token, result });
        }
    }

    /// Whether a change waits, is proposed, or is to be confirmed. What was proposed in a ballot that is over counts only once
    /// somebody proposes it again.
    pub(super) fn is_changing(&self) -> bool {
        let waits = matches!(&self.state, State::Leader(leading) if leading.changes());
        let proposed = |(_, entry): (Slot, &super::log::Entry)| {
            entry.ballot == self.promised && entry.batch.command.as_ref().is_some_and(Command::configures)
        };
        waits || self.pending.is_some() || self.log.above_decided().any(proposed)
    }

    /// Whether the newest decided slot removed a member: then a slot above is decided soon, whether or not there is anything
    /// to order, because the removed may stop only behind one.
    pub(super) fn confirms(&self) -> bool {
        let slot = self.log.decided();
        let command = self.log.get(slot).and_then(|entry| entry.batch.command);
        slot == self.configuration.configured
            && matches!(command, Some(Command::Configure { change: Change::Remove { .. }, .. }))
    }

    /// One that is no member looks whether its removal holds, if an operator waits for that; and asks to be one, if its life
    /// never was: its id was removed while it had nothing.
    pub(super) fn on_removed_look(&mut self, now: Instant, out: &mut Vec<Output>) {
        let waits = self.pending.is_some();
        if waits {
            self.fetch_beyond(out);
        }
        if !self.granted {
            self.send(To::Others, Message::Join { application: self.application }, out);
        }
        if waits || !self.granted {
            self.timers.set(Timer::Repair, now + self.config.timing.heartbeat * REMOVED_LOOKS);
        }
    }
}

/// Whether the same members' replies count.
fn same_electorate(one: &ClusterConfig, other: &ClusterConfig) -> bool {
    one.applications().map(|member| member.id).eq(other.applications().map(|member| member.id))
}

/// Why a change that an operator asked for is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, thiserror::Error)]
pub enum ChangeRefused {
    /// Only the leader orders.
    #[error("this member does not lead{}", .leader.map(|id| format!(": member {id} does")).unwrap_or_default())]
    NotLeader {
        /// Who does, as far as it is known.
        leader: Option<ReplicaId>,
    },
    /// One at a time.
    #[error("another change is under way: try again when it is done")]
    InFlight,
    /// Too few of those who vote afterwards are alive and near the leader.
    #[error(
        "{alive} of the members that vote afterwards are alive and caught up, and {needed} are needed for a majority"
    )]
    NoQuorum {
        /// So many are.
        alive: usize,
        /// So many must be.
        needed: usize,
    },
    /// Too few of those whose replies count afterwards are alive and keep up.
    #[error("{alive} of the members with an application that vote afterwards keep up, and {needed} are needed")]
    NoApplications {
        /// So many are.
        alive: usize,
        /// So many must be.
        needed: usize,
    },
    /// There is no such member.
    #[error("there is no such member")]
    UnknownMember,
    /// It is a member.
    #[error("it is a member already")]
    AlreadyMember,
    /// Its id is not below the target, or there is no room.
    #[error("only ids below {target} are admitted: raise it with `lockstep members set-target`")]
    NotAdmitted {
        /// The target.
        target: u32,
    },
    /// A learner that lacks decided slots, or was not heard lately, does not vote yet.
    #[error("it has not caught up, or was not heard of lately")]
    NotCaughtUp,
    /// What may have been answered by a majority of those before the last change is not known to be executed by one of those
    /// after it: two such changes in a row could leave nobody who knows.
    #[error("requests from before the last change of the members are not executed everywhere yet: try again soon")]
    Unsettled,
    /// Without it nobody would execute.
    #[error("it is the last member that votes and has an application")]
    LastApplication,
    /// Only those who vote lead.
    #[error("it does not vote, so it cannot lead")]
    NotAVoter,
    /// It is so already.
    #[error("there is nothing to change")]
    NothingToChange,
    /// A member's new life asks for itself.
    #[error("this is not an operator's to ask")]
    NotForOperators,
    /// Another change came between.
    #[error("another change came between, so nothing was changed: look at `lockstep status`, then try again")]
    Overtaken,
    /// Leadership was lost, and with it the change.
    #[error("leadership was lost before it was decided, so nothing was changed: try again")]
    Lost,
    /// Leadership was lost, and nothing that was decided since tells what became of the change.
    #[error("leadership was lost before it was decided, and it may still be made: look at `lockstep status`")]
    Unknown,
    /// The member that was to lead does not.
    #[error("it did not take over in time")]
    NotTaken,
}
