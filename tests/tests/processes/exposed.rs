//! What programs read of running parts: every path of the admin port, every metric, the shape of the status. All of it
//! is a contract with dashboards, probes and scripts.

use super::binary::lockstep;
use super::hashmap::netcat;
use super::up::{Process, Up};
use lockstep_tests::driver::http;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The metrics of all parts.
const ALL: [&str; 13] = [
    "quic_rtt_seconds_count",
    "quic_lost_packets_total",
    "quic_streams_total{direction,kind}",
    "links_refused_total{reason}",
    "tls_certificate_expiry_timestamp_seconds",
    "tls_reloads_total{result}",
    "signature_failures_total{who}",
    "build_info{version,commit}",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "quic_rtt_seconds_bucket{le}",
    "quic_oversized_messages_total{kind}",
];
/// Those of a sidecar.
const SIDECAR: [&str; 29] = [
    "has_leader",
    "is_leader",
    "ballot",
    "leader_changes_total",
    "slots_decided_total",
    "slots_executed_total",
    "proposals_pending",
    "batch_requests_count",
    "journal_sync_seconds_count",
    "log_bytes",
    "journal_bytes",
    "disk_free_bytes",
    "execute_seconds_count",
    "reply_cache_hits_total",
    "sessions",
    "snapshot_seconds_count",
    "snapshot_age_seconds",
    "state_transfer_bytes_total",
    "app_up",
    "app_resets_total",
    "divergences_total",
    "aborted_requests_total",
    "members{kind}",
    "drain_state",
    "peer_rtt_seconds{peer}",
    "peer_sent_messages_total{peer,kind}",
    "peer_dropped_messages_total{peer}",
    "rejected_total{reason}",
    "malformed_total{reason}",
];
/// Those of a SMaRtClient.
const SMART_CLIENT: [&str; 5] = [
    "requests_total{result}",
    "request_seconds_count",
    "vote_disagreements_total{replica}",
    "resends_total",
    "resends_withheld_total",
];
/// Those of an ingress.
const INGRESS: [&str; 7] = [
    "tcp_connections",
    "tcp_accepts_total",
    "requests_total{result}",
    "request_seconds_count",
    "resends_total",
    "endpoints{state}",
    "refused_total{reason}",
];
/// Values that labels have from the beginning, so that alerts find them before anything happened.
const VALUES: [&str; 15] = [
    "requests_total{result=\"ok\"}",
    "requests_total{result=\"refused\"}",
    "requests_total{result=\"unknown\"}",
    "endpoints{state=\"ready\"}",
    "endpoints{state=\"ejected\"}",
    "links_refused_total{reason=\"unknown_ca\"}",
    "links_refused_total{reason=\"expired\"}",
    "links_refused_total{reason=\"not_yet_valid\"}",
    "links_refused_total{reason=\"revoked\"}",
    "links_refused_total{reason=\"wrong_role\"}",
    "links_refused_total{reason=\"wrong_cluster\"}",
    "links_refused_total{reason=\"wrong_id\"}",
    "links_refused_total{reason=\"version\"}",
    "tls_reloads_total{result=\"ok\"}",
    "tls_reloads_total{result=\"failed\"}",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn scrape(part: &Process) -> String {
    let (code, text) = http::get(&part.admin, "/metrics").unwrap();
    assert_eq!(code, 200, "{text}");
    text
}

/// Whether a scrape has a sample of this name with these labels, written as `name{label,label}`.
fn has(scrape: &str, wanted: &str) -> bool {
    let (name, labels) = wanted.split_once('{').unwrap_or((wanted, "}"));
    let labels: Vec<&str> = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect();
    scrape.lines().any(|line| {
        let Some(rest) = line.strip_prefix("lockstep_").and_then(|line| line.strip_prefix(name)) else { return false };
        let shown = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(labels, _)| labels);
        match shown {
            Some(shown) => labels.iter().all(|label| shown.contains(&format!("{label}=\""))),
            None => labels.is_empty() && rest.starts_with(' '),
        }
    })
}

fn metrics(up: &Up) {
    let mut together = String::new();
    for (role, own) in [("sidecar", &SIDECAR[..]), ("smart-client", &SMART_CLIENT), ("ingress", &INGRESS)] {
        for part in up.role(role) {
            let text = scrape(&part);
            for name in ALL.iter().chain(own) {
                assert!(has(&text, name), "{role} {} has no {name}:\n{text}", part.id);
            }
            assert!(
                text.lines()
                    .all(|line| line.starts_with('#') || line.starts_with("lockstep_") || line.starts_with("process_"))
            );
            together.push_str(&text);
        }
    }
    for value in VALUES {
        assert!(together.contains(&format!("lockstep_{value} ")), "no {value} before anything happened:\n{together}");
    }
    rules(&together);
    dashboard(&together);
}

/// Every metric that a text names is one of those that were scraped.
fn names_exist(what: &str, text: &str, scraped: &str) -> usize {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let names: BTreeSet<&str> = text.split(word).filter(|name| name.starts_with("lockstep_")).collect();
    for name in &names {
        let sample = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        assert!(scraped.lines().any(sample), "{what} names {name}, which no part has");
    }
    names.len()
}

fn rules(scraped: &str) {
    let text = std::fs::read_to_string(root().join("helm/lockstep/files/alerts.yaml")).unwrap();
    assert!(names_exist("alerts.yaml", &text, scraped) > 15);
    let rules: Vec<&str> = text.split("      - alert: ").skip(1).collect();
    assert!(rules.len() > 15, "{} rules", rules.len());
    for rule in rules {
        for field in ["        expr: ", "        labels: { severity: ", "          summary: \"", "          action: \""]
        {
            assert!(rule.contains(field), "{field} is missing in {rule}");
        }
        // A label's value that nobody has would never fire.
        let expression = rule.split("        expr: ").nth(1).unwrap().lines().next().unwrap();
        for selector in expression.split("{").skip(1).filter_map(|rest| rest.split_once('}')).map(|(labels, _)| labels)
        {
            assert!(scraped.contains(&format!("{{{selector}}}")), "no part has {{{selector}}}: {expression}");
        }
    }
}

fn dashboard(scraped: &str) {
    let text = std::fs::read_to_string(root().join("helm/lockstep/files/dashboard.json")).unwrap();
    let board: Value = serde_json::from_str(&text).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let mut shown = String::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && panel["title"].is_string(), "{panel}");
        for target in targets {
            shown.push_str(target["expr"].as_str().unwrap());
            shown.push('\n');
        }
    }
    assert!(names_exist("dashboard.json", &shown, scraped) > 30);
    // Nothing of the contract is left out of the picture.
    for name in SIDECAR.iter().chain(&SMART_CLIENT).chain(&INGRESS).chain(&ALL[..8]) {
        let name = name.split('{').next().unwrap().trim_end_matches("_count");
        let left_out = ["resends_withheld_total", "malformed_total"].contains(&name);
        assert!(left_out || shown.contains(&format!("lockstep_{name}")), "the dashboard has no {name}");
    }
}

fn paths(up: &Up) {
    for part in up.processes() {
        let get = |path: &str| http::get(&part.admin, path).unwrap();
        for (path, checks) in [
            ("/startupz", 1),
            ("/livez", 1),
            ("/app/livez", 1),
            ("/readyz", if part.role == "sidecar" { 5 } else { 2 }),
        ] {
            assert_eq!(get(path), (200, "ok\n".to_owned()), "{} {path}", part.role);
            let (code, verbose) = get(&format!("{path}?verbose"));
            assert_eq!((code, verbose.matches("[+]").count()), (200, checks), "{} {path}: {verbose}", part.role);
        }
        let version = http::json(&part.admin, "/version").unwrap();
        assert!(version["version"].is_string() && version["commit"].is_string(), "{version}");
        let config = http::json(&part.admin, "/config").unwrap();
        assert_eq!(config["cluster"], "local", "{config}");
        assert_eq!(get("/log-level"), (200, "info\n".to_owned()), "{}", part.role);
        assert_eq!(get("/nowhere").0, 404);
    }
    let part = up.role("sidecar").remove(0);
    assert_eq!(put(&part.admin, "/log-level", "info,sidecar=debug"), 200);
    let filter = http::get(&part.admin, "/log-level").unwrap().1;
    assert!(filter.contains("sidecar=debug") && filter.contains("info"), "{filter}");
    assert_eq!(put(&part.admin, "/log-level", "info"), 200);
    assert_eq!(put(&part.admin, "/log-level", "sidecar=loud"), 400);
    assert!(up.log_of(&format!("sidecar-{}", part.id)).contains("log filter changed"));
}

/// The code that a PUT is answered with.
fn put(address: &str, path: &str, body: &str) -> u16 {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "PUT {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The keys and types of a document. Maps whose keys are ids count as one with any of them.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "boolean".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(items) => Value::Array(items.first().map(shape).into_iter().collect()),
        Value::Object(fields) => {
            let is_id = |key: &String| key.parse::<u32>().is_ok();
            let field = |(key, value): (&String, &Value)| {
                (if is_id(key) { "<id>".to_owned() } else { key.clone() }, shape(value))
            };
            Value::Object(fields.iter().map(field).collect::<Map<_, _>>())
        }
    }
}

/// `lockstep status -o json` is as scripts know it. A change is made on purpose: with `LOCKSTEP_BLESS=1` the file is
/// written anew, and CHANGELOG.md says what changed.
fn status(up: &Up) {
    let mut command = Command::new(lockstep());
    let output = command.args(["status", "-o", "json", "--data-dir"]).arg(up.data_dir()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let found = shape(&serde_json::from_slice(&output.stdout).unwrap());
    let path = root().join("tests/golden/status.json");
    if std::env::var_os("LOCKSTEP_BLESS").is_some() {
        std::fs::write(&path, format!("{found:#}\n")).unwrap();
    }
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(found, expected, "the shape of `lockstep status -o json` changed; it is now:\n{found:#}");
    let mut command = Command::new(lockstep());
    let table = command.args(["status", "--data-dir"]).arg(up.data_dir()).output().unwrap();
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    for word in ["REPLICAS", "SMART CLIENTS", "INGRESSES", "leader", "running", "healthy\n"] {
        assert!(table.contains(word), "{word} in {table}");
    }
}

#[test]
fn parts_show_what_the_interface_promises() {
    let up = Up::start(&[]);
    assert_eq!(netcat(up.listen(), "PUT a 1\n").unwrap(), "OK\n");
    up.settled();
    super::wait::until("healthy", || {
        let mut command = Command::new(lockstep());
        let output = command.args(["check", "--data-dir"]).arg(up.data_dir()).output().unwrap();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stdout).into_owned()) }
    });
    metrics(&up);
    paths(&up);
    status(&up);
}
