//! The application's state is a function of the log: what a snapshot holds, and what a replica loads, is the state after
//! exactly the slots up to its own, and only settled slots are in one.

use super::execution::Execution;
use super::model::Store;
use super::{Verdict, Violation};
use mesh::ids::Slot;
use mesh::order::Operation;
use std::collections::BTreeMap;

const NAME: &str = "lineage";

/// States of the model after some slots, so that not every one is computed from the first slot on.
#[derive(Debug, Default)]
pub struct Lineage {
    states: BTreeMap<Slot, Store>,
    snapshots: BTreeMap<Slot, usize>,
}

impl Lineage {
    /// A request of `slot` is aborted.
    ///
    /// # Errors
    /// If a snapshot has it.
    pub fn on_abort(&mut self, slot: Slot) -> Verdict {
        self.states.split_off(&slot);
        match self.snapshots.range(slot..).next() {
            Some((snapshot, who)) => {
                let what =
                    format!("replica {who}'s snapshot of slot {snapshot} has slot {slot}, which was not settled");
                Violation::raise(NAME, what)
            }
            None => Ok(()),
        }
    }

    /// Replica `who` has a snapshot of `slot` with this state, of an application that always answered as it should.
    ///
    /// # Errors
    /// If the state is another one.
    pub fn on_snapshot(&mut self, who: usize, slot: Slot, state: &Store, execution: &Execution) -> Verdict {
        self.snapshots.insert(slot, who);
        self.compare(&format!("replica {who}'s snapshot"), slot, state, execution)
    }

    /// Replica `who`'s application begins with this state, after `slot`.
    ///
    /// # Errors
    /// If it is another one.
    pub fn on_restored(&mut self, who: usize, slot: Slot, state: &Store, execution: &Execution) -> Verdict {
        self.compare(&format!("replica {who}'s application"), slot, state, execution)
    }

    fn compare(&mut self, whose: &str, slot: Slot, state: &Store, execution: &Execution) -> Verdict {
        let expected = self.state_after(slot, execution);
        if expected == state {
            return Ok(());
        }
        Violation::raise(NAME, format!("{whose} has {state:?} after slot {slot}, the model {expected:?}"))
    }

    fn state_after(&mut self, slot: Slot, execution: &Execution) -> &Store {
        let (from, state) = match self.states.range(..=slot).next_back() {
            Some((from, state)) => (*from, state.clone()),
            None => (Slot(0), Store::default()),
        };
        self.states.entry(slot).or_insert_with(|| {
            let mut state = state;
            let order = execution.order();
            let (begin, end) = (order.partition_point(|e| e.slot <= from), order.partition_point(|e| e.slot <= slot));
            for executed in order.get(begin..end).unwrap_or_default() {
                for operation in executed.left(execution.aborted()) {
                    if let Operation::Call { bytes, .. } = operation {
                        state.execute(bytes);
                    }
                }
            }
            state
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::execution::Executed;
    use super::super::model::{CallId, MapOp};
    use super::*;
    use mesh::ids::{ClientId, Run};

    fn execution() -> Execution {
        let mut execution = Execution::new(1);
        execution.on_reset(0, Run(1), Slot(0)).unwrap();
        for slot in [1, 3] {
            let bytes = MapOp::Put(slot, slot).encode(CallId(slot), 0);
            let operations = vec![Operation::Call { session: (ClientId(1), mesh::ids::Opening::NONE), bytes }];
            let executed = Executed { slot: Slot(slot), time: slot, operations, places: vec![Some(0)] };
            execution.on_execute(0, Run(1), executed).unwrap();
        }
        execution
    }

    #[test]
    fn a_state_that_is_not_that_of_its_slot_is_caught() {
        let (execution, mut check) = (execution(), Lineage::default());
        let (first, both) = (Store([(1, 1)].into()), Store([(1, 1), (3, 3)].into()));
        check.on_snapshot(0, Slot(2), &first, &execution).unwrap();
        check.on_snapshot(0, Slot(3), &both, &execution).unwrap();
        check.on_restored(0, Slot(0), &Store::default(), &execution).unwrap();
        assert!(check.on_snapshot(0, Slot(3), &first, &execution).is_err());
        assert!(check.on_restored(0, Slot(2), &both, &execution).is_err());
    }

    #[test]
    fn an_abort_of_what_is_in_a_snapshot_is_caught() {
        let (execution, mut check) = (execution(), Lineage::default());
        check.on_snapshot(0, Slot(2), &Store([(1, 1)].into()), &execution).unwrap();
        check.on_abort(Slot(3)).unwrap();
        assert!(check.on_abort(Slot(2)).is_err());
    }
}
