//! The majority is lost, or everything is: from one survivor, and from a backup (README, "When the majority is lost").

use super::binary::lockstep;
use super::data_dir::Directory;
use super::hashmap::netcat;
use super::scaling::{Part, free_port};
use super::snapshots::OFTEN;
use super::up::{Up, machine};
use super::wait;
use lockstep_tests::linear::{self, Call, Op, Outcome};
use mesh::rng::Rng;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The counted part of a generation's name.
fn count(generation: &Value) -> u32 {
    let name = generation.as_str().expect("a generation's name");
    name.split_once('-').and_then(|(count, _)| count.parse().ok()).expect("its number comes first")
}

fn run(arguments: &[&str]) -> Output {
    Command::new(lockstep()).args(arguments).output().expect("lockstep runs")
}

/// What it says on stderr, and its exit code.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(arguments);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn done(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The members of an `up` that was killed, as parts by hand.
struct ByHand {
    directory: Directory,
    /// The members' QUIC addresses.
    quic: Vec<String>,
}

impl ByHand {
    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.directory.as_str()).join(name)
    }

    fn command(&self, role: &str, id: usize, admin: &str) -> Command {
        let mut command = Command::new(lockstep());
        command.args([role, "--cluster", "local", "--id", &id.to_string(), "--admin", admin, "--pki"]);
        command.arg(self.path("pki"));
        command
    }

    /// The sidecar of a member, which has its data there; as it was started before.
    fn sidecar(&self, id: usize, data: &Path) -> (Command, String) {
        let admin = format!("127.0.0.1:{}", free_port());
        let seeds: Vec<String> = self.quic.iter().enumerate().map(|(id, quic)| format!("{id}={quic}")).collect();
        let mut command = self.command("sidecar", id, &admin);
        command.args(["--seeds", &seeds.join(","), "--quic", &self.quic[id], "--protocol", "line", "--data-dir"]);
        command.arg(data).args(["--snapshot", "request", "--snapshot-dialect", "hashmap"]);
        command.args(["--app-port", &free_port().to_string(), "--"]).arg(lockstep());
        command.args(["hashmap", "--listen", "127.0.0.1:{port}"]);
        (command, admin)
    }

    /// A SMaRtClient that asks this member alone, and an ingress; where clients connect.
    fn entrance(&self, id: usize) -> (Part, Part, String) {
        let [quic, smart, admin, listen] = [(); 4].map(|()| format!("127.0.0.1:{}", free_port()));
        let mut command = self.command("smart-client", 0, &smart);
        command.args(["--quic", &quic, "--servers", &format!("{id}={}", self.quic[id])]);
        let smart_client = Part::start(command, smart, &self.path("smart-client.log"));
        let mut command = self.command("ingress", 0, &admin);
        command.args(["--smart-clients", &quic, "--protocol", "line", "--listen", &listen]);
        (smart_client, Part::start(command, admin, &self.path("ingress.log")), listen)
    }
}

/// An `up` with twenty entries on all replicas, killed; the directories of its first two members are gone, or kept aside.
fn majority_lost() -> (ByHand, PathBuf) {
    let directory = Directory::new();
    let up = Up::start(&[&OFTEN[..], &["--data-dir", directory.as_str()]].concat());
    let puts: String = (0..20).map(|n| format!("PUT k{n} {n}\n")).collect();
    assert_eq!(netcat(up.listen(), &puts).expect("it serves"), "OK\n".repeat(20));
    for status in up.settled() {
        assert_eq!(count(&status["generation"]), 1, "{status}");
    }
    let quic = up.role("sidecar").into_iter().map(|part| part.quic.expect("a sidecar has one")).collect();
    up.kill_all();
    let kept = Path::new(directory.as_str()).join("kept-1");
    std::fs::rename(directory.server(1), &kept).expect("it is there");
    std::fs::remove_dir_all(directory.server(0)).expect("it is there");
    (ByHand { directory, quic }, kept)
}

fn twenty(address: &str) {
    let gets: String = (0..20).map(|n| format!("GET k{n}\n")).collect();
    let values: String = (0..20).map(|n| format!("VALUE {n}\n")).collect();
    wait::until("serving", || match netcat(address, &gets) {
        Ok(replies) if replies == values => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// The member that was left behind is refused, says so, and has no history once its data is set aside.
fn left_behind(parts: &ByHand, kept: &Path) {
    let (command, admin) = parts.sidecar(1, kept);
    let mut old = Part::start_unready(command, admin, &parts.path("old.log"));
    wait::until("told that it is left behind", || {
        let status = old.process.status()?;
        let hints = status["hints"].to_string();
        if hints.contains("lockstep members set-aside") { Ok(()) } else { Err(status.to_string()) }
    });
    let kept_in = kept.to_str().expect("a path of ASCII");
    let (code, why) = refused(&["members", "set-aside", "--id", "1", "--data-dir", kept_in, "--yes"]);
    assert!(code == Some(3) && why.contains("in use"), "{code:?} {why}");
    old.end("TERM");
    let moved = done(&["members", "set-aside", "--id", "1", "--data-dir", kept_in, "--yes"]);
    assert!(moved.contains("journal.superseded-1"), "{moved}");
    let (command, admin) = parts.sidecar(1, kept);
    let blank = Part::start_unready(command, admin, &parts.path("blank.log"));
    wait::until("waiting for its cluster", || {
        let status = blank.process.status()?;
        if status["role"] == "waiting" { Ok(()) } else { Err(status.to_string()) }
    });
}

#[test]
fn the_cluster_goes_on_from_one_survivor_and_comes_back_to_three_by_a_backup() {
    let (parts, kept) = majority_lost();
    let machine = machine();
    let data = parts.directory.as_str();
    let force = ["members", "force-new-cluster", "--from", "2", "--data-dir", data];
    let (code, why) = refused(&force);
    assert!(code == Some(3) && why.contains("Lost: every request that was acknowledged in a slot above"), "{why}");
    assert!(why.contains("--yes"), "{why}");
    let (code, why) = refused(&["members", "force-new-cluster", "--from", "0", "--data-dir", data, "--yes"]);
    assert!(code == Some(3) && why.contains("server-0"), "{why}");
    done(&[&force[..], &["--yes"]].concat());

    let (command, admin) = parts.sidecar(2, &parts.directory.server(2));
    let mut survivor = Part::start(command, admin, &parts.path("survivor.log"));
    let status = survivor.process.status().expect("it answers");
    assert_eq!((count(&status["generation"]), &status["members"]), (2, &serde_json::json!([2])), "{status}");
    let (smart_client, ingress, address) = parts.entrance(2);
    twenty(&address);
    assert_eq!(netcat(&address, "PUT after 1\n").expect("it serves"), "OK\n");
    left_behind(&parts, &kept);
    assert_eq!(netcat(&address, "GET after\n").expect("it serves"), "VALUE 1\n", "the old member changes nothing");

    let file = parts.path("backup");
    let file = file.to_str().expect("a path of ASCII");
    let (pki, seed) = (parts.path("pki"), format!("2={}", parts.quic[2]));
    let pki = pki.to_str().expect("a path of ASCII");
    let reach = ["backup", "create", file, "--cluster", "local", "--seeds", &seed, "--id", "up", "--pki", pki];
    assert!(done(&reach).contains("generation 2-"));
    let (code, why) = refused(&reach);
    assert!(code == Some(3) && why.contains("--force"), "{why}");
    done(&[&reach[..], &["--force"]].concat());
    drop((smart_client, ingress));
    survivor.end("TERM");
    drop(machine);

    let new = Directory::new();
    let restore = ["backup", "restore", file, "--data-dir", new.as_str(), "--replicas", "3", "--yes"];
    let (code, why) = refused(&[&restore[..], &["--cluster", "another"]].concat());
    assert!(code == Some(3) && why.contains("not of another"), "{why}");
    done(&restore);
    let up = Up::start(&["--data-dir", new.as_str()]);
    twenty(up.listen());
    assert_eq!(netcat(up.listen(), "GET after\nSIZE\n").expect("it serves"), "VALUE 1\n21\n");
    for status in up.settled() {
        assert_eq!((count(&status["generation"]), &status["members"]), (3, &serde_json::json!([0, 1, 2])), "{status}");
    }
    let (code, why) = refused(&restore);
    assert!(code == Some(3) && why.contains("in use"), "{why}");
    drop(up);
    let (code, why) = refused(&restore);
    assert!(code == Some(3) && why.contains("has snapshots already"), "nothing is restored over history: {why}");
}

/// A client that calls one thing after the other, and keeps what it saw.
fn client(number: u32, address: &str, begun: Instant, stop: &AtomicBool, calls: &AtomicU64) -> Vec<Call> {
    let mut rng = Rng::from_seed(u64::from(number));
    let stream = TcpStream::connect(address).expect("the ingress listens");
    stream.set_nodelay(true).expect("a socket option");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket option");
    let mut link = BufReader::new(stream);
    let mut trace: Vec<Call> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let key = format!("k{}", rng.below(8));
        let op = match rng.below(10) {
            0..6 => Op::Put { key, value: format!("{number}.{}", trace.len()) },
            6..8 => Op::Remove { key },
            _ => Op::Get { key },
        };
        let called = nanos(begun);
        let mut reply = String::new();
        let written = link.get_mut().write_all(format!("{}\n", op.line()).as_bytes());
        written.and_then(|()| link.read_line(&mut reply)).expect("nothing fails here");
        let outcome = Outcome::Reply { returned: nanos(begun), reply: reply.trim_end().to_owned() };
        trace.push(Call { client: number, called, op, outcome });
        calls.fetch_add(1, Ordering::Relaxed);
    }
    trace
}

/// A client that writes the same number first to `a` and then to `b`, until it is to stop.
fn pairs(address: &str, stop: &AtomicBool) {
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        assert_eq!(netcat(address, &format!("PUT a {number}\nPUT b {number}\n")).expect("it serves"), "OK\nOK\n");
    }
}

fn nanos(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_nanos()).expect("no test takes centuries")
}

fn get(address: &str, key: &str) -> String {
    netcat(address, &format!("GET {key}\n")).expect("it serves").trim_end().to_owned()
}

#[test]
fn a_backup_under_load_is_the_state_at_one_moment_while_it_was_made() {
    let (old, new) = (Directory::new(), Directory::new());
    let file = Path::new(old.as_str()).with_extension("backup");
    let up = Up::start(&["--data-dir", old.as_str()]);
    let (begun, stop, calls) = (Instant::now(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<JoinHandle<Vec<Call>>> = (0..6)
        .map(|number| {
            let (address, stop, calls) = (up.listen().to_owned(), stop.clone(), calls.clone());
            std::thread::spawn(move || client(number, &address, begun, &stop, &calls))
        })
        .collect();
    let pairing = {
        let (address, stop) = (up.listen().to_owned(), stop.clone());
        std::thread::spawn(move || pairs(&address, &stop))
    };
    let more = |count: u64| {
        let from = calls.load(Ordering::Relaxed);
        wait::until("going on", || {
            let now = calls.load(Ordering::Relaxed);
            if now >= from + count { Ok(()) } else { Err(format!("{now} calls")) }
        });
    };
    more(300);
    let from = nanos(begun);
    done(&["backup", "create", file.to_str().expect("a path of ASCII"), "--data-dir", old.as_str()]);
    let to = nanos(begun);
    more(300);
    stop.store(true, Ordering::Relaxed);
    let mut history: Vec<Call> = clients.into_iter().flat_map(|client| client.join().expect("no surprise")).collect();
    pairing.join().expect("no surprise");
    let last: Vec<String> = (0..8).map(|key| get(up.listen(), &format!("k{key}"))).collect();
    drop(up);

    let data = new.as_str();
    done(&[
        "backup",
        "restore",
        file.to_str().expect("a path of ASCII"),
        "--data-dir",
        data,
        "--replicas",
        "3",
        "--yes",
    ]);
    std::fs::remove_file(&file).expect("it is there");
    let up = Up::start(&["--data-dir", data]);
    let restored: Vec<String> = (0..8).map(|key| get(up.listen(), &format!("k{key}"))).collect();
    assert_ne!(restored, last, "it went on after the backup");
    // What was read of the restored state is what somebody would have read at one moment of the backup.
    history.extend(restored.iter().enumerate().map(|(key, reply)| Call {
        client: 99,
        called: from,
        op: Op::Get { key: format!("k{key}") },
        outcome: Outcome::Reply { returned: to, reply: reply.clone() },
    }));
    let checked = linear::check(&history).unwrap_or_else(|fault| panic!("{fault}"));
    assert!(checked.calls >= 600 && checked.keys == 8, "{checked:?}");
    // And of one moment for all keys: b never is ahead of a, nor behind it by more than one.
    let number = |key| get(up.listen(), key).strip_prefix("VALUE ").and_then(|text| text.parse::<u64>().ok());
    let (a, b) = (number("a").expect("it was written"), number("b").unwrap_or_default());
    assert!(a == b || a == b + 1, "a is {a}, b is {b}");
}
