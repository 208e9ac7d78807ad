//! The task that owns the application.

use super::exchange::Loss;
use super::found::Found;
use super::keeper::Keeper;
use super::supervisor::Supervisor;
use super::{Command, Event, Settings, State, View, probe, sequential, shared};
use crate::App;
use mesh::framing::Connections;
use mesh::ids::Run;
use std::path::PathBuf;
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
    let keeper = match &settings.app {
        App::Command { argv, port, dir } => Keeper::Child(Supervisor::new(argv, settings.id, *port, dir)),
        App::Address(address) => {
            // Config::validate demands one.
            let data_dir = settings.data_dir.clone().unwrap_or_else(|| PathBuf::from("."));
            Keeper::Found(Found::new(*address, &data_dir, Arc::clone(&awaits_restart)))
        }
    };
    let (commands, commands_in) = mpsc::channel(COMMANDS);
    let (events_out, events) = mpsc::channel(EVENTS);
    let (view_out, view) = watch::channel(View::default());
    let worker =
        Worker { settings, keeper, commands: commands_in, events: events_out, view: view_out, backoff: BACKOFF_MIN };
    (Handle { commands, events, view, awaits_restart }, tokio::spawn(worker.run(stop)))
}

struct Worker {
    settings: Settings,
    keeper: Keeper,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    view: watch::Sender<View>,
    backoff: Duration,
}

/// What executes during one run.
pub(super) struct Live<'a> {
    pub(super) run: Run,
    pub(super) settings: &'a Settings,
    pub(super) keeper: &'a mut Keeper,
    pub(super) commands: &'a mut mpsc::Receiver<Command>,
    pub(super) events: &'a mpsc::Sender<Event>,
}

/// Why a run ended.
pub(super) enum End {
    /// The application is lost.
    Lost(Loss),
    /// It is to be reset.
    Reset(Run),
    /// The driver is gone.
    Stopped,
}

impl Worker {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.serve() => {}
        }
        self.show(State::Down);
        self.keeper.end().await;
    }

    async fn serve(&mut self) {
        let mut next = None;
        loop {
            let run = match next.take() {
                Some(run) => run,
                None => match self.commands.recv().await {
                    Some(Command::Reset { run, .. } | Command::Resume { run }) => run,
                    // Of a run that was lost.
                    Some(Command::Execute { .. } | Command::Dump { .. }) => continue,
                    None => return,
                },
            };
            self.reset(run).await;
            if self.events.send(Event::Restored { run }).await.is_err() {
                return;
            }
            let begun = Instant::now();
            let end = self.live(run).await;
            if begun.elapsed() >= LONG_LIFE {
                self.backoff = BACKOFF_MIN;
            }
            match end {
                End::Stopped => return,
                End::Reset(run) => next = Some(run),
                End::Lost(loss) => {
                    tracing::warn!(%loss, "the application is lost: it is reset, and everything is replayed");
                    self.show(State::Down);
                    if self.events.send(Event::Lost { run }).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn live(&mut self, run: Run) -> End {
        let Self { settings, keeper, commands, events, .. } = self;
        let connections = settings.adapter.connections;
        let mut live = Live { run, settings, keeper, commands, events };
        match connections {
            Connections::Shared => shared::serve(&mut live).await,
            Connections::PerRequest | Connections::PerSession => sequential::serve(&mut live).await,
        }
    }

    /// Tries until the application runs in its initial state.
    async fn reset(&mut self, run: Run) {
        if run > Run(1) {
            self.settings.metrics.app_resets.inc();
            self.wait().await;
        }
        self.show(State::Resetting);
        while let Err(error) = self.try_reset().await {
            tracing::error!(error = format!("{error:#}"), "the application could not be reset; trying again");
            self.show(State::Resetting);
            self.wait().await;
        }
        self.show(State::Running);
    }

    async fn wait(&mut self) {
        sleep(self.backoff).await;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    async fn try_reset(&mut self) -> anyhow::Result<()> {
        self.keeper.reset().await?;
        probe::check_empty(self.keeper.address(), &self.settings.adapter, self.settings.timeout).await?;
        anyhow::ensure!(self.keeper.same(), "the application ended right after its start");
        Ok(())
    }

    fn show(&self, state: State) {
        self.settings.metrics.app_up.set(i64::from(state == State::Running));
        let (pid, incarnation) = (self.keeper.pid(), self.keeper.incarnation());
        self.view.send_replace(View { state, pid, incarnation });
    }
}
