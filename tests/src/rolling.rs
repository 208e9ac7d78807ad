//! Every part of a running service restarted, one after the other, under clients that notice everything: what went wrong,
//! and the longest time for which any of them waited.

use crate::driver::{Process, Signal, Up, http, lives, signal};
use anyhow::{Context, bail};
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a client waits for a reply before that is an error.
const WAIT: Duration = Duration::from_secs(60);
/// How long a part may take to be back and ready.
const BACK: Duration = Duration::from_secs(90);
/// Between two looks, or attempts to connect.
const POLL: Duration = Duration::from_millis(10);
/// After a part is back all clients run on for so long: what its return brings with it belongs to its restart.
const SETTLE: Duration = Duration::from_millis(500);

/// How a part is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// SIGTERM.
    Term,
    /// `/drain`, then SIGTERM, as Kubernetes does.
    Drain,
    /// SIGKILL.
    Kill,
}

/// One restart, as the clients saw it.
#[derive(Clone, Debug)]
pub struct Restart {
    /// Which part, and how it was ended.
    pub what: String,
    /// The longest time between two replies to one client, or from a reply to the end.
    pub longest: Duration,
    /// Connections that ended between two requests.
    pub reconnected: u64,
    /// Replies in that time.
    pub replies: u64,
    /// What went wrong.
    pub errors: Vec<String>,
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, longest, reconnected, replies, errors } = self;
        let longest = longest.as_secs_f64() * 1e3;
        write!(f, "{what:<34} {longest:>9.1} ms {replies:>8} replies {reconnected:>4} reconnected")?;
        errors.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

/// What one client saw since it was last asked.
#[derive(Debug)]
struct Seen {
    last_reply: Instant,
    longest: Duration,
    replies: u64,
    reconnected: u64,
    errors: Vec<String>,
}

/// Clients that write and read keys of their own.
pub struct Clients {
    stop: Arc<AtomicBool>,
    seen: Vec<Arc<Mutex<Seen>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts so many, against a hashmap at `to`; each thinks for a while after each reply.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn start(to: &str, clients: usize, think: Duration) -> anyhow::Result<Self> {
        let mut all = Self { stop: Arc::default(), seen: Vec::new(), threads: Vec::new() };
        for number in 0..clients {
            let stream = connect(to).with_context(|| format!("client {number} cannot connect to {to}"))?;
            let seen = Arc::new(Mutex::new(Seen::new()));
            all.seen.push(seen.clone());
            let client =
                Client { number, to: to.to_owned(), stream, think, seen, stop: all.stop.clone(), written: 0, steps: 0 };
            all.threads.push(std::thread::spawn(move || client.run()));
        }
        Ok(all)
    }

    /// What all of them saw since the last call.
    #[must_use]
    pub fn look(&self, what: &str) -> Restart {
        let nothing = Duration::ZERO;
        let mut all =
            Restart { what: what.to_owned(), longest: nothing, reconnected: 0, replies: 0, errors: Vec::new() };
        for seen in &self.seen {
            let mut seen = lock(seen);
            let last = seen.last_reply;
            let seen = std::mem::replace(&mut *seen, Seen { last_reply: last, ..Seen::new() });
            all.longest = all.longest.max(seen.longest).max(last.elapsed());
            all.replies += seen.replies;
            all.reconnected += seen.reconnected;
            all.errors.extend(seen.errors);
        }
        all
    }

    /// Waits until each got so many replies since the last look.
    ///
    /// # Errors
    /// One does not.
    pub fn progress(&self, replies: u64) -> anyhow::Result<()> {
        let end = Instant::now() + BACK;
        while let Some(stuck) = self.seen.iter().position(|seen| lock(seen).replies < replies) {
            if Instant::now() > end {
                bail!("client {stuck} does not get on: {:?}", lock(&self.seen[stuck]));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Seen {
    fn new() -> Self {
        Self { last_reply: Instant::now(), longest: Duration::ZERO, replies: 0, reconnected: 0, errors: Vec::new() }
    }
}

struct Client {
    number: usize,
    to: String,
    stream: TcpStream,
    think: Duration,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    /// The value that was acknowledged last.
    written: u64,
    /// Requests so far: every fourth one reads.
    steps: u64,
}

impl Client {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(self.think);
            if self.has_ended() {
                lock(&self.seen).reconnected += 1;
                if !self.reconnect() {
                    return;
                }
            }
            let next = self.written + 1;
            let put = (format!("PUT client{} {next}\n", self.number), "OK\n".to_owned());
            let get = (format!("GET client{}\n", self.number), format!("VALUE {}\n", self.written));
            self.steps += 1;
            let is_put = self.written == 0 || !self.steps.is_multiple_of(4);
            let (request, expected) = if is_put { put } else { get };
            match self.ask(&request) {
                Ok(reply) if reply == expected => {
                    self.written = if is_put { next } else { self.written };
                    let mut seen = lock(&self.seen);
                    let pause = seen.last_reply.elapsed();
                    seen.longest = seen.longest.max(pause);
                    seen.last_reply = Instant::now();
                    seen.replies += 1;
                }
                other => {
                    let what = format!("client {}: {}: {other:?}, not {expected:?}", self.number, request.trim_end());
                    lock(&self.seen).errors.push(what);
                    // Whether it ran is not known: the next value is another one.
                    self.written = next;
                    if !self.reconnect() || self.ask(&format!("PUT client{} {next}\n", self.number)).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Whether the other end has ended the connection while nothing was asked.
    fn has_ended(&self) -> bool {
        let look = || {
            self.stream.set_nonblocking(true)?;
            let peeked = self.stream.peek(&mut [0]);
            self.stream.set_nonblocking(false)?;
            peeked
        };
        !matches!(look(), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    fn reconnect(&mut self) -> bool {
        while !self.stop.load(Ordering::Relaxed) {
            if let Ok(stream) = connect(&self.to) {
                self.stream = stream;
                return true;
            }
            std::thread::sleep(POLL);
        }
        false
    }

    fn ask(&mut self, request: &str) -> std::io::Result<String> {
        self.stream.write_all(request.as_bytes())?;
        let (mut reply, mut byte) = (Vec::new(), [0]);
        while byte != *b"\n" {
            self.stream.read_exact(&mut byte)?;
            reply.extend(byte);
        }
        Ok(String::from_utf8_lossy(&reply).into_owned())
    }
}

fn connect(to: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(WAIT))?;
    Ok(stream)
}

/// Ends one part, waits until it is back, and says what the clients saw.
///
/// # Errors
/// It does not come back.
pub fn restart(up: &Up, clients: &Clients, part: &Process, how: How) -> anyhow::Result<Restart> {
    clients.progress(5)?;
    drop(clients.look(""));
    if how == How::Drain {
        // Of an ingress that is the word that it is not ready any more: the clients that it has go on.
        let ingress = part.role == "ingress";
        let path = if ingress { "/drain?wait=0s" } else { "/drain?wait=20s" };
        let (code, body) = http::get_within(&part.admin, path, BACK).map_err(anyhow::Error::msg)?;
        if code != 200 && !ingress {
            bail!("{} {} does not drain: {code} {body}", part.role, part.id);
        }
    }
    signal(if how == How::Kill { Signal::KILL } else { Signal::TERM }, part.pid)?;
    back(up, part)?;
    std::thread::sleep(SETTLE);
    clients.progress(5)?;
    Ok(clients.look(&format!("{} {} ({how:?})", part.role, part.id)))
}

/// Waits until a part that was ended runs again and everybody is ready.
fn back(up: &Up, part: &Process) -> anyhow::Result<()> {
    let end = Instant::now() + BACK;
    loop {
        let ready = |process: &Process| process.ready().is_ok();
        let new = up.role(&part.role).into_iter().find(|process| process.id == part.id && process.pid != part.pid);
        if !lives(part.pid) && new.is_some_and(|new| ready(&new)) && up.role("sidecar").iter().all(ready) {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("{} {} does not come back:\n{}", part.role, part.id, up.log());
        }
        std::thread::sleep(POLL);
    }
}

/// The sidecar that leads.
///
/// # Errors
/// None does for long.
pub fn leader(up: &Up) -> anyhow::Result<Process> {
    let end = Instant::now() + BACK;
    loop {
        let leads = |part: &Process| part.status().is_ok_and(|status| status["role"] == "leader");
        match up.role("sidecar").into_iter().find(leads) {
            Some(leader) => return Ok(leader),
            None if Instant::now() > end => bail!("nobody leads:\n{}", up.log()),
            None => std::thread::sleep(POLL),
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
