//! Consensus messages between servers: each on its own unidirectional stream, in any order, doubled or lost.

use super::Request;
use crate::ids::{Ballot, Digest, Generation, Life, Position, ReplicaId, Slot};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What one slot of the log decides on (rule 7). An empty list of requests is a no-op.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Batch {
    /// The proposing leader's wall clock, Unix time in ns. Execution uses max(time, that of the slot before + 1).
    pub time: u64,
    /// The settled mark when it was proposed (rule 9).
    pub settled: Slot,
    /// A slot and the rolling hash of all replies up to it, as a majority of applications has it (rule 31).
    pub agreed: Option<(Slot, Digest)>,
    /// The cluster's own command, which takes effect before the requests.
    pub command: Option<Command>,
    /// The requests in the order in which they run.
    pub requests: Vec<Request>,
}

/// What the cluster orders for itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command {
    /// A member's new life gets the next incarnation (rule 12). Nothing is proposed above it until it is decided.
    Rejoin {
        /// The member.
        member: ReplicaId,
        /// Its new life.
        life: Life,
        /// The life that has the incarnation before. If another one has, nothing happens: the word of a life that is over
        /// may come late.
        over: Life,
    },
    /// A request is undone and skipped everywhere (rule 23).
    Abort {
        /// Where it is.
        at: Position,
    },
    /// From here on the log is of another generation, with these members alone (rule 14). No leader proposes it: an
    /// operator's forced recovery or restore puts it behind what it goes on from, in the journals of all of them.
    Restart {
        /// Which.
        generation: Generation,
        /// The members and the lives in which they vote, in order of their ids.
        members: Vec<(ReplicaId, Life)>,
    },
}

impl Batch {
    /// Bytes of the applications' requests in it.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.requests.iter().map(Request::body_bytes).sum()
    }
}

/// How far a replica is; rides on what it sends anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Marks {
    /// Every slot up to here is decided and its value known.
    pub decided: Slot,
    /// Every slot up to here was executed by the application.
    pub executed: Slot,
    /// On this request the application fell silent; everything before it was executed. Durable before it is said.
    pub silent: Option<Position>,
    /// The slot of the newest verified snapshot.
    pub snapshot: Slot,
    /// The rolling hash at the slot that the leader asked for.
    pub digest: Option<(Slot, Digest)>,
    /// A snapshot is due or being taken here, during which the application is expected to stand still for so many ms.
    pub turn: Option<u32>,
}

/// A consensus message. Who sent it is the identity of the link's certificate, never a field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// "Would you promise me a ballot of this round?" Changes nothing at the receiver.
    PreVote {
        /// The round the sender would stand in.
        round: u64,
        /// The sender's decided mark: a voter whose log is cut above it denies.
        decided: Slot,
        /// The leader that the sender suspects, by its ballot.
        suspects: Ballot,
    },
    /// The answer to a [`Message::PreVote`] that was granted. A denial is silence.
    PreVoteGranted {
        /// The round that was asked for.
        round: u64,
    },
    /// Phase 1a for every slot above the receiver's decided mark.
    Prepare {
        /// The candidate's ballot.
        ballot: Ballot,
    },
    /// Phase 1b, sent once the promise is durable. Each accepted value follows in a [`Message::Promised`] of its own.
    Promise {
        /// The ballot promised.
        ballot: Ballot,
        /// The promiser's decided mark: the candidate proposes nothing at or below it (rule 3).
        decided: Slot,
        /// The first slot that the promiser still has.
        first_kept: Slot,
        /// The highest settled mark that the promiser knows of.
        settled: Slot,
        /// Every slot above `decided` with an accepted value, and the ballot it was accepted in.
        accepted: Vec<(Slot, Ballot)>,
    },
    /// One accepted value of a [`Message::Promise`].
    Promised {
        /// The ballot promised.
        ballot: Ballot,
        /// The slot.
        slot: Slot,
        /// The ballot the value was accepted in.
        accepted: Ballot,
        /// The value.
        batch: Arc<Batch>,
    },
    /// "I have promised a higher ballot": the receiver steps down or stands again above it.
    Outvoted {
        /// The promised ballot.
        promised: Ballot,
    },
    /// Phase 2a.
    Accept {
        /// The leader's ballot.
        ballot: Ballot,
        /// The slot.
        slot: Slot,
        /// The leader's decided mark; decides what was accepted in exactly this ballot (rule 2).
        decided: Slot,
        /// The slot of the last change of the configuration below `slot`: who lacks it does not vote (rule 11).
        configured: Slot,
        /// The value.
        batch: Arc<Batch>,
    },
    /// Phase 2b for one or more slots, sent once they are durable.
    Accepted {
        /// The ballot they were accepted in.
        ballot: Ballot,
        /// The slots.
        slots: Vec<Slot>,
        /// How far the sender is.
        marks: Marks,
    },
    /// The leader lives, and this is decided. Sent when idle, and at once when a decision has no `Accept` to ride on.
    Heartbeat {
        /// The leader's ballot.
        ballot: Ballot,
        /// The leader's decided mark.
        decided: Slot,
        /// The settled mark.
        settled: Slot,
        /// So many requests of the slot after it were executed by a majority too.
        beyond: u32,
        /// The highest slot that verified snapshots of a majority cover (rule 10).
        covered: Slot,
        /// Whose turn it is to take a snapshot: one member's application stands still at a time.
        turn: Option<ReplicaId>,
        /// Asks for a [`Message::Following`]; decisions that could not wait do not.
        answer: bool,
    },
    /// The answer to a [`Message::Heartbeat`].
    Following {
        /// The ballot followed.
        ballot: Ballot,
        /// How far the sender is.
        marks: Marks,
    },
    /// "Send me decided slots from here on."
    Fetch {
        /// The first slot wanted.
        from: Slot,
        /// The last slot wanted.
        to: Slot,
    },
    /// Decided values of consecutive slots.
    Fetched {
        /// The slot of the first entry.
        from: Slot,
        /// For each slot a ballot at or above the one it was chosen in, and its value.
        entries: Vec<(Ballot, Arc<Batch>)>,
        /// The sender's decided mark.
        decided: Slot,
    },
    /// The answer to a [`Message::Fetch`] of what is cut: a snapshot of the sender covers it.
    Cut {
        /// The snapshot's slot.
        snapshot: Slot,
    },
    /// "I have begun a new life, and hold what you decided: let it vote" (rule 12).
    Rejoin {
        /// The member's life that has the incarnation now.
        over: Life,
    },
    /// A leader that stops asks the receiver to stand at once.
    TakeOver {
        /// The leader's ballot.
        ballot: Ballot,
    },
    /// A follower hands the leader a request that it holds for too long already (rule 5).
    Forward {
        /// The request.
        request: Request,
    },
    /// The leader cannot take a forwarded request now: no reason to suspect it.
    ForwardRefused {
        /// The request's name.
        tag: super::Tag,
    },
}

impl Message {
    /// Whether it counts only in the life that has the member's incarnation: a promise, a vote, or a mark that quorums
    /// are counted with.
    #[must_use]
    pub const fn is_vote(&self) -> bool {
        matches!(
            self,
            Self::PreVoteGranted { .. }
                | Self::Promise { .. }
                | Self::Promised { .. }
                | Self::Accepted { .. }
                | Self::Following { .. }
        )
    }

    /// A short name for metrics and logs.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::PreVote { .. } => "pre_vote",
            Self::PreVoteGranted { .. } => "pre_vote_granted",
            Self::Prepare { .. } => "prepare",
            Self::Promise { .. } => "promise",
            Self::Promised { .. } => "promised",
            Self::Outvoted { .. } => "outvoted",
            Self::Accept { .. } => "accept",
            Self::Accepted { .. } => "accepted",
            Self::Heartbeat { .. } => "heartbeat",
            Self::Following { .. } => "following",
            Self::Fetch { .. } => "fetch",
            Self::Fetched { .. } => "fetched",
            Self::Cut { .. } => "cut",
            Self::Rejoin { .. } => "rejoin",
            Self::TakeOver { .. } => "take_over",
            Self::Forward { .. } => "forward",
            Self::ForwardRefused { .. } => "forward_refused",
        }
    }
}

/// What a unidirectional stream of a peer link carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerFrame {
    /// For the ordering core. Only who is of the same generation listens, and a vote counts only in the life that has the
    /// incarnation.
    Core(Generation, Life, Message),
    /// A member without history asks what cluster this is.
    WhichCluster,
    /// The answer of a member that has history; also to whoever speaks in an older generation.
    Cluster {
        /// The configuration that its own log begins with.
        cluster: crate::config::ClusterConfig,
        /// The generation that it is part of.
        generation: Generation,
    },
}
