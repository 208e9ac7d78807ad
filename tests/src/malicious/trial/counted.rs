//! What the parts of a cluster count: their metrics before and after.

use crate::driver::http;
use std::collections::BTreeMap;

/// Counters that say that something was noticed.
const NAMES: [&str; 8] = [
    "lockstep_divergences_total",
    "lockstep_links_refused_total",
    "lockstep_malformed_total",
    "lockstep_quic_oversized_messages_total",
    "lockstep_refused_total",
    "lockstep_rejected_total",
    "lockstep_signature_failures_total",
    "lockstep_vote_disagreements_total",
];

/// Counts by role and name with labels: `sidecar rejected{reason="busy"}`.
pub(super) type Counted = BTreeMap<String, u64>;

/// Adds what a process counts, if it can be asked.
pub(super) fn add(counted: &mut Counted, role: &str, admin: &str) {
    let Ok((200, text)) = http::get(admin, "/metrics") else { return };
    for line in text.lines() {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let name = series.split('{').next().unwrap_or(series);
        let Ok(value) = value.parse::<u64>() else { continue };
        if NAMES.contains(&name) {
            let short = series.replacen("lockstep_", "", 1).replacen("_total", "", 1);
            *counted.entry(format!("{role} {short}")).or_default() += value;
        }
    }
}

/// What was counted since.
pub(super) fn since(before: &Counted, after: &Counted) -> Counted {
    let grown = |(name, now): (&String, &u64)| {
        let more = now.saturating_sub(before.get(name).copied().unwrap_or_default());
        (more > 0).then(|| (name.clone(), more))
    };
    after.iter().filter_map(grown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grew() {
        let counted =
            |pairs: &[(&str, u64)]| pairs.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect::<Counted>();
        let grown = since(&counted(&[("a", 1), ("b", 2)]), &counted(&[("a", 1), ("b", 5), ("c", 1), ("d", 0)]));
        assert_eq!(grown, counted(&[("b", 3), ("c", 1)]));
    }
}
