//! The parts as child processes: started, waited for, started again.
//!
//! A child's pid is signalled only while it was not waited for, so it cannot be another's. Children are started from the
//! main thread: they are told of this process's end by the kernel, which looks at the thread that made them.

use super::output::PartShown;
use super::plan::{PartPlan, Plan};
use super::state::{PartState, Role};
use crate::process::{Process, send};
use anyhow::Context;
use rustix::process::Signal;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::time::Instant;

/// From a part's end to its next start, as Kubernetes would.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// An end this soon after the start is one that the user must hear more about.
const QUICK: Duration = Duration::from_secs(5);
/// A log longer than this is cut, after the last of it was put aside.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// Of a log, what is shown of a part that ended quickly.
const TAIL_BYTES: u64 = 8 << 10;
const TAIL_LINES: usize = 10;
const LINE_CHARS: usize = 400;

/// One part and its present process.
#[derive(Debug)]
pub(crate) struct Part {
    /// Where and how it runs.
    pub(crate) plan: PartPlan,
    /// A sidecar's application, as far as it is known.
    pub(crate) app: Option<Process>,
    /// Ends soon after the start, one after the other.
    pub(crate) quick_ends: u32,
    child: Option<Child>,
    process: Option<Process>,
    started: Instant,
    /// Where its log began to be this process's.
    log_start: u64,
    restart_at: Option<Instant>,
}

/// The end of a part.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Which part.
    pub(crate) index: usize,
    /// As which process.
    pub(crate) pid: u32,
    /// How.
    pub(crate) status: ExitStatus,
    /// Whether it was soon after its start.
    pub(crate) quick: bool,
}

/// All parts.
#[derive(Debug)]
pub(crate) struct Children {
    program: PathBuf,
    /// In the order of the plan.
    pub(crate) parts: Vec<Part>,
}

impl Part {
    /// Its process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its application, while that runs.
    pub(crate) fn live_app(&self) -> Option<Process> {
        self.app.filter(|app| app.is_alive())
    }

    /// The last lines that its present or last process logged.
    pub(crate) fn tail(&self) -> String {
        tail(&self.plan.log, self.log_start)
    }

    /// As it is shown.
    pub(crate) fn shown(&self) -> PartShown {
        PartShown::new(&self.plan, self.pid(), self.live_app().map(|app| app.pid))
    }

    /// As it is kept on disk.
    pub(crate) fn state(&self) -> PartState {
        let plan = &self.plan;
        let process = self.process.filter(|_| self.child.is_some());
        PartState { role: plan.role, id: plan.id, admin: plan.admin, quic: plan.quic, process, app: self.app }
    }

    fn start(&mut self, program: &Path) -> anyhow::Result<()> {
        let log = open_log(&self.plan.log)?;
        self.log_start = log.metadata()?.len();
        let mut command = Command::new(program);
        command.args(&self.plan.arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A Ctrl-C at the terminal is for `up` alone, which ends the parts in order.
        command.process_group(0);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LOCKSTEP_")) {
            command.env_remove(name);
        }
        let child = command.spawn().with_context(|| format!("cannot start {}", self.plan.name()))?;
        self.process = Process::with_pid(child.id());
        self.child = Some(child);
        self.started = Instant::now();
        self.restart_at = None;
        Ok(())
    }
}

impl Children {
    /// None of them started yet.
    pub(crate) fn new(plan: &Plan) -> Self {
        let part = |plan: &PartPlan| Part {
            plan: plan.clone(),
            app: None,
            quick_ends: 0,
            child: None,
            process: None,
            started: Instant::now(),
            log_start: 0,
            restart_at: None,
        };
        Self { program: plan.program.clone(), parts: plan.parts.iter().map(part).collect() }
    }

    /// Starts one.
    pub(crate) fn start(&mut self, index: usize) -> anyhow::Result<()> {
        self.parts[index].start(&self.program)
    }

    /// Waits, without waiting, for all that ended.
    pub(crate) fn reap(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        for (index, part) in self.parts.iter_mut().enumerate() {
            let Some(child) = &mut part.child else { continue };
            // An error would mean that it is not our child; it stays, and shows again.
            if let Ok(Some(status)) = child.try_wait() {
                let (pid, quick) = (child.id(), part.started.elapsed() < QUICK);
                part.child = None;
                part.process = None;
                part.quick_ends = if quick { part.quick_ends.saturating_add(1) } else { 0 };
                ended.push(Ended { index, pid, status, quick });
            }
        }
        ended
    }

    /// One that ended will be due again in a second.
    pub(crate) fn plan_restart(&mut self, index: usize) {
        self.parts[index].restart_at = Some(Instant::now() + RESTART_AFTER);
    }

    /// Those whose second is over.
    pub(crate) fn due(&self) -> Vec<usize> {
        let now = Instant::now();
        let due = |part: &Part| part.child.is_none() && part.restart_at.is_some_and(|at| at <= now);
        (0..self.parts.len()).filter(|index| due(&self.parts[*index])).collect()
    }

    /// Whether any of them waits to be started again.
    pub(crate) fn any_to_start(&self) -> bool {
        self.parts.iter().any(|part| part.child.is_none() && part.restart_at.is_some())
    }

    /// Whether any of this role, or of all, runs.
    pub(crate) fn any_alive(&self, role: Option<Role>) -> bool {
        self.parts.iter().any(|part| part.child.is_some() && role.is_none_or(|role| part.plan.role == role))
    }

    /// Sends a signal to all of this role that run.
    pub(crate) fn signal(&self, role: Role, signal: Signal) {
        for pid in self.parts.iter().filter(|part| part.plan.role == role).filter_map(Part::pid) {
            send(pid, signal);
        }
    }

    /// Cuts logs that have grown too long. The writers append, so they go on at the new end.
    pub(crate) fn trim_logs(&self) {
        for part in &self.parts {
            let path = &part.plan.log;
            if path.metadata().is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
                let cut = || -> std::io::Result<()> {
                    std::fs::copy(path, path.with_extension("log.old"))?;
                    File::options().write(true).open(path)?.set_len(0)
                };
                if let Err(error) = cut() {
                    tracing::warn!(%error, log = %path.display(), "cannot cut this log");
                }
            }
        }
    }
}

fn open_log(path: &Path) -> anyhow::Result<File> {
    let open = || -> std::io::Result<File> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        File::options().create(true).append(true).mode(0o600).open(path)
    };
    open().with_context(|| format!("cannot open the log {}", path.display()))
}

/// The last lines of a log from `start` on.
fn tail(path: &Path, start: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        // Not beyond a start that was before the log was cut.
        let start = if start <= length { start } else { 0 };
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES).max(start)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| indented(line)).collect()
}

fn indented(line: &str) -> String {
    let mut chars = line.chars();
    let shown: String = chars.by_ref().take(LINE_CHARS).collect();
    let more = if chars.next().is_some() { "…" } else { "" };
    format!("    {shown}{more}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_short_and_of_the_last_life_only() {
        let path = std::env::temp_dir().join(format!("lockstep-tail-{}.log", std::process::id()));
        let lines: String = (0..100).map(|line| format!("line {line}\n")).collect();
        std::fs::write(&path, format!("an earlier life\n{lines}")).expect("the temporary directory can be written");
        assert_eq!(tail(&path, 16).lines().count(), TAIL_LINES);
        assert!(tail(&path, 16).ends_with("    line 99\n"));
        std::fs::write(&path, "an earlier life\nlast words\n").expect("the temporary directory can be written");
        assert_eq!(tail(&path, 16), "    last words\n");
        assert_eq!(tail(&path, 1000), "    an earlier life\n    last words\n");
        std::fs::remove_file(&path).expect("it is ours");
        assert_eq!(tail(&path, 0), "");
        assert!(indented(&"x".repeat(1000)).chars().count() < 500);
    }
}
