//! The one clock of a process: the pure protocols count from its start, timers of tokio run on the same one.

use crate::time::{Duration, Instant};

/// A monotonic clock that started when it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock(tokio::time::Instant);

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self(tokio::time::Instant::now())
    }

    /// Time since the start, as the pure protocols count it.
    pub fn now(self) -> Instant {
        Instant::ZERO + self.0.elapsed()
    }

    /// The same instant for a timer.
    pub fn timer(self, at: Instant) -> tokio::time::Instant {
        self.0 + at.since(Instant::ZERO).min(Self::FAR)
    }

    /// Further ahead than any process lives; keeps the sum of an instant and a duration in range.
    const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
}
