//! The majority is lost, or everything is: from one survivor, and from a backup (README, "When the majority is lost").

use super::binary::lockstep;
use super::data_dir::Directory;
use super::hashmap::netcat;
use super::snapshots::OFTEN;
use super::up::Up;
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

/// An `up` with twenty entries on all replicas, killed; of its members' directories one is left, and one is kept aside.
fn majority_lost(directory: &Directory) -> PathBuf {
    let up = Up::start(&[&OFTEN[..], &["--data-dir", directory.as_str()]].concat());
    let puts: String = (0..20).map(|n| format!("PUT k{n} {n}\n")).collect();
    assert_eq!(netcat(up.listen(), &puts).expect("it serves"), "OK\n".repeat(20));
    for status in up.settled() {
        assert_eq!(count(&status["generation"]), 1, "{status}");
    }
    done(&["snapshot", "save", "--data-dir", directory.as_str()]);
    up.kill_all();
    let kept = Path::new(directory.as_str()).join("kept-1");
    std::fs::rename(directory.server(1), &kept).expect("it is there");
    std::fs::remove_dir_all(directory.server(0)).expect("it is there");
    kept
}

fn twenty(address: &str) {
    let gets: String = (0..20).map(|n| format!("GET k{n}\n")).collect();
    let values: String = (0..20).map(|n| format!("VALUE {n}\n")).collect();
    assert_eq!(netcat(address, &gets).expect("it serves"), values);
}

/// Waits until all three vote in that generation.
fn three_again(up: &Up, generation: u32) {
    wait::until("three members again", || {
        for sidecar in up.role("sidecar") {
            let status = sidecar.status()?;
            let well = status["voters"] == serde_json::json!([0, 1, 2]) && count(&status["generation"]) == generation;
            if !well {
                return Err(status.to_string());
            }
        }
        Ok(())
    });
}

#[test]
fn the_cluster_goes_on_from_one_survivor_and_the_others_join_anew() {
    let directory = Directory::new();
    let data = directory.as_str();
    majority_lost(&directory);
    let force = ["members", "force-new-cluster", "--from", "2", "--data-dir", data];
    let (code, why) = refused(&force);
    assert!(code == Some(3) && why.contains("Lost: every request that was acknowledged in a slot above"), "{why}");
    assert!(why.contains("--yes"), "{why}");
    let (code, why) = refused(&["members", "force-new-cluster", "--from", "0", "--data-dir", data, "--yes"]);
    assert!(code == Some(3) && why.contains("server-0"), "{why}");
    done(&[&force[..], &["--yes"]].concat());

    let up = Up::start(&["--data-dir", data]);
    twenty(up.listen());
    assert_eq!(netcat(up.listen(), "PUT after 1\n").expect("it serves"), "OK\n");
    three_again(&up, 2);
    let (code, why) = refused(&[&force[..], &["--yes"]].concat());
    assert!(code == Some(3) && why.contains("in use"), "{why}");
    assert_eq!(netcat(up.listen(), "GET after\nSIZE\n").expect("it serves"), "VALUE 1\n21\n");
    let digests: Vec<_> = up.settled().into_iter().map(|status| status["digest_now"].clone()).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn a_member_that_was_left_behind_is_refused_until_its_data_is_set_aside() {
    let directory = Directory::new();
    let data = directory.as_str();
    let kept = majority_lost(&directory);
    done(&["members", "force-new-cluster", "--from", "2", "--data-dir", data, "--yes"]);
    // Its disk was not lost after all.
    std::fs::rename(&kept, directory.server(1)).expect("it is there");
    let mut up = Up::start(&["--data-dir", data]);
    let old = || up.role("sidecar").into_iter().find(|part| part.id == 1).expect("it is there");
    wait::until("told that it is left behind", || {
        let status = old().status()?;
        let told = status["hints"].to_string().contains("lockstep members set-aside");
        if told && count(&status["generation"]) == 1 { Ok(()) } else { Err(status.to_string()) }
    });
    twenty(up.listen());
    let aside = ["members", "set-aside", "1", "--data-dir", data, "--yes"];
    let (code, why) = refused(&aside);
    assert!(code == Some(3) && why.contains("in use"), "{code:?} {why}");
    up.stop();
    drop(up);
    assert!(done(&aside).contains("journal.superseded-1"));
    let up = Up::start(&["--data-dir", data]);
    three_again(&up, 2);
    twenty(up.listen());
}

#[test]
fn a_member_that_lost_its_journal_brings_no_snapshot_of_the_old_generation_along() {
    let directory = Directory::new();
    let data = directory.as_str();
    let kept = majority_lost(&directory);
    done(&["members", "force-new-cluster", "--from", "2", "--data-dir", data, "--yes"]);
    std::fs::rename(&kept, directory.server(1)).expect("it is there");
    std::fs::remove_dir_all(directory.server(1).join("journal")).expect("it is there");
    let up = Up::start(&["--data-dir", data]);
    three_again(&up, 2);
    twenty(up.listen());
    let files = std::fs::read_dir(directory.server(1).join("snapshots")).expect("it is there").flatten();
    let names: Vec<String> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    assert!(names.iter().any(|name| name.ends_with(".superseded")), "{names:?}");
}

#[test]
fn a_backup_is_not_made_nor_restored_over_anything() {
    let (old, new) = (Directory::new(), Directory::new());
    let file = Path::new(old.as_str()).with_extension("file");
    let file = file.to_str().expect("a path of ASCII");
    let up = Up::start(&["--data-dir", old.as_str()]);
    assert_eq!(netcat(up.listen(), "PUT a 1\n").expect("it serves"), "OK\n");
    let create = ["backup", "create", file, "--data-dir", old.as_str()];
    assert!(done(&create).contains("generation 1-"));
    let (code, why) = refused(&create);
    assert!(code == Some(3) && why.contains("--force"), "{why}");
    assert_eq!(netcat(up.listen(), "PUT a 2\n").expect("it serves"), "OK\n");
    done(&[&create[..], &["--force"]].concat());
    drop(up);

    let restore = ["backup", "restore", file, "--data-dir", new.as_str(), "--replicas", "3"];
    let (code, why) = refused(&restore);
    assert!(code == Some(3) && why.contains("Lost: every request that was acknowledged in a later slot"), "{why}");
    let restore = [&restore[..], &["--yes"]].concat();
    let (code, why) = refused(&[&restore[..], &["--cluster", "another"]].concat());
    assert!(code == Some(3) && why.contains("not of another"), "{why}");
    done(&restore);
    let up = Up::start(&["--data-dir", new.as_str()]);
    assert_eq!(netcat(up.listen(), "GET a\n").expect("it serves"), "VALUE 2\n");
    three_again(&up, 2);
    let (code, why) = refused(&restore);
    assert!(code == Some(3) && why.contains("in use"), "{why}");
    drop(up);
    let (code, why) = refused(&restore);
    assert!(code == Some(3) && why.contains("has snapshots already"), "nothing is restored over history: {why}");
    let mut bytes = std::fs::read(file).expect("it is there");
    bytes[40] ^= 1;
    std::fs::write(file, bytes).expect("it can be written");
    let (code, why) = refused(&restore);
    assert!(code == Some(4) && why.contains("damaged"), "{code:?} {why}");
    std::fs::remove_file(file).expect("it is there");
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
