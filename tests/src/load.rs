//! Load on a running service, by clients that notice everything, and what they saw.
//!
//! Latency at a fixed rate is counted from when a request was due, so that a server that stands still does not hide the
//! requests that would have come meanwhile.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a client waits for a reply before it counts it as failed.
const WAIT: Duration = Duration::from_secs(60);

/// What the service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// Redis' protocol.
    Resp,
    /// The hashmap's lines.
    Line,
}

impl Speech {
    /// Writes a value.
    #[must_use]
    pub fn put(self, key: &str, value: &str) -> Vec<u8> {
        match self {
            Self::Resp => {
                format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len()).into_bytes()
            }
            Self::Line => format!("PUT {key} {value}\n").into_bytes(),
        }
    }

    /// Reads a value.
    #[must_use]
    pub fn get(self, key: &str) -> Vec<u8> {
        match self {
            Self::Resp => format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).into_bytes(),
            Self::Line => format!("GET {key}\n").into_bytes(),
        }
    }

    /// Whether a line is the reply to [`Speech::put`].
    #[must_use]
    pub fn is_stored(self, reply: &str) -> bool {
        reply.trim_end() == if self == Self::Resp { "+OK" } else { "OK" }
    }
}

/// When a client sends its next request.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// At a fixed rate: the first after `first`, then one `every` so often, whenever the last one was answered.
    Due {
        /// After the beginning.
        first: Duration,
        /// From one to the next.
        every: Duration,
    },
    /// So long after the last one was answered.
    Think(Duration),
}

/// What became of one request.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When it was due, after the beginning.
    pub due: Duration,
    /// `None`: an error reply, or the connection broke.
    pub took: Option<Duration>,
}

/// One client: what it asks for, and how.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where to.
    pub to: String,
    /// How it speaks.
    pub speech: Speech,
    /// When it asks.
    pub pace: Pace,
    /// Its first key's number.
    pub key: u64,
    /// Different keys.
    pub keys: u64,
    /// Bytes of a value.
    pub value: usize,
}

impl Client {
    /// Writes values on one connection from `begun` on for as long as `until` says. Each failure is a sample, and a
    /// word on stderr; the connection is opened anew.
    ///
    /// # Errors
    /// When it cannot connect.
    pub fn run(mut self, begun: Instant, until: Duration, samples: &mpsc::Sender<Sample>) -> anyhow::Result<()> {
        let mut link = connect(&self.to)?;
        let value = "x".repeat(self.value);
        let mut reply = String::new();
        let mut due = match self.pace {
            Pace::Due { first, .. } => first,
            Pace::Think(time) => time.mul_f64((self.key % 100) as f64 / 100.0),
        };
        while due < until {
            if let Some(early) = due.checked_sub(begun.elapsed()) {
                std::thread::sleep(early);
            }
            self.key = (self.key + 7919) % self.keys;
            let request = self.speech.put(&format!("k{}", self.key), &value);
            reply.clear();
            let answered = link.get_mut().write_all(&request).and_then(|()| link.read_line(&mut reply));
            let good = matches!(answered, Ok(read) if read > 0) && self.speech.is_stored(&reply);
            let took = begun.elapsed().saturating_sub(due);
            if samples.send(Sample { due, took: good.then_some(took) }).is_err() {
                return Ok(());
            }
            if !good {
                eprintln!("{:.1} s: {}", due.as_secs_f64(), if reply.is_empty() { "closed" } else { reply.trim_end() });
                link = connect(&self.to)?;
            }
            due = match self.pace {
                Pace::Due { every, .. } => due + every,
                Pace::Think(time) => begun.elapsed() + time,
            };
        }
        Ok(())
    }
}

/// Runs clients, each in a thread of its own, for so long; what they saw, in the order in which it was due.
///
/// # Errors
/// When one of them cannot connect.
pub fn run(clients: Vec<Client>, until: Duration) -> anyhow::Result<Vec<Sample>> {
    let begun = Instant::now();
    let (sender, samples) = mpsc::channel();
    let threads: Vec<_> = clients
        .into_iter()
        .map(|client| {
            let sender = sender.clone();
            std::thread::spawn(move || client.run(begun, until, &sender))
        })
        .collect();
    drop(sender);
    let mut all: Vec<Sample> = samples.iter().collect();
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a connection's thread ended"))??;
    }
    all.sort_unstable_by_key(|sample| sample.due);
    Ok(all)
}

/// A connection that does not wait for more to send, and not for ever.
///
/// # Errors
/// The system's.
pub fn connect(to: &str) -> std::io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(WAIT))?;
    Ok(BufReader::new(stream))
}

/// Many samples in a few numbers: milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Requests that were answered well.
    pub answered: usize,
    /// The others.
    pub failed: usize,
    /// Half of the answers came within this.
    pub p50: f64,
    /// 99 % of them.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// All of them.
    pub max: f64,
}

impl Summary {
    /// Of these.
    #[must_use]
    pub fn of(samples: &[Sample]) -> Self {
        let mut took: Vec<Duration> = samples.iter().filter_map(|sample| sample.took).collect();
        took.sort_unstable();
        let at = |part: f64| {
            let index = ((took.len() as f64 * part).ceil() as usize).clamp(1, took.len().max(1)) - 1;
            took.get(index).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
        };
        Self {
            answered: took.len(),
            failed: samples.len() - took.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        }
    }

    /// What the columns of its line are.
    #[must_use]
    pub fn heading() -> String {
        format!(
            "{:>9} {:>7} {:>10} {:>10} {:>10} {:>10}",
            "answered", "failed", "p50 ms", "p99 ms", "p99.9 ms", "max ms"
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answered, failed, p50, p99, p999, max } = self;
        write!(f, "{answered:>9} {failed:>7} {p50:>10.2} {p99:>10.2} {p999:>10.2} {max:>10.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_the_smallest_time_that_enough_answers_keep() {
        let sample = |took| Sample { due: Duration::ZERO, took };
        let mut samples: Vec<Sample> = (1..=1000).map(|ms| sample(Some(Duration::from_millis(ms)))).collect();
        samples.push(sample(None));
        let all = Summary::of(&samples);
        assert_eq!((all.answered, all.failed), (1000, 1));
        assert_eq!([all.p50, all.p99, all.p999, all.max], [500.0, 990.0, 999.0, 1000.0]);
        assert!(Summary::of(&[]).p99.is_nan());
    }
}
