//! Links to the other servers: a bounded outbox each, drained by a task each; what comes in goes to the driver.
//!
//! Losing a message is harmless, holding up the driver is not: an outbox that is full, or whose peer has no link, drops.
//!
//! Who the others are changes while this runs. At first they are those that `--seeds` names; once the cluster is known
//! they are its members ([`Peers::set_members`]), and only they are dialled and are sent what goes to all. Any other
//! server of the cluster may open a link: one that was never heard of, because it wants to join, or one that was removed
//! and still has something to say. What it may say is for the ordering core to judge.
//!
//! Each end of a link first says where it is to be reached and what it knows of the others ([`Roster`]), so that a member
//! that moved, or is new, is found again wherever one of two finds the other.

mod standing;
mod task;
#[cfg(test)]
mod tests;

use crate::Config;
use crate::budget::{Budget, Share};
use crate::metrics::{Metrics, Peer};
use crate::transfer::Server;
use bytes::Bytes;
use mesh::directory::Directory;
use mesh::ids::{Epoch, Generation, Life, ReplicaId};
use mesh::net::{Endpoint, Link, RefusalReason};
use mesh::order::To;
use mesh::wire::peer::{Desk, Message, PeerFrame};
use mesh::wire::roster::{PLACES_MAX, Place, Roster, Seat};
use standing::Troubles;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant};

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
/// Servers that there is a task for: members, and others that have a link.
const PEERS_MAX: usize = PLACES_MAX;
/// Who said that it is leaving and is neither gone for good nor back after this was mistaken.
const LEAVES: Duration = Duration::from_secs(60);

/// What a peer sent.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// Who: the identity of the link's certificate.
    pub(crate) from: ReplicaId,
    /// What; `None`: it said goodbye, and its link is gone.
    pub(crate) frame: Option<PeerFrame>,
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
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerLinks {
    links: Arc<Mutex<BTreeMap<ReplicaId, watch::Receiver<Option<Link>>>>>,
    troubles: Troubles,
}

impl PeerLinks {
    /// The link to one peer.
    #[cfg(test)]
    pub(crate) fn of(id: ReplicaId, link: watch::Receiver<Option<Link>>) -> Self {
        let links = Self::default();
        links.all().insert(id, link);
        links
    }

    /// The link to a peer.
    pub(crate) fn get(&self, id: ReplicaId) -> Option<Link> {
        self.all().get(&id).and_then(|link| link.borrow().clone())
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, watch::Receiver<Option<Link>>>> {
        lock(&self.links)
    }
}

/// What this member is told about itself and the others.
pub(crate) struct Setup<'a> {
    /// This member.
    pub(crate) own: ReplicaId,
    /// Ids and addresses, this member's own too where it is known.
    pub(crate) seeds: &'a [(u32, String)],
    /// Where this member says it is, if it was told to say so.
    pub(crate) advertise: Option<&'a str>,
    /// Answers what peers ask.
    pub(crate) server: &'a Server,
    pub(crate) metrics: &'a Metrics,
}

impl<'a> Setup<'a> {
    /// From a sidecar's settings.
    pub(crate) fn of(config: &'a Config, server: &'a Server, metrics: &'a Metrics) -> Self {
        let (seeds, advertise) = (&config.seeds, config.advertise.as_deref());
        Self { own: config.replica(), seeds, advertise, server, metrics }
    }
}

/// All peers; their tasks end when this is dropped.
pub(crate) struct Peers {
    shared: Arc<Shared>,
    /// Keeps the driver's end open where there is no other member.
    _inbox: mpsc::Sender<Incoming>,
}

/// What the tasks have in common.
struct Shared {
    own: ReplicaId,
    endpoint: Endpoint,
    /// Where this member is.
    place: Option<Place>,
    state: Mutex<State>,
    links: PeerLinks,
    /// What this member says to everybody.
    roster: watch::Sender<Roster>,
    /// Told whenever somebody may be elsewhere than before, or is dialled no more.
    news: watch::Sender<()>,
    reader: task::Reader,
    metrics: Metrics,
}

struct State {
    outboxes: BTreeMap<ReplicaId, Outbox>,
    directory: Directory,
    /// Since when each that said so is leaving. It is back when its next process says otherwise.
    leaving: BTreeMap<ReplicaId, Instant>,
    /// The other members; `None` as long as the cluster is not known.
    members: Option<BTreeSet<ReplicaId>>,
}

impl State {
    /// Whether this one is dialled, and sent what goes to all.
    fn counts(&self, id: ReplicaId) -> bool {
        match &self.members {
            Some(members) => members.contains(&id),
            None => self.directory.configured().any(|known| known == id),
        }
    }
}

/// Takes in links that peers made. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Acceptor(std::sync::Weak<Shared>);

impl Peers {
    /// A task for every member but this one.
    pub(crate) fn start(endpoint: &Endpoint, setup: &Setup<'_>) -> std::io::Result<(Self, mpsc::Receiver<Incoming>)> {
        let (inbox, incoming) = mpsc::channel(INBOX_FRAMES);
        let own = setup.own;
        let seed = setup.seeds.iter().find(|(id, _)| *id == own.0).map(|(_, address)| address.as_str());
        let address = setup.advertise.or(seed);
        let place = address.map(|address| Place {
            id: own,
            address: address.to_owned(),
            advertised: setup.advertise.is_some(),
        });
        let others = setup.seeds.iter().filter(|(id, _)| *id != own.0);
        let directory = Directory::new(others.map(|(id, address)| (ReplicaId(*id), address.clone())));
        let roster = Roster {
            process: u64::from_le_bytes(crate::entropy::bytes()?),
            places: place.iter().cloned().collect(),
            ..Roster::default()
        };
        let reader = task::Reader {
            inbox: inbox.clone(),
            budget: Budget::of(INBOX_BYTES),
            server: setup.server.clone(),
            metrics: setup.metrics.clone(),
        };
        let shared = Arc::new(Shared {
            own,
            endpoint: endpoint.clone(),
            place,
            state: Mutex::new(State { outboxes: BTreeMap::new(), directory, leaving: BTreeMap::new(), members: None }),
            links: PeerLinks::default(),
            roster: watch::Sender::new(roster),
            news: watch::Sender::new(()),
            reader,
            metrics: setup.metrics.clone(),
        });
        shared.add_missing(&mut shared.state());
        Ok((Self { shared, _inbox: inbox }, incoming))
    }

    /// The cluster's members from now on, this one among them or not. Whoever is new is dialled as soon as somebody has
    /// said where it is, or comes by itself. Whoever is none any more is dialled no more, and is sent what goes to it
    /// alone while its link lives.
    pub(crate) fn set_members(&self, (generation, epoch): (Generation, Epoch), members: Vec<Seat>) {
        let same = |roster: &Roster| (roster.edition(), &roster.members) == ((generation, epoch), &members);
        if same(&self.shared.roster.borrow()) {
            return;
        }
        let ids = members.iter().map(|seat| seat.id).collect();
        self.shared.say(|roster| {
            (roster.generation, roster.epoch, roster.members) = (generation, epoch, members);
            true
        });
        self.seek(ids);
    }

    /// These are dialled, and sent what goes to all: the members of a cluster of which this one is none yet.
    pub(crate) fn seek(&self, mut members: BTreeSet<ReplicaId>) {
        members.remove(&self.shared.own);
        let mut state = self.shared.state();
        if state.members.as_ref() == Some(&members) {
            return;
        }
        state.members = Some(members);
        self.shared.add_missing(&mut state);
        drop(state);
        self.shared.news.send_replace(());
    }

    /// Whether this member is about to stop: everybody is told.
    pub(crate) fn set_leaving(&self, leaving: bool) {
        self.shared.say(|roster| std::mem::replace(&mut roster.leaving, leaving) != leaving);
    }

    /// The other members that said that they are leaving and are not back, and those that have a link and stay.
    pub(crate) fn company(&self) -> (Vec<ReplicaId>, Vec<ReplicaId>) {
        let state = self.shared.state();
        let leaves = |id: &ReplicaId| state.leaving.get(id).is_some_and(|since| since.elapsed() < LEAVES);
        let others: Vec<ReplicaId> = state.outboxes.keys().copied().filter(|id| state.counts(*id)).collect();
        let (leaving, staying): (Vec<_>, Vec<_>) = others.into_iter().partition(leaves);
        let linked = |id: &ReplicaId| state.outboxes.get(id).is_some_and(|outbox| outbox.newest.borrow().is_some());
        (leaving, staying.into_iter().filter(linked).collect())
    }

    /// The links, for whoever asks peers something.
    pub(crate) fn links(&self) -> PeerLinks {
        self.shared.links.clone()
    }

    /// Where servers are, as far as is known.
    pub(crate) fn places(&self) -> Vec<(ReplicaId, String)> {
        let mut places: BTreeMap<ReplicaId, String> =
            self.shared.place.iter().map(|place| (place.id, place.address.clone())).collect();
        let state = self.shared.state();
        for id in state.outboxes.keys() {
            places.extend(state.directory.addresses(*id).into_iter().next().map(|address| (*id, address)));
        }
        places.into_iter().collect()
    }

    /// Where accepted links go.
    pub(crate) fn acceptor(&self) -> Acceptor {
        Acceptor(Arc::downgrade(&self.shared))
    }

    /// What this member says of itself and of the others, to whoever has a link.
    pub(crate) fn roster(&self) -> watch::Receiver<Roster> {
        self.shared.roster.subscribe()
    }

    /// Sends a message of the core; a broadcast is encoded once. `desks`: who waits for the outcomes of what it proposes.
    pub(crate) fn send(&self, to: To, generation: Generation, life: Life, message: Message, desks: Vec<Desk>) {
        let kind = message.kind();
        let frame = match desks.is_empty() {
            true => PeerFrame::Core(generation, life, message),
            false => PeerFrame::Proposal(generation, life, message, desks),
        };
        self.send_frame(to, kind, &frame);
    }

    /// Sends any frame.
    pub(crate) fn send_frame(&self, to: To, kind: &'static str, frame: &PeerFrame) {
        let bytes = mesh::wire::encode(frame);
        let state = self.shared.state();
        match to {
            To::One(id) => {
                if let Some(outbox) = state.outboxes.get(&id) {
                    self.put(id, outbox, kind, bytes);
                }
            }
            To::Others => {
                let members = state.outboxes.iter().filter(|(id, _)| state.counts(**id));
                members.for_each(|(id, outbox)| self.put(*id, outbox, kind, bytes.clone()));
            }
        }
    }

    fn put(&self, id: ReplicaId, outbox: &Outbox, kind: &'static str, bytes: Bytes) {
        let size = bytes.len();
        let room = outbox.bytes.load(Ordering::Relaxed) + size <= OUTBOX_BYTES;
        outbox.bytes.fetch_add(size, Ordering::Relaxed);
        if !room || outbox.messages.try_send(Outgoing { kind, bytes }).is_err() {
            outbox.bytes.fetch_sub(size, Ordering::Relaxed);
            self.shared.metrics.peer_dropped.get_or_create(&Peer { peer: id.0 }).inc();
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // The tasks hold what they share: without their outboxes they end.
        self.shared.state().outboxes.clear();
        self.shared.links.all().clear();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Where to look for a peer; nowhere if it is not to be dialled.
    fn addresses(&self, id: ReplicaId) -> Vec<String> {
        let state = self.state();
        if state.counts(id) { state.directory.addresses(id) } else { Vec::new() }
    }

    /// A task for each that counts and has none.
    fn add_missing(self: &Arc<Self>, state: &mut State) {
        let wanted: Vec<ReplicaId> = match &state.members {
            Some(members) => members.iter().copied().collect(),
            None => state.directory.configured().collect(),
        };
        for id in wanted {
            if !state.outboxes.contains_key(&id) {
                self.add(state, id);
            }
        }
    }

    fn add(self: &Arc<Self>, state: &mut State, id: ReplicaId) {
        let (messages, outgoing) = mpsc::channel(OUTBOX_MESSAGES);
        let (links, accepted) = mpsc::channel(LINKS);
        let (newest_in, newest) = watch::channel(None);
        let bytes = Arc::new(AtomicUsize::new(0));
        let peer = task::Peer {
            id,
            shared: self.clone(),
            outgoing,
            outgoing_bytes: Arc::clone(&bytes),
            accepted,
            newest: newest_in,
        };
        tokio::spawn(peer.run());
        self.links.all().insert(id, newest.clone());
        state.outboxes.insert(id, Outbox { messages, bytes, links, newest });
    }

    /// Whether a peer said that it is about to stop.
    fn leaves(&self, id: ReplicaId) -> bool {
        self.state().leaving.contains_key(&id)
    }

    /// Changes what this member says; `change` tells whether it did.
    fn say(&self, change: impl FnOnce(&mut Roster) -> bool) {
        self.roster.send_if_modified(|roster| {
            let changed = change(roster);
            roster.version += u64::from(changed);
            changed
        });
    }

    /// A peer says where it is and what it knows.
    fn hear(&self, from: ReplicaId, roster: Roster) {
        let mut state = self.state();
        let before = state.directory.word(from).and_then(|word| word.place(from)).cloned();
        let (place, leaving) = (roster.place(from).cloned(), roster.leaving);
        if !state.directory.hear(from, roster) {
            return;
        }
        if !leaving {
            state.leaving.remove(&from);
        } else if let Entry::Vacant(entry) = state.leaving.entry(from) {
            tracing::info!(peer = %from, "it is about to stop");
            entry.insert(Instant::now());
        }
        if let Some(place) = place.filter(|place| before.as_ref() != Some(place)) {
            tracing::info!(peer = %from, address = place.address, advertised = place.advertised, "it says where it is");
        }
        let mut places: Vec<Place> = self.place.iter().cloned().collect();
        places.extend(state.directory.first_hand());
        places.truncate(PLACES_MAX);
        drop(state);
        self.say(|roster| std::mem::replace(&mut roster.places, places) != roster.places);
        self.news.send_replace(());
    }

    /// Gives a link that a peer made to that peer's task.
    fn accept(self: &Arc<Self>, link: Link) {
        let Some(id) = link.peer().id.parse().map(ReplicaId).ok().filter(|id| *id != self.own) else {
            let detail = format!("{} is no other server: a server's id is a number", link.peer());
            return self.endpoint.refuse(&link, RefusalReason::WrongId, &detail);
        };
        let mut state = self.state();
        if !state.outboxes.contains_key(&id) {
            self.forget_strangers(&mut state);
            if state.outboxes.len() >= PEERS_MAX {
                tracing::warn!(peer = %id, "too many servers that are no members have links: one more is closed");
                return link.close("too many servers that are no members");
            }
            tracing::info!(peer = %id, "a server that was not known before");
            self.add(&mut state, id);
        }
        // A flood of links of one peer: it dials again.
        if let Some(outbox) = state.outboxes.get(&id)
            && let Err(mpsc::error::TrySendError::Full(link)) = outbox.links.try_send(link)
        {
            link.close("too many links at once");
        }
    }

    /// Ends the tasks of those that do not count and have no link.
    fn forget_strangers(&self, state: &mut State) {
        let gone = |(id, outbox): &(&ReplicaId, &Outbox)| !state.counts(**id) && outbox.newest.borrow().is_none();
        let gone: BTreeSet<ReplicaId> = state.outboxes.iter().filter(gone).map(|(id, _)| *id).collect();
        state.outboxes.retain(|id, _| !gone.contains(id));
        state.directory.retain(|id| !gone.contains(&id));
        state.leaving.retain(|id, _| !gone.contains(id));
        self.links.all().retain(|id, _| !gone.contains(id));
    }
}

impl Acceptor {
    /// Gives a link that a peer made to that peer's task.
    pub(crate) fn accept(&self, link: Link) {
        match self.0.upgrade() {
            Some(shared) => shared.accept(link),
            None => link.close("stopping"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
