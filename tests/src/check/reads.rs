//! Reads past the log are in no agreed order, and yet each must have a place in it: where its reply is what the model says;
//! behind every call that returned before it was called, before every call that was called after it returned; and between
//! those of its own connection, in the order in which they were made.
//!
//! Each gets the first place that is possible behind those that it must not precede. Later ones are only bound further by a
//! later place, so where this finds none there is none.

use super::history::{Call, History};
use super::model::{CallId, Store};
use super::{Verdict, Violation};
use std::collections::BTreeMap;

const NAME: &str = "linearizable";

/// Whether a call is judged here: it was answered, changes nothing, and is in no order.
fn is_past(id: usize, call: &Call, places: &BTreeMap<CallId, usize>) -> bool {
    call.op.is_read() && call.reply().is_some() && !places.contains_key(&CallId(id as u64))
}

/// Judges a whole history against the agreed order.
///
/// # Errors
/// The first read that no place in it can explain.
pub fn check(history: &History, order: &[CallId]) -> Verdict {
    // A place is the number of calls before it; a call stands in front of the place of its own number.
    let places: BTreeMap<CallId, usize> = order.iter().enumerate().map(|(index, id)| (*id, index + 1)).collect();
    let mut states = vec![Store::default()];
    for id in order {
        let mut state = states.last().cloned().unwrap_or_default();
        if let Some(call) = super::history::find(history, *id) {
            state.execute(&call.op.encode(*id, 0));
        }
        states.push(state);
    }
    let mut given: Vec<(usize, usize)> = Vec::new();
    for (id, call) in history.iter().enumerate().filter(|(id, call)| is_past(*id, call, &places)) {
        let Some((returned, reply)) = call.reply() else { continue };
        let (mut least, mut most) = (0, order.len());
        for (other, place) in &places {
            let Some(ordered) = super::history::find(history, *other) else { continue };
            let own = ordered.connection == call.connection;
            let before = ordered.reply().is_some_and(|(at, _)| at < call.called);
            if before || own && (other.0 as usize) < id {
                least = least.max(*place);
            }
            if ordered.called > returned || own && (other.0 as usize) > id {
                most = most.min(place - 1);
            }
        }
        for (other, place) in &given {
            let earlier = &history[*other];
            let before = earlier.reply().is_some_and(|(at, _)| at < call.called);
            if before || earlier.connection == call.connection {
                least = least.max(*place);
            }
        }
        let says = |place: &usize| states[*place].clone().execute(&call.op.encode(CallId(id as u64), 0)) == *reply;
        let Some(place) = (least..=most).find(says) else {
            let what = format!(
                "call {id} ({:?}, past the log) was answered {reply:?}, which the model says nowhere from place {least} to {most}",
                call.op
            );
            return Violation::raise(NAME, what);
        };
        given.push((id, place));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::model::MapOp;
    use super::*;
    use mesh::client::sender::Answer;

    fn call(connection: u64, op: MapOp, called: u64, returned: Option<(u64, &'static str)>) -> Call {
        let returned = returned.map(|(at, reply)| (at, Answer::Reply(reply.into())));
        Call { connection, op, called, returned, oversized: false }
    }

    fn written(connection: u64, value: u64, called: u64, returned: u64) -> Call {
        call(connection, MapOp::Put(1, value), called, Some((returned, "OK")))
    }

    fn read(connection: u64, called: u64, returned: (u64, &'static str)) -> Call {
        call(connection, MapOp::Get(1), called, Some(returned))
    }

    const ORDER: [CallId; 2] = [CallId(0), CallId(1)];

    #[test]
    fn a_read_is_behind_what_returned_before_it() {
        let history = |reply| [written(1, 7, 1, 2), written(1, 8, 3, 4), read(2, 5, (6, reply))];
        check(&history("VALUE 8"), &ORDER).unwrap();
        assert!(check(&history("VALUE 7"), &ORDER).is_err(), "stale");
        assert!(check(&history("VALUE 9"), &ORDER).is_err(), "nobody wrote that");
    }

    #[test]
    fn what_was_open_meanwhile_may_have_run_or_not_but_never_what_came_later() {
        let open = |reply| [written(1, 7, 1, 2), written(1, 8, 3, 9), read(2, 5, (6, reply))];
        check(&open("VALUE 8"), &ORDER).unwrap();
        check(&open("VALUE 7"), &ORDER).unwrap();
        let later = |reply| [written(1, 7, 1, 2), written(1, 8, 8, 9), read(2, 5, (6, reply))];
        check(&later("VALUE 7"), &ORDER).unwrap();
        assert!(check(&later("VALUE 8"), &ORDER).is_err(), "it was not called yet");
    }

    #[test]
    fn what_one_read_has_seen_no_later_one_may_miss() {
        let two = |first, second| {
            [written(1, 7, 1, 2), written(1, 8, 3, 99), read(2, 5, (6, first)), read(3, 7, (8, second))]
        };
        check(&two("VALUE 7", "VALUE 8"), &ORDER).unwrap();
        check(&two("VALUE 8", "VALUE 8"), &ORDER).unwrap();
        assert!(check(&two("VALUE 8", "VALUE 7"), &ORDER).is_err());
    }

    #[test]
    fn calls_of_one_connection_keep_their_order_even_if_none_has_returned() {
        let pipelined = |reply| [written(1, 7, 1, 2), written(2, 8, 4, 9), read(2, 5, (10, reply))];
        check(&pipelined("VALUE 8"), &ORDER).unwrap();
        assert!(check(&pipelined("VALUE 7"), &ORDER).is_err(), "it does not see its own write");
        let before = |reply| [written(1, 7, 1, 2), read(2, 3, (9, reply)), written(2, 8, 4, 10)];
        let order = [CallId(0), CallId(2)];
        check(&before("VALUE 7"), &order).unwrap();
        assert!(check(&before("VALUE 8"), &order).is_err(), "it sees a write of its own that comes after it");
    }
}
