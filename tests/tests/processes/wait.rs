//! Waiting for things to become true.

use std::time::{Duration, Instant};

/// What only a hang can reach.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Polls until `found` gives something; fails with `what` and the last state that `found` described.
pub(crate) fn until<T>(what: &str, mut found: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match found() {
            Ok(value) => return value,
            Err(state) => assert!(Instant::now() < end, "still not {what}: {state}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
