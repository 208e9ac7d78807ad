//! How long to wait before the next attempt of something that failed.

use crate::rng::Rng;
use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(20);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(1);

/// Exponential back-off with jitter: 20 ms doubling to 1 s, each wait drawn from the upper half of its step, so that
/// many who lost the same peer do not come back in the same instant.
#[derive(Clone, Debug)]
pub struct Backoff {
    rng: Rng,
    step: Duration,
}

impl Backoff {
    /// A fresh one. Give every loop a seed of its own.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { rng: Rng::from_seed(seed), step: FIRST }
    }

    /// How long to wait now; the next wait is about twice as long.
    pub fn next_delay(&mut self) -> Duration {
        let half = self.step / 2;
        let delay = half + self.rng.duration(half);
        self.step = (self.step * 2).min(LONGEST);
        delay
    }

    /// It worked: the next wait is the first one again.
    pub const fn reset(&mut self) {
        self.step = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_start_over_after_success() {
        let mut backoff = Backoff::new(3);
        let waits: Vec<_> = (0..12).map(|_| backoff.next_delay()).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST);
        assert!(waits[8..].iter().all(|wait| *wait >= LONGEST / 2 && *wait <= LONGEST));
        backoff.reset();
        assert!(backoff.next_delay() <= FIRST);
    }

    #[test]
    fn two_loops_do_not_wait_alike() {
        let (mut one, mut other) = (Backoff::new(1), Backoff::new(2));
        assert!((0..8).any(|_| one.next_delay() != other.next_delay()));
    }
}
