//! Two members with real links: one serves its snapshot, the other fetches it, and what is in between goes wrong.

use super::*;
use crate::metrics::Metrics;
use crate::peers::PeerLinks;
use crate::run::link_limits;
use crate::snapshot::Snapshots;
use crate::testing::{PATIENCE, TempDir, eventually_async};
use bytes::Bytes;
use mesh::config::{ClusterConfig, Durability};
use mesh::ids::Generation;
use mesh::net::{Credentials, Endpoint, LINK_MAX_AGE, Link, LinkKind};
use mesh::transfer::CHUNK_BYTES;
use mesh::wire::transfer::{TransferAnswer, TransferAsk};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const CLUSTER: &str = "kv.test";
const FETCHING: ReplicaId = ReplicaId(0);
const SERVING: ReplicaId = ReplicaId(1);
/// Chunks of the snapshot: the image and 6 MiB of a dump.
const CHUNKS: u64 = 7;

/// One member: its directory and what it needs for a transfer.
struct Member {
    dir: TempDir,
    snapshots: Snapshots,
    metrics: Metrics,
    endpoint: Endpoint,
}

impl Member {
    fn new(pki: &Path, id: ReplicaId) -> Self {
        let (dir, mut registry) = (TempDir::new(), mesh::node::registry());
        let metrics = Metrics::new(&mut registry);
        let snapshots = Snapshots::open(dir.path(), CLUSTER, id, &metrics).expect("a store");
        let credentials = Credentials::load(&pki.join(format!("server/{id}")), None).expect("credentials");
        let any = ([127, 0, 0, 1], 0).into();
        let endpoint = Endpoint::bind(any, credentials, &[LinkKind::Peer], link_limits(LINK_MAX_AGE), &mut registry);
        Self { dir, snapshots, metrics, endpoint: endpoint.expect("a socket") }
    }

    async fn take(&self, slot: u64) {
        let mut image = Image::genesis(ClusterConfig::of(3, "line/shared", Durability::Sync));
        image.slot = Slot(slot);
        let mut writer = self.snapshots.writer(Box::new(image));
        for piece in 0..6u8 {
            writer.write(vec![piece; CHUNK_BYTES].into()).await.expect("room");
        }
        writer.finish().await.expect("a snapshot");
    }
}

/// Both, and what the fetching one's driver has.
struct Pair {
    _pki: TempDir,
    fetching: Member,
    serving: Member,
    server: Server,
    transfers: Transfers,
    link: watch::Sender<Option<Link>>,
    view: watch::Receiver<Option<View>>,
}

impl Pair {
    fn new(rate: u64) -> Self {
        let dir = TempDir::new();
        let pki = certs::Pki::init(&dir.path().join("pki"), CLUSTER).expect("an authority");
        for id in [FETCHING, SERVING] {
            pki.issue("server", &id.to_string()).expect("a leaf");
        }
        let fetching = Member::new(&dir.path().join("pki"), FETCHING);
        let serving = Member::new(&dir.path().join("pki"), SERVING);
        let server = Server::new(Some(serving.snapshots.clone()));
        server.belongs_to(Generation::FIRST);
        let (link, links) = watch::channel(None);
        let (shown, view) = watch::channel(None);
        let fetcher = Fetcher {
            cluster: CLUSTER.to_owned(),
            generation: Generation::FIRST,
            snapshots: Some(fetching.snapshots.clone()),
            links: PeerLinks::of(SERVING, links),
            rate,
            metrics: fetching.metrics.clone(),
            view: shown,
        };
        let transfers = Transfers::start(fetcher, &Server::new(Some(fetching.snapshots.clone())));
        Self { _pki: dir, fetching, serving, server, transfers, link, view }
    }

    /// A new link; the serving end of it.
    async fn link(&self) -> Link {
        let address = self.serving.endpoint.local_addr().to_string();
        let dial = self.fetching.endpoint.dial(LinkKind::Peer, &address, None);
        let (dialled, accepted) = tokio::join!(dial, self.serving.endpoint.accept());
        self.link.send_replace(Some(dialled.expect("a link")));
        accepted.expect("a link")
    }

    /// A new link that is served as in production.
    async fn serve(&self) -> Link {
        let link = self.link().await;
        tokio::spawn(self.server.clone().serve(FETCHING, link.clone(), self.serving.metrics.clone()));
        link
    }

    async fn next(&mut self) -> Input {
        tokio::time::timeout(PATIENCE, self.transfers.next()).await.expect("an end in time")
    }

    async fn received(&mut self, slot: u64) {
        let Input::Received { image } = self.next().await else { panic!("not received") };
        assert_eq!(image.slot, Slot(slot));
        let [here, there] = [&self.fetching, &self.serving].map(|member| member.snapshots.file(Slot(slot)));
        assert_eq!(here.expect("stored").digest(), there.expect("kept").digest());
        self.fetching.snapshots.verify(Slot(slot), &mut |_| {}).expect("every byte of it");
        assert_eq!(*self.view.borrow(), None, "nothing is under way");
    }

    /// Bytes that came and were right.
    fn fetched(&self) -> u64 {
        self.fetching.metrics.state_transfer_bytes.get()
    }

    fn total(&self, slot: u64) -> u64 {
        self.serving.snapshots.file(Slot(slot)).expect("kept").manifest().total_len
    }
}

#[tokio::test]
async fn a_snapshot_is_fetched_whole_and_pinned_meanwhile() {
    let mut pair = Pair::new(0);
    pair.serving.take(5).await;
    pair.serve().await;
    let mut pinned = pair.server.serving();
    pair.transfers.fetch(SERVING, Slot(3));
    pair.received(5).await;
    assert_eq!(pair.fetched(), pair.total(5), "no chunk came twice");
    assert_eq!(*pinned.borrow_and_update(), Some(Slot(5)));
    pair.server.forget_idle(tokio::time::Instant::now());
    assert_eq!(*pinned.borrow(), Some(Slot(5)), "it may ask again");
    pair.server.forget_idle(tokio::time::Instant::now() + std::time::Duration::from_secs(31));
    assert_eq!(*pinned.borrow(), None);
}

#[tokio::test]
async fn after_a_broken_link_only_what_is_missing_is_fetched() {
    let mut pair = Pair::new(20 << 20);
    pair.serving.take(5).await;
    let first = pair.serve().await;
    pair.transfers.fetch(SERVING, Slot(3));
    let view = pair.view.clone();
    eventually_async("some of it is there", || view.borrow().is_some_and(|view| view.done_bytes > 0)).await;
    first.close("cut off by the test");
    assert!(pair.fetched() < pair.total(5), "it broke half-way");
    // A newer one takes its place: what is being fetched stays.
    pair.serving.take(9).await;
    pair.serving.snapshots.cut(Slot(9));
    pair.serve().await;
    let Input::Received { image } = pair.next().await else { panic!("not received") };
    assert_eq!(image.slot, Slot(5));
    assert_eq!(pair.fetched(), pair.total(9), "no chunk came twice");
}

#[tokio::test]
async fn an_order_to_another_peer_takes_the_place_and_what_is_there_is_kept_for_the_next() {
    let mut pair = Pair::new(20 << 20);
    pair.serving.take(5).await;
    pair.serve().await;
    pair.transfers.fetch(SERVING, Slot(3));
    let view = pair.view.clone();
    eventually_async("some of it is there", || view.borrow().is_some_and(|view| view.done_bytes > 0)).await;
    pair.transfers.fetch(ReplicaId(2), Slot(3));
    eventually_async("the other is asked", || view.borrow().is_none()).await;
    pair.transfers.fetch(SERVING, Slot(4));
    pair.received(5).await;
    // What was in flight at the change is fetched again; what was stored is not.
    assert!(pair.fetched() <= pair.total(5) + 4 * CHUNK_BYTES as u64);
}

#[tokio::test]
async fn a_byte_that_is_flipped_in_flight_is_fetched_again() {
    let mut pair = Pair::new(0);
    pair.serving.take(5).await;
    let (link, server) = (pair.link().await, pair.server.clone());
    let answers = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&answers);
    tokio::spawn(async move {
        while let Ok((bytes, stream)) = link.accept_ask().await {
            let ask: TransferAsk = mesh::wire::decode(&bytes).expect("a question");
            let mut answer = server.answer(Asker::Peer(FETCHING), &ask).await;
            if let TransferAnswer::Chunk(chunk) = &mut answer
                && counted.fetch_add(1, Ordering::Relaxed).is_multiple_of(3)
            {
                let mut flipped = chunk.to_vec();
                flipped[99] ^= 1;
                *chunk = Bytes::from(flipped);
            }
            stream.answer(mesh::wire::encode(&answer)).await.expect("answered");
        }
    });
    pair.transfers.fetch(SERVING, Slot(3));
    pair.received(5).await;
    assert!(answers.load(Ordering::Relaxed) > CHUNKS, "some came more than once");
    assert_eq!(pair.fetched(), pair.total(5), "and each was right once");
}

#[tokio::test]
async fn a_byte_that_rots_on_the_servers_disk_ends_the_transfer_and_the_snapshot() {
    let mut pair = Pair::new(0);
    pair.serving.take(5).await;
    let path = pair.serving.dir.path().join("snapshots/00000000000000000005.snapshot");
    let mut bytes = std::fs::read(&path).expect("the snapshot");
    bytes[3 * CHUNK_BYTES + 7] ^= 1;
    std::fs::write(&path, bytes).expect("rotten");
    pair.serve().await;
    for _ in 0..2 {
        pair.transfers.fetch(SERVING, Slot(3));
        assert_eq!(pair.next().await, Input::TransferFailed { from: SERVING });
        assert_eq!(pair.serving.snapshots.newest(), None, "it is set aside");
    }
    assert_eq!(pair.fetching.snapshots.newest(), None);
    pair.serving.take(6).await;
    pair.transfers.fetch(SERVING, Slot(3));
    pair.received(6).await;
    let left = std::fs::read_dir(pair.fetching.dir.path().join("snapshots")).expect("a directory").count();
    assert_eq!(left, 1, "nothing of the failed one stays");
}

#[tokio::test]
async fn a_peer_of_another_generation_gets_nothing_and_an_operator_gets_all_without_holding_up_the_log() {
    let pair = Pair::new(0);
    pair.serving.take(5).await;
    let ask = |generation| TransferAsk::Manifest { least: Slot(3), generation };
    for other in [Generation::default(), Generation { mark: 1, ..Generation::FIRST }, Generation::FIRST.next(0)] {
        let answer = pair.server.answer(Asker::Peer(FETCHING), &ask(other)).await;
        assert_eq!(answer, TransferAnswer::Nothing, "{other}");
    }
    let TransferAnswer::Manifest(manifest) = pair.server.answer(Asker::Operator, &ask(Generation::default())).await
    else {
        panic!("an operator need not know the generation");
    };
    assert_eq!(*pair.server.serving().borrow(), None, "nothing of the log is kept for an operator");
    let chunk = TransferAsk::Chunk { slot: Slot(5), manifest: manifest.digest(), index: 0 };
    assert!(matches!(pair.server.answer(Asker::Operator, &chunk).await, TransferAnswer::Chunk(_)));
    assert!(matches!(
        pair.server.answer(Asker::Peer(FETCHING), &ask(Generation::FIRST)).await,
        TransferAnswer::Manifest(_)
    ));
    assert_eq!(*pair.server.serving().borrow(), Some(Slot(5)));
}
