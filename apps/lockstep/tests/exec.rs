//! `lockstep exec` as a container's entry point.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A directory that goes away.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lockstep-exec-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary directory can be written");
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A supervisor of a shell's script that first says its pid.
struct Exec {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Exec {
    fn start(socket: &Path, script: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lockstep"))
            .args(["exec", "--socket"])
            .arg(socket)
            .args(["--", "sh", "-c", &format!("echo $$; {script}")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, lines }
    }

    /// The pid of the next application.
    fn next(&mut self) -> i32 {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it says its pid");
        line.trim().parse().expect("a pid")
    }

    fn signal(&self, signal: &str) {
        kill(i32::try_from(self.child.id()).expect("a pid"), signal);
    }

    fn code(&mut self) -> Option<i32> {
        self.child.wait().expect("it is our child").code()
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kill(pid: i32, signal: &str) {
    let done = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().expect("kill runs");
    assert!(done.success());
}

/// What the supervisor answers.
fn ask(socket: &Path, question: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    stream.write_all(question).expect("it reads");
    stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn a_reset_kills_the_application_with_all_that_it_forked_and_starts_another() {
    let dir = Dir::new("reset");
    let socket = dir.0.join("app.sock");
    let mut exec = Exec::start(&socket, "sleep 600 & echo $!; trap '' TERM; wait; sleep 600");
    let (first, forked) = (exec.next(), exec.next());
    assert_eq!(ask(&socket, b"restart\n"), "restarted\n");
    assert_ne!(exec.next(), first);
    for pid in [first, forked] {
        assert!(!Path::new(&format!("/proc/{pid}/cmdline")).exists() || is_dead(pid), "{pid} was left");
    }
    assert!(ask(&socket, b"please\n").starts_with("error: "));
}

/// Orphans are reaped by the first process of the container; here that is somebody else.
fn is_dead(pid: i32) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) if !stat.contains(") Z ") => std::thread::sleep(Duration::from_millis(10)),
            _ => return true,
        }
    }
    false
}

#[test]
fn an_application_that_ends_is_started_again_and_the_container_lives_on() {
    let dir = Dir::new("again");
    let mut exec = Exec::start(&dir.0.join("app.sock"), "exec sleep 600");
    let first = exec.next();
    kill(first, "KILL");
    let second = exec.next();
    assert_ne!(first, second);
    assert_eq!(exec.child.try_wait().expect("it is our child"), None);
}

#[test]
fn a_stop_is_passed_on_and_the_exit_code_is_the_applications() {
    let dir = Dir::new("stop");
    let mut exec = Exec::start(&dir.0.join("app.sock"), "trap 'exit 7' TERM; echo 1; while :; do sleep 0.05; done");
    exec.next();
    assert_eq!(exec.next(), 1, "it listens to signals now");
    exec.signal("TERM");
    assert_eq!(exec.code(), Some(7));
    let mut exec = Exec::start(&dir.0.join("app.sock"), "exec sleep 600");
    exec.next();
    exec.signal("TERM");
    assert_eq!(exec.code(), Some(128 + 15), "as a shell tells of a signal");
}

#[test]
fn a_command_that_cannot_be_started_is_said_and_ends_the_container() {
    let output = Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(["exec", "--", "/no/such/program"])
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot start `/no/such/program`"));
}

#[test]
fn it_is_installed_whole_and_again() {
    let dir = Dir::new("install");
    for _ in 0..2 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
        assert!(command.args(["exec", "--install"]).arg(&dir.0).status().expect("it runs").success());
    }
    let installed = Command::new(dir.0.join("lockstep")).arg("--version").output().expect("it can be run");
    assert!(installed.status.success());
}
