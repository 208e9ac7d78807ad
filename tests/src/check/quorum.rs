//! What anybody calls decided was voted for by a majority, in one ballot; and once that is so, no proposal of a higher
//! ballot has another value.

use super::membership::{Configuration, Membership};
use super::{Verdict, Violation, ledger::ValueId};
use mesh::ids::{Ballot, Life, Slot};
use std::collections::{BTreeMap, BTreeSet};

/// Who voted for a value in a ballot, in which life.
type Voters = BTreeSet<(usize, Life)>;

/// Votes, proposals and what follows from them. Of which configuration a slot is, is known when every slot below it is
/// chosen: votes are counted then, in that configuration alone (rule 11).
#[derive(Debug, Default)]
pub struct Quorum {
    votes: BTreeMap<Slot, BTreeMap<(Ballot, ValueId), Voters>>,
    chosen: BTreeMap<Slot, (Ballot, ValueId)>,
    proposals: BTreeMap<Slot, BTreeMap<Ballot, ValueId>>,
    // Every slot up to here is chosen.
    prefix: Slot,
}

fn is_majority(configuration: &Configuration, voters: &Voters) -> bool {
    configuration.is_majority(|who| voters.contains(&(who, configuration.members[&who].life)))
}

impl Quorum {
    /// Replica `who` is bound to this vote from now on.
    ///
    /// # Errors
    /// If this makes a second value chosen.
    pub fn on_vote(
        &mut self,
        (who, life): (usize, Life),
        slot: Slot,
        (ballot, value): (Ballot, ValueId),
        membership: &Membership,
    ) -> Verdict {
        let voters = self.votes.entry(slot).or_default().entry((ballot, value)).or_default();
        voters.insert((who, life));
        let Some((first, chosen)) = self.chosen.get(&slot) else { return Ok(()) };
        if *chosen == value || !is_majority(membership.of(slot), voters) {
            return Ok(());
        }
        let what = format!("slot {slot}: {chosen:?} was chosen in {first}, and {value:?} is in {ballot}");
        Violation::raise("quorum", what)
    }

    /// The slot after the chosen ones, if its value is chosen by now.
    ///
    /// # Errors
    /// If two are, or if a higher ballot's proposal ignored it.
    pub fn advance(&mut self, membership: &Membership) -> Result<Option<Slot>, Violation> {
        let slot = self.prefix.next();
        let configuration = membership.of(slot);
        let Some(votes) = self.votes.get(&slot) else { return Ok(None) };
        let mut all = votes.iter().filter(|(_, voters)| is_majority(configuration, voters)).map(|(key, _)| *key);
        let Some((ballot, value)) = all.next() else { return Ok(None) };
        if let Some((second, other)) = all.find(|(_, other)| *other != value) {
            let what = format!("slot {slot}: {value:?} was chosen in {ballot}, and {other:?} is in {second}");
            return Err(Violation { check: "quorum", what });
        }
        self.chosen.insert(slot, (ballot, value));
        self.prefix = slot;
        let above = self.proposals.get(&slot).and_then(|all| all.iter().find(|(b, v)| **b > ballot && **v != value));
        match above {
            Some((higher, other)) => {
                let what = format!("slot {slot}: {value:?} is chosen in {ballot}, but {higher} proposed {other:?}");
                Err(Violation { check: "quorum", what })
            }
            None => Ok(Some(slot)),
        }
    }

    /// `value` is proposed.
    ///
    /// # Errors
    /// If another one was chosen in a lower ballot.
    pub fn on_proposal(&mut self, slot: Slot, ballot: Ballot, value: ValueId) -> Verdict {
        self.proposals.entry(slot).or_default().insert(ballot, value);
        match self.chosen.get(&slot) {
            Some((chosen_in, chosen)) if *chosen_in < ballot && *chosen != value => {
                let what = format!("slot {slot}: {chosen:?} was chosen in {chosen_in}, {ballot} proposes {value:?}");
                Violation::raise("quorum", what)
            }
            _ => Ok(()),
        }
    }

    /// Replica `who` states that everything up to `mark` is decided.
    ///
    /// # Errors
    /// If a slot of those has no majority.
    pub fn on_mark(&self, who: usize, mark: Slot) -> Verdict {
        if mark <= self.prefix {
            return Ok(());
        }
        let slot = self.prefix.next();
        Violation::raise("quorum", format!("replica {who} calls slots to {mark} decided; slot {slot} has no majority"))
    }

    /// Replica `who` uses `value` as the decided one of `slot`.
    ///
    /// # Errors
    /// If no majority voted for it.
    pub fn on_decided(&self, who: usize, slot: Slot, value: ValueId) -> Verdict {
        match self.chosen.get(&slot) {
            Some((_, chosen)) if *chosen == value => Ok(()),
            other => {
                let what = format!("replica {who} took {value:?} as decided in slot {slot}; chosen is {other:?}");
                Violation::raise("quorum", what)
            }
        }
    }

    /// The value that a majority voted for.
    #[must_use]
    pub fn chosen(&self, slot: Slot) -> Option<ValueId> {
        self.chosen.get(&slot).map(|(_, value)| *value)
    }

    /// Every slot up to here has a majority.
    #[must_use]
    pub fn prefix(&self) -> Slot {
        self.prefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::config::{ClusterConfig, Durability};
    use mesh::ids::{Epoch, Incarnation, ReplicaId};
    use mesh::wire::peer::Change;

    fn ballot(round: u64) -> Ballot {
        Ballot { round, replica: ReplicaId(0), incarnation: Incarnation(1) }
    }

    fn members(n: u32) -> Membership {
        Membership::new(5, &ClusterConfig { target_members: 5, ..ClusterConfig::of(n, "line", Durability::Sync) })
    }

    fn vote(check: &mut Quorum, members: &Membership, who: usize, slot: u64, round: u64, value: u32) -> Verdict {
        check.on_vote((who, Life(0)), Slot(slot), (ballot(round), ValueId(value)), members)?;
        while check.advance(members)?.is_some() {}
        Ok(())
    }

    #[test]
    fn a_decision_without_a_majority_is_caught() {
        let (mut check, members) = (Quorum::default(), members(3));
        vote(&mut check, &members, 0, 1, 1, 1).unwrap();
        assert!(check.on_decided(0, Slot(1), ValueId(1)).is_err());
        assert!(check.on_mark(0, Slot(1)).is_err());
        vote(&mut check, &members, 0, 1, 1, 1).unwrap();
        assert!(check.on_mark(0, Slot(1)).is_err(), "the same voter twice is no majority");
        vote(&mut check, &members, 3, 1, 1, 1).unwrap();
        assert!(check.on_mark(0, Slot(1)).is_err(), "it is no member");
        vote(&mut check, &members, 1, 1, 1, 1).unwrap();
        check.on_decided(0, Slot(1), ValueId(1)).unwrap();
        check.on_mark(0, Slot(1)).unwrap();
        assert!(check.on_decided(0, Slot(1), ValueId(2)).is_err());
    }

    #[test]
    fn votes_in_two_ballots_are_no_majority() {
        let (mut check, members) = (Quorum::default(), members(3));
        vote(&mut check, &members, 0, 1, 1, 1).unwrap();
        vote(&mut check, &members, 1, 1, 2, 1).unwrap();
        assert!(check.on_decided(0, Slot(1), ValueId(1)).is_err());
    }

    #[test]
    fn a_higher_ballot_that_ignores_a_chosen_value_is_caught_in_either_order() {
        let (mut check, members) = (Quorum::default(), members(3));
        vote(&mut check, &members, 0, 1, 1, 1).unwrap();
        vote(&mut check, &members, 1, 1, 1, 1).unwrap();
        check.on_proposal(Slot(1), ballot(2), ValueId(1)).unwrap();
        assert!(check.on_proposal(Slot(1), ballot(3), ValueId(2)).is_err());

        let mut check = Quorum::default();
        vote(&mut check, &members, 0, 1, 1, 1).unwrap();
        check.on_proposal(Slot(1), ballot(3), ValueId(2)).unwrap();
        assert!(vote(&mut check, &members, 1, 1, 1, 1).is_err());
    }

    #[test]
    fn votes_count_in_the_configuration_of_their_slot_and_in_the_life_that_it_names() {
        let (mut check, mut members) = (Quorum::default(), members(3));
        for slot in [1, 2, 3] {
            vote(&mut check, &members, 0, slot, 1, 1).unwrap();
        }
        vote(&mut check, &members, 1, 1, 1, 1).unwrap();
        let rejoin = Change::Rejoin { member: ReplicaId(0), life: Life(7), over: Life(0) };
        assert!(members.on_change(Slot(1), Epoch(0), &rejoin));
        vote(&mut check, &members, 1, 2, 1, 1).unwrap();
        assert!(check.on_mark(0, Slot(2)).is_err(), "that life is over");
        vote(&mut check, &members, 2, 2, 1, 1).unwrap();
        check.on_mark(0, Slot(2)).unwrap();
        let add = Change::Add { member: ReplicaId(3), life: Life(0), application: true };
        assert!(members.on_change(Slot(2), Epoch(1), &add));
        for who in [1, 3] {
            vote(&mut check, &members, who, 3, 1, 1).unwrap();
        }
        assert!(check.on_mark(0, Slot(3)).is_err(), "it learns");
        vote(&mut check, &members, 2, 3, 1, 1).unwrap();
        check.on_mark(0, Slot(3)).unwrap();
    }

    #[test]
    fn two_chosen_values_are_caught() {
        let (mut check, members) = (Quorum::default(), members(1));
        vote(&mut check, &members, 0, 1, 1, 1).unwrap();
        assert!(vote(&mut check, &members, 0, 1, 2, 2).is_err());
    }
}
