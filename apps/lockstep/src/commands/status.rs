//! `lockstep status`: asks every part that is known and judges whether the whole is healthy.

use super::status_table;
use crate::exit::{Exit, Failure};
use crate::http;
use crate::up::output::Format;
use crate::up::state::{PartState, Role, State};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};

/// Settings of the status.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Admin addresses to ask, each address of a name; without this and --data-dir the one of a sidecar on this host
    #[arg(long, value_name = "ADDR", value_delimiter = ',', num_args = 1..)]
    admin: Vec<String>,
    /// Data directory of a running `up`
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// A part that is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// What it is, where that is known before it answers.
    role: Option<(Role, String)>,
    admin: String,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Sidecars.
    pub(crate) replicas: Vec<Value>,
    /// SMaRtClients.
    pub(crate) smart_clients: Vec<Value>,
    /// Ingresses.
    pub(crate) ingresses: Vec<Value>,
    /// Those that did not answer, and of which only the address is known.
    pub(crate) unknown: Vec<Value>,
    /// The clocks of those that answered.
    pub(super) clocks: Vec<Clock>,
}

/// How a part's clock goes, seen from here.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    /// Whose it is.
    pub(super) who: String,
    /// Milliseconds that it is ahead of ours.
    pub(super) ahead: i64,
    /// By how much that may be wrong: half of the time that the question took.
    pub(super) doubt: i64,
}

impl Clock {
    /// By an answer that has the part's time, asked for between these times of ours.
    fn read(status: &Value, asked: i64, answered: i64) -> Option<Self> {
        let theirs = status["unix_ms"].as_i64()?;
        let who = format!("{} {}", plain(&status["kind"]), plain(&status["id"]));
        let doubt = (answered - asked).max(0) / 2 + 1;
        Some(Self { who, ahead: theirs - (asked + doubt), doubt })
    }
}

fn unix_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Prints the status; fails when it is not healthy.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let known = known(&args.admin, args.data_dir.as_deref())?;
    let found = ask(&known).await;
    let problems = found.problems();
    let text = match args.output {
        Format::Json => format!("{}\n", found.document(&problems)),
        Format::Text => status_table::render(&found, &problems),
    };
    // A closed stdout leaves the exit code.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if problems.is_empty() {
        Ok(())
    } else {
        let count = problems.len();
        Err(Failure::new(
            Exit::Unhealthy,
            format!("not healthy: {}", if count == 1 { problems[0].clone() } else { format!("{count} problems") }),
        ))
    }
}

/// The admin addresses of all parts that these flags name.
pub(super) fn admins(admin: &[String], data_dir: Option<&Path>) -> Result<Vec<String>, Failure> {
    Ok(known(admin, data_dir)?.into_iter().map(|known| known.admin).collect())
}

fn known(admin: &[String], data_dir: Option<&Path>) -> Result<Vec<Known>, Failure> {
    let mut known = Known::all(admin);
    if let Some(dir) = data_dir {
        let state = State::of_running(dir)?;
        known.extend(state.parts.iter().map(Known::of));
    }
    if known.is_empty() {
        known.push(Known { role: Some((Role::Sidecar, String::new())), admin: with_port("127.0.0.1") });
    }
    Ok(known)
}

/// A name that has several addresses stands for all of them: that of a headless Service is of every pod behind it.
fn expanded(admin: &str) -> Vec<String> {
    let admin = with_port(admin);
    let found = admin.to_socket_addrs().map(BTreeSet::from_iter).unwrap_or_default();
    // This host has two addresses by itself.
    if found.len() < 2 || found.iter().all(|address| address.ip().is_loopback()) {
        return vec![admin];
    }
    found.iter().map(ToString::to_string).collect()
}

/// HOST:PORT, with the usual admin port where none is given.
fn with_port(address: &str) -> String {
    let has_port = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| port.parse::<u16>().is_ok() && (!host.contains(':') || host.starts_with('[')));
    if has_port { address.to_owned() } else { format!("{address}:9400") }
}

/// The status of every one of these parts.
pub(super) async fn ask(known: &[Known]) -> Found {
    let mut answers = tokio::task::JoinSet::new();
    for (index, part) in known.iter().enumerate() {
        let admin = part.admin.clone();
        answers.spawn(async move {
            let asked = unix_ms();
            let answer = http::get_json(&admin, "/status").await;
            let clock = answer.as_ref().ok().and_then(|status| Clock::read(status, asked, unix_ms()));
            (index, answer, clock)
        });
    }
    let mut all: Vec<(usize, anyhow::Result<Value>, Option<Clock>)> = Vec::new();
    while let Some(answer) = answers.join_next().await {
        // A task that ended without an answer is one that did not answer.
        all.extend(answer.ok());
    }
    all.sort_by_key(|(index, ..)| *index);
    let mut found = Found::default();
    for (index, answer, clock) in all {
        found.add(&known[index], answer);
        found.clocks.extend(clock);
    }
    found
}

impl Known {
    /// A part of a running `up`.
    pub(super) fn of(part: &PartState) -> Self {
        Self { role: Some((part.role, part.id.to_string())), admin: part.admin.to_string() }
    }

    /// What listens at these, each address of a name.
    pub(super) fn all(admins: &[String]) -> Vec<Self> {
        admins.iter().flat_map(|admin| expanded(admin)).map(|admin| Self::at(&admin)).collect()
    }

    /// What listens there, whatever it is.
    pub(super) fn at(admin: &str) -> Self {
        Self { role: None, admin: with_port(admin) }
    }
}

impl Found {
    /// Every part that was asked.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Value> {
        [&self.replicas, &self.smart_clients, &self.ingresses, &self.unknown].into_iter().flatten()
    }

    pub(super) fn add(&mut self, part: &Known, answer: anyhow::Result<Value>) {
        let expected = part.role.as_ref();
        let (kind, value) = match answer {
            Ok(mut status) => {
                let kind = status["kind"].as_str().map(ToOwned::to_owned);
                if let Value::Object(fields) = &mut status {
                    fields.insert("admin".to_owned(), json!(part.admin));
                }
                (kind, status)
            }
            Err(error) => {
                let id = expected.map_or(Value::Null, |(role, id)| match role {
                    Role::Sidecar => id.parse::<u32>().map_or(Value::Null, Value::from),
                    Role::SmartClient | Role::Ingress => json!(id),
                });
                let kind = expected.map(|(role, _)| role.as_str().to_owned());
                (kind, json!({ "id": id, "admin": part.admin, "error": format!("{error:#}") }))
            }
        };
        match kind.as_deref() {
            Some("sidecar") => self.replicas.push(value),
            Some("smart-client") => self.smart_clients.push(value),
            Some("ingress") => self.ingresses.push(value),
            _ => self.unknown.push(value),
        }
    }

    fn document(&self, problems: &[String]) -> Value {
        let mut document = json!({
            "replicas": self.replicas,
            "smart_clients": self.smart_clients,
            "ingresses": self.ingresses,
            "healthy": problems.is_empty(),
            "problems": problems,
            "hints": self.hints(),
        });
        if !self.unknown.is_empty() {
            document["unknown"] = json!(self.unknown);
        }
        document
    }

    /// What the replicas say that can be done, a line each.
    pub(crate) fn hints(&self) -> Vec<String> {
        let of = |replica: &Value| -> Vec<String> {
            let hints = replica["hints"].as_array().into_iter().flatten().filter_map(Value::as_str);
            hints.map(|hint| format!("replica {}: {hint}", plain(&replica["id"]))).collect()
        };
        self.replicas.iter().flat_map(of).collect()
    }

    /// Everything that keeps this from being healthy, a line each.
    pub(super) fn problems(&self) -> Vec<String> {
        let all = [
            ("replica", &self.replicas),
            ("SMaRtClient", &self.smart_clients),
            ("ingress", &self.ingresses),
            ("part", &self.unknown),
        ];
        let mut problems = Vec::new();
        for (what, list) in all {
            for part in list {
                let who = format!("{what} {} at {}", plain(&part["id"]), plain(&part["admin"]));
                if let Some(error) = part["error"].as_str() {
                    problems.push(format!("{who} cannot be reached: {error}"));
                } else if what == "part" {
                    problems.push(format!("{who} says that it is \"{}\"", plain(&part["kind"])));
                } else if what == "SMaRtClient" && part["quorum"].as_bool() == Some(false) {
                    problems.push(format!("{who} does not reach a majority of the replicas"));
                } else if what == "replica" {
                    problems.extend(replica_problems(part).into_iter().map(|problem| format!("{who} {problem}")));
                }
            }
        }
        let leaders = |replica: &&Value| replica["role"].as_str() == Some("leader");
        let answering = self.replicas.iter().filter(|replica| replica["error"].is_null()).count();
        if answering > 1 && self.replicas.iter().filter(leaders).count() == 0 {
            problems.push("no replica that answers is the leader".to_owned());
        }
        problems
    }
}

fn replica_problems(replica: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let role = replica["role"].as_str().unwrap_or("unknown");
    if !["leader", "follower", "candidate", "witness"].contains(&role) {
        problems.push(format!("is {role}"));
    }
    if replica["leader"].is_null() {
        problems.push("knows no leader".to_owned());
    }
    let app = replica["app"].as_str().unwrap_or("unknown");
    if !matches!(app, "running" | "none") {
        problems.push(format!("has its application {app}"));
    }
    if let Some(at) = replica["silent"].as_str() {
        problems.push(format!("waits for the outcome of request {at}, which its application does not answer"));
    }
    let log = replica["log_bytes"].as_u64().zip(replica["log_max_bytes"].as_u64());
    if let Some((bytes, most)) = log
        && bytes >= most / 2
    {
        problems.push(format!("has {bytes} of {most} bytes of its log used: at the whole new requests are refused"));
    }
    match replica["divergences"].as_u64() {
        Some(0) | None => {}
        Some(count) => problems.push(format!("counted {count} divergences: is the application deterministic?")),
    }
    problems
}

/// A JSON value as a word.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "?".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
