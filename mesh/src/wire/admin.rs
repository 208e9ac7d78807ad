//! Between an operator's command and a server: the explicit first start (bootstrap), in two phases, so that a
//! command that was cut off can be run again; and what an operator asks of a running member.
//!
//! Every blank member stores the same proposal first; only when all have is it committed at each. A member that holds
//! a proposal has provably never voted, and takes any message of a committed peer as the commit.

use super::transfer::{TransferAnswer, TransferAsk};
use crate::config::{ClusterConfig, Configuration};
use crate::ids::{Position, ReplicaId, Slot};
use crate::wire::peer::Change;
use serde::{Deserialize, Serialize};

/// A question to one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminRequest {
    /// What are you, and what would you start with?
    Describe,
    /// Store this as the cluster's first configuration, unless you have history.
    Propose {
        /// Names the attempt.
        token: u128,
        /// The configuration.
        cluster: ClusterConfig,
    },
    /// Every member has stored the proposal: start.
    Commit {
        /// The attempt.
        token: u128,
    },
    /// Take a snapshot soon, whether or not one is due. Answered at once.
    Save,
    /// How is it with your snapshots?
    Snapshots,
    /// Who are the members, as far as you know?
    Members,
    /// Have the configuration changed. Answered when it is done, or at once if it is refused.
    Change(Change),
    /// Hand leadership over to this member. Answered likewise.
    TransferLeader {
        /// Who is to lead.
        to: ReplicaId,
    },
    /// Have a request aborted that the application does not answer (rule 23).
    Abort {
        /// Where it is.
        at: Position,
    },
    /// Give me of your newest snapshot: for a backup.
    Fetch(TransferAsk),
}

/// How far a server's own history is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum History {
    /// None: an empty data directory.
    Blank,
    /// It holds a proposal that was not committed as far as it knows.
    Proposed {
        /// The attempt.
        token: u128,
    },
    /// It is part of a cluster.
    Started,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminReply {
    /// To [`AdminRequest::Describe`].
    Described {
        /// Which member answers.
        id: ReplicaId,
        /// Its history.
        history: History,
        /// What its own settings would seed (members left out: the command knows them).
        seed: ClusterConfig,
        /// Whether it has an application: a witness has none.
        application: bool,
    },
    /// Stored or started, durably; or, of an abort, asked for.
    Done,
    /// Not done, and why; a sentence for people.
    Refused(String),
    /// To [`AdminRequest::Members`].
    Members(MembersView),
    /// Not done, since this member does not lead: that one does, as far as is known.
    NotLeader {
        /// Who leads.
        leader: Option<ReplicaId>,
    },
    /// Not done, but it may be soon: ask again.
    NotYet(String),
    /// To [`AdminRequest::Save`] and [`AdminRequest::Snapshots`].
    Snapshots(SnapshotsView),
    /// To [`AdminRequest::Fetch`].
    Fetched(TransferAnswer),
}

/// The members, as one of them knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersView {
    /// The configuration that is in force.
    pub configuration: Configuration,
    /// Who leads.
    pub leader: Option<ReplicaId>,
    /// A change is under way.
    pub changing: bool,
    /// The last slot that is decided there.
    pub decided: Slot,
    /// Where members are to be reached, as far as is known.
    pub places: Vec<(ReplicaId, String)>,
}

/// How it is with a server's snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotsView {
    /// The slot of the newest one; 0: there is none.
    pub newest: Slot,
    /// The last slot that the application executed.
    pub executed: Slot,
    /// Snapshots taken since the process started.
    pub taken: u64,
    /// Snapshots that failed since then.
    pub failed: u64,
    /// Bytes of the one that is being taken.
    pub writing: Option<u64>,
}
