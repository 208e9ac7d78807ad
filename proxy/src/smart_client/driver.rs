//! The driver around the SMaRtClient's protocol.

use super::Metrics;
use super::servers::{Servers, Submission};
use super::signers::Signers;
use bytes::Bytes;
use mesh::client::SmartClient;
use mesh::client::running;
use mesh::client::sender::Endpoint;
use mesh::client::smart_client::{Input, Output, Ticket};
use mesh::ids::ReplicaId;
use mesh::net::Link;
use mesh::node::counts::Ended;
use mesh::node::drive::Shell;
use mesh::node::failpoint;
use mesh::node::{Clock, Quiet};
use mesh::time::{Duration, Instant};
use mesh::wire::client::{FromSmartClient, Told};
use mesh::wire::roster::Roster;
use mesh::wire::submit::{Said, Submit, ToServer};
use mesh::wire::{Outcome, Request, Tag};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tracing::{debug, warn};

/// How long a server may take for an answer. The protocol asks again earlier; this makes room again that a hanging server
/// would keep.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of answers that wait for one asker to take them; what is more is dropped, and asked for again.
const UNTAKEN_BYTES: usize = 64 << 20;
/// Bytes of answers in one message, roughly. A larger one has a message of its own, behind which nothing waits.
const ANSWERS_BYTES: usize = 32 << 10;

/// A server that is not what it should be would fill the log.
static NO_CERTIFICATE: Quiet = Quiet::new();
/// An application that is not deterministic may differ at every request.
static DIFFERS: Quiet = Quiet::new();

/// Names an asker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct AskerId(pub(super) u64);

/// How an asker is told.
#[derive(Debug)]
pub(super) enum Way {
    /// Over a link.
    Link(Link),
    /// In this process, as that number.
    Near(mpsc::Sender<running::Event>, Endpoint),
}

/// Who asks, and what it is told at the end of this turn.
#[derive(Debug)]
struct Asker {
    way: Way,
    told: Vec<(Tag, Told)>,
    bytes: usize,
    /// Bytes that it has not taken yet.
    untaken: Arc<AtomicUsize>,
}

impl Asker {
    fn new(way: Way) -> Self {
        Self { way, told: Vec::new(), bytes: 0, untaken: Arc::default() }
    }

    /// Adds an answer to what it is told.
    fn tell(&mut self, tag: Tag, told: Told) {
        let bytes = match &told {
            Told::Outcome { outcome, .. } => outcome.bytes(),
            _ => 0,
        };
        if self.bytes + bytes > ANSWERS_BYTES {
            self.flush();
        }
        self.bytes += bytes;
        self.told.push((tag, told));
    }

    /// Passes on what there is. It may not take it just now: two seconds at most.
    fn flush(&mut self) {
        self.bytes = 0;
        if self.told.is_empty() {
            return;
        }
        let told = std::mem::take(&mut self.told);
        match &self.way {
            Way::Near(events, endpoint) => {
                let event = running::Event::Told { endpoint: *endpoint, told };
                if let Err(mpsc::error::TrySendError::Full(event)) = events.try_send(event) {
                    let events = events.clone();
                    tokio::spawn(async move { events.send(event).await.ok() });
                }
            }
            Way::Link(link) => {
                if let Err(message) = link.send_now(mesh::wire::encode(&FromSmartClient::Told(told))) {
                    self.send_later(link.clone(), message);
                }
            }
        }
    }

    fn send_later(&self, link: Link, message: Bytes) {
        let (bytes, untaken) = (message.len(), self.untaken.clone());
        let waiting = untaken.fetch_add(bytes, Ordering::Relaxed);
        if waiting > 0 && waiting + bytes > UNTAKEN_BYTES {
            untaken.fetch_sub(bytes, Ordering::Relaxed);
            return debug!(id = %link.peer().id, "it takes no answers");
        }
        tokio::spawn(async move {
            if let Err(error) = link.send(message).await {
                debug!(id = %link.peer().id, %error, "an answer could not be passed on");
            }
            untaken.fetch_sub(bytes, Ordering::Relaxed);
        });
    }
}

/// What the tasks around the protocol tell it.
#[derive(Debug)]
pub(super) enum Event {
    /// Somebody may ask from now on.
    Came(AskerId, Way),
    /// It is gone, and waits for nothing any more.
    Went(AskerId),
    /// A sender asks.
    Ask {
        /// The request.
        request: Request,
        /// The sender's patience.
        within: Duration,
        /// Where the answer goes.
        asker: AskerId,
        /// Its share of the memory for requests that wait for the driver, where that is not the asker's own.
        share: Option<OwnedSemaphorePermit>,
    },
    /// What a server has to say on requests.
    Said {
        /// Which server.
        from: ReplicaId,
        /// Its words.
        said: Said,
    },
    /// A server's signing certificate.
    Signer {
        /// Which server.
        from: ReplicaId,
        /// The certificate (DER).
        certificate: Bytes,
    },
    /// A server says who and where the servers are.
    Roster {
        /// Which server.
        from: ReplicaId,
        /// Its word.
        roster: Roster,
    },
    /// A link that is not kept any more is gone.
    Ended(ReplicaId),
    /// A link is up; what is sent over it goes into the queue.
    Up(ReplicaId, mpsc::Sender<Submission>),
    /// A link is gone.
    Down(ReplicaId),
    /// The process is to stop.
    Drain,
}

/// What the admin port and the drain see, as of the driver's last turn.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Whether a majority of the servers is reachable.
    pub(super) has_quorum: AtomicBool,
    /// Requests without an answer.
    pub(super) waiting: AtomicUsize,
    /// Told whenever a turn ends without any.
    emptied: Notify,
    /// Whether the driver took the wish to stop: only then no further request comes.
    draining: AtomicBool,
}

impl View {
    /// Resolves once the driver is draining and nothing waits any more.
    pub(super) async fn idle(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.draining.load(Ordering::Relaxed) && self.waiting.load(Ordering::Relaxed) == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// Between the protocol and the links.
pub(super) struct Around {
    clock: Clock,
    askers: HashMap<AskerId, Asker>,
    /// Those that are told something in this turn.
    answered: Vec<AskerId>,
    /// Who waits for what, since when; and the next ticket.
    asked: HashMap<Ticket, (AskerId, Tag, Instant)>,
    tickets: u64,
    /// Votes on what this process has asked a leader come from all servers to this number.
    desk: u64,
    queues: BTreeMap<ReplicaId, mpsc::Sender<Submission>>,
    /// The request that was sent last, as it was encoded: for its vote, and for its whole reply.
    newest: Option<(Request, [Option<Bytes>; 2])>,
    signers: Signers,
    servers: Servers,
    view: Arc<View>,
    metrics: Metrics,
    /// Where a test may have asked for this process's end.
    pki: PathBuf,
}

impl Around {
    /// Without links that are up.
    pub(super) fn new(
        clock: Clock,
        view: Arc<View>,
        signers: Signers,
        servers: Servers,
        metrics: &Metrics,
        (desk, pki): (u64, &Path),
    ) -> Self {
        let (metrics, pki) = (metrics.clone(), pki.to_owned());
        Self {
            clock,
            askers: HashMap::new(),
            answered: Vec::new(),
            asked: HashMap::new(),
            tickets: 0,
            desk,
            queues: BTreeMap::new(),
            newest: None,
            signers,
            servers,
            view,
            metrics,
            pki,
        }
    }

    fn send(&mut self, now: Instant, to: ReplicaId, request: Request, whole: bool) {
        let asks = whole.then(|| request.tag());
        let submission =
            Submission { asks, message: self.encoded(request, whole), until: self.clock.timer(now + PATIENCE) };
        // A server that is full or just gone is asked again in the protocol's own time.
        if let Some(queue) = self.queues.get(&to)
            && let Err(mpsc::error::TrySendError::Full(_)) = queue.try_send(submission)
        {
            self.metrics.rejected.count("queue_full");
        }
    }

    /// A request on the wire: several servers may get the same, one after the other.
    fn encoded(&mut self, request: Request, whole: bool) -> Bytes {
        if self.newest.as_ref().is_none_or(|(newest, _)| *newest != request) {
            self.newest = Some((request, [None, None]));
        }
        let Some((request, encoded)) = &mut self.newest else { return Bytes::new() };
        let encode = || {
            let within_ms = u32::try_from(PATIENCE.as_millis()).unwrap_or(u32::MAX);
            mesh::wire::encode(&ToServer::Submit(Submit { request: request.clone(), whole, within_ms }))
        };
        encoded[usize::from(whole)].get_or_insert_with(encode).clone()
    }

    fn tell(&mut self, now: Instant, ticket: Ticket, told: Told) {
        let Some((id, tag, since)) = self.asked.remove(&ticket) else { return };
        if matches!(told, Told::Outcome { outcome: Outcome::Executed(_), .. }) {
            failpoint::reach(Some(&self.pki), failpoint::AFTER_FORWARD_BEFORE_ANSWER);
        }
        let how = match &told {
            // It comes again as a request, and is counted then.
            Told::Unread(_) => None,
            Told::Outcome { outcome: Outcome::Refused(_) | Outcome::Aborted | Outcome::Cancelled, .. }
            | Told::NothingSent(_) => Some(Ended::Refused),
            Told::Outcome { .. } => Some(Ended::Ok),
            Told::Unknown(_) => Some(Ended::Unknown),
        };
        if let Some(how) = how {
            self.metrics.requests.ended(how, now.since(since));
        }
        let Some(asker) = self.askers.get_mut(&id) else { return };
        if asker.told.is_empty() {
            self.answered.push(id);
        }
        asker.tell(tag, told);
    }

    /// A link to a server is up: first of all it learns where votes go.
    fn up(&mut self, now: Instant, replica: ReplicaId, queue: mpsc::Sender<Submission>) -> Input {
        let message = mesh::wire::encode(&ToServer::Desk(self.desk));
        let hello = Submission { asks: None, message, until: self.clock.timer(now + PATIENCE) };
        // The queue is new, so there is room.
        let _ = queue.try_send(hello);
        self.queues.insert(replica, queue);
        Input::Up(replica)
    }
}

impl Shell<SmartClient> for Around {
    type Event = Event;

    fn on_event(&mut self, now: Instant, event: Event, inputs: &mut Vec<Input>) {
        inputs.push(match event {
            Event::Came(id, way) => {
                self.askers.insert(id, Asker::new(way));
                return;
            }
            Event::Went(id) => {
                self.askers.remove(&id);
                let of_it = self.asked.extract_if(|_, (asker, ..)| *asker == id);
                inputs.extend(of_it.map(|(ticket, _)| Input::Gone(ticket)));
                return;
            }
            Event::Ask { request, within, asker, share } => {
                drop(share);
                let ticket = Ticket(self.tickets);
                self.tickets += 1;
                self.asked.insert(ticket, (asker, request.tag(), now));
                Input::Ask { ticket, request, deadline: now + within }
            }
            Event::Said { from, said: Said { leads, answers, votes, steers } } => {
                inputs.push(Input::Leads { from, ballot: leads });
                inputs.extend(answers.into_iter().map(|answer| Input::Answer { from, answer }));
                inputs.extend(steers.into_iter().map(|(tag, steer)| Input::Steer { from, tag, steer }));
                inputs.push(Input::Votes { from, votes });
                return;
            }
            Event::Signer { from, certificate } => {
                if !self.signers.show(from, certificate) {
                    self.metrics.rejected.count("malformed");
                    if let Some(suppressed) = NO_CERTIFICATE.may_speak() {
                        warn!(server = %from, suppressed, "what it shows as its signing certificate cannot be one");
                    }
                }
                return;
            }
            Event::Roster { from, roster } => {
                if !roster.is_bounded() {
                    self.metrics.rejected.count("malformed");
                    warn!(server = %from, "what it says of the other servers is more than can be");
                    return;
                }
                if !self.servers.hear(from, roster.clone()) {
                    return;
                }
                Input::Roster { from, roster }
            }
            Event::Ended(replica) => {
                self.queues.remove(&replica);
                self.servers.ended(replica);
                Input::Down(replica)
            }
            Event::Up(replica, queue) => self.up(now, replica, queue),
            Event::Down(replica) => {
                self.queues.remove(&replica);
                Input::Down(replica)
            }
            Event::Drain => {
                self.view.draining.store(true, Ordering::Relaxed);
                Input::Drain
            }
        });
    }

    fn on_output(&mut self, now: Instant, output: Output) {
        match output {
            Output::Send { to, request, whole } => self.send(now, to, request, whole),
            Output::Tell { ticket, told } => self.tell(now, ticket, told),
            Output::Disagreed { replica, tag } => {
                self.metrics.disagreements.count(&replica);
                if let Some(suppressed) = DIFFERS.may_speak() {
                    warn!(%replica, client = %tag.client, seq = %tag.seq, suppressed, "a server's reply differs from the one that won");
                }
            }
            Output::Seated { edition, members } => self.servers.seat(edition, &members),
            Output::Resent => {
                self.metrics.requests.resends.inc();
            }
            Output::Withheld => {
                self.metrics.requests.withheld.inc();
            }
        }
    }

    fn after_turn(&mut self, machine: &SmartClient) {
        for id in self.answered.drain(..) {
            if let Some(asker) = self.askers.get_mut(&id) {
                asker.flush();
            }
        }
        self.view.has_quorum.store(machine.has_quorum(), Ordering::Relaxed);
        self.view.waiting.store(machine.waiting(), Ordering::Relaxed);
        if machine.waiting() == 0 && self.view.draining.load(Ordering::Relaxed) {
            self.view.emptied.notify_waiters();
        }
    }
}
