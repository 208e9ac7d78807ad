//! A cluster for the programs that measure: `lockstep up -o json`, started and ended with its handle.

use anyhow::{Context, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running `lockstep up`.
#[derive(Debug)]
pub struct Cluster {
    child: Child,
    /// Its first event: `ready`.
    pub ready: Value,
}

impl Cluster {
    /// Starts one on a free port and waits until it is ready.
    ///
    /// # Errors
    /// When it ends instead.
    pub fn start(lockstep: &Path, arguments: &[String]) -> anyhow::Result<Self> {
        let mut command = Command::new(lockstep);
        command.args(["up", "-o", "json", "--listen", "127.0.0.1:0"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", lockstep.display()))?;
        let stdout = child.stdout.take().context("its stdout is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        while let Some(Ok(line)) = lines.next() {
            let event: Value = serde_json::from_str(&line)?;
            if event["event"] == "ready" {
                // The rest is read, so that it never waits for us.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self { child, ready: event });
            }
        }
        bail!("up ended before it was ready: {}", child.wait()?)
    }

    /// Where clients connect.
    #[must_use]
    pub fn listen(&self) -> &str {
        self.ready["listen"].as_str().unwrap_or_default()
    }

    /// The pids of one role's processes.
    #[must_use]
    pub fn pids(&self, role: &str) -> Vec<u64> {
        let processes = self.ready["processes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let of_role = processes.iter().filter(|process| process["role"] == role);
        of_role.filter_map(|process| process["pid"].as_u64()).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It ends its parts; whoever measures is done, so there is nobody to tell of an error.
        let _ = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// The `lockstep` that was built with this program.
///
/// # Errors
/// When this program cannot find itself.
pub fn sibling() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("lockstep"))
}

/// Kilobytes of a process' memory by their name in `/proc/PID/status`: `VmRSS` now, `VmHWM` at most so far.
///
/// # Errors
/// When there is no such process.
pub fn memory(pid: u64, name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).context("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
