//! A running `lockstep up`: its events, its processes, its end.

use super::process::{Process, lives, signal};
use anyhow::{Context, bail};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks.
const POLL: Duration = Duration::from_millis(20);
/// From SIGTERM to the end of everything, when it is dropped.
const END: Duration = Duration::from_secs(30);

/// What a running `up` said so far.
#[derive(Debug, Default)]
struct Heard {
    events: Vec<Value>,
    log: String,
    /// A line on stdout that is no JSON.
    nonsense: Option<String>,
}

/// A running `lockstep up -o json`. Dropping it ends it and everything that it started.
#[derive(Debug)]
pub struct Up {
    child: Child,
    heard: Arc<Mutex<Heard>>,
    readers: Vec<JoinHandle<()>>,
    listen: String,
    data_dir: PathBuf,
}

impl Up {
    /// Runs `command`, whose last words run `lockstep`, as `… up -o json --listen 127.0.0.1:0` with more arguments, and
    /// waits until it is ready; gives up where `give_up` says so.
    ///
    /// # Errors
    /// It does not start, ends, or is given up; with its log.
    pub fn start(mut command: Command, arguments: &[&str], mut give_up: impl FnMut() -> bool) -> anyhow::Result<Self> {
        command.args(["up", "-o", "json", "--listen", "127.0.0.1:0"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut readers = Vec::new();
        readers.extend(stdout.map(|stdout| listen(stdout, heard.clone(), Heard::event)));
        readers.extend(stderr.map(|stderr| listen(stderr, heard.clone(), Heard::line)));
        let mut up = Self { child, heard, readers, listen: String::new(), data_dir: PathBuf::new() };
        loop {
            if let Some(status) = up.child.try_wait()? {
                bail!("up ended with {status}:\n{}", up.log());
            }
            if let Some(ready) = up.events().into_iter().find(|event| event["event"] == "ready") {
                ready["listen"].as_str().context("the ready event says where")?.clone_into(&mut up.listen);
                up.data_dir = PathBuf::from(ready["data_dir"].as_str().context("the ready event says where")?);
                return Ok(up);
            }
            if give_up() {
                bail!("up is not ready:\n{}", up.log());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Where clients connect.
    #[must_use]
    pub fn listen(&self) -> &str {
        &self.listen
    }

    /// Where it keeps everything.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What a part and its earlier lives logged.
    #[must_use]
    pub fn log_of(&self, part: &str) -> String {
        std::fs::read_to_string(self.data_dir.join("logs").join(format!("{part}.log"))).unwrap_or_default()
    }

    /// Of `up` itself.
    #[must_use]
    pub fn pid(&self) -> u64 {
        self.child.id().into()
    }

    /// Every event so far.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.heard().events.clone()
    }

    /// Everything on stderr so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.heard().log.clone()
    }

    /// The first line on stdout that was no JSON.
    #[must_use]
    pub fn nonsense(&self) -> Option<String> {
        self.heard().nonsense.clone()
    }

    /// The processes, by role and id, as the newest events have them.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        let mut processes = BTreeMap::new();
        for event in &self.heard().events {
            let listed = event["processes"].as_array().map(Vec::as_slice).unwrap_or_default();
            let started = (event["event"] == "started").then_some(event);
            for process in listed.iter().chain(started).filter_map(Process::read) {
                processes.insert((process.role.clone(), process.id), process);
            }
        }
        processes.into_values().collect()
    }

    /// The processes of one role.
    #[must_use]
    pub fn role(&self, role: &str) -> Vec<Process> {
        self.processes().into_iter().filter(|process| process.role == role).collect()
    }

    /// The pids of everything: parts, applications, `up` itself.
    #[must_use]
    pub fn pids(&self) -> Vec<u64> {
        let parts = self.processes().into_iter().flat_map(|part| [Some(part.pid), part.app.map(|(pid, _)| pid)]);
        parts.flatten().chain([self.pid()]).collect()
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// What the system says.
    pub fn ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let pids = self.pids();
            // It ends its children; whatever is left after a while is ended one by one.
            let _ = signal(Signal::TERM, self.pid());
            let end = Instant::now() + END;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(POLL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
            for pid in pids.into_iter().filter(|pid| lives(*pid)) {
                let _ = signal(Signal::KILL, pid);
            }
        }
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

impl Heard {
    fn event(&mut self, line: &str) {
        match serde_json::from_str(line) {
            Ok(event) => self.events.push(event),
            Err(_) => drop(self.nonsense.get_or_insert_with(|| line.to_owned())),
        }
    }

    fn line(&mut self, line: &str) {
        self.log.push_str(line);
        self.log.push('\n');
    }
}

fn listen(stream: impl Read + Send + 'static, heard: Arc<Mutex<Heard>>, hear: fn(&mut Heard, &str)) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            hear(&mut heard.lock().unwrap_or_else(PoisonError::into_inner), &line);
        }
    })
}
