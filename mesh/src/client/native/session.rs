//! A session of one's own, running.

use super::Client;
use crate::auth::PublicKey;
use crate::client::own::{InvokeError, OwnSession, SessionName, Settled, Unknown};
use crate::ids::Seq;
use bytes::Bytes;
use std::time::Duration;

/// A session of one's own: requests have numbers that the caller can store, and so are executed exactly once even if
/// the caller dies; see the [module](crate::client).
///
/// Dropping it ends nothing on the servers: it can be resumed by its name until it is evicted.
#[derive(Debug)]
pub struct Session {
    client: Client,
    /// What its requests are signed with, whatever new sessions are opened with.
    key: Option<PublicKey>,
    own: OwnSession,
    deadline: Duration,
}

/// A session that could not be closed.
#[derive(Debug, thiserror::Error)]
#[error("the session was not closed: {error}")]
pub struct CloseError {
    /// The session.
    pub session: Box<Session>,
    /// Why not.
    pub error: InvokeError,
}

impl Session {
    pub(super) fn new(client: Client, key: Option<PublicKey>, own: OwnSession) -> Self {
        let deadline = client.inner.deadline;
        Self { client, key, own, deadline }
    }

    /// How long each of its next requests may take; the client's deadline otherwise.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Its name, to be stored.
    #[must_use]
    pub fn name(&self) -> SessionName {
        self.own.name()
    }

    /// The number that the next request has: of the request in doubt, where there is one.
    #[must_use]
    pub fn next(&self) -> Seq {
        self.own.next()
    }

    /// The request whose outcome is not known.
    #[must_use]
    pub fn in_doubt(&self) -> Option<&Bytes> {
        self.own.in_doubt()
    }

    /// Has a request executed under the number [`Session::next`], exactly once.
    ///
    /// After a reply or [`InvokeError::NotRun`] the session is ready for another request. After
    /// [`InvokeError::Unknown`], or when this future was dropped before its end, the request is in doubt: the same
    /// request again asks again under the same number, another one is refused before it is sent, until
    /// [`Session::settle`] has settled the one in doubt.
    ///
    /// # Errors
    /// Definite or unknown: see [`InvokeError`].
    pub async fn invoke(&mut self, request: impl Into<Bytes>) -> Result<Bytes, InvokeError> {
        let request = self.own.invoke(request.into())?;
        let end = self.client.carry(request, self.key, self.deadline).await;
        self.own.invoked(end)
    }

    /// Settles the request in doubt by order: if it has not run by then, it never will. `None`: nothing is in doubt, as
    /// far as this life of the caller knows.
    ///
    /// # Errors
    /// It stays in doubt; with [`Unknown::SessionGone`], [`Unknown::TooOld`] and [`Unknown::OtherBody`] for ever.
    pub async fn settle(&mut self) -> Result<Option<Settled>, Unknown> {
        let Some(cancel) = self.own.cancel() else { return Ok(None) };
        let end = self.client.carry(cancel, self.key, self.deadline).await;
        let question = self.own.cancelled(end)?;
        let end = self.client.carry(question, self.key, self.deadline).await;
        self.own.settled(end).map(Some)
    }

    /// Ends the session by order, which makes room for others. One that is gone already counts as closed.
    ///
    /// # Errors
    /// A request is in doubt, or nobody could be asked: the session is handed back.
    pub async fn close(self) -> Result<(), CloseError> {
        let closed = match self.own.close() {
            Ok(request) => OwnSession::closed(self.client.carry(request, self.key, self.deadline).await),
            Err(why) => Err(why.into()),
        };
        closed.map_err(|error| CloseError { session: Box::new(self), error })
    }
}
