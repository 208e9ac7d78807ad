//! Between an ingress (or a native client) and a SMaRtClient: each request on a unidirectional stream of its own, the answers
//! of a turn bundled on one.

use super::{Outcome, Request, Tag};
use crate::auth::{Rejected, Vouched};
use crate::ids::ReplicaId;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The request.
    pub request: Request,
    /// Milliseconds after which the sender gives up: the SMaRtClient need not try for longer.
    pub within_ms: u32,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// The outcome that won the vote: definite.
    Outcome {
        /// The outcome.
        outcome: Outcome,
        /// With signatures: the words of the servers that voted for it.
        vouched: Vec<Vouched>,
    },
    /// Nothing was sent to any server (rule 22): definite if every attempt ends so.
    NothingSent(NothingSent),
    /// It may have run or not, or may yet run.
    Unknown(Unknown),
    /// A read has no answer: it changed nothing, and goes through the log.
    Unread(Unread),
}

/// Why a read has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Unread {
    /// Not now.
    Now,
    /// Nor will one here soon: the servers, or the SMaRtClient's vote, want all requests in the log.
    Never,
}

impl Told {
    /// An outcome that nobody has signed.
    #[must_use]
    pub fn unsigned(outcome: Outcome) -> Self {
        Self::Outcome { outcome, vouched: Vec::new() }
    }
}

/// What a SMaRtClient says, on unidirectional streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromSmartClient {
    /// Its answers to requests.
    Told(Vec<(Tag, Told)>),
    /// The servers' signing certificates (DER), those of every server that it knows: first of all, and whenever one
    /// changes.
    Signers(Vec<(ReplicaId, Bytes)>),
    /// Whether it is about to stop, and wants no further requests.
    Leaving(bool),
}

/// Why a SMaRtClient sent nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum NothingSent {
    /// Fewer servers than a majority are reachable.
    #[error("no quorum: {reachable} of {members} servers reachable, {needed} needed")]
    NoQuorum {
        /// Servers with a link.
        reachable: u16,
        /// Servers of the cluster.
        members: u16,
        /// A majority of them.
        needed: u16,
    },
    /// It holds as many requests as it may.
    #[error("the SMaRtClient is overloaded")]
    Busy,
    /// It is stopping.
    #[error("the SMaRtClient is stopping")]
    Stopping,
}

/// Why an outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Unknown {
    /// The deadline passed.
    #[error("the deadline passed")]
    Deadline,
    /// A majority knows no such session any more.
    #[error("the session is gone")]
    SessionGone,
    /// The number is older than the replies that are kept.
    #[error("the request is older than the replies that are kept")]
    TooOld,
    /// The number was used before with another body.
    #[error("the number was used with another body")]
    OtherBody,
    /// The servers refuse a body of this size.
    #[error("the request is larger than the cluster takes")]
    TooLarge,
    /// Replies of the servers disagree and no majority is left.
    #[error("the replicas' replies disagree")]
    Disagreement,
    /// The SMaRtClient was lost or is stopping.
    #[error("the SMaRtClient was lost")]
    Lost,
    /// A majority said until the deadline that the number is beyond the session's window.
    #[error("numbers before it were never sent")]
    OutOfWindow,
    /// A majority does not believe who made the request.
    #[error("the servers do not accept the request: {0}")]
    Rejected(Rejected),
}
