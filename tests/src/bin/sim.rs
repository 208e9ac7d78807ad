//! Runs the simulator: one seed (to look at), or many (to hunt).

use clap::Parser;
use lockstep_tests::check::enough::Counters;
use lockstep_tests::sim;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Simulates whole Lockstep clusters with faults; each seed is a run, always the same one.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Run this seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Print every step (with --seed).
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Run so many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Begin with this one.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Seeds at a time, each in a thread of its own.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Do not stop at the first failure.
    #[arg(long)]
    keep_going: bool,
    /// Run with a deliberate error in the core (needs a build with RUSTFLAGS="--cfg lockstep_mutants").
    #[arg(long)]
    mutant: Option<String>,
}

/// What the threads share.
#[derive(Default)]
struct Hunt {
    next: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
    totals: Mutex<Counters>,
}

thread_local! {
    static SEED: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

fn replay(seed: u64, mutant: Option<&str>) -> String {
    let (flags, mutant) = match mutant {
        Some(name) => ("RUSTFLAGS=\"--cfg lockstep_mutants\" ", format!(" --mutant {name}")),
        None => ("", String::new()),
    };
    format!("{flags}cargo run --release -p lockstep-tests --bin sim -- --seed {seed}{mutant}")
}

fn choose_mutant(name: Option<&str>) -> Result<(), String> {
    let Some(name) = name else { return Ok(()) };
    let all = mesh::order::Mutant::ALL;
    let Some((mutant, _)) = all.iter().find(|(_, known)| *known == name) else {
        let names: Vec<&str> = all.iter().map(|(_, name)| *name).collect();
        return Err(format!("no mutant is called {name}; there are {}", names.join(", ")));
    };
    #[cfg(lockstep_mutants)]
    {
        mesh::order::mutant::choose(Some(*mutant));
        Ok(())
    }
    #[cfg(not(lockstep_mutants))]
    Err(format!("{mutant:?} is not compiled in; build with RUSTFLAGS=\"--cfg lockstep_mutants\""))
}

/// Runs a seed and prints its failure. A panic of the core is one too; where panics abort, the hook has printed it.
fn run_one(seed: u64, trace: bool, mutant: Option<&str>) -> Option<sim::Report> {
    SEED.set(Some(seed));
    let result = catch_unwind(AssertUnwindSafe(|| sim::run(seed, trace)));
    SEED.set(None);
    match result {
        Ok(Ok(report)) => Some(report),
        Ok(Err(failure)) => {
            println!("FAILED {failure}\n  replay: {}", replay(seed, mutant));
            None
        }
        Err(_) => None,
    }
}

fn hunt(arguments: &Arguments) -> u64 {
    let hunt = Hunt::default();
    hunt.next.store(arguments.from, Ordering::Relaxed);
    let end = arguments.from.saturating_add(arguments.seeds);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| work(arguments, &hunt, end));
        }
        let mut told = Instant::now();
        while hunt.done.load(Ordering::Relaxed) < arguments.seeds && !hunt.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
            if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                let done = hunt.done.load(Ordering::Relaxed);
                let failed = hunt.failed.load(Ordering::Relaxed);
                println!("{done} seeds, {failed} failed, {:.0} a second", done as f64 / began.elapsed().as_secs_f64());
            }
        }
    });
    let (done, failed) = (hunt.done.load(Ordering::Relaxed), hunt.failed.load(Ordering::Relaxed));
    let rate = done as f64 / began.elapsed().as_secs_f64();
    println!("{done} seeds from {}, {failed} failed, {rate:.0} a second", arguments.from);
    if let Ok(totals) = hunt.totals.lock() {
        println!("{totals}");
    }
    failed
}

fn work(arguments: &Arguments, hunt: &Hunt, end: u64) {
    while !hunt.stop.load(Ordering::Relaxed) {
        let seed = hunt.next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        match run_one(seed, false, arguments.mutant.as_deref()) {
            Some(report) => {
                if let Ok(mut totals) = hunt.totals.lock() {
                    totals.add(&report.counters);
                }
            }
            None => {
                hunt.failed.fetch_add(1, Ordering::Relaxed);
                hunt.stop.fetch_or(!arguments.keep_going, Ordering::Relaxed);
            }
        }
        hunt.done.fetch_add(1, Ordering::Relaxed);
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = choose_mutant(arguments.mutant.as_deref()) {
        eprintln!("{error}");
        return ExitCode::from(2);
    }
    let mutant = arguments.mutant.clone();
    std::panic::set_hook(Box::new(move |info| {
        let seed = SEED.get().unwrap_or_default();
        println!("FAILED seed {seed}: panic: {info}\n  replay: {}", replay(seed, mutant.as_deref()));
    }));
    if let Some(seed) = arguments.seed {
        let Some(report) = run_one(seed, arguments.trace, arguments.mutant.as_deref()) else {
            return ExitCode::FAILURE;
        };
        println!("seed {seed} passed: {} events in {:?} simulated", report.events, report.simulated);
        println!("trace {:016x}\n{}", report.trace, report.counters);
        return ExitCode::SUCCESS;
    }
    ExitCode::from(u8::from(hunt(&arguments) > 0))
}
