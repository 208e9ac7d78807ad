//! The sidecar's metrics. The names are a contract with dashboards.

use mesh::node::Registry;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

type Seconds = Gauge<f64, AtomicU64>;

/// Syncs that the moving average of their time remembers.
const PACE: u64 = 32;
/// Every reason of `rejected_total`.
const REJECTED: [&str; 18] = [
    "busy",
    "no_session",
    "out_of_window",
    "too_old",
    "other_body",
    "too_large",
    "not_ready",
    "unsigned",
    "bad_signature",
    "wrong_client",
    "untrusted_signer",
    "not_for_clients",
    "forged",
    "nonsense",
    "other_cluster",
    "not_orderable",
    "no_read",
    "reply_queue_full",
];

/// A peer and a kind of message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PeerKind {
    pub(crate) peer: u32,
    pub(crate) kind: &'static str,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Peer {
    pub(crate) peer: u32,
}

/// Why something was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reason {
    pub(crate) reason: &'static str,
}

/// Whose signature does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Who {
    pub(crate) who: &'static str,
}

/// A kind of member.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct MemberKind {
    pub(crate) kind: &'static str,
}

/// All of them; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) has_leader: Gauge,
    pub(crate) is_leader: Gauge,
    pub(crate) ballot: Gauge,
    pub(crate) leader_changes: Counter,
    pub(crate) slots_decided: Counter,
    pub(crate) slots_executed: Counter,
    pub(crate) proposals_pending: Gauge,
    pub(crate) batch_requests: Histogram,
    journal_sync: Histogram,
    /// A moving average in microseconds, for `/status`.
    sync_pace: Arc<AtomicU64>,
    pub(crate) log_bytes: Gauge,
    pub(crate) snapshot: Histogram,
    pub(crate) snapshot_age: Seconds,
    pub(crate) state_transfer_bytes: Counter,
    pub(crate) journal_bytes: Gauge,
    pub(crate) disk_free_bytes: Gauge,
    pub(crate) execute: Histogram,
    pub(crate) sessions: Gauge,
    pub(crate) app_up: Gauge,
    pub(crate) app_resets: Counter,
    pub(crate) divergences: Counter,
    pub(crate) aborted_requests: Counter,
    pub(crate) reply_cache_hits: Counter,
    pub(crate) members: Family<MemberKind, Gauge>,
    pub(crate) drain_state: Gauge,
    pub(crate) peer_rtt: Family<Peer, Seconds>,
    pub(crate) peer_sent: Family<PeerKind, Counter>,
    pub(crate) peer_dropped: Family<Peer, Counter>,
    pub(crate) rejected: Family<Reason, Counter>,
    pub(crate) malformed: Family<Reason, Counter>,
    pub(crate) signature_failures: Family<Who, Counter>,
    reads: Family<ReadResult, Counter>,
    pub(crate) read_rounds: Counter,
}

/// How reads past the log ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReadResult {
    result: &'static str,
}

/// Every result of `reads_total`.
const READ_RESULTS: [&str; 6] = ["answered", "not_ready", "busy", "late", "lost", "too_large"];

impl Metrics {
    /// New ones, all registered.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            has_leader: Gauge::default(),
            is_leader: Gauge::default(),
            ballot: Gauge::default(),
            leader_changes: Counter::default(),
            slots_decided: Counter::default(),
            slots_executed: Counter::default(),
            proposals_pending: Gauge::default(),
            batch_requests: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            journal_sync: Histogram::new(exponential_buckets(25e-6, 2.0, 16)),
            sync_pace: Arc::default(),
            log_bytes: Gauge::default(),
            snapshot: Histogram::new(exponential_buckets(1e-3, 2.0, 18)),
            snapshot_age: Seconds::default(),
            state_transfer_bytes: Counter::default(),
            journal_bytes: Gauge::default(),
            disk_free_bytes: Gauge::default(),
            execute: Histogram::new(exponential_buckets(25e-6, 2.0, 20)),
            sessions: Gauge::default(),
            app_up: Gauge::default(),
            app_resets: Counter::default(),
            divergences: Counter::default(),
            aborted_requests: Counter::default(),
            reply_cache_hits: Counter::default(),
            members: Family::default(),
            drain_state: Gauge::default(),
            peer_rtt: Family::default(),
            peer_sent: Family::default(),
            peer_dropped: Family::default(),
            rejected: Family::default(),
            malformed: Family::default(),
            signature_failures: Family::default(),
            reads: Family::default(),
            read_rounds: Counter::default(),
        };
        // No age is not an age of nothing.
        metrics.snapshot_age.set(f64::NAN);
        metrics.register_ordering(registry);
        metrics.register_snapshots(registry);
        metrics.register_surroundings(registry);
        metrics
    }

    fn register_ordering(&self, registry: &mut Registry) {
        registry.register("has_leader", "1 if a leader is known", self.has_leader.clone());
        registry.register("is_leader", "1 if this replica leads", self.is_leader.clone());
        registry.register("ballot", "Round of the highest ballot promised", self.ballot.clone());
        registry.register(
            "leader_changes",
            "Leaders followed or become, one after another",
            self.leader_changes.clone(),
        );
        registry.register("slots_decided", "Slots decided here", self.slots_decided.clone());
        registry.register("slots_executed", "Slots executed by the application", self.slots_executed.clone());
        registry.register("proposals_pending", "Requests held that are not decided", self.proposals_pending.clone());
        registry.register("batch_requests", "Requests of an accepted batch", self.batch_requests.clone());
        registry.register("journal_sync_seconds", "Time of one sync of the journal", self.journal_sync.clone());
        registry.register("log_bytes", "Bytes of the requests in the log, which are limited", self.log_bytes.clone());
        registry.register("journal_bytes", "Bytes of the journal on the disk", self.journal_bytes.clone());
        registry.register("disk_free_bytes", "Free bytes where the journal is", self.disk_free_bytes.clone());
        registry.register("sessions", "Live sessions", self.sessions.clone());
        let help = "Judgements that the application's replies differ from the majority's, or from its own before";
        registry.register("divergences", help, self.divergences.clone());
        registry.register("reads", "Reads past the log, by what became of them here", self.reads.clone());
        for result in READ_RESULTS {
            drop(self.reads.get_or_create(&ReadResult { result }));
        }
        let help = "Rounds by which this leader found out for waiting reads that it leads";
        registry.register("read_rounds", help, self.read_rounds.clone());
        registry.register("aborted_requests", "Requests aborted by order", self.aborted_requests.clone());
        registry.register("reply_cache_hits", "Requests answered with a stored outcome", self.reply_cache_hits.clone());
        registry.register(
            "members",
            "Members configured; 1 for what this one is: voting or learning",
            self.members.clone(),
        );
    }

    fn register_snapshots(&self, registry: &mut Registry) {
        registry.register("snapshot_seconds", "Time to take and verify a snapshot", self.snapshot.clone());
        registry.register("snapshot_age_seconds", "Age of the newest snapshot", self.snapshot_age.clone());
        let help = "Bytes of snapshots fetched from peers and verified";
        registry.register("state_transfer_bytes", help, self.state_transfer_bytes.clone());
    }

    fn register_surroundings(&self, registry: &mut Registry) {
        registry.register("execute_seconds", "Time of one slot in the application", self.execute.clone());
        registry.register(
            "app_up",
            "1 if the application runs, or this is a witness, which has none",
            self.app_up.clone(),
        );
        registry.register("app_resets", "Resets of the application after its loss", self.app_resets.clone());
        registry.register("drain_state", "1 while this replica drains", self.drain_state.clone());
        registry.register("peer_rtt_seconds", "Round trip to a peer", self.peer_rtt.clone());
        registry.register("peer_sent_messages", "Messages sent to a peer", self.peer_sent.clone());
        registry.register("peer_dropped_messages", "Messages for a peer that were dropped", self.peer_dropped.clone());
        registry.register("rejected", "Requests that were not taken", self.rejected.clone());
        registry.register("malformed", "Messages that did not decode, by kind of link", self.malformed.clone());
        let help = "Requests that were not signed by whom they should be";
        registry.register("signature_failures", help, self.signature_failures.clone());
        // There from the first look on, so that a rate has something to begin with.
        let _ = self.signature_failures.get_or_create(&Who { who: "request" });
        for kind in ["configured", "voting", "learning"] {
            let _ = self.members.get_or_create(&MemberKind { kind });
        }
        for reason in REJECTED {
            let _ = self.rejected.get_or_create(&Reason { reason });
        }
        for reason in ["admin", "peer", "submit"] {
            let _ = self.malformed.get_or_create(&Reason { reason });
        }
    }

    /// What is counted of a peer is there before anything was sent to it.
    pub(crate) fn expect_peer(&self, peer: u32) {
        // No round trip is not one of no time.
        self.peer_rtt.get_or_create(&Peer { peer }).set(f64::NAN);
        let _ = self.peer_dropped.get_or_create(&Peer { peer });
        for kind in ["heartbeat", "following"] {
            let _ = self.peer_sent.get_or_create(&PeerKind { peer, kind });
        }
    }

    /// One sync of the journal took so long.
    pub(crate) fn synced(&self, took: f64) {
        self.journal_sync.observe(took);
        // The journal's thread is the only one that stores it.
        let before = self.sync_pace.load(Ordering::Relaxed);
        let took = (took * 1e6) as u64;
        let next = if before == 0 { took } else { (before * (PACE - 1) + took) / PACE };
        self.sync_pace.store(next.max(1), Ordering::Relaxed);
    }

    /// How long a sync of the journal takes, in seconds: the newest [`PACE`] count for most of it. `None` before the first.
    pub(crate) fn sync_pace(&self) -> Option<f64> {
        let micros = self.sync_pace.load(Ordering::Relaxed);
        (micros > 0).then_some(micros as f64 / 1e6)
    }

    /// Counts a request that was not taken.
    pub(crate) fn reject(&self, steer: mesh::wire::submit::Steer) {
        if matches!(steer, mesh::wire::submit::Steer::Rejected(_)) {
            self.signature_failures.get_or_create(&Who { who: "request" }).inc();
        }
        self.rejected.get_or_create(&Reason { reason: steer_name(steer) }).inc();
    }

    /// Counts a read past the log.
    pub(crate) fn read(&self, result: &'static str) {
        self.reads.get_or_create(&ReadResult { result }).inc();
    }

    /// Counts a message that did not decode.
    pub(crate) fn malformed(&self, link: &'static str) {
        self.malformed.get_or_create(&Reason { reason: link }).inc();
    }
}

const fn steer_name(steer: mesh::wire::submit::Steer) -> &'static str {
    use mesh::wire::submit::Steer;
    match steer {
        Steer::Busy => "busy",
        Steer::NoSession => "no_session",
        Steer::OutOfWindow => "out_of_window",
        Steer::TooOld => "too_old",
        Steer::OtherBody => "other_body",
        Steer::TooLarge => "too_large",
        Steer::Unread => "unread",
        Steer::NoRead => "no_read",
        Steer::NoRequest => "not_orderable",
        Steer::NotReady => "not_ready",
        Steer::Rejected(why) => why.as_str(),
    }
}
