//! Clients of the echo servers, and the threads that all run in: one event loop each, as the parts of a cluster have.

use super::quic::{Identity, dial};
use super::quorum::{self, Links, Meeting, REQUEST};
use super::{Number, latencies};
use crate::generator::Latencies;
use crate::procfs;
use anyhow::Context;
use quinn::Connection;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;

/// Not measured, first.
const WARMUP: Duration = Duration::from_millis(500);
/// The servers must be there within this.
const MEETING: Duration = Duration::from_secs(20);

/// Runs `task` in a thread with an event loop of its own, until it ends or `end` does.
fn thread<F: Future<Output = anyhow::Result<()>>>(
    end: tokio::sync::oneshot::Receiver<()>,
    task: impl FnOnce() -> F + Send + 'static,
) -> anyhow::Result<std::thread::JoinHandle<anyhow::Result<()>>> {
    Ok(std::thread::Builder::new().name("server".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async {
            tokio::select! {
                result = task() => result,
                _ = end => Ok(()),
            }
        })
    })?)
}

/// A server that echoes each stream.
pub(super) fn one_server(name: &str, flight: usize, time: Duration) -> anyhow::Result<Number> {
    let identity = Arc::new(Identity::new()?);
    let (here, listens) = mpsc::channel();
    let (end, ended) = tokio::sync::oneshot::channel();
    let own = identity.clone();
    let server = thread(ended, move || async move { echo(&own, &here).await })?;
    let to = listens.recv_timeout(MEETING).context("the echo server does not start")?;
    let number = load(name, identity, vec![to], 1, flight, time);
    drop(end);
    server.join().map_err(|_| anyhow::anyhow!("the echo server's thread ended"))??;
    number
}

async fn echo(identity: &Identity, here: &mpsc::Sender<SocketAddr>) -> anyhow::Result<()> {
    let endpoint = identity.endpoint()?;
    here.send(endpoint.local_addr()?)?;
    while let Some(incoming) = endpoint.accept().await {
        let connection = incoming.await?;
        tokio::task::spawn_local(async move {
            while let Ok((mut answer, mut question)) = connection.accept_bi().await {
                if let Ok(request) = question.read_to_end(REQUEST).await {
                    let _ = answer.write_all(&request).await;
                    let _ = answer.finish();
                }
            }
        });
    }
    Ok(())
}

/// Three servers that agree on an order; `disk`: where they sync what they accept.
pub(super) fn three_servers(
    name: &str,
    flight: usize,
    time: Duration,
    disk: Option<&Path>,
    links: Links,
) -> anyhow::Result<Number> {
    let identity = Arc::new(Identity::new()?);
    let (here, listens) = mpsc::channel();
    let (met, meets) = mpsc::channel();
    let (mut ends, mut tells, mut servers) = (Vec::new(), Vec::new(), Vec::new());
    for id in 0..3 {
        let (end, ended) = tokio::sync::oneshot::channel();
        let (tell, all) = tokio::sync::oneshot::channel();
        let meeting = Meeting { id, here: here.clone(), met: met.clone(), all, disk: disk.map(Path::to_owned), links };
        let own = identity.clone();
        servers.push(thread(ended, move || async move { quorum::serve(&own, meeting).await })?);
        ends.push(end);
        tells.push(tell);
    }
    let mut all = vec![None; 3];
    for _ in 0..3 {
        let (id, address) = listens.recv_timeout(MEETING).context("the servers do not start")?;
        all[id] = Some(address);
    }
    let all: Vec<SocketAddr> = all.into_iter().flatten().collect();
    tells.into_iter().for_each(|tell| drop(tell.send(all.clone())));
    for _ in 0..3 {
        meets.recv_timeout(MEETING).context("the servers do not find each other")?;
    }
    let number = load(name, identity, all, 2, flight, time);
    drop(ends);
    for server in servers {
        server.join().map_err(|_| anyhow::anyhow!("a server's thread ended"))??;
    }
    number
}

/// What the client's requests share.
struct Asking {
    connections: Vec<Connection>,
    wanted: usize,
    next: Cell<u64>,
    latencies: RefCell<Latencies>,
    count: Cell<u64>,
    from: Instant,
    to: Instant,
}

/// Keeps so many requests in flight to all of `to`, each answered when `wanted` of them have answered.
fn load(
    name: &str,
    identity: Arc<Identity>,
    to: Vec<SocketAddr>,
    wanted: usize,
    flight: usize,
    time: Duration,
) -> anyhow::Result<Number> {
    let client = std::thread::Builder::new().name("client".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, ask(&identity, &to, wanted, flight, time))
    })?;
    let (latencies, count, cpu_us) = client.join().map_err(|_| anyhow::anyhow!("the client's thread ended"))??;
    anyhow::ensure!(count > 0, "{name}: not one request was answered");
    let seen = latencies.summary();
    let rate = count as f64 / time.as_secs_f64();
    Ok(Number::new(
        name,
        [("rate", rate), ("p50_us", seen.p50_us), ("p99_us", seen.p99_us), ("cpu_us", cpu_us / count as f64)],
    ))
}

async fn ask(
    identity: &Identity,
    to: &[SocketAddr],
    wanted: usize,
    flight: usize,
    time: Duration,
) -> anyhow::Result<(Latencies, u64, f64)> {
    let endpoint = identity.endpoint()?;
    let mut connections = Vec::new();
    for server in to {
        connections.push(tokio::time::timeout(MEETING, dial(&endpoint, *server)).await??);
    }
    let from = Instant::now() + WARMUP;
    let asking = Rc::new(Asking {
        connections,
        wanted,
        next: Cell::new(0),
        latencies: RefCell::new(latencies()),
        count: Cell::new(0),
        from,
        to: from + time,
    });
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..flight {
        let asking = asking.clone();
        tasks.spawn_local(async move { asking.run().await });
    }
    tokio::time::sleep_until(from.into()).await;
    let before = procfs::usage(std::process::id());
    tokio::time::sleep_until(asking.to.into()).await;
    let used = procfs::usage(std::process::id()) - before;
    while let Some(ended) = tokio::time::timeout(MEETING, tasks.join_next()).await.context("no answer")? {
        ended??;
    }
    let latencies = asking.latencies.replace(latencies());
    Ok((latencies, asking.count.get(), used.micros()))
}

impl Asking {
    async fn run(&self) -> anyhow::Result<()> {
        let mut request = [7; REQUEST];
        loop {
            let begun = Instant::now();
            if begun >= self.to {
                return Ok(());
            }
            let number = self.next.replace(self.next.get() + 1);
            request[..8].copy_from_slice(&number.to_be_bytes());
            let mut answers = tokio::task::JoinSet::new();
            for connection in &self.connections {
                let (mut question, mut answer) = connection.open_bi().await?;
                question.write_all(&request).await?;
                question.finish()?;
                answers.spawn_local(async move { answer.read_to_end(REQUEST).await.map(drop) });
            }
            for _ in 0..self.wanted {
                answers.join_next().await.context("no server is left")???;
            }
            // The rest come by themselves; nobody waits for them.
            answers.detach_all();
            let now = Instant::now();
            if (self.from..self.to).contains(&now) {
                self.count.set(self.count.get() + 1);
                self.latencies.borrow_mut().record(now - begun);
            }
        }
    }
}
