//! A session that its owner keeps: its name, the next number, and the request of that number that may have run.
//!
//! Pure: it makes the requests and reads their ends, and somebody else carries them. The native client's sessions are
//! this, and so are those of the simulator's native clients.

mod error;
mod name;
#[cfg(test)]
mod tests;

pub use error::{InvokeError, NotRun, Unknown};
pub use name::{NameError, SessionName};

use crate::client::sender::{Carried, Refused};
use crate::ids::{ClientId, Seq};
use crate::limits::REQUEST_BYTES_MAX;
use crate::wire::client::Unknown as Told;
use crate::wire::{Body, Outcome, Request};
use bytes::Bytes;

/// What became of a request that was in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It ran, once, and this is its reply.
    Executed(Bytes),
    /// It did not run and never will.
    NotRun(NotRun),
}

/// A session and its numbers. One request at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSession {
    name: SessionName,
    next: Seq,
    /// The request of the number `next`, while it may have run.
    doubt: Option<Bytes>,
    /// Whether a server may have been given a request of that number, here or in an earlier life of the owner.
    unsure: bool,
    /// Whether none had been before the attempt that is being made.
    first_attempt: bool,
}

impl OwnSession {
    /// The session, if it was opened, as [`Request::open`] asks.
    ///
    /// # Errors
    /// It was not, or may have been: nobody knows its name then, and it is evicted in time.
    pub fn opened(client: ClientId, end: Carried) -> Result<Self, InvokeError> {
        match end {
            Carried::Outcome(Outcome::Opened { opened, .. }) => {
                let name = SessionName { client, opened };
                Ok(Self { name, next: Seq(1), doubt: None, unsure: false, first_attempt: true })
            }
            Carried::Outcome(outcome) => Err(without_reply(&outcome)),
            Carried::Refused(why) => Err(NotRun::Refused(why).into()),
            Carried::Unknown(why) => Err(Unknown::from(why).into()),
        }
    }

    /// A session of an earlier life of its owner, which may have sent a request of the number `next`.
    #[must_use]
    pub fn resume(name: SessionName, next: Seq) -> Self {
        Self { name, next, doubt: None, unsure: true, first_attempt: false }
    }

    /// The same, where the owner knows that no request of that number was ever sent.
    #[must_use]
    pub fn resume_settled(name: SessionName, next: Seq) -> Self {
        Self { unsure: false, ..Self::resume(name, next) }
    }

    /// The same, where the owner knows which request that was.
    #[must_use]
    pub fn resume_in_doubt(name: SessionName, seq: Seq, request: Bytes) -> Self {
        Self { doubt: Some(request), ..Self::resume(name, seq) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> SessionName {
        self.name
    }

    /// The number of the request in doubt, or of the next one.
    #[must_use]
    pub fn next(&self) -> Seq {
        self.next
    }

    /// The request that may have run.
    #[must_use]
    pub fn in_doubt(&self) -> Option<&Bytes> {
        self.doubt.as_ref()
    }

    /// The request to carry for a call; its end goes to [`OwnSession::invoked`]. From here on it is in doubt.
    ///
    /// # Errors
    /// Another request is in doubt, or this one is larger than any cluster takes.
    pub fn invoke(&mut self, bytes: Bytes) -> Result<Request, NotRun> {
        if self.doubt.as_ref().is_some_and(|doubt| *doubt != bytes) {
            return Err(NotRun::InDoubt { seq: self.next });
        }
        if bytes.len() > REQUEST_BYTES_MAX {
            return Err(NotRun::TooLarge { bytes: bytes.len() });
        }
        self.first_attempt = !self.unsure;
        self.unsure = true;
        self.doubt = Some(bytes.clone());
        Ok(self.request(Body::Call(bytes)))
    }

    /// The end of the call.
    ///
    /// # Errors
    /// Every end but a reply. After [`InvokeError::Unknown`] the request stays in doubt.
    pub fn invoked(&mut self, end: Carried) -> Result<Bytes, InvokeError> {
        match end {
            Carried::Outcome(Outcome::Executed(reply)) => {
                self.advance();
                Ok(reply)
            }
            Carried::Outcome(outcome) => {
                let error = without_reply(&outcome);
                if matches!(error, InvokeError::NotRun(_)) {
                    self.advance();
                }
                Err(error)
            }
            // Nobody was given it this time; that says nothing of the times before.
            Carried::Refused(why) if !self.first_attempt => Err(Unknown::NotReached(why).into()),
            Carried::Refused(why) => {
                self.doubt = None;
                self.unsure = false;
                Err(NotRun::Refused(why).into())
            }
            Carried::Unknown(why) => Err(Unknown::from(why).into()),
        }
    }

    /// The request that settles the number in doubt (rule 21); its end goes to [`OwnSession::cancelled`]. `None`:
    /// nothing is in doubt.
    #[must_use]
    pub fn cancel(&self) -> Option<Request> {
        self.doubt.as_ref().map(|_| self.request(Body::Cancel))
    }

    /// The number is settled: the request that asks what became of it, whose end goes to [`OwnSession::settled`].
    ///
    /// # Errors
    /// It may not be settled.
    pub fn cancelled(&self, end: Carried) -> Result<Request, Unknown> {
        match (end, &self.doubt) {
            (Carried::Outcome(Outcome::Settled), Some(doubt)) => Ok(self.request(Body::Call(doubt.clone()))),
            (Carried::Outcome(_), _) => Err(Unknown::Disagreement),
            (Carried::Refused(why), _) => Err(Unknown::NotReached(why)),
            (Carried::Unknown(why), _) => Err(why.into()),
        }
    }

    /// What became of the request.
    ///
    /// # Errors
    /// That could not be learned: it stays in doubt.
    pub fn settled(&mut self, end: Carried) -> Result<Settled, Unknown> {
        self.first_attempt = false;
        match self.invoked(end) {
            Ok(reply) => Ok(Settled::Executed(reply)),
            Err(InvokeError::NotRun(why)) => Ok(Settled::NotRun(why)),
            Err(InvokeError::Unknown(why)) => Err(why),
        }
    }

    /// The request that ends the session; its end goes to [`OwnSession::closed`].
    ///
    /// # Errors
    /// A request is in doubt: its outcome would be lost with the session.
    pub fn close(&self) -> Result<Request, NotRun> {
        match self.doubt {
            Some(_) => Err(NotRun::InDoubt { seq: self.next }),
            None => Ok(self.request(Body::Close)),
        }
    }

    /// Whether the session is ended.
    ///
    /// # Errors
    /// It may still live.
    pub fn closed(end: Carried) -> Result<(), InvokeError> {
        match end {
            Carried::Outcome(Outcome::Closed) | Carried::Unknown(Told::SessionGone) => Ok(()),
            Carried::Outcome(_) => Err(Unknown::Disagreement.into()),
            Carried::Refused(why) => Err(NotRun::Refused(why).into()),
            Carried::Unknown(why) => Err(Unknown::from(why).into()),
        }
    }

    fn request(&self, body: Body) -> Request {
        Request { client: self.name.client, opened: self.name.opened, seq: self.next, body, proof: None }
    }

    /// The number has its ordered outcome.
    fn advance(&mut self) {
        self.next = self.next.next();
        self.doubt = None;
        self.unsure = false;
    }
}

/// An ordered outcome that is no reply.
fn without_reply(outcome: &Outcome) -> InvokeError {
    match outcome {
        Outcome::Refused(refusal) => NotRun::Refused(Refused::Ordered(*refusal)).into(),
        Outcome::Cancelled => NotRun::Refused(Refused::Cancelled).into(),
        Outcome::Aborted => NotRun::Refused(Refused::Aborted).into(),
        // Of another kind of request: no server that is whole says so.
        Outcome::Executed(_) | Outcome::Opened { .. } | Outcome::Settled | Outcome::Closed | Outcome::Read(_) => {
            Unknown::Disagreement.into()
        }
    }
}
