//! A fixed offered load of Redis commands, and what its clients saw: latency is counted from when a request was due, so
//! that a server that stands still does not hide the requests that would have come meanwhile.

use clap::Parser;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

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

/// What became of one request.
struct Sample {
    due: Duration,
    /// `None`: an error reply, or the connection broke.
    took: Option<Duration>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let begun = Instant::now();
    let (samples_in, samples) = mpsc::channel();
    let threads: Vec<_> = (0..args.connections)
        .map(|index| {
            let (to, samples) = (args.to.clone(), samples_in.clone());
            let every = Duration::from_secs_f64(f64::from(args.connections) / args.rate);
            let first = every.mul_f64(f64::from(index) / f64::from(args.connections));
            let (until, keys, value) = (Duration::from_secs(args.seconds), args.keys, args.value);
            std::thread::spawn(move || {
                drive(&to, begun, (first, every, until), (u64::from(index), keys, value), &samples)
            })
        })
        .collect();
    drop(samples_in);
    let mut all: Vec<Sample> = samples.iter().collect();
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a connection's thread ended"))??;
    }
    all.sort_unstable_by_key(|sample| sample.due);
    println!(
        "{:>8} {:>9} {:>7} {:>10} {:>10} {:>10} {:>10}",
        "from s", "answered", "failed", "p50 ms", "p99 ms", "p99.9 ms", "max ms"
    );
    let window = Duration::from_secs(args.window);
    let mut rest = all.as_slice();
    let mut from = Duration::ZERO;
    while !rest.is_empty() {
        let here = rest.partition_point(|sample| sample.due < from + window);
        let (now, later) = rest.split_at(here);
        line(&from.as_secs().to_string(), now);
        rest = later;
        from += window;
    }
    line("all", &all);
    Ok(())
}

fn drive(
    to: &str,
    begun: Instant,
    (first, every, until): (Duration, Duration, Duration),
    (mut key, keys, value): (u64, u64, usize),
    samples: &mpsc::Sender<Sample>,
) -> anyhow::Result<()> {
    let mut link = connect(to)?;
    let value = "x".repeat(value);
    let mut reply = String::new();
    let mut due = first;
    while due < until {
        if let Some(early) = due.checked_sub(begun.elapsed()) {
            std::thread::sleep(early);
        }
        key = (key + 7919) % keys;
        let name = format!("k{key}");
        let request = format!("*3\r\n$3\r\nSET\r\n${}\r\n{name}\r\n${}\r\n{value}\r\n", name.len(), value.len());
        reply.clear();
        let answered = link.get_mut().write_all(request.as_bytes()).and_then(|()| link.read_line(&mut reply));
        let good = matches!(answered, Ok(read) if read > 0) && reply.starts_with('+');
        let took = begun.elapsed().saturating_sub(due);
        samples.send(Sample { due, took: good.then_some(took) })?;
        if !good {
            eprintln!("{:.1} s: {}", due.as_secs_f64(), if reply.is_empty() { "closed" } else { reply.trim_end() });
            link = connect(to)?;
        }
        due += every;
    }
    Ok(())
}

fn connect(to: &str) -> anyhow::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

fn line(name: &str, samples: &[Sample]) {
    let mut took: Vec<Duration> = samples.iter().filter_map(|sample| sample.took).collect();
    took.sort_unstable();
    let at = |part: f64| {
        let index = ((took.len() as f64 * part).ceil() as usize).saturating_sub(1).min(took.len().saturating_sub(1));
        took.get(index).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
    };
    let failed = samples.len() - took.len();
    println!(
        "{name:>8} {:>9} {failed:>7} {:>10.2} {:>10.2} {:>10.2} {:>10.2}",
        took.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}
