//! The task that owns the application.

use super::dump::{self, LoadError};
use super::exchange::Loss;
use super::keeper::Keeper;
use super::marker::Marker;
use super::orders::{Begin, Orders};
use super::own::States;
use super::{Command, Event, Settings, State, View, hollow, probe, sequential, shared, wipe};
use mesh::framing::Connections;
use mesh::ids::{Run, Slot};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Commands that wait: the core has few slots outstanding, so this is never full.
const COMMANDS: usize = 1024;
/// Events that wait for the driver.
const EVENTS: usize = 64;
/// The first wait after a failed reset, or after an application that did not live long; doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// An application that lived so long is started again without waiting.
const LONG_LIFE: Duration = Duration::from_secs(5);

/// The driver's end.
#[derive(Debug)]
pub(crate) struct Handle {
    /// In order of execution.
    pub(crate) commands: mpsc::Sender<Command>,
    /// What came of them.
    pub(crate) events: mpsc::Receiver<Event>,
    /// How the application is.
    pub(crate) view: watch::Receiver<View>,
    /// Whether somebody must restart the application: it is not ours to reset, and its state is not the initial one.
    pub(crate) awaits_restart: Arc<AtomicBool>,
}

/// Starts the task. It stops, and ends the application if it is a child, when `stop` turns true or its sender goes.
///
/// The second result ends when that is done.
pub(crate) fn spawn(settings: Settings, stop: watch::Receiver<bool>) -> (Handle, JoinHandle<()>) {
    let awaits_restart = Arc::new(AtomicBool::new(false));
    let (commands, commands_in) = mpsc::channel(COMMANDS);
    let (events_out, events) = mpsc::channel(EVENTS);
    let (view_out, view) = watch::channel(View::default());
    let handle = Handle { commands, events, view, awaits_restart: Arc::clone(&awaits_restart) };
    let Some(app) = &settings.app else {
        return (handle, tokio::spawn(hollow::run(settings, commands_in, events_out, stop)));
    };
    let keeper = Keeper::new(app, &settings, &awaits_restart);
    let marker = Marker::new(settings.data_dir.as_deref());
    // What an earlier process left under way is not known.
    let host = Host {
        settings,
        keeper,
        marker,
        view: view_out,
        backoff: BACKOFF_MIN,
        left: Left::Busy,
        states: States::new(),
    };
    let worker = Worker { host, orders: Orders::new(commands_in), events: events_out };
    (handle, tokio::spawn(worker.run(stop)))
}

struct Worker {
    host: Host,
    orders: Orders,
    events: mpsc::Sender<Event>,
}

/// The application, and all that is known of it.
struct Host {
    settings: Settings,
    keeper: Keeper,
    marker: Marker,
    view: watch::Sender<View>,
    backoff: Duration,
    left: Left,
    /// What the connections of sessions remember when a run begins.
    states: States,
}

/// How the application was left by what was asked of it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Everything was answered.
    Clean,
    /// Something may be under way.
    Busy,
    /// It did not answer in time.
    Hung,
}

/// What executes during one run.
pub(super) struct Live<'a> {
    pub(super) run: Run,
    pub(super) settings: &'a Settings,
    pub(super) keeper: &'a mut Keeper,
    pub(super) marker: &'a mut Marker,
    pub(super) view: &'a watch::Sender<View>,
    pub(super) left: &'a mut Left,
    pub(super) states: &'a mut States,
    pub(super) orders: &'a mut Orders,
    pub(super) events: &'a mpsc::Sender<Event>,
}

/// Why a run ended.
#[derive(Debug)]
pub(super) enum End {
    /// The application fell silent on a call.
    Silent { slot: Slot, answered: usize, loss: Loss },
    /// The application is lost, and no call is to blame.
    Lost(Loss),
    /// Another run is to begin.
    Begin(Begin),
    /// The driver is gone.
    Stopped,
}

/// What came of a beginning.
enum Begun {
    Restored,
    SnapshotLost(Slot),
    Lost,
}

impl Worker {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.serve() => {}
        }
        self.host.show(State::Down);
        self.host.keeper.end().await;
    }

    async fn serve(&mut self) {
        let mut next = None;
        loop {
            self.orders.forget();
            let begin = match next.take() {
                Some(begin) => begin,
                None => match self.orders.begin().await {
                    Some(begin) => begin,
                    None => return,
                },
            };
            if let Some(answered) = self.orders.answered.take() {
                self.host.marker.floor(answered);
            }
            match self.one_run(begin).await {
                End::Stopped => return,
                End::Begin(begin) => next = Some(begin),
                // The driver was told; it says how to go on.
                End::Silent { .. } | End::Lost(_) => {}
            }
        }
    }

    /// From its beginning to its end, of which the driver is told.
    async fn one_run(&mut self, begin: Begin) -> End {
        let (Begin::Reset { run, .. } | Begin::Resume { run }) = begin;
        let begun = tokio::select! {
            biased;
            end = self.orders.watch(run) => return end,
            begun = self.host.begin(begin) => begun,
        };
        let event = match begun {
            Begun::Restored => Event::Restored { run },
            Begun::SnapshotLost(slot) => Event::SnapshotLost { slot },
            Begun::Lost => Event::Lost { run },
        };
        if self.events.send(event).await.is_err() {
            return End::Stopped;
        }
        if !matches!(begun, Begun::Restored) {
            self.host.show(State::Down);
            return End::Lost(Loss::Restarted);
        }
        let since = Instant::now();
        let end = self.live(run).await;
        if since.elapsed() >= LONG_LIFE {
            self.host.backoff = BACKOFF_MIN;
        }
        let event = match &end {
            End::Silent { slot, answered, loss } => {
                tracing::warn!(%loss, %slot, call = answered, "the application fell silent on a call");
                Event::Silent { run, slot: *slot, answered: *answered }
            }
            End::Lost(loss) => {
                tracing::warn!(%loss, "the application is lost: it is reset, and everything is replayed");
                Event::Lost { run }
            }
            End::Begin(_) | End::Stopped => return end,
        };
        self.host.show(State::Down);
        if self.events.send(event).await.is_err() { End::Stopped } else { end }
    }

    async fn live(&mut self, run: Run) -> End {
        let Self { host: Host { settings, keeper, marker, view, left, states, .. }, orders, events } = self;
        let connections = settings.adapter.connections;
        let mut live = Live { run, settings, keeper, marker, view, left, states, orders, events };
        match connections {
            Connections::Shared => shared::serve(&mut live).await,
            Connections::PerRequest | Connections::PerSession => sequential::serve(&mut live).await,
        }
    }
}

impl Host {
    async fn begin(&mut self, begin: Begin) -> Begun {
        self.settings.evidence.begin();
        let (run, snapshot) = match begin {
            Begin::Reset { run, snapshot } => (run, snapshot),
            Begin::Resume { .. } => return self.resume(),
        };
        self.marker.spoil();
        if run > Run(1) {
            self.settings.metrics.app_resets.inc();
            self.wait().await;
        }
        self.show(State::Resetting);
        while let Err(error) = self.reset(snapshot).await {
            match (error, snapshot) {
                (LoadError::Snapshot(error), Some(slot)) => {
                    tracing::error!(%slot, error = format!("{error:#}"), "the snapshot cannot be used");
                    return Begun::SnapshotLost(slot);
                }
                (LoadError::Snapshot(error) | LoadError::Application(error), _) => {
                    tracing::error!(error = format!("{error:#}"), "the application could not be reset; trying again");
                }
            }
            self.show(State::Resetting);
            self.wait().await;
        }
        self.marker.begin(self.keeper.incarnation(), snapshot.unwrap_or_default());
        self.show(State::Running);
        Begun::Restored
    }

    /// Goes on with what was found running, if it is what the marker is of.
    fn resume(&mut self) -> Begun {
        let adopted = self.keeper.adopt() && self.marker.resume(self.keeper.incarnation().as_deref());
        if !adopted || !self.keeper.same() {
            tracing::warn!("the application is not the one any more that was found running");
            return Begun::Lost;
        }
        self.left = Left::Clean;
        self.show(State::Running);
        Begun::Restored
    }

    async fn wait(&mut self) {
        sleep(self.backoff).await;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    /// The quickest way that is there: in its own protocol, otherwise by a restart; then the snapshot.
    async fn reset(&mut self, snapshot: Option<Slot>) -> Result<(), LoadError> {
        self.states = dump::states(&self.settings, snapshot).await?;
        if let (Some(slot), true) = (snapshot, self.settings.snapshot.ends_application()) {
            self.left = Left::Busy;
            dump::load(&self.settings, &mut self.keeper, slot).await?;
            self.left = Left::Clean;
            return Ok(());
        }
        if !self.wipe().await {
            self.keeper.reset().await?;
            self.left = Left::Clean;
            probe::check_empty(self.keeper.address(), &self.settings).await?;
        }
        if let Some(slot) = snapshot {
            self.keeper.mark_used()?;
            self.left = Left::Busy;
            dump::load(&self.settings, &mut self.keeper, slot).await?;
            self.left = Left::Clean;
        }
        if self.keeper.same() {
            Ok(())
        } else {
            Err(anyhow::anyhow!("the application ended right after its start").into())
        }
    }

    /// Resets it in its own protocol; false if only a restart helps.
    async fn wipe(&mut self) -> bool {
        let hung = self.left == Left::Hung && self.keeper.restarts();
        if hung || !wipe::is_possible(&self.settings, self.left) || !self.keeper.is_used() {
            return false;
        }
        let address = self.keeper.address();
        let wiped = async {
            wipe::wipe(address, &self.settings, self.left).await?;
            probe::check_empty(address, &self.settings).await
        };
        if let Err(error) = wiped.await {
            tracing::warn!(
                error = format!("{error:#}"),
                "the application was not reset in its own protocol: it is restarted"
            );
            return false;
        }
        self.left = Left::Clean;
        self.keeper.same()
    }

    fn show(&self, state: State) {
        show(&self.settings, &self.keeper, &self.view, state);
    }
}

/// Lets everybody see how the application is.
pub(super) fn show(settings: &Settings, keeper: &Keeper, view: &watch::Sender<View>, state: State) {
    settings.metrics.app_up.set(i64::from(state == State::Running));
    view.send_replace(View { state, pid: keeper.pid(), incarnation: keeper.incarnation() });
}
