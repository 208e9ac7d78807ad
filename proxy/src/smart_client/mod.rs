//! The SMaRtClient's process: takes requests from ingresses and native clients, asks every server, votes, answers.

mod asks;
mod driver;
mod inside;
mod servers;
mod signers;

use crate::admin::{Face, Subject};
use anyhow::{Context, ensure};
use bytes::Bytes;
use driver::{Around, Event, View};
use mesh::client::{RESENDS_SAVED, ReplyVote, SmartClient};
use mesh::ids::ReplicaId;
use mesh::net::kept;
use mesh::net::{Endpoint, Files, LinkKind, Role};
use mesh::node::Clock;
use mesh::node::counts::{Counts, Requests};
use mesh::node::drive::EVENTS;
use mesh::node::identity::{self, Expected};
use mesh::node::{self, AdminServer, Registry};
use mesh::rng::Rng;
use serde_json::{Value, json};
use servers::{Servers, Standings};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

pub use inside::Config as InsideConfig;
pub(crate) use inside::{Inside, Shared as InsideShared};

/// When servers that have not answered are asked again, the first time.
const RESEND: Duration = Duration::from_millis(250);
/// How long before the sender's deadline an unsent request is given back.
const MARGIN: Duration = Duration::from_millis(100);
/// Requests held at most, and bytes of their bodies.
const HELD: usize = 16_384;
const HELD_BYTES: usize = 128 << 20;
/// The last answers get this long to leave before the links are closed.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Settings of a SMaRtClient.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name, as in its certificates.
    pub cluster: String,
    /// This SMaRtClient's id, as in its certificate.
    pub id: String,
    /// Its certificate, in `pki/smart-client/<id>`, and whom it trusts.
    pub files: Files,
    /// Links that it made are replaced before they are this old.
    pub link_max_age: Duration,
    /// Where ingresses and native clients come in.
    pub quic: SocketAddr,
    /// The admin port.
    pub admin: SocketAddr,
    /// The servers: ids and HOST:PORT.
    pub servers: Vec<(u32, String)>,
    /// How many equal replies make an answer.
    pub vote: ReplyVote,
    /// How long what is outstanding may take after a SIGTERM.
    pub drain_timeout: Duration,
}

impl Config {
    fn show(&self) -> Value {
        json!({
            "cluster": self.cluster,
            "id": self.id,
            "pki": self.files.dir,
            "trust_bundle": self.files.trust_bundle,
            "crl": self.files.crl,
            "link_max_age_seconds": self.link_max_age.as_secs_f64(),
            "quic": self.quic,
            "admin": self.admin,
            "servers": self.servers.iter().map(|(id, at)| (id.to_string(), at)).collect::<BTreeMap<_, _>>(),
            "reply_vote": format!("{:?}", self.vote).to_lowercase(),
            "drain_timeout_seconds": self.drain_timeout.as_secs_f64(),
        })
    }
}

/// Runs a SMaRtClient until a SIGTERM or SIGINT, and drains.
///
/// # Errors
/// When it cannot start: settings, certificate, or a port in use.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let servers = by_id(&config.servers)?;
    let mut registry = node::registry();
    let expected = Expected { cluster: &config.cluster, role: Role::SmartClient, id: &config.id };
    let limits = kept::limits(config.link_max_age);
    let endpoint = identity::bind(&expected, &config.files, config.quic, &[LinkKind::Client], limits, &mut registry)?;
    let metrics = Metrics::new(&mut registry, &servers);
    let setup = Setup { servers: &config.servers, vote: config.vote, pki: &config.files.dir };
    let Started { events, view, standings, shown, mut tasks } = start(&setup, &endpoint, &metrics)?;
    let leaving = watch::Sender::new(false);
    let (told, rejected) = (leaving.subscribe(), metrics.rejected.clone());
    tasks.spawn(asks::accept(endpoint.clone(), events.clone(), shown, told, rejected));
    let subject =
        Shown { config: config.clone(), endpoint: endpoint.clone(), view: view.clone(), standings, leaving, metrics };
    let face = Face::new(subject);
    let admin = AdminServer::bind(config.admin, Arc::new(registry), Arc::new(face.clone()))
        .await
        .with_context(|| format!("cannot open the admin port {}", config.admin))?;
    info!(quic = %endpoint.local_addr(), admin = %admin.local_addr(), id = %config.id, "SMaRtClient started");

    node::stop_signal().await;
    info!(outstanding = view.waiting.load(Ordering::Relaxed), "draining");
    face.stop();
    // The driver's own end: nothing that can fail before the process ends.
    let _ = events.send(Event::Drain).await;
    if tokio::time::timeout(config.drain_timeout, view.idle()).await.is_err() {
        warn!(outstanding = view.waiting.load(Ordering::Relaxed), "the drain time-out passed");
    }
    tokio::time::sleep(LAST_WORDS).await;
    endpoint.close().await;
    info!("stopped");
    Ok(())
}

/// What a SMaRtClient counts.
#[derive(Clone, Debug)]
struct Metrics {
    requests: Requests,
    disagreements: Counts,
    rejected: Counts,
    /// It checks no signature, so this stays at zero; every part has it.
    _signature_failures: Counts,
}

impl Metrics {
    fn new(registry: &mut Registry, servers: &BTreeMap<ReplicaId, String>) -> Self {
        let ids: Vec<_> = servers.keys().collect();
        Self {
            requests: Requests::new(registry),
            disagreements: Counts::new(
                registry,
                "vote_disagreements",
                "Votes of a server that differed from the outcome that won",
                "replica",
                &ids,
            ),
            rejected: Counts::new(
                registry,
                "rejected",
                "Messages that were dropped, by reason",
                "reason",
                &["malformed", "queue_full"],
            ),
            _signature_failures: Counts::new(
                registry,
                "signature_failures",
                "Always 0: a SMaRtClient passes signatures on and checks none",
                "who",
                &["reply", "request"],
            ),
        }
    }
}

/// The servers by their ids.
fn by_id(servers: &[(u32, String)]) -> anyhow::Result<BTreeMap<ReplicaId, String>> {
    let all: BTreeMap<_, _> = servers.iter().map(|(id, address)| (ReplicaId(*id), address.clone())).collect();
    ensure!(!all.is_empty(), "no servers: name them with --servers HOST:PORT,…");
    ensure!(all.len() == servers.len(), "the same server id is given twice in --servers");
    Ok(all)
}

/// What the protocol and its links are started with.
struct Setup<'a> {
    servers: &'a [(u32, String)],
    vote: ReplyVote,
    /// Where a test may have asked for this process's end.
    pki: &'a Path,
}

/// The running parts.
struct Started {
    events: mpsc::Sender<Event>,
    view: Arc<View>,
    standings: Standings,
    /// The servers' signing certificates, as they are shown.
    shown: watch::Receiver<Bytes>,
    /// They end with this.
    tasks: JoinSet<()>,
}

fn start(setup: &Setup<'_>, endpoint: &Endpoint, metrics: &Metrics) -> anyhow::Result<Started> {
    let seed = node::seed().context("cannot read /dev/urandom")?;
    let clock = Clock::start();
    let (events, inbox) = mpsc::channel(EVENTS);
    let view = Arc::new(View::default());
    let machine = SmartClient::new(mesh::client::smart_client::Config {
        servers: setup.servers.iter().map(|(id, _)| ReplicaId(*id)).collect(),
        vote: setup.vote,
        resend: RESEND,
        margin: MARGIN,
        held: HELD,
        held_bytes: HELD_BYTES,
        resends_saved: RESENDS_SAVED,
    });
    let mut tasks = JoinSet::new();
    let (signers, shown) = signers::Signers::new();
    let servers = Servers::start(setup.servers, endpoint, &events, &metrics.rejected, Rng::from_seed(seed[0]));
    let standings = servers.standings();
    let around = Around::new(clock, view.clone(), signers, servers, metrics, (seed[1], setup.pki));
    tasks.spawn(mesh::node::drive::drive(machine, around, clock, inbox));
    Ok(Started { events, view, standings, shown, tasks })
}

/// What the admin port shows.
struct Shown {
    config: Config,
    endpoint: Endpoint,
    view: Arc<View>,
    standings: Standings,
    leaving: watch::Sender<bool>,
    metrics: Metrics,
}

impl Subject for Shown {
    fn ready(&self) -> (&'static str, bool) {
        ("reaches a quorum of the servers", self.view.has_quorum.load(Ordering::Relaxed))
    }

    fn outstanding(&self) -> usize {
        self.view.waiting.load(Ordering::Relaxed)
    }

    fn leave(&self, leaving: bool) {
        self.leaving.send_replace(leaving);
    }

    fn status(&self) -> Value {
        let standings = self.standings.all();
        let disagreements: BTreeMap<String, u64> =
            standings.iter().map(|(id, _)| (id.to_string(), self.metrics.disagreements.of(id))).collect();
        json!({
            "kind": "smart-client",
            "id": self.config.id,
            "cluster": self.config.cluster,
            "tls": self.endpoint.tls_status(),
            "udp": self.endpoint.udp_status(),
            "version": node::version().to_string(),
            "quorum": self.view.has_quorum.load(Ordering::Relaxed),
            "peers": standings.iter().map(|(_, standing)| standing.status()).collect::<Vec<_>>(),
            "requests": self.metrics.requests.status(),
            "resends": self.metrics.requests.resends.get(),
            "vote_disagreements": disagreements,
        })
    }

    fn config(&self) -> Value {
        self.config.show()
    }
}
