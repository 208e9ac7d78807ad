//! The sender's half of exactly-once: sessions, numbers, resends, deadlines, cancels.
//!
//! One [`Sender`] serves a whole ingress, or one native client. It lends sessions of its pool to connections for as
//! long as they have requests outstanding (rule 18), so that a connection's requests run in the order in which they
//! came, and settles unknown outcomes before a session is used again (rule 21).

mod calls;
mod endpoints;
mod flights;
mod names;
mod pace;
mod pool;
mod reads;

use super::budget::Budget;
use crate::auth::{Owner, PublicKey};
use crate::ids::{ClientId, Opening, Seq};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::client::{NothingSent, Told, Unknown};
use crate::wire::{Outcome, Refusal, Request, Tag};
use bytes::Bytes;
use endpoints::Endpoints;
use names::Names;
use pace::Pace;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

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
    /// Requests that may be in flight whatever the rate of answers. More are as that rate allows; the others wait, and
    /// connections take turns.
    pub in_flight: usize,
    /// What is in flight should be answered within this, at the rate at which answers come.
    pub within: Duration,
    /// Numbers of a session that a connection may use before it lends it to the next one that waits for a session.
    pub turn: u32,
    /// How long a SMaRtClient has for an answer before the request goes to another one; doubles with each try.
    pub resend: Duration,
    /// Resends that the retry budget saves up at most ([`super::RESENDS_SAVED`]).
    pub resends_saved: u32,
    /// Whether SMaRtClients may lie: then "nothing sent" is not definite (rule 22).
    pub doubts: bool,
    /// Whether reads are asked past the log (rule 32): of pooled sessions only, and not where requests are signed.
    pub reads: bool,
}

impl Config {
    /// What ships, for calls that may take `deadline`.
    #[must_use]
    pub fn new(lending: Lending, window: u16, sessions: usize, held: usize, deadline: Duration) -> Self {
        Self {
            lending,
            window,
            sessions,
            held,
            in_flight: 64,
            // What is in flight runs even if its client has given up: it should be answered long before.
            within: deadline / 4,
            turn: 256,
            resend: Duration::from_secs(1),
            resends_saved: super::RESENDS_SAVED,
            doubts: false,
            reads: false,
        }
    }
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
        /// By the adapter it changes nothing, and may be asked past the log. Each replica judges that for itself.
        read: bool,
        /// When the client is told, whatever is known then.
        deadline: Instant,
    },
    /// A request whose session and number are its owner's business: it is carried to the servers and its end is told,
    /// nothing else. The same request given again while it is on its way moves the deadline. Its owner must remember that
    /// its outcome was unknown once: a later end may be definite for the later attempts alone.
    Carry {
        /// The request.
        request: Request,
        /// When its owner is told, whatever is known then.
        deadline: Instant,
    },
    /// Nobody waits for a carried request any more.
    Drop(Tag),
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
    /// A SMaRtClient says something final that it cannot prove: others are asked whether they say the same.
    Doubted {
        /// Which SMaRtClient.
        endpoint: Endpoint,
        /// Which request.
        tag: Tag,
    },
    /// A SMaRtClient altered an answer or made it up: that is proved, so it is left alone, and another one is asked at once.
    Lied {
        /// Which SMaRtClient.
        endpoint: Endpoint,
        /// Which request.
        tag: Tag,
    },
    /// A SMaRtClient is about to stop, and wants no further requests; or it stays after all. What it has it still answers.
    Leaving {
        /// Which SMaRtClient.
        endpoint: Endpoint,
        /// Whether it is.
        leaving: bool,
    },
    /// A link to a SMaRtClient is up.
    Up(Endpoint),
    /// It is gone; what was sent over it goes to another one at once.
    Down(Endpoint),
    /// Who opens sessions from now on.
    Signer(Card),
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

/// How a carried request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// By order: its outcome, whatever it is.
    Outcome(Outcome),
    /// Definite: no server was given it (rule 22).
    Refused(Refused),
    /// It may have run, or may yet run.
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
    /// The servers did not answer in time even to open or settle a session.
    #[error("no quorum: too few servers answered in time; the request was not run")]
    NoAnswer,
    /// No session came free before the deadline.
    #[error("no session came free in time; the request was not run")]
    NoSession,
    /// The connection has a session of its own, and an earlier request of it did not end with a reply.
    #[error("an earlier request of this connection has no reply; the request was not run")]
    Broken,
    /// An ordered refusal.
    #[error("{0}; the request was not run")]
    Ordered(Refusal),
    /// Its number was cancelled before it ran.
    #[error("the request was cancelled; it was not run")]
    Cancelled,
    /// It was aborted by order (rule 23).
    #[error(
        "the application did not answer this request in time, or died on it, on a majority of the servers; it was undone \
         and will not be run"
    )]
    Aborted,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask a SMaRtClient.
    Send {
        /// Which.
        endpoint: Endpoint,
        /// The request, which is to be signed where there is a key.
        request: Request,
        /// The key of its session, where the session is of the pool and has one.
        key: Option<PublicKey>,
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
    /// A carried request ended.
    Carried {
        /// Which.
        tag: Tag,
        /// How.
        end: Carried,
    },
    /// A request went to a further SMaRtClient: counted.
    Resent,
    /// A request did not, because the retry budget is spent: counted.
    Withheld,
    /// Reads past the log ended, with an answer or not: counted.
    Read {
        /// Whether they have an answer; else they go through the log.
        answered: bool,
    },
}

/// What a signer shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its key.
    pub key: PublicKey,
    /// Its certificate (DER).
    pub certificate: Bytes,
}

impl Card {
    /// As the owner of a session, whose client id is made of the nonce.
    #[must_use]
    pub fn owner(&self, nonce: u128) -> Owner {
        Owner { key: self.key, nonce, certificate: self.certificate.clone() }
    }
}

/// A session of the pool.
#[derive(Debug)]
struct Session {
    /// Where it was opened; `None` while it is being opened.
    opened: Option<Opening>,
    /// The key that its requests are signed with.
    key: Option<PublicKey>,
    window: u16,
    /// The next number to give out.
    next: Seq,
    outstanding: BTreeSet<Seq>,
    /// The number up to which an unknown outcome is being settled: no number is given out meanwhile (rule 21).
    settling: Option<Seq>,
    /// The connection it is lent to.
    lent: Option<Connection>,
    /// Numbers given out since it was lent.
    given: u32,
}

/// A client's connection with calls.
#[derive(Debug, Default)]
struct Client {
    session: Option<ClientId>,
    /// Waits for a session: its place in the queue.
    queued: Option<u64>,
    /// Waits for its turn to send.
    in_line: bool,
    /// Its entry in the table of waits.
    wait: Option<Instant>,
    calls: VecDeque<Call>,
    /// The number of the first of `calls`.
    first: u64,
    gone: bool,
    /// Its own session may lack what an earlier call was to do: no further one is sent.
    broken: bool,
}

#[derive(Debug)]
enum Call {
    /// Not given to anybody.
    Waiting { bytes: Bytes, deadline: Instant, read: bool },
    /// A [`Flight`] knows of it.
    Sent,
    /// The same, past the log: nothing else of the connection is sent meanwhile.
    Reading { deadline: Instant },
    /// Ended; it waits for those before it.
    Ended(Answer),
}

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    /// A connection's call of that number.
    Call(Connection, u64),
    /// A connection's reads, from the call of that number on.
    Reads(Connection, u64),
    /// A session of ours: it is opened, settled or closed.
    Session,
    /// Whoever had it carried.
    Owner,
}

/// A request that is being asked.
#[derive(Debug)]
struct Flight {
    request: Request,
    whom: Whom,
    deadline: Option<Instant>,
    /// Attempts that were not answered: over which SMaRtClient, and since when; the oldest first.
    asked: Vec<(Endpoint, Instant)>,
    /// The one asked last.
    latest: Option<Endpoint>,
    /// Whether that one's time has run out.
    blamed: bool,
    tries: u32,
    /// Whether some attempt may have reached a server.
    unsure: bool,
    /// Why the last attempt that reached no server did not.
    nothing_sent: Option<NothingSent>,
    launched: Instant,
    resend_at: Instant,
    /// Its place in the table of timers.
    wake: Instant,
}

/// The sender's protocol.
#[derive(Debug)]
pub struct Sender {
    config: Config,
    ids: Names,
    choices: Rng,
    /// Who opens sessions; nobody without signatures.
    signer: Option<Card>,
    endpoints: Endpoints,
    clients: BTreeMap<Connection, Client>,
    sessions: BTreeMap<ClientId, Session>,
    /// Sessions that nobody has, the one used last at the end.
    free: Vec<ClientId>,
    /// Connections that wait for a session, by their places.
    queue: BTreeMap<u64, Connection>,
    /// The next place in it.
    next_place: u64,
    flights: BTreeMap<Tag, Flight>,
    wakes: BTreeSet<(Instant, Tag)>,
    /// Requests of connections among them.
    in_flight: usize,
    /// Requests that open, settle and close sessions among them.
    serving: usize,
    /// Sessions that are being opened.
    opening: usize,
    /// What the newest attempt came to, if it reached no server.
    nothing_sent: Option<NothingSent>,
    pace: Pace,
    budget: Budget,
    /// Whether somebody stands in line, or stood until this turn's end.
    lined: bool,
    /// Connections that could send if it were their turn.
    line: VecDeque<Connection>,
    /// Each connection's first deadline of a call that was not sent.
    waits: BTreeSet<(Instant, Connection)>,
    outstanding: usize,
    /// Names reads, which have no session, with a number.
    reader: ClientId,
    reads_asked: u64,
    /// Reads go through the log until then.
    reads_rest: Instant,
}

impl Sender {
    /// One without sessions or links. `seed` draws client ids and choices: it must be unpredictable in production and
    /// never be used twice.
    #[must_use]
    pub fn new(config: Config, seed: [u64; 4]) -> Self {
        let mut ids = Names::new(seed);
        Self {
            reader: ClientId::unowned(ids.next()),
            reads_asked: 0,
            reads_rest: Instant::ZERO,
            pace: Pace::new(config.in_flight, config.within),
            budget: Budget::new(config.resends_saved),
            config,
            ids,
            choices: Rng::from_seed(seed[2]),
            signer: None,
            endpoints: Endpoints::default(),
            clients: BTreeMap::new(),
            sessions: BTreeMap::new(),
            free: Vec::new(),
            queue: BTreeMap::new(),
            next_place: 0,
            flights: BTreeMap::new(),
            wakes: BTreeSet::new(),
            in_flight: 0,
            serving: 0,
            opening: 0,
            nothing_sent: None,
            lined: false,
            line: VecDeque::new(),
            waits: BTreeSet::new(),
            outstanding: 0,
        }
    }

    /// The only door in.
    pub fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Call { connection, bytes, read, deadline } => {
                self.on_call(now, connection, Call::Waiting { bytes, deadline, read }, deadline, out);
            }
            Input::Carry { request, deadline } => self.on_carry(now, request, deadline, out),
            Input::Drop(tag) => self.on_drop(&tag),
            Input::Gone(connection) => self.on_gone(now, connection, out),
            Input::Told { endpoint, tag, told } => self.on_told(now, endpoint, tag, told, out),
            Input::Doubted { endpoint, tag } => self.on_doubted(now, endpoint, tag),
            Input::Lied { endpoint, tag } => self.on_lied(now, endpoint, tag, out),
            Input::Leaving { endpoint, leaving } => self.endpoints.leaving(endpoint, leaving),
            Input::Up(endpoint) => self.on_up(now, endpoint, out),
            Input::Down(endpoint) => self.on_down(now, endpoint, out),
            Input::Signer(card) => self.on_signer(now, card, out),
            Input::Timeout => {}
        }
        self.on_timers(now, out);
        self.take_turns(now, out);
        let no_session = !self.queue.is_empty() && self.free.is_empty() && self.sessions.len() >= self.config.sessions;
        self.pace.note(now, no_session || !self.line.is_empty());
    }

    /// When [`Input::Timeout`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let flight = self.wakes.first().map(|(at, _)| *at);
        let wait = self.waits.first().map(|(at, _)| *at);
        flight.into_iter().chain(wait).min()
    }

    /// Calls that are not answered yet: the driver stops reading from a connection when this nears the bound.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Calls of one connection that are not answered yet.
    #[must_use]
    pub fn outstanding_of(&self, connection: Connection) -> usize {
        self.clients.get(&connection).map_or(0, |client| client.calls.len())
    }

    /// SMaRtClients that are linked and not ejected.
    #[must_use]
    pub fn ready(&self) -> &[Endpoint] {
        self.endpoints.ready()
    }

    /// SMaRtClients that are linked and left alone for a while, because they failed while others answered.
    pub fn ejected(&self) -> impl Iterator<Item = Endpoint> + '_ {
        self.endpoints.ejected()
    }

    /// Changes whenever one of the two does.
    #[must_use]
    pub fn standings(&self) -> u64 {
        self.endpoints.changes()
    }
}
