//! Configuration: what is ordered (the same on every member, part of the log) and what is local.

use crate::auth::Signatures;
use crate::ids::{Generation, Incarnation, Life, ReplicaId};
use crate::limits::{Limits, MEMBERS_MAX, REQUEST_BYTES_MAX, Timing};
use serde::{Deserialize, Serialize};

/// The version of the semantics of execution (core and adapters). A member refuses a cluster of another one.
pub const EXECUTION_VERSION: u32 = 4;

/// How writes reach the disk before they are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// Synced before every promise and vote.
    Sync,
    /// Written, not synced: survives the process, not the machine.
    Async,
    /// Not written at all: survives the loss of a minority only.
    Memory,
}

/// One member of the cluster, in the life in which it votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its number.
    pub id: ReplicaId,
    /// The only incarnation whose votes count.
    pub incarnation: Incarnation,
    /// The life that has this incarnation; 0 since the bootstrap.
    pub life: Life,
}

/// Bounds of the session table (rules 17 to 20).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLimits {
    /// Live sessions at most.
    pub sessions: u32,
    /// The largest window k that an opener gets.
    pub window: u16,
    /// A session active within this many last slots is never evicted (R).
    pub retention_slots: u64,
}

/// What decides outcomes and therefore is the same on every member (rule 15). Local settings seed it at the
/// bootstrap; afterwards the journal has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// The generation that the bootstrap minted; those that followed it are in the log (rule 14).
    pub generation: Generation,
    /// The members, in order of their ids.
    pub members: Vec<Member>,
    /// Bounds of the session table.
    pub sessions: SessionLimits,
    /// Bytes of one request's body.
    pub request_bytes: u32,
    /// The framing adapter's name, connection policy included.
    pub adapter: String,
    /// [`EXECUTION_VERSION`] of the members.
    pub execution_version: u32,
    /// How all members write. Ordered because early decisions (rule 6) rest on it.
    pub durability: Durability,
    /// Whether requests are signed. Ordered because it decides which are executed.
    pub request_signatures: Signatures,
}

/// Why a [`ClusterConfig`] cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No members, too many, unsorted or doubled.
    #[error("the member list must have 1 to {MEMBERS_MAX} members in ascending order of their ids")]
    Members,
    /// A bound is zero or above what the wire carries.
    #[error("{0} is out of bounds")]
    Bound(&'static str),
    /// Another version of the execution semantics.
    #[error(
        "the cluster executes with version {0}, this program with {EXECUTION_VERSION}: run the version that the other members run"
    )]
    ExecutionVersion(u32),
}

impl ClusterConfig {
    /// A configuration of `n` members with ids 0 to n − 1, for the bootstrap and for tests.
    #[must_use]
    pub fn of(n: u32, adapter: &str, durability: Durability) -> Self {
        Self {
            generation: Generation::FIRST,
            members: (0..n)
                .map(|id| Member { id: ReplicaId(id), incarnation: Incarnation(1), life: Life(0) })
                .collect(),
            sessions: SessionLimits { sessions: 8192, window: 64, retention_slots: 1024 },
            request_bytes: 1 << 20,
            adapter: adapter.to_owned(),
            execution_version: EXECUTION_VERSION,
            durability,
            request_signatures: Signatures::Off,
        }
    }

    /// Refuses what no member could run.
    ///
    /// # Errors
    /// The first bound that does not hold.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let ascending = self.members.windows(2).all(|pair| pair[0].id < pair[1].id);
        if self.members.is_empty() || self.members.len() > MEMBERS_MAX || !ascending {
            return Err(ConfigError::Members);
        }
        if self.sessions.sessions == 0 {
            return Err(ConfigError::Bound("sessions.sessions"));
        }
        if self.sessions.window == 0 || self.sessions.window > 1024 {
            return Err(ConfigError::Bound("sessions.window"));
        }
        if self.request_bytes == 0 || self.request_bytes as usize > REQUEST_BYTES_MAX {
            return Err(ConfigError::Bound("request_bytes"));
        }
        if self.execution_version != EXECUTION_VERSION {
            return Err(ConfigError::ExecutionVersion(self.execution_version));
        }
        Ok(())
    }
}

/// When a replica takes a snapshot: whenever so much was ordered since the last. Local.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshots {
    /// Requests.
    pub every_requests: u64,
    /// Bytes of their bodies.
    pub every_bytes: u64,
}

/// What a replica does when a majority's rolling hash differs from its own (rule 31). Local.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Divergence {
    /// It is quarantined and rebuilt.
    #[default]
    Rebuild,
    /// It only says so.
    Alarm,
    /// It is quarantined until an operator looks.
    Stop,
}

/// What one replica of the ordering core is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name, to which signatures are bound.
    pub name: String,
    /// Which member this is.
    pub id: ReplicaId,
    /// Its life, as its journal names it. It votes while the ordered configuration gives that life the incarnation.
    pub life: Life,
    /// What all members agreed on at the bootstrap; later changes are in the log and in snapshots.
    pub cluster: ClusterConfig,
    /// Local time-outs.
    pub timing: Timing,
    /// Local bounds.
    pub limits: Limits,
    /// When this replica takes snapshots; `None` keeps the log whole.
    pub snapshots: Option<Snapshots>,
    /// What it does when its application diverged.
    pub divergence: Divergence,
    /// The wall clock (Unix time, ns) at [`crate::time::Instant::ZERO`]: batches carry the leader's time (rule 7).
    pub wall_base: u64,
}
