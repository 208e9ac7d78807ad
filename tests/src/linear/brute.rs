//! The definition, tried out: is there any order? For histories of a few calls.

use super::{Call, Op, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// Whether some order of the answered calls, and of any of the unknown ones, respects real time and gives every reply.
pub(super) fn linearizable(calls: &[Call]) -> bool {
    let calls: Vec<&Call> = calls.iter().filter(|call| call.outcome != Outcome::Refused).collect();
    Search { calls: &calls, seen: BTreeSet::new() }.any(0, &BTreeMap::new())
}

struct Search<'a> {
    calls: &'a [&'a Call],
    seen: BTreeSet<(u32, BTreeMap<String, String>)>,
}

impl Search<'_> {
    fn any(&mut self, done: u32, map: &BTreeMap<String, String>) -> bool {
        let answered = |number: usize| matches!(self.calls[number].outcome, Outcome::Reply { .. });
        if (0..self.calls.len()).all(|number| done & 1 << number != 0 || !answered(number)) {
            return true;
        }
        if !self.seen.insert((done, map.clone())) {
            return false;
        }
        let open = |number: &usize| done & 1 << number == 0;
        // Nothing that was called after another call's return comes before that one.
        let limit = (0..self.calls.len()).filter(open).filter_map(|number| returned(self.calls[number])).min();
        let next: Vec<usize> = (0..self.calls.len())
            .filter(open)
            .filter(|number| limit.is_none_or(|limit| self.calls[*number].called <= limit))
            .collect();
        next.into_iter().any(|number| {
            let mut map = map.clone();
            let reply = apply(&mut map, &self.calls[number].op);
            let right = match &self.calls[number].outcome {
                Outcome::Reply { reply: seen, .. } => *seen == reply,
                _ => true,
            };
            right && self.any(done | 1 << number, &map)
        })
    }
}

fn returned(call: &Call) -> Option<u64> {
    match call.outcome {
        Outcome::Reply { returned, .. } => Some(returned),
        _ => None,
    }
}

/// What one copy answers.
pub(super) fn apply(map: &mut BTreeMap<String, String>, op: &Op) -> String {
    match op {
        Op::Put { key, value } => {
            map.insert(key.clone(), value.clone());
            "OK".to_owned()
        }
        Op::Get { key } => map.get(key).map_or("NIL".to_owned(), |value| format!("VALUE {value}")),
        Op::Remove { key } => if map.remove(key).is_some() { "OK" } else { "NIL" }.to_owned(),
        Op::Size => map.len().to_string(),
    }
}
