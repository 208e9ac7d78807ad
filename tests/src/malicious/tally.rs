//! What was done, and what came of it: a test demands that an attack really happened.

use super::behaviour::Behaviour;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Different consequences that are kept of each behaviour; the rest is `other`.
const HEARD_MAX: usize = 32;

/// Counts by behaviour.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<BTreeMap<Behaviour, Counts>>);

#[derive(Debug, Default)]
struct Counts {
    done: u64,
    heard: BTreeMap<String, u64>,
}

impl Tally {
    /// It was done once more.
    pub(super) fn did(&self, behaviour: Behaviour) {
        self.counts().entry(behaviour).or_default().done += 1;
    }

    /// This came of it.
    pub(super) fn heard(&self, behaviour: Behaviour, what: &str) {
        let mut counts = self.counts();
        let heard = &mut counts.entry(behaviour).or_default().heard;
        let what = if heard.len() < HEARD_MAX || heard.contains_key(what) { what } else { "other" };
        *heard.entry(what.to_owned()).or_default() += 1;
    }

    /// `{"drop": {"done": 3, "heard": {}}}`.
    pub(super) fn json(&self) -> Value {
        let one = |(behaviour, counts): (&Behaviour, &Counts)| {
            (behaviour.name().to_owned(), json!({ "done": counts.done, "heard": counts.heard }))
        };
        Value::Object(self.counts().iter().map(one).collect::<Map<_, _>>())
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<Behaviour, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_and_heard_is_shown_by_name() {
        let tally = Tally::default();
        assert_eq!(tally.json(), json!({}));
        tally.did(Behaviour::Drop);
        tally.did(Behaviour::Drop);
        tally.heard(Behaviour::ForgeCall, "executed");
        let expected = json!({
            "drop": { "done": 2, "heard": {} },
            "forge-call": { "done": 0, "heard": { "executed": 1 } },
        });
        assert_eq!(tally.json(), expected);
        for word in 0..100 {
            tally.heard(Behaviour::Replay, &word.to_string());
        }
        assert_eq!(tally.json()["replay"]["heard"]["other"], 100 - HEARD_MAX as u64);
    }
}
