//! What the driver shows of the replica: a snapshot for the admin port and the metrics, taken when something changed,
//! and not at every step.

use crate::metrics::{MemberKind, Metrics};
use crate::snapshot::Snapshots;
use crate::store::Membership;
use mesh::config::Member;
use mesh::ids::{Generation, Slot};
use mesh::order::{Role, Status};
use mesh::time::{Duration, Instant};
use std::path::PathBuf;
use tokio::sync::watch;

/// Changes are shown so long after the last ones, many at once.
const EVERY: Duration = Duration::from_millis(50);
/// Between two looks at the disk.
const DISK_EVERY: Duration = Duration::from_secs(5);

/// How far this process is.
#[derive(Clone, Debug, Default)]
pub(crate) enum Phase {
    /// The journal is being read.
    #[default]
    Starting,
    /// It waits for its cluster.
    Waiting,
    /// It is part of one.
    Running {
        /// Which one.
        membership: Box<Membership>,
        /// How the replica is.
        status: Box<Status>,
        /// When a leader was last known.
        leader_seen: Option<std::time::Instant>,
        /// Since when decided slots wait for the application with none executed.
        stuck_since: Option<std::time::Instant>,
        /// Since when a snapshot is taken: the application gets nothing else meanwhile.
        dumping_since: Option<std::time::Instant>,
        /// The newest generation of the cluster that a peer is known to be part of, where this member is not.
        newer: Option<Generation>,
    },
}

/// A look at this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// How far it is.
    pub(crate) phase: Phase,
    /// Bytes of the journal on the disk.
    pub(crate) journal_bytes: u64,
    /// The disk that it is on, once it was looked at.
    pub(crate) disk: Option<Disk>,
}

/// Room on a disk, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disk {
    /// For this process.
    pub(crate) free: u64,
    /// At all.
    pub(crate) total: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Publisher {
    snapshots: watch::Sender<Snapshot>,
    membership: Membership,
    metrics: Metrics,
    data_dir: Option<PathBuf>,
    kept: Option<Snapshots>,
    due: Option<Instant>,
    /// Something may have changed since it was published.
    touched: bool,
    published: Instant,
    leader_seen: Option<std::time::Instant>,
    stuck_since: Option<std::time::Instant>,
    dumping_since: Option<std::time::Instant>,
    newer: Option<Generation>,
    last_executed: Slot,
    /// Slots that the counters have.
    counted: (u64, u64),
    next_disk: Instant,
    disk: Option<Disk>,
}

impl Publisher {
    pub(crate) fn new(
        snapshots: watch::Sender<Snapshot>,
        membership: Membership,
        metrics: Metrics,
        data_dir: Option<PathBuf>,
        kept: Option<Snapshots>,
    ) -> Self {
        Self {
            snapshots,
            membership,
            metrics,
            data_dir,
            kept,
            due: None,
            touched: false,
            published: Instant::ZERO,
            leader_seen: None,
            stuck_since: None,
            dumping_since: None,
            newer: None,
            last_executed: Slot(0),
            counted: (0, 0),
            next_disk: Instant::ZERO,
            disk: None,
        }
    }

    /// Something may have changed; this far it has executed. Where that is nothing new, what changed is shown by the
    /// first turn that comes anyway: an idle member is not woken up for it.
    pub(crate) fn touch(&mut self, executed: Slot) {
        self.touched = true;
        if executed != self.last_executed {
            self.due.get_or_insert(self.published + EVERY);
        }
    }

    /// Something changed that people wait for.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// A snapshot of the application was begun, or ended.
    pub(crate) fn dumping(&mut self, begun: bool) {
        self.dumping_since = begun.then(std::time::Instant::now);
        // The slots that waited for it have not waited for the application.
        self.stuck_since = None;
    }

    /// A peer is part of a newer generation than this member.
    pub(crate) fn superseded_by(&mut self, generation: Generation) {
        self.newer = self.newer.max(Some(generation));
    }

    /// The newest generation that a peer is known to be part of, where this member is not.
    pub(crate) const fn newer(&self) -> Option<Generation> {
        self.newer
    }

    /// When [`Self::publish`] is to be called.
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now) || self.touched && self.published + EVERY <= now
    }

    /// Shows how the replica is.
    pub(crate) fn publish(&mut self, now: Instant, status: Status, journal_bytes: u64) {
        (self.touched, self.due, self.published) = (false, None, now);
        if status.leader.is_some() {
            self.leader_seen = Some(std::time::Instant::now());
        }
        if status.executed >= status.decided {
            self.stuck_since = None;
        } else if self.stuck_since.is_none() || status.executed != self.last_executed {
            self.stuck_since = Some(std::time::Instant::now());
        }
        self.last_executed = status.executed;
        self.count(&status, journal_bytes);
        self.look_at_disk(now);
        if let Some(kept) = &self.kept {
            kept.show_age();
        }
        let phase = Phase::Running {
            membership: Box::new(self.membership.clone()),
            status: Box::new(status),
            leader_seen: self.leader_seen,
            stuck_since: self.stuck_since,
            dumping_since: self.dumping_since,
            newer: self.newer,
        };
        self.snapshots.send_replace(Snapshot { phase, journal_bytes, disk: self.disk });
    }

    fn count(&mut self, status: &Status, journal_bytes: u64) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let metrics = &self.metrics;
        metrics.has_leader.set(i64::from(status.leader.is_some()));
        metrics.is_leader.set(i64::from(status.role == Role::Leader));
        metrics.ballot.set(gauge(status.ballot.round));
        metrics.proposals_pending.set(gauge(status.held as u64));
        metrics.sessions.set(gauge(status.sessions as u64));
        metrics.log_bytes.set(gauge(status.log_bytes));
        metrics.journal_bytes.set(gauge(journal_bytes));
        let count = |kind: &'static str, is: fn(&Member) -> bool| {
            let members = status.members.iter().filter(|member| is(member)).count();
            metrics.members.get_or_create(&MemberKind { kind }).set(gauge(members as u64));
        };
        count("configured", |_| true);
        count("voting", |member| member.votes);
        count("learning", |member| !member.votes);
        count("witness", |member| member.votes && !member.application);
        // A replay executes again what was counted: counters only go up.
        let (decided, executed) = &mut self.counted;
        metrics.slots_decided.inc_by(status.decided.0.saturating_sub(*decided));
        metrics.slots_executed.inc_by(status.executed.0.saturating_sub(*executed));
        metrics.read_rounds.inc_by(status.read_rounds.saturating_sub(metrics.read_rounds.get()));
        *decided = status.decided.0.max(*decided);
        *executed = status.executed.0.max(*executed);
    }

    fn look_at_disk(&mut self, now: Instant) {
        let Some(dir) = self.data_dir.as_ref().filter(|_| now >= self.next_disk) else { return };
        self.next_disk = now + DISK_EVERY;
        if let Ok(disk) = rustix::fs::statvfs(dir) {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            self.disk = Some(Disk { free, total: disk.f_blocks.saturating_mul(disk.f_frsize) });
            self.metrics.disk_free_bytes.set(i64::try_from(free).unwrap_or(i64::MAX));
        }
    }
}
