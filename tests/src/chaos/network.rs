//! A network of our own: a namespace for each part, cables to a bridge in one more, and rules that lose packets.
//!
//! The bridge's namespace, the hub, is where this program's threads are while a cluster runs: so nothing of it is in the
//! machine's own network. All names begin with a prefix that has this process's id, and everything is removed at the end.

use anyhow::{Context, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;

/// The hub's address, and what it ends: 10.77.0.0/24 of a network that nobody else sees.
const HUB: &str = "10.77.0.254/24";

/// A place in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Server(u64),
    SmartClient(u64),
    Ingress,
}

/// What is done to a link of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    /// Neither hears the other.
    Cut,
    /// The second does not hear the first.
    OneWay,
    /// The first does not hear the second.
    OtherWay,
    /// So many of a hundred packets are lost, both ways.
    Lossy(u64),
}

/// A harm that was done: the rules that have to be taken away.
#[derive(Debug)]
pub(super) struct Cut {
    rules: Vec<(Node, Vec<String>)>,
}

/// The namespaces. Dropping it ends what still runs in them, and removes them.
#[derive(Debug)]
pub(super) struct Network {
    prefix: String,
    nodes: Vec<Node>,
    /// Where this program's thread was before.
    before: File,
}

impl Network {
    /// Makes the namespaces and their cables, and moves the calling thread (and those that it makes) into the hub.
    pub(super) fn create(nodes: Vec<Node>) -> anyhow::Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "--network makes network namespaces, and needs root for that");
        for (program, package) in [("ip", "iproute2"), ("iptables", "iptables")] {
            let found = Command::new(program).arg("-V").output();
            ensure!(found.is_ok(), "--network needs the program {program} (package {package})");
        }
        let before = File::open("/proc/thread-self/ns/net").context("this system has no network namespaces")?;
        let prefix = format!("lockstep-chaos-{}", std::process::id());
        let network = Self { prefix, nodes, before };
        network.build().context("--network: cannot make the network")?;
        Ok(network)
    }

    fn build(&self) -> anyhow::Result<()> {
        let hub = self.hub();
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "set", "lo", "up"])?;
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &hub, "addr", "add", HUB, "dev", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "bridge", "up"])?;
        for node in &self.nodes {
            let (space, cable) = (self.space(*node), node.to_string());
            let address = format!("{}/24", node.address());
            ip(&["netns", "add", &space])?;
            ip(&["-n", &hub, "link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            ip(&["-n", &hub, "link", "set", &cable, "master", "bridge", "up"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
            ip(&["-n", &space, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
        }
        enter(&hub)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    fn space(&self, node: Node) -> String {
        format!("{}-{node}", self.prefix)
    }

    /// A command that runs `program` at a node, as the process that it starts.
    pub(super) fn command(&self, node: Node, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(node)]).arg(program);
        command
    }

    /// Does something at a node.
    pub(super) fn at<T: Send>(&self, node: Node, what: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let space = self.space(node);
        let result = std::thread::scope(|scope| scope.spawn(|| enter(&space).and_then(|()| what())).join());
        result.unwrap_or_else(|_| bail!("a thread at {node} ended"))
    }

    /// Harms the link of two. What was harmed is mended by [`Network::mend`].
    pub(super) fn harm(&self, first: Node, second: Node, harm: Harm) -> anyhow::Result<Cut> {
        let lose = |at: Node, from: Node| {
            let mut rule: Vec<String> = ["INPUT", "-s", &from.address()].map(str::to_owned).into();
            if let Harm::Lossy(percent) = harm {
                let probability = format!("{:.2}", percent as f64 / 100.0);
                rule.extend(["-m", "statistic", "--mode", "random", "--probability", &probability].map(str::to_owned));
            }
            rule.extend(["-j", "DROP"].map(str::to_owned));
            (at, rule)
        };
        let wanted = match harm {
            Harm::Cut | Harm::Lossy(_) => vec![lose(first, second), lose(second, first)],
            Harm::OneWay => vec![lose(second, first)],
            Harm::OtherWay => vec![lose(first, second)],
        };
        let mut cut = Cut { rules: Vec::new() };
        for (at, rule) in wanted {
            if let Err(error) = self.rule(at, "-A", &rule) {
                self.mend(&cut)?;
                return Err(error);
            }
            cut.rules.push((at, rule));
        }
        Ok(cut)
    }

    /// Takes the rules of a harm away.
    pub(super) fn mend(&self, cut: &Cut) -> anyhow::Result<()> {
        let results: Vec<_> = cut.rules.iter().map(|(at, rule)| self.rule(*at, "-D", rule)).collect();
        results.into_iter().collect()
    }

    fn rule(&self, at: Node, action: &str, rule: &[String]) -> anyhow::Result<()> {
        let mut command = self.command(at, "iptables".as_ref());
        succeed(command.args(["-w", action]).args(rule))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = move_into_link_name_space(self.before.as_fd(), Some(LinkNameSpaceType::Network)) {
            eprintln!("cannot leave the network of the run: {error}");
        }
        let spaces = self.nodes.iter().map(|node| self.space(*node)).chain([self.hub()]);
        for space in spaces.filter(|space| std::fs::exists(path(space)).unwrap_or(false)) {
            // Applications whose sidecar was killed. Whatever is in there is ours.
            let pids = Command::new("ip").args(["netns", "pids", &space]).output();
            let pids = pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
            for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                let _ = crate::driver::signal(crate::driver::Signal::KILL, pid);
            }
            if let Err(error) = ip(&["netns", "del", &space]) {
                eprintln!("cannot remove the namespace {space}: {error:#}");
            }
        }
    }
}

impl Node {
    /// Its address.
    pub(super) fn address(self) -> String {
        let host = match self {
            Self::Server(id) => 10 + id,
            Self::SmartClient(id) => 50 + id,
            Self::Ingress => 90,
        };
        format!("10.77.0.{host}")
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(id) => write!(f, "server{id}"),
            Self::SmartClient(id) => write!(f, "client{id}"),
            Self::Ingress => f.write_str("ingress"),
        }
    }
}

impl Harm {
    /// Its kind, whatever its direction and measure.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::OneWay | Self::OtherWay => "cut one way",
            Self::Lossy(_) => "loss",
        }
    }
}

fn path(space: &str) -> String {
    format!("/run/netns/{space}")
}

/// Moves the calling thread.
fn enter(space: &str) -> anyhow::Result<()> {
    let file = File::open(path(space)).with_context(|| format!("there is no namespace {space}"))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter the namespace {space}"))
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    succeed(Command::new("ip").args(arguments))
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
