//! The end that somebody asks for: SIGINT or SIGTERM. Whoever waits here is woken with an error, so that what was started is
//! ended on the way out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Before something is tried again.
const AGAIN: Duration = Duration::from_secs(2);

static STOPPED: AtomicBool = AtomicBool::new(false);

/// From now on nobody waits.
pub(crate) fn stop() {
    STOPPED.store(true, Ordering::Relaxed);
}

/// Whether nobody is to begin with anything more.
///
/// # Errors
/// It is so.
pub(crate) fn check() -> anyhow::Result<()> {
    anyhow::ensure!(!STOPPED.load(Ordering::Relaxed), "stopped; what was finished is kept");
    Ok(())
}

/// Tries something up to three times: a long run is not to end because the machine was busy for a moment.
///
/// # Errors
/// Those of the last try, or somebody asked for the end.
pub(crate) fn thrice<T>(mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    for _ in 0..2 {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) => {
                check()?;
                eprintln!("trying again: {error:#}");
                sleep(AGAIN)?;
            }
        }
    }
    attempt()
}

/// Sleeps.
///
/// # Errors
/// Before its time, when somebody asked for the end.
pub(crate) fn sleep_until(at: Instant) -> anyhow::Result<()> {
    loop {
        check()?;
        let rest = at.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Ok(());
        }
        std::thread::sleep(rest.min(LOOK));
    }
}

/// Sleeps for so long.
///
/// # Errors
/// As [`sleep_until`].
pub(crate) fn sleep(time: Duration) -> anyhow::Result<()> {
    sleep_until(Instant::now() + time)
}
