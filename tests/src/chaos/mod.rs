//! Real clusters under faults: starts one, lets real clients call it, harms it by seed, and judges what they saw.
//!
//! A run passes if
//! - the history of its calls, closed by a read of every key and by what the applications themselves hold, is
//!   linearizable ([`crate::linear`]): above all, every acknowledged write is there and nothing ran twice;
//! - no connection ended without a reply before the deadline, and none was left hanging after it;
//! - the cluster settled afterwards, and all applications hold the same;
//! - enough was done: a third of the faults that were due could be made.

mod clients;
mod cluster;
mod finish;
mod nemesis;
mod network;
mod options;
mod parts;
mod report;

pub use clients::{Seen, Watch};
pub use options::Options;
pub use report::{Report, table};

use crate::linear;
use clients::{Client, Service, Trace};
use cluster::{Cluster, OneMachine};
use mesh::rng::Rng;
use nemesis::Nemesis;
use options::Setup;
use parts::Isolated;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two looks at the cluster.
const LOOK: Duration = Duration::from_millis(100);
/// Until the first request would succeed.
const START: Duration = Duration::from_secs(90);
/// Of the faults that were due, one in so many must have been made.
const ENOUGH: u64 = 3;

/// One run. `stop` ends it early.
///
/// # Errors
/// The run could not be made; what a run finds is in the report.
pub fn run(options: &Options, seed: u64, stop: &AtomicBool) -> anyhow::Result<Report> {
    let mut rng = Rng::from_seed(seed);
    let setup = Setup::draw(&mut rng.fork());
    let name = format!("lockstep-chaos-{}-{seed}", std::process::id());
    let data = options.keep.join(&name);
    std::fs::create_dir_all(&data)?;
    let end = Instant::now() + START;
    let give_up = || stop.load(Ordering::Relaxed) || Instant::now() >= end;
    let mut cluster: Box<dyn Cluster> = if options.network {
        Box::new(Isolated::start(options, &setup, &data, give_up)?)
    } else {
        Box::new(OneMachine::start(options, &setup, &data, give_up)?)
    };
    let mut report = Report::new(seed);
    let mut nemesis = Nemesis::new(rng.fork(), options.replicas, options.smart_clients);
    let result = call_and_harm(options, &setup, rng, &mut *cluster, &mut nemesis, stop, &mut report);
    // Whatever happened: what stands still could not be ended in order.
    nemesis.heal(&*cluster);
    drop(cluster);
    let calls = match result {
        Ok(calls) => calls,
        Err(error) if stop.load(Ordering::Relaxed) => {
            std::fs::remove_dir_all(&data)?;
            return Err(error);
        }
        Err(error) => return Err(error.context(format!("its data and logs are in {}", data.display()))),
    };
    report.judge(&calls);
    if report.passed() {
        std::fs::remove_dir_all(&data)?;
    } else {
        let history = options.keep.join(format!("{name}.jsonl"));
        linear::write(&calls, &mut std::io::BufWriter::new(std::fs::File::create(&history)?))?;
        report.kept = vec![history, data];
    }
    Ok(report)
}

/// The calls of a run, the final reads among them.
fn call_and_harm(
    options: &Options,
    setup: &Setup,
    mut rng: Rng,
    cluster: &mut dyn Cluster,
    nemesis: &mut Nemesis,
    stop: &AtomicBool,
    report: &mut Report,
) -> anyhow::Result<Vec<linear::Call>> {
    let service = Service {
        address: cluster.ingress().to_owned(),
        begun: Instant::now(),
        deadline: Duration::from_secs(options.deadline),
        over: AtomicBool::new(false),
    };
    let mut calls = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..options.clients)
            .map(|id| {
                let (client, rng) = (Client::new(id, &service), rng.fork());
                scope.spawn(|| client.run(&setup.mix, rng))
            })
            .collect();
        let harmed = harm(options, cluster, nemesis, &service, stop);
        service.over.store(true, Ordering::Relaxed);
        nemesis.heal(cluster);
        let traces: Vec<Trace> = clients.into_iter().filter_map(|client| client.join().ok()).collect();
        harmed?;
        anyhow::ensure!(traces.len() == options.clients as usize, "a client's thread ended");
        Ok(report.add(traces))
    })?;
    report.faults = nemesis.made.clone();
    report.ticks = nemesis.count() + nemesis.passed;
    if nemesis.count() * ENOUGH < report.ticks || nemesis.count() == 0 {
        report.findings.push(format!("only {} of {} faults could be made", nemesis.count(), report.ticks));
    }
    finish::close(options, setup, cluster, &service, stop, &mut calls, report)?;
    Ok(calls)
}

/// Harms the cluster for as long as the run lasts.
fn harm(
    options: &Options,
    cluster: &mut dyn Cluster,
    nemesis: &mut Nemesis,
    service: &Service,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let end = Duration::from_secs(options.seconds);
    let mut next = options.every;
    loop {
        anyhow::ensure!(!stop.load(Ordering::Relaxed), "interrupted");
        let now = service.begun.elapsed();
        if now >= end {
            return Ok(());
        }
        cluster.tend()?;
        nemesis.tend(cluster);
        if now >= next {
            next += options.every;
            let what = nemesis.strike(cluster).unwrap_or_else(|| "nothing may be harmed now".to_owned());
            eprintln!("  {:>6.1} s  {what}", now.as_secs_f64());
        }
        std::thread::sleep(LOOK);
    }
}

/// Judges a history that was kept.
///
/// # Errors
/// It cannot be read, or does not pass.
pub fn check(file: &Path) -> anyhow::Result<linear::Checked> {
    let calls = linear::read(std::io::BufReader::new(std::fs::File::open(file)?))?;
    Ok(linear::check(&calls)?)
}
