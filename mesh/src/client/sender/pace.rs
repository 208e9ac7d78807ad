//! How much may be in flight: what the cluster answers in a set time at the rate at which it answers (Little's law).
//!
//! What it cannot answer in time waits here, where it can still be refused for certain, and not at the servers, where
//! it would be run for nobody. A cluster that stands still altogether has no rate: then the last one counts.

use crate::time::{Duration, Instant};

/// The rate is looked at no more often than this.
const LOOK: Duration = Duration::from_millis(100);
/// Calls have waited for room for so long: the rate is the cluster's, and not that of a few callers.
const SURE: Duration = Duration::from_secs(1);

/// Measures the rate and the time of answers.
#[derive(Debug)]
pub(super) struct Pace {
    /// In flight at least, whatever the rate: enough to find out that it rose.
    least: usize,
    /// What is in flight should be answered within this.
    within: Duration,
    /// Answers a second, smoothed.
    rate: f64,
    answered: u32,
    looked: Instant,
    /// Since when calls have waited for room without a break: only then is the rate what the cluster can do.
    full_since: Option<Instant>,
    /// Time from sending to an answer, smoothed.
    latency: Duration,
}

impl Pace {
    pub(super) fn new(least: usize, within: Duration) -> Self {
        Self { least, within, rate: 0.0, answered: 0, looked: Instant::ZERO, full_since: None, latency: Duration::ZERO }
    }

    /// A request was answered, `took` after it was first sent.
    pub(super) fn answered(&mut self, now: Instant, took: Duration) {
        self.latency = self.latency - self.latency / 8 + took / 8;
        self.answered += 1;
        let passed = now.since(self.looked);
        if passed >= LOOK {
            let seen = f64::from(self.answered) / passed.as_secs_f64();
            // After a pause of the clients one look says little, and the rate is soon found anew.
            self.rate += (seen - self.rate) / 4.0;
            self.answered = 0;
            self.looked = now;
        }
    }

    /// Requests that may be in flight.
    pub(super) fn limit(&self) -> usize {
        // Far below where the conversion could lose anything that matters.
        self.least.max((self.rate * self.within.as_secs_f64()) as usize)
    }

    /// Calls wait for room, or do not any more.
    pub(super) fn note(&mut self, now: Instant, full: bool) {
        self.full_since = if full { self.full_since.or(Some(now)) } else { None };
    }

    /// Whether a request that `ahead` others precede may well be answered within `left`, for all that is known: in half of
    /// it, so that what waits does so for a part of its time only, and what was sent is not given up before it is answered.
    pub(super) fn can_make_it(&self, now: Instant, ahead: usize, left: Duration) -> bool {
        let known = self.full_since.is_some_and(|since| now.since(since) >= SURE);
        !known || ahead as f64 <= self.rate * left.as_secs_f64() / 2.0
    }

    /// Whether one that has waited for room and is sent now may be.
    pub(super) fn in_time(&self, left: Duration) -> bool {
        self.full_since.is_none() || self.latency * 2 <= left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    const LEAST: usize = 64;

    /// `rate` answers a second for `seconds`.
    fn run(pace: &mut Pace, from: u64, rate: u64, seconds: u64) {
        for answer in 0..rate * seconds {
            pace.answered(at(from + answer * 1000 / rate), Duration::from_millis(5));
        }
    }

    #[test]
    fn the_limit_follows_the_rate_both_ways_and_survives_a_standstill() {
        let mut pace = Pace::new(LEAST, Duration::from_secs(2));
        assert_eq!(pace.limit(), LEAST);
        run(&mut pace, 0, 1000, 5);
        assert!((1800..2200).contains(&pace.limit()), "{}", pace.limit());
        // Nothing for a minute, then it goes on.
        run(&mut pace, 65_000, 1000, 5);
        assert!((1800..2200).contains(&pace.limit()), "{}", pace.limit());
        run(&mut pace, 70_000, 10, 5);
        assert_eq!(pace.limit(), LEAST);
    }

    #[test]
    fn what_cannot_be_answered_in_time_is_known() {
        let mut pace = Pace::new(LEAST, Duration::from_secs(2));
        run(&mut pace, 0, 100, 10);
        let left = Duration::from_secs(10);
        assert!(pace.can_make_it(at(10_000), 1200, left), "perhaps nobody asked for more");
        pace.note(at(10_000), true);
        assert!(pace.can_make_it(at(10_900), 1200, left));
        assert!(pace.can_make_it(at(11_000), 400, left));
        assert!(!pace.can_make_it(at(11_000), 600, left));
        assert!(pace.in_time(Duration::from_millis(10)) && !pace.in_time(Duration::from_millis(1)));
        pace.note(at(11_000), false);
        assert!(pace.can_make_it(at(20_000), 1200, left));
        assert!(pace.in_time(Duration::from_millis(1)));
    }
}
