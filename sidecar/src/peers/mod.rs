//! Links to the other members: a bounded outbox each, drained by a task each; what comes in goes to the driver.
//!
//! Losing a message is harmless, holding up the driver is not: an outbox that is full, or whose peer has no link, drops.

mod task;

use crate::budget::{Budget, Share};
use crate::metrics::{Metrics, Peer};
use crate::transfer::Server;
use bytes::Bytes;
use mesh::ids::{Generation, Life, ReplicaId};
use mesh::net::{Endpoint, Link, RefusalReason};
use mesh::order::To;
use mesh::wire::peer::{Message, PeerFrame};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{mpsc, watch};

/// Messages in one outbox.
const OUTBOX_MESSAGES: usize = 4096;
/// Bytes in one outbox.
const OUTBOX_BYTES: usize = 64 << 20;
/// Frames of all peers that wait for the driver.
const INBOX_FRAMES: usize = 1024;
/// Bytes of them.
const INBOX_BYTES: usize = 64 << 20;
/// Links that wait to be taken over by a peer's task.
const LINKS: usize = 8;

/// What a peer sent.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// Who: the identity of the link's certificate.
    pub(crate) from: ReplicaId,
    /// What.
    pub(crate) frame: PeerFrame,
    /// Its share of the memory for frames that wait.
    pub(crate) share: Share,
}

/// One message for one peer.
#[derive(Debug)]
struct Outgoing {
    kind: &'static str,
    bytes: Bytes,
}

#[derive(Debug)]
struct Outbox {
    messages: mpsc::Sender<Outgoing>,
    /// Of what is in it.
    bytes: Arc<AtomicUsize>,
    links: mpsc::Sender<Link>,
    /// The link that is sent over.
    newest: watch::Receiver<Option<Link>>,
}

/// The link to each peer, while there is one. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct PeerLinks(Arc<BTreeMap<ReplicaId, watch::Receiver<Option<Link>>>>);

impl PeerLinks {
    /// The link to one peer.
    #[cfg(test)]
    pub(crate) fn of(id: ReplicaId, link: watch::Receiver<Option<Link>>) -> Self {
        Self(Arc::new(BTreeMap::from([(id, link)])))
    }

    /// The link to a peer.
    pub(crate) fn get(&self, id: ReplicaId) -> Option<Link> {
        self.0.get(&id).and_then(|link| link.borrow().clone())
    }
}

/// All peers; the tasks end when this is dropped.
#[derive(Debug)]
pub(crate) struct Peers {
    outboxes: BTreeMap<ReplicaId, Outbox>,
    metrics: Metrics,
    /// Keeps the driver's end open where there is no other member.
    _inbox: mpsc::Sender<Incoming>,
}

/// Takes in links that peers made. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Acceptor {
    peers: Arc<BTreeMap<ReplicaId, mpsc::Sender<Link>>>,
    endpoint: Endpoint,
}

impl Peers {
    /// A task for every member but this one. `server` answers what they ask.
    pub(crate) fn start(
        endpoint: &Endpoint,
        own: ReplicaId,
        seeds: &[(u32, String)],
        server: &Server,
        metrics: &Metrics,
    ) -> (Self, mpsc::Receiver<Incoming>) {
        let (inbox, incoming) = mpsc::channel(INBOX_FRAMES);
        let budget = Budget::of(INBOX_BYTES);
        let others = seeds.iter().filter(|(id, _)| *id != own.0);
        let outboxes = others.map(|(id, address)| {
            let (messages, outgoing) = mpsc::channel(OUTBOX_MESSAGES);
            let (links, accepted) = mpsc::channel(LINKS);
            let (newest_in, newest) = watch::channel(None);
            let bytes = Arc::new(AtomicUsize::new(0));
            let peer = task::Peer {
                id: ReplicaId(*id),
                address: address.clone(),
                // Two members that start together do not both dial at once.
                dials_first: own.0 < *id,
                endpoint: endpoint.clone(),
                outgoing,
                outgoing_bytes: Arc::clone(&bytes),
                accepted,
                newest: newest_in,
                reader: task::Reader {
                    inbox: inbox.clone(),
                    budget: budget.clone(),
                    server: server.clone(),
                    metrics: metrics.clone(),
                },
                metrics: metrics.clone(),
            };
            tokio::spawn(peer.run());
            (ReplicaId(*id), Outbox { messages, bytes, links, newest })
        });
        let outboxes = outboxes.collect();
        (Self { outboxes, metrics: metrics.clone(), _inbox: inbox }, incoming)
    }

    /// The links, for whoever asks peers something.
    pub(crate) fn links(&self) -> PeerLinks {
        PeerLinks(Arc::new(self.outboxes.iter().map(|(id, outbox)| (*id, outbox.newest.clone())).collect()))
    }

    /// Where accepted links go.
    pub(crate) fn acceptor(&self, endpoint: &Endpoint) -> Acceptor {
        let peers = self.outboxes.iter().map(|(id, outbox)| (*id, outbox.links.clone())).collect();
        Acceptor { peers: Arc::new(peers), endpoint: endpoint.clone() }
    }

    /// Sends a message of the core; a broadcast is encoded once.
    pub(crate) fn send(&self, to: To, generation: Generation, life: Life, message: Message) {
        let kind = message.kind();
        self.send_frame(to, kind, &PeerFrame::Core(generation, life, message));
    }

    /// Sends any frame.
    pub(crate) fn send_frame(&self, to: To, kind: &'static str, frame: &PeerFrame) {
        let bytes = mesh::wire::encode(frame);
        match to {
            To::One(id) => self.put(id, kind, bytes),
            To::Others => self.outboxes.keys().for_each(|id| self.put(*id, kind, bytes.clone())),
        }
    }

    fn put(&self, id: ReplicaId, kind: &'static str, bytes: Bytes) {
        let Some(outbox) = self.outboxes.get(&id) else { return };
        let size = bytes.len();
        let room = outbox.bytes.load(Ordering::Relaxed) + size <= OUTBOX_BYTES;
        outbox.bytes.fetch_add(size, Ordering::Relaxed);
        if !room || outbox.messages.try_send(Outgoing { kind, bytes }).is_err() {
            outbox.bytes.fetch_sub(size, Ordering::Relaxed);
            self.metrics.peer_dropped.get_or_create(&Peer { peer: id.0 }).inc();
        }
    }
}

impl Acceptor {
    /// Gives a link that a peer made to that peer's task.
    pub(crate) fn accept(&self, link: Link) {
        let id = link.peer().id.parse().map(ReplicaId).ok();
        match id.and_then(|id| self.peers.get(&id)) {
            Some(links) => {
                // A flood of links of one peer: it dials again.
                if let Err(mpsc::error::TrySendError::Full(link)) = links.try_send(link) {
                    link.close("too many links at once");
                }
            }
            None => {
                let detail =
                    format!("{} is not one of the members that --seeds names: check it on both ends", link.peer());
                self.endpoint.refuse(&link, RefusalReason::WrongId, &detail);
            }
        }
    }
}
