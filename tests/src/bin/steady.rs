//! Writes to a service all the time, and says at the end whether anything was lost or ran twice.
//!
//! Each line on its standard input ends a phase, which is named so in the table; the end of the input ends the writing.

use clap::{Parser, ValueEnum};
use lockstep_tests::load::Speech;
use lockstep_tests::steady::Writers;
use std::io::BufRead;
use std::process::ExitCode;
use std::time::Duration;

/// Writes without a pause, tells phase by phase what clients saw, and checks at the end that nothing is lost
#[derive(Debug, Parser)]
struct Args {
    /// HOST:PORT of the service
    #[arg(long)]
    to: String,
    /// What it speaks
    #[arg(long, value_enum, default_value = "resp")]
    protocol: Protocol,
    /// Clients at one time
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// How long each thinks after a reply
    #[arg(long, default_value = "5ms", value_parser = mesh::node::human::parse_duration)]
    think: Duration,
    /// How their keys begin
    #[arg(long, default_value = "steady")]
    prefix: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    Resp,
    Line,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let speech = match args.protocol {
        Protocol::Resp => Speech::Resp,
        Protocol::Line => Speech::Line,
    };
    let writers = Writers::start(&args.to, speech, args.clients, args.think, &args.prefix);
    for line in std::io::stdin().lock().lines() {
        println!("{:<44}{}", line?, writers.mark());
    }
    let found = writers.finish()?;
    println!(
        "lost {}, twice or out of order {}, there although refused {}, foreign {}",
        found.lost, found.twice, found.despite, found.foreign
    );
    Ok(if found.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
