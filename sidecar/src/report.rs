//! The core's events for people: log lines and counters. What a broken or malicious party can cause at will is logged
//! at most once a second.

use crate::metrics::{Metrics, Reason};
use mesh::ids::ReplicaId;
use mesh::order::Event;
use mesh::time::{Duration, Instant};

/// Between two log lines of what others can cause.
const QUIET: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Reporter {
    metrics: Metrics,
    next: Instant,
    suppressed: u64,
}

impl Reporter {
    pub(crate) const fn new(metrics: Metrics) -> Self {
        Self { metrics, next: Instant::ZERO, suppressed: 0 }
    }

    /// An event of the core.
    pub(crate) fn event(&mut self, now: Instant, event: &Event) {
        match event {
            Event::Standing { ballot } => tracing::info!(%ballot, "standing for election"),
            Event::Leading { ballot } => {
                self.metrics.leader_changes.inc();
                tracing::info!(%ballot, "leading");
            }
            Event::Following { ballot } => {
                self.metrics.leader_changes.inc();
                tracing::info!(%ballot, leader = %ballot.replica, "following");
            }
            Event::SteppedDown { ballot, reason } => tracing::warn!(%ballot, reason, "no longer leading"),
            Event::Suspected { ballot, tag } => {
                tracing::warn!(%ballot, client = %tag.client, seq = %tag.seq, "the leader is suspected: a request is not ordered");
            }
            Event::OtherBody { tag } => {
                self.count("other_body");
                if let Some(suppressed) = self.may_speak(now) {
                    tracing::warn!(client = %tag.client, seq = %tag.seq, suppressed, "a number was used again with another body: broken or malicious client");
                }
            }
            Event::ReplayDiffers { tag, slot, .. } => {
                self.metrics.divergences.inc();
                if let Some(suppressed) = self.may_speak(now) {
                    tracing::error!(
                        client = %tag.client, seq = %tag.seq, %slot, suppressed,
                        "the application gave another reply in the replay than before: it is not deterministic"
                    );
                }
            }
            Event::Diverged { .. }
            | Event::Rebuilt { .. }
            | Event::NoAgreement { .. }
            | Event::Silent { .. }
            | Event::Aborted { .. }
            | Event::Rejoined { .. }
            | Event::Superseded
            | Event::LogGrows { .. } => {}
            Event::Nonsense { from, what } => {
                self.count("nonsense");
                if let Some(suppressed) = self.may_speak(now) {
                    tracing::warn!(%from, what, suppressed, "a peer sent what no correct peer sends; dropped");
                }
            }
        }
    }

    /// A peer says that the cluster is another one.
    pub(crate) fn other_cluster(&mut self, now: Instant, from: ReplicaId) {
        self.count("other_cluster");
        if let Some(suppressed) = self.may_speak(now) {
            tracing::error!(%from, suppressed, "a peer was started with another configuration of the cluster: one of both has a foreign data directory");
        }
    }

    /// A request is not one of the protocol.
    pub(crate) fn not_orderable(&mut self, now: Instant, link: crate::intake::LinkId) {
        self.count("not_orderable");
        if let Some(suppressed) = self.may_speak(now) {
            let link = link.0;
            tracing::warn!(
                link,
                suppressed,
                "a request is not exactly one of the protocol; not taken. Is the ingress set to the same --protocol?"
            );
        }
    }

    fn count(&self, reason: &'static str) {
        self.metrics.rejected.get_or_create(&Reason { reason }).inc();
    }

    /// How many lines were left out since the last one, if it is time for one.
    fn may_speak(&mut self, now: Instant) -> Option<u64> {
        if now < self.next {
            self.suppressed += 1;
            return None;
        }
        self.next = now + QUIET;
        Some(std::mem::take(&mut self.suppressed))
    }
}
