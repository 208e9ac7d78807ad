//! One process of a cluster.

use super::http;
use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// One process of a cluster, as the last event about it says.
#[derive(Clone, Debug)]
pub struct Process {
    /// "sidecar", "smart-client" or "ingress".
    pub role: String,
    /// Unique in its role.
    pub id: u64,
    /// Of the part itself.
    pub pid: u64,
    /// Its admin port.
    pub admin: String,
    /// The application's pid and address, of a sidecar.
    pub app: Option<(u64, String)>,
    /// Where QUIC links come in.
    pub quic: Option<String>,
}

impl Process {
    /// Reads the fields of an event; `None` if some are missing.
    #[must_use]
    pub fn read(event: &Value) -> Option<Self> {
        let text = |field: &Value| field.as_str().map(str::to_owned);
        let app = &event["app"];
        Some(Self {
            role: text(&event["role"])?,
            id: event["id"].as_u64()?,
            pid: event["pid"].as_u64()?,
            admin: text(&event["admin"])?,
            app: app["pid"].as_u64().zip(text(&app["addr"])),
            quic: text(&event["quic"]),
        })
    }

    /// Its `/status`.
    ///
    /// # Errors
    /// In words: it does not answer.
    pub fn status(&self) -> Result<Value, String> {
        http::json(&self.admin, "/status")
    }

    /// Whether it says that it is ready.
    ///
    /// # Errors
    /// In words: what it waits for.
    pub fn ready(&self) -> Result<(), String> {
        match http::get(&self.admin, "/readyz?verbose")? {
            (200, _) => Ok(()),
            (code, body) => Err(format!("{} {}: {code} {body}", self.role, self.id)),
        }
    }
}

/// Sends a signal to one process.
///
/// # Errors
/// There is none with this pid, or it is not ours.
pub fn signal(signal: Signal, pid: u64) -> anyhow::Result<()> {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no pid")?;
    kill_process(target, signal).with_context(|| format!("cannot send {signal:?} to {pid}"))
}

/// Whether a process is there and more than a zombie.
#[must_use]
pub fn lives(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
