//! Local bounds hold: slots outstanding in the application, slots proposed beyond the settled mark, requests held.

use super::{Verdict, Violation};
use mesh::ids::Slot;
use mesh::limits::Limits;
use mesh::order::Status;
use mesh::wire::peer::Batch;

const NAME: &str = "bounds";

/// Replica `who` has `outstanding` slots with its application.
///
/// # Errors
/// If these are more than it may have.
pub fn on_execute(who: usize, outstanding: usize, limits: &Limits) -> Verdict {
    if outstanding <= limits.executing_slots {
        return Ok(());
    }
    Violation::raise(NAME, format!("replica {who} has {outstanding} slots with its application"))
}

/// Replica `who` proposes `batch` for the first time anywhere.
///
/// # Errors
/// If it is larger than it may be, or too far beyond the settled mark it carries.
pub fn on_proposal(who: usize, slot: Slot, batch: &Batch, limits: &Limits) -> Verdict {
    if batch.requests.len() > limits.batch_requests {
        return Violation::raise(NAME, format!("replica {who} proposes {} requests at once", batch.requests.len()));
    }
    if !batch.requests.is_empty() && slot.0 > batch.settled.0 + limits.unsettled_slots {
        let what = format!("replica {who} proposes slot {slot} with {} settled", batch.settled);
        return Violation::raise(NAME, what);
    }
    Ok(())
}

/// Replica `who` at any time.
///
/// # Errors
/// If it holds more than it may.
pub fn on_status(who: usize, status: &Status, limits: &Limits) -> Verdict {
    if status.held <= limits.held_requests {
        return Ok(());
    }
    Violation::raise(NAME, format!("replica {who} holds {} requests", status.held))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::ids::{ClientId, Generation, Seq};
    use mesh::wire::{Body, Request};

    #[test]
    fn what_is_above_a_bound_is_caught() {
        let limits = Limits { executing_slots: 2, unsettled_slots: 3, batch_requests: 1, ..Limits::DEFAULT };
        on_execute(0, 2, &limits).unwrap();
        assert!(on_execute(0, 3, &limits).is_err());
        let request = Request {
            client: ClientId(1),
            opened: Generation::FIRST.at(Slot(1)),
            seq: Seq(1),
            body: Body::Close,
            proof: None,
        };
        let one = Batch { settled: Slot(1), requests: vec![request.clone()], ..Batch::default() };
        on_proposal(0, Slot(4), &one, &limits).unwrap();
        assert!(on_proposal(0, Slot(5), &one, &limits).is_err());
        let two = Batch { requests: vec![request.clone(), request], ..one };
        assert!(on_proposal(0, Slot(2), &two, &limits).is_err());
    }
}
