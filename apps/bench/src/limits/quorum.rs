//! A server of the echo quorum: orders requests by a leader that never changes, and answers with what it was asked. It has
//! what replication cannot do without, and nothing else: no failures, no sessions, no application.

use super::disk::preallocated;
use super::quic::Identity;
use anyhow::Context;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use tokio::sync::{Mutex, Notify, mpsc};

/// Bytes of a request: its number comes first.
pub(super) const REQUEST: usize = 100;
/// Slots that are proposed at the same time.
const DEPTH: usize = 4;
/// Requests of a slot at most.
const BATCH: usize = 512;
/// Bytes of a message between servers at most.
const MESSAGE: usize = 64 << 10;
/// The disk's file; written around.
const ROOM: u64 = 16 << 20;
/// Two of three.
const MAJORITY: usize = 2;
/// Slots that wait for the disk.
const WRITES: usize = 64;

/// What a message begins with.
const PROPOSE: u8 = 1;
const ACCEPT: u8 = 2;

/// How the links between the servers are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    /// One packet of a hundred between the leader and each follower is lost.
    pub(super) lossy: bool,
    /// All messages of a link travel on one stream, instead of each on its own.
    pub(super) ordered: bool,
}

impl Links {
    /// None of it.
    pub(super) const PLAIN: Self = Self { lossy: false, ordered: false };
}

/// The way to another server.
struct Peer {
    connection: Connection,
    /// The one stream, if there is to be only one.
    stream: Option<Mutex<SendStream>>,
}

/// One server.
pub(super) struct Server {
    leads: bool,
    peers: Vec<Peer>,
    state: RefCell<State>,
    /// There is something to propose.
    news: Notify,
    /// To the thread that syncs; `None`: what is accepted is only in memory.
    disk: Option<mpsc::Sender<u64>>,
}

#[derive(Default)]
struct State {
    /// Who waits for an answer, by the request's number.
    waiting: HashMap<u64, (SendStream, Vec<u8>)>,
    /// Requests that were decided before they came here.
    early: HashMap<u64, ()>,
    /// To be proposed.
    pending: Vec<u64>,
    in_flight: usize,
    last_slot: u64,
    slots: HashMap<u64, Slot>,
}

#[derive(Default)]
struct Slot {
    requests: Option<Vec<u64>>,
    votes: usize,
    decided: bool,
}

/// Where to find the others, and how to tell where this one is.
pub(super) struct Meeting {
    /// 0 leads.
    pub(super) id: usize,
    /// Says where this one listens.
    pub(super) here: std::sync::mpsc::Sender<(usize, SocketAddr)>,
    /// Says that this one has its links: who dials now is a client.
    pub(super) met: std::sync::mpsc::Sender<()>,
    /// Says where all listen.
    pub(super) all: tokio::sync::oneshot::Receiver<Vec<SocketAddr>>,
    /// Where to sync, if at all.
    pub(super) disk: Option<PathBuf>,
    pub(super) links: Links,
}

/// Serves until it is dropped.
pub(super) async fn serve(identity: &Identity, meeting: Meeting) -> anyhow::Result<()> {
    let (endpoint, socket) = identity.lossy_endpoint()?;
    meeting.here.send((meeting.id, endpoint.local_addr()?))?;
    let all = meeting.all.await.context("the others did not come")?;
    let connections = meet(&endpoint, meeting.id, &all).await?;
    let mut peers = Vec::new();
    for connection in connections.clone() {
        let stream = if meeting.links.ordered { Some(Mutex::new(connection.open_uni().await?)) } else { None };
        peers.push(Peer { connection, stream });
    }
    meeting.met.send(())?;
    if meeting.links.lossy {
        socket.lose(if meeting.id == 0 { all[1..].to_vec() } else { all[..1].to_vec() });
    }
    let (disk, synced) = match &meeting.disk {
        Some(dir) => {
            let (disk, synced) = syncing(dir.join(format!("quorum-{}", meeting.id)))?;
            (Some(disk), Some(synced))
        }
        None => (None, None),
    };
    let server =
        Rc::new(Server { leads: meeting.id == 0, peers, state: RefCell::default(), news: Notify::new(), disk });
    if let Some(mut synced) = synced {
        let server = server.clone();
        tokio::task::spawn_local(async move {
            while let Some(slot) = synced.recv().await {
                server.accept(slot).await;
            }
        });
    }
    for connection in connections {
        let server = server.clone();
        tokio::task::spawn_local(async move {
            while let Ok(mut stream) = connection.accept_uni().await {
                if meeting.links.ordered {
                    while let Some(message) = next_message(&mut stream).await {
                        server.hear(&message).await;
                    }
                } else if let Ok(message) = stream.read_to_end(MESSAGE).await {
                    server.hear(&message).await;
                }
            }
        });
    }
    if server.leads {
        let server = server.clone();
        tokio::task::spawn_local(async move { server.lead().await });
    }
    // What comes now are clients.
    while let Some(incoming) = endpoint.accept().await {
        let (connection, server) = (incoming.await?, server.clone());
        tokio::task::spawn_local(async move {
            while let Ok((answer, mut question)) = connection.accept_bi().await {
                if let Ok(request) = question.read_to_end(REQUEST).await {
                    server.asked(request, answer).await;
                }
            }
        });
    }
    Ok(())
}

/// Links to both others: a higher id dials a lower one.
async fn meet(endpoint: &Endpoint, id: usize, all: &[SocketAddr]) -> anyhow::Result<Vec<Connection>> {
    let mut peers = Vec::new();
    for to in &all[..id] {
        peers.push(super::quic::dial(endpoint, *to).await?);
    }
    while peers.len() < all.len() - 1 {
        peers.push(endpoint.accept().await.context("the endpoint is closed")?.await?);
    }
    Ok(peers)
}

/// A thread that writes and syncs, and says which slots are safe.
fn syncing(path: PathBuf) -> anyhow::Result<(mpsc::Sender<u64>, mpsc::Receiver<u64>)> {
    let mut file = preallocated(&path, ROOM)?;
    let (disk, mut slots) = mpsc::channel::<u64>(WRITES);
    let (sender, synced) = mpsc::channel(WRITES);
    std::thread::Builder::new().name("sync".into()).spawn(move || {
        let mut together = Vec::new();
        while slots.blocking_recv_many(&mut together, WRITES) > 0 {
            if write(&mut file).is_err() || together.drain(..).any(|slot| sender.blocking_send(slot).is_err()) {
                break;
            }
        }
        let _ = std::fs::remove_file(path);
    })?;
    Ok((disk, synced))
}

fn write(file: &mut File) -> std::io::Result<()> {
    let record = [7; 4096];
    if file.stream_position()? + record.len() as u64 > ROOM {
        file.rewind()?;
    }
    file.write_all(&record)?;
    file.sync_data()
}

impl Server {
    /// A client asks.
    async fn asked(&self, request: Vec<u8>, mut answer: SendStream) {
        let Some(number) = request.first_chunk().map(|number| u64::from_be_bytes(*number)) else { return };
        let decided = {
            let mut state = self.state.borrow_mut();
            if self.leads {
                state.pending.push(number);
                self.news.notify_one();
            }
            state.early.remove(&number).is_some()
        };
        if decided {
            reply(&mut answer, &request).await;
        } else {
            self.state.borrow_mut().waiting.insert(number, (answer, request));
        }
    }

    /// Proposes what there is, several at a time.
    async fn lead(&self) {
        loop {
            let message = {
                let mut state = self.state.borrow_mut();
                if state.in_flight < DEPTH && !state.pending.is_empty() {
                    let count = state.pending.len().min(BATCH);
                    let requests: Vec<u64> = state.pending.drain(..count).collect();
                    state.in_flight += 1;
                    state.last_slot += 1;
                    let slot = state.last_slot;
                    let message = message(PROPOSE, slot, &requests);
                    state.slots.entry(slot).or_default().requests = Some(requests);
                    Some((slot, message))
                } else {
                    None
                }
            };
            match message {
                Some((slot, message)) => {
                    self.tell(&message).await;
                    self.store(slot).await;
                }
                None => self.news.notified().await,
            }
        }
    }

    /// Accepts a slot, once it is on the disk.
    async fn store(&self, slot: u64) {
        match &self.disk {
            Some(disk) => drop(disk.send(slot).await),
            None => self.accept(slot).await,
        }
    }

    async fn accept(&self, slot: u64) {
        self.tell(&message(ACCEPT, slot, &[])).await;
        self.vote(slot).await;
    }

    /// To both others, each on a stream of its own unless there is one for all.
    async fn tell(&self, message: &[u8]) {
        for peer in &self.peers {
            if let Some(stream) = &peer.stream {
                let mut framed = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
                framed.extend_from_slice(message);
                let _ = stream.lock().await.write_all(&framed).await;
            } else if let Ok(mut stream) = peer.connection.open_uni().await {
                let _ = stream.write_all(message).await;
                let _ = stream.finish();
            }
        }
    }

    async fn hear(&self, message: &[u8]) {
        let Some((kind, slot, requests)) = parse(message) else { return };
        if kind == PROPOSE {
            self.state.borrow_mut().slots.entry(slot).or_default().requests = Some(requests);
            self.store(slot).await;
        } else {
            self.vote(slot).await;
        }
    }

    /// Somebody accepted a slot, maybe this one: answers if that makes a majority.
    async fn vote(&self, slot: u64) {
        let answers = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            let found = state.slots.entry(slot).or_default();
            found.votes += 1;
            self.decide(state, slot)
        };
        for (mut answer, request) in answers {
            reply(&mut answer, &request).await;
        }
    }

    fn decide(&self, state: &mut State, slot: u64) -> Vec<(SendStream, Vec<u8>)> {
        let Some(found) = state.slots.get_mut(&slot) else { return Vec::new() };
        let mut answers = Vec::new();
        if found.votes >= MAJORITY
            && !found.decided
            && let Some(requests) = found.requests.take()
        {
            found.decided = true;
            for number in requests {
                match state.waiting.remove(&number) {
                    Some(answer) => answers.push(answer),
                    None => drop(state.early.insert(number, ())),
                }
            }
            if self.leads {
                state.in_flight -= 1;
                self.news.notify_one();
            }
        }
        if found.votes > MAJORITY {
            // All three: nobody will speak of it again.
            state.slots.remove(&slot);
        }
        answers
    }
}

/// The next message of a stream that carries all; `None` at its end.
async fn next_message(stream: &mut RecvStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.ok()?;
    let length = u32::from_be_bytes(length) as usize;
    let mut message = vec![0; length.min(MESSAGE)];
    stream.read_exact(&mut message).await.ok()?;
    Some(message)
}

async fn reply(answer: &mut SendStream, request: &[u8]) {
    let _ = answer.write_all(request).await;
    let _ = answer.finish();
}

fn message(kind: u8, slot: u64, requests: &[u64]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&slot.to_be_bytes());
    requests.iter().for_each(|number| bytes.extend_from_slice(&number.to_be_bytes()));
    bytes
}

fn parse(bytes: &[u8]) -> Option<(u8, u64, Vec<u64>)> {
    let (kind, rest) = bytes.split_first()?;
    let (slot, rest) = rest.split_first_chunk()?;
    let requests = rest.as_chunks().0.iter().map(|number| u64::from_be_bytes(*number)).collect();
    Some((*kind, u64::from_be_bytes(*slot), requests))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(parse(&message(PROPOSE, 7, &[1, 2])), Some((PROPOSE, 7, vec![1, 2])));
        assert_eq!(parse(&message(ACCEPT, 7, &[])), Some((ACCEPT, 7, Vec::new())));
        assert_eq!(parse(b""), None);
    }
}
