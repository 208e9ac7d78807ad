//! The sender's half of exactly-once: sessions, numbers, resends, deadlines, cancels.
//!
//! One [`Sender`] serves a whole ingress, or one native client. It lends sessions of its pool to connections for as
//! long as they have requests outstanding (rule 18), so that a connection's requests run in the order in which they
//! came, and settles unknown outcomes before a session is used again (rule 21).

use crate::ids::{ClientId, Seq, Slot};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::client::{NothingSent, Told, Unknown};
use crate::wire::{Body, Kind, Outcome, Refusal, Request, Tag};
use bytes::Bytes;
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
    /// A request whose session and number are its owner's business: it is carried to the servers and its end is told,
    /// nothing else. The same request given again while it is on its way only moves the deadline.
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
    /// A carried request ended.
    Carried {
        /// Which.
        tag: Tag,
        /// How.
        end: Carried,
    },
    /// A request went to a further SMaRtClient: counted.
    Resent,
}

/// How often a resend's interval doubles at most.
const DOUBLINGS: u32 = 3;

/// A session of the pool.
#[derive(Debug)]
struct Session {
    /// The slot that opened it; `None` while it is being opened.
    opened: Option<Slot>,
    window: u16,
    /// The next number to give out.
    next: Seq,
    outstanding: BTreeSet<Seq>,
    /// The number up to which an unknown outcome is being settled: no number is given out meanwhile (rule 21).
    settling: Option<Seq>,
    /// The connection it is lent to.
    lent: Option<Connection>,
}

/// A client's connection with calls.
#[derive(Debug, Default)]
struct Client {
    session: Option<ClientId>,
    /// Waits for a session.
    queued: bool,
    calls: VecDeque<Call>,
    /// The number of the first of `calls`.
    first: u64,
    gone: bool,
}

#[derive(Debug)]
enum Call {
    /// Not given to anybody.
    Waiting { bytes: Bytes, deadline: Instant },
    /// A [`Flight`] knows of it.
    Sent,
    /// Ended; it waits for those before it.
    Ended(Answer),
}

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    /// A connection's call of that number.
    Call(Connection, u64),
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
    /// SMaRtClients that were asked and have not answered.
    asked: BTreeSet<Endpoint>,
    /// The one asked last.
    latest: Option<Endpoint>,
    tries: u32,
    /// Whether some attempt may have reached a server.
    unsure: bool,
    /// Why the last attempt that reached no server did not.
    nothing_sent: Option<NothingSent>,
    sent_at: Instant,
    resend_at: Instant,
    /// Its place in the table of timers.
    wake: Instant,
}

/// What is known of a SMaRtClient that is linked.
#[derive(Debug, Default)]
struct Load {
    outstanding: u32,
    /// Smoothed time to an answer, ns.
    latency: u64,
}

/// The sender's protocol.
#[derive(Debug)]
pub struct Sender {
    config: Config,
    ids: Rng,
    choices: Rng,
    endpoints: BTreeMap<Endpoint, Load>,
    clients: BTreeMap<Connection, Client>,
    sessions: BTreeMap<ClientId, Session>,
    /// Sessions that nobody has, the one used last at the end.
    free: Vec<ClientId>,
    /// Connections that wait for a session.
    queue: VecDeque<Connection>,
    flights: BTreeMap<Tag, Flight>,
    wakes: BTreeSet<(Instant, Tag)>,
    /// Deadlines of calls that wait for a session or for room in its window.
    waits: BTreeSet<(Instant, Connection)>,
    outstanding: usize,
    salt: u64,
}

impl Sender {
    /// One without sessions or links. `seed` draws client ids and choices: it must be unpredictable in production and
    /// never be used twice.
    #[must_use]
    pub fn new(config: Config, seed: [u64; 4]) -> Self {
        Self {
            config,
            ids: Rng::from_seed(seed[0] ^ seed[1].rotate_left(32)),
            choices: Rng::from_seed(seed[2]),
            endpoints: BTreeMap::new(),
            clients: BTreeMap::new(),
            sessions: BTreeMap::new(),
            free: Vec::new(),
            queue: VecDeque::new(),
            flights: BTreeMap::new(),
            wakes: BTreeSet::new(),
            waits: BTreeSet::new(),
            outstanding: 0,
            salt: seed[3],
        }
    }

    /// The only door in.
    pub fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Call { connection, bytes, deadline } => self.on_call(now, connection, bytes, deadline, out),
            Input::Carry { request, deadline } => self.on_carry(now, request, deadline, out),
            Input::Drop(tag) => self.on_drop(&tag),
            Input::Gone(connection) => self.on_gone(now, connection, out),
            Input::Told { endpoint, tag, told } => self.on_told(now, endpoint, tag, told, out),
            Input::Up(endpoint) => self.on_up(now, endpoint, out),
            Input::Down(endpoint) => self.on_down(now, endpoint, out),
            Input::Timeout => {}
        }
        self.on_timers(now, out);
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

    fn on_call(
        &mut self,
        now: Instant,
        connection: Connection,
        bytes: Bytes,
        deadline: Instant,
        out: &mut Vec<Output>,
    ) {
        let full = self.outstanding >= self.config.held;
        self.outstanding += 1;
        let client = self.clients.entry(connection).or_default();
        if full {
            client.calls.push_back(Call::Ended(Answer::Refused(Refused::Overloaded)));
            return self.answer(now, connection, out);
        }
        client.calls.push_back(Call::Waiting { bytes, deadline });
        self.serve(now, connection, out);
        if self.clients.get(&connection).is_some_and(Client::has_waiting) {
            self.waits.insert((deadline, connection));
        }
    }

    fn on_carry(&mut self, now: Instant, request: Request, deadline: Instant, out: &mut Vec<Output>) {
        let tag = request.tag();
        match self.flights.get_mut(&tag) {
            Some(flight) if flight.request == request => {
                flight.deadline = Some(deadline);
                self.set_wake(tag);
            }
            Some(_) => out.push(Output::Carried { tag, end: Carried::Unknown(Unknown::OtherBody) }),
            None => self.launch(now, request, Whom::Owner, Some(deadline), out),
        }
    }

    fn on_drop(&mut self, tag: &Tag) {
        if self.flights.get(tag).is_some_and(|flight| flight.whom == Whom::Owner) {
            self.land(tag);
        }
    }

    /// Gives a connection's waiting calls numbers, as far as its session has room; sees to a session first.
    fn serve(&mut self, now: Instant, connection: Connection, out: &mut Vec<Output>) {
        loop {
            let Some(client) = self.clients.get_mut(&connection) else { return };
            let Some(index) = client.calls.iter().position(Call::is_waiting) else { return };
            let Some(id) = client.session else {
                // Earlier calls run in a session that takes no more: theirs first, so that the order is kept.
                if !client.calls.iter().any(Call::is_sent) {
                    self.borrow_session(now, connection, out);
                }
                return;
            };
            let Some(session) = self.sessions.get_mut(&id) else { return };
            let Some(opened) = session.opened.filter(|_| session.has_room()) else { return };
            let call = std::mem::replace(&mut client.calls[index], Call::Sent);
            let Call::Waiting { bytes, deadline } = call else { return };
            let seq = session.next;
            session.next = seq.next();
            session.outstanding.insert(seq);
            let request = Request { client: id, opened, seq, body: Body::Call(bytes) };
            let whom = Whom::Call(connection, client.first + index as u64);
            self.launch(now, request, whom, Some(deadline), out);
        }
    }

    /// Lends a free session to a connection, opens a new one, or lets the connection wait in line.
    fn borrow_session(&mut self, now: Instant, connection: Connection, out: &mut Vec<Output>) {
        if let Some(id) = self.free.pop() {
            self.lend(id, connection);
            return self.serve(now, connection, out);
        }
        let Some(client) = self.clients.get_mut(&connection) else { return };
        if !client.queued {
            client.queued = true;
            self.queue.push_back(connection);
        }
        self.open_sessions(now, out);
    }

    /// As many sessions are on their way as connections wait, and never more than may be.
    fn open_sessions(&mut self, now: Instant, out: &mut Vec<Output>) {
        let opening = self.sessions.values().filter(|session| session.opened.is_none()).count();
        let room = self.config.sessions.saturating_sub(self.sessions.len());
        for _ in 0..self.queue.len().saturating_sub(opening).min(room) {
            self.open_session(now, out);
        }
    }

    fn lend(&mut self, id: ClientId, connection: Connection) {
        if let (Some(session), Some(client)) = (self.sessions.get_mut(&id), self.clients.get_mut(&connection)) {
            session.lent = Some(connection);
            client.session = Some(id);
            client.queued = false;
        }
    }

    fn open_session(&mut self, now: Instant, out: &mut Vec<Output>) {
        let id = ClientId(u128::from(self.ids.next_u64() ^ self.salt) << 64 | u128::from(self.ids.next_u64()));
        let session = Session {
            opened: None,
            window: self.config.window,
            next: Seq(1),
            outstanding: BTreeSet::new(),
            settling: None,
            lent: None,
        };
        self.sessions.insert(id, session);
        let body = Body::Open { window: self.config.window };
        self.launch(now, Request { client: id, opened: Slot(0), seq: Seq(0), body }, Whom::Session, None, out);
    }

    /// A session is nobody's: the next connection in line gets it.
    fn offer(&mut self, now: Instant, id: ClientId, out: &mut Vec<Output>) {
        while let Some(connection) = self.queue.pop_front() {
            if self.clients.get(&connection).is_some_and(|client| client.queued && client.has_waiting()) {
                self.lend(id, connection);
                return self.serve(now, connection, out);
            }
            if let Some(client) = self.clients.get_mut(&connection) {
                client.queued = false;
            }
        }
        self.free.push(id);
    }

    /// Takes a session back from a connection that has nothing outstanding.
    fn take_back(&mut self, now: Instant, connection: Connection, out: &mut Vec<Output>) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        if client.calls.iter().any(Call::is_sent) {
            return;
        }
        let keep = self.config.lending == Lending::Own && !client.gone;
        if let Some(id) = client.session {
            let Some(session) = self.sessions.get_mut(&id) else { return };
            let settling = session.settling.is_some();
            // Its waiting calls run after what is being settled, so that the order is kept.
            if keep || (client.has_waiting() && !client.gone) {
                return;
            }
            client.session = None;
            session.lent = None;
            if !settling {
                self.retire(now, id, out);
            }
        }
        let Some(client) = self.clients.get(&connection) else { return };
        if client.calls.is_empty() {
            self.clients.remove(&connection);
        } else {
            self.serve(now, connection, out);
        }
    }

    /// A session that no connection has and that has nothing to settle: back to the pool, or closed where each
    /// connection has its own.
    fn retire(&mut self, now: Instant, id: ClientId, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.get(&id) else { return };
        let Some(opened) = session.opened else { return };
        match self.config.lending {
            Lending::Pooled => self.offer(now, id, out),
            Lending::Own if session.next == Seq(1) => self.offer(now, id, out),
            Lending::Own => {
                let request = Request { client: id, opened, seq: session.next, body: Body::Close };
                self.launch(now, request, Whom::Session, None, out);
            }
        }
    }

    fn on_gone(&mut self, now: Instant, connection: Connection, out: &mut Vec<Output>) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        client.gone = true;
        client.queued = false;
        let before = client.calls.len();
        client.calls.retain(|call| !call.is_waiting());
        self.outstanding -= before - client.calls.len();
        self.waits.retain(|(_, waiting)| *waiting != connection);
        self.answer(now, connection, out);
        self.take_back(now, connection, out);
    }

    /// Answers a connection's calls as far as they ended, in their order.
    fn answer(&mut self, now: Instant, connection: Connection, out: &mut Vec<Output>) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        while let Some(Call::Ended(_)) = client.calls.front() {
            let Some(Call::Ended(answer)) = client.calls.pop_front() else { return };
            client.first += 1;
            self.outstanding -= 1;
            if !client.gone {
                out.push(Output::Answer { connection, answer });
            }
        }
        self.take_back(now, connection, out);
    }

    fn end_call(&mut self, now: Instant, connection: Connection, number: u64, answer: Answer, out: &mut Vec<Output>) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        let index = usize::try_from(number - client.first).unwrap_or(usize::MAX);
        if let Some(slot) = client.calls.get_mut(index) {
            *slot = Call::Ended(answer);
        }
        self.answer(now, connection, out);
    }

    /// Starts to ask for a request.
    fn launch(&mut self, now: Instant, request: Request, whom: Whom, deadline: Option<Instant>, out: &mut Vec<Output>) {
        let tag = request.tag();
        let flight = Flight {
            request,
            whom,
            deadline,
            asked: BTreeSet::new(),
            latest: None,
            tries: 0,
            unsure: false,
            nothing_sent: None,
            sent_at: now,
            resend_at: now,
            wake: now,
        };
        self.flights.insert(tag, flight);
        self.ask(now, tag, out);
    }

    /// Asks a SMaRtClient, another one than last time if there is one.
    fn ask(&mut self, now: Instant, tag: Tag, out: &mut Vec<Output>) {
        let Some((latest, deadline)) = self.flights.get(&tag).map(|flight| (flight.latest, flight.deadline)) else {
            return;
        };
        // An attempt so late would only leave the outcome in doubt.
        let too_late = deadline.is_some_and(|deadline| deadline.since(now) < self.config.resend / 2);
        let chosen = if too_late && latest.is_some() { None } else { self.choose(latest) };
        let Some(flight) = self.flights.get_mut(&tag) else { return };
        let patience = self.config.resend * (1 << flight.tries.min(DOUBLINGS));
        flight.resend_at = now + patience;
        if let Some(endpoint) = chosen {
            if flight.latest.is_some() {
                out.push(Output::Resent);
            }
            flight.tries += 1;
            flight.latest = Some(endpoint);
            flight.sent_at = now;
            if !flight.asked.insert(endpoint) {
                // Its word on this attempt will say nothing of the one before, which may have reached the servers.
                flight.unsure = true;
            } else if let Some(load) = self.endpoints.get_mut(&endpoint) {
                load.outstanding += 1;
            }
            // Requests that serve the session have no deadline of their own: an attempt lasts until the next one.
            let within = flight.deadline.map_or(patience * 2, |deadline| deadline.since(now));
            out.push(Output::Send { endpoint, request: flight.request.clone(), within });
        }
        self.set_wake(tag);
    }

    /// The less loaded of two that chance picks (Mitzenmacher, "The power of two choices", 2001), avoiding `last`.
    fn choose(&mut self, last: Option<Endpoint>) -> Option<Endpoint> {
        let mut able: Vec<(Endpoint, u64)> = Vec::with_capacity(self.endpoints.len());
        for (endpoint, load) in &self.endpoints {
            able.push((*endpoint, (u64::from(load.outstanding) + 1).saturating_mul(load.latency.max(1))));
        }
        if able.len() > 1 {
            able.retain(|(endpoint, _)| Some(*endpoint) != last);
        }
        let first = self.choices.choose(&able).copied()?;
        let second = self.choices.choose(&able).copied()?;
        Some(if second.1 < first.1 { second.0 } else { first.0 })
    }

    fn on_up(&mut self, now: Instant, endpoint: Endpoint, out: &mut Vec<Output>) {
        self.endpoints.entry(endpoint).or_default();
        let unasked = self.flights.iter().filter(|(_, flight)| flight.asked.is_empty());
        let unasked: Vec<Tag> = unasked.map(|(tag, _)| *tag).collect();
        for tag in unasked {
            self.ask(now, tag, out);
        }
    }

    fn on_down(&mut self, now: Instant, endpoint: Endpoint, out: &mut Vec<Output>) {
        self.endpoints.remove(&endpoint);
        let mut bereft = Vec::new();
        for (tag, flight) in &mut self.flights {
            if flight.asked.remove(&endpoint) {
                // Whether it passed the request on is not known.
                flight.unsure = true;
                if flight.latest == Some(endpoint) {
                    bereft.push(*tag);
                }
            }
        }
        for tag in bereft {
            self.ask(now, tag, out);
        }
    }

    fn on_told(&mut self, now: Instant, endpoint: Endpoint, tag: Tag, told: Told, out: &mut Vec<Output>) {
        let Some(flight) = self.flights.get_mut(&tag) else { return };
        if flight.asked.remove(&endpoint)
            && let Some(load) = self.endpoints.get_mut(&endpoint)
        {
            load.outstanding = load.outstanding.saturating_sub(1);
            let took = u64::try_from(now.since(flight.sent_at).as_nanos()).unwrap_or(u64::MAX);
            load.latency = load.latency - load.latency / 8 + took / 8;
        }
        match told {
            Told::Outcome(outcome) => self.on_outcome(now, tag, outcome, out),
            Told::NothingSent(reason) => {
                flight.nothing_sent = Some(reason);
                self.retry_soon(now, tag);
            }
            Told::Unknown(Unknown::Deadline | Unknown::Lost) => {
                flight.unsure = true;
                self.retry_soon(now, tag);
            }
            Told::Unknown(reason) => self.on_lost(now, tag, reason, out),
        }
    }

    /// An attempt came to nothing: the next one follows after a breath, not at once, so that refusals do not spin.
    fn retry_soon(&mut self, now: Instant, tag: Tag) {
        let Some(flight) = self.flights.get_mut(&tag) else { return };
        flight.resend_at = flight.resend_at.min(now + self.config.resend / 4);
        self.set_wake(tag);
    }

    fn land(&mut self, tag: &Tag) -> Option<Flight> {
        let flight = self.flights.remove(tag)?;
        self.wakes.remove(&(flight.wake, *tag));
        for endpoint in &flight.asked {
            if let Some(load) = self.endpoints.get_mut(endpoint) {
                load.outstanding = load.outstanding.saturating_sub(1);
            }
        }
        if tag.kind == Kind::Call
            && let Some(session) = self.sessions.get_mut(&tag.client)
        {
            session.outstanding.remove(&tag.seq);
        }
        Some(flight)
    }

    /// The ordered outcome of a request.
    fn on_outcome(&mut self, now: Instant, tag: Tag, outcome: Outcome, out: &mut Vec<Output>) {
        let ours = self.flights.get(&tag).is_some_and(|flight| flight.whom == Whom::Session);
        if ours && tag.kind == Kind::Open && !matches!(outcome, Outcome::Opened { .. }) && !self.queue.is_empty() {
            // The table is full of sessions that were active lately: that passes, and connections wait.
            return self.retry_soon(now, tag);
        }
        let Some(flight) = self.land(&tag) else { return };
        if flight.whom == Whom::Owner {
            return out.push(Output::Carried { tag, end: Carried::Outcome(outcome) });
        }
        match (tag.kind, outcome) {
            (Kind::Call, outcome) => {
                let answer = match outcome {
                    Outcome::Executed(bytes) => Answer::Reply(bytes),
                    Outcome::Refused(refusal) => Answer::Refused(Refused::Ordered(refusal)),
                    Outcome::Aborted => Answer::Refused(Refused::Aborted),
                    _ => Answer::Refused(Refused::Cancelled),
                };
                if let Whom::Call(connection, number) = flight.whom {
                    self.end_call(now, connection, number, answer, out);
                    self.serve(now, connection, out);
                }
            }
            (Kind::Open, Outcome::Opened { opened, window }) => {
                if let Some(session) = self.sessions.get_mut(&tag.client) {
                    session.opened = Some(opened);
                    session.window = window.min(session.window);
                    self.offer(now, tag.client, out);
                }
            }
            (Kind::Open | Kind::Close, _) => self.drop_session(now, tag.client, out),
            (Kind::Cancel, _) => self.on_settled(now, tag, out),
        }
    }

    /// What may have run or not was settled: the session can be used again.
    fn on_settled(&mut self, now: Instant, tag: Tag, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.get_mut(&tag.client) else { return };
        let newest = Seq(session.next.0 - 1);
        if newest > tag.seq {
            return self.settle(now, tag.client, out);
        }
        session.settling = None;
        match session.lent {
            Some(connection) => {
                self.serve(now, connection, out);
                self.take_back(now, connection, out);
            }
            None => self.retire(now, tag.client, out),
        }
    }

    /// Settles everything that the session has outstanding (rule 21).
    fn settle(&mut self, now: Instant, id: ClientId, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(opened) = session.opened else { return };
        let seq = Seq(session.next.0 - 1);
        if session.settling != Some(seq) {
            session.settling = Some(seq);
            self.launch(now, Request { client: id, opened, seq, body: Body::Cancel }, Whom::Session, None, out);
        }
    }

    /// The request's outcome cannot be learned any more.
    fn on_lost(&mut self, now: Instant, tag: Tag, reason: Unknown, out: &mut Vec<Output>) {
        if self.flights.get(&tag).is_some_and(|flight| flight.whom == Whom::Owner) {
            self.land(&tag);
            out.push(Output::Carried { tag, end: Carried::Unknown(reason) });
        } else if tag.kind == Kind::Call {
            let session_gone = reason == Unknown::SessionGone;
            let Some(flight) = self.land(&tag) else { return };
            if session_gone {
                self.drop_session(now, tag.client, out);
            } else {
                self.settle(now, tag.client, out);
            }
            if let Whom::Call(connection, number) = flight.whom {
                self.end_call(now, connection, number, Answer::Unknown(reason), out);
            }
        } else if reason == Unknown::SessionGone && tag.kind != Kind::Open {
            self.land(&tag);
            let lent = self.sessions.get(&tag.client).and_then(|session| session.lent);
            self.drop_session(now, tag.client, out);
            if let Some(connection) = lent {
                self.serve(now, connection, out);
                self.take_back(now, connection, out);
            }
        } else {
            self.retry_soon(now, tag);
        }
    }

    /// A session is gone: that makes room for another one.
    fn drop_session(&mut self, now: Instant, id: ClientId, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.free.retain(|free| *free != id);
        if let Some(client) = session.lent.and_then(|connection| self.clients.get_mut(&connection)) {
            client.session = None;
        }
        self.open_sessions(now, out);
    }

    fn set_wake(&mut self, tag: Tag) {
        let Some(flight) = self.flights.get_mut(&tag) else { return };
        let wake = flight.deadline.map_or(flight.resend_at, |deadline| deadline.min(flight.resend_at));
        self.wakes.remove(&(flight.wake, tag));
        flight.wake = wake;
        self.wakes.insert((wake, tag));
    }

    fn on_timers(&mut self, now: Instant, out: &mut Vec<Output>) {
        while let Some((_, tag)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            let overdue = |flight: &Flight| flight.deadline.is_some_and(|deadline| deadline <= now);
            if self.flights.get(&tag).is_some_and(overdue) {
                self.on_deadline(now, tag, out);
            } else {
                self.ask(now, tag, out);
            }
        }
        while let Some((at, connection)) = self.waits.first().copied().filter(|(at, _)| *at <= now) {
            self.waits.remove(&(at, connection));
            self.on_wait_over(now, connection, out);
        }
    }

    /// A call's deadline passed: definite if no server can have been given it, unknown otherwise (rule 22).
    fn on_deadline(&mut self, now: Instant, tag: Tag, out: &mut Vec<Output>) {
        let Some(flight) = self.land(&tag) else { return };
        let sent_nothing = !flight.unsure && flight.asked.is_empty();
        let refused = flight.nothing_sent.map_or(Refused::NoSmartClient, Refused::NothingSent);
        match flight.whom {
            Whom::Owner => {
                let unknown = Carried::Unknown(Unknown::Deadline);
                let end = if sent_nothing { Carried::Refused(refused) } else { unknown };
                out.push(Output::Carried { tag, end });
            }
            Whom::Call(connection, number) => {
                // Even where nothing was sent the number was given out, and the next one must not leave a gap.
                self.settle(now, tag.client, out);
                let unknown = Answer::Unknown(Unknown::Deadline);
                let answer = if sent_nothing { Answer::Refused(refused) } else { unknown };
                self.end_call(now, connection, number, answer, out);
            }
            Whom::Session => {}
        }
    }

    /// Calls that were given to nobody in time are refused.
    fn on_wait_over(&mut self, now: Instant, connection: Connection, out: &mut Vec<Output>) {
        let linked = !self.endpoints.is_empty();
        // Why sessions do not come: the servers' state, if a SMaRtClient told of it.
        let reason = self.flights.values().find_map(|flight| flight.nothing_sent);
        let unanswered = self.flights.keys().any(|tag| matches!(tag.kind, Kind::Open | Kind::Cancel));
        let Some(client) = self.clients.get_mut(&connection) else { return };
        for call in &mut client.calls {
            if matches!(call, Call::Waiting { deadline, .. } if *deadline <= now) {
                let refused = match reason {
                    _ if !linked => Refused::NoSmartClient,
                    Some(reason) => Refused::NothingSent(reason),
                    None if unanswered => Refused::NoAnswer,
                    None => Refused::NoSession,
                };
                *call = Call::Ended(Answer::Refused(refused));
            }
        }
        self.answer(now, connection, out);
    }
}

impl Session {
    /// Whether a further number may be given out.
    fn has_room(&self) -> bool {
        let spread = self.outstanding.first().map_or(0, |first| self.next.0 - first.0);
        self.settling.is_none() && spread < u64::from(self.window)
    }
}

impl Client {
    fn has_waiting(&self) -> bool {
        self.calls.iter().any(Call::is_waiting)
    }
}

impl Call {
    fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting { .. })
    }

    fn is_sent(&self) -> bool {
        matches!(self, Self::Sent)
    }
}
