//! How many keys must, and how many may, be there at each moment of a history.

use std::fmt;

/// From this event on, until the key's next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The event's place among all events.
    pub(super) rank: u64,
    /// The key may be there.
    pub(super) may_be: bool,
    /// The key may not be there.
    pub(super) may_not_be: bool,
}

/// The changes of all keys, as they come.
#[derive(Debug, Default)]
pub(super) struct Presence(Vec<(u64, i64, i64)>);

/// From this event on: the number of keys that must be there, and of those that may be.
#[derive(Clone, Copy, Debug)]
struct Moment {
    rank: u64,
    least: i64,
    most: i64,
}

/// The moments of a history, in order.
#[derive(Debug)]
pub(super) struct Timeline(Vec<Moment>);

/// The moments of a window.
pub(super) struct Window<'a>(&'a [Moment]);

impl Presence {
    /// Adds a key's changes.
    pub(super) fn add(&mut self, changes: &[Change]) {
        // Before its first event a key is absent.
        let (mut must_before, mut may_before) = (false, false);
        for change in changes {
            let (must, may) = (!change.may_not_be, change.may_be);
            let step = |before: bool, after: bool| i64::from(after) - i64::from(before);
            self.0.push((change.rank, step(must_before, must), step(may_before, may)));
            (must_before, may_before) = (must, may);
        }
    }

    /// Sums up.
    pub(super) fn timeline(mut self) -> Timeline {
        self.0.sort_unstable();
        let mut moments = vec![Moment { rank: 0, least: 0, most: 0 }];
        let (mut least, mut most) = (0, 0);
        for (rank, must, may) in self.0 {
            least += must;
            most += may;
            moments.push(Moment { rank, least, most });
        }
        Timeline(moments)
    }
}

impl Timeline {
    /// The moments between two events.
    pub(super) fn between(&self, from: u64, to: u64) -> Window<'_> {
        let first = self.0.partition_point(|moment| moment.rank <= from).saturating_sub(1);
        let end = self.0.partition_point(|moment| moment.rank < to);
        Window(&self.0[first..end.max(first + 1)])
    }
}

impl Window<'_> {
    /// Whether there may have been so many keys at some moment of it.
    pub(super) fn allows(&self, count: usize) -> bool {
        i64::try_from(count).is_ok_and(|count| self.0.iter().any(|at| at.least <= count && count <= at.most))
    }
}

impl fmt::Display for Window<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = self.0.iter().map(|at| at.least).min().unwrap_or_default();
        let most = self.0.iter().map(|at| at.most).max().unwrap_or_default();
        write!(f, "{least} to {most}")
    }
}
