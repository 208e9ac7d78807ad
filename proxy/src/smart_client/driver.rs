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
use mesh::net::Responder;
use mesh::node::counts::Ended;
use mesh::node::drive::Shell;
use mesh::node::failpoint;
use mesh::node::{Clock, Quiet};
use mesh::time::{Duration, Instant};
use mesh::wire::client::Told;
use mesh::wire::roster::Roster;
use mesh::wire::submit::{Answer, Steer, Submit, Vote};
use mesh::wire::{Outcome, Request, Tag};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tracing::{debug, warn};

/// How long a stream to a server may wait for its answer. The protocol asks again earlier; this gives credit back
/// that a hanging server would keep.
const STREAM_PATIENCE: Duration = Duration::from_secs(10);

/// A server that is not what it should be would fill the log.
static NO_CERTIFICATE: Quiet = Quiet::new();
/// An application that is not deterministic may differ at every request.
static DIFFERS: Quiet = Quiet::new();

/// Who waits for an answer.
#[derive(Debug)]
pub(super) enum Asker {
    /// Over a link.
    Stream(Responder),
    /// In this process, as that number.
    Near(mpsc::Sender<running::Event>, Endpoint, Tag),
}

impl Asker {
    /// Passes on what came of its request. It may not take it just now: two seconds at most. Its streams are bounded, and so
    /// is what waits here.
    fn tell(self, told: Told) {
        match self {
            Self::Stream(stream) => {
                if let Err((stream, rest)) = stream.answer_now(mesh::wire::encode(&told)) {
                    tokio::spawn(async move {
                        if let Err(error) = stream.answer(rest).await {
                            debug!(%error, "an answer could not be passed on");
                        }
                    });
                }
            }
            Self::Near(events, endpoint, tag) => {
                let event = running::Event::Told { endpoint, tag, told };
                if let Err(mpsc::error::TrySendError::Full(event)) = events.try_send(event) {
                    tokio::spawn(async move { events.send(event).await.ok() });
                }
            }
        }
    }

    /// Whether nobody waits any more, as far as it is known.
    fn is_gone(&self) -> bool {
        match self {
            Self::Stream(stream) => stream.is_gone(),
            Self::Near(events, ..) => events.is_closed(),
        }
    }
}

/// What the tasks around the protocol tell it.
#[derive(Debug)]
pub(super) enum Event {
    /// A sender asks.
    Ask {
        /// The request.
        request: Request,
        /// The sender's patience.
        within: Duration,
        /// Where the answer goes.
        asker: Asker,
        /// Its share of the memory for requests that wait for the driver, where that is not the asker's own.
        share: Option<OwnedSemaphorePermit>,
    },
    /// Time to look who gave up.
    Sweep,
    /// A server's whole answer.
    Answer {
        /// Which server.
        from: ReplicaId,
        /// Its answer.
        answer: Answer,
    },
    /// A server's votes.
    Votes {
        /// Which server.
        from: ReplicaId,
        /// Its votes.
        votes: Vec<Vote>,
    },
    /// A server's own words.
    Steers {
        /// Which server.
        from: ReplicaId,
        /// On which requests, and what.
        steers: Vec<(Tag, Steer)>,
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
    /// Who waits, since when; and the next ticket.
    asked: HashMap<Ticket, (Asker, Instant)>,
    tickets: u64,
    queues: BTreeMap<ReplicaId, mpsc::Sender<Submission>>,
    /// What was encoded last.
    newest: Option<(Submit, Bytes)>,
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
        pki: &Path,
    ) -> Self {
        let (metrics, pki) = (metrics.clone(), pki.to_owned());
        Self {
            clock,
            asked: HashMap::new(),
            tickets: 0,
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
        let (tag, message) = (request.tag(), self.encoded(request));
        let submission = Submission { tag, message, whole, until: self.clock.timer(now + STREAM_PATIENCE) };
        // A server that is full or just gone is asked again in the protocol's own time.
        if let Some(queue) = self.queues.get(&to)
            && let Err(mpsc::error::TrySendError::Full(_)) = queue.try_send(submission)
        {
            self.metrics.rejected.count("queue_full");
        }
    }

    /// A request on the wire: all servers get the same, one after the other.
    fn encoded(&mut self, request: Request) -> Bytes {
        match &self.newest {
            Some((newest, message)) if newest.request == request => message.clone(),
            _ => {
                let submit = Submit { request };
                let message = mesh::wire::encode(&submit);
                self.newest = Some((submit, message.clone()));
                message
            }
        }
    }

    fn tell(&mut self, now: Instant, ticket: Ticket, told: Told) {
        let Some((asker, since)) = self.asked.remove(&ticket) else { return };
        if matches!(told, Told::Outcome { outcome: Outcome::Executed(_), .. }) {
            failpoint::reach(Some(&self.pki), failpoint::AFTER_FORWARD_BEFORE_ANSWER);
        }
        let how = match &told {
            // It comes again as a request, and is counted then.
            Told::Unread(_) => return asker.tell(told),
            Told::Outcome { outcome: Outcome::Refused(_) | Outcome::Aborted | Outcome::Cancelled, .. }
            | Told::NothingSent(_) => Ended::Refused,
            Told::Outcome { .. } => Ended::Ok,
            Told::Unknown(_) => Ended::Unknown,
        };
        self.metrics.requests.ended(how, now.since(since));
        asker.tell(told);
    }
}

impl Shell<SmartClient> for Around {
    type Event = Event;

    fn on_event(&mut self, now: Instant, event: Event, inputs: &mut Vec<Input>) {
        inputs.push(match event {
            Event::Ask { request, within, asker, share } => {
                drop(share);
                let ticket = Ticket(self.tickets);
                self.tickets += 1;
                self.asked.insert(ticket, (asker, now));
                Input::Ask { ticket, request, deadline: now + within }
            }
            Event::Sweep => {
                inputs.extend(
                    self.asked.extract_if(|_, (asker, _)| asker.is_gone()).map(|(ticket, _)| Input::Gone(ticket)),
                );
                return;
            }
            Event::Answer { from, answer } => Input::Answer { from, answer },
            Event::Votes { from, votes } => Input::Votes { from, votes },
            Event::Signer { from, certificate } => {
                if !self.signers.show(from, certificate) {
                    self.metrics.rejected.count("malformed");
                    if let Some(suppressed) = NO_CERTIFICATE.may_speak() {
                        warn!(server = %from, suppressed, "what it shows as its signing certificate cannot be one");
                    }
                }
                return;
            }
            Event::Steers { from, steers } => {
                inputs.extend(steers.into_iter().map(|(tag, steer)| Input::Steer { from, tag, steer }));
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
            Event::Up(replica, queue) => {
                self.queues.insert(replica, queue);
                Input::Up(replica)
            }
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
        self.view.has_quorum.store(machine.has_quorum(), Ordering::Relaxed);
        self.view.waiting.store(machine.waiting(), Ordering::Relaxed);
        if machine.waiting() == 0 && self.view.draining.load(Ordering::Relaxed) {
            self.view.emptied.notify_waiters();
        }
    }
}
