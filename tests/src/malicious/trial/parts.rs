//! The parts that a trial adds to a cluster: an ingress of its own, and the malicious SMaRtClient.

use super::Programs;
use crate::driver::{Process, Signal, Up, http, signal};
use crate::malicious::Wish;
use anyhow::{Context, bail, ensure};
use certs::Pki;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What only a hang reaches.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ports of the parts.
const PORTS: std::ops::Range<u16> = 4000..7000;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// A process that ends with its handle.
struct Part(Child);

impl Part {
    fn start(mut command: Command, log: &Path, stdout: Stdio) -> anyhow::Result<Self> {
        let log = std::fs::File::create(log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(stdout).stderr(log);
        Ok(Self(command.spawn().with_context(|| format!("cannot start {command:?}"))?))
    }

    fn lives(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The malicious SMaRtClient.
pub(super) struct Malicious {
    part: Part,
    said: BufReader<ChildStdout>,
    pub(super) quic: String,
    admin: String,
}

impl Malicious {
    /// Starts it with a certificate of its own, and waits until it reaches the servers.
    pub(super) fn start(programs: &Programs, up: &Up, pki: &Pki, id: &str, wishes: &[Wish]) -> anyhow::Result<Self> {
        let leaf = pki.ensure("smart-client", id)?;
        let servers: Vec<String> = up
            .role("sidecar")
            .into_iter()
            .filter_map(|server| Some(format!("{}={}", server.id, server.quic?)))
            .collect();
        let mut command = Command::new(&programs.malicious);
        command.args(["--id", id, "--servers", &servers.join(","), "--forged", "STEP forged", "--pki"]).arg(&leaf.dir);
        for wish in wishes {
            command.args(["--do", &wish.to_string()]);
        }
        let log = up.data_dir().join("logs").join(format!("{id}.log"));
        let mut part = Part::start(command, &log, Stdio::piped())?;
        let mut said = BufReader::new(part.0.stdout.take().context("its stdout is piped")?);
        let mut line = String::new();
        said.read_line(&mut line)?;
        let ready: Value =
            serde_json::from_str(&line).with_context(|| format!("it said {line:?}; see {}", log.display()))?;
        let text = |field: &str| ready[field].as_str().map(str::to_owned).with_context(|| line.clone());
        let this = Self { quic: text("quic")?, admin: text("admin")?, part, said };
        until("the malicious SMaRtClient reaches the servers", || match http::get(&this.admin, "/readyz")? {
            (200, _) => Ok(()),
            (code, body) => Err(format!("{code} {body}")),
        })?;
        Ok(this)
    }

    /// How often it did what it was to do, the sum over all.
    pub(super) fn done(&self) -> u64 {
        let status = http::json(&self.admin, "/status").unwrap_or_default();
        let done = |did: &Value| did["done"].as_u64();
        status["did"].as_object().map_or(0, |did| did.values().filter_map(done).sum())
    }

    /// Ends it; what it did, by behaviour.
    pub(super) fn end(mut self) -> anyhow::Result<Value> {
        ensure!(self.part.lives(), "it ended by itself");
        signal(Signal::TERM, self.part.0.id().into())?;
        let mut rest = String::new();
        self.said.read_to_string(&mut rest)?;
        let ended: Value = serde_json::from_str(&rest).with_context(|| format!("it said {rest:?}"))?;
        Ok(ended["did"].clone())
    }
}

/// The ingress of a trial.
pub(super) struct Ingress {
    part: Part,
    pub(super) listen: String,
    pub(super) process: Process,
}

impl Ingress {
    /// Starts it, pointed at these SMaRtClients.
    pub(super) fn start(
        programs: &Programs,
        up: &Up,
        pki: &Pki,
        id: &str,
        smart_clients: &[String],
        signatures: bool,
    ) -> anyhow::Result<Self> {
        let (listen, admin) = (free_address()?, free_address()?);
        if signatures { pki.ensure_signing("ingress", id) } else { pki.ensure("ingress", id) }?;
        let mut command = Command::new(&programs.lockstep);
        command.args(["ingress", "--cluster", "local", "--id", id, "--protocol", "line", "--deadline", "6s"]);
        command.args(["--listen", &listen, "--admin", &admin, "--smart-clients", &smart_clients.join(",")]);
        command.arg("--pki").arg(up.data_dir().join("pki"));
        if signatures {
            command.args(["--request-signatures", "required", "--reply-signatures", "required"]);
        }
        let log = up.data_dir().join("logs").join(format!("{id}.log"));
        let part = Part::start(command, &log, Stdio::null())?;
        let pid = part.0.id().into();
        let process = Process { role: "ingress".to_owned(), id: 0, pid, admin, app: None, quic: None };
        until("the ingress has links to all SMaRtClients", || {
            process.ready()?;
            let status = process.status()?;
            let all_up = status["peers"].as_array().is_some_and(|peers| peers.iter().all(|peer| peer["up"] == true));
            if all_up { Ok(()) } else { Err(status.to_string()) }
        })?;
        Ok(Self { part, listen, process })
    }

    /// Whether it still runs.
    pub(super) fn lives(&mut self) -> bool {
        self.part.lives()
    }
}

/// One that nobody has, and that the system gives to nobody who dials before the part has it: below its own range.
fn free_address() -> anyhow::Result<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in PORTS {
        let number = std::process::id().wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + u16::try_from(number % u32::from(PORTS.end - PORTS.start))?;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return Ok(listener.local_addr()?.to_string());
        }
    }
    bail!("no port from {} to {} is free", PORTS.start, PORTS.end)
}

/// Polls until something is so.
pub(super) fn until<T>(what: &str, mut found: impl FnMut() -> Result<T, String>) -> anyhow::Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        match found() {
            Ok(value) => return Ok(value),
            Err(state) if Instant::now() >= end => bail!("still not so: {what}: {state}"),
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}
