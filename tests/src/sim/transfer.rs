//! State transfer: the real receiver asks over the simulated network; whoever has the snapshot answers.

use super::event::Event;
use super::forger::CLUSTER;
use super::snapshots::Snapshot;
use super::{Process, World};
use crate::check::Verdict;
use bytes::Bytes;
use mesh::ids::{Digest, Generation, ReplicaId, Slot};
use mesh::order::{Image, Input};
use mesh::time::Duration;
use mesh::transfer::{CHUNK_BYTES, GiveUp, Manifest, Receiver, Taken};
use mesh::wire::transfer::{TransferAnswer, TransferAsk};
use std::collections::BTreeMap;

/// A snapshot that a replica fetches.
#[derive(Debug)]
pub struct Fetch {
    receiver: Receiver,
    manifest: Option<Manifest>,
    chunks: BTreeMap<usize, Bytes>,
}

/// A snapshot that a replica serves: what is open is not deleted.
#[derive(Debug)]
pub struct Serving {
    manifest: Manifest,
    content: Bytes,
    asked_at: super::clock::Time,
}

impl Serving {
    /// It is not kept any longer.
    pub fn forget(&mut self) {
        self.asked_at = super::clock::Time::ZERO;
    }
}

/// Whoever asks nothing for so long is not waited for.
const PIN: Duration = Duration::from_secs(3);

fn content(snapshot: &Snapshot, member: usize, padding: usize) -> (Manifest, Bytes) {
    let image = mesh::wire::encode(&snapshot.image);
    let dump = snapshot.dump();
    let mut content = Vec::with_capacity(image.len() + dump.len() + padding);
    content.extend_from_slice(&image);
    content.extend_from_slice(&dump);
    content.resize(content.len() + padding, b'\n');
    let manifest = Manifest {
        cluster: CLUSTER.to_owned(),
        generation: snapshot.image.generation,
        member: ReplicaId(member as u32),
        slot: snapshot.image.slot,
        image_len: image.len() as u64,
        total_len: content.len() as u64,
        chunks: content.chunks(CHUNK_BYTES).map(Digest::of).collect(),
    };
    (manifest, content.into())
}

impl World {
    pub(super) fn transfer(&mut self, index: usize, from: ReplicaId, least: Slot) {
        let old = self.servers[index].fetch.take();
        self.servers[index].fetch = Some(match old {
            Some(Fetch { receiver, manifest, chunks }) => {
                Fetch { receiver: receiver.again(from, least), manifest, chunks }
            }
            None => {
                let receiver = Receiver::new(CLUSTER, Generation::FIRST, from, least);
                Fetch { receiver, manifest: None, chunks: BTreeMap::new() }
            }
        });
        // Not within the step that asked for it.
        let life = self.servers[index].life;
        self.queue.push(self.now + super::TICK, Event::TransferDue { server: index, life });
    }

    pub(super) fn on_transfer_due(&mut self, index: usize) -> Verdict {
        loop {
            let server = &mut self.servers[index];
            let now = server.clock.local(self.now);
            let Some(fetch) = &mut server.fetch else { return Ok(()) };
            match fetch.receiver.poll(now) {
                Ok(Some(ask)) => self.ask(index, ask),
                Ok(None) => break,
                Err(why) => return self.give_up(index, &why),
            }
        }
        let server = &self.servers[index];
        if let Some(deadline) = server.fetch.as_ref().and_then(|fetch| fetch.receiver.deadline()) {
            let due = server.clock.due(deadline).max(self.now + Duration::from_millis(1));
            self.queue.push(due, Event::TransferDue { server: index, life: server.life });
        }
        Ok(())
    }

    fn ask(&mut self, index: usize, ask: TransferAsk) {
        let Some(from) = self.servers[index].fetch.as_ref().map(|fetch| fetch.receiver.from()) else { return };
        let peer = from.0 as usize;
        let by_life = self.servers[index].life;
        let at = self.now + self.network.delay();
        if self.servers[peer].replica.is_none() {
            let answer = Event::TransferAnswer { server: index, life: by_life, from, ask, answer: None };
            self.queue.push(at, answer);
        } else if !self.network.blocked(Process::Server(index), Process::Server(peer)) {
            let life = self.servers[peer].life;
            self.queue.push(at, Event::TransferAsk { server: peer, life, by: index, by_life, ask });
        }
    }

    fn give_up(&mut self, index: usize, why: &GiveUp) -> Verdict {
        let Some(fetch) = &self.servers[index].fetch else { return Ok(()) };
        let from = fetch.receiver.from();
        self.counters.failed_transfers += 1;
        self.trace.line(self.now, format_args!("server {index} gives up fetching from {from}: {why}"));
        self.servers[index].fetch = None;
        self.step_server(index, Input::TransferFailed { from })
    }

    /// A question arrives at whoever has the snapshot.
    pub(super) fn on_transfer_ask(&mut self, index: usize, by: usize, by_life: u32, ask: TransferAsk) -> Verdict {
        let rotten = self.servers[index].snapshots.last_key_value().filter(|(_, snapshot)| snapshot.rotten);
        if let Some(slot) = rotten.map(|(slot, _)| *slot) {
            // Whoever reads it sees it.
            self.servers[index].snapshots.remove(&slot);
            self.step_server(index, Input::SnapshotLost { slot })?;
        }
        let answer = match &ask {
            TransferAsk::Manifest { least, .. } => self.open(index, by, *least),
            TransferAsk::Chunk { manifest, index: chunk, .. } => self.chunk(index, by, manifest, *chunk as usize),
        };
        let wanted = matches!((&ask, &answer), (TransferAsk::Manifest { .. }, TransferAnswer::Nothing));
        if !self.network.blocked(Process::Server(index), Process::Server(by)) {
            let at = self.now + self.network.delay();
            let (from, answer) = (ReplicaId(index as u32), Some(answer));
            self.queue.push(at, Event::TransferAnswer { server: by, life: by_life, from, ask, answer });
        }
        if wanted {
            self.step_server(index, Input::Save)?;
        }
        self.pin(index)
    }

    fn open(&mut self, index: usize, by: usize, least: Slot) -> TransferAnswer {
        let server = &mut self.servers[index];
        let newest = server.snapshots.last_key_value();
        // Outside the budget: a snapshot of wrong answers that is fetched before anybody noticed makes two that differ.
        let usable = |snapshot: &Snapshot| !snapshot.tainted && !snapshot.image.hollow;
        let Some((_, snapshot)) = newest.filter(|(slot, snapshot)| **slot >= least && usable(snapshot)) else {
            return TransferAnswer::Nothing;
        };
        let (manifest, content) = content(snapshot, index, self.options.padding);
        let serving = Serving { manifest: manifest.clone(), content, asked_at: self.now };
        server.serving.insert(by, serving);
        self.queue.push(self.now + PIN, Event::ServingDue { server: index, life: server.life, by });
        TransferAnswer::Manifest(Box::new(manifest))
    }

    fn chunk(&mut self, index: usize, by: usize, manifest: &Digest, chunk: usize) -> TransferAnswer {
        let Some(serving) = self.servers[index].serving.get_mut(&by) else { return TransferAnswer::Gone };
        if serving.manifest.digest() != *manifest {
            return TransferAnswer::Gone;
        }
        serving.asked_at = self.now;
        if !self.healed && self.chance.chance(60) {
            return TransferAnswer::Gone;
        }
        let offset = (chunk * CHUNK_BYTES).min(serving.content.len());
        let bytes = serving.content.slice(offset..offset + serving.manifest.chunk_len(chunk));
        if !self.healed && self.chance.chance(100) && !bytes.is_empty() {
            // Damaged on the way.
            let mut damaged = bytes.to_vec();
            let place = self.chance.below(damaged.len() as u64) as usize;
            damaged[place] ^= 1;
            return TransferAnswer::Chunk(damaged.into());
        }
        TransferAnswer::Chunk(bytes)
    }

    /// Tells the core what is being served.
    fn pin(&mut self, index: usize) -> Verdict {
        let slot = self.servers[index].serving.values().map(|serving| serving.manifest.slot).min();
        self.step_server(index, Input::Serving { slot })
    }

    pub(super) fn on_serving_due(&mut self, index: usize, by: usize) -> Verdict {
        let server = &mut self.servers[index];
        let Some(serving) = server.serving.get(&by) else { return Ok(()) };
        if self.now.since(serving.asked_at) < PIN {
            let event = Event::ServingDue { server: index, life: server.life, by };
            self.queue.push(serving.asked_at + PIN, event);
            return Ok(());
        }
        server.serving.remove(&by);
        self.pin(index)
    }

    pub(super) fn on_transfer_answer(
        &mut self,
        index: usize,
        from: ReplicaId,
        ask: &TransferAsk,
        answer: Option<TransferAnswer>,
    ) -> Verdict {
        let server = &mut self.servers[index];
        let now = server.clock.local(self.now);
        let Some(fetch) = server.fetch.as_mut().filter(|fetch| fetch.receiver.from() == from) else { return Ok(()) };
        let taken = match answer {
            Some(answer) => fetch.receiver.on_answer(now, ask, answer),
            None => {
                fetch.receiver.on_failure(now, ask);
                Ok(Taken::Nothing)
            }
        };
        match taken {
            Ok(Taken::Begin(manifest)) => {
                fetch.chunks.clear();
                fetch.manifest = Some(manifest);
            }
            Ok(Taken::Chunk { index, bytes }) => {
                fetch.chunks.insert(index, bytes);
            }
            Ok(Taken::Nothing | Taken::Resume) => {}
            Err(why) => return self.give_up(index, &why),
        }
        if fetch.receiver.is_complete() { self.complete(index) } else { self.on_transfer_due(index) }
    }

    /// Everything is there: it is stored.
    fn complete(&mut self, index: usize) -> Verdict {
        let server = &mut self.servers[index];
        let Some(Fetch { manifest: Some(manifest), chunks, .. }) = server.fetch.take() else { return Ok(()) };
        let content: Vec<u8> = chunks.into_values().flatten().collect();
        let (image, dump) = content.split_at(manifest.image_len as usize);
        let image: Image = mesh::wire::decode(image).expect("every chunk was verified");
        let at = self.now + self.disk_chance.duration(Duration::from_millis(20));
        let (life, dump) = (server.life, Bytes::copy_from_slice(dump));
        self.queue.push(at, Event::Received { server: index, life, image: Box::new(image), dump });
        Ok(())
    }

    pub(super) fn on_received(&mut self, index: usize, image: Box<Image>, dump: &[u8]) -> Verdict {
        self.counters.transfers += 1;
        let snapshot = Snapshot::parse((*image).clone(), dump).expect("every chunk was verified");
        self.checks.on_image(index, image.slot);
        let server = &mut self.servers[index];
        server.needs = server.needs.max(image.slot);
        server.fetched = server.fetched.max(image.slot);
        self.keep(index, snapshot)?;
        self.step_server(index, Input::Received { image })
    }
}
