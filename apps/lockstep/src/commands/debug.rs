//! `lockstep debug`: everything that somebody needs who is to help, in one file; without secrets and without payloads.

use crate::commands::check;
use crate::exit::{Exit, Failure};
use crate::http;
use crate::up::state::State;
use anyhow::Context;
use mesh::node::version;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What is kept of the end of each log.
const LOG_BYTES: u64 = 256 << 10;
/// The paths of an admin port whose answers are JSON, and those whose answers are text.
const DOCUMENTS: [&str; 3] = ["/status", "/config", "/version"];
const TEXTS: [&str; 5] = ["/readyz?verbose", "/livez?verbose", "/startupz?verbose", "/log-level", "/metrics"];

/// Settings of `debug`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Admin addresses of the parts
    #[arg(long, value_name = "ADDR", value_delimiter = ',', num_args = 1..)]
    admin: Vec<String>,
    /// Data directory of a running `up`: its parts, and the ends of their logs
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The file to write; must not be there yet. Without it lockstep-debug-TIME.json in this directory
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Writes the file, and says what could not be fetched.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut missing = Vec::new();
    let mut parts = Vec::new();
    for admin in &args.admin {
        parts.push(part(admin, None, &mut missing).await);
    }
    let mut up = Value::Null;
    if let Some(dir) = &args.data_dir {
        let state = State::of_running(dir)?;
        for known in &state.parts {
            let log = dir.join("logs").join(format!("{}-{}.log", known.role.as_str(), known.id));
            parts.push(part(&known.admin.to_string(), Some(&log), &mut missing).await);
        }
        up = json!({ "cluster": state.cluster, "listen": state.listen, "pki": state.pki });
    }
    if parts.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            "of what? give --data-dir of a running `lockstep up`, or --admin addresses",
        ));
    }
    if args.data_dir.is_none() {
        missing.push("logs: they are where the parts write their stderr (`kubectl logs`, journalctl)".to_owned());
    }
    let admins = parts.iter().filter_map(|part| part["admin"].as_str()).map(str::to_owned).collect::<Vec<_>>();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let document = json!({
        "lockstep": version().to_string(),
        "unix_seconds": now,
        "machine": machine(),
        "up": up,
        "check": check::of_parts(&admins).await,
        "parts": parts,
        "missing": missing,
    });
    let path = args.file.clone().unwrap_or_else(|| PathBuf::from(format!("lockstep-debug-{now}.json")));
    write(&path, &document)?;
    for line in &missing {
        let _ = writeln!(std::io::stderr(), "not fetched: {line}");
    }
    let _ = writeln!(std::io::stdout(), "{}", path.display());
    Ok(())
}

/// What one part says of itself.
async fn part(admin: &str, log: Option<&Path>, missing: &mut Vec<String>) -> Value {
    let mut said = Map::new();
    said.insert("admin".to_owned(), json!(admin));
    for path in DOCUMENTS.iter().chain(&TEXTS) {
        let answer = http::get(admin, path).await.and_then(|(_, body)| {
            if DOCUMENTS.contains(path) {
                Ok(serde_json::from_slice(&body)?)
            } else {
                Ok(json!(String::from_utf8_lossy(&body)))
            }
        });
        match answer {
            Ok(answer) => drop(said.insert((*path).to_owned(), answer)),
            Err(error) => missing.push(format!("{admin}{path}: {error:#}")),
        }
    }
    if let Some(log) = log {
        match end_of(log) {
            Ok(text) => drop(said.insert("log".to_owned(), json!(text))),
            Err(error) => missing.push(format!("{}: {error}", log.display())),
        }
    }
    Value::Object(said)
}

/// The last whole lines of a log.
fn end_of(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let whole = if length > LOG_BYTES { text.split_once('\n').map(|(_, rest)| rest.to_owned()) } else { None };
    Ok(whole.unwrap_or(text))
}

/// The machine that this runs on.
fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "load": read("/proc/loadavg"),
        "pressure": read("/proc/pressure/io"),
        "memory": read("/proc/meminfo").map(|text| text.lines().take(3).collect::<Vec<_>>().join("; ")),
        "rmem_max": read("/proc/sys/net/core/rmem_max"),
        "cpus": std::thread::available_parallelism().ok().map(usize::from),
    })
}

/// Readable by its owner only: addresses and names are nobody else's business.
fn write(path: &Path, document: &Value) -> Result<(), Failure> {
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = opened.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::new(Exit::Refused, format!("{} is there already", path.display()))
        }
        _ => Failure::new(Exit::Failed, format!("cannot write {}: {error}", path.display())),
    })?;
    let text = serde_json::to_vec_pretty(document).context("the document is no JSON")?;
    file.write_all(&text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_fetched_is_named_and_nothing_is_overwritten() {
        let dir = std::env::temp_dir().join(format!("lockstep-debug-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the temporary directory can be written");
        let file = dir.join("bundle.json");
        let args = Args { admin: vec!["127.0.0.1:9".to_owned()], data_dir: None, file: Some(file.clone()) };
        run(args.clone()).await.expect("a bundle without answers is one");
        let written: Value = serde_json::from_slice(&std::fs::read(&file).expect("it was written")).expect("JSON");
        let missing = written["missing"].to_string();
        assert!(missing.contains("127.0.0.1:9/status") && missing.contains("kubectl logs"), "{missing}");
        assert!(written["check"].to_string().contains("unreachable"), "{written}");
        assert_eq!(run(args).await.expect_err("it is there").exit(), Exit::Refused);
        let log = dir.join("long.log");
        std::fs::write(&log, "line\n".repeat(LOG_BYTES as usize)).expect("the directory can be written");
        let end = end_of(&log).expect("it is there");
        assert!(end.starts_with("line\n") && end.len() as u64 <= LOG_BYTES, "{}", end.len());
        std::fs::remove_dir_all(&dir).expect("it is ours");
    }
}
