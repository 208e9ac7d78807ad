//! Clients that write all the time, note what was acknowledged, and read everything back at the end: what is lost, what ran
//! twice, and how long the longest pause was, phase by phase. For clusters that somebody else runs and disturbs.
//!
//! Over Redis' protocol each client appends numbers to a list of its own, so that the list tells of each whether it ran, and
//! how often. The hashmap has no such operation: there each number is a key of its own, and only losses are seen.

use crate::load::{Speech, connect};
use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A reply may take this long: longer than any deadline of the service.
const REPLY: Duration = Duration::from_secs(60);
/// Before another connection is tried.
const AGAIN: Duration = Duration::from_millis(50);

/// What became of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    /// The service said that it did not run.
    Refused,
    /// The connection ended without a reply.
    Unknown,
}

/// What happened since the last mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phase {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes that were refused.
    pub refused: u64,
    /// Writes whose outcome is not known.
    pub unknown: u64,
    /// Connections that could not be made.
    pub unreachable: u64,
    /// The longest time between two acknowledgements of one client.
    pub pause: Duration,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acknowledged {:>7}  refused {:>3}  unknown {:>3}  unreachable {:>4}  longest pause {:>6.2} s",
            self.acknowledged,
            self.refused,
            self.unknown,
            self.unreachable,
            self.pause.as_secs_f64()
        )
    }
}

/// What was found at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Acknowledged writes that are not there.
    pub lost: u64,
    /// Writes that are there more than once, or out of order.
    pub twice: u64,
    /// Writes that are there although they were refused.
    pub despite: u64,
    /// Writes that are there and that nobody asked for.
    pub foreign: u64,
}

impl Found {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        *self == Self::default()
    }
}

/// The clients, while they write.
#[derive(Debug)]
pub struct Writers {
    to: String,
    speech: Speech,
    prefix: String,
    stop: Arc<AtomicBool>,
    phase: Arc<Mutex<Phase>>,
    threads: Vec<JoinHandle<Vec<Fate>>>,
}

impl Writers {
    /// Starts them; `prefix` keeps their keys from those of others.
    #[must_use]
    pub fn start(to: &str, speech: Speech, clients: usize, think: Duration, prefix: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let phase = Arc::new(Mutex::new(Phase::default()));
        let threads = (0..clients)
            .map(|number| {
                let client = Client {
                    to: to.to_owned(),
                    speech,
                    key: format!("{prefix}:{number}"),
                    stop: stop.clone(),
                    phase: phase.clone(),
                    think,
                };
                std::thread::spawn(move || client.run())
            })
            .collect();
        Self { to: to.to_owned(), speech, prefix: prefix.to_owned(), stop, phase, threads }
    }

    /// What happened since the last mark; the next phase begins.
    #[must_use]
    pub fn mark(&self) -> Phase {
        std::mem::take(&mut *self.phase.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops them, reads everything back.
    ///
    /// # Errors
    /// The service cannot be read from.
    pub fn finish(self) -> anyhow::Result<Found> {
        self.stop.store(true, Ordering::Relaxed);
        let mut found = Found::default();
        let fates: Vec<Vec<Fate>> = self.threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect();
        for (number, fates) in fates.iter().enumerate() {
            let key = format!("{}:{number}", self.prefix);
            let there = read_back(&self.to, self.speech, &key, fates.len())?;
            judge(fates, &there, &mut found);
        }
        Ok(found)
    }
}

/// One client.
struct Client {
    to: String,
    speech: Speech,
    key: String,
    stop: Arc<AtomicBool>,
    phase: Arc<Mutex<Phase>>,
    think: Duration,
}

impl Client {
    fn run(self) -> Vec<Fate> {
        let (mut fates, mut stream) = (Vec::new(), None);
        let mut last = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let Some(connection) = stream.as_mut() else {
                match connect(&self.to).and_then(with_patience) {
                    Ok(connection) => stream = Some(connection),
                    Err(_) => {
                        self.note(|phase| phase.unreachable += 1);
                        std::thread::sleep(AGAIN);
                    }
                }
                continue;
            };
            let fate = write(connection, self.speech, &self.key, fates.len());
            fates.push(fate);
            match fate {
                Fate::Acknowledged => {
                    let pause = last.elapsed();
                    last = Instant::now();
                    self.note(|phase| {
                        phase.acknowledged += 1;
                        phase.pause = phase.pause.max(pause);
                    });
                    std::thread::sleep(self.think);
                    last += self.think.min(last.elapsed());
                }
                Fate::Refused => {
                    self.note(|phase| phase.refused += 1);
                    std::thread::sleep(AGAIN);
                }
                Fate::Unknown => {
                    self.note(|phase| phase.unknown += 1);
                    stream = None;
                }
            }
        }
        fates
    }

    fn note(&self, what: impl FnOnce(&mut Phase)) {
        what(&mut self.phase.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn with_patience(stream: BufReader<TcpStream>) -> std::io::Result<BufReader<TcpStream>> {
    stream.get_ref().set_read_timeout(Some(REPLY))?;
    Ok(stream)
}

fn write(stream: &mut BufReader<TcpStream>, speech: Speech, key: &str, number: usize) -> Fate {
    let request = match speech {
        Speech::Resp => command(&["RPUSH", key, &number.to_string()]),
        Speech::Line => speech.put(&format!("{key}:{number}"), "1"),
    };
    let mut reply = String::new();
    let asked = stream.get_mut().write_all(&request).and_then(|()| stream.read_line(&mut reply));
    match asked {
        Ok(_) if reply.starts_with("-LOCKSTEP") => Fate::Refused,
        Ok(_) if reply.starts_with(':') || speech.is_stored(&reply) => Fate::Acknowledged,
        _ => Fate::Unknown,
    }
}

/// The numbers that are there, in their order.
fn read_back(to: &str, speech: Speech, key: &str, numbers: usize) -> anyhow::Result<Vec<usize>> {
    let end = Instant::now() + REPLY;
    loop {
        let read = connect(to).and_then(with_patience).map_err(anyhow::Error::from).and_then(|stream| match speech {
            Speech::Resp => read_list(stream, key),
            Speech::Line => read_keys(stream, key, numbers),
        });
        match read {
            Ok(there) => return Ok(there),
            Err(error) if Instant::now() >= end => return Err(error.context("what is there cannot be read")),
            Err(_) => std::thread::sleep(AGAIN * 10),
        }
    }
}

fn read_list(mut stream: BufReader<TcpStream>, key: &str) -> anyhow::Result<Vec<usize>> {
    const PAGE: usize = 1000;
    let mut all = Vec::new();
    loop {
        let (from, to) = (all.len().to_string(), (all.len() + PAGE - 1).to_string());
        stream.get_mut().write_all(&command(&["LRANGE", key, &from, &to]))?;
        let count = header(&mut stream, '*')?;
        for _ in 0..count {
            let length = header(&mut stream, '$')?;
            let mut text = vec![0; length + 2];
            stream.read_exact(&mut text)?;
            all.push(std::str::from_utf8(&text[..length])?.parse()?);
        }
        if count < PAGE {
            return Ok(all);
        }
    }
}

fn header(stream: &mut BufReader<TcpStream>, kind: char) -> anyhow::Result<usize> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let number = line.trim_end().strip_prefix(kind);
    Ok(number.ok_or_else(|| anyhow::anyhow!("an answer of another kind: {line:?}"))?.parse()?)
}

fn read_keys(mut stream: BufReader<TcpStream>, key: &str, numbers: usize) -> anyhow::Result<Vec<usize>> {
    let mut there = Vec::new();
    for number in 0..numbers {
        stream.get_mut().write_all(&Speech::Line.get(&format!("{key}:{number}")))?;
        let mut reply = String::new();
        stream.read_line(&mut reply)?;
        match reply.trim_end() {
            "NIL" => {}
            "VALUE 1" => there.push(number),
            other => anyhow::bail!("an answer of another kind: {other:?}"),
        }
    }
    Ok(there)
}

fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len());
    for word in words {
        bytes += &format!("${}\r\n{word}\r\n", word.len());
    }
    bytes.into_bytes()
}

/// Holds what is there against what the client was told.
fn judge(fates: &[Fate], there: &[usize], found: &mut Found) {
    found.twice += there.windows(2).filter(|pair| pair[0] >= pair[1]).count() as u64;
    let set: BTreeSet<usize> = there.iter().copied().collect();
    for (number, fate) in fates.iter().enumerate() {
        match (fate, set.contains(&number)) {
            (Fate::Acknowledged, false) => found.lost += 1,
            (Fate::Refused, true) => found.despite += 1,
            _ => {}
        }
    }
    found.foreign += set.range(fates.len()..).count() as u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_or_ran_twice_is_found() {
        use Fate::{Acknowledged, Refused, Unknown};
        let judged = |fates: &[Fate], there: &[usize]| {
            let mut found = Found::default();
            judge(fates, there, &mut found);
            (found.lost, found.twice, found.despite, found.foreign)
        };
        let fates = [Acknowledged, Unknown, Refused, Acknowledged];
        assert_eq!(judged(&fates, &[0, 3]), (0, 0, 0, 0));
        assert_eq!(judged(&fates, &[0, 1, 3]), (0, 0, 0, 0), "what is unknown may have run");
        assert_eq!(judged(&fates, &[3]), (1, 0, 0, 0));
        assert_eq!(judged(&fates, &[0, 0, 3]), (0, 1, 0, 0));
        assert_eq!(judged(&fates, &[3, 0]), (0, 1, 0, 0), "nor may two change places");
        assert_eq!(judged(&fates, &[0, 2, 3]), (0, 0, 1, 0));
        assert_eq!(judged(&fates, &[0, 3, 4]), (0, 0, 0, 1));
    }
}
