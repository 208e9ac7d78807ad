//! `lockstep check`: is this installation healthy? A line for each check, and a hint for each that fails.

mod certificates;
mod service;

use crate::exit::{Exit, Failure};
use crate::up::output::Format;
use crate::up::state::State;
use mesh::node::human;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// With --wait: between two rounds of checks.
const AGAIN: Duration = Duration::from_secs(1);

/// Settings of the check.
///
/// Exit codes: 0 healthy, 4 a certificate is invalid, expired or not trusted, 5 not healthy or about to expire.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
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
    #[arg(long, value_name = "ADDR", value_delimiter = ',', num_args = 1..)]
    admin: Vec<String>,
    /// Data directory of a running `up`: its certificates and its parts
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Check again until everything is healthy, for so long at most
    #[arg(long, value_name = "DURATION", value_parser = human::parse_positive_duration)]
    wait: Option<Duration>,
    /// How to print it
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// How one check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// As it should be.
    Ok,
    /// Not healthy, or not for much longer.
    Unhealthy,
    /// A certificate that is refused.
    Invalid,
}

/// One check.
#[derive(Clone, Debug)]
struct Check {
    name: String,
    state: Verdict,
    /// One word for programs.
    label: String,
    /// What was found.
    text: String,
    /// What to do about it.
    hint: Option<String>,
}

impl Check {
    fn show(&self) -> Value {
        json!({ "name": self.name, "ok": self.state == Verdict::Ok, "label": self.label, "text": self.text, "hint": self.hint })
    }

    fn line(&self) -> String {
        let word = if self.state == Verdict::Ok { "ok    " } else { "FAILED" };
        let hint = self.hint.as_ref().map(|hint| format!("\n       hint: {hint}")).unwrap_or_default();
        format!("{word} {}: {}{hint}\n", self.name, self.text)
    }
}

/// Prints all checks; fails when one does.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let plan = Plan::of(&args)?;
    let end = args.wait.map(|wait| Instant::now() + wait);
    let checks = loop {
        let checks = plan.checks(&args).await;
        let healthy = checks.iter().all(|check| check.state == Verdict::Ok);
        match end {
            Some(end) if !healthy && Instant::now() < end => sleep(AGAIN).await,
            _ => break checks,
        }
    };
    let text = match args.output {
        Format::Text => checks.iter().map(Check::line).collect(),
        Format::Json => {
            let healthy = checks.iter().all(|check| check.state == Verdict::Ok);
            let shown: Vec<Value> = checks.iter().map(Check::show).collect();
            format!("{}\n", json!({ "healthy": healthy, "checks": shown }))
        }
    };
    // A closed stdout leaves the exit code.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let failed = checks.iter().filter(|check| check.state != Verdict::Ok).count();
    match checks.iter().map(|check| check.state).max() {
        None | Some(Verdict::Ok) => Ok(()),
        Some(Verdict::Unhealthy) => {
            Err(Failure::new(Exit::Unhealthy, format!("{failed} of {} checks failed", checks.len())))
        }
        Some(Verdict::Invalid) => {
            Err(Failure::new(Exit::Invalid, format!("{failed} of {} checks failed", checks.len())))
        }
    }
}

/// What is checked.
struct Plan {
    pki: Option<PathBuf>,
    admins: Vec<String>,
}

impl Plan {
    fn of(args: &Args) -> Result<Self, Failure> {
        let mut plan = Self { pki: args.pki.clone(), admins: args.admin.clone() };
        if let Some(dir) = &args.data_dir {
            let state = State::of_running(dir)?;
            plan.admins.extend(state.parts.iter().map(|part| part.admin.to_string()));
            plan.pki.get_or_insert(state.pki);
        }
        if plan.pki.is_none() && plan.admins.is_empty() {
            plan.pki = Some(PathBuf::from("pki"));
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
        checks.extend(service::check(&self.admins).await);
        checks
    }
}
