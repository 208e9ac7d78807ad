//! What came of the requests: counts, and latencies in histograms of three digits. All in microseconds where it is shown.

use crate::wire::Op;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Latencies above this are recorded as this.
const LATENCY_MAX: Duration = Duration::from_secs(120);

/// What is measured: from the end of the warm-up to the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// The first instant.
    pub(crate) from: Instant,
    /// The first instant behind it.
    pub(crate) to: Instant,
}

impl Window {
    fn holds(&self, at: Instant) -> bool {
        (self.from..self.to).contains(&at)
    }
}

/// A few numbers of many latencies, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// The arithmetic mean.
    pub(crate) mean_us: f64,
    /// Half of the requests took no longer.
    pub(crate) p50_us: f64,
    /// 90 %.
    pub(crate) p90_us: f64,
    /// 99 %.
    pub(crate) p99_us: f64,
    /// 99.9 %.
    pub(crate) p999_us: f64,
    /// All.
    pub(crate) max_us: f64,
}

impl Latency {
    /// Each of the numbers changed alike.
    pub(crate) fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self {
            mean_us: f(self.mean_us),
            p50_us: f(self.p50_us),
            p90_us: f(self.p90_us),
            p99_us: f(self.p99_us),
            p999_us: f(self.p999_us),
            max_us: f(self.max_us),
        }
    }
}

/// Nanoseconds, to three digits.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        // 1 ns to two minutes, growing as needed: the bounds are good ones.
        Self(Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, 3).expect("good bounds"))
    }

    pub(crate) fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    pub(crate) fn summary(&self) -> Latency {
        if self.0.is_empty() {
            return Latency::default();
        }
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e3;
        Latency {
            mean_us: self.0.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.0.max() as f64 / 1e3,
        }
    }
}

/// What clients saw within the window.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    window: Option<Window>,
    /// Latencies of an open loop belong to the window in which the request was due, of a closed one to that in which
    /// the reply came.
    open_loop: bool,
    answered: u64,
    within: u64,
    failed: u64,
    error: Option<String>,
    latencies: Latencies,
    by_op: [Latencies; 4],
    /// Each client's latencies, where they are wanted.
    samples: Option<Vec<Vec<f32>>>,
}

impl Tally {
    pub(super) fn new(clients: usize, open_loop: bool, samples: bool) -> Self {
        Self {
            window: None,
            open_loop,
            answered: 0,
            within: 0,
            failed: 0,
            error: None,
            latencies: Latencies::new(),
            by_op: std::array::from_fn(|_| Latencies::new()),
            samples: samples.then(|| vec![Vec::new(); clients]),
        }
    }

    /// From now on it counts what is within.
    pub(super) fn open(&mut self, window: Window) {
        self.window = Some(window);
    }

    /// A good reply to what was due, or sent in a closed loop, at `since`.
    pub(super) fn answered(&mut self, client: usize, op: Op, since: Instant, now: Instant) {
        let Some(window) = self.window else { return };
        self.within += u64::from(window.holds(now));
        if !window.holds(if self.open_loop { since } else { now }) {
            return;
        }
        let took = now.saturating_duration_since(since);
        self.answered += 1;
        self.latencies.record(took);
        self.by_op[op as usize].record(took);
        if let Some(samples) = &mut self.samples {
            samples[client].push(took.as_secs_f32() * 1e6);
        }
    }

    /// No good reply.
    pub(super) fn failed(&mut self, since: Instant, now: Instant, why: impl FnOnce() -> String) {
        self.error.get_or_insert_with(why);
        let Some(window) = self.window else { return };
        self.failed += u64::from(window.holds(if self.open_loop { since } else { now }));
    }

    /// Why something failed that nobody asked for.
    pub(super) fn note(&mut self, why: &std::io::Error) {
        self.error.get_or_insert_with(|| why.to_string());
    }

    /// Why the first failed.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// All of it.
    pub(super) fn outcome(self) -> Outcome {
        let seconds = self.window.map_or(0.0, |window| (window.to - window.from).as_secs_f64());
        let by_op = Op::ALL.into_iter().zip(&self.by_op).filter(|(_, latencies)| !latencies.0.is_empty());
        Outcome {
            seconds,
            rate: if seconds > 0.0 { self.within as f64 / seconds } else { 0.0 },
            answered: self.answered,
            within: self.within,
            failed: self.failed,
            error: self.error,
            latency: self.latencies.summary(),
            by_op: by_op.map(|(op, latencies)| (op, latencies.summary())).collect(),
            samples: self.samples,
        }
    }
}

/// What clients saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// How long it was measured.
    pub(crate) seconds: f64,
    /// Good replies a second.
    pub(crate) rate: f64,
    /// Requests that the latencies are of.
    pub(crate) answered: u64,
    /// Replies that came within the time.
    pub(crate) within: u64,
    /// Requests without a good reply.
    pub(crate) failed: u64,
    /// Why the first of them failed, during the warm-up too.
    pub(crate) error: Option<String>,
    /// Of all requests; in an open loop from when a request was due.
    pub(crate) latency: Latency,
    /// Of each operation.
    pub(crate) by_op: BTreeMap<Op, Latency>,
    /// Each client's latencies in microseconds.
    #[serde(skip)]
    pub(crate) samples: Option<Vec<Vec<f32>>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|ms| latencies.record(ms * MS));
        let summary = latencies.summary();
        for (value, expected) in [
            (summary.mean_us, 500_500.0),
            (summary.p50_us, 500_000.0),
            (summary.p90_us, 900_000.0),
            (summary.p99_us, 990_000.0),
            (summary.max_us, 1_000_000.0),
        ] {
            assert!((value / expected - 1.0).abs() < 0.002, "{value} for {expected}");
        }
        assert_eq!(Latencies::new().summary(), Latency::default());
    }

    #[test]
    fn a_closed_loop_counts_by_the_reply_and_an_open_one_by_what_was_due() {
        let start = Instant::now();
        let window = Window { from: start + 10 * MS, to: start + 20 * MS };
        for (open_loop, expected) in [(false, (2, 2, 1)), (true, (2, 2, 0))] {
            let mut tally = Tally::new(1, open_loop, true);
            tally.answered(0, Op::Put, start, start + MS);
            tally.open(window);
            // Over the beginning, within, over the end.
            for (since, now) in [(5, 12), (12, 15), (18, 25)] {
                tally.answered(0, Op::Put, start + since * MS, start + now * MS);
            }
            tally.failed(start + 5 * MS, start + 11 * MS, || "closed".into());
            let outcome = tally.outcome();
            assert_eq!((outcome.answered, outcome.within, outcome.failed), expected, "{open_loop}");
            assert_eq!(outcome.samples.expect("they are wanted")[0].len(), 2);
            assert_eq!(outcome.rate, 200.0);
        }
    }

    #[test]
    fn a_stall_counts_for_all_requests_that_were_due_in_it() {
        let start = Instant::now();
        let mut tally = Tally::new(1, true, false);
        tally.open(Window { from: start, to: start + 1000 * MS });
        // One request each millisecond; the service stands still from 0 to 500 ms, then answers within a millisecond.
        for due in 0..1000 {
            tally.answered(0, Op::Put, start + due * MS, start + (due + 1).max(500) * MS);
        }
        let latency = tally.outcome().latency;
        assert!((1_000.0..2_000.0).contains(&latency.p50_us), "{latency:?}");
        assert!((latency.p90_us / 400_000.0 - 1.0).abs() < 0.01, "{latency:?}");
        assert!((latency.p99_us / 490_000.0 - 1.0).abs() < 0.01, "{latency:?}");
    }
}
