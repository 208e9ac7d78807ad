//! The honest part of its work: the SMaRtClient's protocol between clients and servers, driven as the real one is.

use bytes::Bytes;
use mesh::client::SmartClient;
use mesh::client::smart_client::{Input, Output, Ticket};
use mesh::ids::ReplicaId;
use mesh::net::kept::{Line, Question};
use mesh::node::Clock;
use mesh::node::drive::Shell;
use mesh::time::{Duration, Instant};
use mesh::wire::client::Told;
use mesh::wire::submit::{Answer, FromServer, Reply, Steer, Submit, Vote};
use mesh::wire::{Request, Tag};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{mpsc, oneshot, watch};

/// How long a stream to a server may wait for its answer.
const STREAM_PATIENCE: Duration = Duration::from_secs(10);

/// What the tasks around the protocol tell it.
#[derive(Debug)]
pub(super) enum Event {
    /// A request is to be asked.
    Ask { ticket: Ticket, request: Request, within: Duration, answer: oneshot::Sender<Told> },
    /// Nobody waits for it any more.
    Gone(Ticket),
    /// A server's whole answer.
    Answer(ReplicaId, Answer),
    /// A server's votes.
    Votes(ReplicaId, Vec<Vote>),
    /// A server's own words.
    Steers(ReplicaId, Vec<(Tag, Steer)>),
    /// A link to a server is up.
    Up(ReplicaId, mpsc::Sender<Submission>),
    /// It is gone.
    Down(ReplicaId),
}

/// A request on its way to a server.
#[derive(Debug)]
pub(super) struct Submission {
    submit: Submit,
    whole: bool,
    until: tokio::time::Instant,
}

impl Question for Submission {
    fn tag(&self) -> Tag {
        self.submit.request.tag()
    }
    fn encode(&self) -> Bytes {
        mesh::wire::encode(&self.submit)
    }
    fn until(&self) -> tokio::time::Instant {
        self.until
    }
    fn is_answered(&self) -> bool {
        self.whole
    }
}

/// The servers' signing certificates, as they come in.
pub(super) type Signers = Arc<watch::Sender<BTreeMap<ReplicaId, Bytes>>>;

/// A link to one server.
pub(super) struct ToServer {
    pub(super) id: ReplicaId,
    pub(super) signers: Signers,
}

impl Line for ToServer {
    type Question = Submission;
    type Event = Event;
    fn up(&self, queue: mpsc::Sender<Submission>) -> Event {
        Event::Up(self.id, queue)
    }
    fn down(&self) -> Event {
        Event::Down(self.id)
    }
    fn answered(&self, tag: Tag, answer: Bytes) -> Option<Event> {
        match mesh::wire::decode(&answer).ok()? {
            Reply::Whole(answer) if answer.tag == tag => Some(Event::Answer(self.id, answer)),
            Reply::Whole(_) => None,
            Reply::Steer(steer) => Some(Event::Steers(self.id, vec![(tag, steer)])),
        }
    }
    fn received(&self, message: Bytes) -> Option<Event> {
        match mesh::wire::decode(&message).ok()? {
            FromServer::Votes(votes) => Some(Event::Votes(self.id, votes)),
            FromServer::Signer(certificate) => {
                self.signers.send_modify(|signers| drop(signers.insert(self.id, certificate)));
                None
            }
            FromServer::Steers(steers) => Some(Event::Steers(self.id, steers)),
            // It goes by the list that it was started with.
            FromServer::Roster(_) => None,
        }
    }
}

/// Between the protocol and the links.
pub(super) struct Around {
    clock: Clock,
    asked: HashMap<Ticket, oneshot::Sender<Told>>,
    queues: BTreeMap<ReplicaId, mpsc::Sender<Submission>>,
    has_quorum: Arc<AtomicBool>,
}

impl Around {
    /// Without links. `has_quorum` is kept up to date.
    pub(super) fn new(clock: Clock, has_quorum: Arc<AtomicBool>) -> Self {
        Self { clock, asked: HashMap::new(), queues: BTreeMap::new(), has_quorum }
    }
}

impl Shell<SmartClient> for Around {
    type Event = Event;

    fn on_event(&mut self, now: Instant, event: Event, inputs: &mut Vec<Input>) {
        inputs.push(match event {
            Event::Ask { ticket, request, within, answer } => {
                self.asked.insert(ticket, answer);
                Input::Ask { ticket, request, deadline: now + within }
            }
            Event::Gone(ticket) => {
                let Some(_) = self.asked.remove(&ticket) else { return };
                Input::Gone(ticket)
            }
            Event::Answer(from, answer) => Input::Answer { from, answer },
            Event::Votes(from, votes) => Input::Votes { from, votes },
            Event::Steers(from, steers) => {
                inputs.extend(steers.into_iter().map(|(tag, steer)| Input::Steer { from, tag, steer }));
                return;
            }
            Event::Up(server, queue) => {
                self.queues.insert(server, queue);
                Input::Up(server)
            }
            Event::Down(server) => {
                self.queues.remove(&server);
                Input::Down(server)
            }
        });
    }

    fn on_output(&mut self, now: Instant, output: Output) {
        match output {
            Output::Send { to, request, whole } => {
                let until = self.clock.timer(now + STREAM_PATIENCE);
                if let Some(queue) = self.queues.get(&to) {
                    // Full: the protocol asks again.
                    let _ = queue.try_send(Submission { submit: Submit { request }, whole, until });
                }
            }
            Output::Tell { ticket, told } => {
                if let Some(answer) = self.asked.remove(&ticket) {
                    let _ = answer.send(told);
                }
            }
            Output::Disagreed { .. } | Output::Seated { .. } | Output::Resent | Output::Withheld => {}
        }
    }

    fn after_turn(&mut self, machine: &SmartClient) {
        self.has_quorum.store(machine.has_quorum(), Ordering::Relaxed);
    }
}
