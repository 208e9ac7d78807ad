//! `lockstep up` with real processes: from the first start to the end of everything.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Patience for anything that a loaded machine may take long for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `up`; ended with the test.
struct Up {
    child: Child,
    events: Receiver<Value>,
    ready: Value,
}

impl Up {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lockstep"))
            .args(["up", "-o", "json", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let events = lines(child.stdout.take().expect("it is piped"));
        let mut up = Self { child, events, ready: Value::Null };
        up.ready = up.wait_for(|event| event["event"] == "ready");
        up
    }

    /// The next event that fits.
    fn wait_for(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).expect("the event comes in time");
            if fits(&event) {
                return event;
            }
        }
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.ready["listen"].as_str().expect("an address")).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        stream.write_all(request.as_bytes()).expect("it reads");
        stream.shutdown(Shutdown::Write).expect("half of it closes");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("it answers");
        reply
    }

    /// All processes that `ready` named.
    fn pids(&self) -> Vec<u64> {
        let processes = self.ready["processes"].as_array().expect("a list");
        processes.iter().flat_map(|part| [part["pid"].as_u64(), part["app"]["pid"].as_u64()]).flatten().collect()
    }

    fn part(&self, role: &str, id: u64) -> &Value {
        let processes = self.ready["processes"].as_array().expect("a list");
        processes.iter().find(|part| part["role"] == role && part["id"] == id).expect("there is such a part")
    }

    /// Ends it as a service manager does; its exit code.
    fn stop(mut self) -> Option<i32> {
        signal("TERM", u64::from(self.child.id()));
        self.child.wait().expect("it is our child").code()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // After a failed test; after a good one it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stdout: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON on stdout: {line}"));
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

fn signal(name: &str, pid: u64) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().expect("there is kill");
    assert!(status.success(), "kill -{name} {pid}");
}

/// Whether the process runs; a zombie does not.
fn runs(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z') && !rest.starts_with('X'))
}

fn all_gone(pids: &[u64]) {
    let end = Instant::now() + PATIENCE;
    while pids.iter().any(|pid| runs(*pid)) {
        assert!(Instant::now() < end, "still running: {:?}", pids.iter().filter(|pid| runs(**pid)).collect::<Vec<_>>());
        std::thread::yield_now();
    }
}

/// A data directory that goes away with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("lockstep-test-up-{}-{name}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("an ASCII path")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn lockstep(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_lockstep")).args(arguments).output().expect("the program runs");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_cluster_answers_shows_its_status_and_ends_without_a_trace() {
    let up = Up::start(&[]);
    assert_eq!(up.ask("PUT a 1\nGET a\nSIZE\n"), "OK\nVALUE 1\n1\n");
    let dir = up.ready["data_dir"].as_str().expect("a path").to_owned();
    assert_eq!(lockstep(&["call", "--data-dir", &dir, "GET a"]), (Some(0), "VALUE 1\n".to_owned()));
    let (code, text) = lockstep(&["status", "-o", "json", "--data-dir", &dir]);
    let status: Value = serde_json::from_str(&text).expect("one JSON document");
    assert_eq!((code, status["replicas"].as_array().map(Vec::len)), (Some(0), Some(3)), "{text}");
    let pids = up.pids();
    assert_eq!(pids.len(), 3 * 2 + 2 + 1);
    assert_eq!(up.stop(), Some(0));
    all_gone(&pids);
    assert!(!Path::new(&dir).exists());
}

#[test]
fn what_is_killed_comes_back_and_is_told_of() {
    let up = Up::start(&[]);
    assert_eq!(up.ask("PUT a 1\n"), "OK\n");
    let pid = up.part("sidecar", 0)["pid"].as_u64().expect("a pid");
    signal("KILL", pid);
    let exited = up.wait_for(|event| event["event"] == "exited");
    assert_eq!(
        (&exited["role"], &exited["pid"], &exited["status"]),
        (&"sidecar".into(), &pid.into(), &"signal 9".into())
    );
    let started = up.wait_for(|event| event["event"] == "started" && event["reason"] == "part");
    assert_eq!((&started["role"], &started["id"]), (&"sidecar".into(), &0.into()));
    let app = up.part("sidecar", 1)["app"]["pid"].as_u64().expect("a pid");
    signal("KILL", app);
    let started = up.wait_for(|event| event["event"] == "started" && event["reason"] == "app" && event["id"] == 1);
    assert_ne!(started["app"]["pid"], app);
    assert_eq!(up.ask("GET a\n"), "VALUE 1\n");
    assert_eq!(up.stop(), Some(0));
}

#[test]
fn a_directory_is_kept_and_resumed_with_the_same_ports() {
    let dir = Dir::new("resume");
    let up = Up::start(&["--data-dir", dir.path()]);
    assert_eq!(up.ask("PUT a kept\n"), "OK\n");
    assert_eq!(lockstep(&["up", "--listen", "127.0.0.1:0", "--data-dir", dir.path()]).0, Some(3));
    let quic = up.part("sidecar", 0)["quic"].clone();
    assert_eq!(up.stop(), Some(0));
    assert_eq!(lockstep(&["status", "--data-dir", dir.path()]).0, Some(5));
    assert_eq!(lockstep(&["up", "-n", "5", "--listen", "127.0.0.1:0", "--data-dir", dir.path()]).0, Some(3));
    let up = Up::start(&["--data-dir", dir.path()]);
    assert_eq!(up.ask("GET a\n"), "VALUE kept\n");
    assert_eq!(up.part("sidecar", 0)["quic"], quic);
    assert_eq!(up.stop(), Some(0));
}

#[test]
fn nothing_outlives_a_killed_up() {
    let dir = Dir::new("killed");
    let mut up = Up::start(&["--data-dir", dir.path()]);
    assert_eq!(up.ask("PUT a kept\n"), "OK\n");
    let pids = up.pids();
    up.child.kill().expect("it is our child");
    up.child.wait().expect("it is our child");
    all_gone(&pids);
    let up = Up::start(&["--data-dir", dir.path()]);
    assert_eq!(up.ask("GET a\n"), "VALUE kept\n");
    assert_eq!(up.stop(), Some(0));
}

#[test]
fn an_application_left_by_a_killed_sidecar_and_a_killed_up_is_ended_at_the_next_start() {
    let dir = Dir::new("leftover");
    let mut up = Up::start(&["--data-dir", dir.path(), "--no-restart"]);
    let sidecar = up.part("sidecar", 0)["pid"].as_u64().expect("a pid");
    let app = up.part("sidecar", 0)["app"]["pid"].as_u64().expect("a pid");
    signal("KILL", sidecar);
    up.wait_for(|event| event["event"] == "exited");
    up.child.kill().expect("it is our child");
    up.child.wait().expect("it is our child");
    assert!(runs(app), "a killed sidecar leaves its application running");
    let up = Up::start(&["--data-dir", dir.path()]);
    assert!(!runs(app));
    assert_eq!(up.stop(), Some(0));
}

#[test]
fn an_address_in_use_is_said_at_once() {
    let up = Up::start(&["-n", "1", "--smart-clients", "1"]);
    let listen = up.ready["listen"].as_str().expect("an address").to_owned();
    assert_eq!(lockstep(&["up", "--listen", &listen]).0, Some(1));
    assert_eq!(up.stop(), Some(0));
}
