//! Metrics of the parts, as their admin ports show them.

use std::collections::BTreeMap;
use std::ops::Sub;

/// Values by name and labels, as they are written: `name{label="x"}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads the text format.
    pub(crate) fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let value = |line: &str| {
            // Labels may hold spaces, values do not.
            let (name, value) = line.trim_end().rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(lines.filter_map(value).collect())
    }

    /// Adds those of another process, name by name.
    pub(crate) fn add(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            *self.0.entry(name.clone()).or_default() += value;
        }
    }

    /// The sum of all values of this name that have all of these labels (`label="x"`).
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let of_name = |full: &str| full.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        let values = self.0.iter().filter(|(full, _)| of_name(full) && labels.iter().all(|label| full.contains(label)));
        values.map(|(_, value)| value).sum()
    }

    /// The values of one label among the series of this name.
    pub(crate) fn labels(&self, name: &str, label: &str) -> Vec<String> {
        let start = format!("{label}=\"");
        let of_name = self.0.keys().filter(|full| full.starts_with(&format!("{name}{{")));
        let mut values: Vec<String> =
            of_name.filter_map(|full| Some(full.split_once(&start)?.1.split_once('"')?.0.to_owned())).collect();
        values.sort_unstable();
        values.dedup();
        values
    }
}

/// What was added in between.
impl Sub for &Metrics {
    type Output = Metrics;

    fn sub(self, before: &Metrics) -> Metrics {
        let added = |(name, value): (&String, &f64)| (name.clone(), value - before.0.get(name).unwrap_or(&0.0));
        Metrics(self.0.iter().map(added).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP lockstep_quic_streams x.\n# TYPE lockstep_quic_streams counter\n\
        lockstep_quic_streams_total{direction=\"opened\",kind=\"peer\"} 12\n\
        lockstep_quic_streams_total{direction=\"opened\",kind=\"submit\"} 3\n\
        lockstep_quic_streams_total{direction=\"accepted\",kind=\"peer\"} 5\n\
        lockstep_slots_decided_total 7\nlockstep_slots 1\n# EOF\n";

    #[test]
    fn values_are_summed_over_the_labels_that_are_not_asked_for() {
        let metrics = Metrics::read(TEXT);
        assert_eq!(metrics.sum("lockstep_quic_streams_total", &[]), 20.0);
        assert_eq!(metrics.sum("lockstep_quic_streams_total", &["direction=\"opened\""]), 15.0);
        assert_eq!(metrics.sum("lockstep_quic_streams_total", &["direction=\"opened\"", "kind=\"peer\""]), 12.0);
        assert_eq!(metrics.sum("lockstep_slots", &[]), 1.0, "a name is no beginning of another");
        assert_eq!(metrics.labels("lockstep_quic_streams_total", "kind"), ["peer", "submit"]);
    }

    #[test]
    fn what_was_added_counts_from_nothing_where_it_is_new() {
        let before = Metrics::read("lockstep_slots_decided_total 2\n");
        let added = &Metrics::read(TEXT) - &before;
        assert_eq!(added.sum("lockstep_slots_decided_total", &[]), 5.0);
        assert_eq!(added.sum("lockstep_slots", &[]), 1.0);
    }
}
