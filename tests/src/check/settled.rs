//! The settled mark (rule 9) says no more than that a majority of applications executed so far.

use super::execution::Executed;
use super::{Verdict, Violation};
use mesh::ids::Slot;

/// The highest slot that each application ever executed.
#[derive(Debug)]
pub struct Settled {
    executed: Vec<Slot>,
}

impl Settled {
    /// For `n` replicas.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self { executed: vec![Slot(0); n] }
    }

    /// Replica `who`'s application executed a slot.
    pub fn on_executed(&mut self, who: usize, slot: Slot) {
        self.executed[who] = self.executed[who].max(slot);
    }

    /// Replica `who` calls `mark` settled.
    ///
    /// # Errors
    /// If an operation at or below it was executed by fewer than a majority.
    pub fn on_mark(&self, who: usize, mark: Slot, order: &[Executed]) -> Verdict {
        let below = order.partition_point(|executed| executed.slot <= mark);
        let Some(last) = below.checked_sub(1).map(|index| order[index].slot) else { return Ok(()) };
        let reached = self.executed.iter().filter(|slot| **slot >= last).count();
        if reached >= mesh::quorum::majority(self.executed.len()) {
            return Ok(());
        }
        Violation::raise("settled", format!("replica {who} calls slot {mark} settled; {reached} executed slot {last}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_above_what_a_majority_executed_is_caught() {
        let mut check = Settled::new(3);
        let order = [Executed { slot: Slot(4), time: 1, operations: vec![] }];
        check.on_executed(0, Slot(4));
        check.on_mark(0, Slot(3), &order).unwrap();
        assert!(check.on_mark(0, Slot(4), &order).is_err());
        check.on_executed(2, Slot(4));
        check.on_mark(0, Slot(9), &order).unwrap();
    }
}
