//! The driver around the SMaRtClient's protocol.

use super::Metrics;
use super::servers::{Servers, Submission};
use super::signers::Signers;
use bytes::Bytes;
use mesh::client::SmartClient;
use mesh::client::smart_client::{Input, Output, Ticket};
use mesh::ids::ReplicaId;
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
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};
use tracing::warn;

/// How long a stream to a server may wait for its answer. The protocol asks again earlier; this gives credit back
/// that a hanging server would keep.
const STREAM_PATIENCE: Duration = Duration::from_secs(10);

/// A server that is not what it should be would fill the log.
static NO_CERTIFICATE: Quiet = Quiet::new();
/// An application that is not deterministic may differ at every request.
static DIFFERS: Quiet = Quiet::new();

/// What the tasks around the protocol tell it.
#[derive(Debug)]
pub(super) enum Event {
    /// A sender asks.
    Ask {
        /// Its stream.
        ticket: Ticket,
        /// The request.
        request: Request,
        /// The sender's patience.
        within: Duration,
        /// Where the answer goes.
        answer: oneshot::Sender<Told>,
        /// Its share of the memory for requests that wait for the driver.
        share: OwnedSemaphorePermit,
    },
    /// The asking stream is gone.
    Gone(Ticket),
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
    /// A server's own word.
    Steer {
        /// Which server.
        from: ReplicaId,
        /// Which request.
        tag: Tag,
        /// Its word.
        steer: Steer,
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
    asked: HashMap<Ticket, (oneshot::Sender<Told>, Instant)>,
    queues: BTreeMap<ReplicaId, mpsc::Sender<Submission>>,
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
        Self { clock, asked: HashMap::new(), queues: BTreeMap::new(), signers, servers, view, metrics, pki }
    }

    fn send(&mut self, now: Instant, to: ReplicaId, submit: Submit) {
        let submission = Submission { submit, until: self.clock.timer(now + STREAM_PATIENCE) };
        // A server that is full or just gone is asked again in the protocol's own time.
        if let Some(queue) = self.queues.get(&to)
            && let Err(mpsc::error::TrySendError::Full(_)) = queue.try_send(submission)
        {
            self.metrics.rejected.count("queue_full");
        }
    }

    fn tell(&mut self, now: Instant, ticket: Ticket, told: Told) {
        let Some((answer, since)) = self.asked.remove(&ticket) else { return };
        if matches!(told, Told::Outcome { outcome: Outcome::Executed(_), .. }) {
            failpoint::reach(Some(&self.pki), failpoint::AFTER_FORWARD_BEFORE_ANSWER);
        }
        let how = match &told {
            // It comes again as a request, and is counted then.
            Told::Unread(_) => {
                let _ = answer.send(told);
                return;
            }
            Told::Outcome { outcome: Outcome::Refused(_) | Outcome::Aborted | Outcome::Cancelled, .. }
            | Told::NothingSent(_) => Ended::Refused,
            Told::Outcome { .. } => Ended::Ok,
            Told::Unknown(_) => Ended::Unknown,
        };
        self.metrics.requests.ended(how, now.since(since));
        let _ = answer.send(told);
    }
}

impl Shell<SmartClient> for Around {
    type Event = Event;

    fn on_event(&mut self, now: Instant, event: Event) -> Option<Input> {
        Some(match event {
            Event::Ask { ticket, request, within, answer, share } => {
                drop(share);
                self.asked.insert(ticket, (answer, now));
                Input::Ask { ticket, request, deadline: now + within }
            }
            Event::Gone(ticket) => {
                self.asked.remove(&ticket)?;
                Input::Gone(ticket)
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
                return None;
            }
            Event::Steer { from, tag, steer } => Input::Steer { from, tag, steer },
            Event::Roster { from, roster } => {
                if !roster.is_bounded() {
                    self.metrics.rejected.count("malformed");
                    warn!(server = %from, "what it says of the other servers is more than can be");
                    return None;
                }
                if !self.servers.hear(from, roster.clone()) {
                    return None;
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
        })
    }

    fn on_output(&mut self, now: Instant, output: Output) {
        match output {
            Output::Send { to, request, whole } => self.send(now, to, Submit { request, whole }),
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
