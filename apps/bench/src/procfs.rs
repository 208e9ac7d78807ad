//! What processes and the machine used, as /proc counts it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::{Add, Sub};

/// Clock ticks a second in /proc, the same on every Linux that Rust runs on (USER_HZ).
pub(crate) const TICKS_PER_SECOND: f64 = 100.0;

/// What a process and its threads have used since they began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// User and system time, in ticks.
    pub(crate) ticks: u64,
    /// Times that a thread waited for something.
    pub(crate) voluntary: u64,
    /// Times that a thread had to make room for another.
    pub(crate) involuntary: u64,
    /// Bytes written to disks.
    pub(crate) written: u64,
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            ticks: self.ticks + other.ticks,
            voluntary: self.voluntary + other.voluntary,
            involuntary: self.involuntary + other.involuntary,
            written: self.written + other.written,
        }
    }
}

/// What was used in between. Threads that ended took their switches with them, so that less may be there than before.
impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            ticks: self.ticks.saturating_sub(before.ticks),
            voluntary: self.voluntary.saturating_sub(before.voluntary),
            involuntary: self.involuntary.saturating_sub(before.involuntary),
            written: self.written.saturating_sub(before.written),
        }
    }
}

impl Usage {
    /// CPU time in microseconds.
    pub(crate) fn micros(self) -> f64 {
        self.ticks as f64 * 1e6 / TICKS_PER_SECOND
    }
}

/// Of one process; nothing where there is none.
pub(crate) fn usage(pid: u32) -> Usage {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let mut usage = Usage { ticks: ticks(&read("stat")).unwrap_or(0), ..Usage::default() };
    usage.written = field(&read("io"), "write_bytes");
    for thread in threads(pid) {
        let status = read(&format!("task/{thread}/status"));
        usage.voluntary += field(&status, "voluntary_ctxt_switches");
        usage.involuntary += field(&status, "nonvoluntary_ctxt_switches");
    }
    usage
}

/// CPU time of each thread of a process, in ticks, summed by the threads' names.
pub(crate) fn by_thread(pid: u32) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for thread in threads(pid) {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat")).unwrap_or_default();
        if let (Some(name), Some(ticks)) = (name(&stat), ticks(&stat)) {
            *all.entry(name.to_owned()).or_default() += ticks;
        }
    }
    all
}

fn threads(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.map(|task| task.file_name().to_string_lossy().into_owned()).collect()
}

/// Bytes of memory that a process has in RAM.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    field(&status, "VmRSS") * 1024
}

/// A process with all that it started.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some(parent) = parent(&stat) {
            children.entry(parent).or_default().push(child);
        }
    }
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(one) = all.get(next) {
        all.extend(children.remove(one).unwrap_or_default());
        next += 1;
    }
    all
}

/// What all processors did since the machine began: busy, and all, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    busy: u64,
    all: u64,
}

impl Host {
    /// Now.
    pub(crate) fn now() -> Self {
        Self::read(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn read(stat: &str) -> Self {
        let line = stat.lines().next().unwrap_or_default();
        // user nice system idle iowait irq softirq steal; what guests use is in user already.
        let fields: Vec<u64> = line.split_ascii_whitespace().skip(1).take(8).flat_map(str::parse).collect();
        let all = fields.iter().sum();
        let idle: u64 = fields.iter().skip(3).take(2).sum();
        Self { busy: all - idle, all }
    }

    /// The part of the time since `before` in which the processors were busy.
    pub(crate) fn busy_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all);
        if all == 0 { 0.0 } else { self.busy.saturating_sub(before.busy) as f64 / all as f64 }
    }
}

/// Packets and bytes over the loopback interface, of everybody on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loopback {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
}

impl Loopback {
    /// Since the machine began.
    pub(crate) fn now() -> Self {
        Self::read(&std::fs::read_to_string("/proc/net/dev").unwrap_or_default())
    }

    fn read(dev: &str) -> Self {
        let line = dev.lines().find_map(|line| line.trim_start().strip_prefix("lo:")).unwrap_or_default();
        let mut fields = line.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0));
        Self { bytes: fields.next().unwrap_or(0), packets: fields.next().unwrap_or(0) }
    }
}

/// The fields of /proc/PID/stat behind the name, which may hold anything: the first is the state.
fn fields(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat.rsplit_once(')')?.1.split_ascii_whitespace())
}

fn name(stat: &str) -> Option<&str> {
    Some(stat.split_once('(')?.1.rsplit_once(')')?.0)
}

fn ticks(stat: &str) -> Option<u64> {
    let mut fields = fields(stat)?.skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn parent(stat: &str) -> Option<u32> {
    fields(stat)?.nth(1)?.parse().ok()
}

/// A number behind a name and a colon.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "7 (a) b) S 5 7 7 0 -1 4194304 1 0 2 0 150 50 3 4 20 0 1 0 1000 0 0";

    #[test]
    fn a_name_may_hold_anything() {
        assert_eq!((ticks(STAT), parent(STAT), name(STAT)), (Some(200), Some(5), Some("a) b")));
        assert_eq!((ticks(""), parent("1 (x) S"), name("")), (None, None, None));
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "voluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\nVmRSS:\t  512 kB\n";
        assert_eq!(field(status, "voluntary_ctxt_switches"), 12);
        assert_eq!(field(status, "nonvoluntary_ctxt_switches"), 3);
        assert_eq!((field(status, "VmRSS"), field(status, "Vm")), (512, 0));
    }

    #[test]
    fn waiting_for_a_disk_is_not_being_busy() {
        let before = Host::read("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 …");
        let after = Host::read("cpu  130 0 70 820 80 0 0 0 30 0\n");
        assert_eq!(after.busy_since(before), 0.5);
        assert_eq!(after.busy_since(after), 0.0);
    }

    #[test]
    fn loopback_is_found_among_the_interfaces() {
        let dev = "Inter-|   Receive\n face |bytes packets\n  eth0: 5 6 0\n    lo: 1000 20 0 0 0 0 0 0 1000 20 0\n";
        assert_eq!(Loopback::read(dev), Loopback { bytes: 1000, packets: 20 });
    }

    #[test]
    fn this_process_uses_time_and_memory_and_is_of_its_own_family() {
        let own = std::process::id();
        assert!(resident(own) > 0 && family(own).contains(&own) && !by_thread(own).is_empty());
        assert!(usage(own).voluntary > 0);
        assert_eq!(usage(0), Usage::default());
    }
}
