//! What a run saw, in words.

use super::clients::Trace;
use crate::linear::{self, Call, Checked, Outcome};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Errors of clients that are told in full; all are counted.
const SHOWN: usize = 5;

/// What one run saw.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Which.
    pub seed: u64,
    /// Calls that were made, the final reads among them.
    pub calls: usize,
    /// Calls that were answered.
    pub answered: usize,
    /// Calls whose connection ended without a reply.
    pub unknown: usize,
    /// The longest wait of a call that was answered, and when it was called.
    pub longest: (Duration, Duration),
    /// From the last fault's end until everything was settled.
    pub settled_after: Duration,
    /// Faults, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Times at which a fault was due.
    pub ticks: u64,
    /// What the checker looked at.
    pub checked: Checked,
    /// What must not be.
    pub findings: Vec<String>,
    /// What was kept of a run that failed.
    pub kept: Vec<PathBuf>,
}

impl Report {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Counts what clients did, and gives back their calls.
    pub(super) fn add(&mut self, traces: Vec<Trace>) -> Vec<Call> {
        let mut calls = Vec::new();
        let mut errors = Vec::new();
        for trace in traces {
            self.longest = self.longest.max(trace.longest);
            calls.extend(trace.calls);
            errors.extend(trace.errors);
        }
        if errors.len() > SHOWN {
            self.findings.push(format!("{} errors of clients, of which the first:", errors.len()));
        }
        self.findings.extend(errors.into_iter().take(SHOWN));
        calls
    }

    /// Judges the whole history.
    pub(super) fn judge(&mut self, calls: &[Call]) {
        self.calls = calls.len();
        self.answered = calls.iter().filter(|call| matches!(call.outcome, Outcome::Reply { .. })).count();
        self.unknown = calls.iter().filter(|call| matches!(call.outcome, Outcome::Unknown { .. })).count();
        match linear::check(calls) {
            Ok(checked) => self.checked = checked,
            Err(fault) => self.findings.push(fault.to_string()),
        }
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.findings.is_empty()
    }

    fn made(&self) -> u64 {
        self.faults.values().sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed() { "passed" } else { "FAILED" };
        let faults: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        write!(
            f,
            "seed {}: {verdict}; {} calls, {} acknowledged, {} unknown, longest wait {:.2} s (from {:.1} s on), settled after {:.1} s; \
             {} of {} faults ({}); {} of {} SIZEs telling",
            self.seed,
            self.calls,
            self.answered,
            self.unknown,
            self.longest.0.as_secs_f64(),
            self.longest.1.as_secs_f64(),
            self.settled_after.as_secs_f64(),
            self.made(),
            self.ticks,
            faults.join(", "),
            self.checked.telling_sizes,
            self.checked.sizes,
        )?;
        for finding in &self.findings {
            write!(f, "\n  {finding}")?;
        }
        for path in &self.kept {
            write!(f, "\n  kept: {}", path.display())?;
        }
        Ok(())
    }
}

/// All runs, a line each, and their sum.
#[must_use]
pub fn table(reports: &[Report]) -> String {
    let line = |cells: [String; 7]| {
        let [seed, calls, answered, unknown, longest, faults, verdict] = cells;
        format!("{seed:>6} {calls:>9} {answered:>12} {unknown:>8} {longest:>8} {faults:>7}  {verdict}\n")
    };
    let titles = ["seed", "calls", "acknowledged", "unknown", "longest", "faults", "verdict"];
    let mut text = line(titles.map(str::to_owned));
    let mut sum = Report::default();
    for report in reports {
        let verdict = if report.passed() { "passed" } else { "FAILED" };
        let numbers = [report.calls, report.answered, report.unknown].map(|number| number.to_string());
        let [calls, answered, unknown] = numbers;
        let longest = format!("{:.2} s", report.longest.0.as_secs_f64());
        text += &line([
            report.seed.to_string(),
            calls,
            answered,
            unknown,
            longest,
            report.made().to_string(),
            verdict.to_owned(),
        ]);
        sum.calls += report.calls;
        sum.answered += report.answered;
        sum.unknown += report.unknown;
        sum.longest = sum.longest.max(report.longest);
        for (kind, count) in &report.faults {
            *sum.faults.entry(kind.clone()).or_default() += count;
        }
    }
    let failed = reports.iter().filter(|report| !report.passed()).count();
    let kinds: Vec<String> = sum.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    text += &format!(
        "{} runs, {failed} failed: {} calls, {} acknowledged, {} unknown, longest wait {:.2} s, {} faults ({})",
        reports.len(),
        sum.calls,
        sum.answered,
        sum.unknown,
        sum.longest.0.as_secs_f64(),
        sum.made(),
        kinds.join(", "),
    );
    text
}
