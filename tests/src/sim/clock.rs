//! Time in a simulation: the true one, which only the simulator knows, and each process's own clock.

use mesh::rng::Rng;
use mesh::time::{Duration, Instant};
use std::fmt;
use std::ops::Add;

/// True time: since the beginning of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The beginning.
    pub const ZERO: Self = Self(0);

    /// Nanoseconds since the beginning.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6}.{:06}", self.0 / 1_000_000_000, self.0 / 1000 % 1_000_000)
    }
}

/// How wrong clocks may be.
#[derive(Clone, Copy, Debug)]
pub struct ClockFaults {
    /// Parts per million by which a clock runs fast or slow, at most.
    pub drift_ppm: u64,
    /// By how much wall clocks are off, at most.
    pub wall_off: Duration,
}

/// One process's clocks, from its start on.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Time,
    origin: u64,
    // Local nanoseconds per million true ones.
    rate: u64,
    /// The wall clock (Unix time, ns) at the local origin.
    pub wall_base: u64,
}

const MILLION: u64 = 1_000_000;
const WALL: u64 = 1_800_000_000_000_000_000;

impl Clock {
    /// The clock of a process that starts now.
    #[must_use]
    pub fn start(now: Time, faults: &ClockFaults, rng: &mut Rng) -> Self {
        let drift = rng.below(2 * faults.drift_ppm + 1);
        let off = rng.duration(faults.wall_off * 2).as_nanos() as u64;
        Self {
            started: now,
            origin: if rng.chance(500) { 0 } else { rng.below(1 << 40) },
            rate: MILLION + drift - faults.drift_ppm,
            wall_base: WALL + now.0 + off - faults.wall_off.as_nanos() as u64,
        }
    }

    /// What it shows at a true time.
    #[must_use]
    pub fn local(&self, now: Time) -> Instant {
        let elapsed = u128::from(now.0.saturating_sub(self.started.0)) * u128::from(self.rate) / u128::from(MILLION);
        Instant::from_nanos(self.origin + elapsed as u64)
    }

    /// The first true time at which it shows `at`.
    #[must_use]
    pub fn due(&self, at: Instant) -> Time {
        let elapsed = u128::from(at.as_nanos().saturating_sub(self.origin)) * u128::from(MILLION);
        Time(self.started.0.saturating_add(elapsed.div_ceil(u128::from(self.rate)) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_due_when_the_clock_shows_it_and_not_before() {
        let mut rng = Rng::from_seed(1);
        let faults = ClockFaults { drift_ppm: 50_000, wall_off: Duration::from_secs(3600) };
        for _ in 0..1000 {
            let clock = Clock::start(Time(rng.below(1 << 40)), &faults, &mut rng);
            let at = clock.local(clock.started) + rng.duration(Duration::from_secs(100));
            let due = clock.due(at);
            assert!(clock.local(due) >= at);
            assert!(due == clock.started || clock.local(Time(due.0 - 2)) < at);
        }
    }
}
