//! The composition root: everything is made here from plain settings, and ended here in order.
//!
//! Ports are bound before the journal is read, so that addresses are known and the process can be asked how far it is;
//! links are served after it.

use crate::admin::AdminState;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::driver::{Driver, Parts};
use crate::inputs::{self, AdminAsk, Control, Inputs, serve_admin};
use crate::intake::{self, Checker, LinkId, Voice, Waiters};
use crate::journal::Recovery;
use crate::metrics::Metrics;
use crate::peers::{Acceptor, PeerLinks, Peers, Setup};
use crate::publish::{Phase, Publisher, Snapshot};
use crate::snapshot::Snapshots;
use crate::store::Store;
use crate::transfer::{self, Transfers};
use crate::waiting::Waiting;
use crate::{Config, app, entropy};
use anyhow::Context;
use mesh::auth::Signatures;
use mesh::config::Configuration;
use mesh::ids::Generation;
use mesh::limits::Limits;
use mesh::net::{Endpoint, Followed, Link, LinkKind, LinkLimits, Role, Signer};
use mesh::node::identity::{self, Expected};
use mesh::node::{AdminServer, Quiet, stop_signal};
use mesh::order::{Image, Record, Recovered};
use mesh::wire::roster::Roster;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};

/// Links of SMaRtClients and operators that are served at one time.
const LINKS_MAX: usize = 1024;
/// Whoever opens links at will must not fill the log.
static TOO_MANY: Quiet = Quiet::new();
/// How long the application has to end, beyond what its supervisor gives it, before this process ends without it.
const APP_END: Duration = Duration::from_secs(15);
/// The last answers get this long to leave before the links are closed.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Bounds of every link of a server.
pub(crate) const fn link_limits(max_age: Duration) -> LinkLimits {
    // Requests and messages of peers: their streams are short. What is asked on others comes from operators and learners.
    LinkLimits { message_bytes: Limits::DEFAULT.message_bytes, uni_streams: 512, bidi_streams: 64, max_age }
}

/// Runs a sidecar until SIGTERM or SIGINT, then hands leadership over, finishes what is in flight and ends.
///
/// # Errors
/// It cannot start or go on; the message says what to do.
pub async fn run(config: Config) -> anyhow::Result<()> {
    config.validate()?;
    raise_file_limit();
    let stop = stop_signal();
    let mut registry = mesh::node::registry();
    let metrics = Metrics::new(&mut registry);
    config.seeds.iter().filter(|(id, _)| *id != config.id).for_each(|(id, _)| metrics.expect_peer(*id));
    let kinds = [LinkKind::Peer, LinkKind::Submit, LinkKind::Admin];
    let files = config.files();
    let id = config.id.to_string();
    let expected = Expected { cluster: &config.cluster, role: Role::Server, id: &id };
    let limits = link_limits(config.link_max_age);
    let endpoint = identity::bind(&expected, &files, config.quic, &kinds, limits, &mut registry)?;
    let checks = config.request_signatures != Signatures::Off;
    let checker = checks.then(|| Checker::start(&endpoint.signer_trust())).transpose()?;
    let (stop_app, app_stopped) = watch::channel(false);
    let settings = app_settings(&config, &metrics);
    let (app, app_task) = app::spawn(settings.clone(), app_stopped);
    let (snapshots, seen) = watch::channel(Snapshot::default());
    let (transfer, transfers) = watch::channel(None);
    let links = Arc::new(OnceLock::new());
    let (control, orders) = mpsc::channel(inputs::CONTROL);
    let (signer, _following) = signer(&config, &endpoint, &control)?.unzip();
    let admin = AdminState {
        config: config.clone(),
        endpoint: endpoint.clone(),
        snapshots: seen,
        transfers,
        app: app.view.clone(),
        app_awaits_restart: Arc::clone(&app.awaits_restart),
        control: control.clone(),
        metrics: metrics.clone(),
        links: links.clone(),
    };
    let admin = AdminServer::bind(config.admin, Arc::new(registry), Arc::new(admin)).await?;
    tracing::info!(id = config.id, cluster = %config.cluster, quic = %endpoint.local_addr(), admin = %admin.local_addr(), "bound");

    let drain_timeout = config.drain_timeout;
    let served = serve(
        config,
        &endpoint,
        (app, settings),
        Shown { snapshots, transfer, links },
        orders,
        (signer, checker, metrics),
    );
    let result = until_stopped(served, stop, &control, drain_timeout).await;

    // Before the application ends, which may take long: whoever has a link must not wait for answers that do not come.
    tokio::time::sleep(LAST_WORDS).await;
    endpoint.close().await;
    // Nobody listens if the task ended already.
    let _ = stop_app.send(true);
    if tokio::time::timeout(APP_END, app_task).await.is_err() {
        tracing::error!("the application could not be ended in time; the next sidecar will find and end it");
    }
    drop(admin);
    result
}

/// Serves until it ends by itself, or was told to stop and has drained or had the time for it.
async fn until_stopped(
    served: impl Future<Output = anyhow::Result<()>>,
    stop: impl Future<Output = ()>,
    control: &mpsc::Sender<Control>,
    drain_timeout: Duration,
) -> anyhow::Result<()> {
    let mut served = pin!(served);
    tokio::select! {
        result = &mut served => return result,
        () = stop => {}
    }
    let drained = async {
        // The order is taken by `served`, which must go on for that.
        let ((), result) = tokio::join!(async { drop(control.send(Control::Stop).await) }, &mut served);
        result
    };
    match tokio::time::timeout(drain_timeout, drained).await {
        Ok(result) => result,
        Err(_) => {
            tracing::warn!(?drain_timeout, "not everything in flight was finished in time");
            Ok(())
        }
    }
}

/// What the admin port shows.
struct Shown {
    snapshots: watch::Sender<Snapshot>,
    transfer: watch::Sender<Option<transfer::View>>,
    links: Arc<OnceLock<PeerLinks>>,
}

/// Reads the journal, waits until this member is part of a cluster, and drives its replica.
async fn serve(
    config: Config,
    endpoint: &Endpoint,
    (app, app_settings): (app::Handle, app::Settings),
    shown: Shown,
    control: mpsc::Receiver<Control>,
    (signer, checker, metrics): (Option<Arc<Signer>>, Option<Checker>, Metrics),
) -> anyhow::Result<()> {
    let settings = config.clone();
    // Reading a long journal must not keep the admin port from answering.
    let opened =
        tokio::task::spawn_blocking(move || Store::open(&settings)).await.context("the journal's reader ended")?;
    let (mut store, Recovery { history, records }) = opened?;

    // The journal's lock is held by now.
    let snapshots = open_snapshots(&config, &metrics).await?;
    let server = transfer::Server::new(snapshots.clone());
    let _sweeping = AbortOnDrop(tokio::spawn(server.clone().sweep()));
    let setup = Setup::of(&config, &server, &metrics);
    let (peers, incoming) = Peers::start(endpoint, &setup).context("no randomness from the system")?;
    // Nobody else sets them.
    let _ = shown.links.set(peers.links());
    let (requests_in, requests) = mpsc::channel(inputs::REQUESTS);
    let (admin_in, admin) = mpsc::channel(inputs::ADMIN);
    let mut inputs = Inputs { peers: incoming, requests, admin, control };
    let _accepting = Accepting::start(endpoint, &peers, requests_in, admin_in, &server, &metrics);

    shown.snapshots.send_replace(Snapshot { phase: Phase::Waiting, ..Snapshot::default() });
    let mut waiters = Waiters::new(metrics.clone());
    let mut newest = signer;
    let waiting = Waiting {
        config: &config,
        store: &mut store,
        history,
        snapshots: snapshots.as_ref(),
        peers: &peers,
        waiters: &mut waiters,
        inputs: &mut inputs,
        signer: &mut newest,
        life: entropy::life()?,
        target: None,
        edition: None,
    };
    let Some(membership) = waiting.run().await? else { return Ok(()) };
    server.belongs_to(membership.configuration.generation);
    tracing::info!(records = records.len(), generation = %membership.configuration.generation, "this member is part of its cluster");
    let clock = Clock::start();
    newest
        .into_iter()
        .for_each(|signer| waiters.sign_with(clock.now(), voice(&config, &membership.configuration), signer));

    let synced = metrics.clone();
    let (journal, _lock) = store.into_journal(Box::new(move |took| synced.synced(took.as_secs_f64())))?;
    let (data_dir, kept) = (config.data_dir.clone(), snapshots.clone());
    let publisher = Publisher::new(shown.snapshots, membership.clone(), metrics.clone(), data_dir, kept);
    let recovered = recover(records, snapshots.clone(), &app_settings).await?;
    let evidence = app_settings.evidence;
    let generation = membership.configuration.generation;
    let fetcher = fetcher(&config, generation, (snapshots.clone(), &peers), &metrics, shown.transfer);
    let transfers = Transfers::start(fetcher, &server);
    let parts = Parts {
        config,
        membership,
        recovered,
        clock,
        seed: u64::from_le_bytes(entropy::bytes().context("no randomness from the system")?),
        journal,
        snapshots,
        transfers,
        app,
        evidence,
        peers,
        waiters,
        checker,
        inputs,
        metrics,
        publisher,
    };
    Driver::new(parts).run().await
}

/// What fetches the snapshots of others.
fn fetcher(
    config: &Config,
    generation: Generation,
    (snapshots, peers): (Option<Snapshots>, &Peers),
    metrics: &Metrics,
    view: watch::Sender<Option<transfer::View>>,
) -> transfer::Fetcher {
    transfer::Fetcher {
        cluster: config.cluster.clone(),
        generation,
        snapshots,
        links: peers.links(),
        rate: config.transfer_rate,
        metrics: metrics.clone(),
        view,
    }
}

/// What signs replies, if they are signed, and follows its files: the driver is told of another key.
fn signer(
    config: &Config,
    endpoint: &Endpoint,
    control: &mpsc::Sender<Control>,
) -> anyhow::Result<Option<(Arc<Signer>, AbortOnDrop)>> {
    if config.reply_signatures == Signatures::Off {
        return Ok(None);
    }
    let files = config.files();
    let followed = Followed::new(&files);
    let signer = Arc::new(Signer::load(&files, endpoint)?);
    let following = followed.follow(endpoint.clone(), control.clone(), Control::Sign);
    Ok(Some((signer, AbortOnDrop(tokio::spawn(following)))))
}

/// Who signs replies here.
pub(crate) fn voice(config: &Config, configuration: &Configuration) -> Voice {
    // There are few members.
    let electorate = u16::try_from(configuration.cluster.electorate()).unwrap_or(u16::MAX);
    Voice { cluster: config.cluster.clone(), replica: config.replica(), electorate }
}

/// What the core starts with: what the journal, the newest snapshot and the application's marker say.
async fn recover(records: Vec<Record>, snapshots: Option<Snapshots>, app: &app::Settings) -> anyhow::Result<Recovered> {
    let mut recovered = Recovered::from_records(records);
    recovered.image = newest_image(snapshots.clone()).await?;
    if let Some(snapshots) = snapshots {
        // Nobody else fills it.
        let _ = app.snapshots.set(snapshots);
    }
    let (resumed, answered) = app::resumable(app, recovered.image.as_ref().map(|image| image.slot));
    recovered.resumed = resumed;
    recovered.answered = answered.unwrap_or(recovered.answered);
    Ok(recovered)
}

/// The snapshots of the data directory, if there is one.
async fn open_snapshots(config: &Config, metrics: &Metrics) -> anyhow::Result<Option<Snapshots>> {
    let Some(dir) = config.data_dir.clone() else { return Ok(None) };
    let (cluster, id, metrics) = (config.cluster.clone(), config.replica(), metrics.clone());
    let opened = tokio::task::spawn_blocking(move || Snapshots::open(&dir, &cluster, id, &metrics)).await;
    opened.context("the snapshots' reader ended")?.map(Some)
}

async fn newest_image(snapshots: Option<Snapshots>) -> anyhow::Result<Option<Box<Image>>> {
    let Some(snapshots) = snapshots else { return Ok(None) };
    tokio::task::spawn_blocking(move || snapshots.newest_image()).await.context("the snapshots' reader ended")
}

/// Takes in the links that others make.
struct Accepting {
    peers: Acceptor,
    roster: watch::Receiver<Roster>,
    requests: mpsc::Sender<intake::Event>,
    admin: mpsc::Sender<AdminAsk>,
    snapshots: transfer::Server,
    metrics: Metrics,
}

impl Accepting {
    /// Until the handle is dropped.
    fn start(
        endpoint: &Endpoint,
        peers: &Peers,
        requests: mpsc::Sender<intake::Event>,
        admin: mpsc::Sender<AdminAsk>,
        snapshots: &transfer::Server,
        metrics: &Metrics,
    ) -> AbortOnDrop {
        let (roster, peers) = (peers.roster(), peers.acceptor());
        let accepting = Self { peers, roster, requests, admin, snapshots: snapshots.clone(), metrics: metrics.clone() };
        AbortOnDrop(tokio::spawn(accepting.run(endpoint.clone())))
    }

    async fn run(self, endpoint: Endpoint) {
        let budget = Budget::of(inputs::REQUEST_BYTES);
        let places = Arc::new(Semaphore::new(LINKS_MAX));
        let mut count = 0;
        while let Some(link) = endpoint.accept().await {
            if link.kind() == LinkKind::Peer {
                self.peers.accept(link);
                continue;
            }
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                if let Some(suppressed) = TOO_MANY.may_speak() {
                    tracing::warn!(from = %link.peer().id, suppressed, "too many links: one more is closed");
                }
                link.close("too many links");
                continue;
            };
            count += 1;
            let serving = self.serve(link, LinkId(count), &budget);
            tokio::spawn(async move {
                serving.await;
                drop(place);
            });
        }
    }

    fn serve(&self, link: Link, id: LinkId, budget: &Budget) -> impl Future<Output = ()> + Send + use<> {
        let (requests, admin, roster) = (self.requests.clone(), self.admin.clone(), self.roster.clone());
        let (snapshots, metrics, budget) = (self.snapshots.clone(), self.metrics.clone(), budget.clone());
        async move {
            match link.kind() {
                LinkKind::Submit => intake::serve(link, id, roster, requests, budget, metrics).await,
                LinkKind::Admin => serve_admin(link, admin, snapshots, metrics).await,
                // The endpoint accepts no other kind.
                LinkKind::Peer | LinkKind::Client => link.close("not served here"),
            }
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn app_settings(config: &Config, metrics: &Metrics) -> app::Settings {
    app::Settings {
        app: config.app.clone(),
        id: config.id,
        data_dir: config.data_dir.clone(),
        adapter: config.adapter,
        timeout: config.app_timeout,
        sessions: config.seed().sessions.sessions as usize,
        snapshot: config.app_snapshot.clone(),
        snapshot_timeout: config.app_snapshot_timeout,
        reset_request: config.app_reset_request.clone(),
        empty_probe: config.app_empty_probe.clone(),
        supervisor: config.app_supervisor.clone(),
        snapshots: Arc::default(),
        evidence: app::Evidence::new(config.data_dir.clone()),
        metrics: metrics.clone(),
    }
}

/// Every link, connection and file takes one; the default of 1024 is soon used up with a connection per session.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}
