//! Execution: every application gets the same operations in the same order at the same times, without a gap, from the
//! first one in each run, or from its snapshot on. What it builds is the agreed order that the other checkers read.
//!
//! An abort takes a call out of the order: whoever did not know of it yet may have run it, and runs it again without.

use super::{Verdict, Violation};
use mesh::ids::{Position, Run, Slot};
use mesh::order::Operation;
use std::collections::BTreeSet;

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
    /// For each operation its place in the slot's batch, if it is a call.
    pub places: Vec<Option<u32>>,
}

impl Executed {
    /// Its operations but for calls that were aborted.
    pub fn left<'a>(&'a self, aborted: &'a BTreeSet<Position>) -> impl Iterator<Item = &'a Operation> + 'a {
        let slot = self.slot;
        let all = self.operations.iter().zip(&self.places);
        all.filter(move |(_, place)| place.is_none_or(|call| !aborted.contains(&Position { slot, call })))
            .map(|(operation, _)| operation)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct At {
    run: Option<Run>,
    next: usize,
    // The last slot that was handed over, or that a snapshot covers.
    last: Slot,
}

/// The agreed order, and how far each replica's run is in it.
#[derive(Debug)]
pub struct Execution {
    order: Vec<Executed>,
    aborted: BTreeSet<Position>,
    runs: Vec<At>,
}

impl Execution {
    /// For `n` replicas.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self { order: Vec::new(), aborted: BTreeSet::new(), runs: vec![At::default(); n] }
    }

    /// The agreed order so far; [`Execution::aborted`] are in it.
    #[must_use]
    pub fn order(&self) -> &[Executed] {
        &self.order
    }

    /// The calls that are out of the order again.
    #[must_use]
    pub fn aborted(&self) -> &BTreeSet<Position> {
        &self.aborted
    }

    /// A request is aborted by order. True if this is the first abort of it.
    pub fn on_abort(&mut self, at: Position) -> bool {
        self.aborted.insert(at)
    }

    /// The last slot up to `mark` in which there is something to execute.
    #[must_use]
    pub fn last_through(&self, mark: Slot) -> Option<Slot> {
        let below = &self.order[..self.order.partition_point(|executed| executed.slot <= mark)];
        below.iter().rev().find(|executed| executed.left(&self.aborted).next().is_some()).map(|executed| executed.slot)
    }

    /// Replica `who` begins a run with an application in its initial state, or in that after the slot `after`.
    ///
    /// # Errors
    /// If the run is not a new one.
    pub fn on_reset(&mut self, who: usize, run: Run, after: Slot) -> Verdict {
        let at = &mut self.runs[who];
        if at.run.is_some_and(|old| old >= run) {
            return Violation::raise(NAME, format!("replica {who} resets to {run:?} in {:?}", at.run));
        }
        let next = self.order.partition_point(|executed| executed.slot <= after);
        *at = At { run: Some(run), next, last: after };
        Ok(())
    }

    /// Replica `who`'s process ended.
    pub fn on_crash(&mut self, who: usize) {
        self.runs[who] = At::default();
    }

    /// Replica `who` hands a slot to its application. True if no replica did so before.
    ///
    /// # Errors
    /// If it is not what the agreed order has next.
    pub fn on_execute(&mut self, who: usize, run: Run, executed: Executed) -> Result<bool, Violation> {
        let error = |what: String| Err(Violation { check: NAME, what });
        let Self { order, aborted, runs } = self;
        let at = &mut runs[who];
        if at.run != Some(run) {
            return error(format!("replica {who} executes slot {} in {run:?}, it is in {:?}", executed.slot, at.run));
        }
        if executed.slot <= at.last {
            return error(format!("replica {who} executes slot {} after slot {}", executed.slot, at.last));
        }
        at.last = executed.slot;
        let skippable = |agreed: &Executed| agreed.slot < executed.slot && agreed.left(aborted).next().is_none();
        while order.get(at.next).is_some_and(skippable) {
            at.next += 1;
        }
        match order.get(at.next) {
            Some(agreed) if agreed.slot == executed.slot => {
                if agreed.time != executed.time || !agreed.left(aborted).eq(executed.left(aborted)) {
                    return error(format!("replica {who} executes {executed:?}, the agreed order has {agreed:?}"));
                }
                at.next += 1;
                Ok(false)
            }
            // Others knew already that all of it is aborted.
            Some(later) if later.slot > executed.slot && executed.left(aborted).next().is_none() => Ok(false),
            Some(agreed) => error(format!("replica {who} executes {executed:?}, the agreed order has {agreed:?}")),
            None => {
                order.push(executed);
                at.next += 1;
                Ok(true)
            }
        }
    }

    /// The last slot that was handed to replica `who`'s application, or that its snapshot covers.
    #[must_use]
    pub fn handed(&self, who: usize) -> Slot {
        self.runs[who].last
    }

    /// Replica `who` was handed everything up to `slot` and nothing after.
    #[must_use]
    pub fn is_exactly_at(&self, who: usize, slot: Slot) -> bool {
        let at = &self.runs[who];
        at.last <= slot && self.last_through(slot).is_none_or(|last| at.last >= last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn executed(slot: u64, bodies: &[&'static str]) -> Executed {
        let session = (mesh::ids::ClientId(1), mesh::ids::Opening::NONE);
        let call = |body: &&'static str| Operation::Call { session, bytes: Bytes::from_static(body.as_bytes()) };
        let places = (0..bodies.len() as u32).map(Some).collect();
        Executed { slot: Slot(slot), time: slot, operations: bodies.iter().map(call).collect(), places }
    }

    fn check() -> Execution {
        let mut check = Execution::new(2);
        check.on_reset(0, Run(1), Slot(0)).unwrap();
        check.on_reset(1, Run(1), Slot(0)).unwrap();
        assert!(check.on_execute(0, Run(1), executed(1, &["a", "b"])).unwrap());
        assert!(check.on_execute(0, Run(1), executed(3, &["c"])).unwrap());
        check
    }

    #[test]
    fn another_operation_or_time_of_a_slot_is_caught() {
        assert!(check().on_execute(1, Run(1), executed(1, &["x"])).is_err());
        assert!(check().on_execute(1, Run(1), executed(1, &["a"])).is_err());
        assert!(check().on_execute(1, Run(1), Executed { time: 9, ..executed(1, &["a", "b"]) }).is_err());
    }

    #[test]
    fn a_gap_is_caught() {
        assert!(check().on_execute(1, Run(1), executed(3, &["c"])).is_err());
    }

    #[test]
    fn a_slot_that_others_skipped_is_caught() {
        let mut check = check();
        assert!(!check.on_execute(1, Run(1), executed(1, &["a", "b"])).unwrap());
        assert!(check.on_execute(1, Run(1), executed(2, &["c"])).is_err());
    }

    #[test]
    fn a_slot_out_of_order_or_twice_is_caught() {
        assert!(check().on_execute(0, Run(1), executed(2, &["c"])).is_err());
        assert!(check().on_execute(0, Run(1), executed(3, &["c"])).is_err());
    }

    #[test]
    fn a_run_begins_with_the_first_slot_and_its_own_number() {
        let mut check = check();
        check.on_reset(0, Run(2), Slot(0)).unwrap();
        assert!(check.on_execute(0, Run(1), executed(1, &["a", "b"])).is_err());
        assert!(!check.on_execute(0, Run(2), executed(1, &["a", "b"])).unwrap());
        assert!(check.on_reset(0, Run(2), Slot(0)).is_err());
    }

    #[test]
    fn a_run_with_a_snapshot_begins_behind_it() {
        let mut check = check();
        check.on_reset(1, Run(2), Slot(2)).unwrap();
        assert!(check.is_exactly_at(1, Slot(2)) && !check.is_exactly_at(1, Slot(3)));
        assert!(check.on_execute(1, Run(2), executed(1, &["a", "b"])).is_err());
        check.on_reset(1, Run(3), Slot(2)).unwrap();
        assert!(!check.on_execute(1, Run(3), executed(3, &["c"])).unwrap());
    }

    #[test]
    fn an_aborted_call_may_run_or_not_and_the_rest_must() {
        let mut check = check();
        assert!(check.on_abort(Position { slot: Slot(1), call: 0 }));
        assert!(!check.on_execute(1, Run(1), executed(1, &["a", "b"])).unwrap());
        let without = Executed { places: vec![Some(1)], ..executed(1, &["b"]) };
        check.on_reset(1, Run(2), Slot(0)).unwrap();
        assert!(!check.on_execute(1, Run(2), without).unwrap());
        check.on_reset(1, Run(3), Slot(0)).unwrap();
        assert!(check.on_execute(1, Run(3), executed(1, &["a"])).is_err(), "b is missing");
        check.on_abort(Position { slot: Slot(1), call: 1 });
        check.on_reset(1, Run(4), Slot(0)).unwrap();
        assert!(!check.on_execute(1, Run(4), executed(3, &["c"])).unwrap(), "nothing of slot 1 is left");
    }
}
