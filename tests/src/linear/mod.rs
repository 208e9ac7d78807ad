//! Were the real clients served by one copy of the map? Judges a history of calls without knowing the order in which the
//! cluster ran them (the simulator's checkers do know it).
//!
//! **Keys.** A history is linearizable if and only if its part for each key is (locality: Herlihy & Wing,
//! "Linearizability", 1990, section 3.2), and the part of a key is decided exactly (`key`).
//!
//! **`SIZE`** is about all keys at once. For each moment the search for a key tells whether the key may be present then,
//! and whether it may be absent, given all that was called and answered before; a `SIZE` needs a moment between its call
//! and its return at which its reply lies between the number of keys that must be present and the number of those that
//! may be. A violation is one; but these are not caught: two replies of `SIZE` each possible alone and not together; a
//! reply that only answers given later rule out; and where an unknown `PUT` and an unknown `REMOVE` of a key are both
//! unused, that key counts as either.
//!
//! **Acknowledged writes are there at the end** if the history ends with a read of each key.

#[cfg(test)]
mod brute;
mod history;
mod key;
mod presence;
#[cfg(test)]
mod tests;

pub use history::{Call, Op, Outcome, read, write};

use key::{Kind, Step};
use presence::Presence;
use std::collections::{BTreeMap, HashMap};

/// Why a history does not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No single copy answers so.
    #[error("not linearizable: {0}")]
    Impossible(String),
    /// The search was given up. Nothing is known: never a pass.
    #[error("undecided: {0}")]
    Undecided(String),
    /// It is no history: a time runs backwards, or a value is put twice under a key.
    #[error("no history: {0}")]
    Malformed(String),
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Calls in all.
    pub calls: usize,
    /// Different keys.
    pub keys: usize,
    /// States of one key that had to be kept in mind at once, at most.
    pub states: usize,
    /// Replies of `SIZE`.
    pub sizes: usize,
    /// Replies of `SIZE` to which some number between 0 and the number of keys would have been wrong.
    pub telling_sizes: usize,
}

/// A reply as the model knows it.
enum Read<'a> {
    Done,
    Nil,
    Value(&'a str),
    Count(usize),
}

/// Judges a history.
///
/// # Errors
/// See [`Fault`].
pub fn check(calls: &[Call]) -> Result<Checked, Fault> {
    let mut by_key: BTreeMap<&str, Vec<(usize, u64)>> = BTreeMap::new();
    let mut sizes: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    for (rank, call) in ranked(calls)?.into_iter().enumerate() {
        let rank = rank as u64;
        match calls[call].op.key() {
            Some(key) => by_key.entry(key).or_default().push((call, rank)),
            None => sizes.entry(call).or_insert((rank, u64::MAX)).1 = rank,
        }
    }
    let mut checked = Checked { calls: calls.len(), keys: by_key.len(), ..Checked::default() };
    let mut presence = Presence::default();
    for (key, events) in &by_key {
        let outcome = key::search(&steps(calls, events)?)
            .map_err(|stop| stop.explain(key, |call| calls[call].to_string(), calls.len()))?;
        checked.states = checked.states.max(outcome.states);
        presence.add(&outcome.changes);
    }
    let timeline = presence.timeline();
    for (call, (called, returned)) in sizes {
        let Outcome::Reply { reply, .. } = &calls[call].outcome else { continue };
        let Some(Read::Count(count)) = parse(&calls[call].op, reply) else { return Err(strange(&calls[call])) };
        let seen = timeline.between(called, returned);
        if !seen.allows(count) {
            return Err(Fault::Impossible(format!("{}: while it was asked there were {seen} entries", calls[call])));
        }
        checked.sizes += 1;
        checked.telling_sizes += usize::from((0..=by_key.len()).any(|other| !seen.allows(other)));
    }
    Ok(checked)
}

/// The calls' numbers in the order of their events: each where it was called and, if it was answered, where it returned.
/// At the same time everything is called before anything returns: only a return before a call orders two calls.
fn ranked(calls: &[Call]) -> Result<Vec<usize>, Fault> {
    let mut events = Vec::with_capacity(calls.len() * 2);
    for (number, call) in calls.iter().enumerate() {
        if call.outcome == Outcome::Refused {
            continue;
        }
        events.push((call.called, false, number));
        if let Outcome::Reply { returned, .. } = call.outcome {
            if returned < call.called {
                return Err(Fault::Malformed(format!("{call}: answered before it was called")));
            }
            events.push((returned, true, number));
        }
    }
    events.sort_unstable();
    Ok(events.into_iter().map(|(_, _, number)| number).collect())
}

/// What happened to one key, for the search.
fn steps(calls: &[Call], events: &[(usize, u64)]) -> Result<Vec<(u64, Step)>, Fault> {
    let values = Values::of(calls, events)?;
    let mut steps = Vec::with_capacity(events.len());
    let mut open = HashMap::new();
    for (call, rank) in events.iter().copied() {
        if open.remove(&call).is_some() {
            steps.push((rank, Step::Return(call)));
            // Whoever reads the value of an unknown PUT proves that it ran: from here on it is one that returned.
            if let Some(writer) = values.proven.get(&call) {
                steps.push((rank, Step::Return(*writer)));
            }
            continue;
        }
        let Call { op, outcome, .. } = &calls[call];
        if let Outcome::Reply { reply, .. } = outcome {
            open.insert(call, ());
            let read = parse(op, reply).ok_or_else(|| strange(&calls[call]))?;
            let kind = match (op, read) {
                (Op::Put { value, .. }, _) => Kind::Put(values.id(value)),
                (Op::Get { .. }, Read::Value(value)) => Kind::Get(values.id(value)),
                (Op::Remove { .. }, Read::Done) => Kind::Remove,
                _ => Kind::Get(key::ABSENT),
            };
            steps.push((rank, Step::Call(call, kind)));
            continue;
        }
        match op {
            Op::Put { value, .. } if values.id(value) != key::UNREAD => {
                steps.push((rank, Step::Call(call, Kind::Put(values.id(value)))));
            }
            Op::Put { .. } => steps.push((rank, Step::MayPut)),
            Op::Remove { .. } => steps.push((rank, Step::MayRemove)),
            // A read without a reply says nothing.
            Op::Get { .. } | Op::Size => {}
        }
    }
    Ok(steps)
}

/// The values of one key that somebody read.
struct Values<'a> {
    ids: HashMap<&'a str, u32>,
    /// By the first read to return of a value whose PUT has an unknown outcome: that PUT.
    proven: HashMap<usize, usize>,
}

impl<'a> Values<'a> {
    fn of(calls: &'a [Call], events: &[(usize, u64)]) -> Result<Self, Fault> {
        let mut writers: HashMap<&str, usize> = HashMap::new();
        for (call, _) in events {
            if let Op::Put { value, .. } = &calls[*call].op
                && writers.insert(value, *call).is_some_and(|other| other != *call)
            {
                return Err(Fault::Malformed(format!("{}: somebody else put the same value", calls[*call])));
            }
        }
        let mut values = Self { ids: HashMap::new(), proven: HashMap::new() };
        let mut seen = std::collections::HashSet::new();
        for (call, _) in events {
            // Its first event is the call, its second the return.
            if seen.insert(*call) {
                continue;
            }
            let Outcome::Reply { reply, .. } = &calls[*call].outcome else { continue };
            let Some(Read::Value(value)) = parse(&calls[*call].op, reply) else { continue };
            let next = key::UNREAD + 1 + u32::try_from(values.ids.len()).unwrap_or(u32::MAX - 2);
            if let std::collections::hash_map::Entry::Vacant(entry) = values.ids.entry(value) {
                entry.insert(next);
                if let Some(writer) = writers.get(value)
                    && matches!(calls[*writer].outcome, Outcome::Unknown { .. })
                {
                    values.proven.insert(*call, *writer);
                }
            }
        }
        Ok(values)
    }

    fn id(&self, value: &str) -> u32 {
        self.ids.get(value).copied().unwrap_or(key::UNREAD)
    }
}

/// The reply to this request; `None` if no map ever answers this request so.
fn parse<'a>(op: &Op, reply: &'a str) -> Option<Read<'a>> {
    match (op, reply) {
        (Op::Put { .. } | Op::Remove { .. }, "OK") => Some(Read::Done),
        (Op::Get { .. } | Op::Remove { .. }, "NIL") => Some(Read::Nil),
        (Op::Get { .. }, reply) => reply.strip_prefix("VALUE ").map(Read::Value),
        (Op::Size, reply) => reply.parse().ok().map(Read::Count),
        _ => None,
    }
}

fn strange(call: &Call) -> Fault {
    Fault::Impossible(format!("{call}: no answer to this request"))
}
