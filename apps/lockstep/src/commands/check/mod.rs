//! `lockstep check`: is this installation healthy? A line for each check, and a hint for each that fails.

mod certificates;
mod cluster;
mod line;
mod pre;
mod service;

use super::status::Known;
use crate::exit::{Exit, Failure};
use crate::parts::addresses::{quic_address, tcp_address};
use crate::up::output::Format;
use crate::up::state::State;
use line::{Check, Verdict};
use mesh::node::human;
use serde_json::{Value, json};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// With --wait: between two rounds of checks.
const AGAIN: Duration = Duration::from_secs(1);

/// Settings of the check.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Check this machine before anything is installed: ports, UDP buffers, open files, names, the disk of --data-dir
    #[arg(long)]
    pre: bool,
    /// Certificates to check: a directory with ROLE/ID in it, or one with tls.crt; pki where nothing else is given
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,
    /// The cluster that they must be of; without it, that of the authority or of the first certificate
    #[arg(long, value_name = "NAME", value_parser = crate::parts::common::cluster_name)]
    cluster: Option<String>,
    /// Trusted certificate authorities, instead of ca.crt beside each certificate
    #[arg(long, value_name = "FILE")]
    trust_bundle: Option<PathBuf>,
    /// Revocation lists; crl.pem in --pki where this is not given
    #[arg(long, value_name = "FILE")]
    crl: Option<PathBuf>,
    /// Admin addresses of parts to check
    #[arg(long, value_name = "ADDR", value_delimiter = ',', num_args = 1.., conflicts_with = "pre")]
    admin: Vec<String>,
    /// Data directory of a running `up`: its certificates and its parts. With --pre: where the journal will be
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// With --pre: the UDP address that a part will have
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:7500", value_parser = quic_address)]
    quic: SocketAddr,
    /// With --pre: the TCP address that clients will come to
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:7000", value_parser = tcp_address)]
    listen: SocketAddr,
    /// With --pre: addresses of the other parts, whose names must resolve here
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    seeds: Vec<String>,
    /// Check again until everything is healthy, for so long at most
    #[arg(long, value_name = "DURATION", value_parser = human::parse_positive_duration)]
    wait: Option<Duration>,
    /// How to print it
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// Prints all checks; fails when one does.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let end = args.wait.map(|wait| Instant::now() + wait);
    let checks = loop {
        let plan = Plan::of(&args);
        let waits = end.is_some_and(|end| Instant::now() < end);
        match plan {
            // An `up` that is still to come.
            Err(failure) if waits && failure.exit() == Exit::Unhealthy => {}
            Err(failure) => return Err(failure),
            Ok(plan) => {
                let checks = plan.checks(&args).await;
                if !waits || checks.iter().all(Check::is_good) {
                    break checks;
                }
            }
        }
        sleep(AGAIN).await;
    };
    let text = match args.output {
        Format::Text => line::text(&checks),
        Format::Json => {
            let shown: Vec<Value> = checks.iter().map(Check::show).collect();
            format!("{}\n", json!({ "healthy": checks.iter().all(Check::is_good), "checks": shown }))
        }
    };
    // A closed stdout leaves the exit code.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let failed = checks.iter().filter(|check| !check.is_good()).count();
    let exit = match checks.iter().map(|check| check.state).max() {
        None | Some(Verdict::Ok) => return Ok(()),
        Some(Verdict::Unhealthy) => Exit::Unhealthy,
        Some(Verdict::Invalid) => Exit::Invalid,
    };
    Err(Failure::new(exit, format!("{failed} of {} checks failed", checks.len())))
}

/// The checks on these parts, for programs.
pub(crate) async fn of_parts(admins: &[String]) -> Vec<Value> {
    service::check(&Known::all(admins)).await.iter().map(Check::show).collect()
}

/// What is checked.
struct Plan {
    pki: Option<PathBuf>,
    parts: Vec<Known>,
}

impl Plan {
    fn of(args: &Args) -> Result<Self, Failure> {
        let mut plan = Self { pki: args.pki.clone(), parts: Known::all(&args.admin) };
        if let Some(dir) = args.data_dir.as_ref().filter(|_| !args.pre) {
            let state = State::of_running(dir)?;
            plan.parts.extend(state.parts.iter().map(Known::of));
            plan.pki.get_or_insert(state.pki);
        }
        if plan.pki.is_none() && plan.parts.is_empty() {
            // Before an installation there need be none.
            plan.pki = Some(PathBuf::from("pki")).filter(|pki| !args.pre || pki.is_dir());
        }
        match &plan.pki {
            Some(pki) if !pki.is_dir() => Err(Failure::new(
                Exit::Usage,
                format!(
                    "what is to be checked? There is no directory {}: give --pki, --admin or --data-dir",
                    pki.display()
                ),
            )),
            _ => Ok(plan),
        }
    }

    async fn checks(&self, args: &Args) -> Vec<Check> {
        let mut checks = Vec::new();
        if let Some(pki) = &self.pki {
            checks.extend(certificates::check(pki, args));
        }
        if args.pre {
            checks.extend(pre::check(args).await);
        }
        checks.extend(service::check(&self.parts).await);
        checks
    }
}
