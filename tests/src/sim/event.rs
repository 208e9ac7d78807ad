//! What is going to happen, in order of time.

use super::Process;
use super::clock::Time;
use super::crash::Fault;
use bytes::Bytes;
use mesh::client::smart_client::Ticket;
use mesh::config::Configuration;
use mesh::ids::{Ballot, Lsn, ReplicaId, Run, Slot};
use mesh::order::Image;
use mesh::wire::client::{Ask, Told};
use mesh::wire::submit::{Answer, Steer, Vote};
use mesh::wire::transfer::{TransferAnswer, TransferAsk};
use mesh::wire::{Message, Request, Tag};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Counts the lives of a process; what was meant for an earlier one is lost.
pub type Life = u32;

/// Names one life of a link; what was on its way in an earlier one is lost.
pub type Epoch = u32;

/// What a server sends to a SMaRtClient.
#[derive(Clone, Debug)]
pub enum Served {
    /// A whole answer.
    Answer(Answer),
    /// Bundled votes.
    Votes(Vec<Vote>),
    /// A word on a request.
    Steer(Tag, Steer),
}

/// Something that is going to happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message of a replica arrives at another.
    Peer {
        /// Who sent it.
        from: ReplicaId,
        /// In which life of the member.
        member_life: mesh::ids::Life,
        /// Whose.
        to: usize,
        /// In which life of the receiver.
        life: Life,
        /// What.
        message: Message,
        /// With a proposal: the SMaRtClients that wait at its sender for the outcome of each request.
        desks: Vec<Option<usize>>,
    },
    /// A SMaRtClient's request arrives at a server.
    Submit {
        /// Which SMaRtClient.
        smart: usize,
        /// Which server.
        server: usize,
        /// The link's life.
        epoch: Epoch,
        /// The request.
        request: Request,
        /// Whether the whole reply is wanted, or only the vote.
        whole: bool,
    },
    /// A server's answer arrives at a SMaRtClient.
    Served {
        /// Which SMaRtClient.
        smart: usize,
        /// Which server.
        server: usize,
        /// The link's life.
        epoch: Epoch,
        /// The ballot in which the server leads, if it does.
        leads: Option<Ballot>,
        /// The answer.
        served: Served,
    },
    /// A sender's request arrives at a SMaRtClient.
    Ask {
        /// Which sender.
        sender: usize,
        /// Which SMaRtClient.
        smart: usize,
        /// The link's life.
        epoch: Epoch,
        /// The request.
        ask: Ask,
    },
    /// A SMaRtClient's word arrives at a sender.
    Told {
        /// Which sender.
        sender: usize,
        /// Which SMaRtClient.
        smart: usize,
        /// The link's life.
        epoch: Epoch,
        /// Which request.
        tag: Tag,
        /// The word.
        told: Told,
    },
    /// A sender gave a stream up; its SMaRtClient hears of it.
    StreamGone {
        /// Which SMaRtClient.
        smart: usize,
        /// In which life of it.
        life: Life,
        /// The stream.
        ticket: Ticket,
    },
    /// The ends of a link look whether it holds.
    LinkCheck {
        /// Who opens the link.
        client: Process,
        /// Who accepts it.
        server: Process,
    },
    /// A disk has synced.
    Synced {
        /// Whose.
        server: usize,
        /// In which life.
        life: Life,
        /// Up to where.
        upto: Lsn,
    },
    /// A server looks at the requests that came.
    Turn {
        /// Which server.
        server: usize,
        /// In which life.
        life: Life,
    },
    /// An application has executed what is first in its queue.
    AppDone {
        /// Whose.
        server: usize,
        /// In which life of the application.
        life: Life,
    },
    /// An application is in its initial state.
    AppRestored {
        /// Whose.
        server: usize,
        /// In which life of the server.
        life: Life,
        /// The run that begins.
        run: Run,
        /// The snapshot to load.
        snapshot: Option<Slot>,
    },
    /// It turns out whether an application that was left can be used on.
    AppResumed {
        /// Whose.
        server: usize,
        /// In which life of the server.
        life: Life,
        /// The run that begins.
        run: Run,
    },
    /// A call has no answer within the patience, or the application died on it.
    AppSilent {
        /// Whose.
        server: usize,
        /// In which life of the application.
        life: Life,
        /// So many calls of the slot were answered.
        answered: usize,
    },
    /// A snapshot is written.
    Dumped {
        /// Whose.
        server: usize,
        /// In which life of the application.
        life: Life,
        /// What of it is the core's.
        image: Box<Image>,
    },
    /// A question of whoever fetches a snapshot arrives.
    TransferAsk {
        /// Whose snapshot.
        server: usize,
        /// In which life of it.
        life: Life,
        /// Who fetches.
        by: usize,
        /// In which life of it.
        by_life: Life,
        /// The question.
        ask: TransferAsk,
    },
    /// The answer arrives; `None` if there is none to ask.
    TransferAnswer {
        /// Who fetches.
        server: usize,
        /// In which life of it.
        life: Life,
        /// From whom.
        from: ReplicaId,
        /// The question.
        ask: TransferAsk,
        /// The answer.
        answer: Option<TransferAnswer>,
    },
    /// Whoever fetches a snapshot looks what is due.
    TransferDue {
        /// Who.
        server: usize,
        /// In which life of it.
        life: Life,
    },
    /// A fetched snapshot is stored.
    Received {
        /// Whose.
        server: usize,
        /// In which life of it.
        life: Life,
        /// What of it is the core's.
        image: Box<Image>,
        /// The application's part.
        dump: Bytes,
    },
    /// Whoever serves a snapshot looks whether it is still wanted.
    ServingDue {
        /// Who.
        server: usize,
        /// In which life of it.
        life: Life,
        /// By whom.
        by: usize,
    },
    /// An operator looks at the cluster.
    Operator,
    /// A process that waits to be a member asks around.
    Waits {
        /// Which.
        server: usize,
        /// In which life.
        life: Life,
    },
    /// It asks a server what cluster this is.
    WhichCluster {
        /// Whom.
        server: usize,
        /// In which life of it.
        life: Life,
        /// Who asks.
        by: usize,
        /// In which life of it.
        by_life: Life,
    },
    /// The answer arrives.
    Cluster {
        /// Who asked.
        server: usize,
        /// In which life of it.
        life: Life,
        /// Who answers.
        from: usize,
        /// The configuration as that knows it.
        configuration: Box<Configuration>,
    },
    /// One that was removed stops for good.
    Retire {
        /// Which.
        server: usize,
        /// A new one is started in its place.
        replace: bool,
    },
    /// A wrong answer of a run that is over reaches a server; or the news of its loss once more.
    AppStale {
        /// Whose.
        server: usize,
        /// In which life of the server.
        life: Life,
        /// The run.
        run: Run,
        /// The slot; `None` for the news of the loss.
        slot: Option<Slot>,
    },
    /// A process's deadline is due.
    Wake {
        /// Whose.
        process: Process,
        /// In which life.
        life: Life,
    },
    /// A client does something.
    Client {
        /// Whose client.
        sender: usize,
        /// In which life of the sender.
        life: Life,
        /// Which of its clients.
        client: usize,
    },
    /// A native client does something.
    Native {
        /// Whose links it uses.
        sender: usize,
        /// In which life of the sender.
        life: Life,
        /// Which of its native clients.
        native: usize,
    },
    /// A call ought to be answered by now.
    Overdue {
        /// Whose client.
        sender: usize,
        /// In which life of the sender.
        life: Life,
        /// The connection.
        connection: u64,
        /// The call.
        call: crate::check::model::CallId,
    },
    /// A fault strikes.
    Fault(Fault),
    /// A process starts again.
    Start(Process),
    /// A process stops after it was drained.
    Stop(Process, Life),
    /// A partition ends.
    Mend {
        /// Its number.
        partition: u32,
    },
}

#[derive(Debug)]
struct Entry {
    at: Time,
    order: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    // The heap's greatest is what happens first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Queue {
    heap: BinaryHeap<Entry>,
    order: u64,
}

impl Queue {
    /// Adds an event; those of one time happen in the order in which they were added.
    pub fn push(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.heap.push(Entry { at, order: self.order, event });
    }

    /// When the next one is.
    #[must_use]
    pub fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<(Time, Event)> {
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}
