//! A cluster of parts by hand, each at a place of its own in the network, and started again when it ends.

use super::clients;
use super::cluster::Cluster;
use super::network::{Network, Node};
use super::options::{Options, Setup};
use crate::driver::{Process, Signal, http, signal};
use anyhow::{Context, bail, ensure};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The cluster's name.
const CLUSTER: &str = "chaos";
/// From a part's end to its next start, as `up` does.
const RESTART: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// From SIGTERM to SIGKILL at the end.
const END: Duration = Duration::from_secs(20);

/// One part and its present process.
#[derive(Debug)]
struct Part {
    node: Node,
    role: &'static str,
    id: u64,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
    /// Of the last process.
    pid: u64,
    restart_at: Option<Instant>,
}

/// The whole cluster. Dropping it ends everything.
#[derive(Debug)]
pub(super) struct Isolated {
    parts: Vec<Part>,
    program: PathBuf,
    ingress: String,
    // Dropped last: it ends what is left.
    network: Network,
}

impl Isolated {
    /// Makes the network, the certificates and the parts, and waits until a request would succeed.
    pub(super) fn start(
        options: &Options,
        setup: &Setup,
        data: &Path,
        mut give_up: impl FnMut() -> bool,
    ) -> anyhow::Result<Self> {
        let program = options.lockstep.canonicalize().with_context(|| format!("{}", options.lockstep.display()))?;
        let parts = plan(options, setup, &program, data)?;
        certificates(&program, &parts, options, data)?;
        let network = Network::create(parts.iter().map(|part| part.node).collect())?;
        let ingress = format!("{}:7000", Node::Ingress.address());
        let mut cluster = Self { parts, program, ingress, network };
        for index in 0..cluster.parts.len() {
            cluster.start_part(index)?;
        }
        cluster.bootstrap(options, data, &mut give_up)?;
        while !cluster.is_ready() {
            ensure!(!give_up(), "the cluster is not ready; its logs are in {}", data.display());
            cluster.tend()?;
            std::thread::sleep(LOOK);
        }
        Ok(cluster)
    }

    fn start_part(&mut self, index: usize) -> anyhow::Result<()> {
        let part = &mut self.parts[index];
        let log = File::options().create(true).append(true).open(&part.log)?;
        let mut command = self.network.command(part.node, &self.program);
        command.args(&part.arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = spawn(&mut command)?;
        part.pid = child.id().into();
        part.child = Some(child);
        part.restart_at = None;
        Ok(())
    }

    /// The explicit first start.
    fn bootstrap(&mut self, options: &Options, data: &Path, give_up: &mut impl FnMut() -> bool) -> anyhow::Result<()> {
        let mut command = self.network.command(Node::Ingress, &self.program);
        command.args(["bootstrap", "--cluster", CLUSTER, "--id", "0", "--seeds", &servers(options.replicas)]);
        command.args(["--expect", &options.replicas.to_string(), "--pki"]).arg(data.join("pki"));
        let log = File::create(data.join("bootstrap.log"))?;
        let mut child = spawn(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log))?;
        loop {
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "bootstrap ended with {status}; its log is in {}", data.display());
                return Ok(());
            }
            if give_up() {
                let _ = child.kill();
                let _ = child.wait();
                bail!("the cluster does not begin; its logs are in {}", data.display());
            }
            self.tend()?;
            std::thread::sleep(LOOK);
        }
    }

    fn is_ready(&self) -> bool {
        let ready = |part: &Part| matches!(http::get(&part.admin(), "/readyz"), Ok((200, _)));
        self.parts.iter().all(ready)
    }
}

impl Cluster for Isolated {
    fn ingress(&self) -> &str {
        &self.ingress
    }

    fn parts(&self) -> Vec<Process> {
        let shown = |part: &Part| Process {
            role: part.role.to_owned(),
            id: part.id,
            pid: part.pid,
            admin: part.admin(),
            app: None,
            quic: None,
        };
        self.parts.iter().map(shown).collect()
    }

    fn tend(&mut self) -> anyhow::Result<()> {
        for index in 0..self.parts.len() {
            let part = &mut self.parts[index];
            if let Some(child) = &mut part.child
                && child.try_wait()?.is_some()
            {
                part.child = None;
                part.restart_at = Some(Instant::now() + RESTART);
            }
            if part.restart_at.is_some_and(|at| at <= Instant::now()) {
                self.start_part(index)?;
            }
        }
        Ok(())
    }

    fn ask_app(&self, server: u64, address: &str, line: &str) -> anyhow::Result<String> {
        self.network.at(Node::Server(server), || Ok(clients::ask_directly(address, line)?))
    }

    fn network(&self) -> Option<&Network> {
        Some(&self.network)
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        let end = Instant::now() + END;
        // In the way of a request, so that nobody waits for somebody who has gone.
        for role in ["ingress", "smart-client", "sidecar"] {
            let mut children: Vec<&mut Child> =
                self.parts.iter_mut().filter(|part| part.role == role).filter_map(|part| part.child.as_mut()).collect();
            for child in &children {
                let _ = signal(Signal::TERM, child.id().into());
            }
            for child in &mut children {
                while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
                    std::thread::sleep(LOOK);
                }
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

impl Part {
    fn admin(&self) -> String {
        format!("{}:9400", self.node.address())
    }
}

fn servers(count: u64) -> String {
    let all = (0..count).map(|id| format!("{id}={}:7500", Node::Server(id).address()));
    all.collect::<Vec<_>>().join(",")
}

/// All parts, none of them started.
fn plan(options: &Options, setup: &Setup, program: &Path, data: &Path) -> anyhow::Result<Vec<Part>> {
    let text = |path: PathBuf| path.into_os_string().into_string().ok().context("a path that is no text");
    let pki = text(data.join("pki"))?;
    let own = std::process::id().to_string();
    let part = |node: Node, role: &'static str, id: u64, rest: &[&str]| {
        let (address, number) = (node.address(), id.to_string());
        let admin = format!("{address}:9400");
        let common =
            [role, "--cluster", CLUSTER, "--id", &number, "--pki", &pki, "--admin", &admin, "--parent-pid", &own];
        let arguments = common.iter().chain(rest).map(|word| (*word).to_owned()).collect();
        let log = data.join(format!("{role}-{id}.log"));
        Part { node, role, id, arguments, log, child: None, pid: 0, restart_at: None }
    };
    let seeds = servers(options.replicas);
    let program = text(program.to_owned())?;
    // As `up` does: whoever asked must still be there to be told of an abort.
    let app_timeout = format!("{}ms", (options.deadline * 400).min(4000));
    let mut parts = Vec::new();
    for id in 0..options.replicas {
        let node = Node::Server(id);
        let (quic, dir) = (format!("{}:7500", node.address()), text(data.join(format!("server-{id}")))?);
        let mut rest = vec!["--quic", &quic, "--seeds", &seeds, "--data-dir", &dir, "--app-port", "9500"];
        rest.extend(["--app-timeout", &app_timeout]);
        rest.extend(["--protocol", "line", "--snapshot", "request", "--snapshot-dialect", "hashmap"]);
        rest.extend(options.signing());
        rest.extend(setup.recovery.iter().map(String::as_str));
        rest.extend(["--", &program, "hashmap", "--listen", "127.0.0.1:{port}"]);
        parts.push(part(node, "sidecar", id, &rest));
    }
    for id in 0..options.smart_clients {
        let node = Node::SmartClient(id);
        let quic = format!("{}:7500", node.address());
        parts.push(part(node, "smart-client", id, &["--quic", &quic, "--servers", &seeds]));
    }
    let clients: Vec<String> =
        (0..options.smart_clients).map(|id| format!("{id}={}:7500", Node::SmartClient(id).address())).collect();
    let (clients, deadline) = (clients.join(","), format!("{}s", options.deadline));
    let listen = format!("{}:7000", Node::Ingress.address());
    let mut rest =
        vec!["--smart-clients", &clients, "--protocol", "line", "--listen", &listen, "--deadline", &deadline];
    rest.extend(options.signing());
    parts.push(part(Node::Ingress, "ingress", 0, &rest));
    Ok(parts)
}

fn certificates(program: &Path, parts: &[Part], options: &Options, data: &Path) -> anyhow::Result<()> {
    let run = |words: &[&str]| {
        let mut command = Command::new(program);
        let output = command.arg("certs").args(words).arg("--dir").arg(data.join("pki")).output()?;
        ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        anyhow::Ok(())
    };
    run(&["init", "--cluster", CLUSTER])?;
    run(&["issue", "admin", "0"])?;
    parts.iter().try_for_each(|part| {
        let role = if part.role == "sidecar" { "server" } else { part.role };
        let signing = if options.signatures && role != "smart-client" { &["--signing"][..] } else { &[] };
        run(&[&["issue", role, &part.id.to_string()], signing].concat())
    })
}

fn spawn(command: &mut Command) -> anyhow::Result<Child> {
    use std::os::unix::process::CommandExt;
    // A Ctrl-C at the terminal is for this program alone.
    command.process_group(0).spawn().with_context(|| format!("cannot start {command:?}"))
}
