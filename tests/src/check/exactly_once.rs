//! No call is in the agreed order twice. (Every run of every application follows that order from its beginning, so no
//! run executes a call twice either.)

use super::model::CallId;
use super::{Verdict, Violation};
use std::collections::BTreeMap;

/// Where each call is in the agreed order.
#[derive(Debug, Default)]
pub struct ExactlyOnce {
    places: BTreeMap<CallId, usize>,
}

impl ExactlyOnce {
    /// `call` stands at `place` of the agreed order of calls.
    ///
    /// # Errors
    /// If it stands elsewhere already.
    pub fn on_ordered(&mut self, call: CallId, place: usize) -> Verdict {
        match self.places.insert(call, place) {
            None => Ok(()),
            Some(first) => {
                Violation::raise("exactly-once", format!("call {} runs at {first} and again at {place}", call.0))
            }
        }
    }

    /// Where a call is, if it ran.
    #[must_use]
    pub fn place(&self, call: CallId) -> Option<usize> {
        self.places.get(&call).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_runs_twice_is_caught() {
        let mut check = ExactlyOnce::default();
        check.on_ordered(CallId(1), 0).unwrap();
        check.on_ordered(CallId(2), 1).unwrap();
        assert!(check.on_ordered(CallId(1), 2).is_err());
    }
}
