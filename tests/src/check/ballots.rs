//! One leader for each ballot, and one value for each (ballot, slot).

use super::{Verdict, Violation, ledger::ValueId};
use mesh::ids::{Ballot, Slot};
use std::collections::BTreeMap;

/// Who acted as the leader of which ballot, and what it proposed.
#[derive(Debug, Default)]
pub struct Ballots {
    leaders: BTreeMap<Ballot, usize>,
    values: BTreeMap<(Ballot, Slot), ValueId>,
}

impl Ballots {
    /// Replica `who` sent what only the leader (or candidate) of `ballot` sends.
    ///
    /// # Errors
    /// If another one did before, or if the ballot names another.
    pub fn on_leader(&mut self, who: usize, ballot: Ballot) -> Verdict {
        let first = *self.leaders.entry(ballot).or_insert(who);
        if first != who {
            return Violation::raise("ballots", format!("replicas {first} and {who} both lead in {ballot}"));
        }
        if ballot.replica.0 as usize != who {
            return Violation::raise("ballots", format!("replica {who} leads in {ballot}, which is not its own"));
        }
        Ok(())
    }

    /// The leader of `ballot` proposes `value`.
    ///
    /// # Errors
    /// If another value was proposed in the same ballot and slot.
    pub fn on_proposal(&mut self, ballot: Ballot, slot: Slot, value: ValueId) -> Verdict {
        let first = *self.values.entry((ballot, slot)).or_insert(value);
        if first == value {
            return Ok(());
        }
        Violation::raise("ballots", format!("{ballot} proposed {first:?} and {value:?} in slot {slot}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::ids::{Incarnation, ReplicaId};

    const OF_1: Ballot = Ballot { round: 3, replica: ReplicaId(1), incarnation: Incarnation(1) };

    #[test]
    fn two_leaders_of_one_ballot_are_caught() {
        let mut check = Ballots::default();
        check.on_leader(1, OF_1).unwrap();
        check.on_leader(1, OF_1).unwrap();
        assert!(check.on_leader(2, OF_1).is_err());
    }

    #[test]
    fn a_leader_in_a_ballot_of_another_member_is_caught() {
        assert!(Ballots::default().on_leader(0, OF_1).is_err());
    }

    #[test]
    fn two_values_of_one_ballot_and_slot_are_caught() {
        let mut check = Ballots::default();
        check.on_proposal(OF_1, Slot(1), ValueId(1)).unwrap();
        check.on_proposal(OF_1, Slot(2), ValueId(2)).unwrap();
        assert!(check.on_proposal(OF_1, Slot(1), ValueId(2)).is_err());
    }
}
