//! Ten times the load that a service can bear, and then the usual one again: does goodput come back?
//!
//! Open loop: requests (`INC key`, a line each) come at a fixed rate whether the earlier ones were answered or not, each
//! on a connection that is free or new. Run it against `lockstep up --protocol line -- misbehave {port} {dir} 2`, an
//! application that takes 2 ms for a request and so can do a little less than 500 a second.

use anyhow::Context;
use clap::Parser;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a client waits for an answer: longer than the ingress' deadline.
const PATIENCE: Duration = Duration::from_secs(15);

/// Offers a load, ten times that, and the first one again; prints what was answered, second by second.
#[derive(Debug, Parser)]
struct Args {
    /// Where to
    #[arg(long, default_value = "127.0.0.1:7000")]
    to: SocketAddr,
    /// The usual load, in requests a second
    #[arg(long, default_value_t = 350)]
    rate: u32,
    /// How many times that the overload is
    #[arg(long, default_value_t = 10)]
    times: u32,
    /// Seconds of the usual load before
    #[arg(long, default_value_t = 10)]
    before: u64,
    /// Seconds of the overload
    #[arg(long, default_value_t = 30)]
    over: u64,
    /// Seconds of the usual load after
    #[arg(long, default_value_t = 20)]
    after: u64,
    /// Connections at most; a request for which none is left is not offered
    #[arg(long, default_value_t = 15_000)]
    connections: usize,
}

/// What became of the requests that were due in one second.
#[derive(Clone, Debug, Default)]
struct Second {
    offered: u32,
    answered: u32,
    closed: u32,
    /// No connection was left, or none could be made.
    none: u32,
    waits: Vec<Duration>,
}

/// What the requests share.
struct Crowd {
    to: SocketAddr,
    most: usize,
    begun: Instant,
    free: Mutex<Vec<TcpStream>>,
    busy: AtomicUsize,
    seconds: Mutex<Vec<Second>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let total = args.before + args.over + args.after;
    let crowd = Arc::new(Crowd {
        to: args.to,
        most: args.connections,
        begun: Instant::now(),
        free: Mutex::default(),
        busy: AtomicUsize::new(0),
        seconds: Mutex::new(vec![Second::default(); usize::try_from(total).context("so long a time")?]),
    });
    let mut due = Duration::ZERO;
    while due < Duration::from_secs(total) {
        tokio::time::sleep_until(tokio::time::Instant::from_std(crowd.begun + due)).await;
        tokio::spawn(crowd.clone().ask(due));
        let overloaded = (args.before..args.before + args.over).contains(&due.as_secs());
        due += Duration::from_secs(1) / (args.rate * if overloaded { args.times } else { 1 });
    }
    // Whoever came in the last seconds still gets an answer.
    let end = Instant::now() + PATIENCE;
    while crowd.busy.load(Ordering::Relaxed) > 0 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    crowd.print(&args);
    Ok(())
}

impl Crowd {
    fn with_second(&self, due: Duration, change: impl FnOnce(&mut Second)) {
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(second) = usize::try_from(due.as_secs()).ok().and_then(|at| seconds.get_mut(at)) {
            change(second);
        }
    }

    /// One request, due then.
    async fn ask(self: Arc<Self>, due: Duration) {
        self.with_second(due, |second| second.offered += 1);
        let busy = self.busy.fetch_add(1, Ordering::Relaxed);
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let stream = match free {
            Some(stream) => Some(stream),
            None if busy < self.most => TcpStream::connect(self.to).await.ok(),
            None => None,
        };
        match stream {
            Some(stream) => {
                let answer = tokio::time::timeout(PATIENCE, exchange(stream)).await;
                let waited = self.begun.elapsed().saturating_sub(due);
                self.with_second(due, |second| match &answer {
                    Ok(Ok(_)) => {
                        second.answered += 1;
                        second.waits.push(waited);
                    }
                    Ok(Err(_)) | Err(_) => second.closed += 1,
                });
                if let Ok(Ok(stream)) = answer {
                    self.free.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
                }
            }
            None => self.with_second(due, |second| second.none += 1),
        }
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    fn print(&self, args: &Args) {
        println!(
            "{:>6} {:>8} {:>9} {:>7} {:>6} {:>10} {:>10}",
            "second", "offered", "answered", "closed", "none", "p50 ms", "p99 ms"
        );
        let seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, second) in seconds.iter().enumerate() {
            let mut waits = second.waits.clone();
            waits.sort_unstable();
            let at_share = |share: usize| {
                waits.get((waits.len() * share / 100).min(waits.len().saturating_sub(1))).map_or(0, Duration::as_millis)
            };
            let Second { offered, answered, closed, none, .. } = second;
            println!(
                "{at:>6} {offered:>8} {answered:>9} {closed:>7} {none:>6} {:>10} {:>10}",
                at_share(50),
                at_share(99)
            );
        }
        let mean = |from: u64, to: u64| {
            let seconds = seconds.iter().skip(from as usize).take((to - from) as usize);
            seconds.map(|second| f64::from(second.answered)).sum::<f64>() / (to - from).max(1) as f64
        };
        let over = args.before + args.over;
        let end = over + args.after;
        println!(
            "answered a second: before {:.0}, in the overload {:.0}, from 5 s after it {:.0}",
            mean(2.min(args.before), args.before),
            mean(args.before, over),
            mean((over + 5).min(end), end)
        );
    }
}

/// Asks and gives the connection back, if there was an answer.
async fn exchange(mut stream: TcpStream) -> std::io::Result<TcpStream> {
    stream.write_all(b"INC k\n").await?;
    let mut reply = [0; 64];
    let mut read = 0;
    while !reply[..read].contains(&b'\n') {
        match stream.read(&mut reply[read..]).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            more => read += more,
        }
    }
    Ok(stream)
}
