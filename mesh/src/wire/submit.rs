//! Between a SMaRtClient and a server. Each request has a bidirectional stream; its answer is one [`Reply`], or
//! nothing when the server sends only the hash, bundled with others as [`Votes`] on a unidirectional stream.

use super::{Outcome, Request, Tag};
use crate::ids::{Digest, Slot};
use serde::{Deserialize, Serialize};

/// A request on its stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submit {
    /// The request.
    pub request: Request,
    /// Whether this server is the one to send the whole reply (rule 30).
    pub whole: bool,
}

/// What a server writes on a request's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The whole ordered outcome.
    Whole(Answer),
    /// One server's own view, which decides nothing (rule 22).
    Steer(Steer),
}

/// An ordered outcome with what is voted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Which request.
    pub tag: Tag,
    /// The slot that ordered it.
    pub slot: Slot,
    /// The hash of the outcome's comparison form.
    pub form: Digest,
    /// The outcome.
    pub outcome: Outcome,
}

/// One server's vote for an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Which request.
    pub tag: Tag,
    /// The slot that ordered it.
    pub slot: Slot,
    /// The hash of the outcome's comparison form.
    pub form: Digest,
}

/// Votes of one server, bundled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Votes(pub Vec<Vote>);

/// What a single server says of a request. It steers the resend and is never an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Steer {
    /// It holds as much as it may.
    Busy,
    /// It knows no such session (it may be behind, or the session was evicted or closed).
    NoSession,
    /// The number is beyond the session's window.
    OutOfWindow,
    /// The number is older than the replies that are kept.
    TooOld,
    /// The number was used with another body (rule 20).
    OtherBody,
    /// The body is larger than the cluster takes.
    TooLarge,
    /// It is not ready: no history yet, or it is stopping.
    NotReady,
}
