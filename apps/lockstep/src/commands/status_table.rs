//! The status as a table for people.

use super::status::{Found, plain};
use serde_json::Value;
use std::fmt::Write;

/// Columns of a replica: heading and field.
const REPLICA: [(&str, &str); 12] = [
    ("ID", "id"),
    ("ROLE", "role"),
    ("LEADER", "leader"),
    ("BALLOT", "ballot"),
    ("DECIDED", "decided"),
    ("EXECUTED", "executed"),
    ("SNAPSHOT", "snapshot_slot"),
    ("LOG FROM", "log_first"),
    ("LOG BYTES", "log_bytes"),
    ("APP", "app"),
    ("RESETS", "app_resets"),
    ("ADMIN", "admin"),
];
/// Columns of the stateless parts.
const PROXY: [(&str, &str); 4] = [("ID", "id"), ("REQUESTS", "requests"), ("RESENDS", "resends"), ("ADMIN", "admin")];

/// The tables, then the verdict.
pub(crate) fn render(found: &Found, problems: &[String]) -> String {
    let mut text = String::new();
    let lists = [
        ("REPLICAS", &found.replicas, &REPLICA[..]),
        ("SMART CLIENTS", &found.smart_clients, &PROXY[..]),
        ("INGRESSES", &found.ingresses, &PROXY[..]),
        ("NOT REACHED", &found.unknown, &PROXY[..]),
    ];
    for (title, list, columns) in lists {
        if !list.is_empty() {
            table(&mut text, title, list, columns);
        }
    }
    // What can be done stands before the verdict, which is the last word.
    lines(&mut text, "what to do:", &found.hints());
    if problems.is_empty() {
        text.push_str("healthy\n");
    } else {
        lines(&mut text, "not healthy:", problems);
    }
    text
}

fn lines(text: &mut String, title: &str, lines: &[String]) {
    if !lines.is_empty() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{title}");
        for line in lines {
            let _ = writeln!(text, "  {line}");
        }
    }
}

fn table(text: &mut String, title: &str, list: &[Value], columns: &[(&str, &str)]) {
    let mut rows = vec![columns.iter().map(|(heading, _)| (*heading).to_owned()).collect::<Vec<_>>()];
    rows.extend(list.iter().map(|part| columns.iter().map(|(_, field)| cell(part, field)).collect()));
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let _ = writeln!(text, "{title}");
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "  {}", cells.join("  ").trim_end());
    }
    text.push('\n');
}

fn cell(part: &Value, field: &str) -> String {
    if part["error"].is_string() && field != "id" && field != "admin" {
        return "-".to_owned();
    }
    match &part[field] {
        Value::Null => "-".to_owned(),
        Value::Object(counts) => {
            counts.iter().map(|(name, count)| format!("{name}={}", plain(count))).collect::<Vec<_>>().join(" ")
        }
        value => plain(value),
    }
}
