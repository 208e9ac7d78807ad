//! A running `lockstep up`: its events, its processes, its end.

use super::{binary, http, wait};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// The machine: one test at a time.
static MACHINE: Mutex<()> = Mutex::new(());

/// One process of a cluster, as the last event about it says.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) role: String,
    pub(crate) id: u64,
    pub(crate) pid: u64,
    pub(crate) admin: String,
    /// The application's pid and address, of a sidecar.
    pub(crate) app: Option<(u64, String)>,
    pub(crate) quic: Option<String>,
}

impl Process {
    fn read(event: &Value) -> Self {
        let text = |field: &Value| field.as_str().map(str::to_owned);
        let app = &event["app"];
        Self {
            role: text(&event["role"]).expect("role"),
            id: event["id"].as_u64().expect("id"),
            pid: event["pid"].as_u64().expect("pid"),
            admin: text(&event["admin"]).expect("admin"),
            app: app["pid"].as_u64().zip(text(&app["addr"])),
            quic: text(&event["quic"]),
        }
    }

    /// Ends it without a word.
    pub(crate) fn kill(&self) {
        signal("KILL", self.pid);
    }

    /// Its `/status`.
    pub(crate) fn status(&self) -> Result<Value, String> {
        http::json(&self.admin, "/status")
    }

    /// Whether it says that it is ready.
    pub(crate) fn ready(&self) -> Result<(), String> {
        match http::get(&self.admin, "/readyz?verbose")? {
            (200, _) => Ok(()),
            (code, body) => Err(format!("{} {}: {code} {body}", self.role, self.id)),
        }
    }
}

/// Sends a signal to one process.
pub(crate) fn signal(name: &str, pid: u64) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(sent.expect("kill runs").success(), "cannot send {name} to {pid}");
}

/// Whether a process is there and more than a zombie.
pub(crate) fn lives(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// What a running `up` said so far.
#[derive(Debug, Default)]
struct Heard {
    events: Vec<Value>,
    log: String,
}

/// A running `lockstep up -o json`.
pub(crate) struct Up {
    child: Child,
    heard: Arc<Mutex<Heard>>,
    readers: Vec<JoinHandle<()>>,
    ready: Value,
    _machine: MutexGuard<'static, ()>,
}

impl Up {
    /// Starts `lockstep up -o json --listen 127.0.0.1:0` with more arguments and waits until it is ready.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_by(Command::new(binary::lockstep()), arguments)
    }

    /// The same, by a command whose last words run `lockstep`.
    pub(crate) fn start_by(mut command: Command, arguments: &[&str]) -> Self {
        let machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        command.args(["up", "-o", "json", "--listen", "127.0.0.1:0"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("lockstep starts");
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let readers = vec![
            listen(stdout, heard.clone(), |heard, line| {
                let event =
                    serde_json::from_str(line).unwrap_or_else(|_| panic!("stdout has a line of no JSON: {line}"));
                heard.events.push(event);
            }),
            listen(stderr, heard.clone(), |heard, line| {
                heard.log.push_str(line);
                heard.log.push('\n');
            }),
        ];
        let mut up = Self { child, heard, readers, ready: Value::Null, _machine: machine };
        up.ready = wait::until("ready", || {
            if let Ok(Some(status)) = up.child.try_wait() {
                panic!("up ended with {status}:\n{}", up.log());
            }
            up.events().into_iter().find(|event| event["event"] == "ready").ok_or_else(|| up.log())
        });
        up
    }

    /// Where clients connect.
    pub(crate) fn listen(&self) -> &str {
        self.ready["listen"].as_str().expect("the ready event says where")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        Path::new(self.ready["data_dir"].as_str().expect("the ready event says where")).to_owned()
    }

    /// What a part and its earlier lives logged.
    pub(crate) fn log_of(&self, part: &str) -> String {
        std::fs::read_to_string(self.data_dir().join("logs").join(format!("{part}.log"))).unwrap_or_default()
    }

    /// Ends everything at once without a word: parts, applications, `up` itself.
    pub(crate) fn kill_all(mut self) {
        let pids: Vec<String> = self.pids().iter().map(u64::to_string).collect();
        // Some may be gone by the time the kernel comes to them.
        let _ = Command::new("kill").arg("-KILL").args(&pids).stderr(Stdio::null()).status();
        self.wait();
    }

    pub(crate) fn pid(&self) -> u64 {
        self.child.id().into()
    }

    /// Every event so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).events.clone()
    }

    /// Everything on stderr so far.
    pub(crate) fn log(&self) -> String {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).log.clone()
    }

    /// The processes, by role and id, as the newest events have them.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let mut processes = BTreeMap::new();
        for event in self.events() {
            let listed = event["processes"].as_array().cloned().unwrap_or_default();
            let started = (event["event"] == "started").then_some(event);
            for process in listed.iter().chain(&started).map(Process::read) {
                processes.insert((process.role.clone(), process.id), process);
            }
        }
        processes.into_values().collect()
    }

    /// The processes of one role.
    pub(crate) fn role(&self, role: &str) -> Vec<Process> {
        self.processes().into_iter().filter(|process| process.role == role).collect()
    }

    /// The pids of everything: parts, applications, `up` itself.
    pub(crate) fn pids(&self) -> Vec<u64> {
        let parts = self.processes().into_iter().flat_map(|part| [Some(part.pid), part.app.map(|(pid, _)| pid)]);
        parts.flatten().chain([self.pid()]).collect()
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
        wait::until("ended", || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}")),
        })
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of up ----\n{}\n---- events ----\n{:#?}", self.log(), self.events());
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            let pids = self.pids();
            // It ends its children; whatever is left after a while is ended one by one.
            let _ = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
            let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
            while matches!(self.child.try_wait(), Ok(None)) && std::time::Instant::now() < end {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
            for pid in pids.into_iter().filter(|pid| lives(*pid)) {
                let _ = Command::new("kill").arg("-KILL").arg(pid.to_string()).status();
            }
        }
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

fn listen(
    stream: impl Read + Send + 'static,
    heard: Arc<Mutex<Heard>>,
    mut hear: impl FnMut(&mut Heard, &str) + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            hear(&mut heard.lock().unwrap_or_else(PoisonError::into_inner), &line);
        }
    })
}
