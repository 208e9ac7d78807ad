//! The TCP side: accepts connections up to a bound and serves each in a task of its own.

use super::connection::{self, Shared};
use super::limits::Limits;
use super::tls::{Flushed, Tls};
use mesh::client::sender::Connection;
use mesh::framing::Manner;
use mesh::node::Quiet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use rustix::net::sockopt;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

/// Connections that the kernel may hold for us.
const BACKLOG: u32 = 4096;
/// A client whose machine vanished is noticed after about 60 s + 4 · 15 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;
/// Pause after the system refused to accept: it is out of descriptors or memory.
const BREATH: Duration = Duration::from_millis(100);

/// While there are no files left every try fails.
static CANNOT_ACCEPT: Quiet = Quiet::new();

/// What the TCP side counts.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    /// Connections that are open.
    pub(super) open: Gauge,
    /// Connections that were accepted.
    pub(super) accepts: Counter,
}

/// Opens the port.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `stop` turns true, then until every connection has ended.
pub(super) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    tls: Option<Arc<Tls>>,
    metrics: Metrics,
    mut stop: watch::Receiver<bool>,
) {
    let mut door = Door {
        shared,
        tls,
        metrics,
        stop: stop.clone(),
        connections: JoinSet::new(),
        sources: Sources::default(),
        next: 0,
    };
    while !*stop.borrow_and_update() {
        tokio::select! {
            biased;
            _ = stop.changed() => {}
            Some(ended) = door.connections.join_next() => door.left(ended.ok()),
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => door.admit(stream, from),
                Err(error) => {
                    if let Some(suppressed) = CANNOT_ACCEPT.may_speak() {
                        warn!(%error, suppressed, "cannot accept connections; the limit on open files may be too low");
                    }
                    tokio::time::sleep(BREATH).await;
                }
            },
        }
    }
    // The kernel has taken their connections in: closing the port would reset them.
    while let Poll::Ready(Ok((stream, from))) = poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await {
        door.admit(stream, from);
    }
    drop(listener);
    while let Some(ended) = door.connections.join_next().await {
        door.left(ended.ok());
    }
}

/// Where connections come in.
struct Door {
    shared: Arc<Shared>,
    tls: Option<Arc<Tls>>,
    metrics: Metrics,
    stop: watch::Receiver<bool>,
    connections: JoinSet<IpAddr>,
    sources: Sources,
    next: u64,
}

impl Door {
    fn admit(&mut self, stream: TcpStream, from: SocketAddr) {
        self.metrics.accepts.inc();
        let source = from.ip().to_canonical();
        let Limits { connections_max, connections_per_address, .. } = self.shared.limits;
        if self.connections.len() >= connections_max {
            return turn_away(&stream, &self.shared, self.tls.is_some(), "connections_max");
        }
        if connections_per_address.is_some_and(|most| self.sources.of(source) >= most) {
            return turn_away(&stream, &self.shared, self.tls.is_some(), "connections_per_address");
        }
        if let Err(error) = prepare(&stream) {
            return debug!(%from, %error, "a connection broke at once");
        }
        self.sources.came(source);
        let id = Connection(self.next);
        self.next += 1;
        self.connections.spawn(run(stream, from, id, self.shared.clone(), self.tls.clone(), self.stop.clone()));
        show(&self.metrics.open, self.connections.len());
    }

    fn left(&mut self, source: Option<IpAddr>) {
        if let Some(source) = source {
            self.sources.left(source);
        }
        show(&self.metrics.open, self.connections.len());
    }
}

/// How many connections each address has, while it has any.
#[derive(Debug, Default)]
struct Sources(HashMap<IpAddr, usize>);

impl Sources {
    fn of(&self, source: IpAddr) -> usize {
        self.0.get(&source).copied().unwrap_or(0)
    }

    fn came(&mut self, source: IpAddr) {
        *self.0.entry(source).or_default() += 1;
    }

    fn left(&mut self, source: IpAddr) {
        if let Some(connections) = self.0.get_mut(&source) {
            *connections -= 1;
            if *connections == 0 {
                self.0.remove(&source);
            }
        }
    }
}

fn show(gauge: &Gauge, connections: usize) {
    gauge.set(i64::try_from(connections).unwrap_or(i64::MAX));
}

async fn run(
    mut stream: TcpStream,
    from: SocketAddr,
    id: Connection,
    shared: Arc<Shared>,
    tls: Option<Arc<Tls>>,
    stop: watch::Receiver<bool>,
) -> IpAddr {
    let source = from.ip().to_canonical();
    let ending = match tls {
        None => {
            let (reader, writer) = stream.split();
            connection::serve(reader, writer, id, shared, stop).await
        }
        Some(tls) => {
            let Some(stream) = shake_hands(&tls, stream, &shared, stop.clone()).await else { return source };
            let (reader, writer) = tokio::io::split(stream);
            connection::serve(reader, Flushed::new(writer), id, shared, stop).await
        }
    };
    debug!(%from, ?ending, "connection ended");
    source
}

/// A client that is not in yet does not hold up the end.
async fn shake_hands(
    tls: &Tls,
    stream: TcpStream,
    shared: &Shared,
    mut stop: watch::Receiver<bool>,
) -> Option<TlsStream<TcpStream>> {
    tokio::select! {
        stream = tls.accept(stream, &shared.refused) => stream,
        _ = stop.wait_for(|stop| *stop) => None,
    }
}

/// One connection too many: told so where the protocol has words for it, as far as the socket takes them at once. A
/// handshake only to say so would be the very work that there is too much of.
fn turn_away(stream: &TcpStream, shared: &Shared, is_tls: bool, reason: &str) {
    shared.refused.count(reason);
    if is_tls {
        return;
    }
    let manner = Manner { last: true, ..Manner::default() };
    if let Some(text) = shared.adapter.refusal(manner, "too many connections; nothing was run") {
        let _ = stream.try_write(&text);
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}
