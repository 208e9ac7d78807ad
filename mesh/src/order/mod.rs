//! The ordering core: Multi-Paxos with independent slots (PROTOCOL.md), sessions and the decisions of execution.

mod input;
mod output;

pub use input::{AppReply, Input, Record, Recovered};
pub use output::{Event, Operation, Output, To};

use crate::ids::{Ballot, Digest, ReplicaId, Slot};

/// What a replica is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It proposes.
    Leader,
    /// It follows a leader, or waits for one.
    Follower,
    /// It stands for election.
    Candidate,
    /// It learns and does not vote.
    Learner,
}

/// A look at a replica, for status pages, metrics and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub role: Role,
    /// The highest ballot it promised.
    pub ballot: Ballot,
    /// The leader it knows (itself included).
    pub leader: Option<ReplicaId>,
    /// Whether it leads and has recovered everything: a request would be proposed at once.
    pub ready: bool,
    /// Every slot up to here is decided here.
    pub decided: Slot,
    /// Every slot up to here was executed by the application.
    pub executed: Slot,
    /// The settled mark (rule 9) as known here.
    pub settled: Slot,
    /// The first slot of the log.
    pub log_first: Slot,
    /// The last slot of the log with a value; 0 if it is empty.
    pub log_last: Slot,
    /// Live sessions.
    pub sessions: usize,
    /// Requests held that are not decided.
    pub held: usize,
    /// The application is up (not resetting).
    pub app_running: bool,
    /// Resets asked for so far.
    pub app_resets: u64,
    /// The rolling hash of all reply forms at `executed`.
    pub digest_now: Digest,
    /// The rolling hash at the newest executed slot divisible by 1,000, and that slot.
    pub digest: (Slot, Digest),
    /// The last slot of those that a peer is known to be ahead by; 0 if none is.
    pub behind: u64,
}

/// One replica of the ordering core.
#[derive(Debug)]
pub struct Replica {}

impl Replica {
    /// A replica that knows what `recovered` says.
    #[must_use]
    pub fn new(_config: crate::config::Config, _seed: u64, _recovered: Recovered, _now: crate::time::Instant) -> Self {
        Self {}
    }
    /// The only door in.
    pub fn step(&mut self, _now: crate::time::Instant, _input: Input, _out: &mut Vec<Output>) {}
    /// When [`Input::Timeout`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<crate::time::Instant> {
        None
    }
    /// A look at it.
    #[must_use]
    pub fn status(&self) -> Status {
        unreachable!("skeleton")
    }
}
