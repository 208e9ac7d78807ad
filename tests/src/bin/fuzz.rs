//! Fuzzes every decoder of foreign bytes, and the cores that are fed with them, on stable Rust.

use clap::{Parser, ValueEnum};
use lockstep_tests::fuzz::parent::{self, Options, Result};
use lockstep_tests::fuzz::{Meter, Target, engine, targets};
use peak_alloc::PeakAlloc;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const METER: Meter = Meter {
    reset: || {
        ALLOCATOR.reset_peak_usage();
        ALLOCATOR.current_usage()
    },
    peak: || ALLOCATOR.peak_usage(),
};

/// Between two lines of progress.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Fuzzes decoders and cores: mutated inputs, all from a seed, each in bounded memory and time.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// What to fuzz; all of them if none is named.
    #[arg(long, value_delimiter = ',', num_args = 1..)]
    target: Vec<String>,
    /// Lists the targets.
    #[arg(long)]
    list: bool,
    /// Each target for so long.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// And at most so many inputs of each: then the same seed does exactly the same.
    #[arg(long, default_value_t = u64::MAX)]
    inputs: u64,
    /// Everything follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Targets at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// An input that takes longer is a finding.
    #[arg(long, default_value_t = 2.0)]
    hang_seconds: f64,
    /// Where to put inputs that found something.
    #[arg(long, default_value = "target/fuzz-findings")]
    findings: PathBuf,
    /// Runs the input in this file once, with one --target.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// This is the child that runs one target.
    #[arg(long, hide = true)]
    child: Option<String>,
    /// Where the child keeps the input that it runs.
    #[arg(long, hide = true, requires = "child")]
    scratch: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl Arguments {
    fn options(&self) -> anyhow::Result<Options> {
        Ok(Options {
            time: Duration::try_from_secs_f64(self.seconds)?,
            inputs: self.inputs,
            seed: self.seed,
            jobs: self.jobs,
            hang: Duration::try_from_secs_f64(self.hang_seconds)?,
            findings: self.findings.clone(),
        })
    }

    fn chosen(&self) -> anyhow::Result<Vec<Target>> {
        let all = targets::all();
        if self.target.is_empty() || self.target == ["all"] {
            return Ok(all);
        }
        self.target.iter().map(|name| find(&all, name)).collect()
    }
}

fn find(all: &[Target], name: &str) -> anyhow::Result<Target> {
    let found = all.iter().find(|target| target.name == name).copied();
    let names: Vec<&str> = all.iter().map(|target| target.name).collect();
    found.ok_or_else(|| anyhow::anyhow!("no target is called {name}; there are {}", names.join(", ")))
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("fuzz: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let options = arguments.options()?;
    if let Some(name) = &arguments.child {
        let scratch = arguments.scratch.clone().unwrap_or_default();
        let code = parent::child(&find(&targets::all(), name)?, &options, &scratch, METER)?;
        return Ok(ExitCode::from(u8::try_from(code)?));
    }
    if arguments.list {
        for target in targets::all() {
            println!("{:18} {}", target.name, target.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = arguments.chosen()?;
    if let Some(file) = &arguments.replay {
        anyhow::ensure!(arguments.target.len() == 1, "--replay needs the one --target that the input is of");
        let input = std::fs::read(file)?;
        let peak = engine::replay(&chosen[0], &input, METER);
        let bound = chosen[0].bound.of(input.len());
        println!("{} bytes of input, {peak} bytes allocated at the peak, {bound} allowed", input.len());
        return Ok(ExitCode::from(u8::from(peak > bound)));
    }
    let told = Mutex::new(Instant::now());
    let progress = |line: &str| {
        let Ok(mut told) = told.lock() else { return };
        let event = line.starts_with("ok ") || line.starts_with("FOUND ");
        if event || told.elapsed() >= TELL_EVERY {
            *told = Instant::now();
            eprintln!("{line}");
        }
    };
    let results = parent::run(&chosen, &options, &progress)?;
    show(&results, arguments.output)?;
    Ok(ExitCode::from(u8::from(results.iter().any(|result| result.finding.is_some()))))
}

fn show(results: &[Result], format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        println!("{}", serde_json::to_string_pretty(results)?);
        return Ok(());
    }
    println!(
        "{:18} {:>11} {:>8} {:>8} {:>7} {:>11} {:>9}  result",
        "target", "inputs", "seconds", "reached", "kept", "peak bytes", "slowest"
    );
    for result in results {
        let Result { target, inputs, seconds, reached, kept, peak_bytes, slowest_ms, finding } = result;
        let verdict = if finding.is_some() { "FOUND" } else { "ok" };
        println!(
            "{target:18} {inputs:>11} {seconds:>8.0} {reached:>8} {kept:>7} {peak_bytes:>11} {slowest_ms:>6.1} ms  {verdict}"
        );
    }
    for finding in results.iter().filter_map(|result| result.finding.as_ref()) {
        println!("\n{}\n  replay: {}", finding.what, finding.replay);
    }
    Ok(())
}
