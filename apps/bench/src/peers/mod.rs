//! `bench peers`: what else could be used, side by side in one run on the same machine. Rounds go through all of them, one
//! after the other, each started anew with fresh data, so that a slower minute of the machine falls on all alike.

mod etcd;
mod redis;
mod subject;
mod table;
mod zookeeper;

use crate::args::{Format, seconds, warmup};
use crate::generator::{self, Mix, Outcome, Spec};
use crate::machine::{Machine, is_in_memory};
use crate::procfs::{self, Host, Usage};
use crate::progress::Progress;
use crate::results::{Point, Run, Store};
use crate::stop;
use crate::wire::Op;
use anyhow::Context;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use subject::{Programs, Started, Subject};

/// Different keys.
const KEYS: u64 = 10_000;

/// Settings of `bench peers`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where results are kept; what is finished there already is not measured again
    #[arg(long, value_name = "DIR", default_value = "bench-peers")]
    out: PathBuf,
    /// How often everything is measured; with fewer than four a change cannot be told from noise later
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Numbers of clients, one after the other
    #[arg(long, value_name = "C,…", value_delimiter = ',', default_value = "1,64", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: Vec<u32>,
    /// Measure only these, by name: application, haproxy, redis-wait, etcd, zookeeper, lockstep-n3-sync, …
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=16_000))]
    value_bytes: u32,
    /// How long each point is measured, in seconds
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Seconds before that which are not measured
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = warmup)]
    warmup: f64,
    /// What to print on stdout at the end
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// One measurement of a round.
#[derive(Clone, Copy, Debug)]
struct Cell {
    subject: Subject,
    op: Op,
    clients: u32,
}

impl Cell {
    fn name(self) -> String {
        format!("{}-{}-{}c", self.subject.name(), self.op.name().to_lowercase(), self.clients)
    }
}

/// Runs it.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let programs = Programs::find();
    let subjects = subjects(args, &programs)?;
    let store = Store::open(&args.out, &description(args, &programs))?;
    let data = args.out.join("data");
    std::fs::create_dir_all(&data)?;
    if is_in_memory(&data) {
        eprintln!("{} is in memory, where a sync costs nothing: give an --out on a disk", data.display());
    }
    let cells: usize = subjects.iter().map(|subject| subject.ops().len() * args.clients.len()).sum();
    let mut progress = Progress::new(cells * args.rounds as usize);
    for round in 1..=args.rounds {
        for subject in &subjects {
            let cells = cells_of(*subject, &args.clients);
            let (done, open): (Vec<Cell>, Vec<Cell>) =
                cells.into_iter().partition(|cell| store.point(&cell.name(), round).is_some());
            done.iter().for_each(|_| progress.skip());
            if open.is_empty() {
                continue;
            }
            progress.begin(&format!("round {round}, {}", subject.name()));
            let dir = data.join(subject.name());
            // What an earlier round, or one that was ended, left behind.
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir_all(&dir)?;
            let started = subject.start(&programs, &dir.canonicalize()?).with_context(|| subject.name())?;
            for (index, cell) in open.into_iter().enumerate() {
                progress.begin(&format!("round {round}, {}", cell.name()));
                let point = stop::thrice(|| measure(args, &started, cell, round, index == 0));
                store.keep(&point.with_context(|| cell.name())?)?;
                progress.done();
            }
            drop(started);
            let _ = std::fs::remove_dir_all(&dir);
        }
    }
    progress.end();
    report(args, &store)
}

/// Those that can be measured here; the others are named.
fn subjects(args: &Args, programs: &Programs) -> anyhow::Result<Vec<Subject>> {
    let all = Subject::all();
    let names: Vec<String> = all.iter().map(|subject| subject.name()).collect();
    for wanted in &args.only {
        anyhow::ensure!(names.contains(wanted), "--only {wanted}: there are {}", names.join(", "));
    }
    let wanted = |subject: &Subject| args.only.is_empty() || args.only.contains(&subject.name());
    let mut there = Vec::new();
    for subject in all.into_iter().filter(wanted) {
        match subject.missing(programs) {
            Some(program) => eprintln!("{} is left out: {program} is not installed", subject.name()),
            None => there.push(subject),
        }
    }
    anyhow::ensure!(
        !there.is_empty(),
        "nothing of it is installed: `apt-get install redis-server etcd-server haproxy`"
    );
    Ok(there)
}

fn description(args: &Args, programs: &Programs) -> Run {
    Run {
        experiment: "peers".to_owned(),
        settings: serde_json::json!({
            "value_bytes": args.value_bytes,
            "keys": KEYS,
            "seconds": args.seconds,
            "warmup": args.warmup,
        }),
        machine: Machine::this(),
        versions: programs.versions().into_iter().collect(),
    }
}

fn cells_of(subject: Subject, clients: &[u32]) -> Vec<Cell> {
    let of = |op: &Op| clients.iter().map(|clients| Cell { subject, op: *op, clients: *clients }).collect::<Vec<_>>();
    subject.ops().iter().flat_map(of).collect()
}

fn measure(args: &Args, started: &Started, cell: Cell, round: u32, first: bool) -> anyhow::Result<Point> {
    let usual = Duration::from_secs_f64(args.warmup);
    let spec = Spec {
        to: started.to.clone(),
        protocol: started.protocol,
        clients: cell.clients as usize,
        pipeline: 1,
        rate: None,
        per_request: false,
        value_bytes: args.value_bytes as usize,
        mix: Mix::reads(if cell.op == Op::Get { 1.0 } else { 0.0 }),
        keys: KEYS,
        skew: 0.0,
        // Some can only write what is there already; so all are alike.
        fill: first,
        warmup: cell.subject.warmup(usual),
        time: Duration::from_secs_f64(args.seconds),
        samples: false,
    };
    let pids = started.pids();
    let look = || {
        let used = pids.iter().fold(Usage::default(), |sum, pid| sum + procfs::usage(*pid));
        (Instant::now(), used, procfs::usage(std::process::id()), Host::now())
    };
    let (outcome, before, after) = generator::start(spec)?.finish(look)?;
    stop::check()?;
    let requests = (outcome.rate * (after.0 - before.0).as_secs_f64()).max(1.0);
    let values = values(
        &outcome,
        [
            ("cpu_us", (after.1 - before.1).micros() / requests),
            ("generator_cpu_us", (after.2 - before.2).micros() / requests),
            ("host_busy", after.3.busy_since(before.3)),
        ],
    );
    anyhow::ensure!(outcome.within > 0, "not one good reply: {}", outcome.error.as_deref().unwrap_or("no word why"));
    let detail = serde_json::to_value(&outcome)?;
    Ok(Point::new(&cell.name(), round, values, detail))
}

/// The numbers of a point.
pub(crate) fn values<const N: usize>(outcome: &Outcome, more: [(&str, f64); N]) -> BTreeMap<String, f64> {
    let latency = &outcome.latency;
    let seen = [
        ("rate", outcome.rate),
        ("failed", outcome.failed as f64),
        ("mean_us", latency.mean_us),
        ("p50_us", latency.p50_us),
        ("p99_us", latency.p99_us),
        ("p999_us", latency.p999_us),
    ];
    seen.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value)).collect()
}

fn report(args: &Args, store: &Store) -> anyhow::Result<()> {
    let (run, points) = (store.run()?, store.points()?);
    let text = table::text(&run, &points);
    store.file("table.txt", &text)?;
    match args.output {
        Format::Text => print!("{text}"),
        Format::Json => println!("{}", serde_json::json!({ "run": run, "points": points })),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_measured_where_they_go_another_way() {
        let names = |subject| cells_of(subject, &[1, 64]).into_iter().map(Cell::name).collect::<Vec<_>>();
        assert_eq!(names(Subject::Etcd), ["etcd-put-1c", "etcd-put-64c", "etcd-get-1c", "etcd-get-64c"]);
        assert_eq!(names(Subject::Zookeeper), ["zookeeper-put-1c", "zookeeper-put-64c"]);
    }
}
