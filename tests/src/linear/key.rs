//! One key, exactly: just-in-time linearization (Lowe, "Testing for linearizability", 2017, section 5).
//!
//! The events are walked in the order of time with all the states in which the copy may be: the key's value, and which
//! of the open calls have taken effect already. A call takes effect at its return at the latest: at that event each
//! state in which it has not is replaced by those that effects of open calls, its own last, lead to; where there are
//! none it dies. If none is left, no order explains the replies.
//!
//! What keeps the states few:
//! - A read that is open and agrees with the value takes effect at once: nobody gains by waiting.
//! - A value that a read still to come will find is not overwritten before: no value is written twice.
//! - Values that nobody reads are one value, [`UNREAD`]. Of the open calls that put such a value the one that returns
//!   first takes effect first: in any order of the calls two of them can change places, if both are open. So it is with
//!   REMOVEs that found something.
//! - Unknown calls stay open for ever. An unknown PUT whose value is read is one that returned by then (the caller makes
//!   it so). All others are alike, unread PUTs and REMOVEs: a state counts how many it used, and is dropped when
//!   another one differs from it only in having used fewer.

use super::Fault;
use super::presence::Change;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The key is not there.
pub(super) const ABSENT: u32 = 0;
/// The key has a value that nobody reads. Values that are read have the numbers above.
pub(super) const UNREAD: u32 = 1;

/// States that are kept in mind for one event at most.
const STATES_MAX: usize = 1 << 18;
/// Open calls of one key at most, those with an unknown outcome aside.
const OPEN_MAX: usize = u128::BITS as usize;

/// What a call that was answered did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Set the key.
    Put(u32),
    /// Found the key so; [`ABSENT`] also for a REMOVE that found nothing.
    Get(u32),
    /// Removed the key, which was there.
    Remove,
}

/// What happened to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This call was made; it will return.
    Call(usize, Kind),
    /// It returned.
    Return(usize),
    /// From now on a PUT of a value that nobody reads may run, once.
    MayPut,
    /// From now on a REMOVE may run, once.
    MayRemove,
}

/// What the search found out.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// States kept in mind at once, at most.
    pub(super) states: usize,
    /// When it changed whether the key may be there, and may not be there.
    pub(super) changes: Vec<Change>,
}

/// Why the search ended before the last event.
#[derive(Debug)]
pub(super) enum Stop {
    /// No state allows this call to return like this. The states before had these values, some of which a read that is
    /// called later will find.
    Dead { call: usize, values: Vec<(u32, Option<usize>)>, open: Vec<usize> },
    /// Too many states, or open calls, at this call.
    TooMany(usize),
}

/// Unknown calls that a state used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Used {
    puts: u32,
    removes: u32,
}

impl Used {
    const fn covers(self, other: Self) -> bool {
        self.puts <= other.puts && self.removes <= other.removes
    }
}

/// One state in which the copy may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    value: u32,
    /// The open calls, by their place, that have taken effect.
    done: u128,
    used: Used,
}

/// States of which none is worse than another.
#[derive(Debug, Default)]
struct States {
    best: HashMap<(u32, u128), Vec<Used>>,
    len: usize,
}

impl States {
    /// False if one that is at least as good is there already.
    fn insert(&mut self, state: State) -> bool {
        let best = self.best.entry((state.value, state.done)).or_default();
        if best.iter().any(|used| used.covers(state.used)) {
            return false;
        }
        let before = best.len();
        best.retain(|used| !state.used.covers(*used));
        self.len -= before - best.len();
        best.push(state.used);
        self.len += 1;
        true
    }

    fn iter(&self) -> impl Iterator<Item = State> + '_ {
        let states = self.best.iter();
        states
            .flat_map(|((value, done), best)| best.iter().map(|used| State { value: *value, done: *done, used: *used }))
    }
}

/// A call that has not returned.
#[derive(Clone, Copy, Debug)]
struct Open {
    call: usize,
    kind: Kind,
    /// At which event it returns.
    due: usize,
}

/// The walk.
struct Search {
    states: States,
    /// The open calls, by their place.
    open: BTreeMap<usize, Open>,
    /// Unknown calls that were made so far.
    made: Used,
    /// Which event it is at.
    now: usize,
    /// The last read of a value: at which event it is called, and which call it is.
    last_read: HashMap<u32, (usize, usize)>,
    /// At which event a call returns.
    due: HashMap<usize, usize>,
    found: Found,
}

/// Walks over the events of a key, each with its place among all events of the history.
pub(super) fn search(steps: &[(u64, Step)]) -> Result<Found, Stop> {
    let mut search = Search {
        states: States::default(),
        open: BTreeMap::new(),
        made: Used::default(),
        now: 0,
        last_read: last_reads(steps),
        due: returns(steps),
        found: Found::default(),
    };
    search.states.insert(State { value: ABSENT, done: 0, used: Used::default() });
    for (now, (rank, step)) in steps.iter().enumerate() {
        search.now = now;
        match *step {
            Step::Call(call, kind) => search.on_call(call, kind)?,
            Step::Return(call) => search.on_return(call)?,
            Step::MayPut => search.made.puts += 1,
            Step::MayRemove => search.made.removes += 1,
        }
        search.note(*rank);
    }
    Ok(search.found)
}

fn last_reads(steps: &[(u64, Step)]) -> HashMap<u32, (usize, usize)> {
    let mut last = HashMap::new();
    for (at, (_, step)) in steps.iter().enumerate() {
        if let Step::Call(call, Kind::Get(value)) = step
            && *value > UNREAD
        {
            last.insert(*value, (at, *call));
        }
    }
    last
}

fn returns(steps: &[(u64, Step)]) -> HashMap<usize, usize> {
    let due = |(at, (_, step)): (usize, &(u64, Step))| match step {
        Step::Return(call) => Some((*call, at)),
        _ => None,
    };
    steps.iter().enumerate().filter_map(due).collect()
}

impl Search {
    fn on_call(&mut self, call: usize, kind: Kind) -> Result<(), Stop> {
        let place = (0..OPEN_MAX).find(|place| !self.open.contains_key(place)).ok_or(Stop::TooMany(call))?;
        let due = self.due.get(&call).copied().unwrap_or(usize::MAX);
        self.open.insert(place, Open { call, kind, due });
        if let Kind::Get(_) = kind {
            let states = std::mem::take(&mut self.states);
            for state in states.iter() {
                self.states.insert(self.with_reads(state));
            }
        }
        Ok(())
    }

    fn on_return(&mut self, call: usize) -> Result<(), Stop> {
        let Some(place) = self.open.iter().find(|(_, open)| open.call == call).map(|(place, _)| *place) else {
            // An unknown PUT whose value was read before it was made; the read has been rejected.
            return Ok(());
        };
        let bit = 1_u128 << place;
        let (mut after, mut seen) = (States::default(), States::default());
        let mut waiting = Vec::new();
        for state in self.states.iter() {
            if state.done & bit != 0 {
                after.insert(State { done: state.done & !bit, ..state });
            } else if seen.insert(state) {
                waiting.push(state);
            }
        }
        while let Some(state) = waiting.pop() {
            for next in self.effects(state) {
                if next.done & bit != 0 {
                    after.insert(State { done: next.done & !bit, ..next });
                } else if seen.insert(next) {
                    waiting.push(next);
                }
            }
            if seen.len + after.len > STATES_MAX {
                return Err(Stop::TooMany(call));
            }
        }
        self.found.states = self.found.states.max(seen.len + after.len);
        if after.len == 0 {
            let awaited = |value| self.last_read.get(&value).filter(|_| self.is_awaited(value)).map(|(_, call)| *call);
            let mut values: Vec<_> = self.states.iter().map(|state| (state.value, awaited(state.value))).collect();
            values.sort_unstable();
            values.dedup();
            return Err(Stop::Dead { call, values, open: self.open.values().map(|open| open.call).collect() });
        }
        self.open.remove(&place);
        self.states = after;
        Ok(())
    }

    /// The states that one more effect leads to.
    fn effects(&self, state: State) -> Vec<State> {
        let mut next = Vec::new();
        if self.is_awaited(state.value) {
            return next;
        }
        let (mut unread, mut remove) = (None, None);
        for (place, open) in self.open.iter().filter(|(place, _)| state.done & 1 << **place == 0) {
            let first = |other: Option<(usize, usize)>| {
                Some(other.map_or((open.due, *place), |other| other.min((open.due, *place))))
            };
            match open.kind {
                Kind::Put(UNREAD) => unread = first(unread),
                Kind::Put(value) => next.push(State { value, done: state.done | 1 << place, ..state }),
                Kind::Remove if state.value != ABSENT => remove = first(remove),
                // A read that agrees has taken effect already.
                Kind::Remove | Kind::Get(_) => {}
            }
        }
        let done = |(_, place): (usize, usize)| state.done | 1 << place;
        next.extend(unread.map(|first| State { value: UNREAD, done: done(first), ..state }));
        next.extend(remove.map(|first| State { value: ABSENT, done: done(first), ..state }));
        // Those that may run for ever come last.
        if unread.is_none() && state.value == ABSENT && state.used.puts < self.made.puts {
            // Over a value that is there it would be of no use: whatever goes with UNREAD goes with that value.
            next.push(State { value: UNREAD, used: Used { puts: state.used.puts + 1, ..state.used }, ..state });
        }
        if remove.is_none() && state.value != ABSENT && state.used.removes < self.made.removes {
            next.push(State { value: ABSENT, used: Used { removes: state.used.removes + 1, ..state.used }, ..state });
        }
        next.into_iter().map(|state| self.with_reads(state)).collect()
    }

    /// Whether a read that is not called yet will find this value. Those that are open and agree have taken effect.
    fn is_awaited(&self, value: u32) -> bool {
        self.last_read.get(&value).is_some_and(|(last, _)| self.now < *last)
    }

    /// Lets every open read that agrees take effect.
    fn with_reads(&self, state: State) -> State {
        let agrees = |(place, open): (&usize, &Open)| match open.kind {
            Kind::Get(value) if value == state.value => 1_u128 << place,
            _ => 0,
        };
        State { done: self.open.iter().map(agrees).fold(state.done, std::ops::BitOr::bitor), ..state }
    }

    /// Notes whether the key may be there, and may not be there, between this event and the next.
    fn note(&mut self, rank: u64) {
        let places = |wanted: fn(&Kind) -> bool| {
            let of = self.open.iter().filter(move |(_, open)| wanted(&open.kind));
            of.fold(0_u128, |places, (place, _)| places | 1 << place)
        };
        let (puts, removes) = (places(|kind| matches!(kind, Kind::Put(_))), places(|kind| *kind == Kind::Remove));
        let mut change = Change { rank, may_be: false, may_not_be: false };
        for state in self.states.iter() {
            if self.is_awaited(state.value) {
                change.may_be = true;
                continue;
            }
            change.may_be |= state.value != ABSENT || puts & !state.done != 0 || state.used.puts < self.made.puts;
            change.may_not_be |=
                state.value == ABSENT || removes & !state.done != 0 || state.used.removes < self.made.removes;
        }
        let same = |last: &Change| (last.may_be, last.may_not_be) == (change.may_be, change.may_not_be);
        if !self.found.changes.last().is_some_and(same) {
            self.found.changes.push(change);
        }
    }
}

impl Stop {
    /// In words, with `shown` for the calls.
    pub(super) fn explain(&self, key: &str, shown: impl Fn(usize) -> String, calls: usize) -> Fault {
        match self {
            Self::TooMany(call) => {
                Fault::Undecided(format!("key {key}: too many states to search at {} (of {calls} calls)", shown(*call)))
            }
            Self::Dead { call, values, open } => {
                let value = |(value, awaited): &(u32, Option<usize>)| match (*value, awaited) {
                    (ABSENT, _) => "absent".to_owned(),
                    (UNREAD, _) => "a value that nobody reads".to_owned(),
                    (_, Some(read)) => format!("a value that is found later by\n    {}\n ", shown(*read)),
                    (_, None) => "a value that was read".to_owned(),
                };
                let values: BTreeSet<String> = values.iter().map(value).collect();
                let values: Vec<String> = values.into_iter().collect();
                let others: String = open
                    .iter()
                    .filter(|other| *other != call)
                    .map(|other| format!("\n    {}", shown(*other)))
                    .collect();
                let open = if others.is_empty() { "nothing else".to_owned() } else { others };
                Fault::Impossible(format!(
                    "key {key}: {}\n  cannot have been answered so: without it the key was {}; open was {open}",
                    shown(*call),
                    values.join(" or "),
                ))
            }
        }
    }
}
