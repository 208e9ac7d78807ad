//! What the application is asked and what comes of it, against small servers in the test and real processes.

mod children;
mod execution;
mod marker;
mod own;
mod resets;
mod silence;
mod snapshots;

use super::{Command, Event, Evidence, Handle, Settings, State, spawn};
use crate::App;
use crate::config::SnapshotMode;
use crate::metrics::Metrics;
use crate::snapshot::Snapshots;
use crate::testing::{PATIENCE, TempDir, eventually_async};
use bytes::Bytes;
use mesh::config::{ClusterConfig, Durability};
use mesh::framing::{Adapter, Connections, Protocol};
use mesh::ids::{ClientId, ReplicaId, Run, Slot};
use mesh::order::{Image, Operation};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

fn adapter(protocol: Protocol, connections: Connections) -> Adapter {
    Adapter { protocol, connections, request_bytes: 1 << 20, reply_bytes: 1 << 20 }
}

const SHARED: (Protocol, Connections) = (Protocol::Line, Connections::Shared);

/// A worker on an application.
struct Fixture {
    handle: Handle,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    snapshots: Snapshots,
    dir: Arc<TempDir>,
}

fn settings(dir: &Path, app: App, adapter: Adapter, timeout: Duration) -> Settings {
    Settings {
        app: Some(app),
        id: 0,
        data_dir: Some(dir.to_owned()),
        adapter,
        timeout,
        sessions: 4,
        snapshot: SnapshotMode::None,
        snapshot_timeout: PATIENCE,
        reset_request: None,
        empty_probe: None,
        supervisor: None,
        snapshots: Arc::default(),
        evidence: Evidence::new(Some(dir.to_owned())),
        metrics: Metrics::new(&mut mesh::node::Registry::default()),
    }
}

impl Fixture {
    fn on(app: impl FnOnce(&Path) -> App, adapter: Adapter, timeout: Duration) -> Self {
        let dir = Arc::new(TempDir::new());
        let settings = settings(dir.path(), app(dir.path()), adapter, timeout);
        Self::with(dir, settings)
    }

    fn with(dir: Arc<TempDir>, settings: Settings) -> Self {
        let snapshots = Snapshots::open(dir.path(), "kv.test", ReplicaId(0), &settings.metrics).expect("a store");
        settings.snapshots.set(snapshots.clone()).expect("set once");
        let (stop, stopped) = watch::channel(false);
        let (handle, task) = spawn(settings, stopped);
        Self { handle, stop, task, snapshots, dir }
    }

    /// An orderly end.
    async fn end(self) {
        self.stop.send(true).expect("the worker runs");
        self.task.await.expect("an orderly end");
    }

    async fn dump(&mut self, run: u64, slot: u64) -> Event {
        let mut image = Image::genesis(ClusterConfig::of(3, "line/shared", Durability::Sync));
        image.slot = Slot(slot);
        self.send(Command::Dump { run: Run(run), image: Box::new(image) }).await;
        self.next().await
    }

    async fn load(&mut self, run: u64, slot: u64) -> Event {
        self.send(Command::Reset { run: Run(run), snapshot: Some(Slot(slot)) }).await;
        self.next().await
    }

    fn found(listener: &TcpListener, (protocol, connections): (Protocol, Connections), timeout: Duration) -> Self {
        let address = listener.local_addr().expect("address");
        Self::on(|_| App::Address(address), adapter(protocol, connections), timeout)
    }

    async fn send(&self, command: Command) {
        self.handle.commands.send(command).await.expect("the worker runs");
    }

    async fn next(&mut self) -> Event {
        let event = tokio::time::timeout(PATIENCE, self.handle.events.recv()).await.expect("an event in time");
        event.expect("the worker runs")
    }

    async fn reset(&mut self, run: u64) {
        self.send(Command::Reset { run: Run(run), snapshot: None }).await;
        assert_eq!(self.next().await, Event::Restored { run: Run(run) });
    }

    async fn execute(&self, run: u64, slot: u64, requests: &[&str]) {
        self.execute_as(run, slot, &requests.iter().map(|request| (1, *request)).collect::<Vec<_>>()).await;
    }

    async fn execute_as(&self, run: u64, slot: u64, requests: &[(u128, &str)]) {
        let call = |(client, request): &(u128, &str)| Operation::Call {
            session: (ClientId(*client), mesh::ids::Generation::FIRST.at(Slot(1))),
            bytes: Bytes::copy_from_slice(request.as_bytes()),
        };
        let operations = requests.iter().map(call).collect();
        self.send(Command::Execute { run: Run(run), slot: Slot(slot), operations, patient: 0 }).await;
    }

    /// The first `patient` calls without a time limit.
    async fn execute_patiently(&self, run: u64, slot: u64, requests: &[&str], patient: usize) {
        let call = |request: &&str| Operation::Call {
            session: (ClientId(1), mesh::ids::Generation::FIRST.at(Slot(1))),
            bytes: Bytes::copy_from_slice(request.as_bytes()),
        };
        let operations = requests.iter().map(call).collect();
        self.send(Command::Execute { run: Run(run), slot: Slot(slot), operations, patient }).await;
    }

    /// The replies of the next slot, which must be this one.
    async fn replies(&mut self, run: u64, slot: u64) -> Vec<String> {
        match self.next().await {
            Event::Executed { run: of, slot: at, replies } if (of, at) == (Run(run), Slot(slot)) => {
                replies.iter().map(|reply| String::from_utf8_lossy(&reply.bytes).into_owned()).collect()
            }
            other => panic!("not the replies of run {run}, slot {slot}: {other:?}"),
        }
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

async fn accept(listener: &TcpListener) -> TcpStream {
    let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("a connection in time");
    accepted.expect("accept").0
}

async fn read_until(stream: &mut TcpStream, expected: &str) {
    let mut read = vec![0; expected.len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut read)).await.expect("in time").expect("read");
    assert_eq!(String::from_utf8_lossy(&read), expected);
}

/// This test program as an application: a line server that counts its lines, so that old state shows, and
/// keeps the count in its directory when it is told to.
fn counting_server() -> Vec<String> {
    let program = std::env::current_exe().expect("this program").display().to_string();
    [&program, "--ignored", "--exact", "app::tests::serve_as_the_application"].map(str::to_owned).to_vec()
}

#[test]
#[ignore = "the other tests run it as the application"]
fn serve_as_the_application() {
    use std::io::{BufRead, BufReader, Write};
    let Some(port) = std::env::var("PORT").ok().and_then(|port| port.parse::<u16>().ok()) else { return };
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port");
    let mut count = std::fs::read_to_string("state").map_or(0, |count| count.parse::<u32>().expect("a number"));
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection");
        for line in BufReader::new(stream.try_clone().expect("a handle")).lines() {
            match line.expect("a line").as_str() {
                "die" => std::process::exit(3),
                "hang" => loop {
                    std::thread::park();
                },
                "keep" => std::fs::write("state", count.to_string()).expect("written"),
                _ => count += 1,
            }
            writeln!(stream, "{count}").expect("write");
        }
    }
}

/// A port that was free a moment ago.
async fn free_port() -> u16 {
    // Each once: the kernel may give the same to two tests. And below what it gives to outgoing connections, so that none
    // of those sits on it before the application does.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id() + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + u16::try_from(number % 20_000).expect("less than a port");
        if TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
            return port;
        }
    }
}

fn child(dir: &Path, port: u16) -> App {
    App::Command { argv: counting_server(), port, dir: dir.join("app") }
}

/// Whether Redis is here; says why a test is skipped. `LOCKSTEP_REQUIRE_REDIS=1`: its absence is a failure.
fn has_redis() -> bool {
    let output = std::process::Command::new("redis-server").arg("--version").output();
    if output.is_ok_and(|output| output.status.success()) {
        return true;
    }
    assert!(std::env::var_os("LOCKSTEP_REQUIRE_REDIS").is_none_or(|value| value != "1"), "Redis is not installed");
    println!("SKIPPED: redis-server is not installed");
    false
}

const RESP: (Protocol, Connections) = (Protocol::Resp, Connections::Shared);

/// A Redis as a child of the sidecar.
fn redis(dir: &Path, port: u16) -> App {
    let words =
        ["redis-server", "--port", "{port}", "--save", "", "--appendonly", "no", "--enable-debug-command", "yes"];
    App::Command { argv: words.map(str::to_owned).to_vec(), port, dir: dir.join("app") }
}
