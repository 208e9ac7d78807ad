//! The settled mark (rule 9) says no more than that a majority of applications executed so far.

use super::execution::Execution;
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

    /// Replica `who`'s application executed a slot, or loaded a snapshot of the state after it.
    pub fn on_executed(&mut self, who: usize, slot: Slot) {
        self.executed[who] = self.executed[who].max(slot);
    }

    /// Replica `who` calls `mark` settled.
    ///
    /// # Errors
    /// If an operation at or below it was executed by fewer than a majority.
    pub fn on_mark(&self, who: usize, mark: Slot, execution: &Execution) -> Verdict {
        let Some(last) = execution.last_through(mark) else { return Ok(()) };
        let reached = self.executed.iter().filter(|slot| **slot >= last).count();
        if reached >= mesh::quorum::majority(self.executed.len()) {
            return Ok(());
        }
        Violation::raise("settled", format!("replica {who} calls slot {mark} settled; {reached} executed slot {last}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::execution::Executed;
    use super::*;
    use mesh::ids::{ClientId, Run};
    use mesh::order::Operation;

    #[test]
    fn a_mark_above_what_a_majority_executed_is_caught() {
        let mut check = Settled::new(3);
        let mut execution = Execution::new(3);
        execution.on_reset(0, Run(1), Slot(0)).unwrap();
        let operations = vec![Operation::End { session: (ClientId(1), mesh::ids::Opening::NONE) }];
        let executed = Executed { slot: Slot(4), time: 1, operations, places: vec![None] };
        execution.on_execute(0, Run(1), executed).unwrap();
        check.on_executed(0, Slot(4));
        check.on_mark(0, Slot(3), &execution).unwrap();
        assert!(check.on_mark(0, Slot(4), &execution).is_err());
        check.on_executed(2, Slot(4));
        check.on_mark(0, Slot(9), &execution).unwrap();
    }
}
