//! A bound on the rate at which chunks are asked for.

use mesh::time::{Duration, Instant};

/// What may be asked for at once after a pause, in time at the full rate.
const BURST: Duration = Duration::from_millis(100);

/// A bucket of bytes that fills at a constant rate. What is taken may overdraw it: the next one waits.
#[derive(Debug)]
pub(super) struct Throttle {
    /// Bytes in a second; 0: no bound.
    rate: u64,
    /// When what was taken is paid for.
    paid: Instant,
}

impl Throttle {
    pub(super) const fn new(rate: u64) -> Self {
        Self { rate, paid: Instant::ZERO }
    }

    /// From when on more may be taken; `None`: now.
    pub(super) fn wait(&self, now: Instant) -> Option<Instant> {
        (self.rate > 0 && self.paid > now).then_some(self.paid)
    }

    /// Takes so many bytes.
    pub(super) fn take(&mut self, now: Instant, bytes: usize) {
        if self.rate == 0 {
            return;
        }
        let earliest = Instant::from_nanos(now.since(Instant::ZERO).saturating_sub(BURST).as_nanos() as u64);
        let nanos = (bytes as u128 * 1_000_000_000) / u128::from(self.rate);
        self.paid = self.paid.max(earliest) + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes taken within a time, by somebody who takes a chunk whenever it may.
    fn taken(rate: u64, chunk: usize, within: Duration) -> u64 {
        let (mut throttle, mut now, mut taken) = (Throttle::new(rate), Instant::ZERO, 0);
        let end = now + within;
        while now < end {
            match throttle.wait(now) {
                Some(until) => now = until,
                None => {
                    throttle.take(now, chunk);
                    taken += chunk as u64;
                }
            }
        }
        taken
    }

    #[test]
    fn the_rate_is_kept_whatever_the_size_of_chunks() {
        for chunk in [10_000, 1 << 20, 8 << 20] {
            let taken = taken(4 << 20, chunk, Duration::from_secs(100));
            let rate = 400 << 20;
            assert!(taken >= rate && taken <= rate + (4 << 20) + chunk as u64, "{chunk}: {taken}");
        }
    }

    #[test]
    fn a_pause_saves_up_no_more_than_a_burst_and_zero_is_no_bound() {
        let mut throttle = Throttle::new(1000);
        let late = Instant::ZERO + Duration::from_secs(1000);
        throttle.take(late, 100);
        assert_eq!(throttle.wait(late), None, "a burst");
        throttle.take(late, 500);
        assert_eq!(throttle.wait(late), Some(late + Duration::from_millis(500)));
        let mut free = Throttle::new(0);
        free.take(late, usize::MAX);
        assert_eq!(free.wait(late), None);
    }
}
