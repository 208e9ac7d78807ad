//! Settings that several commands have.

use crate::generator::{Mix, Spec};
use crate::wire::{KEYS_MAX, Protocol};
use mesh::node::human;
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes of a value at most: with what is around it less than the highest bound that requests may have.
const VALUE_MAX: i64 = 8 << 20;

/// How output looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// What is asked for, how often and by how many.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Shape {
    /// Clients, each with one connection at a time
    #[arg(long, value_name = "C", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) clients: u32,
    /// Requests a second over all clients, whatever the service answers (open loop): latencies count from when a request
    /// was due. Without it each client asks again when it was answered (closed loop)
    #[arg(long, value_name = "R", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// A connection for each request
    #[arg(long)]
    pub(crate) connect_per_request: bool,
    /// Requests in flight on each connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) pipeline: u32,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=VALUE_MAX))]
    pub(crate) value_bytes: u32,
    /// The part of the requests that read, from 0 to 1; the others write
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(crate) read_share: f64,
    /// Different keys
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=KEYS_MAX))]
    pub(crate) keys: u64,
    /// How much some keys are preferred: the exponent of Zipf's law; 0: all keys alike
    #[arg(long, value_name = "S", default_value_t = 0.0, value_parser = skew)]
    pub(crate) skew: f64,
    /// How long it is measured, in seconds
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Seconds before that which are not measured
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = warmup)]
    pub(crate) warmup: f64,
}

impl Shape {
    /// The load.
    pub(crate) fn spec(&self, to: Vec<SocketAddr>, protocol: Protocol) -> Spec {
        let mix = Mix::reads(self.read_share);
        Spec {
            to,
            protocol,
            clients: self.clients as usize,
            pipeline: self.pipeline as usize,
            rate: self.rate,
            per_request: self.connect_per_request || protocol == Protocol::Close,
            value_bytes: self.value_bytes as usize,
            mix,
            keys: self.keys,
            skew: self.skew,
            fill: mix.has_reads(),
            warmup: Duration::from_secs_f64(self.warmup),
            time: Duration::from_secs_f64(self.seconds),
            samples: false,
        }
    }
}

fn number(text: &str, good: impl Fn(f64) -> bool, what: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number| good(*number)).ok_or_else(|| format!("give {what}"))
}

fn rate(text: &str) -> Result<f64, String> {
    number(text, |rate| (0.01..=10_000_000.0).contains(&rate), "requests a second, such as 5000")
}

fn share(text: &str) -> Result<f64, String> {
    number(text, |share| (0.0..=1.0).contains(&share), "a number from 0 to 1, such as 0.9")
}

fn skew(text: &str) -> Result<f64, String> {
    number(text, |skew| (0.0..=5.0).contains(&skew), "a number from 0 to 5, such as 0.99")
}

/// A time that is measured.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    number(text, |seconds| (0.1..=1e6).contains(&seconds), "seconds, at least 0.1, such as 10")
}

/// A time that is not.
pub(crate) fn warmup(text: &str) -> Result<f64, String> {
    number(text, |seconds| (0.0..=1e6).contains(&seconds), "seconds, such as 3 or 0")
}

/// A time as 90s or 2h.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    human::parse_positive_duration(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        shape: Shape,
    }

    fn read(words: &[&str]) -> Result<Shape, clap::Error> {
        Line::try_parse_from([&["bench"], words].concat()).map(|line| line.shape)
    }

    #[test]
    fn bad_numbers_are_refused_with_a_word_on_what_is_good() {
        for words in
            [["--rate", "0"], ["--read-share", "1.5"], ["--skew", "-1"], ["--seconds", "0"], ["--clients", "0"]]
        {
            assert!(read(&words).is_err(), "{words:?}");
        }
        let error = read(&["--read-share", "half"]).expect_err("no number").to_string();
        assert!(error.contains("from 0 to 1"), "{error}");
    }

    #[test]
    fn keys_that_are_read_are_written_first() {
        let spec = |words: &[&str]| read(words).expect("good settings").spec(Vec::new(), Protocol::Resp);
        assert!(spec(&["--read-share", "0.5"]).fill && !spec(&[]).fill);
        let close = read(&[]).expect("good settings").spec(Vec::new(), Protocol::Close);
        assert!(close.per_request, "the protocol has it so");
    }
}
