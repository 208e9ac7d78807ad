//! What the unit tests of this crate share.

use crate::{App, Config, SnapshotMode};
use mesh::config::{ClusterConfig, Divergence, Durability};
use mesh::framing::{Adapter, Connections, Protocol};
use mesh::ids::{Ballot, Digest, Epoch, Generation, Incarnation, ReplicaId, Slot};
use mesh::limits::{Limits, Timing};
use mesh::order::{Role, Status};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A directory that goes with its value.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("lockstep-sidecar-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Settings of a member that nobody starts.
pub(crate) fn config() -> Config {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let (protocol, connections) = (Protocol::Line, Connections::Shared);
    Config {
        cluster: "test".to_owned(),
        id: 0,
        pki: PathBuf::new(),
        trust_bundle: None,
        crl: None,
        link_max_age: mesh::net::LINK_MAX_AGE,
        quic: nowhere,
        admin: nowhere,
        seeds: (0..3).map(|id| (id, nowhere.to_string())).collect(),
        advertise: None,
        data_dir: None,
        app: Some(App::Address(nowhere)),
        adapter: Adapter { protocol, connections, request_bytes: 1 << 20, reply_bytes: 1 << 20 },
        durability: Durability::Sync,
        request_signatures: mesh::auth::Signatures::Off,
        reply_signatures: mesh::auth::Signatures::Off,
        drain_timeout: PATIENCE,
        timing: Timing::DEFAULT,
        limits: Limits::DEFAULT,
        snapshots: None,
        transfer_rate: 0,
        divergence: Divergence::Rebuild,
        app_timeout: PATIENCE,
        app_snapshot: SnapshotMode::None,
        app_snapshot_timeout: PATIENCE,
        app_reset_request: None,
        app_empty_probe: None,
        app_supervisor: None,
        read_only: mesh::framing::ReadOnly::default(),
    }
}

/// A replica that follows, and has executed everything.
pub(crate) fn following() -> Status {
    Status {
        role: Role::Follower,
        ballot: Ballot::NONE,
        leader: Some(ReplicaId(1)),
        ready: false,
        decided: Slot(9),
        executed: Slot(9),
        settled: Slot(9),
        log_first: Slot(1),
        log_last: Slot(9),
        sessions: 0,
        held: 0,
        app_running: true,
        app_resets: 1,
        digest_now: Digest::default(),
        digest: (Slot(0), Digest::default()),
        snapshot: Slot(0),
        log_bytes: 0,
        generation: Generation::FIRST,
        epoch: Epoch(0),
        incarnation: Incarnation(1),
        members: ClusterConfig::of(3, "line/shared", Durability::Sync).members,
        target_members: 3,
        changing: false,
        silent: None,
        quarantined: false,
        divergences: 0,
        behind: 0,
        read_rounds: 0,
    }
}

/// Waits until `holds`, and fails when it does not in time.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The same, letting other tasks run.
pub(crate) async fn eventually_async(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
