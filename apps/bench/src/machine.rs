//! Where and with what something was measured: without it a number says little.

use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::Command;

/// A machine, and the program that measured on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Version and commit of Lockstep.
    pub(crate) lockstep: String,
    /// As the kernel names it.
    pub(crate) cpu: String,
    /// How many.
    pub(crate) cores: usize,
    /// In bytes.
    pub(crate) memory: u64,
    /// Its release.
    pub(crate) kernel: String,
}

impl Machine {
    /// This one.
    pub(crate) fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (cpuinfo, meminfo) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map_or(String::new(), |(_, value)| value.trim().to_owned())
        };
        let memory = field(&meminfo, "MemTotal");
        let memory = memory.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024;
        Self {
            lockstep: mesh::node::version().to_string(),
            cpu: field(&cpuinfo, "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }

    /// In a line.
    pub(crate) fn words(&self) -> String {
        let Self { lockstep, cpu, cores, memory, kernel } = self;
        format!("lockstep {lockstep}; {cores} × {cpu}, {} GiB, Linux {kernel}", memory >> 30)
    }
}

/// The first line that a program says of its version.
pub(crate) fn version_of(program: &Path, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").trim().to_owned()
}

/// Whether files there are only in memory, where a sync costs nothing.
pub(crate) fn is_in_memory(path: &Path) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u64 == TMPFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let machine = Machine::this();
        assert!(machine.cores > 0 && machine.memory > 0 && !machine.kernel.is_empty());
        assert!(machine.words().contains("Linux"));
        assert!(is_in_memory(Path::new("/dev/shm")) && !is_in_memory(Path::new("/proc")));
    }

    #[test]
    fn a_program_that_is_not_there_has_no_version() {
        assert_eq!(version_of(Path::new("/no/such/program"), "--version"), "unknown");
    }
}
