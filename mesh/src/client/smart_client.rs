//! The SMaRtClient: sends each request to the servers, collects their votes, and answers with the outcome that won.
//!
//! It keeps nothing that matters: whatever it forgets, the sender asks again.

use crate::ids::ReplicaId;
use crate::time::{Duration, Instant};
use crate::wire::client::Told;
use crate::wire::submit::{Answer, Steer, Vote};
use crate::wire::{Request, Tag};
use super::ReplyVote;

/// Names one waiting stream of the driver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The servers with an application, in order of their ids: the electorate (rule 29).
    pub servers: Vec<ReplicaId>,
    /// How many equal replies make an answer.
    pub vote: ReplyVote,
    /// When servers that have not answered are asked again; doubles up to eight times that.
    pub resend: Duration,
    /// How long before the sender's deadline an unsent request is given back, so that the sender still hears of it.
    pub margin: Duration,
    /// Requests held at most.
    pub held: usize,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A sender asks. The same request may be asked again, by another stream: both get the answer.
    Ask {
        /// Whom to tell.
        ticket: Ticket,
        /// The request.
        request: Request,
        /// When the sender gives up.
        deadline: Instant,
    },
    /// The asking stream is gone: nobody is to be told.
    Gone(Ticket),
    /// A server's whole answer.
    Answer {
        /// Which server.
        from: ReplicaId,
        /// Its answer.
        answer: Answer,
    },
    /// Votes of a server.
    Votes {
        /// Which server.
        from: ReplicaId,
        /// Its votes.
        votes: Vec<Vote>,
    },
    /// A server's own word on a request.
    Steer {
        /// Which server.
        from: ReplicaId,
        /// Which request.
        tag: Tag,
        /// Its word.
        steer: Steer,
    },
    /// A link to a server is up (again): what waits is sent to it.
    Up(ReplicaId),
    /// The link to a server is gone.
    Down(ReplicaId),
    /// No new requests: give unsent ones back.
    Drain,
    /// The deadline passed (or not: harmless).
    Timeout,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a request to a server.
    Send {
        /// Which server.
        to: ReplicaId,
        /// The request.
        request: Request,
        /// Whether it shall send the whole reply.
        whole: bool,
    },
    /// Answer a sender.
    Tell {
        /// Whom.
        ticket: Ticket,
        /// What.
        told: Told,
    },
    /// A server's vote differs from the outcome that won: counted, an alarm.
    Disagreed {
        /// Which server.
        replica: ReplicaId,
        /// Which request.
        tag: Tag,
    },
    /// A request was sent again to servers that had not answered: counted.
    Resent,
}

/// The SMaRtClient's protocol.
#[derive(Debug)]
pub struct SmartClient {}

impl SmartClient {
    /// One that has no link yet.
    #[must_use]
    pub fn new(_config: Config) -> Self {
        Self {}
    }
    /// The only door in.
    pub fn step(&mut self, _now: Instant, _input: Input, _out: &mut Vec<Output>) {}
    /// When [`Input::Timeout`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        None
    }
    /// Requests that wait for an answer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        0
    }
    /// Whether a majority of the servers is reachable.
    #[must_use]
    pub fn has_quorum(&self) -> bool {
        false
    }
}
