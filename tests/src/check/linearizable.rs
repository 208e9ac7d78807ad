//! The clients saw one copy of the application: each reply is what the model gives in the agreed order, and that order
//! respects real time (a call that returned before another was called comes first).

use super::history::{History, find};
use super::model::{CallId, Store};
use super::{Verdict, Violation};
use std::collections::BTreeSet;

const NAME: &str = "linearizable";

/// Judges a whole history against the agreed order.
///
/// # Errors
/// The first call that one copy could not have answered so.
pub fn check(history: &History, order: &[CallId]) -> Verdict {
    let mut model = Store::default();
    // The latest call among those ordered so far: nobody after may have returned before it was called.
    let mut latest: Option<(u64, CallId)> = None;
    for id in order {
        let Some(call) = find(history, *id) else {
            return Violation::raise(NAME, format!("call {} was executed and never called", id.0));
        };
        let expected = model.execute(&call.op.encode(*id, 0));
        if let Some((at, got)) = call.reply() {
            if *got != expected {
                let what = format!("call {} ({:?}) was answered {got:?}, the model says {expected:?}", id.0, call.op);
                return Violation::raise(NAME, what);
            }
            if let Some((called, before)) = latest.filter(|(called, _)| *called > at) {
                let what = format!(
                    "call {} returned at {at}; {} was called later ({called}), yet runs before",
                    id.0, before.0
                );
                return Violation::raise(NAME, what);
            }
        }
        if latest.is_none_or(|(called, _)| call.called > called) {
            latest = Some((call.called, *id));
        }
    }
    let ordered: BTreeSet<CallId> = order.iter().copied().collect();
    // Of reads in no order others judge.
    let answered = history.iter().enumerate().filter(|(_, call)| call.reply().is_some() && !call.op.is_read());
    let lost = answered.into_iter().find(|(id, _)| !ordered.contains(&CallId(*id as u64)));
    match lost {
        Some((id, call)) => {
            Violation::raise(NAME, format!("call {id} ({:?}) was answered and is in no order", call.op))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::Call;
    use super::super::model::MapOp;
    use super::*;
    use mesh::client::sender::Answer;
    use mesh::wire::client::Unknown;

    fn call(op: MapOp, called: u64, returned: Option<(u64, &'static str)>) -> Call {
        let returned = returned.map(|(at, reply)| (at, Answer::Reply(reply.into())));
        Call { connection: 0, op, called, returned, oversized: false }
    }

    const FIRST: CallId = CallId(0);
    const SECOND: CallId = CallId(1);

    #[test]
    fn a_sound_history_passes() {
        let mut unknown = call(MapOp::Put(1, 8), 3, None);
        unknown.returned = Some((9, Answer::Unknown(Unknown::Deadline)));
        let history =
            [call(MapOp::Put(1, 7), 1, Some((2, "OK"))), unknown, call(MapOp::Get(1), 4, Some((5, "VALUE 7")))];
        check(&history, &[FIRST, CallId(2), SECOND]).unwrap();
        check(&history, &[FIRST, CallId(2)]).unwrap();
        assert!(check(&history, &[FIRST, SECOND, CallId(2)]).is_err(), "then it would have read 8");
    }

    #[test]
    fn a_stale_read_is_caught() {
        let history = [call(MapOp::Put(1, 7), 1, Some((2, "OK"))), call(MapOp::Get(1), 3, Some((4, "NIL")))];
        assert!(check(&history, &[FIRST, SECOND]).is_err());
        assert!(check(&history, &[SECOND, FIRST]).is_err(), "that order is against real time");
    }

    #[test]
    fn an_answered_call_that_is_lost_is_caught() {
        let history = [call(MapOp::Put(1, 7), 1, Some((2, "OK")))];
        assert!(check(&history, &[]).is_err());
    }

    #[test]
    fn a_call_that_nobody_made_is_caught() {
        assert!(check(&[], &[FIRST]).is_err());
    }
}
