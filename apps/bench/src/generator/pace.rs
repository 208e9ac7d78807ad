//! The timetable of an open loop: requests are due at a fixed rate, whatever became of those before. A timer of the kernel
//! wakes it, since the runtime's are as coarse as a millisecond.

use super::Shared;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

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

/// Hands the requests out to the connections in turn, each when it is due, until `end`.
pub(super) async fn hand_out(shared: &Shared, timetable: Timetable, end: Instant) -> std::io::Result<()> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
    let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
    let mut number = 0_u64;
    loop {
        let now = Instant::now();
        let mut due = timetable.due(number);
        while due <= now.min(end) {
            shared.queue(number as usize % shared.spec.clients, due);
            number += 1;
            due = timetable.due(number);
        }
        if due > end {
            return Ok(());
        }
        wait(&timer, due.saturating_duration_since(now)).await?;
    }
}

async fn wait(timer: &AsyncFd<OwnedFd>, time: Duration) -> std::io::Result<()> {
    // No time at all would stop the timer.
    let time = time.max(Duration::from_nanos(1));
    let value = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
    rustix::time::timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    timer.readable().await?.clear_ready();
    // Setting it anew takes back that it has expired: there is nothing that would have to be read.
    Ok(())
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
