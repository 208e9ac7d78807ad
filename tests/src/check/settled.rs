//! The settled mark (rule 9) says no more than that a majority of applications executed so far.

use super::execution::Execution;
use super::membership::{Configuration, Membership};
use super::{Verdict, Violation};
use mesh::ids::Slot;

/// The highest slot that each application ever executed.
#[derive(Debug)]
pub struct Settled {
    executed: Vec<Slot>,
    // The highest mark that held: it stays settled whatever the configuration becomes.
    settled: Slot,
}

impl Settled {
    /// For `n` replicas.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self { executed: vec![Slot(0); n], settled: Slot(0) }
    }

    /// Replica `who`'s application executed a slot, or loaded a snapshot of the state after it.
    pub fn on_executed(&mut self, who: usize, slot: Slot) {
        self.executed[who] = self.executed[who].max(slot);
    }

    /// Replica `who` calls `mark` settled.
    ///
    /// # Errors
    /// If an operation at or below it was executed by too few in every configuration that can have said so.
    pub fn on_mark(&mut self, who: usize, mark: Slot, execution: &Execution, membership: &Membership) -> Verdict {
        if mark <= self.settled {
            return Ok(());
        }
        let Some(last) = execution.last_through(mark) else { return Ok(()) };
        let reached = |who: &usize| self.executed[*who] >= last;
        // Who leads in an older configuration than the newest counts in that.
        let mut all = membership.from(self.settled);
        let old = mark <= membership.elected();
        let needed = |configuration: &Configuration| if old { 1 } else { configuration.settling() };
        if all.any(|configuration| configuration.applications().filter(reached).count() >= needed(configuration)) {
            self.settled = mark;
            return Ok(());
        }
        let reached = (0..self.executed.len()).filter(reached).collect::<Vec<_>>();
        Violation::raise(
            "settled",
            format!("replica {who} calls slot {mark} settled; {reached:?} executed slot {last}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::execution::Executed;
    use super::*;
    use mesh::config::{ClusterConfig, Durability};
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
        let members = Membership::new(3, &ClusterConfig::of(3, "line", Durability::Sync));
        check.on_mark(0, Slot(3), &execution, &members).unwrap();
        assert!(check.on_mark(0, Slot(4), &execution, &members).is_err());
        check.on_executed(2, Slot(4));
        check.on_mark(0, Slot(9), &execution, &members).unwrap();
    }
}
