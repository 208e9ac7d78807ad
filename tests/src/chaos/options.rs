//! What a run is: what was asked for on the command line, and what its seed draws.

use super::clients::Mix;
use mesh::rng::Rng;
use std::path::PathBuf;
use std::time::Duration;

/// Harms real clusters while real clients use them, and judges what the clients saw.
#[derive(Clone, Debug, clap::Parser)]
#[command(version)]
pub struct Options {
    /// Runs, one after the other, each with its seed: which calls are made and what is harmed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// The first run's seed
    #[arg(long, default_value_t = 1)]
    pub first_seed: u64,
    /// How long a run's clients call
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Servers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub replicas: u64,
    /// SMaRtClients, of which one is always left alone
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub smart_clients: u64,
    /// Clients, a connection each
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub clients: u32,
    /// The ingress' deadline in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub deadline: u64,
    /// Seconds between two faults
    #[arg(long, default_value = "2s", value_parser = mesh_duration)]
    pub every: Duration,
    /// Each part in a network namespace of its own, and faults of the network (needs root, ip and iptables)
    #[arg(long)]
    pub network: bool,
    /// Requests and replies are signed
    #[arg(long)]
    pub signatures: bool,
    /// The program under test
    #[arg(long, default_value = "target/release/lockstep")]
    pub lockstep: PathBuf,
    /// Where histories, data and logs of failed runs are kept
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub keep: PathBuf,
    /// Run nothing: judge a history that was kept
    #[arg(long, value_name = "FILE")]
    pub check: Option<PathBuf>,
}

impl Options {
    /// Flags of servers, of an ingress and of `up`.
    pub(super) fn signing(&self) -> &'static [&'static str] {
        if self.signatures { &["--request-signatures=required", "--reply-signatures=required"] } else { &[] }
    }
}

/// What a seed draws.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    /// The calls.
    pub(super) mix: Mix,
    /// Flags of `up` and of servers: how often snapshots are taken, how much of the log is kept.
    pub(super) recovery: Vec<String>,
}

impl Setup {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let mix = Mix::draw(rng);
        let recovery = match rng.below(3) {
            // As it ships: a run of a minute takes one snapshot, if any.
            0 => Vec::new(),
            _ => {
                let (every, tail) = (rng.between(500, 20_000), rng.between(1, 500));
                let flags = [("--snapshot-every-requests", every), ("--log-tail-slots", tail)];
                flags.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.to_string()]).collect()
            }
        };
        Self { mix, recovery }
    }
}

/// "2s", "500ms".
fn mesh_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| "a number and a unit, like 2s or 500ms".to_owned())?;
    match unit {
        "ms" if number > 0 => Ok(Duration::from_millis(number)),
        "s" if number > 0 => Ok(Duration::from_secs(number)),
        _ => Err("a number and a unit, like 2s or 500ms".to_owned()),
    }
}
