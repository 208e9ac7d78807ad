//! Execution: every application gets the same operations in the same order at the same times, without a gap, from the
//! first one in each run. What it builds is the agreed order that the other checkers read.

use super::{Verdict, Violation};
use mesh::ids::{Run, Slot};
use mesh::order::Operation;

const NAME: &str = "execution";

/// What one slot executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// The slot.
    pub slot: Slot,
    /// Its effective time.
    pub time: u64,
    /// Its operations.
    pub operations: Vec<Operation>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Position {
    run: Option<Run>,
    next: usize,
}

/// The agreed order, and how far each replica's run is in it.
#[derive(Debug)]
pub struct Execution {
    order: Vec<Executed>,
    positions: Vec<Position>,
}

impl Execution {
    /// For `n` replicas.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self { order: Vec::new(), positions: vec![Position::default(); n] }
    }

    /// The agreed order so far.
    #[must_use]
    pub fn order(&self) -> &[Executed] {
        &self.order
    }

    /// Replica `who` begins a run with an application in its initial state.
    ///
    /// # Errors
    /// If the run is not a new one.
    pub fn on_reset(&mut self, who: usize, run: Run) -> Verdict {
        let position = &mut self.positions[who];
        if position.run.is_some_and(|old| old >= run) {
            return Violation::raise(NAME, format!("replica {who} resets to {run:?} in {:?}", position.run));
        }
        *position = Position { run: Some(run), next: 0 };
        Ok(())
    }

    /// Replica `who`'s process ended.
    pub fn on_crash(&mut self, who: usize) {
        self.positions[who] = Position::default();
    }

    /// Replica `who` hands a slot to its application. True if no replica did so before.
    ///
    /// # Errors
    /// If it is not what the agreed order has next.
    pub fn on_execute(&mut self, who: usize, run: Run, executed: Executed) -> Result<bool, Violation> {
        let position = &mut self.positions[who];
        if position.run != Some(run) {
            let what = format!("replica {who} executes slot {} in {run:?}, it is in {:?}", executed.slot, position.run);
            return Err(Violation { check: NAME, what });
        }
        let new = match self.order.get(position.next) {
            Some(agreed) if *agreed == executed => false,
            Some(agreed) => {
                let what = format!("replica {who} executes {executed:?}, the agreed order has {agreed:?}");
                return Err(Violation { check: NAME, what });
            }
            None => {
                if self.order.last().is_some_and(|last| last.slot >= executed.slot) {
                    let what = format!("replica {who} executes slot {} after a later one", executed.slot);
                    return Err(Violation { check: NAME, what });
                }
                self.order.push(executed);
                true
            }
        };
        position.next += 1;
        Ok(new)
    }

    /// Slots of the agreed order that replica `who`'s run has been handed.
    #[must_use]
    pub fn handed(&self, who: usize) -> usize {
        self.positions[who].next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn executed(slot: u64, body: &'static str) -> Executed {
        let session = (mesh::ids::ClientId(1), Slot(1));
        let operations = vec![Operation::Call { session, bytes: Bytes::from_static(body.as_bytes()) }];
        Executed { slot: Slot(slot), time: slot, operations }
    }

    fn check() -> Execution {
        let mut check = Execution::new(2);
        check.on_reset(0, Run(1)).unwrap();
        check.on_reset(1, Run(1)).unwrap();
        assert!(check.on_execute(0, Run(1), executed(1, "a")).unwrap());
        assert!(check.on_execute(0, Run(1), executed(3, "b")).unwrap());
        check
    }

    #[test]
    fn another_operation_in_a_slot_is_caught() {
        assert!(check().on_execute(1, Run(1), executed(1, "x")).is_err());
    }

    #[test]
    fn another_time_of_a_slot_is_caught() {
        assert!(check().on_execute(1, Run(1), Executed { time: 9, ..executed(1, "a") }).is_err());
    }

    #[test]
    fn a_gap_is_caught() {
        assert!(check().on_execute(1, Run(1), executed(3, "b")).is_err());
    }

    #[test]
    fn a_slot_that_others_skipped_is_caught() {
        let mut check = check();
        assert!(!check.on_execute(1, Run(1), executed(1, "a")).unwrap());
        assert!(check.on_execute(1, Run(1), executed(2, "c")).is_err());
    }

    #[test]
    fn a_slot_out_of_order_or_twice_is_caught() {
        assert!(check().on_execute(0, Run(1), executed(2, "c")).is_err());
        assert!(check().on_execute(0, Run(1), executed(3, "b")).is_err());
    }

    #[test]
    fn a_run_begins_with_the_first_slot_and_its_own_number() {
        let mut check = check();
        check.on_reset(0, Run(2)).unwrap();
        assert!(check.on_execute(0, Run(1), executed(1, "a")).is_err());
        assert!(!check.on_execute(0, Run(2), executed(1, "a")).unwrap());
        assert!(check.on_reset(0, Run(2)).is_err());
    }
}
