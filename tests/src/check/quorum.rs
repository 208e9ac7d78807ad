//! What anybody calls decided was voted for by a majority, in one ballot; and once that is so, no proposal of a higher
//! ballot has another value.

use super::{Verdict, Violation, ledger::ValueId};
use mesh::ids::{Ballot, Slot};
use std::collections::BTreeMap;

/// Votes, proposals and what follows from them.
#[derive(Debug)]
pub struct Quorum {
    majority: u32,
    // Replicas, as bits, that ever voted for (ballot, value).
    votes: BTreeMap<Slot, BTreeMap<(Ballot, ValueId), u64>>,
    chosen: BTreeMap<Slot, (Ballot, ValueId)>,
    proposals: BTreeMap<Slot, BTreeMap<Ballot, ValueId>>,
    // Every slot up to here is chosen.
    prefix: Slot,
}

impl Quorum {
    /// For a cluster of `n` members.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self {
            majority: mesh::quorum::majority(n) as u32,
            votes: BTreeMap::new(),
            chosen: BTreeMap::new(),
            proposals: BTreeMap::new(),
            prefix: Slot(0),
        }
    }

    /// Replica `who` is bound to this vote from now on.
    ///
    /// # Errors
    /// If this makes a second value chosen, or one that a higher ballot's proposal ignored.
    pub fn on_vote(&mut self, who: usize, slot: Slot, ballot: Ballot, value: ValueId) -> Verdict {
        let voters = self.votes.entry(slot).or_default().entry((ballot, value)).or_default();
        *voters |= 1 << who;
        if voters.count_ones() < self.majority {
            return Ok(());
        }
        if let Some((first, chosen)) = self.chosen.get(&slot) {
            if *chosen == value {
                return Ok(());
            }
            let what = format!("slot {slot}: {chosen:?} was chosen in {first}, and {value:?} is in {ballot}");
            return Violation::raise("quorum", what);
        }
        self.chosen.insert(slot, (ballot, value));
        while self.chosen.contains_key(&self.prefix.next()) {
            self.prefix = self.prefix.next();
        }
        let above = self.proposals.get(&slot).and_then(|all| all.iter().find(|(b, v)| **b > ballot && **v != value));
        match above {
            Some((higher, other)) => {
                let what = format!("slot {slot}: {value:?} is chosen in {ballot}, but {higher} proposed {other:?}");
                Violation::raise("quorum", what)
            }
            None => Ok(()),
        }
    }

    /// In slots above `slot` another life of replica `who` votes: votes of the one before count no more there.
    pub fn on_grant(&mut self, who: usize, slot: Slot) {
        for (above, votes) in self.votes.range_mut(slot.next()..) {
            if !self.chosen.contains_key(above) {
                votes.values_mut().for_each(|voters| *voters &= !(1 << who));
            }
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
    use mesh::ids::{Incarnation, ReplicaId};

    fn ballot(round: u64) -> Ballot {
        Ballot { round, replica: ReplicaId(0), incarnation: Incarnation(1) }
    }

    #[test]
    fn a_decision_without_a_majority_is_caught() {
        let mut check = Quorum::new(3);
        check.on_vote(0, Slot(1), ballot(1), ValueId(1)).unwrap();
        assert!(check.on_decided(0, Slot(1), ValueId(1)).is_err());
        assert!(check.on_mark(0, Slot(1)).is_err());
        check.on_vote(0, Slot(1), ballot(1), ValueId(1)).unwrap();
        assert!(check.on_mark(0, Slot(1)).is_err(), "the same voter twice is no majority");
        check.on_vote(1, Slot(1), ballot(1), ValueId(1)).unwrap();
        check.on_decided(0, Slot(1), ValueId(1)).unwrap();
        check.on_mark(0, Slot(1)).unwrap();
        assert!(check.on_decided(0, Slot(1), ValueId(2)).is_err());
    }

    #[test]
    fn votes_in_two_ballots_are_no_majority() {
        let mut check = Quorum::new(3);
        check.on_vote(0, Slot(1), ballot(1), ValueId(1)).unwrap();
        check.on_vote(1, Slot(1), ballot(2), ValueId(1)).unwrap();
        assert!(check.on_decided(0, Slot(1), ValueId(1)).is_err());
    }

    #[test]
    fn a_higher_ballot_that_ignores_a_chosen_value_is_caught_in_either_order() {
        let mut check = Quorum::new(3);
        check.on_vote(0, Slot(1), ballot(1), ValueId(1)).unwrap();
        check.on_vote(1, Slot(1), ballot(1), ValueId(1)).unwrap();
        check.on_proposal(Slot(1), ballot(2), ValueId(1)).unwrap();
        assert!(check.on_proposal(Slot(1), ballot(3), ValueId(2)).is_err());

        let mut check = Quorum::new(3);
        check.on_vote(0, Slot(1), ballot(1), ValueId(1)).unwrap();
        check.on_proposal(Slot(1), ballot(3), ValueId(2)).unwrap();
        assert!(check.on_vote(1, Slot(1), ballot(1), ValueId(1)).is_err());
    }

    #[test]
    fn votes_of_a_life_that_is_over_count_no_more_above_the_grant() {
        let mut check = Quorum::new(3);
        for slot in [Slot(1), Slot(3)] {
            check.on_vote(0, slot, ballot(1), ValueId(1)).unwrap();
        }
        check.on_grant(0, Slot(2));
        for slot in [Slot(1), Slot(3)] {
            check.on_vote(1, slot, ballot(1), ValueId(1)).unwrap();
        }
        check.on_decided(0, Slot(1), ValueId(1)).unwrap();
        assert!(check.on_decided(0, Slot(3), ValueId(1)).is_err());
    }

    #[test]
    fn two_chosen_values_are_caught() {
        let mut check = Quorum::new(1);
        check.on_vote(0, Slot(1), ballot(1), ValueId(1)).unwrap();
        assert!(check.on_vote(0, Slot(1), ballot(2), ValueId(2)).is_err());
    }
}
