//! The timetable of an open loop: requests are due at a fixed rate, whatever became of those before. A thread sleeps until
//! each is due, since the runtime's timers are as coarse as a millisecond.

use super::Shared;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// When each request is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timetable {
    start: Instant,
    /// Requests a second.
    rate: f64,
}

impl Timetable {
    pub(super) fn new(start: Instant, rate: f64) -> Self {
        Self { start, rate }
    }

    /// When the request of this number is due.
    pub(super) fn due(&self, number: u64) -> Instant {
        self.start + Duration::from_secs_f64(number as f64 / self.rate)
    }
}

/// How many requests are due so far.
#[derive(Debug, Default)]
struct Clock {
    due: AtomicU64,
    news: Notify,
}

/// Hands the requests out to the connections in turn, each when it is due, until `end`.
pub(super) async fn hand_out(shared: &Shared, timetable: Timetable, end: Instant) -> std::io::Result<()> {
    let clock = Arc::new(Clock::default());
    let ticking = clock.clone();
    std::thread::Builder::new().name("pace".into()).spawn(move || tick(&ticking, timetable, end))?;
    let mut number = 0;
    while timetable.due(number) < end {
        clock.news.notified().await;
        let due = clock.due.load(Ordering::Acquire);
        while number < due {
            shared.queue(number as usize % shared.spec.clients, timetable.due(number));
            number += 1;
        }
    }
    Ok(())
}

fn tick(clock: &Clock, timetable: Timetable, end: Instant) {
    let mut number = 0;
    while timetable.due(number) < end {
        std::thread::sleep(timetable.due(number).saturating_duration_since(Instant::now()));
        let now = Instant::now();
        while timetable.due(number) <= now && timetable.due(number) < end {
            number += 1;
        }
        clock.due.store(number, Ordering::Release);
        clock.news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_the_rate_and_do_not_drift() {
        let start = Instant::now();
        let timetable = Timetable::new(start, 3.0);
        assert_eq!(timetable.due(0), start);
        assert_eq!(timetable.due(3_000_000) - start, Duration::from_secs(1_000_000));
    }
}
