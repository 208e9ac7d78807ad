//! One look at a part: its status and its metrics; and what happened between two of them.

use crate::http;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Instant;

/// One look at one part.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// Its `/status`, or nothing.
    pub(super) status: Value,
    metrics: Metrics,
    at: Instant,
}

/// Values of `/metrics` by name and labels, as they are written.
#[derive(Clone, Debug, Default)]
struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn parse(text: &str) -> Self {
        let value = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(value).collect())
    }

    fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    /// The counts of a histogram, by the upper bound of each bucket.
    fn buckets(&self, name: &str) -> Vec<(f64, f64)> {
        let prefix = format!("{name}_bucket{{le=\"");
        let bound = |(key, count): (&String, &f64)| {
            let text = key.strip_prefix(&prefix)?.strip_suffix("\"}")?;
            Some((if text == "+Inf" { f64::INFINITY } else { text.parse().ok()? }, *count))
        };
        let mut buckets: Vec<(f64, f64)> = self.0.iter().filter_map(bound).collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        buckets
    }
}

impl Sample {
    /// Asks a part.
    pub(super) async fn take(admin: &str) -> anyhow::Result<Self> {
        let status = http::get_json(admin, "/status").await?;
        let (_, text) = http::get(admin, "/metrics").await?;
        Ok(Self::new(status, &String::from_utf8_lossy(&text), Instant::now()))
    }

    pub(super) fn new(status: Value, metrics: &str, at: Instant) -> Self {
        Self { status, metrics: Metrics::parse(metrics), at }
    }

    /// By how much a counter grew in a second since `before`; nothing after a restart of the part.
    pub(super) fn rate(&self, before: Option<&Self>, name: &str) -> Option<f64> {
        let before = before?;
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let grown = self.metrics.get(name) - before.metrics.get(name);
        (seconds > 0.0 && grown >= 0.0).then(|| grown / seconds)
    }

    /// The value of a gauge.
    pub(super) fn gauge(&self, name: &str) -> f64 {
        self.metrics.get(name)
    }

    /// The upper bound of the bucket in which the quantile is of what was observed since `before`.
    pub(super) fn quantile(&self, before: Option<&Self>, name: &str, quantile: f64) -> Option<f64> {
        let earlier: BTreeMap<u64, f64> =
            before?.metrics.buckets(name).into_iter().map(|(bound, count)| (bound.to_bits(), count)).collect();
        let grown: Vec<(f64, f64)> = self
            .metrics
            .buckets(name)
            .into_iter()
            .map(|(bound, count)| (bound, count - earlier.get(&bound.to_bits()).copied().unwrap_or(0.0)))
            .collect();
        let all = grown.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
        grown.iter().find(|(_, count)| *count >= all * quantile).map(|(bound, _)| *bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const BEFORE: &str = "# HELP x\nlockstep_x_total 10\nlockstep_s_bucket{le=\"0.1\"} 5\nlockstep_s_bucket{le=\"0.2\"} 5\nlockstep_s_bucket{le=\"+Inf\"} 5\n";
    const AFTER: &str = "lockstep_x_total 30\nlockstep_s_bucket{le=\"0.1\"} 8\nlockstep_s_bucket{le=\"0.2\"} 14\nlockstep_s_bucket{le=\"+Inf\"} 15\n";

    #[test]
    fn rates_and_quantiles_are_of_the_time_between_two_looks() {
        let begun = Instant::now();
        let before = Sample::new(Value::Null, BEFORE, begun);
        let after = Sample::new(Value::Null, AFTER, begun + Duration::from_secs(2));
        assert_eq!(after.rate(Some(&before), "lockstep_x_total"), Some(10.0));
        assert_eq!(after.rate(None, "lockstep_x_total"), None);
        assert_eq!(before.rate(Some(&after), "lockstep_x_total"), None, "it was restarted");
        assert_eq!(after.quantile(Some(&before), "lockstep_s", 0.5), Some(0.2));
        assert_eq!(after.quantile(Some(&before), "lockstep_s", 0.1), Some(0.1));
        assert_eq!(after.quantile(Some(&before), "lockstep_s", 1.0), Some(f64::INFINITY));
        assert_eq!(after.quantile(Some(&after), "lockstep_s", 0.5), None, "nothing happened");
    }
}
