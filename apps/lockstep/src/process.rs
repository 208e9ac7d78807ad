//! Processes as /proc shows them, and the tie between a part and the `up` that started it.

use mesh::node::descriptor::watch;
use mesh::node::grid;
use rustix::process::{Pid, PidfdFlags, Signal, getppid, kill_process, pidfd_open, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::io::Interest;
use tokio::time::timeout;

/// Between two looks at a process that the system does not watch for us.
const LIVING: Duration = Duration::from_millis(256);

/// One life of one process: a pid alone may come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its number.
    pub(crate) pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub(crate) started: u64,
}

impl Process {
    /// The process that has this pid now; `None` if there is none, or only its zombie.
    pub(crate) fn with_pid(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, started: started(&stat)? })
    }

    /// Whether this very process still runs.
    pub(crate) fn is_alive(self) -> bool {
        Self::with_pid(self.pid) == Some(self)
    }

    /// Resolves when it has ended.
    pub(crate) async fn ended(self) {
        let watched = numbered(self.pid)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok())
            .and_then(|process| watch(process, Interest::READABLE).ok());
        // Asked again: the pid may have been another's by then.
        if let Some(watched) = watched
            && self.is_alive()
        {
            let _ = watched.readable().await;
        }
        // Where the system does not tell.
        while self.is_alive() {
            grid::sleep(LIVING).await;
        }
    }

    /// Sends it a signal, if it still runs.
    pub(crate) fn signal(self, signal: Signal) {
        if self.is_alive() {
            send(self.pid, signal);
        }
    }
}

/// The start in the text of /proc/PID/stat, unless it is a zombie.
fn started(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The same number, as the system takes it.
pub(crate) fn numbered(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Sends a signal to a pid that is known not to be another's: a child that was not waited for.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = numbered(pid) {
        // It may have ended by itself: as good.
        let _ = kill_process(pid, signal);
    }
}

/// Ends processes: asks, waits up to `grace`, then kills. Returns when all are gone or cannot be ended.
pub(crate) async fn end(processes: &[Process], grace: Duration) {
    for process in processes {
        process.signal(Signal::TERM);
    }
    if gone(processes, grace).await {
        return;
    }
    for process in processes {
        process.signal(Signal::KILL);
    }
    gone(processes, Duration::from_secs(2)).await;
}

async fn gone(processes: &[Process], within: Duration) -> bool {
    let all = async {
        for process in processes {
            process.ended().await;
        }
    };
    timeout(within, all).await.is_ok()
}

/// Tells one start of the machine from another: pids and start times are only good within one.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// From now on SIGTERM comes to this process when its parent ends, however it ends.
///
/// # Errors
/// When `parent` is not the parent (any more): then there is nobody to run for.
pub(crate) fn die_with_parent(parent: u32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let found = getppid().map(|pid| pid.as_raw_nonzero().get());
    anyhow::ensure!(found == i32::try_from(parent).ok(), "the process that started this one has ended");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_and_not_by_its_pid_alone() {
        let own = Process::with_pid(std::process::id()).expect("this process runs");
        assert!(own.is_alive());
        assert!(!Process { started: own.started + 1, ..own }.is_alive());
    }

    #[test]
    fn a_zombie_does_not_run() {
        let stat = |state: &str| format!("7 (a) b) {state} 1 7 7 0 -1 4194304 0 0 0 0 150 50 0 0 20 0 1 0 1000 0 0");
        assert_eq!(started(&stat("S")), Some(1000));
        assert_eq!(started(&stat("Z")), None);
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_told_and_its_zombie_is_none() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("there is one");
        let process = Process::with_pid(child.id()).expect("it runs");
        let early = timeout(Duration::from_millis(50), process.ended()).await;
        assert!(early.is_err(), "it runs still");
        let (ended, ()) = tokio::join!(timeout(Duration::from_secs(20), process.ended()), async {
            child.kill().expect("it is ours");
        });
        ended.expect("nobody has waited for it, and it has ended all the same");
        child.wait().expect("it is ours");
        timeout(Duration::from_secs(20), process.ended()).await.expect("it has ended before");
    }

    #[tokio::test]
    async fn what_does_not_listen_to_reason_is_killed() {
        let script = "trap '' TERM; echo ready; while true; do sleep 0.05; done";
        let mut child = std::process::Command::new("sh")
            .args(["-c", script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let mut word = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().expect("it is piped"), &mut word)
            .expect("the shell says ready");
        let process = Process::with_pid(child.id()).expect("it runs");
        end(&[process], Duration::from_millis(100)).await;
        assert!(!process.is_alive());
        child.wait().expect("it is our child");
    }
}
