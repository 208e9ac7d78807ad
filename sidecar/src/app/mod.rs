//! The application: reset, given the ordered operations, its replies cut and handed back.
//!
//! The core decides what runs (rule 33); here is only how. One task owns the application. Whenever it cannot prove what
//! the application executed, it says that the application is lost, and waits for the reset.

mod exchange;
mod found;
mod keeper;
mod probe;
pub(crate) mod process;
mod sequential;
mod shared;
mod supervisor;
#[cfg(test)]
mod tests;
mod worker;

pub(crate) use worker::{Handle, spawn};

use crate::metrics::Metrics;
use mesh::framing::Adapter;
use mesh::ids::{Run, Slot};
use mesh::order::{AppReply, Image, Operation};
use std::path::PathBuf;
use std::time::Duration;

/// What the driver asks for.
#[derive(Debug)]
pub(crate) enum Command {
    /// Bring the application to its initial state, and load a snapshot.
    Reset { run: Run, snapshot: Option<Slot> },
    /// Go on with the application that was found running.
    Resume { run: Run },
    /// Execute, after everything before; the first `patient` calls without a time limit.
    Execute { run: Run, slot: Slot, operations: Vec<Operation>, patient: usize },
    /// Take a snapshot.
    Dump { run: Run, image: Box<Image> },
}

/// What the driver is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// In its initial state and running.
    Restored { run: Run },
    /// One reply for each call of the slot, in order.
    Executed { run: Run, slot: Slot, replies: Vec<AppReply> },
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
    /// The application.
    pub(crate) app: crate::App,
    /// This member.
    pub(crate) id: u32,
    /// Where the identity of an application of somebody else's is kept.
    pub(crate) data_dir: Option<PathBuf>,
    /// Its protocol.
    pub(crate) adapter: Adapter,
    /// How long it may take for one reply.
    pub(crate) timeout: Duration,
    /// Connections of its own that sessions may have.
    pub(crate) sessions: usize,
    /// Where it is counted.
    pub(crate) metrics: Metrics,
}
