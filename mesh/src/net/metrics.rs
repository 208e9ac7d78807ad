//! The counters of links, and who was refused: counted always, logged once per peer and reason.

use super::LinkKind;
use super::error::{Refusal, RefusalReason, RefusedBy};
use super::reload::Reloads;
use crate::names::{Identity, Role};
use crate::node::{Quiet, Registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// (peer, reason) pairs remembered as logged; when full, further ones are only counted until a link works again.
const LOGGED_MAX: usize = 1024;

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// All metrics of one endpoint.
#[derive(Debug)]
pub(super) struct Metrics {
    streams: Family<Labels<2>, Counter>,
    refused: Family<Labels<1>, Counter>,
    oversized: Family<Labels<1>, Counter>,
    rtt: Histogram,
    lost: Counter,
    expiry: Gauge,
    pub(super) reloads: Reloads,
    logged: Mutex<BTreeSet<(String, RefusalReason)>>,
    quiet: Quiet,
}

/// What a link counts itself, looked up once.
#[derive(Clone, Debug)]
pub(super) struct LinkCounters {
    pub(super) opened: Counter,
    pub(super) accepted: Counter,
    pub(super) oversized: Counter,
    pub(super) lost: Counter,
}

impl Metrics {
    /// Registers everything; names get the registry's prefix and, for counters, `_total`.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            streams: Family::default(),
            refused: Family::default(),
            oversized: Family::default(),
            // 50 µs to 1.6 s.
            rtt: Histogram::new(exponential_buckets(50e-6, 2.0, 16)),
            lost: Counter::default(),
            expiry: Gauge::default(),
            reloads: Reloads::register(registry),
            logged: Mutex::default(),
            quiet: Quiet::new(),
        };
        for reason in RefusalReason::ALL {
            drop(metrics.refused.get_or_create(&[("reason", reason.as_str())]));
        }
        for kind in LinkKind::ALL {
            drop(metrics.counters(kind));
        }
        registry.register("quic_streams", "Streams opened and accepted, by kind of link", metrics.streams.clone());
        registry.register("quic_oversized_messages", "Streams stopped at the size bound", metrics.oversized.clone());
        registry.register("quic_rtt_seconds", "Round-trip time of every live link, each second", metrics.rtt.clone());
        registry.register("quic_lost_packets", "Packets declared lost", metrics.lost.clone());
        registry.register("links_refused", "Links refused by either end, by reason", metrics.refused.clone());
        let help = "When this process' certificate expires, Unix time";
        registry.register("tls_certificate_expiry_timestamp_seconds", help, metrics.expiry.clone());
        metrics
    }

    pub(super) fn set_expiry(&self, unix_seconds: i64) {
        self.expiry.set(unix_seconds);
    }

    pub(super) fn counters(&self, kind: LinkKind) -> LinkCounters {
        let streams =
            |direction| self.streams.get_or_create_owned(&[("direction", direction), ("kind", kind.as_str())]);
        LinkCounters {
            opened: streams("opened"),
            accepted: streams("accepted"),
            oversized: self.oversized.get_or_create_owned(&[("kind", kind.as_str())]),
            lost: self.lost.clone(),
        }
    }

    /// A link that works: a refusal of this peer is news again.
    pub(super) fn established(&self, peer: &Identity, address: IpAddr) {
        let key = logged_as(Some(peer), address);
        lock(&self.logged).retain(|(who, _)| *who != key);
    }

    /// Observes the round-trip time of a live link.
    pub(super) fn observe(&self, rtt: Duration) {
        self.rtt.observe(rtt.as_secs_f64());
    }

    /// Counts a refused link and logs it, once per peer and reason.
    pub(super) fn refused(&self, refusal: &Refusal, address: IpAddr, kind: Option<LinkKind>, role: Role) {
        self.refused.get_or_create(&[("reason", refusal.reason.as_str())]).inc();
        let peer = logged_as(refusal.claims.as_ref(), address);
        let mut logged = lock(&self.logged);
        let key = (peer.clone(), refusal.reason);
        if logged.len() >= LOGGED_MAX || logged.contains(&key) {
            return;
        }
        // Who claims to be another each time would fill the log. What is left out now is still news at the next try.
        let Some(suppressed) = self.quiet.may_speak() else { return };
        logged.insert(key);
        let full = logged.len() == LOGGED_MAX;
        drop(logged);
        let kind = kind.map_or("unknown", LinkKind::as_str);
        let by = if refusal.by == RefusedBy::Us { "us" } else { "peer" };
        tracing::warn!(%peer, kind, by, our_role = %role, reason = %refusal.reason, suppressed,
            "link refused: {}: {}; further ones are counted, not logged", refusal.detail, refusal.reason.hint());
        if full {
            tracing::warn!("links of many peers were refused; from now on they are counted only");
        }
    }
}

/// What a peer is called in the log. Its claim is not verified, so it only counts together with its address.
fn logged_as(claims: Option<&Identity>, address: IpAddr) -> String {
    let address = address.to_canonical();
    claims.map_or_else(|| format!("someone at {address}"), |who| format!("{who} at {address}"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
