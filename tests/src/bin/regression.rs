//! Whether one build of the program is slower than another: both measured in turns on the same machine, by ratio. What the
//! machine does by itself is measured first, with the same build on both sides.

use anyhow::{Context, ensure};
use clap::Parser;
use lockstep_tests::regression::{Verdict, judge};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Measures two builds in turns, and fails if the second is slower by more than noise
#[derive(Debug, Parser)]
struct Args {
    /// The program before the change
    #[arg(long)]
    before: PathBuf,
    /// The program after it
    #[arg(long)]
    after: PathBuf,
    /// How often each is measured; the one before twice as often
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(4..))]
    rounds: u32,
    /// How long each time, in seconds
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Slower by less than this part is no reason to fail, whatever the noise
    #[arg(long, default_value_t = 0.1)]
    tolerated: f64,
    /// Settings of `up` to measure with
    #[arg(last = true, default_values = ["-n", "3", "--durability", "sync"])]
    up: Vec<String>,
}

/// What is measured, by its place in the results of `bench run`.
const MEASURED: [(&str, &str); 2] = [("/cpu_us", "CPU of a request, µs"), ("/latency/p50_us", "median latency, µs")];

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let mut failed = false;
    // One build, the same again, and the other: each thing is as far from the one that it is compared with.
    let order = [&args.before, &args.after, &args.before];
    let mut rounds: Vec<[serde_json::Value; 3]> = Vec::new();
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
        let [first, after, second] = order.map(|program| measure(program, &args));
        rounds.push([first?, after?, second?]);
    }
    for (name, title) in MEASURED {
        let of = |index: usize| -> anyhow::Result<Vec<f64>> {
            let value = |round: &[serde_json::Value; 3]| round[index].pointer(name)?.as_f64();
            rounds.iter().map(|round| value(round).with_context(|| format!("no {name}"))).collect()
        };
        let (before, after, again) = (of(0)?, of(1)?, of(2)?);
        let Verdict { ratio, noise, slower } = judge(&before, &again, &after, args.tolerated);
        println!(
            "{title:<22} before {before:.0?} and {again:.0?}, after {after:.0?}: ×{ratio:.3}, noise ±{:.1} %{}",
            noise * 100.0,
            if slower { ", SLOWER" } else { "" }
        );
        // Latencies are told, and fail nothing: they depend on what else the machine does.
        failed |= slower && name == "/cpu_us";
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A cluster of its own each time, so that what one run leaves behind is not the next one's.
fn measure(program: &Path, args: &Args) -> anyhow::Result<serde_json::Value> {
    let output = Command::new(program)
        .args(["bench", "run", "--clients", "32", "--warmup", "1", "-o", "json", "--seconds"])
        .arg(args.seconds.to_string())
        .arg("--")
        .args(&args.up)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(output.status.success(), "{} bench run ended with {}", program.display(), output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("what {} measured", program.display()))
}
