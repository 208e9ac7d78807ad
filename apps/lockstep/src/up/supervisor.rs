//! The loop of `up`: starts the parts, makes the first start of the cluster, says when it is ready, starts again what
//! ended, until it is told to stop.

use super::args::Settings;
use super::children::{Children, Ended, Part};
use super::observe::{Look, Observer};
use super::output::{self, Event, Format, Reason, shown_status};
use super::plan::Plan;
use super::ready::Readiness;
use super::state::State;
use super::stop;
use crate::exit::Failure;
use crate::process::{Process, boot_id};
use anyhow::{Context, anyhow};
use mesh::node::stop_signal;
use sidecar::bootstrap::{self, BootstrapConfig};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(100);
/// The same while all parts run.
const CALM: Duration = Duration::from_secs(1);
/// Before it was ever ready, a part that ends this often soon after its start will not come.
const QUICK_ENDS_MAX: u32 = 5;
/// An exit code of a part that no second start heals: wrong configuration.
const WRONG_CONFIGURATION: i32 = 2;
/// Between two words about what is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at the length of the logs.
const TRIM: Duration = Duration::from_secs(10);

/// A running `up`.
pub(crate) struct Supervisor {
    settings: Settings,
    plan: Plan,
    children: Children,
    readiness: Readiness,
    is_ready: bool,
    complained: Instant,
    trimmed: Instant,
}

impl Supervisor {
    /// Nothing runs yet.
    pub(crate) fn new(settings: Settings, plan: Plan) -> Self {
        let (children, readiness) = (Children::new(&plan), Readiness::new(&plan.parts));
        let now = Instant::now();
        Self { settings, plan, children, readiness, is_ready: false, complained: now, trimmed: now }
    }

    /// Runs until SIGTERM or SIGINT, or until it is clear that it cannot.
    pub(crate) async fn run(mut self, operator: PathBuf) -> Result<(), Failure> {
        let result = self.supervise(operator).await;
        let format = self.settings.output;
        let mut tell = |event: &Event<'_>| tell(format, event);
        stop::stop(&mut self.children, self.settings.drain_timeout, &mut tell).await;
        self.write_state();
        Ok(result?)
    }

    async fn supervise(&mut self, operator: PathBuf) -> anyhow::Result<()> {
        let mut stop = pin!(stop_signal());
        let mut ended = signal(SignalKind::child()).context("cannot listen for the end of the parts")?;
        for index in 0..self.children.parts.len() {
            self.children.start(index)?;
        }
        self.write_state();
        let mut bootstrap = pin!(first_start(self.bootstrap_config(operator)));
        let mut bootstrapped = false;
        let mut observer = Observer::new(&self.plan.parts);
        let mut ticked = Instant::now();
        loop {
            let calm = self.is_ready && !self.children.any_to_start();
            let next = ticked + if calm { CALM } else { TICK };
            tokio::select! {
                () = &mut stop => return Ok(()),
                _ = ended.recv() => self.reap()?,
                look = observer.next() => self.look(&look),
                () = &mut bootstrap, if !bootstrapped => bootstrapped = true,
                () = sleep_until(next) => {
                    ticked = Instant::now();
                    self.tick(bootstrapped)?;
                }
            }
        }
    }

    fn bootstrap_config(&self, operator: PathBuf) -> BootstrapConfig {
        BootstrapConfig {
            cluster: self.settings.cluster.clone(),
            pki: operator,
            trust_bundle: None,
            crl: Some(self.plan.pki.join("crl.pem")),
            members: self.plan.members.clone(),
            timeout: None,
        }
    }

    fn tick(&mut self, bootstrapped: bool) -> anyhow::Result<()> {
        self.reap()?;
        for index in self.children.due() {
            self.restart(index);
        }
        if self.trimmed.elapsed() >= TRIM {
            self.trimmed = Instant::now();
            self.children.trim_logs();
        }
        if !self.is_ready {
            if bootstrapped && self.readiness.verdict() {
                self.say_ready();
            } else if self.complained.elapsed() >= PATIENCE {
                self.complained = Instant::now();
                self.say_what_is_missing(bootstrapped);
            }
        }
        Ok(())
    }

    fn reap(&mut self) -> anyhow::Result<()> {
        let all = self.children.reap();
        for ended in &all {
            self.ended(ended)?;
        }
        if !all.is_empty() {
            self.write_state();
        }
        Ok(())
    }

    fn ended(&mut self, ended: &Ended) -> anyhow::Result<()> {
        let part = &self.children.parts[ended.index];
        let (name, status) = (part.plan.name(), shown_status(ended.status));
        let event = Event::Exited { role: part.plan.role, id: part.plan.id, pid: ended.pid, status: status.clone() };
        tell(self.settings.output, &event);
        let last = if ended.quick { format!("; its last lines:\n{}", part.tail()) } else { String::new() };
        tracing::warn!(part = %name, pid = ended.pid, "a part ended: {status}{last}");
        let hopeless = ended.status.code() == Some(WRONG_CONFIGURATION) || part.quick_ends >= QUICK_ENDS_MAX;
        if !self.is_ready && hopeless {
            return Err(anyhow!("{name} cannot be started: {status}; its log ends with\n{}", part.tail()));
        }
        if self.settings.restart {
            self.children.plan_restart(ended.index);
        } else if !self.children.any_alive(None) {
            return Err(anyhow!("every part has ended, and --no-restart was given"));
        }
        Ok(())
    }

    fn restart(&mut self, index: usize) {
        match self.children.start(index) {
            Ok(()) => {
                let part = &self.children.parts[index];
                tracing::info!(pid = part.pid(), "{} started again", part.plan.name());
                tell(self.settings.output, &Event::Started { part: part.shown(), reason: Reason::Part });
                self.write_state();
            }
            Err(error) => {
                tracing::error!("a part cannot be started again: {error:#}: trying again");
                self.children.plan_restart(index);
            }
        }
    }

    /// Takes in what a part says of itself, a new process of its application above all.
    fn look(&mut self, look: &Look) {
        self.readiness.note(look);
        let Some(app) = look.app_pid.and_then(Process::with_pid) else { return };
        let part = &mut self.children.parts[look.index];
        let before = part.app.replace(app);
        if before == Some(app) {
            return;
        }
        // The first one is no restart: `ready` names it.
        if self.is_ready || before.is_some() {
            let event = Event::Started { part: part.shown(), reason: Reason::App };
            tracing::warn!(part = %part.plan.name(), pid = app.pid, "the application is a new process");
            tell(self.settings.output, &event);
        }
        self.write_state();
    }

    /// With the last words of the first part that keeps everybody waiting.
    fn say_what_is_missing(&self, bootstrapped: bool) {
        let missing = self.readiness.missing();
        let first =
            self.children.parts.iter().find(|part| missing.first().is_some_and(|name| *name == part.plan.name()));
        let last =
            first.map(|part| format!("; the last lines of {}:\n{}", part.plan.name(), part.tail())).unwrap_or_default();
        tracing::warn!(bootstrapped, ?missing, "not ready yet{last}");
    }

    fn say_ready(&mut self) {
        self.is_ready = true;
        let missing = self.readiness.missing();
        if !missing.is_empty() {
            tracing::warn!(?missing, "ready without some of the parts");
        }
        match self.settings.output {
            Format::Json => output::print_json(&Event::Ready {
                listen: self.plan.listen,
                data_dir: &self.plan.data_dir,
                pki: &self.plan.pki,
                processes: self.children.parts.iter().map(Part::shown).collect(),
            }),
            Format::Text => output::print(&output::welcome(&self.settings, &self.plan)),
        }
    }

    /// For `status`, `call` and the next start. Without it they know less; `up` itself runs on.
    fn write_state(&self) {
        let Some(up) = Process::with_pid(std::process::id()) else { return };
        let state = State {
            boot_id: boot_id(),
            up,
            cluster: self.settings.cluster.clone(),
            listen: self.plan.listen,
            pki: self.plan.pki.clone(),
            signatures: self.settings.signatures,
            reply_vote: self.settings.reply_vote,
            parts: self.children.parts.iter().map(Part::state).collect(),
        };
        if let Err(error) = state.write(&self.plan.data_dir) {
            tracing::warn!("what is needed to know of this run is not written: {error:#}");
        }
    }
}

/// People see the log; programs see every event.
fn tell(format: Format, event: &Event<'_>) {
    if format == Format::Json {
        output::print_json(event);
    }
}

/// The explicit first start, until it succeeds; does nothing where there is history already.
async fn first_start(config: BootstrapConfig) {
    while let Err(error) = bootstrap::run(config.clone()).await {
        tracing::warn!("first start of the cluster: {error:#}: trying again");
        sleep(Duration::from_secs(1)).await;
    }
}
