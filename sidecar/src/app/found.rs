//! The application that somebody else starts: found by the address it listens on, told from its successors by the
//! inodes of its listening sockets (rule 24).
//!
//! It is restarted by whoever supervises it (`lockstep exec`, over a socket), or by whoever looks at `/app/livez`. An incarnation that was never sent a request by this member is taken for one in its
//! initial state; one that was sent any is reset in its own protocol, or waited out until another one listens. What was sent to is kept in a file, so that it
//! holds for the sidecars after this one too. An application that this host's /proc does not show (another network
//! namespace, another machine) is refused, because nothing could be proven of it.

use super::{process, restarter};
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks for a new incarnation.
const POLL: Duration = Duration::from_millis(100);
/// Between two questions to its supervisor, and how long a new process has until somebody is told that it does not listen.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Between two looks for one that was just started.
const STARTING_POLL: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Found {
    address: SocketAddr,
    record: PathBuf,
    /// The incarnation in use; `None` while there is none.
    current: Option<Incarnation>,
    /// Whether `current` was sent anything that may have changed it.
    used: bool,
    /// Told to whoever can have it restarted.
    awaits_restart: Arc<AtomicBool>,
    /// The socket of the supervisor that can restart it.
    supervisor: Option<PathBuf>,
}

/// One life of an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Incarnation {
    boot: String,
    inodes: BTreeSet<u64>,
}

impl Found {
    pub(super) fn new(
        address: SocketAddr,
        data_dir: &Path,
        awaits_restart: Arc<AtomicBool>,
        supervisor: Option<PathBuf>,
    ) -> Self {
        let record = data_dir.join("application.incarnation");
        Self { address, record, current: None, used: false, awaits_restart, supervisor }
    }

    /// Whether it can be restarted at once.
    pub(super) const fn is_supervised(&self) -> bool {
        self.supervisor.is_some()
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn incarnation(&self) -> Option<String> {
        let current = self.current.as_ref()?;
        Some(current.inodes.iter().map(u64::to_string).collect::<Vec<_>>().join(","))
    }

    /// Waits for an incarnation that was never used.
    pub(super) async fn reset(&mut self) -> anyhow::Result<()> {
        if self.used || self.current.is_none() {
            self.current = None;
            self.current = Some(self.wait_for_another().await?);
            self.used = false;
        } else if !self.same() {
            self.current = None;
            anyhow::bail!("the application was restarted while it was looked at");
        }
        Ok(())
    }

    async fn wait_for_another(&self) -> anyhow::Result<Incarnation> {
        let used = self.last_used()?;
        let (mut told, mut restarted) = (false, false);
        let mut ask_at = Instant::now();
        let mut say_at = ask_at;
        loop {
            let found = self.look()?;
            if !found.inodes.is_empty() && used.as_ref() != Some(&found) {
                self.awaits_restart.store(false, Ordering::Relaxed);
                return Ok(found);
            }
            if self.is_supervised() && !found.inodes.is_empty() && Instant::now() >= ask_at {
                restarted = self.restart().await;
                ask_at = Instant::now() + ASK_AGAIN;
                if restarted {
                    say_at = ask_at;
                    continue;
                }
            }
            self.awaits_restart.store(!found.inodes.is_empty(), Ordering::Relaxed);
            if !told && Instant::now() >= say_at {
                told = true;
                if found.inodes.is_empty() {
                    tracing::warn!(address = %self.address, "waiting for the application: nothing listens there in this network namespace");
                } else {
                    tracing::warn!(address = %self.address, "the application must be restarted: it was sent requests, and its state must be the initial one now");
                }
            }
            sleep(if restarted { STARTING_POLL } else { POLL }).await;
        }
    }

    /// Has its supervisor restart it; false if there is none, or it does not do so.
    async fn restart(&self) -> bool {
        let Some(socket) = &self.supervisor else { return false };
        match restarter::restart(socket).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the application is not restarted by its supervisor: /app/livez fails instead"
                );
                false
            }
        }
    }

    fn look(&self) -> anyhow::Result<Incarnation> {
        let boot = process::boot_id().context("cannot read the boot id")?;
        let inodes = process::listening_inodes(self.address.port()).context("cannot read the listening sockets")?;
        Ok(Incarnation { boot, inodes })
    }

    /// Whether an application that was sent requests by this member listens, so that it may be reset in its protocol.
    /// Whatever else listens may hold somebody's data.
    pub(super) fn is_used(&mut self) -> bool {
        (self.adopt() && self.used) && self.same()
    }

    /// Takes the application that listens for the one in use, if there is none yet.
    pub(super) fn adopt(&mut self) -> bool {
        if self.current.is_some() {
            return self.same();
        }
        let (Ok(now), Ok(used)) = (self.look(), self.last_used()) else { return false };
        if now.inodes.is_empty() {
            return false;
        }
        self.used = used.as_ref() == Some(&now);
        self.current = Some(now);
        true
    }

    /// Whether the incarnation in use still listens.
    pub(super) fn same(&self) -> bool {
        self.look().ok().is_some_and(|now| self.current.as_ref() == Some(&now))
    }

    /// Notes that the incarnation is about to be sent something. It need only survive this process, so it is not synced.
    pub(super) fn mark_used(&mut self) -> anyhow::Result<()> {
        if self.used {
            return Ok(());
        }
        let current = self.current.as_ref().context("there is no application")?;
        ensure!(self.same(), "the application was restarted");
        let temporary = self.record.with_extension("new");
        std::fs::write(&temporary, serde_json::to_vec(current)?)
            .and_then(|()| std::fs::rename(&temporary, &self.record))
            .with_context(|| format!("cannot write {}", self.record.display()))?;
        self.used = true;
        Ok(())
    }

    fn last_used(&self) -> anyhow::Result<Option<Incarnation>> {
        match std::fs::read(&self.record) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| {
                format!("{} does not parse: restart the application, then remove that file", self.record.display())
            })?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.record.display())),
        }
    }
}
