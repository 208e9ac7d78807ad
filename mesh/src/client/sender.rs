//! The sender's half of exactly-once: sessions, numbers, resends, deadlines, cancels.
//!
//! One [`Sender`] serves a whole ingress, or one native client. It lends sessions of its pool to connections for as
//! long as they have requests outstanding (rule 18), so that a connection's requests run in the order in which they
//! came, and settles unknown outcomes before a session is used again (rule 21).

use crate::time::{Duration, Instant};
use crate::wire::client::{NothingSent, Told, Unknown};
use crate::wire::{Outcome, Request, Tag};
use bytes::Bytes;

/// One client's connection, as the driver numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection(pub u64);

/// One SMaRtClient, as the driver numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint(pub u64);

/// How sessions are given to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lending {
    /// Lent while requests are outstanding: for applications without state per connection.
    Pooled,
    /// One session for each connection from its first request to its end, then closed by order.
    Own,
}

/// Settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// How sessions are given to connections.
    pub lending: Lending,
    /// Requests of one session outstanding at most (k); one at a time is 1.
    pub window: u16,
    /// Sessions at most.
    pub sessions: usize,
    /// Requests accepted and not answered at most, over all connections; further ones are refused.
    pub held: usize,
    /// How long a SMaRtClient has for an answer before the request goes to another one; doubles with each try.
    pub resend: Duration,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client's next request.
    Call {
        /// Its connection. Requests of one connection run, and are answered, in the order of these inputs.
        connection: Connection,
        /// The request.
        bytes: Bytes,
        /// When the client is told, whatever is known then.
        deadline: Instant,
    },
    /// The client is gone. What is outstanding runs to its end, unheard.
    Gone(Connection),
    /// A SMaRtClient's word on a request that was sent to it.
    Told {
        /// Which SMaRtClient.
        endpoint: Endpoint,
        /// Which request.
        tag: Tag,
        /// Its word.
        told: Told,
    },
    /// A link to a SMaRtClient is up.
    Up(Endpoint),
    /// It is gone; what was sent over it goes to another one at once.
    Down(Endpoint),
    /// The deadline passed (or not: harmless).
    Timeout,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The reply.
    Reply(Bytes),
    /// Definite: it did not run and never will (rule 22).
    Refused(Refused),
    /// It may have run, or not.
    Unknown(Unknown),
}

/// Why a call was definitely refused; a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No SMaRtClient could be asked before the deadline.
    #[error("no SMaRtClient reachable; the request was not run")]
    NoSmartClient,
    /// Every SMaRtClient that was asked sent nothing.
    #[error("{0}; the request was not run")]
    NothingSent(NothingSent),
    /// As many requests wait as may.
    #[error("overloaded; the request was not run")]
    Overloaded,
    /// No session came free before the deadline.
    #[error("no session came free in time; the request was not run")]
    NoSession,
    /// An ordered refusal, or the number was cancelled.
    #[error("{0}; the request was not run")]
    Ordered(&'static str),
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask a SMaRtClient.
    Send {
        /// Which.
        endpoint: Endpoint,
        /// The request.
        request: Request,
        /// How long it has.
        within: Duration,
    },
    /// Answer the connection's oldest unanswered call.
    Answer {
        /// Which connection.
        connection: Connection,
        /// How the call ended.
        answer: Answer,
    },
    /// A request went to a further SMaRtClient: counted.
    Resent,
}


/// The sender's protocol.
#[derive(Debug)]
pub struct Sender {}

impl Sender {
    /// One without sessions or links. `seed` draws client ids and choices: it must be unpredictable in production and
    /// never be used twice.
    #[must_use]
    pub fn new(_config: Config, _seed: [u64; 4]) -> Self {
        Self {}
    }
    /// The only door in.
    pub fn step(&mut self, _now: Instant, _input: Input, _out: &mut Vec<Output>) {}
    /// When [`Input::Timeout`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        None
    }
    /// Calls that are not answered yet: the driver stops reading from a connection when this nears the bound.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        0
    }
    /// Calls of one connection that are not answered yet.
    #[must_use]
    pub fn outstanding_of(&self, _connection: Connection) -> usize {
        0
    }
}
