//! How a request ends without a reply: definitely not run, or unknown (rule 22).

use crate::auth::Rejected;
use crate::client::sender::Refused;
use crate::ids::Seq;
use crate::limits::REQUEST_BYTES_MAX;
use crate::wire::client::Unknown as Told;

/// Why a request has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// Definite: it did not run and never will.
    #[error("{0}")]
    NotRun(#[from] NotRun),
    /// It may have run, or may yet run; in a session of its own it stays in doubt.
    #[error("outcome unknown: {0}")]
    Unknown(#[from] Unknown),
}

/// Why a request did not run and never will.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRun {
    /// It is larger than any cluster takes.
    #[error("a request may have {REQUEST_BYTES_MAX} bytes at most; this one has {bytes}; it was not run")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The session has another request in doubt, which must be invoked again or settled first.
    #[error("request {seq} of the session is in doubt and is another one: this one was not run")]
    InDoubt {
        /// The number of the one in doubt.
        seq: Seq,
    },
    /// No server was given it, or it was refused, cancelled or aborted by order.
    #[error("{0}")]
    Refused(Refused),
}

/// Why an outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The deadline passed: too few servers or applications answered, or a number just before this one was never sent.
    #[error("the deadline passed")]
    Deadline,
    /// The number is so far ahead that numbers before it were never sent, or it was sent to servers that are far behind.
    #[error("numbers before it were never sent")]
    OutOfWindow,
    /// The session was closed, or evicted as the one idle for longest, or the cluster is another one. What is in doubt
    /// stays so for ever.
    #[error("the session is gone")]
    SessionGone,
    /// The number is older than the replies that are kept: it was settled once, and how is forgotten.
    #[error("the request is older than the replies that are kept")]
    TooOld,
    /// The number was used with another request.
    #[error("the number was used with another request")]
    OtherBody,
    /// The servers refuse a request of this size.
    #[error("the request is larger than the cluster takes")]
    TooLarge,
    /// The replies of the servers disagree and no majority is left.
    #[error("the replicas' replies disagree")]
    Disagreement,
    /// The servers do not believe that the session's owner made it. What one of them was given with another signature may
    /// have run.
    #[error("the servers do not accept the request: {0}")]
    Rejected(Rejected),
    /// The SMaRtClient, or this client itself, stopped.
    #[error("the SMaRtClient was lost")]
    Lost,
    /// This time no server was given the request; an earlier attempt may have been.
    #[error("no server could be asked what became of it ({cause})", cause = cause(.0))]
    NotReached(Refused),
}

impl From<Told> for Unknown {
    fn from(told: Told) -> Self {
        match told {
            Told::Deadline => Self::Deadline,
            Told::SessionGone => Self::SessionGone,
            Told::TooOld => Self::TooOld,
            Told::OtherBody => Self::OtherBody,
            Told::TooLarge => Self::TooLarge,
            Told::Disagreement => Self::Disagreement,
            Told::Lost => Self::Lost,
            Told::OutOfWindow => Self::OutOfWindow,
            Told::Rejected(why) => Self::Rejected(why),
        }
    }
}

/// The reason without the words that it was not run, which hold for one attempt only.
fn cause(refused: &Refused) -> String {
    let text = refused.to_string();
    text.split_once(';').map_or(text.as_str(), |(cause, _)| cause).to_owned()
}
