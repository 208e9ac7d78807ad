//! A SMaRtClient that lies: it stands where a SMaRtClient stands, with a valid certificate, does its work, and misbehaves as
//! told ([`Behaviour`]), alone or several at once, always or now and then. It counts what it did and what came of it, so
//! that a test can demand that an attack really happened. What the attack came to is judged by [`trial`], from outside.
//!
//! The honest part is the SMaRtClient's own protocol ([`mesh::client::SmartClient`]) over the library's own links.

mod accomplices;
mod behaviour;
mod driver;
mod forger;
mod front;
mod malice;
mod memory;
mod options;
mod raids;
mod stranger;
mod tally;
pub mod trial;

pub use behaviour::{Behaviour, Group, Wish};
pub use options::Options;

use accomplices::Accomplices;
use anyhow::Context;
use driver::{Around, Signers, ToServer};
use forger::Forger;
use front::Desk;
use malice::Malice;
use mesh::client::smart_client::Config;
use mesh::client::{RESENDS_SAVED, ReplyVote, SmartClient};
use mesh::ids::ReplicaId;
use mesh::net::kept::{self, Standing, Target};
use mesh::net::{Backoff, Credentials, Endpoint, LinkKind, LinkLimits};
use mesh::node::drive::EVENTS;
use mesh::node::{self, Admin, AdminServer, Clock};
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// As the real one has them.
const RESEND: Duration = Duration::from_millis(250);
const MARGIN: Duration = Duration::from_millis(100);
const HELD: usize = 16_384;
/// Bytes of a message that this end lets through: more than others do.
const MESSAGE_BYTES: usize = 16 << 20;

/// Runs it until a SIGTERM.
///
/// # Errors
/// It cannot start: its certificate, or a port in use.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut registry = node::registry();
    let credentials = Credentials::load(&options.pki, None)?;
    let limits = LinkLimits { message_bytes: MESSAGE_BYTES, ..kept::limits(mesh::net::LINK_MAX_AGE) };
    let endpoint = Endpoint::bind(options.quic, credentials, &[LinkKind::Client], limits, &mut registry)?;
    let malice = Arc::new(Malice::new(options));
    let has_quorum = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    let forger = Arc::new(Forger::new(&malice.options.cluster)?);
    let signers = Signers::default();
    let events = work(&malice, &endpoint, &has_quorum, &signers, &mut tasks);
    let accomplices = Accomplices::start(&malice, &endpoint, &mut tasks);
    raids::start(&malice, &accomplices, &mut tasks)?;
    let desk = Desk::new(malice.clone(), accomplices, forger, events);
    tasks.spawn(desk.accept(endpoint.clone(), signers));
    let face = Arc::new(Face { malice: malice.clone(), has_quorum });
    let admin = AdminServer::bind(malice.options.admin, Arc::new(registry), face).await.context("the admin port")?;
    let (quic, admin_addr) = (endpoint.local_addr().to_string(), admin.local_addr().to_string());
    println!("{}", json!({ "event": "ready", "quic": quic, "admin": admin_addr }));
    node::stop_signal().await;
    println!("{}", json!({ "event": "ended", "did": malice.tally.json() }));
    drop(tasks);
    endpoint.close().await;
    Ok(())
}

/// Starts the honest part; the way to it.
fn work(
    malice: &Arc<Malice>,
    endpoint: &Endpoint,
    has_quorum: &Arc<AtomicBool>,
    signers: &Signers,
    tasks: &mut JoinSet<()>,
) -> mpsc::Sender<driver::Event> {
    let servers = &malice.options.servers;
    let machine = SmartClient::new(Config {
        servers: servers.iter().map(|(id, _)| ReplicaId(*id)).collect(),
        vote: ReplyVote::Majority,
        resend: RESEND,
        margin: MARGIN,
        held: HELD,
        held_bytes: 256 << 20,
        resends_saved: RESENDS_SAVED,
    });
    let clock = Clock::start();
    let (events, inbox) = mpsc::channel(EVENTS);
    tasks.spawn(node::drive::drive(machine, Around::new(clock, has_quorum.clone()), clock, inbox));
    for (id, address) in servers {
        let target = Target { kind: LinkKind::Submit, address: address.clone(), id: Some(id.to_string()) };
        let pauses = Backoff::new(malice.chance().next_u64());
        let line = ToServer { id: ReplicaId(*id), signers: signers.clone() };
        tasks.spawn(kept::keep(line, endpoint.clone(), Standing::new(target), events.clone(), pauses));
    }
    events
}

/// What its admin port shows.
struct Face {
    malice: Arc<Malice>,
    has_quorum: Arc<AtomicBool>,
}

impl Admin for Face {
    fn ready(&self) -> Vec<(&'static str, bool)> {
        vec![("reaches a quorum of the servers", self.has_quorum.load(Ordering::Relaxed))]
    }

    fn started(&self) -> bool {
        true
    }

    fn app_live(&self) -> bool {
        true
    }

    fn status(&self) -> Value {
        json!({ "kind": "malicious", "id": self.malice.options.id, "did": self.malice.tally.json() })
    }

    fn config(&self) -> Value {
        let wishes: Vec<_> = self.malice.options.wishes.iter().map(ToString::to_string).collect();
        json!({ "do": wishes })
    }

    fn drain(&self, _wait: Duration) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(std::future::ready(true))
    }
}
