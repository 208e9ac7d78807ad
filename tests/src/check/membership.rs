//! Who is a member in which slot (rules 11 and 12): the configuration of a slot follows from the changes ordered below it.
//! Only its voters, each in the life that has the member's incarnation, vote or lead; nothing is proposed above a change
//! that is not decided; and a removal that was confirmed holds on a majority of those who are left.
//!
//! This is the checkers' own reading of the ordered changes: the core's is what they judge.

use super::{Verdict, Violation};
use mesh::config::ClusterConfig;
use mesh::ids::{Ballot, Epoch, Life, Slot};
use mesh::quorum::{majority, tolerated};
use mesh::wire::Message;
use mesh::wire::peer::Change;
use std::collections::{BTreeMap, BTreeSet};

const NAME: &str = "membership";

/// A member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The life that has its incarnation.
    pub life: Life,
    /// It is no learner.
    pub votes: bool,
    /// It is no witness.
    pub application: bool,
}

/// A configuration.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    /// It is that of the slots above this one.
    pub since: Slot,
    /// Counts the changes.
    pub epoch: u64,
    /// Who is in it.
    pub members: BTreeMap<usize, Member>,
    /// Only lower ids are admitted.
    pub target: u32,
}

impl Configuration {
    /// Those who vote.
    pub fn voters(&self) -> impl Iterator<Item = usize> + '_ {
        self.members.iter().filter(|(_, member)| member.votes).map(|(who, _)| *who)
    }

    /// Those who vote and have an application.
    pub fn applications(&self) -> impl Iterator<Item = usize> + '_ {
        self.members.iter().filter(|(_, member)| member.votes && member.application).map(|(who, _)| *who)
    }

    /// Whether so many of the voters fulfil something as make a majority.
    pub fn is_majority(&self, holds: impl Fn(usize) -> bool) -> bool {
        self.voters().filter(|who| holds(*who)).count() >= majority(self.voters().count())
    }

    /// Whether what so many of the voters hold outlives the loss of a tolerated minority: a majority; or, where fewer than that
    /// have an application, and a witness may have let go of what their snapshots cover, one more than may be lost.
    pub fn is_durable(&self, holds: impl Fn(usize) -> bool) -> bool {
        let (voters, applications) = (self.voters().count(), self.applications().count());
        let needed = if applications < majority(voters) { tolerated(voters) + 1 } else { majority(voters) };
        self.voters().filter(|who| holds(*who)).count() >= needed
    }

    /// How many applications must have executed what is settled.
    #[must_use]
    pub fn settling(&self) -> usize {
        let applications = self.applications().count();
        if applications < 3 { 1 } else { majority(applications) }
    }

    /// How many applications must have a snapshot of what is cut: so many that the loss of a tolerated minority leaves one,
    /// and a majority; or all.
    #[must_use]
    pub fn covering(&self) -> usize {
        let applications = self.applications().count();
        majority(applications).max(tolerated(self.voters().count()) + 1).min(applications)
    }

    fn change(&mut self, change: &Change) -> bool {
        match *change {
            Change::Rejoin { member, life, over } => match self.members.get_mut(&(member.0 as usize)) {
                Some(entry) if entry.life == over && over != life => {
                    entry.life = life;
                    true
                }
                _ => false,
            },
            Change::Add { member, life, application } => {
                let free = member.0 < self.target && !self.members.contains_key(&(member.0 as usize));
                if free {
                    self.members.insert(member.0 as usize, Member { life, votes: false, application });
                }
                free
            }
            Change::Promote { member, life } => match self.members.get_mut(&(member.0 as usize)) {
                Some(entry) if entry.life == life && !entry.votes => {
                    entry.votes = true;
                    true
                }
                _ => false,
            },
            Change::Remove { member } => {
                let who = member.0 as usize;
                let left = self.applications().any(|other| other != who);
                left && self.members.remove(&who).is_some()
            }
            Change::SetTarget { members } => std::mem::replace(&mut self.target, members) != members,
        }
    }
}

/// Every configuration so far, and the life of each replica.
#[derive(Debug)]
pub struct Membership {
    // The life that runs or ran last.
    lives: Vec<Life>,
    // In order of slots; the first is the bootstrap's.
    all: Vec<Configuration>,
    // Slots of ordered changes, with an effect or without.
    commands: BTreeSet<Slot>,
    // The lowest change that each leader proposed in its ballot.
    proposed: BTreeMap<Ballot, Slot>,
}

impl Membership {
    /// For `n` replicas, of which some are members from the beginning.
    #[must_use]
    pub fn new(n: usize, cluster: &ClusterConfig) -> Self {
        let member = |member: &mesh::config::Member| {
            let (life, votes, application) = (member.life, member.votes, member.application);
            (member.id.0 as usize, Member { life, votes, application })
        };
        let members = cluster.members.iter().map(member).collect();
        let first = Configuration { members, target: cluster.target_members, ..Configuration::default() };
        Self { lives: vec![Life(0); n], all: vec![first], commands: BTreeSet::new(), proposed: BTreeMap::new() }
    }

    /// Replica `who` begins another life.
    pub fn on_life(&mut self, who: usize, life: Life) {
        self.lives[who] = life;
    }

    /// The life of replica `who`.
    #[must_use]
    pub fn life(&self, who: usize) -> Life {
        self.lives[who]
    }

    /// A change is ordered in `slot`. True if that changes the configuration.
    pub fn on_change(&mut self, slot: Slot, against: Epoch, change: &Change) -> bool {
        self.commands.insert(slot);
        let mut next = self.current().clone();
        if against.0 != next.epoch || !next.change(change) {
            return false;
        }
        (next.since, next.epoch) = (slot, next.epoch + 1);
        self.all.push(next);
        true
    }

    /// The configuration of `slot`.
    #[must_use]
    pub fn of(&self, slot: Slot) -> &Configuration {
        let count = self.all.partition_point(|configuration| configuration.since < slot);
        &self.all[count.max(1) - 1]
    }

    /// The newest.
    #[must_use]
    pub fn current(&self) -> &Configuration {
        &self.all[self.all.len() - 1]
    }

    /// Those of slots above `slot`, the oldest first.
    pub fn from(&self, slot: Slot) -> impl Iterator<Item = &Configuration> + Clone {
        let count = self.all.partition_point(|configuration| configuration.since <= slot);
        self.all[count.max(1) - 1..].iter()
    }

    /// The last change of those whose replies count: what was ordered up to there may have been answered by one of them.
    #[must_use]
    pub fn elected(&self) -> Slot {
        let differ = |pair: &&[Configuration]| !pair[0].applications().eq(pair[1].applications());
        self.all.windows(2).rev().find(differ).map_or(Slot(0), |pair| pair[1].since)
    }

    /// How many changes were ordered, with an effect or without: whoever leads prepares anew behind each.
    #[must_use]
    pub fn ordered(&self) -> usize {
        self.commands.len()
    }

    /// Whether replica `who` ever was a member.
    #[must_use]
    pub fn was_member(&self, who: usize) -> bool {
        self.all.iter().any(|configuration| configuration.members.contains_key(&who))
    }

    /// Whether this life of replica `who` votes in `slot`.
    #[must_use]
    pub fn counts(&self, who: usize, life: Life, slot: Slot) -> bool {
        self.of(slot).members.get(&who).is_some_and(|member| member.votes && member.life == life)
    }

    /// Whether replica `who`, which has decided up to a slot, may take itself for a voter.
    fn may_vote(&self, who: usize, decided: Slot) -> bool {
        let votes = |configuration: &Configuration| {
            configuration.members.get(&who).is_some_and(|member| member.votes && member.life == self.lives[who])
        };
        self.from(decided).any(votes)
    }

    /// Replica `who`, which has decided at least up to a slot, sends `message`; every slot up to `prefix` is chosen.
    ///
    /// # Errors
    /// If it is a vote, or a leader's, and this life has no vote; if it claims a change that was not ordered; or if it
    /// proposes above a change of its own that is not decided.
    pub fn on_send(&mut self, who: usize, decided: Slot, prefix: Slot, message: &Message) -> Verdict {
        let of_a_voter = matches!(
            message,
            Message::PreVote { .. }
                | Message::Prepare { .. }
                | Message::Accept { .. }
                | Message::Heartbeat { .. }
                | Message::PreVoteGranted { .. }
                | Message::Promise { .. }
                | Message::Promised { .. }
                | Message::Accepted { .. }
        );
        if of_a_voter && !self.may_vote(who, decided) {
            let what = format!("replica {who} sends {} in a life that has no vote", message.kind());
            return Violation::raise(NAME, what);
        }
        let Message::Accept { ballot, slot, configured, batch, .. } = message else { return Ok(()) };
        if *configured > Slot(0) && (*configured >= *slot || !self.commands.contains(configured)) {
            let what = format!("replica {who} calls slot {configured} a change of the configuration: it is none");
            return Violation::raise(NAME, what);
        }
        if let Some(open) = self.proposed.get(ballot).filter(|open| **open < *slot && prefix < **open) {
            let what = format!("replica {who} proposes slot {slot} above the change in slot {open}, not decided");
            return Violation::raise(NAME, what);
        }
        if batch.command.as_ref().is_some_and(mesh::wire::peer::Command::configures) {
            let lowest = self.proposed.entry(*ballot).or_insert(*slot);
            *lowest = (*lowest).min(*slot);
        }
        Ok(())
    }

    /// An operator is told that a member was removed, and that it may stop.
    ///
    /// # Errors
    /// If it was not, or fewer than a majority of those left hold the change.
    pub fn on_removed(&self, member: usize, holds: impl Fn(usize, Slot) -> bool) -> Verdict {
        let removes =
            |pair: &&[Configuration]| pair[0].members.contains_key(&member) && !pair[1].members.contains_key(&member);
        let Some(removed) = self.all.windows(2).rev().find(removes) else {
            return Violation::raise(NAME, format!("replica {member} is said to be removed: it never was"));
        };
        // Of those who are left, or of those who took their places since.
        let slot = removed[1].since;
        if self.from(slot).any(|configuration| configuration.is_durable(|who| holds(who, slot))) {
            return Ok(());
        }
        Violation::raise(
            NAME,
            format!("replica {member} may stop, and slot {slot} is not durable on a majority of those left"),
        )
    }

    /// Replica `who` says that another life has taken its place.
    ///
    /// # Errors
    /// If none has.
    pub fn on_superseded(&self, who: usize) -> Verdict {
        let life = self.lives[who];
        let had = |configuration: &&Configuration| configuration.members.get(&who).is_some_and(|m| m.life == life);
        let other = self.current().members.get(&who).is_none_or(|member| member.life != life);
        if self.all.iter().any(|configuration| had(&configuration)) && other {
            return Ok(());
        }
        Violation::raise(NAME, format!("replica {who} calls itself superseded and is not"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::config::Durability;
    use mesh::ids::{Incarnation, ReplicaId};
    use mesh::wire::peer::{Batch, Command};
    use std::sync::Arc;

    fn check() -> Membership {
        Membership::new(5, &ClusterConfig { target_members: 5, ..ClusterConfig::of(3, "line", Durability::Sync) })
    }

    fn prepare() -> Message {
        Message::Prepare { ballot: Ballot::NONE, decided: Slot(0) }
    }

    #[test]
    fn a_life_votes_from_its_grant_on_and_the_one_before_no_more() {
        let mut check = check();
        let member = ReplicaId(1);
        check.on_send(1, Slot(0), Slot(0), &prepare()).unwrap();
        check.on_life(1, Life(7));
        assert!(check.on_send(1, Slot(0), Slot(0), &prepare()).is_err());
        assert!(check.on_superseded(1).is_err(), "it never had the vote");
        let rejoin = |over| Change::Rejoin { member, life: Life(7), over: Life(over) };
        assert!(!check.on_change(Slot(4), Epoch(0), &rejoin(9)), "another one has the vote");
        assert!(check.on_change(Slot(5), Epoch(0), &rejoin(0)));
        assert!(!check.on_change(Slot(6), Epoch(1), &rejoin(0)), "it has it already");
        check.on_send(1, Slot(0), Slot(0), &prepare()).unwrap();
        assert!(!check.counts(1, Life(7), Slot(5)) && check.counts(1, Life(7), Slot(6)));
        check.on_life(1, Life(0));
        assert!(check.on_send(1, Slot(5), Slot(5), &prepare()).is_err());
        check.on_send(1, Slot(4), Slot(5), &prepare()).unwrap();
        assert!(check.counts(1, Life(0), Slot(5)) && !check.counts(1, Life(0), Slot(6)));
        check.on_superseded(1).unwrap();
    }

    #[test]
    fn a_learner_and_one_who_was_removed_have_no_vote() {
        let mut check = check();
        let member = ReplicaId(3);
        let add = Change::Add { member, life: Life(0), application: true };
        assert!(check.on_change(Slot(2), Epoch(0), &add));
        assert!(check.on_send(3, Slot(2), Slot(2), &prepare()).is_err());
        assert!(!check.on_change(Slot(3), Epoch(0), &Change::Promote { member, life: Life(0) }), "of an older one");
        assert!(check.on_change(Slot(4), Epoch(1), &Change::Promote { member, life: Life(0) }));
        check.on_send(3, Slot(4), Slot(4), &prepare()).unwrap();
        assert_eq!((check.of(Slot(4)).voters().count(), check.of(Slot(5)).voters().count()), (3, 4));
        assert!(check.on_change(Slot(6), Epoch(2), &Change::Remove { member: ReplicaId(0) }));
        check.on_send(0, Slot(5), Slot(6), &prepare()).unwrap();
        assert!(check.on_send(0, Slot(6), Slot(6), &prepare()).is_err());
        assert!(check.on_removed(0, |_, _| false).is_err() && check.on_removed(1, |_, _| true).is_err());
        check.on_removed(0, |who, slot| who != 3 && slot == Slot(6)).unwrap();
    }

    #[test]
    fn a_proposal_above_an_open_change_is_caught() {
        let mut check = check();
        let ballot = Ballot { round: 1, replica: ReplicaId(0), incarnation: Incarnation(1) };
        let accept = |slot, command| {
            let batch = Arc::new(Batch { command, ..Batch::default() });
            Message::Accept { ballot, slot: Slot(slot), decided: Slot(0), configured: Slot(0), batch }
        };
        let change = Change::SetTarget { members: 2 };
        check.on_send(0, Slot(0), Slot(0), &accept(2, Some(Command::Configure { against: Epoch(0), change }))).unwrap();
        check.on_send(0, Slot(0), Slot(0), &accept(1, None)).unwrap();
        assert!(check.on_send(0, Slot(0), Slot(1), &accept(3, None)).is_err());
        check.on_send(0, Slot(0), Slot(2), &accept(3, None)).unwrap();
    }

    #[test]
    fn snapshots_cover_what_is_cut_although_a_tolerated_minority_is_lost() {
        let mut cluster = ClusterConfig::of(5, "line", Durability::Sync);
        cluster.members[3].application = false;
        cluster.members[4].application = false;
        assert_eq!(Membership::new(5, &cluster).current().covering(), 3, "two may be lost, whoever they are");
        let covering = |n| Membership::new(5, &ClusterConfig::of(n, "line", Durability::Sync)).current().covering();
        assert_eq!([1, 2, 3, 4, 5].map(covering), [1, 2, 2, 3, 3]);
    }
}
