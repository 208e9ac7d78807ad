//! The application: reset, given the ordered operations, its replies cut and handed back.
//!
//! The core decides what runs (rule 33); here is only how. One task owns the application. Whenever it cannot prove what
//! the application executed, it says that the application is lost, and waits for the reset.

mod ahead;
mod conversation;
mod dump;
mod evidence;
mod exchange;
mod found;
mod hollow;
mod keeper;
pub(crate) mod marker;
mod orders;
mod own;
mod probe;
pub(crate) mod process;
mod resp;
pub(crate) mod restarter;
mod sequential;
mod shared;
mod supervisor;
#[cfg(test)]
mod tests;
mod wipe;
mod worker;

pub(crate) use evidence::Evidence;
#[cfg(feature = "fuzzing")]
pub use marker::fuzzing;
pub(crate) use marker::resumable;
pub(crate) use worker::{Handle, spawn};

use crate::config::{Probe, SnapshotMode};
use crate::metrics::Metrics;
use crate::snapshot::Snapshots;
use bytes::Bytes;
use mesh::framing::Adapter;
use mesh::ids::{ReadId, Run, Slot};
use mesh::order::{AppReply, Image, Operation};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What the driver asks for.
#[derive(Debug)]
pub(crate) enum Command {
    /// Every slot up to here may have been answered by an earlier process: to be told before the first beginning, so
    /// that the marker can say it to the next one (rule 23).
    Answered { through: Slot },
    /// Bring the application to its initial state, and load a snapshot.
    Reset { run: Run, snapshot: Option<Slot> },
    /// Go on with the application that was found running.
    Resume { run: Run },
    /// Execute, after everything before; the first `patient` calls without a time limit.
    Execute { run: Run, slot: Slot, operations: Vec<Operation>, patient: usize },
    /// Answer reads, after everything before; nothing of them is kept.
    Read { run: Run, read: ReadId, requests: Vec<Bytes> },
    /// Take a snapshot. Reads that were asked for before are not answered.
    Dump { run: Run, image: Box<Image> },
}

/// What the driver is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// In its initial state and running.
    Restored { run: Run },
    /// One reply for each call of the slot, in order.
    Executed { run: Run, slot: Slot, replies: Vec<AppReply> },
    /// The replies to reads.
    Read { run: Run, read: ReadId, replies: Vec<Bytes> },
    /// No answer to a call of this slot, after so many that were answered; nothing more will come of this run.
    Silent { run: Run, slot: Slot, answered: usize },
    /// Nothing more will come of this run.
    Lost { run: Run },
    /// The snapshot to load cannot be used.
    SnapshotLost { slot: Slot },
    /// The snapshot is stored and verified.
    Dumped { slot: Slot },
    /// It is not.
    DumpFailed { slot: Slot },
}

/// How the application is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Not running, and not known to be starting.
    #[default]
    Down,
    /// Being reset.
    Resetting,
    /// Running.
    Running,
}

impl State {
    /// Its name in `status`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Resetting => "resetting",
            Self::Running => "running",
        }
    }
}

/// A look at the application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// How it is.
    pub(crate) state: State,
    /// Its pid, if it is a child.
    pub(crate) pid: Option<u32>,
    /// The name of its incarnation.
    pub(crate) incarnation: Option<String>,
}

/// How the application is spoken to.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The application; a witness has none.
    pub(crate) app: Option<crate::App>,
    /// The socket of whoever supervises it in a container of its own.
    pub(crate) supervisor: Option<PathBuf>,
    /// This member.
    pub(crate) id: u32,
    /// Where the marker is kept, and the identity of an application of somebody else's.
    pub(crate) data_dir: Option<PathBuf>,
    /// Its protocol.
    pub(crate) adapter: Adapter,
    /// How long it may take for one reply.
    pub(crate) timeout: Duration,
    /// Connections of its own that sessions may have.
    pub(crate) sessions: usize,
    /// How its state is saved and brought back.
    pub(crate) snapshot: SnapshotMode,
    /// How long that may take.
    pub(crate) snapshot_timeout: Duration,
    /// The request that brings it to its initial state, for protocols without a general one.
    pub(crate) reset_request: Option<String>,
    /// The request that tells whether it is in its initial state, for protocols without a general one.
    pub(crate) empty_probe: Option<Probe>,
    /// Where snapshots are: known once the data directory is locked, and before one is asked for.
    pub(crate) snapshots: Arc<OnceLock<Snapshots>>,
    /// What is kept of calls, for the case of divergence.
    pub(crate) evidence: Evidence,
    /// Where it is counted.
    pub(crate) metrics: Metrics,
}
