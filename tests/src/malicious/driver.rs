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
use mesh::wire::submit::{FromServer, Said, Submit, ToServer as Message};
use mesh::wire::{Request, Tag};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{mpsc, oneshot, watch};

/// How long a server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the tasks around the protocol tell it.
#[derive(Debug)]
pub(super) enum Event {
    /// A request is to be asked.
    Ask { ticket: Ticket, request: Request, within: Duration, answer: oneshot::Sender<Told> },
    /// Nobody waits for it any more.
    Gone(Ticket),
    /// What a server has to say on requests.
    Said(ReplicaId, Said),
    /// A link to a server is up.
    Up(ReplicaId, mpsc::Sender<Submission>),
    /// It is gone.
    Down(ReplicaId),
}

/// A request on its way to a server.
#[derive(Debug)]
pub(super) struct Submission {
    submit: Submit,
    until: tokio::time::Instant,
}

impl Question for Submission {
    fn tag(&self) -> Option<Tag> {
        self.submit.whole.then(|| self.submit.request.tag())
    }
    fn encode(&self) -> Bytes {
        mesh::wire::encode(&Message::Submit(self.submit.clone()))
    }
    fn until(&self) -> tokio::time::Instant {
        self.until
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
    fn received(&self, message: Bytes, answered: &mut dyn FnMut(&Tag)) -> Option<Event> {
        match mesh::wire::decode(&message).ok()? {
            FromServer::Said(said) => {
                said.answered().for_each(answered);
                Some(Event::Said(self.id, said))
            }
            FromServer::Signer(certificate) => {
                self.signers.send_modify(|signers| drop(signers.insert(self.id, certificate)));
                None
            }
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
            // It tells the servers no desk, so that it asks all of them whoever leads.
            Event::Said(from, Said { answers, votes, steers, .. }) => {
                inputs.extend(answers.into_iter().map(|answer| Input::Answer { from, answer }));
                inputs.extend(steers.into_iter().map(|(tag, steer)| Input::Steer { from, tag, steer }));
                inputs.push(Input::Votes { from, votes });
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
                let until = self.clock.timer(now + PATIENCE);
                if let Some(queue) = self.queues.get(&to) {
                    // Full: the protocol asks again.
                    let submit = Submit { request, whole, within_ms: PATIENCE.as_millis() as u32 };
                    let _ = queue.try_send(Submission { submit, until });
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
