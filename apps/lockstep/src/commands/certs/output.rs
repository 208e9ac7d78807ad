//! What `lockstep certs` prints: tables for people, one JSON document for programs.

use crate::up::output::Format;
use certs::{Action, Change, Listed, Rotation};
use serde::Serialize;
use serde_json::json;
use std::io::Write;

/// Prints; a closed stdout leaves nobody to tell.
pub(super) fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints one JSON document.
pub(super) fn say_json(document: &impl Serialize) {
    match serde_json::to_string_pretty(document) {
        Ok(text) => say(&format!("{text}\n")),
        // Plain data with string keys cannot fail.
        Err(problem) => tracing::error!(%problem, "the answer cannot be written as JSON"),
    }
}

/// A row a line, in columns as wide as their widest value.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// That an authority was made.
pub(super) fn say_made(output: Format, text: &str, rotation: &Rotation) {
    match output {
        Format::Text => say(&format!("{text}\n")),
        Format::Json => say_json(rotation),
    }
}

/// What was done.
pub(super) fn say_changes(output: Format, changes: &[Change]) {
    if output == Format::Json {
        return say_json(&json!({ "changes": changes }));
    }
    if changes.is_empty() {
        return say("nothing to do\n");
    }
    let rows: Vec<Vec<String>> = changes.iter().map(row).collect();
    say(&table(&rows));
}

fn row(change: &Change) -> Vec<String> {
    let action = match change.action {
        Action::Issued => "issued",
        Action::Renewed => "renewed",
        Action::Kept => "kept",
        Action::Revoked => "revoked",
        Action::Failed => "FAILED",
    };
    let until = change.not_after.map(|until| format!("until {until}")).unwrap_or_default();
    vec![action.to_owned(), change.what.clone(), until, change.reason.clone().unwrap_or_default()]
}

/// What there is.
pub(super) fn say_listed(output: Format, listed: &[Listed]) {
    if output == Format::Json {
        return say_json(&json!({ "certificates": listed }));
    }
    let head = ["ROLE", "ID", "KIND", "STATE", "NOT BEFORE", "NOT AFTER", "CA", "SERIAL", ""];
    let rows = listed.iter().map(|listed| {
        let state = listed.state.map_or("unusable", |state| state.as_str());
        let note = match (&listed.error, listed.present) {
            (Some(problem), _) => problem.as_str(),
            (None, false) => "not here",
            (None, true) => "",
        };
        vec![
            listed.role.clone(),
            listed.id.clone(),
            listed.kind.as_str().to_owned(),
            state.to_owned(),
            listed.not_before.map(|moment| moment.to_string()).unwrap_or_default(),
            listed.not_after.map(|moment| moment.to_string()).unwrap_or_default(),
            listed.ca.map_or_else(|| "-".to_owned(), |ca| ca.to_string()),
            listed.serial.clone().unwrap_or_default(),
            note.to_owned(),
        ]
    });
    let rows: Vec<Vec<String>> = std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect();
    say(&table(&rows));
}

/// How a rotation stands.
pub(super) fn say_rotation(output: Format, rotation: &Rotation) {
    if output == Format::Json {
        return say_json(rotation);
    }
    let mut rows = vec![["CA", "NOT AFTER", "SERIAL", "LIVE CERTIFICATES"].map(str::to_owned).to_vec()];
    rows.extend(rotation.authorities.iter().map(|authority| {
        let issues = if authority.number == rotation.issuing { " (issues)" } else { "" };
        let live = if authority.live.is_empty() { "none".to_owned() } else { authority.live.join(" ") };
        vec![format!("{}{issues}", authority.number), authority.not_after.to_string(), authority.serial.clone(), live]
    }));
    say(&table(&rows));
    say(match (rotation.starting, rotation.rotating) {
        (true, _) => "a start was interrupted: `lockstep certs rotate-ca start` goes on, `abort` ends it\n",
        (false, true) => "a rotation is under way: `lockstep certs rotate-ca finish` or `abort` ends it\n",
        (false, false) => "no rotation is under way\n",
    });
}
