//! No two replicas decide differently for a slot, and no replica changes its mind.

use super::{Verdict, Violation, ledger::ValueId};
use mesh::ids::Slot;
use std::collections::BTreeMap;

/// Who decided what first.
#[derive(Debug, Default)]
pub struct Agreement {
    decided: BTreeMap<Slot, (ValueId, usize)>,
}

impl Agreement {
    /// Replica `who` holds `value` as decided for `slot`.
    ///
    /// # Errors
    /// If another value was decided for the slot.
    pub fn on_decided(&mut self, who: usize, slot: Slot, value: ValueId) -> Verdict {
        let (first, by) = *self.decided.entry(slot).or_insert((value, who));
        if first == value {
            return Ok(());
        }
        Violation::raise("agreement", format!("slot {slot}: replica {by} decided {first:?}, replica {who} {value:?}"))
    }

    /// Slots that somebody decided.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.decided.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_replicas_that_decide_differently_are_caught() {
        let mut check = Agreement::default();
        check.on_decided(0, Slot(1), ValueId(5)).unwrap();
        check.on_decided(1, Slot(1), ValueId(5)).unwrap();
        assert!(check.on_decided(2, Slot(1), ValueId(6)).is_err());
    }

    #[test]
    fn a_replica_that_changes_its_mind_is_caught() {
        let mut check = Agreement::default();
        check.on_decided(0, Slot(1), ValueId(5)).unwrap();
        assert!(check.on_decided(0, Slot(1), ValueId(6)).is_err());
    }
}
