//! Between a SMaRtClient and a server: each request on a unidirectional stream of its own; what a server has to say of a
//! turn's requests bundled on one.

use super::roster::Roster;
use super::{Outcome, Request, Tag};
use crate::auth::{Rejected, SharedProof, Vouched};
use crate::ids::{Ballot, Digest, ReplicaId, Slot};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What a SMaRtClient says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToServer {
    /// "Votes that go to this number come to me": first of all. It is chosen at random by each process, and counts only for
    /// links with the same certificate.
    Desk(u64),
    /// A request.
    Submit(Submit),
}

/// A request of a SMaRtClient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submit {
    /// The request.
    pub request: Request,
    /// Whether this server shall send the whole reply (rule 30), or only its vote.
    pub whole: bool,
    /// Milliseconds after which nobody waits for either.
    pub within_ms: u32,
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

/// What a server says, on unidirectional streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromServer {
    /// On requests.
    Said(Said),
    /// Its signing certificate (DER): first of all, and again before it signs with another key.
    Signer(Bytes),
    /// What it says of itself and of where the others are: first of all, and again whenever it changes.
    Roster(Roster),
}

/// What a server has to say on the requests of one turn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The ballot in which it leads, if it does: requests may be sent to it alone, its proposals bring them to the others.
    pub leads: Option<Ballot>,
    /// Whole outcomes, for whoever asked this server for them.
    pub answers: Vec<Answer>,
    /// Its votes.
    pub votes: Vec<Vote>,
    /// Its own view of requests, which decides nothing (rule 22).
    pub steers: Vec<(Tag, Steer)>,
}

impl Said {
    /// The requests of which the whole outcome was asked for and that this answers; a vote answers nothing.
    pub fn answered(&self) -> impl Iterator<Item = &Tag> {
        self.answers.iter().map(|answer| &answer.tag).chain(self.steers.iter().map(|(tag, _)| tag))
    }
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
    /// It is not exactly one request of the application's protocol.
    NoRequest,
}
