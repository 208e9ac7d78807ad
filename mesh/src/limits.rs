//! Every bound of the protocol in one place, with units; relations between them are asserted at compile time.
//!
//! These are the bounds that cannot change an outcome. What can (session bounds, request size) is part of the ordered
//! configuration: [`crate::config::ClusterConfig`].

use crate::time::Duration;

/// Members that a cluster may have.
pub const MEMBERS_MAX: usize = 63;

/// Ids of members are below this, so that the list of those that were removed is bounded too.
pub const MEMBER_IDS: u32 = 1024;

/// Bounds on what one process holds or sends. The driver may make some tiny; [`Limits::DEFAULT`] is what ships.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message on the wire: the largest batch, its requests' names and the envelope.
    pub message_bytes: usize,
    /// Bytes of request bodies after which a batch takes no further request.
    pub batch_bytes: usize,
    /// Requests of one batch.
    pub batch_requests: usize,
    /// Slots in flight up to which an idle leader proposes at once; above, it fills batches (2 to 4 measured best).
    pub pipeline_depth: u64,
    /// Slots in flight at most; a follower takes none further than twice that above its decided mark.
    pub window: u64,
    /// Slots that may be proposed beyond the settled mark (rule 9).
    pub unsettled_slots: u64,
    /// Bytes of request bodies that may be proposed beyond the settled mark.
    pub unsettled_bytes: usize,
    /// Requests that a replica holds and that are not decided yet.
    pub held_requests: usize,
    /// Bytes of those requests.
    pub held_bytes: usize,
    /// Slots handed to the application whose replies are outstanding.
    pub executing_slots: usize,
    /// Bytes of decided entries in one answer to a fetch.
    pub fetch_bytes: usize,
    /// Bytes of one reply that is kept for a resend; of a larger one only the hash is.
    pub reply_kept_bytes: usize,
    /// Bytes of all kept replies; above, the oldest are kept as hashes only.
    pub replies_kept_bytes: usize,
    /// Replies whose bytes are kept.
    pub replies_kept: usize,
    /// Slots that are kept below the newest cut that would be possible, so that one who is a little late needs no
    /// snapshot.
    pub log_tail_slots: u64,
    /// Bytes of them.
    pub log_tail_bytes: u64,
    /// Bytes of request bodies of the log above which the leader refuses calls, by order. Half of it alarms.
    pub log_bytes: u64,
}

impl Limits {
    /// What ships.
    pub const DEFAULT: Self = Self {
        message_bytes: 12 << 20,
        batch_bytes: 1 << 20,
        batch_requests: 512,
        pipeline_depth: 4,
        window: 64,
        unsettled_slots: 4096,
        unsettled_bytes: 64 << 20,
        held_requests: 16_384,
        held_bytes: 64 << 20,
        executing_slots: 16,
        fetch_bytes: 1 << 20,
        reply_kept_bytes: 1 << 20,
        replies_kept_bytes: 128 << 20,
        replies_kept: 1 << 18,
        log_tail_slots: 4096,
        log_tail_bytes: 256 << 20,
        log_bytes: 4 << 30,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Bytes that a request takes on the wire beside its body, at most.
pub const REQUEST_ENVELOPE_BYTES: usize = 80;

/// Bytes that a request takes in a proposal beside that, at most: who waits for it ([`Desk`](crate::wire::peer::Desk)).
pub const DESK_BYTES: usize = 10;

/// The largest request body that any configuration may allow: a value of 8 MiB, and what is around it.
pub const REQUEST_BYTES_MAX: usize = 9 << 20;

const _: () = {
    let l = Limits::DEFAULT;
    // One request of the largest size still fits into a batch that was just short of full.
    let beside = REQUEST_ENVELOPE_BYTES + DESK_BYTES;
    assert!(l.batch_bytes + REQUEST_BYTES_MAX + l.batch_requests * beside + 1024 <= l.message_bytes);
    assert!(l.fetch_bytes + l.batch_bytes + REQUEST_BYTES_MAX <= l.message_bytes);
    assert!(l.pipeline_depth <= l.window && l.window <= l.unsettled_slots);
    assert!(l.batch_bytes <= l.unsettled_bytes && l.batch_requests <= l.held_requests);
    assert!(l.reply_kept_bytes <= l.replies_kept_bytes);
};

/// Time-outs of the ordering. Local: they cannot change an outcome, only when it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Silence of the leader after which a follower may stand for election.
    pub election_timeout: Duration,
    /// Added to it, drawn anew for every wait: `0..=election_jitter`.
    pub election_jitter: Duration,
    /// Between two heartbeats of an idle leader; also how often lost messages are sent again.
    pub heartbeat: Duration,
    /// How long a replica waits for a slot that it lacks before it fetches it.
    pub repair: Duration,
    /// How long an executable request may stay unproposed while nothing is decided before the leader is suspected.
    pub request_timeout: Duration,
    /// How long a replica that said it stops neither proposes nor stands; if it is still there then, it was no stop.
    pub drain: Duration,
}

impl Timing {
    /// What ships: ordering resumes within 1.5 s of the leader's loss.
    pub const DEFAULT: Self = Self {
        election_timeout: Duration::from_millis(500),
        election_jitter: Duration::from_millis(500),
        heartbeat: Duration::from_millis(100),
        repair: Duration::from_millis(40),
        request_timeout: Duration::from_millis(1000),
        drain: Duration::from_secs(60),
    };
}

impl Default for Timing {
    fn default() -> Self {
        Self::DEFAULT
    }
}

const _: () = {
    let t = Timing::DEFAULT;
    assert!(t.heartbeat.as_nanos() * 4 <= t.election_timeout.as_nanos());
    assert!(t.repair.as_nanos() < t.heartbeat.as_nanos());
    assert!(t.request_timeout.as_nanos() >= t.election_timeout.as_nanos());
};
