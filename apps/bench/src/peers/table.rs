//! The outcome as a table: medians over the rounds, their spread, and ratios to the peers.

use super::subject::Subject;
use crate::results::{Point, Run, median, rounds};
use std::collections::BTreeMap;
use std::fmt::Write;

/// All of it.
pub(super) fn text(run: &Run, points: &[Point]) -> String {
    let mut text = format!("{}\n", run.machine.words());
    for (name, version) in &run.versions {
        let _ = writeln!(text, "{name}: {version}");
    }
    let _ = writeln!(
        text,
        "medians of the rounds; ± is half of their spread; CPU of all processes but the load generator\n\n\
         {:<34} {:>6} {:>9} {:>6} {:>9} {:>9} {:>9} {:>6} {:>7}",
        "", "rounds", "rate/s", "±", "p50 ms", "p99 ms", "CPU µs", "busy", "failed"
    );
    let all = Rounds::of(points);
    for name in all.names() {
        let _ = writeln!(
            text,
            "{name:<34} {:>6} {:>9.0} {:>5.0}% {:>9.3} {:>9.3} {:>9.1} {:>5.0}% {:>7.0}",
            all.count(name),
            all.median("rate", name),
            all.spread(name) * 50.0,
            all.median("p50_us", name) / 1e3,
            all.median("p99_us", name) / 1e3,
            all.median("cpu_us", name),
            all.median("host_busy", name) * 100.0,
            all.median("failed", name),
        );
    }
    text.push_str(&ratios(&all));
    let there = |subject: &Subject| all.names().iter().any(|name| name.starts_with(&format!("{}-", subject.name())));
    text.push('\n');
    for subject in Subject::all().into_iter().filter(there) {
        let _ = writeln!(text, "{:<24} {}", subject.name(), subject.words());
    }
    text
}

/// Lockstep's rate and median latency, divided by those of each peer at the same operation and number of clients.
fn ratios(all: &Rounds<'_>) -> String {
    const PEERS: [&str; 5] = ["application", "haproxy", "redis-wait", "etcd", "zookeeper"];
    let mut text = String::new();
    for name in all.names().into_iter().filter(|name| name.starts_with("lockstep-")) {
        // NAME-OPERATION-CLIENTSc
        let Some((_, point)) = name.rsplit_once('-').and_then(|(front, clients)| {
            let (subject, op) = front.rsplit_once('-')?;
            Some((subject, format!("{op}-{clients}")))
        }) else {
            continue;
        };
        let of = |peer: &str| {
            let other = format!("{peer}-{point}");
            let ratio = |value: &str| all.median(value, name) / all.median(value, &other);
            let (rate, p50) = (ratio("rate"), ratio("p50_us"));
            rate.is_finite().then(|| format!("{peer} ×{} (p50 ×{})", short(rate), short(p50)))
        };
        let line: Vec<String> = PEERS.into_iter().filter_map(of).collect();
        if !line.is_empty() {
            let _ = writeln!(text, "{name:<34} {}", line.join(", "));
        }
    }
    if text.is_empty() { text } else { format!("\nrate, and median latency, in parts of the peer's\n{text}") }
}

/// A ratio, with as many places as say something.
fn short(ratio: f64) -> String {
    match ratio {
        ..0.1 => format!("{ratio:.3}"),
        ..10.0 => format!("{ratio:.2}"),
        _ => format!("{ratio:.0}"),
    }
}

/// The rounds of each number, by point.
struct Rounds<'a>(BTreeMap<&'static str, BTreeMap<&'a str, Vec<f64>>>);

impl<'a> Rounds<'a> {
    fn of(points: &'a [Point]) -> Self {
        let values = ["rate", "p50_us", "p99_us", "cpu_us", "host_busy", "failed"];
        Self(values.into_iter().map(|value| (value, rounds(points, value))).collect())
    }

    /// In the order of a round.
    fn names(&self) -> Vec<&'a str> {
        let subjects: Vec<String> = Subject::all().into_iter().map(|subject| format!("{}-", subject.name())).collect();
        // The longest one that fits: one name may begin another.
        let place = |name: &str| {
            let fitting = subjects.iter().enumerate().filter(|(_, subject)| name.starts_with(subject.as_str()));
            fitting.max_by_key(|(_, subject)| subject.len()).map_or(subjects.len(), |(place, _)| place)
        };
        let mut names: Vec<&str> = self.0.get("rate").map(|of| of.keys().copied().collect()).unwrap_or_default();
        names.sort_by_key(|name| place(name));
        names
    }

    fn values(&self, value: &str, name: &str) -> &[f64] {
        self.0.get(value).and_then(|of| of.get(name)).map(Vec::as_slice).unwrap_or_default()
    }

    fn count(&self, name: &str) -> usize {
        self.values("rate", name).len()
    }

    fn median(&self, value: &str, name: &str) -> f64 {
        median(self.values(value, name))
    }

    /// From the slowest round to the fastest, in parts of the median.
    fn spread(&self, name: &str) -> f64 {
        let rates = self.values("rate", name);
        let (low, high) = rates.iter().fold((f64::MAX, 0.0_f64), |(low, high), rate| (low.min(*rate), high.max(*rate)));
        if rates.is_empty() { 0.0 } else { (high - low) / median(rates) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    fn point(name: &str, round: u32, rate: f64) -> Point {
        let values =
            [("rate", rate), ("p50_us", 1e6 / rate), ("p99_us", 2e6 / rate), ("cpu_us", 10.0), ("failed", 0.0)];
        let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Point::new(name, round, values, serde_json::Value::Null)
    }

    #[test]
    fn medians_and_ratios_are_shown() {
        let run = Run {
            experiment: "peers".into(),
            settings: serde_json::Value::Null,
            machine: Machine::this(),
            versions: BTreeMap::from([("etcd".into(), "3".into())]),
        };
        let points = [
            point("etcd-put-1c", 1, 1000.0),
            point("etcd-put-1c", 2, 1200.0),
            point("etcd-put-1c", 3, 1100.0),
            point("lockstep-n3-sync-put-1c", 1, 2200.0),
        ];
        let text = text(&run, &points);
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).expect("a line").to_owned();
        let words: Vec<String> = line("etcd-put-1c").split_ascii_whitespace().map(str::to_owned).collect();
        assert_eq!(words[1..6], ["3", "1100", "9%", "0.909", "1.818"]);
        assert!(text.contains("lockstep-n3-sync-put-1c            etcd ×2.00 (p50 ×0.50)"), "{text}");
        assert!(line("etcd ").ends_with("etcd, 3 nodes, synced, clients at the leader"));
    }
}
