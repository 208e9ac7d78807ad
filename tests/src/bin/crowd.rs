//! What a crowd at one ingress does to those who work there: busy clients alone, then the same ones with idle
//! connections, slow readers and slow senders around them, in turns.

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use lockstep_tests::cluster::{self, Cluster};
use lockstep_tests::load::{self, Client, Pace, Speech, Summary, connect};
use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Measures busy clients in turns alone and in a crowd, and the ingress' memory.
#[derive(Debug, Parser)]
struct Args {
    /// A service that runs already; without it `lockstep up` is started
    #[arg(long, requires = "pid")]
    to: Option<String>,
    /// The process id of the ingress there
    #[arg(long)]
    pid: Option<u64>,
    /// The program to start; by default the one beside this one
    #[arg(long)]
    lockstep: Option<PathBuf>,
    /// What is started: Redis, or the hashmap
    #[arg(long, value_enum, default_value = "resp")]
    protocol: Protocol,
    /// Connections that do nothing after their first request
    #[arg(long, default_value_t = 5000)]
    idle: usize,
    /// Connections that work
    #[arg(long, default_value_t = 200)]
    busy: u32,
    /// Connections that ask for large replies and read a few bytes a second
    #[arg(long, default_value_t = 5)]
    slow_readers: usize,
    /// Connections that send half a request a byte a second
    #[arg(long, default_value_t = 20)]
    slow_senders: usize,
    /// Bytes of a slow reader's replies
    #[arg(long, default_value_t = 500_000)]
    large: usize,
    /// Requests a second of all busy connections; 0: each sends the next one when it has thought
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    /// Milliseconds of thought
    #[arg(long, default_value_t = 50)]
    think: u64,
    /// How often both are measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// More for `lockstep up`
    #[arg(last = true)]
    more: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    Resp,
    Line,
}

impl Protocol {
    fn speech(self) -> Speech {
        match self {
            Self::Resp => Speech::Resp,
            Self::Line => Speech::Line,
        }
    }

    fn up(self) -> &'static [&'static str] {
        match self {
            Self::Resp => {
                &["--protocol", "resp", "--", "redis-server", "--port", "{port}", "--save", "", "--appendonly", "no"]
            }
            Self::Line => &[],
        }
    }
}

/// The key of the large value.
const LARGE: &str = "large";
/// Requests that a slow reader sends ahead.
const AHEAD: usize = 16;
/// What a slow reader reads in a second.
const SIP: usize = 8;
/// What a slow sender leaves out of its request, to send it byte by byte.
const REST: usize = 1000;
/// Between two bytes, or sips.
const BEAT: Duration = Duration::from_secs(1);
/// From the beginning of a crowd to the measurement.
const GATHER: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (cluster, to, pid) = service(&args)?;
    let speech = args.protocol.speech();
    let mut link = connect(&to)?;
    link.get_mut().write_all(&speech.put(LARGE, &"x".repeat(args.large)))?;
    let mut reply = String::new();
    link.read_line(&mut reply)?;
    ensure!(speech.is_stored(&reply), "the large value was not stored: {reply}");

    println!("{:>6} {:>8} {} {:>10}", "round", "crowd", Summary::heading(), "RSS kB");
    let (mut alone, mut crowded) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        for with in [false, true] {
            let crowd = with.then(|| Crowd::gather(&args, &to)).transpose()?;
            if crowd.is_some() {
                std::thread::sleep(GATHER);
            }
            let summary = measure(&args, &to)?;
            let memory = cluster::memory(pid, "VmRSS")?;
            println!("{round:>6} {:>8} {summary} {memory:>10}", if with { "with" } else { "without" });
            if with { &mut crowded } else { &mut alone }.push(summary);
            if let Some(crowd) = crowd {
                crowd.leave()?;
            }
        }
    }
    let (before, after) = (median(&alone), median(&crowded));
    println!("median p99: {before:.2} ms alone, {after:.2} ms in the crowd: {:.2} times", after / before);
    println!("the ingress' memory at most: {} kB", cluster::memory(pid, "VmHWM")?);
    let failed: usize = alone.iter().chain(&crowded).map(|summary| summary.failed).sum();
    drop(cluster);
    ensure!(failed == 0, "{failed} requests of busy clients failed");
    Ok(())
}

fn service(args: &Args) -> anyhow::Result<(Option<Cluster>, String, u64)> {
    if let (Some(to), Some(pid)) = (&args.to, args.pid) {
        return Ok((None, to.clone(), pid));
    }
    let lockstep = args.lockstep.clone().map_or_else(cluster::sibling, Ok)?;
    let up = args.protocol.up().iter().map(ToString::to_string);
    let cluster = Cluster::start(&lockstep, &args.more.iter().cloned().chain(up).collect::<Vec<_>>())?;
    let (to, pids) = (cluster.listen().to_owned(), cluster.pids("ingress"));
    Ok((Some(cluster), to, *pids.first().context("up started no ingress")?))
}

fn measure(args: &Args, to: &str) -> anyhow::Result<Summary> {
    let clients = (0..args.busy).map(|index| {
        let every = Duration::from_secs_f64(f64::from(args.busy) / args.rate.max(f64::MIN_POSITIVE));
        let pace = if args.rate > 0.0 {
            Pace::Due { first: every.mul_f64(f64::from(index) / f64::from(args.busy)), every }
        } else {
            Pace::Think(Duration::from_millis(args.think))
        };
        let (to, speech) = (to.to_owned(), args.protocol.speech());
        Client { to, speech, pace, key: u64::from(index), keys: 10_000, value: 100 }
    });
    Ok(Summary::of(&load::run(clients.collect(), Duration::from_secs(args.seconds))?))
}

fn median(summaries: &[Summary]) -> f64 {
    let mut all: Vec<f64> = summaries.iter().map(|summary| summary.p99).collect();
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Everybody who does not work.
struct Crowd {
    idle: Vec<TcpStream>,
    stop: Arc<AtomicBool>,
    cut_off: Arc<AtomicU64>,
    slow: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn gather(args: &Args, to: &str) -> anyhow::Result<Self> {
        let speech = args.protocol.speech();
        let mut idle = Vec::with_capacity(args.idle);
        for number in 0..args.idle {
            let mut link = connect(to).with_context(|| format!("idle connection {number}"))?;
            link.get_mut().write_all(&speech.put("idle", "here"))?;
            let mut reply = String::new();
            link.read_line(&mut reply)?;
            ensure!(speech.is_stored(&reply), "idle connection {number} was told {reply:?}");
            idle.push(link.into_inner());
        }
        let (stop, cut_off) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let slow = [(args.slow_readers, Slow::Reader), (args.slow_senders, Slow::Sender)].map(|(count, slow)| {
            let (to, stop, cut_off) = (to.to_owned(), stop.clone(), cut_off.clone());
            std::thread::spawn(move || slow.go_on(&to, speech, count, &stop, &cut_off))
        });
        Ok(Self { idle, stop, cut_off, slow: slow.into() })
    }

    /// Ends it; every idle connection must have been left alone.
    fn leave(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let mut lost = 0;
        for link in &self.idle {
            link.set_nonblocking(true)?;
            let waits = matches!((&mut &*link).read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
            lost += usize::from(!waits);
        }
        for thread in self.slow {
            thread.join().map_err(|_| anyhow::anyhow!("a slow client's thread ended"))?;
        }
        println!("{:>15} slow clients cut off: {}", "", self.cut_off.load(Ordering::Relaxed));
        ensure!(lost == 0, "{lost} idle connections were closed");
        Ok(())
    }
}

/// A client that keeps others busy with little work of its own. Whoever is cut off comes again.
#[derive(Clone, Copy, Debug)]
enum Slow {
    Reader,
    Sender,
}

impl Slow {
    fn go_on(self, to: &str, speech: Speech, count: usize, stop: &AtomicBool, cut_off: &AtomicU64) {
        let mut links: Vec<Option<TcpStream>> = (0..count).map(|_| None).collect();
        while !stop.load(Ordering::Relaxed) {
            for link in &mut links {
                let Some(open) = link else {
                    // It may find no port or no room; it comes again.
                    *link = self.begin(to, speech).ok();
                    continue;
                };
                if self.beat(open).is_err() {
                    cut_off.fetch_add(1, Ordering::Relaxed);
                    *link = None;
                }
            }
            std::thread::sleep(BEAT);
        }
    }

    fn begin(self, to: &str, speech: Speech) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(to)?;
        match self {
            Self::Reader => stream.write_all(&speech.get(LARGE).repeat(AHEAD))?,
            Self::Sender => {
                let request = speech.put("half", &"1".repeat(REST));
                stream.write_all(&request[..request.len() - REST])?;
            }
        }
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    fn beat(self, stream: &mut TcpStream) -> std::io::Result<()> {
        let done = match self {
            Self::Reader => stream.read(&mut [0; SIP]),
            // A request of which nobody sees the end.
            Self::Sender => stream.write(b"1"),
        };
        match done {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }
}
