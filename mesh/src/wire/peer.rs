//! Consensus messages between servers: each on its own unidirectional stream, in any order, doubled or lost.

use super::Request;
use super::roster::Roster;
use crate::config::Configuration;
use crate::ids::{Ballot, Digest, Epoch, Generation, Life, Position, ReplicaId, Slot};
use serde::{Deserialize, Serialize};
use std::fmt;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command {
    /// The configuration changes (rule 11). Nothing is proposed above it until it is decided.
    Configure {
        /// The configuration that it was proposed against, by its number: in another one nothing happens, alike for all.
        against: Epoch,
        /// The change.
        change: Change,
    },
    /// A request is undone and skipped everywhere (rule 23).
    Abort {
        /// Where it is.
        at: Position,
    },
    /// From here on the log is of another generation, with this member alone at first (rule 14). No leader proposes it: an
    /// operator's forced recovery or restore puts it behind what it goes on from, in the journals of all who go on.
    Restart {
        /// Which.
        generation: Generation,
        /// The member.
        member: ReplicaId,
        /// The life in which it votes.
        life: Life,
    },
}

/// A change of the configuration: of one member at a time, so that a majority before and one after it share a voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Change {
    /// A member's new life gets the next incarnation (rule 12).
    Rejoin {
        /// The member.
        member: ReplicaId,
        /// Its new life.
        life: Life,
        /// The life that has the incarnation before. If another one has, nothing happens: the word of a life that is over
        /// may come late.
        over: Life,
    },
    /// A new member, as a learner. Its id is below the target; one that was a member before gets a higher incarnation.
    Add {
        /// The member.
        member: ReplicaId,
        /// Its life.
        life: Life,
        /// Whether it has an application; a witness has none.
        application: bool,
    },
    /// A learner votes from now on.
    Promote {
        /// The member.
        member: ReplicaId,
        /// The life that has caught up.
        life: Life,
    },
    /// A member is none any more. The last one that votes and has an application cannot be removed.
    Remove {
        /// The member.
        member: ReplicaId,
    },
    /// Only ids below this are admitted from now on.
    SetTarget {
        /// The number.
        members: u32,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejoin { member, life, over } => {
                write!(f, "member {member} rejoins in life {:016x}, after {:016x}", life.0, over.0)
            }
            Self::Add { member, life, application } => {
                let kind = if *application { "member" } else { "witness" };
                write!(f, "{kind} {member} is added in life {:016x}", life.0)
            }
            Self::Promote { member, life } => write!(f, "member {member} votes in life {:016x}", life.0),
            Self::Remove { member } => write!(f, "member {member} is removed"),
            Self::SetTarget { members } => write!(f, "ids below {members} are admitted"),
        }
    }
}

impl Command {
    /// Whether it is of the configuration.
    #[must_use]
    pub const fn configures(&self) -> bool {
        matches!(self, Self::Configure { .. } | Self::Restart { .. })
    }
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
        /// Its decided mark: who does not know it as a member may lack the change that made it one.
        decided: Slot,
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
    /// "I hold every decided slot up to here, and you asked for a vote without them." The answer of one that was removed too,
    /// which may be the only one to know that it was.
    Behind {
        /// The sender's decided mark.
        decided: Slot,
    },
    /// "I am no member, hold nothing, and want to be one": the leader adds the sender's life as a learner.
    Join {
        /// Whether it has an application.
        application: bool,
    },
    /// "Which slot must my reads not be below?" For all reads that the sender has by now (rule 32).
    ReadIndex {
        /// The ballot of the leader that is asked.
        ballot: Ballot,
        /// Names the question in the answer. No other question of the sender had that name.
        question: u64,
    },
    /// "Has nobody promised you a higher ballot?" The leader asks because reads wait.
    Confirm {
        /// The leader's ballot.
        ballot: Ballot,
        /// Which time it asks.
        round: u64,
    },
    /// "Nobody has": it was so after the round began.
    Confirmed {
        /// The ballot followed.
        ballot: Ballot,
        /// The round.
        round: u64,
        /// How far the sender is.
        marks: Marks,
    },
    /// The answer to a [`Message::ReadIndex`], when a majority has confirmed a round that began after it.
    ReadIndexed {
        /// The leader's ballot.
        ballot: Ballot,
        /// The question.
        question: u64,
        /// The highest slot that was proposed or recovered when the round began.
        index: Slot,
        /// The leader's decided mark.
        decided: Slot,
        /// The settled mark.
        settled: Slot,
        /// So many requests of the slot after it were executed by a majority too.
        beyond: u32,
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
                | Self::Confirmed { .. }
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
            Self::Behind { .. } => "behind",
            Self::Join { .. } => "join",
            Self::ReadIndex { .. } => "read_index",
            Self::Confirm { .. } => "confirm",
            Self::Confirmed { .. } => "confirmed",
            Self::ReadIndexed { .. } => "read_indexed",
        }
    }
}

/// Names the SMaRtClient that waits for a request's outcome, on all servers alike; 0: nobody does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Desk(pub u64);

impl Desk {
    /// That of whoever chose `number`, under the certificate with this id: nobody else's votes can be asked for.
    #[must_use]
    pub fn of(id: &str, number: u64) -> Self {
        let mut named = id.as_bytes().to_vec();
        named.extend(number.to_le_bytes());
        let digest = Digest::of(&named);
        Self(u64::from_le_bytes(digest.0[..8].try_into().expect("eight bytes of a digest")).max(1))
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
    /// The answer of a member that has history: the configuration as it knows it. Also to whoever speaks in an older
    /// generation.
    Cluster(Configuration),
    /// What the sender says of itself: first of all, and again whenever it changes.
    Roster(Roster),
    /// As [`Self::Core`], a [`Message::Accept`]; and who waits, at the leader, for the outcome of each of its requests.
    Proposal(Generation, Life, Message, Vec<Desk>),
}
