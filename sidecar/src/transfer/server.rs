//! Serving own snapshots: whoever asks for one gets it whole even when newer ones take its place meanwhile.

use crate::metrics::Metrics;
use crate::snapshot::{SnapshotFile, Snapshots};
use mesh::ids::{Digest, Generation, ReplicaId, Slot};
use mesh::net::Link;
use mesh::node::Quiet;
use mesh::wire::transfer::{TransferAnswer, TransferAsk};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

/// Chunks that are read at one time.
const READS: usize = 2;
/// A peer of another version would fill the log.
static MALFORMED: Quiet = Quiet::new();
/// A peer that asks nothing for so long loses what was kept for it.
const IDLE: Duration = Duration::from_secs(30);
/// Between two looks at who is idle.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asker {
    /// A peer, which needs the log behind the snapshot too.
    Peer(ReplicaId),
    /// An operator, who keeps a copy.
    Operator,
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Server(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None`: this member has no place for snapshots.
    snapshots: Option<Snapshots>,
    /// The generation that this member is part of, once it is known: peers of another one get nothing.
    generation: OnceLock<Generation>,
    /// What each asker fetches; one each.
    served: Mutex<BTreeMap<Asker, Served>>,
    /// The lowest slot of them.
    lowest: watch::Sender<Option<Slot>>,
    /// The snapshot that was last found damaged.
    lost: watch::Sender<Option<Slot>>,
    /// A peer needs a newer snapshot than there is, and when that was said last.
    wanted: watch::Sender<()>,
    said: Mutex<Option<Instant>>,
    reads: Semaphore,
}

#[derive(Debug)]
struct Served {
    file: Arc<SnapshotFile>,
    asked: Instant,
}

impl Server {
    pub(crate) fn new(snapshots: Option<Snapshots>) -> Self {
        let ((lowest, _), (lost, _), (wanted, _)) = (watch::channel(None), watch::channel(None), watch::channel(()));
        let served = Mutex::default();
        Self(Arc::new(Inner {
            snapshots,
            generation: OnceLock::new(),
            served,
            lowest,
            lost,
            wanted,
            said: Mutex::default(),
            reads: Semaphore::new(READS),
        }))
    }

    /// This member is part of that generation.
    pub(crate) fn belongs_to(&self, generation: Generation) {
        // Of one for as long as the process lives.
        let _ = self.0.generation.set(generation);
    }

    /// The lowest slot that is served to a peer.
    pub(crate) fn serving(&self) -> watch::Receiver<Option<Slot>> {
        self.0.lowest.subscribe()
    }

    /// The snapshot that was last found damaged, for the core to know that it has it no more.
    pub(crate) fn lost(&self) -> watch::Receiver<Option<Slot>> {
        self.0.lost.subscribe()
    }

    /// A snapshot is to be taken for a peer.
    pub(crate) fn wanted(&self) -> watch::Receiver<()> {
        self.0.wanted.subscribe()
    }

    /// Forgets idle peers, for as long as this process serves.
    pub(crate) async fn sweep(self) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.forget_idle(Instant::now());
        }
    }

    /// Answers what a peer asks over a link until it is gone; one question at a time.
    pub(crate) async fn serve(self, from: ReplicaId, link: Link, metrics: Metrics) {
        while let Ok((bytes, stream)) = link.accept_ask().await {
            let Ok(ask) = mesh::wire::decode::<TransferAsk>(&bytes) else {
                metrics.malformed("peer");
                if let Some(suppressed) = MALFORMED.may_speak() {
                    tracing::warn!(peer = %from, suppressed, "a question of a peer does not decode: do both run the same version?");
                }
                continue;
            };
            let answer = self.answer(Asker::Peer(from), &ask).await;
            // A peer that does not take it asks again.
            let _ = stream.answer_last(mesh::wire::encode(&answer)).await;
        }
    }

    /// Answers one question.
    pub(crate) async fn answer(&self, from: Asker, ask: &TransferAsk) -> TransferAnswer {
        match *ask {
            TransferAsk::Manifest { generation, .. }
                if from != Asker::Operator && self.0.generation.get() != Some(&generation) =>
            {
                TransferAnswer::Nothing
            }
            TransferAsk::Manifest { least, .. } => self.manifest(from, least),
            TransferAsk::Chunk { slot, manifest, index } => self.chunk(from, slot, manifest, index as usize).await,
        }
    }

    fn manifest(&self, from: Asker, least: Slot) -> TransferAnswer {
        let newest = self.0.snapshots.as_ref().and_then(|snapshots| snapshots.list().pop());
        let Some(file) = newest.filter(|file| file.manifest().slot >= least) else {
            self.want();
            return TransferAnswer::Nothing;
        };
        let manifest = file.manifest().clone();
        tracing::info!(by = ?from, slot = %manifest.slot, bytes = manifest.total_len, "a snapshot is fetched");
        let mut served = self.served();
        served.insert(from, Served { file, asked: Instant::now() });
        self.tell(&served);
        TransferAnswer::Manifest(Box::new(manifest))
    }

    /// A peer asks again and again; one snapshot at a time is enough.
    fn want(&self) {
        let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|at| at.elapsed() >= IDLE) {
            *said = Some(Instant::now());
            self.0.wanted.send_replace(());
        }
    }

    async fn chunk(&self, from: Asker, slot: Slot, digest: Digest, index: usize) -> TransferAnswer {
        let Some(snapshots) = &self.0.snapshots else { return TransferAnswer::Gone };
        let Some(file) = self.find(from, snapshots, slot, digest) else { return TransferAnswer::Gone };
        if index >= file.manifest().chunks.len() {
            return TransferAnswer::Nothing;
        }
        // Never closed.
        let _read = self.0.reads.acquire().await;
        let snapshots = snapshots.clone();
        let read = tokio::task::spawn_blocking(move || snapshots.judge(&file, file.chunk(index))).await;
        match read {
            Ok(Ok(bytes)) => TransferAnswer::Chunk(bytes),
            // It is damaged and set aside, which was said, or the process ends.
            Ok(Err(_)) | Err(_) => {
                self.0.lost.send_replace(Some(slot));
                let mut served = self.served();
                served.remove(&from);
                self.tell(&served);
                TransferAnswer::Gone
            }
        }
    }

    /// The snapshot that the peer fetches, or, if it was forgotten, the same one while it is still kept.
    fn find(&self, from: Asker, snapshots: &Snapshots, slot: Slot, digest: Digest) -> Option<Arc<SnapshotFile>> {
        let mut served = self.served();
        let known = served.get(&from).map(|served| Arc::clone(&served.file));
        let file = [known, snapshots.file(slot)].into_iter().flatten().find(|file| file.digest() == digest)?;
        served.insert(from, Served { file: Arc::clone(&file), asked: Instant::now() });
        self.tell(&served);
        Some(file)
    }

    pub(super) fn forget_idle(&self, now: Instant) {
        let mut served = self.served();
        served.retain(|by, served| {
            let idle = now.saturating_duration_since(served.asked) >= IDLE;
            if idle {
                tracing::info!(?by, slot = %served.file.manifest().slot, "nothing more of a snapshot is asked for");
            }
            !idle
        });
        self.tell(&served);
    }

    fn tell(&self, served: &BTreeMap<Asker, Served>) {
        let peers = served.iter().filter(|(by, _)| **by != Asker::Operator);
        let lowest = peers.map(|(_, served)| served.file.manifest().slot).min();
        self.0.lowest.send_if_modified(|told| std::mem::replace(told, lowest) != lowest);
    }

    fn served(&self) -> MutexGuard<'_, BTreeMap<Asker, Served>> {
        self.0.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
