//! The cluster under test, as the rest of the program needs it.

use super::clients;
use super::options::{Options, Setup};
use crate::driver::{Process, Up, http};
use anyhow::Context;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// For one answer of an admin port: a process that stands still gives none.
const PATIENCE: Duration = Duration::from_millis(800);

/// A running cluster whose parts are started again when they end.
pub(super) trait Cluster {
    /// Where clients connect.
    fn ingress(&self) -> &str;

    /// The present processes of the servers and SMaRtClients; a part that is being started again may be shown as it was.
    fn parts(&self) -> Vec<Process>;

    /// Does what has to be done now and then.
    ///
    /// # Errors
    /// The cluster cannot go on.
    fn tend(&mut self) -> anyhow::Result<()>;

    /// Asks a server's application itself.
    ///
    /// # Errors
    /// It does not answer.
    fn ask_app(&self, server: u64, address: &str, line: &str) -> anyhow::Result<String>;

    /// The network between the parts, where it can be harmed.
    fn network(&self) -> Option<&super::network::Network> {
        None
    }
}

/// What a server says of itself.
#[derive(Clone, Debug)]
pub(super) struct Health {
    pub(super) role: String,
    pub(super) decided: u64,
    pub(super) executed: u64,
    pub(super) app: String,
    pub(super) app_pid: Option<u64>,
    pub(super) app_addr: String,
    pub(super) silent: bool,
}

impl Health {
    /// Asks a server.
    pub(super) fn ask(admin: &str) -> Result<Self, String> {
        let status = http::json_within(admin, "/status", PATIENCE)?;
        let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
        let number = |field: &str| status[field].as_u64().unwrap_or_default();
        Ok(Self {
            role: text("role"),
            decided: number("decided"),
            executed: number("executed"),
            app: text("app"),
            app_pid: status["app_pid"].as_u64(),
            app_addr: text("app_addr"),
            silent: status["silent"] != Value::Null,
        })
    }

    /// It votes, and its application runs.
    pub(super) fn serves(&self) -> bool {
        matches!(self.role.as_str(), "leader" | "follower") && self.app == "running" && !self.silent
    }
}

/// Whether a part says that it is ready.
pub(super) fn is_ready(admin: &str) -> bool {
    matches!(http::get_within(admin, "/readyz", PATIENCE), Ok((200, _)))
}

/// `lockstep up`.
#[derive(Debug)]
pub(super) struct OneMachine(Up);

impl OneMachine {
    /// Starts it with what the seed has drawn; gives up where `give_up` says so.
    pub(super) fn start(
        options: &Options,
        setup: &Setup,
        data: &Path,
        give_up: impl FnMut() -> bool,
    ) -> anyhow::Result<Self> {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(&options.lockstep);
        // A Ctrl-C at the terminal is for this program alone, which ends the cluster in order.
        command.process_group(0);
        let data = data.to_str().context("the data directory's name is no text")?;
        let (replicas, smart_clients) = (options.replicas.to_string(), options.smart_clients.to_string());
        let deadline = format!("{}s", options.deadline);
        let mut arguments = vec!["-n", &replicas, "--smart-clients", &smart_clients, "--protocol", "line"];
        arguments.extend(["--data-dir", data, "--deadline", &deadline]);
        arguments.extend(options.signing());
        arguments.extend(setup.recovery.iter().map(String::as_str));
        Ok(Self(Up::start(command, &arguments, give_up)?))
    }
}

impl Cluster for OneMachine {
    fn ingress(&self) -> &str {
        self.0.listen()
    }

    fn parts(&self) -> Vec<Process> {
        self.0.processes()
    }

    fn tend(&mut self) -> anyhow::Result<()> {
        match self.0.ended()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("up ended with {status}:\n{}", self.0.log()),
        }
    }

    fn ask_app(&self, _: u64, address: &str, line: &str) -> anyhow::Result<String> {
        Ok(clients::ask_directly(address, line)?)
    }
}
