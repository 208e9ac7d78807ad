//! The registry of metrics and what all processes have in it. Values of the process are read from /proc when asked for.

use super::version::version;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use std::fmt;

/// The registry of metrics, prefix `lockstep_`.
pub type Registry = prometheus_client::registry::Registry;

/// Clock ticks a second in /proc, the same on every Linux that Rust runs on (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// The registry with what all processes have (build_info, process_…).
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::with_prefix("lockstep");
    let built = version();
    let labels = Info::new(vec![("version", built.number), ("commit", built.commit)]);
    registry.register("build", "Version and commit of this program", labels);
    registry.register_collector(Box::new(ProcessMetrics));
    registry
}

/// The registry of what ready-made dashboards look for without our prefix.
pub(super) fn process_registry() -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(ProcessMetrics));
    registry
}

/// `process_…`, read anew for every scrape.
#[derive(Debug)]
struct ProcessMetrics;

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(seconds) = cpu_seconds(&stat) {
            let metric = ConstCounter::new(seconds);
            let help = "User and system CPU time of this process";
            metric.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, metric.metric_type())?)?;
        }
        let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        if let Some(seconds) = start_time(&stat, &boot) {
            let metric = ConstGauge::new(seconds);
            let help = "Start of this process in Unix time";
            metric.encode(encoder.encode_descriptor(
                "process_start_time_seconds",
                help,
                None,
                metric.metric_type(),
            )?)?;
        }
        let memory = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(bytes) = resident_bytes(&memory) {
            let metric = ConstGauge::new(bytes);
            let (name, help) = ("process_resident_memory_bytes", "Resident memory of this process");
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        Ok(())
    }
}

/// The field of /proc/PID/stat with this number (1-based, as in proc(5)), beyond the name in brackets, which may hold anything.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS_PER_SECOND)
}

fn start_time(stat: &str, boot: &str) -> Option<f64> {
    let booted: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + stat_field(stat, 22)? / TICKS_PER_SECOND)
}

fn resident_bytes(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_has_its_build_and_its_resources() {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry()).expect("a String takes anything");
        for name in
            ["lockstep_build_info{", "lockstep_process_cpu_seconds_total ", "lockstep_process_start_time_seconds "]
        {
            assert!(text.contains(name), "{name} is missing in {text}");
        }
        assert!(text.contains("lockstep_process_resident_memory_bytes "), "{text}");
    }

    #[test]
    fn a_process_name_with_brackets_and_spaces_moves_no_field() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 0 0 0 0 150 50 0 0 20 0 1 0 1000 0 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(start_time(stat, "cpu 1 2\nbtime 500\n"), Some(510.0));
    }

    #[test]
    fn what_proc_does_not_say_is_left_out() {
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(resident_bytes("VmSize: 10 kB\n"), None);
        assert_eq!(resident_bytes("VmRSS:\t  10 kB\n"), Some(10_240));
    }
}
