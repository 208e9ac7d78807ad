//! The core's clock: monotonic nanoseconds since this process made it, and the wall clock at that moment.

use mesh::time::Instant;
use std::time::{SystemTime, UNIX_EPOCH};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: std::time::Instant,
    wall_base: u64,
}

impl Clock {
    /// Begins now.
    pub(crate) fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { origin: std::time::Instant::now(), wall_base: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// Now.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Unix time in ns at the origin.
    pub(crate) const fn wall_base(&self) -> u64 {
        self.wall_base
    }

    /// The same instant for the runtime's timers.
    pub(crate) fn timer(&self, at: Instant) -> tokio::time::Instant {
        (self.origin + at.since(Instant::ZERO)).into()
    }
}
