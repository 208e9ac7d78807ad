//! What a running `up` leaves on disk for `status`, `call` and its own next start: which parts there are, and as which
//! processes. Written whole, by rename; of no use after the next start of the machine.

use crate::exit::{Exit, Failure};
use crate::parts::adapter::Vote;
use crate::parts::signatures::Modes;
use crate::process::{Process, boot_id};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Its name in the data directory.
const FILE: &str = "state.json";

/// The kinds of parts that `up` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// A SMaRtServer beside its application.
    Sidecar,
    /// A SMaRtClient.
    SmartClient,
    /// An ingress.
    Ingress,
}

impl Role {
    /// Its name in output, and its subcommand.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::SmartClient => "smart-client",
            Self::Ingress => "ingress",
        }
    }
}

/// One part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartState {
    /// What it is.
    pub(crate) role: Role,
    /// Which one.
    pub(crate) id: u32,
    /// Its admin address.
    pub(crate) admin: SocketAddr,
    /// Its QUIC address, where others open links to it.
    pub(crate) quic: Option<SocketAddr>,
    /// As which process it runs.
    pub(crate) process: Option<Process>,
    /// A sidecar's application.
    pub(crate) app: Option<Process>,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The start of the machine that the processes belong to.
    pub(crate) boot_id: String,
    /// The `up` itself.
    pub(crate) up: Process,
    /// The cluster's name.
    pub(crate) cluster: String,
    /// Where clients come in.
    pub(crate) listen: SocketAddr,
    /// Where the certificates are.
    pub(crate) pki: PathBuf,
    /// Whether requests and replies are signed.
    #[serde(default)]
    pub(crate) signatures: Modes,
    /// How many equal replies make an answer.
    #[serde(default)]
    pub(crate) reply_vote: Vote,
    /// The parts.
    pub(crate) parts: Vec<PartState>,
}

impl State {
    /// Writes it into `dir`.
    pub(crate) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let (path, next) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
        let text = serde_json::to_vec_pretty(self).context("the state is no JSON")?;
        std::fs::write(&next, text)
            .and_then(|()| std::fs::rename(&next, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads it from `dir`; `None` where there is none, or none that can be read: then it tells nothing.
    pub(crate) fn read(dir: &Path) -> Option<Self> {
        let text = std::fs::read(dir.join(FILE)).ok()?;
        serde_json::from_slice(&text)
            .inspect_err(|error| tracing::warn!(%error, file = FILE, "cannot be read and is left out"))
            .ok()
    }

    /// The state of an `up` that runs on `dir`.
    pub(crate) fn of_running(dir: &Path) -> Result<Self, Failure> {
        let state = Self::read(dir).ok_or_else(|| {
            Failure::new(Exit::Unhealthy, format!("no `lockstep up` has run with --data-dir {}", dir.display()))
        })?;
        if state.boot_id == boot_id() && state.up.is_alive() {
            Ok(state)
        } else {
            Err(Failure::new(Exit::Unhealthy, format!("no `lockstep up` runs with --data-dir {} now", dir.display())))
        }
    }

    /// Ids and QUIC addresses of the SMaRtClients.
    pub(crate) fn smart_clients(&self) -> Vec<(Option<String>, String)> {
        let of = |part: &PartState| Some((Some(part.id.to_string()), part.quic?.to_string()));
        self.parts.iter().filter(|part| part.role == Role::SmartClient).filter_map(of).collect()
    }

    /// Where the revocation lists are, or will be.
    pub(crate) fn revocations(&self) -> PathBuf {
        self.pki.join("crl.pem")
    }

    /// Processes that still run though their `up` has ended: parts first, then applications.
    pub(crate) fn leftovers(&self) -> Vec<Process> {
        if self.boot_id != boot_id() {
            return Vec::new();
        }
        let parts = self.parts.iter().filter_map(|part| part.process);
        let apps = self.parts.iter().filter_map(|part| part.app);
        parts.chain(apps).filter(|process| process.is_alive()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let own = Process::with_pid(std::process::id()).expect("this process runs");
        let address = "127.0.0.1:7000".parse().expect("an address");
        let part = |role, id, quic| PartState { role, id, admin: address, quic, process: Some(own), app: None };
        State {
            boot_id: boot_id(),
            up: own,
            cluster: "local".to_owned(),
            listen: address,
            pki: "pki".into(),
            signatures: Modes::default(),
            reply_vote: Vote::Majority,
            parts: vec![
                part(Role::Sidecar, 0, Some(address)),
                part(Role::SmartClient, 1, Some(address)),
                part(Role::Ingress, 0, None),
            ],
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let dir = std::env::temp_dir().join(format!("lockstep-state-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the temporary directory can be written");
        assert_eq!(State::read(&dir), None);
        state().write(&dir).expect("the directory can be written");
        assert_eq!(State::read(&dir), Some(state()));
        std::fs::remove_dir_all(&dir).expect("it is ours");
    }

    #[test]
    fn native_clients_find_the_smart_clients_in_it() {
        assert_eq!(state().smart_clients(), [(Some("1".to_owned()), "127.0.0.1:7000".to_owned())]);
    }

    #[test]
    fn processes_of_an_earlier_start_of_the_machine_are_no_leftovers() {
        let mut state = state();
        assert_eq!(state.leftovers().len(), 3);
        state.boot_id = "another".to_owned();
        assert_eq!(state.leftovers(), []);
    }
}
