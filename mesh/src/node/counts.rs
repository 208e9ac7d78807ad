//! What the SMaRtClient and the ingress count, under the names of the interface.

use super::Registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use serde_json::{Value, json};
use std::time::Duration;

/// One label and its value.
type Label = [(&'static str, String); 1];

/// A counter with one label. Values of the label are few: names of our own, or ids of certificates.
#[derive(Clone, Debug)]
pub struct Counts {
    label: &'static str,
    family: Family<Label, Counter>,
}

impl Counts {
    /// Registers `lockstep_<name>_total{label}`; the values that are known already start at zero.
    pub fn new(registry: &mut Registry, name: &str, help: &str, label: &'static str, values: &[impl ToString]) -> Self {
        let family = Family::<Label, Counter>::default();
        registry.register(name, help, family.clone());
        for value in values {
            drop(family.get_or_create(&[(label, value.to_string())]));
        }
        Self { label, family }
    }

    /// Counts one.
    pub fn count(&self, value: &(impl ToString + ?Sized)) {
        self.family.get_or_create(&[(self.label, value.to_string())]).inc();
    }

    /// How many were counted.
    pub fn of(&self, value: &(impl ToString + ?Sized)) -> u64 {
        self.family.get_or_create(&[(self.label, value.to_string())]).get()
    }
}

/// How a request ended, as its counter's label has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With the application's reply, or with another outcome that was asked for.
    Ok,
    /// With a definite refusal.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// `requests_total{result}`, `request_seconds`, `resends_total`.
#[derive(Clone, Debug)]
pub struct Requests {
    ok: Counter,
    refused: Counter,
    unknown: Counter,
    seconds: Histogram,
    /// Requests sent once more.
    pub resends: Counter,
}

impl Requests {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let results = Family::<Label, Counter>::default();
        registry.register("requests", "Requests by how they ended", results.clone());
        let of = |result: &str| results.get_or_create(&[("result", result.to_owned())]).clone();
        // 100 µs to 26 s, doubling.
        let seconds = Histogram::new(exponential_buckets(0.0001, 2.0, 19));
        registry.register("request_seconds", "Time from a request's arrival to its end", seconds.clone());
        let resends = Counter::default();
        registry.register("resends", "Requests sent once more", resends.clone());
        Self { ok: of("ok"), refused: of("refused"), unknown: of("unknown"), seconds, resends }
    }

    /// Counts a request's end.
    pub fn ended(&self, how: Ended, took: Duration) {
        match how {
            Ended::Ok => self.ok.inc(),
            Ended::Refused => self.refused.inc(),
            Ended::Unknown => self.unknown.inc(),
        };
        self.seconds.observe(took.as_secs_f64());
    }

    /// The counts for `/status`.
    pub fn status(&self) -> Value {
        json!({ "ok": self.ok.get(), "refused": self.refused.get(), "unknown": self.unknown.get() })
    }
}

/// Registers a plain counter.
pub fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

/// Registers a plain gauge.
pub fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

/// `endpoints{state}`: links that are kept, by whether they are up.
#[derive(Clone, Debug)]
pub struct Endpoints {
    ready: Gauge,
    ejected: Gauge,
}

impl Endpoints {
    /// Registers it.
    pub fn new(registry: &mut Registry) -> Self {
        let states = Family::<Label, Gauge>::default();
        registry.register("endpoints", "SMaRtClients by state", states.clone());
        let of = |state: &str| states.get_or_create(&[("state", state.to_owned())]).clone();
        Self { ready: of("ready"), ejected: of("ejected") }
    }

    /// Shows how many of `all` are up.
    pub fn show(&self, ready: usize, all: usize) {
        self.ready.set(i64::try_from(ready).unwrap_or(i64::MAX));
        self.ejected.set(i64::try_from(all.saturating_sub(ready)).unwrap_or(i64::MAX));
    }
}
