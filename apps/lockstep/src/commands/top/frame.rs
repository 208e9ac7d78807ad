//! What `top` shows at one time.

use super::sample::Sample;
use crate::commands::status::plain;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The newest look at each part and the one before it, or why there is none; by admin address.
pub(super) type Looks = BTreeMap<String, Look>;

/// See [`Looks`].
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) before: Option<Sample>,
    pub(super) now: Option<Sample>,
    pub(super) error: Option<String>,
}

const REPLICA: [&str; 12] = [
    "REPLICA",
    "ROLE",
    "LEADER",
    "DECIDED/s",
    "EXECUTED/s",
    "BEHIND",
    "HELD",
    "SYNC p99",
    "EXEC p99",
    "LOG",
    "APP",
    "RESETS",
];
const PROXY: [&str; 7] = ["", "OK/s", "REFUSED/s", "UNKNOWN/s", "p50", "p99", "RESENDS/s"];

/// The tables.
pub(super) fn render(looks: &Looks) -> String {
    let mut text = String::new();
    let mut replicas = vec![REPLICA.map(str::to_owned).to_vec()];
    let (mut smart_clients, mut ingresses) =
        (vec![headings("SMART CLIENT", None)], vec![headings("INGRESS", Some("CONNECTIONS"))]);
    let mut silent = Vec::new();
    for (admin, look) in looks {
        let Some(now) = &look.now else {
            silent.push(format!("no answer from {admin}: {}\n", look.error.as_deref().unwrap_or("not asked yet")));
            continue;
        };
        let before = look.before.as_ref();
        match now.status["kind"].as_str() {
            Some("sidecar") => replicas.push(replica(now, before)),
            Some("smart-client") => smart_clients.push(proxy(now, before)),
            Some("ingress") => {
                let mut row = proxy(now, before);
                row.push(format!("{:.0}", now.gauge("lockstep_tcp_connections")));
                ingresses.push(row);
            }
            _ => silent.push(format!("{admin} is no part of Lockstep\n")),
        }
    }
    for rows in [replicas, smart_clients, ingresses] {
        if rows.len() > 1 {
            table(&mut text, &rows);
            text.push('\n');
        }
    }
    silent.iter().for_each(|line| text.push_str(line));
    text
}

fn headings(name: &str, more: Option<&str>) -> Vec<String> {
    let mut row = PROXY.map(str::to_owned).to_vec();
    name.clone_into(&mut row[0]);
    row.extend(more.map(str::to_owned));
    row
}

fn replica(now: &Sample, before: Option<&Sample>) -> Vec<String> {
    let field = |name: &str| plain(&now.status[name]);
    let bytes = now.status["log_bytes"].as_u64().unwrap_or(0);
    vec![
        field("id"),
        field("role"),
        field("leader"),
        rate(now.rate(before, "lockstep_slots_decided_total")),
        rate(now.rate(before, "lockstep_slots_executed_total")),
        field("behind"),
        field("held"),
        time(now.quantile(before, "lockstep_journal_sync_seconds", 0.99)),
        time(now.quantile(before, "lockstep_execute_seconds", 0.99)),
        format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        field("app"),
        field("app_resets"),
    ]
}

fn proxy(now: &Sample, before: Option<&Sample>) -> Vec<String> {
    let ended = |result: &str| rate(now.rate(before, &format!("lockstep_requests_total{{result=\"{result}\"}}")));
    vec![
        plain(&now.status["id"]),
        ended("ok"),
        ended("refused"),
        ended("unknown"),
        time(now.quantile(before, "lockstep_request_seconds", 0.5)),
        time(now.quantile(before, "lockstep_request_seconds", 0.99)),
        rate(now.rate(before, "lockstep_resends_total")),
    ]
}

fn rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"))
}

/// Histograms know no more than the bound that a time is below.
fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds.is_infinite() => "long".to_owned(),
        Some(seconds) if seconds < 1.0 => format!("<{:.1} ms", seconds * 1e3),
        Some(seconds) => format!("<{seconds:.1} s"),
    }
}

fn table(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::{Duration, Instant};

    #[test]
    fn a_frame_has_rates_of_all_parts_and_names_the_silent_ones() {
        let begun = Instant::now();
        let sidecar = json!({ "kind": "sidecar", "id": 0, "role": "leader", "leader": 0, "behind": 0, "held": 3,
            "log_bytes": 1 << 20, "app": "running", "app_resets": 1 });
        let ingress = json!({ "kind": "ingress", "id": "0" });
        let decided =
            |count: u32| format!("lockstep_slots_decided_total {count}\nlockstep_slots_executed_total {count}\n");
        let ok = |count: u32| format!("lockstep_requests_total{{result=\"ok\"}} {count}\nlockstep_tcp_connections 5\n");
        let later = begun + Duration::from_secs(1);
        let look = |status: &serde_json::Value, before: String, now: String| Look {
            before: Some(Sample::new(status.clone(), &before, begun)),
            now: Some(Sample::new(status.clone(), &now, later)),
            error: None,
        };
        let looks: Looks = [
            ("a:1".to_owned(), look(&sidecar, decided(5), decided(105))),
            ("a:2".to_owned(), look(&ingress, ok(0), ok(40))),
            ("a:3".to_owned(), Look { error: Some("cannot connect".to_owned()), ..Look::default() }),
        ]
        .into();
        let text = render(&looks);
        let lines: Vec<&str> = text.lines().collect();
        let words = |line: &str| line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(lines[1])[..7], ["0", "leader", "0", "100", "100", "0", "3"]);
        assert_eq!(words(lines[4]), ["0", "40", "0", "0", "-", "-", "0", "5"]);
        assert_eq!(lines[6], "no answer from a:3: cannot connect");
    }
}
