//! What the clients saw: call and return of every request.

use super::model::{CallId, MapOp};
use bytes::Bytes;
use mesh::client::sender::Answer;

/// One call of a client.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its connection, unique in the run.
    pub connection: u64,
    /// What was asked.
    pub op: MapOp,
    /// When it was called, in steps of the run: a clock that everybody shares.
    pub called: u64,
    /// When and how it ended; `None` if nobody was told.
    pub returned: Option<(u64, Answer)>,
    /// The body is larger than the cluster takes: it can never run.
    pub oversized: bool,
}

impl Call {
    /// The reply, if there was one.
    #[must_use]
    pub fn reply(&self) -> Option<(u64, &Bytes)> {
        match &self.returned {
            Some((at, Answer::Reply(bytes))) => Some((*at, bytes)),
            _ => None,
        }
    }
}

/// Every call of a run; its id is its index.
pub type History = [Call];

/// Looks a call up.
#[must_use]
pub fn find(history: &History, id: CallId) -> Option<&Call> {
    history.get(usize::try_from(id.0).ok()?)
}
