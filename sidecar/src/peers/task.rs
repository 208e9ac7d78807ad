//! The task of one peer: keeps a link, drains the outbox over it, reads what comes.

use super::{Incoming, Outgoing, Shared};
use crate::budget::Budget;
use crate::metrics::{self, Metrics, PeerKind};
use crate::transfer::Server;
use mesh::ids::ReplicaId;
use mesh::net::{Backoff, Endpoint, Link, LinkKind, NetError};
use mesh::node::Quiet;
use mesh::wire::peer::PeerFrame;
use mesh::wire::roster::Roster;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// A peer of another version would fill the log.
static MALFORMED: Quiet = Quiet::new();
/// How long the member with the higher id leaves dialling to the other at first.
const COURTESY: Duration = Duration::from_millis(100);
/// Between two looks whether a peer without an address has one.
const FAR: Duration = Duration::from_secs(3600);
/// Before a link that took nothing is told again.
const AGAIN: Duration = Duration::from_secs(1);
/// Links of one peer that are read at one time. An older one is left to end by itself: closing it at once would make
/// two members that dial each other close each other's links in turn.
const LINKS_MAX: usize = 3;

pub(super) struct Peer {
    pub(super) id: ReplicaId,
    pub(super) shared: Arc<Shared>,
    pub(super) outgoing: mpsc::Receiver<Outgoing>,
    pub(super) outgoing_bytes: Arc<AtomicUsize>,
    pub(super) accepted: mpsc::Receiver<Link>,
    pub(super) newest: watch::Sender<Option<Link>>,
}

/// Where a link's frames go.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) inbox: mpsc::Sender<Incoming>,
    pub(super) budget: Budget,
    pub(super) server: Server,
    pub(super) metrics: Metrics,
}

/// How long an old link that was replaced is still read: what was under way over it arrives.
const RETIRE: Duration = Duration::from_secs(10);

/// The links of the peer, the newest last; it is the one that is sent over.
#[derive(Default)]
struct Links {
    live: VecDeque<(u64, Link)>,
    count: u64,
    /// The newest should be replaced.
    due: bool,
    /// Resolves when that becomes so. Kept over turns: none is made anew for each message.
    until_due: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Peer {
    pub(super) async fn run(mut self) {
        let seed = crate::entropy::bytes().map_or(u64::from(self.id.0), u64::from_le_bytes);
        let mut backoff = Backoff::new(seed);
        let mut links = Links::default();
        let (ended_in, mut ended) = mpsc::channel(LINKS_MAX + 1);
        // Two members that start together do not both dial at once.
        let courtesy = if self.shared.own < self.id { Duration::ZERO } else { COURTESY };
        let mut dial_at = Instant::now() + courtesy;
        let mut news = self.shared.news.subscribe();
        // Kept over turns: a message for the outbox must not start a handshake anew.
        let mut dialling: Option<Dialling> = None;
        let mut addresses = Vec::new();
        loop {
            let dial = (links.live.is_empty() || links.due) && dialling.is_none();
            tokio::select! {
                biased;
                Some(id) = ended.recv() => {
                    self.forget(id, &mut links);
                    dial_at = Instant::now() + backoff.next_delay();
                }
                link = self.accepted.recv() => match link {
                    Some(link) => self.adopt(link, &mut links, &ended_in),
                    None => return,
                },
                outgoing = self.outgoing.recv() => match outgoing {
                    Some(outgoing) => self.send(outgoing, &mut links, &ended_in).await,
                    None => return,
                },
                dialled = poll_dialling(&mut dialling) => {
                    dialling = None;
                    match dialled {
                        Ok(link) => {
                            backoff.reset();
                            links.retire();
                            self.adopt(link, &mut links, &ended_in);
                        }
                        Err(error) => {
                            tracing::debug!(peer = %self.id, %error, "no link yet");
                            self.shared.links.troubles.note(self.id, error.to_string());
                            dial_at = Instant::now() + backoff.next_delay();
                        }
                    }
                }
                () = is_due(&mut links.until_due) => {
                    links.due = true;
                    links.until_due = None;
                    dial_at = Instant::now();
                }
                Ok(()) = news.changed(), if links.live.is_empty() => {
                    // It may be elsewhere: no reason to wait for an attempt where it was.
                    let now = self.shared.addresses(self.id);
                    if now != addresses {
                        addresses = now;
                        dialling = None;
                        dial_at = Instant::now() + courtesy;
                    }
                }
                () = sleep_until(dial_at), if dial => {
                    addresses = self.shared.addresses(self.id);
                    if addresses.is_empty() {
                        // It dials, or somebody says where it is.
                        dial_at += FAR;
                    } else {
                        dialling = Some(Box::pin(dial_once(self.shared.endpoint.clone(), addresses.clone(), self.id)));
                    }
                }
            }
        }
    }

    /// The newest authenticated link is the one that is used.
    fn adopt(&self, link: Link, links: &mut Links, ended: &mpsc::Sender<u64>) {
        tracing::info!(peer = %self.id, address = %link.remote_address(), "linked");
        self.shared.links.troubles.forget(self.id);
        links.count += 1;
        let id = links.count;
        if links.live.len() >= LINKS_MAX
            && let Some((_, oldest)) = links.live.pop_front()
        {
            oldest.close("replaced by newer links");
        }
        links.live.push_back((id, link.clone()));
        links.watch_newest();
        self.newest.send_replace(Some(link.clone()));
        tokio::spawn(introduce(link.clone(), self.shared.roster.subscribe()));
        tokio::spawn(self.shared.reader.clone().run(self.id, link, id, ended.clone(), Arc::downgrade(&self.shared)));
    }

    /// A link is gone.
    fn forget(&self, id: u64, links: &mut Links) {
        links.live.retain(|(live, _)| *live != id);
        links.watch_newest();
        self.newest.send_replace(links.live.back().map(|(_, link)| link.clone()));
    }

    /// Sends over the newest link; a message that cannot go at once is given up for a newer link.
    async fn send(&mut self, outgoing: Outgoing, links: &mut Links, ended: &mpsc::Sender<u64>) {
        self.outgoing_bytes.fetch_sub(outgoing.bytes.len(), Ordering::Relaxed);
        let Some((id, link)) = links.live.back().cloned() else { return self.dropped(1) };
        let sent = tokio::select! {
            biased;
            sent = link.send(outgoing.bytes) => sent,
            Some(newer) = self.accepted.recv() => {
                self.adopt(newer, links, ended);
                return self.dropped(1);
            }
        };
        match sent {
            Ok(()) => {
                self.shared.metrics.peer_sent.get_or_create(&PeerKind { peer: self.id.0, kind: outgoing.kind }).inc();
            }
            Err(NetError::Gone(reason)) => {
                tracing::debug!(peer = %self.id, reason, "the link is gone");
                self.dropped(1);
                self.forget(id, links);
            }
            Err(error) => {
                // The peer takes nothing: what waited meanwhile is as old as this, and is asked for again if it matters.
                tracing::debug!(peer = %self.id, %error, "a message could not be sent");
                let mut dropped = 1;
                while let Ok(stale) = self.outgoing.try_recv() {
                    self.outgoing_bytes.fetch_sub(stale.bytes.len(), Ordering::Relaxed);
                    dropped += 1;
                }
                self.dropped(dropped);
            }
        }
    }

    fn dropped(&self, count: u64) {
        self.shared.metrics.peer_dropped.get_or_create(&metrics::Peer { peer: self.id.0 }).inc_by(count);
    }
}

impl Links {
    /// Another link is the newest.
    fn watch_newest(&mut self) {
        self.due = false;
        self.until_due = self.live.back().cloned().map(|(_, link)| {
            let due: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move { link.due().await });
            due
        });
    }

    /// A link in the place of those that are live is there: they end after what is under way over them.
    fn retire(&self) {
        for (_, old) in &self.live {
            let old = old.clone();
            tokio::spawn(async move {
                tokio::time::sleep(RETIRE).await;
                old.close("replaced by a newer link");
            });
        }
    }
}

async fn is_due(until: &mut Option<Pin<Box<dyn Future<Output = ()> + Send>>>) {
    match until {
        Some(until) => until.await,
        None => std::future::pending().await,
    }
}

type Dialling = Pin<Box<dyn Future<Output = Result<Link, NetError>> + Send>>;

async fn dial_once(endpoint: Endpoint, addresses: Vec<String>, id: ReplicaId) -> Result<Link, NetError> {
    endpoint.dial_any(LinkKind::Peer, &addresses, Some(&id.to_string())).await
}

/// Says over one link what this member has to say of itself, and again whenever that changes. What comes while one
/// message is on its way makes one message more.
async fn introduce(link: Link, mut roster: watch::Receiver<Roster>) {
    roster.mark_changed();
    while roster.changed().await.is_ok() {
        let message = PeerFrame::Roster(roster.borrow_and_update().clone());
        match link.send(mesh::wire::encode(&message)).await {
            Ok(()) => {}
            Err(NetError::Gone(_)) => return,
            Err(error) => {
                tracing::debug!(peer = %link.peer().id, %error, "a peer was not told where the others are");
                tokio::time::sleep(AGAIN).await;
                roster.mark_changed();
            }
        }
    }
}

async fn poll_dialling(dialling: &mut Option<Dialling>) -> Result<Link, NetError> {
    match dialling {
        Some(dialling) => dialling.await,
        None => std::future::pending().await,
    }
}

impl Reader {
    /// Reads a link until it is gone.
    async fn run(self, from: ReplicaId, link: Link, id: u64, ended: mpsc::Sender<u64>, shared: Weak<Shared>) {
        // Ends with the link.
        tokio::spawn(self.server.clone().serve(from, link.clone(), self.metrics.clone()));
        while let Ok(bytes) = link.receive().await {
            let Ok(frame) = mesh::wire::decode(&bytes) else {
                self.metrics.malformed("peer");
                if let Some(suppressed) = MALFORMED.may_speak() {
                    tracing::warn!(peer = %from, suppressed, "a message of a peer does not decode: do both run the same version?");
                }
                continue;
            };
            self.metrics.peer_rtt.get_or_create(&metrics::Peer { peer: from.0 }).set(link.rtt().as_secs_f64());
            if let PeerFrame::Roster(roster) = frame {
                let Some(shared) = shared.upgrade() else { break };
                shared.hear(from, roster);
                continue;
            }
            let share = self.budget.take(bytes.len()).await;
            if self.inbox.send(Incoming { from, frame: Some(frame), share }).await.is_err() {
                break;
            }
        }
        if link.was_left() && shared.upgrade().is_some_and(|shared| shared.leaves(from)) {
            let share = self.budget.take(0).await;
            let _ = self.inbox.send(Incoming { from, frame: None, share }).await;
        }
        let _ = ended.send(id).await;
    }
}
