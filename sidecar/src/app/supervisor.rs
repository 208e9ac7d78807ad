//! The application as a child of this sidecar: started, watched, reset by being killed and started again, ended.
//!
//! Each child leads a process group of its own, so that what it forked goes with it. Its pid, start time and the
//! machine's boot are kept in a file: a sidecar that follows one that was killed finds the orphan and kills it, and
//! nothing else, before it starts a new child; or it adopts it, if the marker proves what it executed (rule 25).

use super::dump::directory;
use super::process;
use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// How long a child has from its start until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an application has to end by itself after SIGTERM.
const END_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the kernel has to end what was killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks.
const POLL: Duration = Duration::from_millis(5);
/// Between two looks at an application that is not our child.
const ADOPTED_POLL: Duration = Duration::from_millis(50);
/// How long an application whose directory is to be archived has to write it.
const QUIESCE_TIMEOUT: Duration = Duration::from_secs(60);
/// The application's log is moved aside when it is larger than this at a start.
const LOG_BYTES: u64 = 16 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Supervisor {
    argv: Vec<String>,
    port: u16,
    dir: PathBuf,
    /// Its state is in its working directory, which every reset empties.
    owns_dir: bool,
    child: Option<Running>,
}

#[derive(Debug)]
struct Running {
    /// `None` if it is the child of a sidecar that was killed.
    child: Option<Child>,
    identity: Identity,
}

impl Running {
    /// Whether it runs, and is not about to end.
    fn runs(&self) -> bool {
        self.identity.lives()
    }

    /// Resolves when it has ended. Cancel safe.
    async fn ended(&mut self) -> String {
        match &mut self.child {
            Some(child) => match child.wait().await {
                Ok(status) => format!("the application ended ({status})"),
                Err(error) => format!("the application cannot be watched: {error}"),
            },
            None => {
                while process::start_time(self.identity.pid) == Some(self.identity.start_time) {
                    sleep(ADOPTED_POLL).await;
                }
                "the application ended".to_owned()
            }
        }
    }

    /// Whether its pid, as the number of its group, is still ours to signal.
    fn owns_pid(&self) -> bool {
        let pid = self.identity.pid;
        match &self.child {
            // Once it was waited for, its pid may be another's; a group of that number without its leader is still ours.
            Some(child) => child.id().is_some() || !Path::new(&format!("/proc/{pid}")).exists(),
            None => self.identity.lives(),
        }
    }
}

/// What names a process for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    pid: u32,
    start_time: u64,
    boot: String,
    /// How it was started: a changed command is not one that is adopted.
    #[serde(default)]
    argv: Vec<String>,
}

impl Identity {
    fn lives(&self) -> bool {
        process::boot_id().ok().as_ref() == Some(&self.boot) && process::start_time(self.pid) == Some(self.start_time)
    }
}

impl Supervisor {
    pub(super) fn new(argv: &[String], id: u32, port: u16, dir: &Path, owns_dir: bool) -> Self {
        Self { argv: words(argv, id, port, dir), port, dir: dir.to_owned(), owns_dir, child: None }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(|running| running.identity.pid)
    }

    pub(super) fn incarnation(&self) -> Option<String> {
        self.child.as_ref().map(|running| format!("{}:{}", running.identity.pid, running.identity.start_time))
    }

    /// Ends whatever ran and starts anew, in the initial state; returns when it listens.
    pub(super) async fn reset(&mut self) -> anyhow::Result<()> {
        self.clear().await?;
        self.start().await
    }

    /// Ends whatever ran, at once, and makes its directory ready for the initial state or what is unpacked there.
    pub(super) async fn clear(&mut self) -> anyhow::Result<()> {
        self.kill().await?;
        kill_orphan(&self.record()).await?;
        std::fs::create_dir_all(&self.dir).with_context(|| format!("cannot create {}", self.dir.display()))?;
        if self.owns_dir { directory::empty(&self.dir) } else { Ok(()) }
    }

    /// Starts it; returns when it listens.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        // Whoever listens there now is not ours, and would be taken for the new child.
        let others = process::listening_inodes(self.port).context("cannot read the listening sockets")?;
        ensure!(others.is_empty(), "another process listens on port {}: end it, or choose another port", self.port);
        let child = self.spawn()?;
        self.child = Some(child);
        self.wait_until_it_listens().await
    }

    /// Ends it so that it can write what it has.
    pub(super) async fn quiesce(&mut self) -> anyhow::Result<()> {
        let running = self.child.as_mut().context("the application does not run")?;
        ensure!(running.owns_pid(), "the application ended by itself");
        signal_group(running.identity.pid, Signal::TERM);
        let ended = timeout(QUIESCE_TIMEOUT, running.ended()).await.is_ok();
        // What did not end is half ended: nothing can be known of it any more.
        self.kill().await?;
        ensure!(ended, "the application did not end after SIGTERM within {QUIESCE_TIMEOUT:?}");
        Ok(())
    }

    /// Takes over the application that a killed sidecar left, if it still runs and was started in the same way.
    pub(super) fn adopt(&mut self) -> bool {
        let bytes = std::fs::read(self.record()).unwrap_or_default();
        let Ok(identity) = serde_json::from_slice::<Identity>(&bytes) else { return false };
        if !identity.lives() || identity.argv != self.argv {
            return false;
        }
        self.child = Some(Running { child: None, identity });
        true
    }

    fn spawn(&self) -> anyhow::Result<Running> {
        let log = open_log(&self.dir)
            .with_context(|| format!("cannot open the application's log in {}", self.dir.display()))?;
        let (program, arguments) = self.argv.split_first().context("the application's command is empty")?;
        let mut child = Command::new(program)
            .args(arguments)
            .env("PORT", self.port.to_string())
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start the application `{program}`: check the command"))?;
        match child.id().context("it ended at once").and_then(|pid| self.remember(pid)) {
            Ok(identity) => Ok(Running { child: Some(child), identity }),
            Err(error) => {
                // A child that no later sidecar could find must not run.
                let _ = child.start_kill();
                Err(error)
            }
        }
    }

    fn remember(&self, pid: u32) -> anyhow::Result<Identity> {
        let start_time = process::start_time(pid).with_context(|| self.ended_early(None))?;
        let boot = process::boot_id().context("cannot read the boot id")?;
        let identity = Identity { pid, start_time, boot, argv: self.argv.clone() };
        let path = self.record();
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, serde_json::to_vec(&identity)?)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(identity)
    }

    async fn wait_until_it_listens(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(Running { child: Some(child), .. }) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                bail!("{}", self.ended_early(Some(status)));
            }
            // A look instead of a connection: the first connection of an application may mean something to it.
            if !process::listening_inodes(self.port)?.is_empty() {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the application does not listen on 127.0.0.1:{} after {START_TIMEOUT:?}: check that the command uses \
                 {{port}} or $PORT; its output is in {}",
                self.port,
                self.dir.join("application.log").display()
            );
            sleep(POLL).await;
        }
    }

    fn ended_early(&self, status: Option<ExitStatus>) -> String {
        let status = status.map_or_else(String::new, |status| format!(" ({status})"));
        let log = self.dir.join("application.log");
        format!("the application ended before it listened{status}; its output is in {}", log.display())
    }

    /// Resolves when the child ends by itself. Cancel safe.
    pub(super) async fn exited(&mut self) -> String {
        match &mut self.child {
            Some(running) => running.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Whether the child that was started last still runs.
    pub(super) fn runs(&self) -> bool {
        self.child.as_ref().is_some_and(Running::runs)
    }

    /// Kills the child and all of its group.
    async fn kill(&mut self) -> anyhow::Result<()> {
        let Some(mut running) = self.child.take() else { return Ok(()) };
        if running.owns_pid() {
            signal_group(running.identity.pid, Signal::KILL);
        }
        timeout(KILL_TIMEOUT, running.ended()).await.context("the application does not end after SIGKILL")?;
        Ok(())
    }

    /// Ends the child in an orderly way, or without.
    pub(super) async fn end(&mut self) {
        if let Some(running) = &mut self.child
            && running.runs()
        {
            signal_group(running.identity.pid, Signal::TERM);
            if timeout(END_TIMEOUT, running.ended()).await.is_err() {
                tracing::warn!("the application did not end after SIGTERM within {END_TIMEOUT:?}: it is killed");
            }
        }
        if let Err(error) = self.kill().await {
            tracing::error!(error = format!("{error:#}"), "the application could not be ended");
            return;
        }
        let _ = std::fs::remove_file(self.record());
    }

    fn record(&self) -> PathBuf {
        self.dir.join("application.pid")
    }
}

/// A command with its placeholders replaced.
pub(super) fn words(argv: &[String], id: u32, port: u16, dir: &Path) -> Vec<String> {
    let values = [("{port}", port.to_string()), ("{id}", id.to_string()), ("{dir}", dir.display().to_string())];
    argv.iter().map(|word| replace(word, &values)).collect()
}

/// A word with its placeholders replaced; what comes in is not looked at again.
fn replace(word: &str, values: &[(&str, String)]) -> String {
    let (mut replaced, mut rest) = (String::with_capacity(word.len()), word);
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        replaced.push_str(before);
        let known = values.iter().find_map(|(name, value)| Some((value.as_str(), from.strip_prefix(*name)?)));
        let (value, after) = known.unwrap_or_else(|| from.split_at(1));
        replaced.push_str(value);
        rest = after;
    }
    replaced + rest
}

/// Kills the child of a sidecar that was killed itself, if it still runs; never anything else.
async fn kill_orphan(record: &Path) -> anyhow::Result<()> {
    let Ok(bytes) = std::fs::read(record) else { return Ok(()) };
    let Ok(identity) = serde_json::from_slice::<Identity>(&bytes) else {
        tracing::warn!(file = %record.display(), "the record of an earlier application does not parse: it is ignored");
        return Ok(());
    };
    if !identity.lives() {
        return Ok(());
    }
    tracing::info!(pid = identity.pid, "ending the application that an earlier sidecar left");
    signal_group(identity.pid, Signal::KILL);
    let deadline = Instant::now() + KILL_TIMEOUT;
    while process::start_time(identity.pid) == Some(identity.start_time) {
        ensure!(Instant::now() < deadline, "the earlier application (pid {}) does not end after SIGKILL", identity.pid);
        sleep(POLL).await;
    }
    Ok(())
}

/// The caller knows that the group is that of our child, or of an earlier sidecar's.
pub(super) fn signal_group(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, signal);
    }
}

fn open_log(dir: &Path) -> std::io::Result<File> {
    let path = dir.join("application.log");
    if std::fs::metadata(&path).is_ok_and(|log| log.len() > LOG_BYTES) {
        std::fs::rename(&path, dir.join("application.log.old"))?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced_once_and_other_braces_stay() {
        let values = [("{port}", "7000".to_owned()), ("{id}", "{port}".to_owned())];
        assert_eq!(replace("--listen={port},{port}", &values), "--listen=7000,7000");
        assert_eq!(replace("{id}", &values), "{port}");
        assert_eq!(replace("{\"a\":{x}} {port", &values), "{\"a\":{x}} {port");
        assert_eq!(replace("", &values), "");
    }
}
