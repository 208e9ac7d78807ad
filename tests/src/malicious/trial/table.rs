//! What all behaviours came to, for people.

use super::Verdict;
use serde_json::Value;
use std::fmt::Write;

/// A table in Markdown: with signatures off, and on.
#[must_use]
pub fn table(rows: &[(bool, Verdict)]) -> String {
    let mut text = String::from(
        "| behaviour | signatures | done | wrong replies | forged executions | lost | failed calls | counted as | what it heard |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |\n",
    );
    for (signatures, verdict) in rows {
        let names: Vec<_> = verdict.wishes.iter().map(|wish| wish.behaviour.name()).collect();
        let Verdict { wrong, forged, lost, failed, answered, .. } = verdict;
        let counted: Vec<_> = verdict.counted.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let (signatures, calls) = (if *signatures { "on" } else { "off" }, failed + answered + wrong);
        let (names, done, counted, heard) = (names.join(", "), verdict.done(), counted.join("; "), heard(&verdict.did));
        let _ = writeln!(
            text,
            "| {names} | {signatures} | {done} | {wrong} | {forged} | {lost} | {failed} of {calls} | {counted} | {heard} |"
        );
    }
    text
}

fn heard(did: &Value) -> String {
    let mut words = Vec::new();
    for did in did.as_object().into_iter().flat_map(|did| did.values()) {
        for (word, count) in did["heard"].as_object().into_iter().flatten() {
            words.push(format!("{word} {count}"));
        }
    }
    words.join("; ")
}
