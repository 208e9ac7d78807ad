//! How long a client may let its connection stand still, and where. Time is an argument.

use super::limits::Limits;
use std::time::Duration;
use tokio::time::Instant;

/// What a slow reader must take of what waits for it within its time, unless less waits.
const PACE: usize = 64 << 10;
/// Its time while clients that do not read hold most of the room for answers.
const LITTLE: Duration = Duration::from_secs(2);

/// Whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// The request is not whole.
    SlowRequest,
    /// Its silence ends the request.
    Quiet,
    /// It takes too little of its answers.
    SlowReader,
    /// Nothing happens on the connection.
    Idle,
    /// Nobody's: things may stand otherwise by now.
    Look,
}

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// The client's bytes.
    pub(super) reads: bool,
    /// Nothing: no request is there, and no answer is owed.
    pub(super) is_idle: bool,
    /// Whether clients that do not read hold most of the room for answers.
    pub(super) is_tight: bool,
}

/// The times of one connection.
#[derive(Debug)]
pub(super) struct Patience {
    limits: Limits,
    /// When bytes last went one way or the other.
    moved: Instant,
    /// Since when a part of a request is there; time in which we did not read does not count.
    partial_since: Option<Instant>,
    /// Since when answers wait for the client, and how much it took of them.
    reader: Option<(Instant, usize)>,
}

impl Patience {
    /// Of a connection that begins.
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self { limits, moved: now, partial_since: None, reader: None }
    }

    /// Bytes came.
    pub(super) fn on_read(&mut self, now: Instant) {
        self.moved = now;
    }

    /// Whether what came last is a part of a request.
    pub(super) fn on_partial(&mut self, now: Instant, is_partial: bool) {
        self.partial_since = if is_partial { self.partial_since.or(Some(now)) } else { None };
    }

    /// A request became whole: the next one has its time.
    pub(super) fn on_request(&mut self) {
        self.partial_since = None;
    }

    /// We did not read for so long.
    pub(super) fn did_not_read(&mut self, time: Duration) {
        self.partial_since = self.partial_since.map(|since| since + time);
    }

    /// Whether a part of a request is there.
    pub(super) fn has_partial(&self) -> bool {
        self.partial_since.is_some()
    }

    /// Answers wait for the client.
    pub(super) fn on_output(&mut self, now: Instant) {
        self.reader.get_or_insert((now, 0));
    }

    /// The client took so many bytes, and whether they were the last.
    pub(super) fn on_taken(&mut self, now: Instant, bytes: usize, all: bool) {
        self.moved = now;
        self.reader = match self.reader {
            _ if all => None,
            Some((since, taken)) if taken + bytes < PACE => Some((since, taken + bytes)),
            _ => Some((now, 0)),
        };
    }

    /// When to look at [`Patience::late`].
    pub(super) fn limit(&self, now: Instant, standing: Standing) -> Option<Instant> {
        self.dues(now, standing).into_iter().flatten().map(|(at, _)| at).min()
    }

    /// Whose time is over.
    pub(super) fn late(&self, now: Instant, standing: Standing) -> Option<Late> {
        self.dues(now, standing).into_iter().flatten().find(|(at, _)| *at <= now).map(|(_, late)| late)
    }

    fn dues(&self, now: Instant, standing: Standing) -> [Option<(Instant, Late)>; 5] {
        let Limits { idle_timeout, request_timeout, reply_timeout, quiet_period, .. } = self.limits;
        let partial = self.partial_since.filter(|_| standing.reads);
        let pace = if standing.is_tight { reply_timeout.min(LITTLE) } else { reply_timeout };
        [
            self.reader.map(|(since, _)| (since + pace, Late::SlowReader)),
            partial.map(|since| (since + request_timeout, Late::SlowRequest)),
            partial.and(quiet_period).map(|quiet| (self.moved + quiet, Late::Quiet)),
            idle_timeout.filter(|_| standing.is_idle).map(|idle| (self.moved + idle, Late::Idle)),
            self.reader.map(|_| (now + LITTLE, Late::Look)),
        ]
    }
}
