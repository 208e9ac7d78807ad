//! The load generator: one thread with one event loop, so that it costs little on the cores that it shares with what it
//! measures. Closed loop: each connection asks as soon as it was answered. Open loop: requests are due by a timetable, and
//! latencies count from there, so that a service that stands still does not hide those that would have come meanwhile.

mod connection;
mod pace;
mod tally;
mod workload;

pub(crate) use tally::{Latencies, Latency, Outcome, Window};
pub(crate) use workload::Mix;

use crate::stop;
use crate::wire::{Protocol, Speech};
use anyhow::Context;
use connection::Connection;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tally::Tally;
use tokio::sync::Notify;
use tokio::task::LocalSet;
use workload::{Draws, Keys};

/// Connections that are opened at the same time.
const OPENING: usize = 128;
/// From the end to when requests without a reply are given up.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at whether somebody wants the end.
const LOOK: Duration = Duration::from_millis(50);
/// Connections that write the keys for the first time.
const FILLING: usize = 64;
/// All keys must be there within this.
const FILLED: Duration = Duration::from_secs(600);
/// All connections must be there within this.
const CONNECTING: Duration = Duration::from_secs(60);

/// What load.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// Where to; connections are spread over them.
    pub(crate) to: Vec<SocketAddr>,
    /// How it speaks.
    pub(crate) protocol: Protocol,
    /// Connections.
    pub(crate) clients: usize,
    /// Requests in flight on each.
    pub(crate) pipeline: usize,
    /// Requests a second over all; `None`: a closed loop.
    pub(crate) rate: Option<f64>,
    /// A connection for each request.
    pub(crate) per_request: bool,
    /// Bytes of a value.
    pub(crate) value_bytes: usize,
    /// Shares of the operations.
    pub(crate) mix: Mix,
    /// Different keys.
    pub(crate) keys: u64,
    /// How much the first keys are preferred.
    pub(crate) skew: f64,
    /// Write every key once, first.
    pub(crate) fill: bool,
    /// Not measured.
    pub(crate) warmup: Duration,
    /// Measured.
    pub(crate) time: Duration,
    /// Keep each client's latencies.
    pub(crate) samples: bool,
}

impl Spec {
    /// Where `to` (HOST:PORT, several with commas) is.
    ///
    /// # Errors
    /// It is no address, or the name has none.
    pub(crate) fn addresses(to: &str) -> anyhow::Result<Vec<SocketAddr>> {
        to.split(',')
            .map(|one| {
                let found = one.to_socket_addrs().with_context(|| format!("--to {one}: give HOST:PORT"))?.next();
                found.with_context(|| format!("--to {one}: this name has no address"))
            })
            .collect()
    }
}

/// What the connections share.
struct Shared {
    spec: Spec,
    speech: Speech,
    keys: Keys,
    tally: RefCell<Tally>,
    /// The next key to fill in.
    filling: Cell<u64>,
    /// When a closed loop asks no more.
    end: Cell<Option<Instant>>,
    /// Requests of an open loop that are due, by connection.
    due: Vec<(RefCell<VecDeque<Instant>>, Notify)>,
    /// Nothing more will be due.
    handed_out: Cell<bool>,
    opening: tokio::sync::Semaphore,
    opened: Cell<usize>,
    news: Notify,
    go: tokio::sync::Semaphore,
}

impl Shared {
    fn new(spec: Spec) -> Self {
        let clients = spec.clients;
        Self {
            speech: Speech::new(spec.protocol, spec.value_bytes, !spec.per_request),
            keys: Keys::new(spec.keys, spec.skew),
            // Who fills in keys may note what went wrong too.
            tally: RefCell::new(Tally::new(clients.max(FILLING), spec.rate.is_some(), spec.samples)),
            filling: Cell::new(0),
            end: Cell::new(None),
            due: (0..clients).map(|_| (RefCell::default(), Notify::new())).collect(),
            handed_out: Cell::new(false),
            opening: tokio::sync::Semaphore::new(OPENING),
            opened: Cell::new(0),
            news: Notify::new(),
            go: tokio::sync::Semaphore::new(0),
            spec,
        }
    }

    /// Why the first of the failures was one.
    fn why(&self) -> String {
        self.tally.borrow().error().unwrap_or("no word why").to_owned()
    }

    fn queue(&self, connection: usize, due: Instant) {
        let (queue, notify) = &self.due[connection];
        queue.borrow_mut().push_back(due);
        notify.notify_one();
    }
}

/// A running load.
pub(crate) struct Running {
    thread: std::thread::JoinHandle<anyhow::Result<Outcome>>,
    window: Window,
}

/// Opens the connections, fills in the keys, and begins.
///
/// # Errors
/// Nobody is there.
pub(crate) fn start(spec: Spec) -> anyhow::Result<Running> {
    more_files(spec.clients as u64 + 200);
    let (begun, begins) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("load".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, run(spec, begun))
    })?;
    loop {
        match begins.recv_timeout(LOOK) {
            Ok(window) => return Ok(Running { thread, window }),
            Err(mpsc::RecvTimeoutError::Timeout) => stop::check()?,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                join(thread)?;
                anyhow::bail!("the load ended before it began");
            }
        }
    }
}

fn join(thread: std::thread::JoinHandle<anyhow::Result<Outcome>>) -> anyhow::Result<Outcome> {
    thread.join().map_err(|_| anyhow::anyhow!("the load's thread ended"))?
}

impl Running {
    /// Waits for the end. What `look` says at the beginning and at the end of what is measured comes with it.
    ///
    /// # Errors
    /// It was stopped, or the load failed.
    pub(crate) fn finish<S>(self, mut look: impl FnMut() -> S) -> anyhow::Result<(Outcome, S, S)> {
        stop::sleep_until(self.window.from)?;
        let before = look();
        stop::sleep_until(self.window.to)?;
        let after = look();
        Ok((join(self.thread)?, before, after))
    }

    /// What is measured.
    pub(crate) fn window(&self) -> Window {
        self.window
    }
}

async fn run(spec: Spec, begun: mpsc::SyncSender<Window>) -> anyhow::Result<Outcome> {
    let clients = spec.clients;
    let shared = Rc::new(Shared::new(spec));
    if shared.spec.fill {
        fill(&shared).await?;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..clients {
        let draws = Draws::new(index as u64 + 1, shared.spec.mix);
        tasks.spawn_local(Connection::new(shared.clone(), index, draws).run());
    }
    let all = async {
        while shared.opened.get() < clients {
            shared.news.notified().await;
        }
    };
    if tokio::time::timeout(CONNECTING, all).await.is_err() {
        anyhow::bail!("only {} of {clients} connections were opened: {}", shared.opened.get(), shared.why());
    }
    // From here on nobody is late because others were still connecting.
    let start = Instant::now();
    let from = start + shared.spec.warmup;
    let window = Window { from, to: from + shared.spec.time };
    shared.tally.borrow_mut().open(window);
    shared.end.set(Some(window.to));
    shared.go.add_permits(clients);
    let _ = begun.send(window);
    if let Some(rate) = shared.spec.rate {
        pace::hand_out(&shared, pace::Timetable::new(start, rate), window.to).await?;
        // Who waits for the next one need not.
        shared.handed_out.set(true);
        shared.due.iter().for_each(|(_, notify)| notify.notify_one());
    }
    let rest = window.to.saturating_duration_since(Instant::now()) + PATIENCE;
    let all = async { while tasks.join_next().await.is_some() {} };
    // Who was not answered in time is given up, and counted by the connection's end.
    let _ = tokio::time::timeout(rest, all).await;
    tasks.shutdown().await;
    let shared = Rc::try_unwrap(shared).map_err(|_| anyhow::anyhow!("a connection is still there"))?;
    Ok(shared.tally.into_inner().outcome())
}

/// Writes every key once, by more connections than there may be clients, so that it does not take long.
async fn fill(shared: &Rc<Shared>) -> anyhow::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..FILLING {
        let draws = Draws::new(0, shared.spec.mix);
        tasks.spawn_local(Connection::new(shared.clone(), index, draws).fill());
    }
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(FILLED, all).await.is_err() {
        let key = shared.filling.get();
        anyhow::bail!(
            "only {key} of {} keys were written in {} s: {}",
            shared.spec.keys,
            FILLED.as_secs(),
            shared.why()
        );
    }
    Ok(())
}

/// Lets this process have so many files more, as far as it may.
fn more_files(wanted: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let current = match (limit.current, limit.maximum) {
        (Some(current), _) if current >= wanted => return,
        (_, Some(maximum)) => wanted.min(maximum),
        (_, None) => wanted,
    };
    // If it may not, connecting says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};

    /// Answers lines, or one request a connection; lives as long as the test.
    fn service(close: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || if close { answer_once(stream) } else { answer_lines(stream) });
            }
        });
        address
    }

    fn answer_once(mut stream: TcpStream) -> std::io::Result<()> {
        let mut request = String::new();
        stream.read_to_string(&mut request)?;
        stream.write_all(if request.starts_with("PUT k") { b"OK\n" } else { b"ERR\n" })
    }

    fn answer_lines(stream: TcpStream) -> std::io::Result<()> {
        let mut writer = stream.try_clone()?;
        for line in BufReader::new(stream).lines() {
            writer.write_all(if line?.starts_with("REMOVE") { b"ERR\n" } else { b"OK\n" })?;
        }
        Ok(())
    }

    fn spec(to: SocketAddr, protocol: Protocol) -> Spec {
        Spec {
            to: vec![to],
            protocol,
            clients: 4,
            pipeline: 2,
            rate: None,
            per_request: protocol == Protocol::Close,
            value_bytes: 10,
            mix: Mix::reads(0.0),
            keys: 200,
            skew: 0.0,
            fill: true,
            warmup: Duration::from_millis(50),
            time: Duration::from_millis(300),
            samples: true,
        }
    }

    fn load(spec: Spec) -> Outcome {
        start(spec).and_then(|running| running.finish(|| ())).expect("the service is there").0
    }

    #[test]
    fn a_closed_loop_asks_as_soon_as_it_was_answered() {
        for protocol in [Protocol::Line, Protocol::Close] {
            let outcome = load(spec(service(protocol == Protocol::Close), protocol));
            assert!(outcome.answered > 20 && outcome.failed == 0, "{outcome:?}");
            assert_eq!(outcome.answered, outcome.within);
            let samples: usize = outcome.samples.iter().flatten().map(Vec::len).sum();
            assert_eq!(samples as u64, outcome.answered, "each latency is kept by its client");
        }
    }

    #[test]
    fn an_open_loop_asks_at_its_rate_and_ends_when_all_is_answered() {
        for protocol in [Protocol::Line, Protocol::Close] {
            let begun = Instant::now();
            let to = service(protocol == Protocol::Close);
            let outcome = load(Spec { rate: Some(200.0), time: Duration::from_millis(500), ..spec(to, protocol) });
            // 100 are due in half a second.
            assert!((95..=105).contains(&outcome.answered) && outcome.failed == 0, "{outcome:?}");
            assert!(begun.elapsed() < PATIENCE, "nobody is waited for");
        }
    }

    #[test]
    fn errors_are_no_answers_and_nobody_there_is_said() {
        let outcome = load(Spec { mix: Mix([0, 0, 1000, 0]), ..spec(service(false), Protocol::Line) });
        assert!(outcome.answered == 0 && outcome.failed > 0, "{outcome:?}");
        assert!(outcome.error.is_some_and(|error| error.contains("ERR")));
        assert_eq!(Spec::addresses("127.0.0.1:1,127.0.0.1:2").expect("two addresses").len(), 2);
        assert!(Spec::addresses("nowhere").is_err_and(|error| error.to_string().contains("HOST:PORT")));
    }
}
