//! A running `lockstep up` in a test: has the machine to itself, and fails with its log.

use super::{binary, wait};
use lockstep_tests::driver::{self, Signal};
pub(crate) use lockstep_tests::driver::{Process, lives};
use serde_json::Value;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The machine: one test at a time.
static MACHINE: Mutex<()> = Mutex::new(());

/// Waits until no other test has it.
pub(crate) fn machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends a signal to one process.
pub(crate) fn signal(name: &str, pid: u64) {
    try_signal(name, pid).unwrap();
}

/// Sends a signal to one process that may be gone.
pub(crate) fn try_signal(name: &str, pid: u64) -> anyhow::Result<()> {
    let signal = match name {
        "KILL" => Signal::KILL,
        "TERM" => Signal::TERM,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        other => panic!("no test sends {other}"),
    };
    driver::signal(signal, pid)
}

/// A running `lockstep up -o json`.
pub(crate) struct Up {
    up: driver::Up,
    _machine: MutexGuard<'static, ()>,
}

impl Deref for Up {
    type Target = driver::Up;

    fn deref(&self) -> &driver::Up {
        &self.up
    }
}

impl Up {
    /// Starts `lockstep up -o json --listen 127.0.0.1:0` with more arguments and waits until it is ready.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_by(Command::new(binary::lockstep()), arguments)
    }

    /// The same, by a command whose last words run `lockstep`.
    pub(crate) fn start_by(command: Command, arguments: &[&str]) -> Self {
        let machine = machine();
        let end = Instant::now() + wait::PATIENCE;
        let up = driver::Up::start(command, arguments, || Instant::now() >= end);
        Self { up: up.unwrap_or_else(|error| panic!("{error:#}")), _machine: machine }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.up.data_dir().to_owned()
    }

    /// Ends everything at once without a word: parts, applications, `up` itself.
    pub(crate) fn kill_all(mut self) {
        let pids: Vec<String> = self.pids().iter().map(u64::to_string).collect();
        // Some may be gone by the time the kernel comes to them.
        let _ = Command::new("kill").arg("-KILL").args(&pids).stderr(Stdio::null()).status();
        self.wait();
    }

    /// The sidecar that leads, and the others.
    pub(crate) fn leader(&self) -> (Process, Vec<Process>) {
        wait::until("led", || {
            let (mut leaders, mut others) = (Vec::new(), Vec::new());
            for sidecar in self.role("sidecar") {
                let leads = sidecar.status()?["role"] == "leader";
                if leads { leaders.push(sidecar) } else { others.push(sidecar) }
            }
            match leaders.pop() {
                Some(leader) if leaders.is_empty() => Ok((leader, others)),
                _ => Err(format!("leaders: {leaders:?}")),
            }
        })
    }

    /// The sidecar that leads, while another one stands still and cannot be asked.
    pub(crate) fn leader_beside(&self, still: u64) -> Process {
        wait::until("led", || {
            let asked = self.role("sidecar").into_iter().filter(|sidecar| sidecar.id != still);
            let mut leaders = asked.filter(|sidecar| sidecar.status().is_ok_and(|status| status["role"] == "leader"));
            leaders.next().ok_or_else(|| self.log())
        })
    }

    /// Waits until `role` `id` runs with another pid than `pid` and is ready.
    pub(crate) fn restarted(&self, role: &str, id: u64, pid: u64) -> Process {
        wait::until("restarted and ready", || {
            let process = self.role(role).into_iter().find(|part| part.id == id && part.pid != pid);
            let process = process.ok_or_else(|| format!("{role} {id}: no new process; log:\n{}", self.log()))?;
            process.ready().map(|()| process)
        })
    }

    /// Waits until all sidecars have executed the same slots, and returns their statuses.
    pub(crate) fn settled(&self) -> Vec<Value> {
        wait::until("settled", || {
            let statuses: Result<Vec<_>, _> = self.role("sidecar").iter().map(Process::status).collect();
            let statuses = statuses?;
            let marks: Vec<_> = statuses.iter().map(|status| (&status["decided"], &status["executed"])).collect();
            let same = marks.iter().all(|(decided, executed)| decided == executed && *executed == marks[0].1);
            if same { Ok(statuses) } else { Err(format!("{marks:?}")) }
        })
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        signal("TERM", self.pid());
        self.wait()
    }

    /// Waits until `up` itself has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait::until("ended", || match self.up.ended() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}")),
        })
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of up ----\n{}\n---- events ----\n{:#?}", self.log(), self.events());
        } else if let Some(line) = self.nonsense() {
            panic!("stdout has a line of no JSON: {line}");
        }
    }
}
