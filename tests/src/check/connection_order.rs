//! Requests of one connection run in the order in which they came.

use super::history::{History, find};
use super::model::CallId;
use super::{Verdict, Violation};
use std::collections::BTreeMap;

/// Judges a whole history: call ids ascend in the order of calling.
///
/// # Errors
/// The first call that ran before an earlier one of its connection.
pub fn check(history: &History, order: &[CallId]) -> Verdict {
    let mut last: BTreeMap<u64, CallId> = BTreeMap::new();
    for id in order {
        let Some(call) = find(history, *id) else { continue };
        if let Some(later) = last.insert(call.connection, *id).filter(|later| later > id) {
            let what = format!("call {} of connection {} ran after call {}", id.0, call.connection, later.0);
            return Violation::raise("connection-order", what);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::history::Call;
    use super::super::model::MapOp;
    use super::*;

    fn call(connection: u64) -> Call {
        Call { connection, op: MapOp::Size, called: 1, returned: None, oversized: false }
    }

    #[test]
    fn a_connection_whose_calls_overtake_each_other_is_caught() {
        let history = [call(1), call(1), call(2)];
        check(&history, &[CallId(2), CallId(0), CallId(1)]).unwrap();
        assert!(check(&history, &[CallId(1), CallId(0)]).is_err());
    }
}
