//! The clients of a trial: each counts up a counter of its own through the ingress, and knows what every reply must be.

use crate::load;
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// After a failed call, so that a port that is closed at once is not hammered.
const PAUSE: Duration = Duration::from_millis(5);

/// What one client saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    /// Its counter.
    pub(super) key: String,
    /// How high it is at least.
    pub(super) low: u64,
    /// Calls that may have counted it up further, or may not.
    pub(super) pending: u64,
    /// How often it was counted up by nobody, as far as replies have shown.
    excess: u64,
    /// Replies that were right.
    pub(super) answered: u64,
    /// Replies that were not, the first few in words.
    pub(super) wrong: u64,
    pub(super) surprises: Vec<String>,
    /// Calls without a reply.
    pub(super) failed: u64,
}

impl Ledger {
    fn new(key: String) -> Self {
        Self { key, ..Self::default() }
    }

    /// Takes note of the line that came, or of the connection's end.
    fn note(&mut self, reply: Option<&str>) {
        let Some(reply) = reply else {
            self.failed += 1;
            self.pending += 1;
            return;
        };
        let parsed = reply.trim_end().split_once('=').filter(|(key, _)| *key == self.key);
        let count = parsed.and_then(|(_, count)| count.parse::<u64>().ok());
        // Any of the calls in doubt may have run before this one.
        let expected = self.low + 1..=self.low + 1 + self.pending;
        match count.filter(|count| expected.contains(count)) {
            Some(count) => {
                self.answered += 1;
                self.pending -= count - self.low - 1;
                self.low = count;
            }
            None => {
                self.wrong += 1;
                match count.map(|count| count.saturating_sub(self.low + 1 + self.pending)) {
                    // Its own reply, and too high: steps that nobody asked for, or asked for once.
                    Some(excess @ 1..) => {
                        self.excess += excess;
                        self.low += 1 + self.pending + excess;
                        self.pending = 0;
                    }
                    _ => self.pending += 1,
                }
                if self.surprises.len() < 3 {
                    self.surprises.push(format!("{:?} for one of {} {expected:?}", reply.trim_end(), self.key));
                }
            }
        }
    }

    /// Of a counter that stands so high: how often it was counted up by nobody, and how many acknowledged steps are lost.
    pub(super) fn judge(&self, count: u64) -> (u64, u64) {
        (self.excess + count.saturating_sub(self.low + self.pending), self.low.saturating_sub(count))
    }
}

/// When clients go on and when they stop.
#[derive(Debug, Default)]
pub(super) struct Word {
    pub(super) stop: AtomicBool,
    pub(super) calls: AtomicU64,
}

/// One client, until it is told to stop.
pub(super) fn run(address: &str, key: String, word: &Word) -> Ledger {
    let mut ledger = Ledger::new(key);
    let request = format!("STEP {}\n", ledger.key);
    let (mut link, mut line) = (None, String::new());
    while !word.stop.load(Ordering::Relaxed) {
        let Ok(connection) = link.take().map_or_else(|| load::connect(address), Ok) else {
            std::thread::sleep(PAUSE);
            continue;
        };
        let mut connection = connection;
        line.clear();
        let read = connection.get_mut().write_all(request.as_bytes()).and_then(|()| connection.read_line(&mut line));
        if matches!(read, Ok(read) if read > 0) {
            ledger.note(Some(&line));
            link = Some(connection);
        } else {
            ledger.note(None);
            std::thread::sleep(PAUSE);
        }
        word.calls.fetch_add(1, Ordering::Relaxed);
    }
    ledger
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(replies: &[Option<&str>]) -> Ledger {
        let mut ledger = Ledger::new("a".to_owned());
        replies.iter().for_each(|reply| ledger.note(*reply));
        ledger
    }

    #[test]
    fn right_replies_and_lost_ones() {
        let ledger = after(&[Some("a=1\n"), None, None, Some("a=3\n"), Some("a=4\n")]);
        assert_eq!((ledger.low, ledger.pending, ledger.answered, ledger.failed, ledger.wrong), (4, 1, 3, 2, 0));
        assert_eq!([3, 4, 5, 6].map(|count| ledger.judge(count)), [(0, 1), (0, 0), (0, 0), (1, 0)]);
    }

    #[test]
    fn replies_of_others_old_ones_and_nonsense_are_wrong() {
        for reply in ["b=2\n", "a=1\n", "OK\n", "a=\n", "\n"] {
            let ledger = after(&[Some("a=1\n"), Some(reply)]);
            assert_eq!((ledger.wrong, ledger.low, ledger.pending), (1, 1, 1), "{reply:?}");
        }
    }

    #[test]
    fn a_step_too_many_is_found_once() {
        let ledger = after(&[Some("a=1\n"), None, Some("a=5\n"), Some("a=6\n")]);
        assert_eq!((ledger.wrong, ledger.answered, ledger.low, ledger.pending), (1, 2, 6, 0));
        assert_eq!([6, 7].map(|count| ledger.judge(count)), [(2, 0), (3, 0)]);
    }
}
