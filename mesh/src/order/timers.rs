//! Timers are a table, not tasks: nothing sleeps in the core.

use crate::time::Instant;

/// Why the core wants to be called at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// No leader was heard of (follower), or an election makes no progress (candidate): stand (again).
    Election,
    /// Leader and candidate: show life, send again what may be lost, check that a majority still answers.
    Heartbeat,
    /// Decided slots are known to be missing: fetch them.
    Repair,
    /// Held requests are looked at: forward them, suspect the leader, drop the stale.
    Waiting,
    /// Reads are late, or what was asked for them is to be asked again.
    Reads,
}

/// When each is due.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers([Option<Instant>; Timer::ALL.len()]);

impl Timer {
    pub(super) const ALL: [Self; 5] = [Self::Election, Self::Heartbeat, Self::Repair, Self::Waiting, Self::Reads];
}

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    /// Sets a timer that does not run.
    pub(super) fn set_if_stopped(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize].get_or_insert(at);
    }

    /// Brings a timer that runs forward.
    pub(super) fn set_if_later(&mut self, timer: Timer, at: Instant) {
        if let Some(set) = &mut self.0[timer as usize] {
            *set = at.min(*set);
        }
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// When the first is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// Stops and returns those that are due.
    pub(super) fn take_due(&mut self, now: Instant) -> impl Iterator<Item = Timer> + use<> {
        let due = Timer::ALL.map(|timer| self.0[timer as usize].take_if(|at| *at <= now).map(|_| timer));
        due.into_iter().flatten()
    }
}
