//! A cluster on this machine: this program as `up`, its processes, and its end.

use crate::http;
use crate::metrics::Metrics;
use crate::procfs::{self, Usage};
use crate::stop;
use crate::wire::Protocol;
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// It must be ready within this.
const STARTING: Duration = Duration::from_secs(120);
/// From SIGTERM to the end of everything.
const ENDING: Duration = Duration::from_secs(40);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// The application of a sidecar.
#[derive(Clone, Debug, Deserialize)]
struct App {
    pid: Option<u32>,
}

/// A part that runs.
#[derive(Clone, Debug, Deserialize)]
struct Part {
    role: String,
    id: u32,
    pid: Option<u32>,
    admin: SocketAddr,
    app: Option<App>,
}

/// What `up` says when a request would succeed.
#[derive(Clone, Debug, Deserialize)]
struct Ready {
    listen: SocketAddr,
    data_dir: PathBuf,
    processes: Vec<Part>,
}

/// A running cluster; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Cluster {
    child: Child,
    ready: Ready,
    protocol: Protocol,
}

/// What a role's processes did so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoleUsage {
    /// How many processes.
    pub(crate) processes: usize,
    /// What they used.
    pub(crate) usage: Usage,
    /// Bytes of memory that they have in RAM now.
    pub(crate) resident: u64,
}

/// All of a cluster at one instant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// By role; the leader's sidecar is a role of its own.
    pub(crate) roles: BTreeMap<String, RoleUsage>,
    /// Ticks of each thread, by role and name.
    pub(crate) threads: BTreeMap<(String, String), u64>,
    /// By role.
    pub(crate) metrics: BTreeMap<String, Metrics>,
    /// Who leads.
    pub(crate) leader: Option<u32>,
}

/// The leader's sidecar, as a role.
pub(crate) const LEADER: &str = "sidecar, leader";
/// The others.
const FOLLOWER: &str = "sidecar, follower";
const APPLICATION: &str = "application";

impl Cluster {
    /// Starts `up` with these arguments and waits until it is ready.
    ///
    /// # Errors
    /// It does not start, or ends; with its log.
    pub(crate) fn start(arguments: &[String]) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program cannot find itself")?;
        let given: Vec<&str> = arguments.iter().map(String::as_str).take_while(|word| *word != "--").collect();
        let mut command = Command::new(program);
        command.args(["up", "-o", "json"]);
        if value(&given, "--listen").is_none() {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start `lockstep up`")?;
        let log = child.stderr.take().map(|stderr| std::thread::spawn(move || last_words(stderr)));
        let (sender, events) = mpsc::sync_channel(1);
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || first_ready(stdout, &sender));
        }
        let begun = Instant::now();
        let ready = loop {
            match events.recv_timeout(LOOK) {
                Ok(ready) => break ready,
                Err(mpsc::RecvTimeoutError::Timeout) if begun.elapsed() < STARTING && stop::check().is_ok() => {}
                Err(_) => {
                    let ended = child.try_wait()?.is_some();
                    end(&mut child);
                    stop::check()?;
                    let log = log.and_then(|log| log.join().ok()).unwrap_or_default();
                    let what = if ended { "ended" } else { "is not ready in time" };
                    bail!("`lockstep up {}` {what}:\n{log}", arguments.join(" "));
                }
            }
        };
        let protocol = value(&given, "--protocol").and_then(Protocol::from_name).unwrap_or(Protocol::Line);
        Ok(Self { child, ready, protocol })
    }

    /// Where clients connect.
    pub(crate) fn listen(&self) -> SocketAddr {
        self.ready.listen
    }

    /// What it speaks.
    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Where it keeps everything.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.ready.data_dir
    }

    /// Every process of it, `up` itself and what applications started included.
    pub(crate) fn pids(&self) -> Vec<u32> {
        procfs::family(self.child.id())
    }

    /// The admin port of the member that leads, or of the first one.
    pub(crate) fn leader_admin(&self) -> Option<SocketAddr> {
        let leader = self.leader();
        let mut sidecars = self.ready.processes.iter().filter(|part| part.role == "sidecar");
        let found = sidecars.clone().find(|part| Some(part.id) == leader).or_else(|| sidecars.next());
        found.map(|part| part.admin)
    }

    fn leader(&self) -> Option<u32> {
        let sidecars = self.ready.processes.iter().filter(|part| part.role == "sidecar");
        sidecars.filter_map(|part| status(part).ok()).find_map(|status| {
            (status["role"] == "leader").then(|| status["id"].as_u64()).flatten().and_then(|id| u32::try_from(id).ok())
        })
    }

    /// What everything did so far.
    pub(crate) fn look(&self) -> Look {
        let mut look = Look { leader: self.leader(), ..Look::default() };
        // CPU first, all at the same time; the metrics cost some themselves.
        for part in &self.ready.processes {
            let role = role(part, look.leader);
            if let Some(pid) = part.pid {
                look.add(role, &[pid]);
            }
            if let Some(pid) = part.app.as_ref().and_then(|app| app.pid) {
                look.add(APPLICATION, &procfs::family(pid));
            }
        }
        for part in &self.ready.processes {
            let role = role(part, look.leader);
            if let Ok(text) = http::get(part.admin, "/metrics") {
                look.metrics.entry(role.to_owned()).or_default().add(&Metrics::read(&text));
            }
        }
        look
    }
}

impl Look {
    fn add(&mut self, role: &str, pids: &[u32]) {
        let all = self.roles.entry(role.to_owned()).or_default();
        for pid in pids {
            all.processes += 1;
            all.usage = all.usage + procfs::usage(*pid);
            all.resident += procfs::resident(*pid);
            for (thread, ticks) in procfs::by_thread(*pid) {
                *self.threads.entry((role.to_owned(), thread)).or_default() += ticks;
            }
        }
    }
}

fn role(part: &Part, leader: Option<u32>) -> &str {
    match part.role.as_str() {
        "sidecar" if leader == Some(part.id) => LEADER,
        "sidecar" => FOLLOWER,
        other => other,
    }
}

fn status(part: &Part) -> anyhow::Result<serde_json::Value> {
    Ok(serde_json::from_str(&http::get(part.admin, "/status")?)?)
}

/// The value of a flag, as `--flag value` or `--flag=value`.
pub(crate) fn value<'a>(words: &[&'a str], flag: &str) -> Option<&'a str> {
    words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix(flag) {
        Some("") => words.get(at + 1).copied(),
        Some(rest) => rest.strip_prefix('='),
        None => None,
    })
}

fn first_ready(stdout: impl Read, sender: &mpsc::SyncSender<Ready>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        // Whoever writes is not to be held up, so everything is read to the end.
        if let Ok(ready) = serde_json::from_str(&line) {
            let _ = sender.try_send(ready);
        }
    }
}

/// The end of what is written.
pub(crate) fn last_words(stream: impl Read) -> String {
    const KEPT: usize = 8 << 10;
    let mut all = String::new();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        all.push_str(&line);
        all.push('\n');
        if all.len() > 2 * KEPT {
            let cut = all.ceil_char_boundary(all.len() - KEPT);
            all.drain(..cut);
        }
    }
    all
}

/// Asks a child to end, waits, and kills it if it does not.
pub(crate) fn end(child: &mut Child) {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    let family = procfs::family(child.id());
    signal(child.id(), Signal::TERM);
    let until = Instant::now() + ENDING;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
        std::thread::sleep(LOOK);
    }
    if matches!(child.try_wait(), Ok(None)) {
        let _ = child.kill();
        let _ = child.wait();
        // What it started is ours too.
        family.into_iter().skip(1).for_each(|pid| signal(pid, Signal::KILL));
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself: as good.
        let _ = kill_process(pid, signal);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_found_in_both_ways_of_writing_it() {
        let words = ["-n", "3", "--protocol", "resp", "--listen=127.0.0.1:7000", "--protocols"];
        assert_eq!(value(&words, "--protocol"), Some("resp"));
        assert_eq!(value(&words, "--listen"), Some("127.0.0.1:7000"));
        assert_eq!(value(&words, "--rate"), None);
    }

    #[test]
    fn the_ready_event_is_read_as_up_prints_it() {
        let text = concat!(
            r#"{"event":"ready","listen":"127.0.0.1:7000","data_dir":"/d","pki":"/d/pki","processes":["#,
            r#"{"role":"sidecar","id":0,"pid":41,"admin":"127.0.0.1:9400","quic":"127.0.0.1:7500","app":{"pid":51,"addr":"127.0.0.1:9500"}},"#,
            r#"{"role":"ingress","id":0,"pid":46,"admin":"127.0.0.1:9401","listen":"127.0.0.1:7000"}]}"#,
        );
        let (sender, events) = mpsc::sync_channel(1);
        first_ready(format!("no JSON\n{text}\n").as_bytes(), &sender);
        let ready: Ready = events.recv().expect("there is one");
        assert_eq!((ready.listen.port(), ready.processes.len()), (7000, 2));
        assert_eq!(ready.processes[0].app.as_ref().and_then(|app| app.pid), Some(51));
        assert_eq!(role(&ready.processes[0], Some(0)), LEADER);
        assert_eq!(role(&ready.processes[1], Some(0)), "ingress");
    }

    #[test]
    fn of_a_long_log_the_end_is_kept() {
        let log: String = (0..10_000).map(|number| format!("line {number}\n")).collect();
        let kept = last_words(log.as_bytes());
        assert!(kept.ends_with("line 9999\n") && kept.len() < 20_000);
    }
}
