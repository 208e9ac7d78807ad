//! Restarts every part of a service that `lockstep up` runs, one after the other, under clients that notice everything,
//! and says for how long the one that waited longest had to.

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use lockstep_tests::driver::Up;
use lockstep_tests::rolling::{self, Clients, How, Restart};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Restarts every part of a cluster in turn under clients, and says how long the longest pause was
#[derive(Debug, Parser)]
struct Args {
    /// The program under test
    #[arg(long, default_value = "target/release/lockstep")]
    lockstep: PathBuf,
    /// Clients at one time
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// How long each thinks after a reply
    #[arg(long, default_value = "5ms", value_parser = mesh::node::human::parse_duration)]
    think: Duration,
    /// How often every part is restarted
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How parts are ended
    #[arg(long, value_enum, default_values_t = [Ending::Term, Ending::Drain])]
    how: Vec<Ending>,
    /// How often the leader is killed at the end
    #[arg(long, default_value_t = 5)]
    kills: u32,
    /// More arguments for `up`
    #[arg(last = true)]
    up: Vec<String>,
}

/// [`How`] as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Ending {
    Term,
    Drain,
    Kill,
}

impl From<Ending> for How {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Term => Self::Term,
            Ending::Drain => Self::Drain,
            Ending::Kill => Self::Kill,
        }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let end = Instant::now() + Duration::from_secs(60);
    let arguments: Vec<&str> = args.up.iter().map(String::as_str).collect();
    let up = Up::start(Command::new(&args.lockstep), &arguments, || Instant::now() > end)
        .with_context(|| format!("{} up", args.lockstep.display()))?;
    let clients = Clients::start(up.listen(), args.clients, args.think)?;
    let mut inner: Vec<Restart> = Vec::new();
    let mut outer = Vec::new();
    for round in 0..args.rounds {
        let how = How::from(args.how[round as usize % args.how.len()]);
        for role in ["sidecar", "smart-client", "ingress"] {
            for part in up.role(role) {
                let restart = rolling::restart(&up, &clients, &part, how)?;
                println!("{restart}");
                if role == "ingress" { outer.push(restart) } else { inner.push(restart) }
            }
        }
    }
    let mut killed = Vec::new();
    for _ in 0..args.kills {
        let leader = rolling::leader(&up)?;
        let restart = rolling::restart(&up, &clients, &leader, How::Kill)?;
        println!("{restart}");
        killed.push(restart);
    }
    let longest = |all: &[Restart]| all.iter().map(|one| one.longest).max().unwrap_or_default().as_secs_f64() * 1e3;
    println!(
        "longest pause: {:.1} ms by orderly restarts, {:.1} ms by that of the only ingress, {:.1} ms by kill -9 of the leader",
        longest(&inner),
        longest(&outer),
        longest(&killed)
    );
    let errors = inner.iter().chain(&outer).chain(&killed).map(|one| one.errors.len()).sum::<usize>();
    if errors > 0 {
        bail!("{errors} errors");
    }
    Ok(())
}
