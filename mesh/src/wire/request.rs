//! Requests, their names and their outcomes: what clients send and what is ordered.

use crate::auth::{CERTIFICATE_BYTES_MAX, Owner, SharedProof};
use crate::ids::{ClientId, Digest, Opening, Seq};
use bytes::Bytes;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::hash::{Hash, Hasher};

/// One request of a session, as it is sent, ordered and journaled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Request {
    /// The session's client id.
    pub client: ClientId,
    /// Where the session was opened: with `client`, its name (rule 17). [`Opening::NONE`] in [`Body::Open`].
    pub opened: Opening,
    /// The number of the request. 0 in [`Body::Open`].
    pub seq: Seq,
    /// What is asked.
    pub body: Body,
    /// Shows, with signatures, that the session's owner made it.
    pub proof: Option<SharedProof>,
}

/// What a request asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// Open a session with a window of so many requests. Idempotent while a session of that client id lives.
    Open {
        /// Requests that may be outstanding, k; cut to the cluster's bound.
        window: u16,
        /// With signatures: whose it is.
        owner: Option<Box<Owner>>,
    },
    /// One request in the application's own protocol.
    Call(Bytes),
    /// Settle every number up to `seq`: what was not executed by now never will be (rule 21). Idempotent.
    Cancel,
    /// End the session. Idempotent.
    Close,
    /// What a leader orders in the place of a [`Body::Call`] that it cannot take: the number is consumed, and the
    /// outcome is a refusal. Clients do not send it.
    Refused(Refusal),
    /// Requests in the application's own protocol that change nothing, of one connection, one behind the other: to be
    /// answered without the log (rule 32). Never ordered, nor part of a session: client and number only name it on the links.
    Read(#[serde(deserialize_with = "some_together")] Vec<Bytes>),
}

/// Requests that one [`Body::Read`] may have.
pub const READS_TOGETHER: usize = 64;
/// Bytes of all of them, unless there is only one.
pub const READS_TOGETHER_BYTES: usize = 64 << 10;

/// What is more than any of us sends is refused before there is memory for it: an empty request takes a byte on the wire.
fn some_together<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Bytes>, D::Error> {
    struct Together;
    impl<'de> Visitor<'de> for Together {
        type Value = Vec<Bytes>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{READS_TOGETHER} requests at most")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut requests: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(request) = requests.next_element()? {
                if all.len() >= READS_TOGETHER {
                    return Err(A::Error::custom("too many requests in one"));
                }
                all.push(request);
            }
            Ok(all)
        }
    }
    from.deserialize_seq(Together)
}

/// What kind of request a [`Tag`] names: a call and the cancel that settles it have the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// [`Body::Open`].
    Open,
    /// [`Body::Call`], or the refusal in its place.
    Call,
    /// [`Body::Cancel`].
    Cancel,
    /// [`Body::Close`].
    Close,
    /// [`Body::Read`].
    Read,
}

/// The name of a request on the links: who waits for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tag {
    /// [`Request::client`].
    pub client: ClientId,
    /// [`Request::opened`]: an answer of a session of the same client id that is gone is no answer.
    pub opened: Opening,
    /// [`Request::seq`].
    pub seq: Seq,
    /// The kind of [`Request::body`].
    pub kind: Kind,
}

impl Hash for Tag {
    /// Of what differs between requests that wait at one time, nearly always: each is looked up several times at every hop.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.client.0);
        state.write_u64(self.opened.slot.0);
        state.write_u64(self.seq.0);
    }
}

impl Request {
    /// The request that opens a session with a window of `window`.
    #[must_use]
    pub fn open(client: ClientId, window: u16, owner: Option<Owner>) -> Self {
        let body = Body::Open { window, owner: owner.map(Box::new) };
        Self { client, opened: Opening::NONE, seq: Seq(0), body, proof: None }
    }

    /// The request's name.
    #[must_use]
    pub fn tag(&self) -> Tag {
        let kind = match self.body {
            Body::Open { .. } => Kind::Open,
            Body::Call(_) | Body::Refused(_) => Kind::Call,
            Body::Cancel => Kind::Cancel,
            Body::Close => Kind::Close,
            Body::Read(_) => Kind::Read,
        };
        Tag { client: self.client, opened: self.opened, seq: self.seq, kind }
    }

    /// Bytes of the application's request in it.
    #[must_use]
    pub fn call_bytes(&self) -> usize {
        match &self.body {
            Body::Call(bytes) => bytes.len(),
            Body::Read(requests) => requests.iter().map(Bytes::len).sum(),
            _ => 0,
        }
    }

    /// Whether what is beside the application's request is no longer than any that we make. Where signatures are off
    /// nobody looks at proofs, and a batch with a longer one would be larger than a link carries.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let short = match &self.body {
            Body::Open { owner: Some(owner), .. } => owner.certificate.len() <= CERTIFICATE_BYTES_MAX,
            _ => true,
        };
        short && self.proof.as_ref().is_none_or(|proof| proof.is_bounded())
    }

    /// Bytes that it takes beyond [`REQUEST_ENVELOPE_BYTES`](crate::limits::REQUEST_ENVELOPE_BYTES).
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        let body = match &self.body {
            Body::Call(_) | Body::Read(_) => self.call_bytes(),
            Body::Open { owner: Some(owner), .. } => 48 + owner.certificate.len(),
            _ => 0,
        };
        body + self.proof.as_ref().map_or(0, |proof| proof.bytes())
    }
}

/// The ordered outcome of a request: the same on every replica, voted on by the SMaRtClient.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The application's reply.
    Executed(Bytes),
    /// The session is open; its name has this.
    Opened {
        /// Where.
        opened: Opening,
        /// The window that was granted.
        window: u16,
    },
    /// Every number up to the cancel's is settled.
    Settled,
    /// This number was cancelled before it ran: it never will.
    Cancelled,
    /// The session is gone.
    Closed,
    /// Refused by order: not run, and it never will be.
    Refused(Refusal),
    /// The applications of a majority fell silent on it: undone where it ran, and it never will be run (rule 23).
    Aborted,
    /// The application's replies to a [`Body::Read`]: no ordered outcome, but one replica's word.
    Read(Vec<Bytes>),
}

impl Outcome {
    /// Whether a request of that kind can end so.
    #[must_use]
    pub fn fits(&self, kind: Kind) -> bool {
        match self {
            Self::Executed(_) | Self::Cancelled | Self::Aborted => kind == Kind::Call,
            Self::Opened { .. } => kind == Kind::Open,
            Self::Settled => kind == Kind::Cancel,
            Self::Closed => kind == Kind::Close,
            Self::Refused(_) => matches!(kind, Kind::Call | Kind::Open),
            Self::Read(_) => kind == Kind::Read,
        }
    }

    /// Bytes of the application in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Executed(bytes) => bytes.len(),
            Self::Read(replies) => replies.iter().map(Bytes::len).sum(),
            _ => 0,
        }
    }

    /// The hash that is voted on for every outcome but [`Outcome::Executed`], whose form the adapter decides.
    #[must_use]
    pub fn form(&self) -> Digest {
        Digest::of(&super::encode(self))
    }
}

/// Why the order refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Opening: the session table is full of sessions that were active lately.
    #[error("the session table is full of sessions that were active lately")]
    SessionsFull,
    /// The log is as large as it may be.
    #[error("the log is as large as it may be: `lockstep snapshot save` makes room")]
    LogFull,
}
