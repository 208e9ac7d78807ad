//! Times at which an idle process may as well wake for several things: the beginnings of the 64 ms that tokio's wheel of
//! timers keeps apart (what is further ahead than these it looks at once more before it is due, unless it is due at a
//! beginning).

use std::io;
use std::sync::OnceLock;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Duration, Instant, Sleep, sleep_until};

const STEP: Duration = Duration::from_millis(64);

/// What is at least so far ahead is moved, by less than half of that.
const FAR: Duration = Duration::from_millis(150);

static BEGAN: OnceLock<Instant> = OnceLock::new();

/// A runtime of one thread (quinn costs three times as much on several), whose wheel begins with the grid.
///
/// # Errors
/// The system gave no event queue.
pub fn runtime() -> io::Result<Runtime> {
    BEGAN.get_or_init(Instant::now);
    Builder::new_current_thread().enable_all().build()
}

/// The same time, or, where that is far ahead, the grid's next.
#[must_use]
pub fn later(at: Instant) -> Instant {
    let far = at.saturating_duration_since(Instant::now()) >= FAR;
    if far { next(*BEGAN.get_or_init(Instant::now), at) } else { at }
}

/// Waits for so long, and where that is long, for the grid. For what is looked at now and then.
pub fn sleep(pause: Duration) -> Sleep {
    sleep_until(later(Instant::now() + pause))
}

/// The first of the grid that is not before `at`.
fn next(began: Instant, at: Instant) -> Instant {
    let since = at.saturating_duration_since(began).as_nanos();
    let steps = u32::try_from(since.div_ceil(STEP.as_nanos())).unwrap_or(u32::MAX);
    at.max(began + STEP * steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_far_ahead_is_due_with_the_grid_and_never_early() {
        let began = Instant::now();
        let millis = Duration::from_millis;
        for (at, due) in [(0, 0), (1, 64), (64, 64), (65, 128), (1_000, 1_024)] {
            assert_eq!(next(began, began + millis(at)), began + millis(due), "{at} ms");
        }
        let beyond = began + STEP * u32::MAX + millis(1);
        assert_eq!(next(began, beyond), beyond, "never early");
        assert_eq!(later(began), began, "what is near stays");
    }
}
