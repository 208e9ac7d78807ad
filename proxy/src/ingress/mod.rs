//! The ingress' process: unmodified clients in over TCP, their requests out to SMaRtClients, replies back in order.

mod connection;
mod intake;
mod limits;
mod patience;
mod pipe;
mod room;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;

use crate::admin::{Face, Subject};
use crate::smart_client::{Inside, InsideConfig, InsideShared};
use anyhow::{Context, ensure};
use connection::{Shared, WINDOW};
pub use limits::Limits;
use mesh::auth::Signatures;
use mesh::client::ReplyVote;
use mesh::client::running::{self, Running, Signing};
use mesh::client::sender::Lending;
use mesh::framing::{Adapter, Connections, ReadOnly};
use mesh::net::{Endpoint, Files, OutsideFiles, Role, kept};
use mesh::node::counts;
use mesh::node::identity::{self, Expected};
use mesh::node::{self, AdminServer, Registry};
use room::Rooms;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tls::Tls;
use tokio::sync::watch;
use tracing::{info, warn};

/// Sessions of the pool.
const SESSIONS: usize = 1024;
/// Requests accepted and not answered, over all connections.
const HELD: usize = 16_384;
/// Bytes of large requests held at once, whole or in part.
const LARGE_BYTES: usize = 256 << 20;
/// Bytes of answers that are expected or unread, beyond what each connection has for itself.
const ANSWER_BYTES: usize = 64 << 20;
/// File descriptors beside those of connections.
const OTHER_FILES: u64 = 64;

const _: () = assert!(mesh::limits::REQUEST_BYTES_MAX <= LARGE_BYTES);

/// Settings of an ingress.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name, as in its certificates.
    pub cluster: String,
    /// This ingress' id, as in its certificate.
    pub id: String,
    /// Its certificate, in `pki/ingress/<id>`, and whom it trusts.
    pub files: Files,
    /// Links that it made are replaced before they are this old.
    pub link_max_age: Duration,
    /// The admin port.
    pub admin: SocketAddr,
    /// Where external clients come in, over TCP.
    pub listen: SocketAddr,
    /// The certificate that they are shown; without one they speak plain TCP.
    pub tls: Option<OutsideFiles>,
    /// The SMaRtClients: their ids where known, HOST:PORT.
    pub smart_clients: Vec<(Option<String>, String)>,
    /// A SMaRtClient in this process.
    pub inside: Option<InsideConfig>,
    /// The clients' protocol.
    pub adapter: Adapter,
    /// Which requests change nothing, and are asked past the log; `None`: all go through it.
    pub read_only: Option<ReadOnly>,
    /// After this a client is told what is known.
    pub deadline: Duration,
    /// How long what is outstanding may take after a SIGTERM.
    pub drain_timeout: Duration,
    /// How long it stays open after a SIGTERM, not ready any more, before it ends connections: so long whoever sends
    /// clients here may take to notice.
    pub drain_delay: Duration,
    /// What one client may take.
    pub limits: Limits,
    /// Whether requests are signed.
    pub request_signatures: Signatures,
    /// Whether replies must be signed, by as many servers as `reply_vote` says.
    pub reply_signatures: Signatures,
    /// How many servers' signatures a reply needs.
    pub reply_vote: ReplyVote,
}

impl Config {
    fn show(&self) -> Value {
        let mut shown = json!({
            "cluster": self.cluster,
            "id": self.id,
            "pki": self.files.dir,
            "trust_bundle": self.files.trust_bundle,
            "crl": self.files.crl,
            "link_max_age_seconds": self.link_max_age.as_secs_f64(),
            "tls_cert": self.tls.as_ref().map(|tls| &tls.certificate),
            "tls_key": self.tls.as_ref().map(|tls| &tls.key),
            "admin": self.admin,
            "listen": self.listen,
            "smart_clients": self.smart_clients.iter().map(|(_, address)| address).collect::<Vec<_>>(),
            "smart_client_pki": self.inside.as_ref().map(|inside| &inside.files.dir),
            "servers": self.inside.as_ref().map(|inside| inside.servers.iter().map(|(_, at)| at).collect::<Vec<_>>()),
            "protocol": self.adapter.name(),
            "request_bytes": self.adapter.request_bytes,
            "reply_bytes": self.adapter.reply_bytes,
            "reads": if self.read_only.is_some() { "index" } else { "log" },
            "read_only": self.read_only.as_ref().map(|read_only| read_only.words().collect::<Vec<_>>()),
            "deadline_seconds": self.deadline.as_secs_f64(),
            "drain_timeout_seconds": self.drain_timeout.as_secs_f64(),
            "drain_delay_seconds": self.drain_delay.as_secs_f64(),
            "request_signatures": self.request_signatures,
            "reply_signatures": self.reply_signatures,
            "reply_vote": format!("{:?}", self.reply_vote).to_lowercase(),
        });
        if let (Value::Object(all), Value::Object(limits)) = (&mut shown, self.limits.show()) {
            all.extend(limits);
        }
        shown
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            !self.smart_clients.is_empty() || self.inside.is_some(),
            "no SMaRtClients: name them with --smart-clients HOST:PORT,…, or have one inside with --smart-client-pki"
        );
        self.limits.check(&self.adapter)?;
        ensure!(!self.deadline.is_zero(), "--deadline must be longer than zero");
        let most = mesh::limits::REQUEST_BYTES_MAX;
        ensure!(self.adapter.request_bytes <= most, "requests may have {most} bytes at most: lower their limit");
        Ok(())
    }

    fn sender(&self) -> mesh::client::sender::Config {
        let lending = match self.adapter.connections {
            Connections::PerSession => Lending::Own,
            Connections::Shared | Connections::PerRequest => Lending::Pooled,
        };
        let window = if self.adapter.closes_after_reply() { 1 } else { WINDOW };
        let reads = self.read_only.is_some();
        mesh::client::sender::Config {
            reads,
            ..mesh::client::sender::Config::new(lending, window, SESSIONS, HELD, self.deadline)
        }
    }
}

/// Runs an ingress until a SIGTERM or SIGINT, and drains.
///
/// # Errors
/// When it cannot start: settings, certificate, or a port in use.
pub async fn run(config: Config) -> anyhow::Result<()> {
    config.check()?;
    raise_file_limit(config.limits.connections_max);
    let mut registry = node::registry();
    let expected = Expected { cluster: &config.cluster, role: Role::Ingress, id: &config.id };
    let limits = kept::limits(config.link_max_age);
    let endpoint = identity::bind(&expected, &config.files, identity::any_address(), &[], limits, &mut registry)?;
    let tls = outside_tls(&config, &endpoint, &mut registry)?;
    let listener =
        tcp::listen(config.listen).with_context(|| format!("cannot listen on {} for clients", config.listen))?;
    let listen = listener.local_addr()?;
    let calls = running::Metrics::new(&mut registry);
    let tcp = tcp::Metrics {
        open: counts::gauge(&mut registry, "tcp_connections", "Connections of external clients that are open"),
        accepts: counts::counter(&mut registry, "tcp_accepts", "Connections of external clients that were accepted"),
    };
    let modes = (config.request_signatures, config.reply_signatures);
    let signing = Signing::load(&endpoint, &config.files, modes, config.reply_vote)?;
    let (sender, smart_clients) = (config.sender(), config.smart_clients.clone());
    let running = Arc::new(running::start(sender, config.deadline, smart_clients, &endpoint, signing, &calls)?);
    let inside = start_inside(&config, &running, &mut registry).await?.map(Arc::new);
    // From the first look on they are there, at zero.
    for reason in ["connections_per_address", "idle_timeout", "tls", "tls_timeout"] {
        calls.refused.of(reason);
    }
    let rooms = Rooms::new(HELD, LARGE_BYTES, ANSWER_BYTES);
    let shared = Arc::new(Shared {
        adapter: config.adapter,
        read_only: config.read_only.clone(),
        events: running.events.clone(),
        rooms: rooms.clone(),
        limits: config.limits,
        deadline: config.deadline,
        refused: calls.refused.clone(),
    });
    let subject = Shown {
        config: config.clone(),
        endpoint: endpoint.clone(),
        tls: tls.clone(),
        listen,
        running: running.clone(),
        inside: inside.clone(),
        calls: calls.clone(),
        tcp: tcp.clone(),
        rooms,
    };
    let face = Face::new(subject);
    let admin = AdminServer::bind(config.admin, Arc::new(registry), Arc::new(face.clone()))
        .await
        .with_context(|| format!("cannot open the admin port {}", config.admin))?;
    info!(%listen, admin = %admin.local_addr(), id = %config.id, protocol = %config.adapter.name(), "ingress started");

    let (stop, stopping) = watch::channel(false);
    let serving = tcp::serve(listener, shared, tls, tcp, stopping);
    tokio::pin!(serving);
    tokio::select! {
        () = node::stop_signal() => {}
        // It serves until it is stopped.
        () = &mut serving => {}
    }
    info!(outstanding = running.view.outstanding.load(Ordering::Relaxed), "draining");
    face.stop();
    // It serves until it is stopped.
    let _ = tokio::time::timeout(config.drain_delay, &mut serving).await;
    stop.send_replace(true);
    if tokio::time::timeout(config.drain_timeout, serving).await.is_err() {
        warn!(outstanding = running.view.outstanding.load(Ordering::Relaxed), "the drain time-out passed");
    }
    if let Some(inside) = inside {
        inside.close().await;
    }
    endpoint.close().await;
    info!("stopped");
    Ok(())
}

/// The SMaRtClient in this process, if there is to be one.
async fn start_inside(config: &Config, running: &Running, registry: &mut Registry) -> anyhow::Result<Option<Inside>> {
    let Some(inside) = &config.inside else { return Ok(None) };
    let shared = InsideShared { cluster: &config.cluster, link_max_age: config.link_max_age, vote: config.reply_vote };
    Inside::start(inside, &shared, running, registry).await.map(Some)
}

/// What outside clients shake hands with, if they speak TLS.
fn outside_tls(config: &Config, endpoint: &Endpoint, registry: &mut Registry) -> anyhow::Result<Option<Arc<Tls>>> {
    let Some(files) = &config.tls else { return Ok(None) };
    let help = "When the certificate for outside clients expires, Unix time";
    let expiry = counts::gauge(registry, "listen_tls_certificate_expiry_timestamp_seconds", help);
    let tls = Tls::start(files.clone(), expiry, endpoint.reloads());
    tls.map(Some).context("--tls-cert and --tls-key cannot be used")
}

/// Lets this process open as many files as `connections` need, as far as the system's hard limit goes.
fn raise_file_limit(connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum });
    if raised.is_err() || current < wanted {
        warn!(limit = current, wanted, "the limit on open files is below the number of connections: raise `ulimit -n`");
    }
}

/// What the admin port shows.
struct Shown {
    config: Config,
    endpoint: Endpoint,
    tls: Option<Arc<Tls>>,
    listen: SocketAddr,
    running: Arc<Running>,
    inside: Option<Arc<Inside>>,
    calls: running::Metrics,
    tcp: tcp::Metrics,
    rooms: Rooms,
}

impl Subject for Shown {
    fn ready(&self) -> (&'static str, bool) {
        let linked = self.running.view.reachable.load(Ordering::Relaxed);
        // The one in this process is always there, and of use only while it reaches the servers itself.
        let reaches = match &self.inside {
            Some(inside) => linked > 1 || inside.has_quorum(),
            None => linked > 0,
        };
        ("reaches a SMaRtClient", reaches)
    }

    fn outstanding(&self) -> usize {
        self.running.view.outstanding.load(Ordering::Relaxed)
    }

    /// Nobody inside sends it anything: there is nobody to be told.
    fn leave(&self, _leaving: bool) {}

    fn status(&self) -> Value {
        json!({
            "kind": "ingress",
            "id": self.config.id,
            "cluster": self.config.cluster,
            "tls": self.endpoint.tls_status(),
            "udp": self.endpoint.udp_status(),
            "listen_tls": self.tls.as_ref().map(|tls| tls.status()),
            "version": node::version().to_string(),
            "listen": self.listen,
            "protocol": self.config.adapter.name(),
            "peers": self.running.peers(),
            "smart_client": self.inside.as_ref().map(|inside| inside.status()),
            "requests": self.calls.requests.status(),
            "signature_failures": self.calls.signature_failures.of("reply"),
            "resends": self.calls.requests.resends.get(),
            "tcp_connections": self.tcp.open.get(),
            "tcp_accepts": self.tcp.accepts.get(),
            "large_request_bytes": self.rooms.large_held(),
            "unread_bytes": self.rooms.answers.unread(),
        })
    }

    fn config(&self) -> Value {
        self.config.show()
    }
}
