//! The task that fetches a peer's snapshot: asks as the receiver says, stores what it confirms, tells how far it is.

use super::throttle::Throttle;
use super::{Fetched, Order};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::peers::PeerLinks;
use crate::snapshot::{Part, Snapshots};
use anyhow::Context;
use bytes::Bytes;
use mesh::ids::{Generation, ReplicaId, Slot};
use mesh::order::Image;
use mesh::time::{Duration, Instant};
use mesh::transfer::{Manifest, Receiver, Taken};
use mesh::wire::transfer::TransferAsk;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep_until, timeout};

/// What was fetched of a snapshot is kept this long after an attempt failed, so that the next can go on with it.
const KEPT: Duration = Duration::from_secs(60);
/// A failure is told after this, so that a peer without a snapshot is not asked in a tight loop.
const FAILURE_PAUSE: Duration = Duration::from_millis(500);
/// At least this often a log line says how far it is.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct View {
    /// Whose snapshot.
    pub(crate) from: ReplicaId,
    /// Of which slot.
    pub(crate) slot: Slot,
    /// Bytes that are here and verified.
    pub(crate) done_bytes: u64,
    /// Bytes of all.
    pub(crate) total_bytes: u64,
    /// Bytes in a second, since it began.
    pub(crate) rate: f64,
    /// When it began.
    pub(crate) started: std::time::SystemTime,
}

/// See the module.
pub(crate) struct Fetcher {
    pub(crate) cluster: String,
    pub(crate) generation: Generation,
    /// `None`: this member has no place for snapshots.
    pub(crate) snapshots: Option<Snapshots>,
    pub(crate) links: PeerLinks,
    /// Bytes in a second at most; 0: no bound.
    pub(crate) rate: u64,
    pub(crate) metrics: Metrics,
    pub(crate) view: watch::Sender<Option<View>>,
}

impl Fetcher {
    pub(super) async fn run(self, mut orders: watch::Receiver<Option<Order>>, told: mpsc::Sender<Fetched>) {
        let mut kept: Option<Attempt> = None;
        loop {
            let ordered = match timeout(KEPT, orders.changed()).await {
                Ok(ordered) => ordered,
                Err(_) => {
                    drop(kept.take());
                    orders.changed().await
                }
            };
            let order = *orders.borrow_and_update();
            let (Ok(()), Some(order)) = (ordered, order) else { return };
            let mut attempt = self.attempt(order, kept.take());
            let result = tokio::select! {
                result = self.fetch(&mut attempt) => Some(result),
                () = replaced(&mut orders, order) => None,
            };
            self.view.send_replace(None);
            let fetched = match result {
                Some(Ok(image)) => Fetched::Received(image),
                Some(Err(error)) => {
                    let (from, error) = (order.from, format!("{error:#}"));
                    tracing::warn!(%from, least = %order.least, error, "no snapshot was fetched from this peer");
                    tokio::time::sleep(FAILURE_PAUSE).await;
                    kept = Some(attempt);
                    Fetched::Failed(from)
                }
                None => {
                    kept = Some(attempt);
                    continue;
                }
            };
            if told.send(fetched).await.is_err() {
                return;
            }
        }
    }

    /// A new attempt, with what is of use of the one before.
    fn attempt(&self, Order { from, least }: Order, before: Option<Attempt>) -> Attempt {
        let (receiver, part) = match before {
            Some(Attempt { receiver, part: Some(part), .. }) => (receiver.again(from, least), Some(part)),
            // Chunks of a file that is gone are of no use.
            _ => (Receiver::new(&self.cluster, self.generation, from, least), None),
        };
        Attempt { receiver, part, throttle: Throttle::new(self.rate), clock: Clock::start(), progress: None }
    }

    async fn fetch(&self, attempt: &mut Attempt) -> anyhow::Result<Box<Image>> {
        let snapshots = self.snapshots.as_ref().context("without --data-dir there is no place for a snapshot")?;
        let from = attempt.receiver.from();
        let mut asks = JoinSet::new();
        while !attempt.receiver.is_complete() {
            let wake = loop {
                let now = attempt.clock.now();
                if let Some(until) = attempt.throttle.wait(now) {
                    break Some(until);
                }
                let Some(ask) = attempt.receiver.poll(now)? else { break attempt.receiver.deadline() };
                attempt.throttle.take(now, attempt.receiver.weight(&ask));
                asks.spawn(self.ask(from, ask));
            };
            let wake = attempt.clock.timer(wake.unwrap_or_else(|| attempt.clock.now() + LOG_EVERY));
            tokio::select! {
                Some(answered) = asks.join_next() => {
                    // A task that was ended early is a question without an answer: asked again.
                    if let Ok((ask, answer)) = answered {
                        self.take(snapshots, attempt, &ask, answer).await?;
                    }
                }
                () = sleep_until(wake) => {}
            }
        }
        let part = attempt.part.take().context("the file of the snapshot is gone")?;
        let image = spawn_blocking(move || part.finish()).await.context("the disk's task ended")??;
        if let Some(progress) = &attempt.progress {
            progress.done(&attempt.receiver, attempt.clock.now());
        }
        Ok(image)
    }

    /// Asks over the link that there is now.
    fn ask(&self, from: ReplicaId, ask: TransferAsk) -> impl Future<Output = (TransferAsk, Option<Bytes>)> + use<> {
        let link = self.links.get(from);
        async move {
            let Some(link) = link else { return (ask, None) };
            let answer = link.ask(mesh::wire::encode(&ask)).await;
            (ask, answer.ok())
        }
    }

    async fn take(
        &self,
        snapshots: &Snapshots,
        attempt: &mut Attempt,
        ask: &TransferAsk,
        answer: Option<Bytes>,
    ) -> anyhow::Result<()> {
        let now = attempt.clock.now();
        let Some(answer) = answer else {
            attempt.receiver.on_failure(now, ask);
            return Ok(());
        };
        let answer =
            mesh::wire::decode(&answer).context("its answer does not decode: do both run the same version?")?;
        match attempt.receiver.on_answer(now, ask, answer)? {
            Taken::Nothing => {}
            Taken::Begin(manifest) => {
                // The file of another snapshot goes first, for its room.
                drop(attempt.part.take());
                let (snapshots, begun) = (snapshots.clone(), manifest.clone());
                let part = spawn_blocking(move || snapshots.part(begun)).await.context("the disk's task ended")??;
                attempt.part = Some(part);
                attempt.progress = Some(Progress::start(&attempt.receiver, &manifest, now));
            }
            Taken::Resume => {
                let part = attempt.part.as_ref().context("the file of the snapshot is gone")?;
                attempt.progress = Some(Progress::start(&attempt.receiver, part.manifest(), now));
            }
            Taken::Chunk { index, bytes } => {
                self.metrics.state_transfer_bytes.inc_by(bytes.len() as u64);
                // Taken out: if this is dropped half-way, nobody knows what was stored, and the file goes.
                let mut part = attempt.part.take().context("the file of the snapshot is gone")?;
                let stored = spawn_blocking(move || part.write(index, &bytes).map(|()| part)).await;
                attempt.part = Some(stored.context("the disk's task ended")??);
            }
        }
        if let Some(progress) = &mut attempt.progress {
            self.view.send_replace(Some(progress.look(&attempt.receiver, now)));
        }
        Ok(())
    }
}

/// Resolves when there is another order, which is still to be taken, or nobody is left to give one.
async fn replaced(orders: &mut watch::Receiver<Option<Order>>, order: Order) {
    while orders.changed().await.is_ok() {
        if *orders.borrow_and_update() != Some(order) {
            return orders.mark_changed();
        }
    }
}

/// One order under way, and what of it is kept for the next.
struct Attempt {
    receiver: Receiver,
    part: Option<Part>,
    throttle: Throttle,
    clock: Clock,
    progress: Option<Progress>,
}

/// What people are told.
struct Progress {
    begun: Instant,
    /// Bytes that were there when it began.
    had: u64,
    view: View,
    logged: (Instant, u64),
}

impl Progress {
    fn start(receiver: &Receiver, manifest: &Manifest, now: Instant) -> Self {
        let (from, slot) = (receiver.from(), manifest.slot);
        let (had, total_bytes) = receiver.progress();
        tracing::info!(%from, %slot, bytes = total_bytes, had, "fetching a snapshot");
        let started = std::time::SystemTime::now();
        let view = View { from, slot, done_bytes: had, total_bytes, rate: 0.0, started };
        Self { begun: now, had, view, logged: (now, had) }
    }

    fn look(&mut self, receiver: &Receiver, now: Instant) -> View {
        self.view.done_bytes = receiver.progress().0;
        self.view.rate = self.rate(now);
        let View { from, slot, done_bytes: done, total_bytes: total, rate, .. } = self.view;
        let (logged_at, logged) = self.logged;
        if done < total && (now >= logged_at + LOG_EVERY || (done - logged) >= total / 10) {
            self.logged = (now, done);
            let percent = done as f64 * 100.0 / total as f64;
            tracing::info!(%from, %slot, done, total, "fetching a snapshot: {percent:.0} %, {:.1} MiB/s", mebi(rate));
        }
        self.view
    }

    fn done(&self, receiver: &Receiver, now: Instant) {
        let (bytes, seconds, rate) = (receiver.progress().1, now.since(self.begun).as_secs_f64(), mebi(self.rate(now)));
        let View { from, slot, .. } = self.view;
        tracing::info!(%from, %slot, bytes, seconds, "a snapshot was fetched and verified, at {rate:.1} MiB/s");
    }

    fn rate(&self, now: Instant) -> f64 {
        let seconds = now.since(self.begun).as_secs_f64().max(1e-3);
        (self.view.done_bytes - self.had) as f64 / seconds
    }
}

fn mebi(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}
