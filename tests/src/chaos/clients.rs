//! The clients: unmodified ones, a TCP connection each, one call at a time, a record of every call.

use crate::linear::{Call, Op, Outcome};
use mesh::rng::Rng;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long after the deadline the ingress may still take to close the connection.
const GRACE: Duration = Duration::from_secs(10);
/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(20);
/// Attempts to connect, one after the other, after which a client gives up.
const CONNECTS_MAX: u32 = 100;

/// What the calls of a run are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mix {
    /// Different keys.
    pub(super) keys: u64,
    /// Per mille of the calls.
    pub(super) puts: u64,
    /// Per mille of the calls.
    pub(super) removes: u64,
    /// Per mille of the calls; the rest are GETs.
    pub(super) sizes: u64,
    /// Between two calls of a client at most.
    pub(super) pause: Duration,
}

impl Mix {
    /// What a seed has.
    pub(super) fn draw(rng: &mut Rng) -> Self {
        // With few keys many calls meet on each; with many a lost write is more often read before it is overwritten.
        let keys = if rng.chance(500) { rng.between(2, 8) } else { rng.between(10, 60) };
        Self {
            keys,
            puts: rng.between(200, 500),
            removes: rng.between(50, 250),
            sizes: rng.between(10, 100),
            pause: Duration::from_millis(rng.between(2, 30)),
        }
    }

    /// The name of a key.
    pub(super) fn key(number: u64) -> String {
        format!("k{number}")
    }

    fn op(&self, rng: &mut Rng, value: impl FnOnce() -> String) -> Op {
        let key = Self::key(rng.below(self.keys));
        match rng.below(1000) {
            draw if draw < self.puts => Op::Put { key, value: value() },
            draw if draw < self.puts + self.removes => Op::Remove { key },
            draw if draw < self.puts + self.removes + self.sizes => Op::Size,
            _ => Op::Get { key },
        }
    }
}

/// What all clients of a run share.
#[derive(Debug)]
pub(super) struct Service {
    /// Where they connect.
    pub(super) address: String,
    /// When the run began: the clock of its history.
    pub(super) begun: Instant,
    /// After this a client is told what is known of its call, and no earlier.
    pub(super) deadline: Duration,
    /// No further calls.
    pub(super) over: AtomicBool,
}

/// What one client did and saw.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) calls: Vec<Call>,
    /// What must not happen: a connection that ends before the deadline, a call that is not ended long after it.
    pub(super) errors: Vec<String>,
    /// The longest that an answered call took, and when it was called.
    pub(super) longest: (Duration, Duration),
}

/// One client.
pub(super) struct Client<'a> {
    id: u32,
    service: &'a Service,
    link: Option<BufReader<TcpStream>>,
    trace: Trace,
}

impl<'a> Client<'a> {
    pub(super) fn new(id: u32, service: &'a Service) -> Self {
        Self { id, service, link: None, trace: Trace::default() }
    }

    /// Calls until the run is over.
    pub(super) fn run(mut self, mix: &Mix, mut rng: Rng) -> Trace {
        let mut puts = 0_u64;
        while !self.service.over.load(Ordering::Relaxed) {
            let op = mix.op(&mut rng, || {
                puts += 1;
                format!("{}.{puts}", self.id)
            });
            if !self.call(op) {
                break;
            }
            let pause = rng.below(u64::try_from(mix.pause.as_nanos()).unwrap_or(u64::MAX));
            std::thread::sleep(Duration::from_nanos(pause));
        }
        self.trace
    }

    /// One call each, in order, and what came of them.
    pub(super) fn ask(mut self, ops: impl IntoIterator<Item = Op>) -> Trace {
        for op in ops {
            if !self.call(op) {
                break;
            }
        }
        self.trace
    }

    /// One call. False if there is no connection to be had.
    fn call(&mut self, op: Op) -> bool {
        if self.link.is_none() && !self.connect() {
            return false;
        }
        let Some(link) = &mut self.link else { return false };
        let begun = self.service.begun;
        let called = begun.elapsed();
        let line = op.line() + "\n";
        let mut reply = String::new();
        let result = link.get_mut().write_all(line.as_bytes()).and_then(|()| link.read_line(&mut reply));
        let ended = begun.elapsed();
        let took = ended.saturating_sub(called);
        let outcome = match result {
            Ok(_) if reply.ends_with('\n') => {
                self.trace.longest = self.trace.longest.max((took, called));
                reply.pop();
                Outcome::Reply { returned: nanos(ended), reply }
            }
            other => {
                self.link = None;
                self.complain(&op, called, took, &other);
                Outcome::Unknown { ended: nanos(ended) }
            }
        };
        self.trace.calls.push(Call { client: self.id, called: nanos(called), op, outcome });
        true
    }

    /// A call without a reply is an error of the run, unless its connection was closed at its deadline.
    fn complain(&mut self, op: &Op, called: Duration, took: Duration, result: &io::Result<usize>) {
        let limit = self.service.deadline;
        let what = match result {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                "neither answered nor closed".to_owned()
            }
            _ if took >= limit => return,
            Ok(_) => "closed without a reply before the deadline".to_owned(),
            Err(error) => format!("broken before the deadline: {error}"),
        };
        let at = called.as_secs_f64();
        let text = format!("client {} at {at:.3} s, {}: {what}, after {:.3} s", self.id, op.line(), took.as_secs_f64());
        self.trace.errors.push(text);
    }

    fn connect(&mut self) -> bool {
        let mut last = None;
        for _ in 0..CONNECTS_MAX {
            match dial(&self.service.address, self.service.deadline + GRACE) {
                Ok(stream) => {
                    self.link = Some(BufReader::new(stream));
                    return true;
                }
                Err(error) => last = Some(error),
            }
            std::thread::sleep(RECONNECT);
        }
        let why = last.map(|error| error.to_string()).unwrap_or_default();
        self.trace.errors.push(format!("client {}: cannot connect: {why}", self.id));
        false
    }
}

fn dial(address: &str, patience: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    Ok(stream)
}

/// As times are in a history.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Asks an application itself, past the cluster.
///
/// # Errors
/// It does not answer.
pub(super) fn ask_directly(address: &str, line: &str) -> io::Result<String> {
    let mut link = BufReader::new(dial(address, GRACE)?);
    link.get_mut().write_all(format!("{line}\n").as_bytes())?;
    let mut reply = String::new();
    link.read_line(&mut reply)?;
    if !reply.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    reply.pop();
    Ok(reply)
}

/// Clients of a service that call all the time, while something else is done to it.
#[derive(Debug)]
pub struct Watch {
    service: Arc<Service>,
    threads: Vec<JoinHandle<Trace>>,
}

/// What they saw.
#[derive(Debug)]
pub struct Seen {
    /// Every call.
    pub calls: Vec<Call>,
    /// What must not happen: a connection that ends before the deadline, a call that is not ended long after it.
    pub errors: Vec<String>,
    /// The longest that an answered call took.
    pub longest: Duration,
}

impl Watch {
    /// So many clients, a connection each; the ingress gives each call `deadline`.
    #[must_use]
    pub fn start(address: &str, clients: u32, deadline: Duration, seed: u64) -> Self {
        let over = AtomicBool::new(false);
        let service = Arc::new(Service { address: address.to_owned(), begun: Instant::now(), deadline, over });
        let mut rng = Rng::from_seed(seed);
        let mix = Mix::draw(&mut rng);
        let threads = (0..clients).map(|id| {
            let (service, rng) = (service.clone(), rng.fork());
            std::thread::spawn(move || Client::new(id, &service).run(&mix, rng))
        });
        let threads = threads.collect();
        Self { service, threads }
    }

    /// Ends them.
    #[must_use]
    pub fn finish(self) -> Seen {
        self.service.over.store(true, Ordering::Relaxed);
        let mut seen = Seen { calls: Vec::new(), errors: Vec::new(), longest: Duration::ZERO };
        for thread in self.threads {
            match thread.join() {
                Ok(trace) => {
                    seen.calls.extend(trace.calls);
                    seen.errors.extend(trace.errors);
                    seen.longest = seen.longest.max(trace.longest.0);
                }
                Err(_) => seen.errors.push("a client's thread ended".to_owned()),
            }
        }
        seen
    }
}
