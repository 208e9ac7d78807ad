//! A fixed offered load of Redis commands, and what its clients saw.

use clap::Parser;
use lockstep_tests::load::{self, Client, Pace, Speech, Summary};
use std::time::Duration;

/// Sends SET commands at a fixed rate and prints, for each window, how many were answered and how late.
#[derive(Debug, Parser)]
struct Args {
    /// Where to
    #[arg(long, default_value = "127.0.0.1:7000")]
    to: String,
    /// Requests a second, over all connections
    #[arg(long)]
    rate: f64,
    /// Connections
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// For how long, in seconds
    #[arg(long)]
    seconds: u64,
    /// Seconds of one window
    #[arg(long, default_value_t = 5)]
    window: u64,
    /// Different keys
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    value: usize,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let every = Duration::from_secs_f64(f64::from(args.connections) / args.rate);
    let clients = (0..args.connections).map(|index| Client {
        to: args.to.clone(),
        speech: Speech::Resp,
        pace: Pace::Due { first: every.mul_f64(f64::from(index) / f64::from(args.connections)), every },
        key: u64::from(index),
        keys: args.keys,
        value: args.value,
    });
    let all = load::run(clients.collect(), Duration::from_secs(args.seconds))?;
    println!("{:>8} {}", "from s", Summary::heading());
    let window = Duration::from_secs(args.window);
    let mut rest = all.as_slice();
    let mut from = Duration::ZERO;
    while !rest.is_empty() {
        let here = rest.partition_point(|sample| sample.due < from + window);
        let (now, later) = rest.split_at(here);
        println!("{:>8} {}", from.as_secs(), Summary::of(now));
        rest = later;
        from += window;
    }
    println!("{:>8} {}", "all", Summary::of(&all));
    Ok(())
}
