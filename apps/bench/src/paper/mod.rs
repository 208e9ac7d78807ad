//! `bench paper`: the paper's two experiments on the hashmap, with a connection for each request. Scenario 1: three servers,
//! and more and more SMaRtClients; scenario 2: sixteen SMaRtClients, and more and more servers; both with 1 to 64 clients.

mod conclude;
mod page;
mod sample;

use crate::args::{seconds, warmup};
use crate::cluster::Cluster;
use crate::generator::{self, Mix, Spec};
use crate::machine::Machine;
use crate::peers::values;
use crate::procfs::Host;
use crate::progress::Progress;
use crate::results::{Point, Run, Store};
use crate::stop;
use anyhow::Context;
use sample::{EVERY, Sampler, throughputs, trimmed_mean};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// SMaRtClients of scenario 2, and servers of scenario 1.
const SMART_CLIENTS: u32 = 16;
const SERVERS: u32 = 3;
/// Different keys.
const KEYS: u64 = 10_000;
/// Bytes of a value.
const VALUE_BYTES: usize = 100;

/// Settings of `bench paper`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where results and the page are kept; what is finished there already is not measured again
    #[arg(long, value_name = "DIR", default_value = "bench-paper")]
    out: PathBuf,
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Numbers of SMaRtClients of scenario 1, with three servers
    #[arg(long, value_name = "M,…", value_delimiter = ',', default_value = "1,2,4,8,16,32,64", value_parser = clap::value_parser!(u32).range(1..=64))]
    smart_clients: Vec<u32>,
    /// Numbers of servers of scenario 2, with sixteen SMaRtClients
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "3,5,7,9,11", value_parser = clap::value_parser!(u32).range(1..=63))]
    servers: Vec<u32>,
    /// Numbers of clients, one after the other
    #[arg(long, value_name = "C,…", value_delimiter = ',', default_value = "1,2,4,8,16,32,64", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: Vec<u32>,
    /// How writes reach the disk: sync, async or memory, as the paper's servers have it
    #[arg(long, value_name = "MODE", default_value = "memory", value_parser = ["sync", "async", "memory"])]
    durability: String,
    /// How long each point is measured, in seconds
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Seconds before that which are not measured
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = warmup)]
    warmup: f64,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    SmartClients,
    Servers,
}

impl Scenario {
    const ALL: [Self; 2] = [Self::SmartClients, Self::Servers];

    const fn words(self) -> &'static str {
        match self {
            Self::SmartClients => "scenario 1 (3 servers)",
            Self::Servers => "scenario 2 (16 SMaRtClients)",
        }
    }

    /// What its lines are numbers of.
    const fn parameter(self) -> &'static str {
        match self {
            Self::SmartClients => "SMaRtClients",
            Self::Servers => "servers",
        }
    }

    const fn mark(self) -> &'static str {
        match self {
            Self::SmartClients => "s1",
            Self::Servers => "s2",
        }
    }

    /// The name of a point.
    fn point(self, parameter: u32, clients: u32) -> String {
        format!("{}-{parameter:02}-{clients:02}c", self.mark())
    }

    /// Servers and SMaRtClients.
    const fn sizes(self, parameter: u32) -> (u32, u32) {
        match self {
            Self::SmartClients => (SERVERS, parameter),
            Self::Servers => (parameter, SMART_CLIENTS),
        }
    }
}

/// Which point a name is of.
fn place(name: &str) -> Option<(Scenario, u32, u32)> {
    let mut parts = name.split('-');
    let mark = parts.next()?;
    let scenario = Scenario::ALL.into_iter().find(|scenario| scenario.mark() == mark)?;
    Some((scenario, parts.next()?.parse().ok()?, parts.next()?.strip_suffix('c')?.parse().ok()?))
}

/// Runs it.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let run = Run {
        experiment: "paper".to_owned(),
        settings: serde_json::json!({
            "durability": args.durability,
            "value_bytes": VALUE_BYTES,
            "keys": KEYS,
            "seconds": args.seconds,
            "warmup": args.warmup,
        }),
        machine: Machine::this(),
        versions: BTreeMap::new(),
    };
    let store = Store::open(&args.out, &run)?;
    let first = args.smart_clients.iter().map(|parameter| (Scenario::SmartClients, *parameter));
    let clusters: Vec<_> = first.chain(args.servers.iter().map(|parameter| (Scenario::Servers, *parameter))).collect();
    let mut progress = Progress::new(clusters.len() * args.clients.len() * args.rounds as usize);
    for round in 1..=args.rounds {
        for (scenario, parameter) in &clusters {
            measure_cluster(args, &store, &mut progress, *scenario, *parameter, round)?;
        }
    }
    progress.end();
    let drawn = page::draw(&store.run()?, &store.points()?)?;
    let path = store.file("paper.html", &drawn.html)?;
    for (number, svg) in &drawn.figures {
        store.file(&format!("figure-{number}.svg"), svg)?;
    }
    for conclusion in &drawn.conclusions {
        println!("{conclusion}");
    }
    println!("the figures and all points: {}", path.display());
    Ok(())
}

/// All numbers of clients that are still to be measured against one cluster.
fn measure_cluster(
    args: &Args,
    store: &Store,
    progress: &mut Progress,
    scenario: Scenario,
    parameter: u32,
    round: u32,
) -> anyhow::Result<()> {
    let (done, open): (Vec<u32>, Vec<u32>) =
        args.clients.iter().partition(|clients| store.point(&scenario.point(parameter, **clients), round).is_some());
    done.iter().for_each(|_| progress.skip());
    if open.is_empty() {
        return Ok(());
    }
    let (servers, smart_clients) = scenario.sizes(parameter);
    progress.begin(&format!("round {round}, starting {servers} servers and {smart_clients} SMaRtClients"));
    let dir = args.out.join("data");
    // What one that was ended left behind.
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    let data = dir.canonicalize()?.join("lockstep").display().to_string();
    let (n, m) = (servers.to_string(), smart_clients.to_string());
    let words =
        ["-n", &n, "--smart-clients", &m, "--durability", &args.durability, "--protocol", "close", "--data-dir", &data];
    let cluster = Cluster::start(&words.map(str::to_owned))?;
    for clients in open {
        let name = scenario.point(parameter, clients);
        progress.begin(&format!("round {round}, {servers} servers, {smart_clients} SMaRtClients, {clients} clients"));
        let point = stop::thrice(|| measure(args, &cluster, clients, &name, round));
        store.keep(&point.with_context(|| name.clone())?)?;
        progress.done();
    }
    drop(cluster);
    let _ = std::fs::remove_dir_all(&dir);
    Ok(())
}

fn measure(args: &Args, cluster: &Cluster, clients: u32, name: &str, round: u32) -> anyhow::Result<Point> {
    let spec = Spec {
        to: vec![cluster.listen()],
        protocol: cluster.protocol(),
        clients: clients as usize,
        pipeline: 1,
        rate: None,
        per_request: true,
        value_bytes: VALUE_BYTES,
        mix: Mix::even(),
        keys: KEYS,
        skew: 0.0,
        fill: false,
        warmup: Duration::from_secs_f64(args.warmup),
        time: Duration::from_secs_f64(args.seconds),
        samples: true,
    };
    let sampler = Sampler::start(cluster.leader_admin().context("nobody leads: see `lockstep status`")?)?;
    let running = generator::start(spec)?;
    let window = running.window();
    let (mut outcome, before, after) = running.finish(Host::now)?;
    let samples = throughputs(&sampler.finish(), EVERY, window.from, window.to);
    anyhow::ensure!(outcome.within > 0, "not one reply: {}", outcome.error.as_deref().unwrap_or("no word why"));
    let trimmed = trimmed_mean(&outcome.samples.take().unwrap_or_default());
    // Where fewer requests came than two samples need, the clients' count has to do.
    let server_rate = if samples.is_empty() { outcome.rate } else { sample::mean(samples.iter().copied()) };
    let values = values(
        &outcome,
        [
            ("server_rate", server_rate),
            ("server_samples", samples.len() as f64),
            ("trimmed_mean_us", trimmed),
            ("host_busy", after.busy_since(before)),
        ],
    );
    Ok(Point::new(name, round, values, serde_json::to_value(&outcome)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_points_name_says_where_it_belongs() {
        assert_eq!(place(&Scenario::SmartClients.point(1, 64)), Some((Scenario::SmartClients, 1, 64)));
        assert_eq!(place(&Scenario::Servers.point(11, 1000)), Some((Scenario::Servers, 11, 1000)));
        assert_eq!(place("peers-put-1c"), None);
        assert_eq!(Scenario::Servers.sizes(7), (7, 16));
    }
}
