//! Between a SMaRtClient and a server. Each request has a stream. On a bidirectional one the server is asked for the whole
//! [`Reply`]; on a unidirectional one only for its vote, which comes bundled with others as [`FromServer::Votes`].

use super::roster::Roster;
use super::{Outcome, Request, Tag};
use crate::auth::{Rejected, SharedProof, Vouched};
use crate::ids::{Digest, ReplicaId, Slot};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A request on its stream, whose kind says whether this server is the one to send the whole reply (rule 30).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submit {
    /// The request.
    pub request: Request,
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
    /// With signatures: the server's.
    pub signed: Option<Signed>,
}

/// A server's signature of its vote or answer, with what else it binds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The members with an application, among which a majority is counted.
    pub electorate: u16,
    /// [`Outcome::content`].
    pub content: Digest,
    /// The signature.
    pub proof: SharedProof,
}

/// One server's vote for an outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Which request.
    pub tag: Tag,
    /// The slot that ordered it.
    pub slot: Slot,
    /// The hash of the outcome's comparison form.
    pub form: Digest,
    /// With signatures: the server's.
    pub signed: Option<Signed>,
}

impl Vote {
    /// The signed word of the server `replica`, for whoever asked; none without signatures.
    #[must_use]
    pub fn vouched(&self, replica: ReplicaId) -> Option<Vouched> {
        let Signed { electorate, content, proof } = self.signed.clone()?;
        Some(Vouched { replica, slot: self.slot, electorate, form: self.form, content, proof })
    }
}

/// What a server says unasked, on unidirectional streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromServer {
    /// Its votes, bundled.
    Votes(Vec<Vote>),
    /// Its signing certificate (DER): first of all, and again before it signs with another key.
    Signer(Bytes),
    /// What it says of itself and of where the others are: first of all, and again whenever it changes.
    Roster(Roster),
    /// Its own view of requests of which only its votes were asked for, bundled.
    Steers(Vec<(Tag, Steer)>),
}

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
    /// It does not believe who made the request.
    Rejected(Rejected),
    /// A read is not answered here now.
    Unread,
    /// It is no read, or reads are not answered past the log here.
    NoRead,
}
