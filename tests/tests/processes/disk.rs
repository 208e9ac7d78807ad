//! Disks that are lost, lie, or are full: each ends as rules 12 and 13 say, and nothing acknowledged is missing.

use super::binary;
use super::data_dir::{Directory, flip, frames, tear};
use super::hashmap::netcat;
use super::snapshots::OFTEN;
use super::up::{Process, Up, signal};
use super::wait;
use std::path::Path;
use std::process::{Command, Stdio};

const KEYS: usize = 300;

/// A cluster that has stored some keys and was ended in an orderly way.
fn ended(more: &[&str]) -> Directory {
    let directory = Directory::new();
    let mut up = start(&directory, more);
    put(&up, 0..KEYS);
    up.settled();
    assert!(up.stop().success());
    directory
}

fn start(directory: &Directory, more: &[&str]) -> Up {
    Up::start(&[&["--data-dir", directory.as_str()][..], more].concat())
}

fn put(up: &Up, keys: std::ops::Range<usize>) {
    let requests: String = keys.clone().map(|n| format!("PUT k{n} {n}\n")).collect();
    assert_eq!(netcat(up.listen(), &requests).expect("it answers"), "OK\n".repeat(keys.len()));
}

/// Waits until every replica's own application has so many keys.
fn all_have(up: &Up, keys: usize) {
    wait::until("complete on all replicas", || {
        for sidecar in up.role("sidecar") {
            let (_, application) = sidecar.app.ok_or("no application")?;
            let size = netcat(&application, "SIZE\n").map_err(|error| error.to_string())?;
            if size.trim_end() != keys.to_string() {
                return Err(format!("{application}: {size}"));
            }
        }
        Ok(())
    });
}

fn server(up: &Up, id: u64) -> Process {
    up.role("sidecar").into_iter().find(|part| part.id == id).expect("there are three")
}

/// Waits until a member votes under this incarnation.
fn votes(up: &Up, id: u64, incarnation: u64) {
    wait::until("voting", || {
        let sidecar = server(up, id);
        let status = sidecar.status()?;
        let role = status["role"].as_str().unwrap_or_default();
        let votes = ["leader", "follower"].contains(&role) && status["incarnation"] == incarnation;
        if votes { sidecar.ready() } else { Err(status.to_string()) }
    });
}

/// That member's vote counts: without another one the service goes on.
fn is_needed(up: &Up, id: u64, keys: usize) {
    let other = server(up, (id + 1) % 3);
    signal("STOP", other.pid);
    wait::until("answering with two of three", || match netcat(up.listen(), "PUT more 1\n") {
        Ok(reply) if reply == "OK\n" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    signal("CONT", other.pid);
    wait::until("ready again", || other.ready());
    all_have(up, keys + 1);
}

fn said(up: &Up, id: u64, text: &str) {
    wait::until("said", || {
        let log = up.log_of(&format!("sidecar-{id}"));
        if log.contains(text) { Ok(()) } else { Err(format!("not \"{text}\" in {log}")) }
    });
}

/// The exit code of `lockstep journal verify` or `lockstep snapshot verify`.
fn verified(what: &str, dir: &Path) -> Option<i32> {
    let mut verify = Command::new(binary::lockstep());
    verify.args([what, "verify", "--data-dir"]).arg(dir).stdin(Stdio::null());
    let output = verify.output().expect("lockstep runs");
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output.status.code()
}

#[test]
fn a_member_whose_data_directory_is_gone_is_filled_and_votes_again_under_a_new_incarnation() {
    let directory = ended(&OFTEN);
    std::fs::remove_dir_all(directory.server(2)).expect("it was there");
    let up = start(&directory, &OFTEN);
    put(&up, KEYS..KEYS + 10);
    votes(&up, 2, 2);
    said(&up, 2, "it joins as a learner");
    said(&up, 2, "was granted a new incarnation and votes again");
    all_have(&up, KEYS + 10);
    is_needed(&up, 2, KEYS + 10);
}

#[test]
fn a_member_with_a_flipped_bit_in_the_middle_of_its_journal_says_so_and_is_taught_by_its_peers() {
    let directory = ended(&["--snapshot", "none"]);
    let segment = directory.segment(1);
    let all = frames(&segment);
    let (at, length) = all[all.len() / 2];
    flip(&segment, at + length / 2);
    assert_eq!(verified("journal", &directory.server(1)), Some(4));
    let up = start(&directory, &["--snapshot", "none"]);
    said(&up, 1, "the journal is damaged");
    said(&up, 1, "the damaged journal is kept there");
    votes(&up, 1, 2);
    all_have(&up, KEYS);
    is_needed(&up, 1, KEYS);
}

#[test]
fn a_last_write_that_was_cut_in_half_is_removed_and_the_member_goes_on() {
    let directory = ended(&["--snapshot", "none"]);
    tear(&directory.segment(1));
    let up = start(&directory, &["--snapshot", "none"]);
    said(&up, 1, "the journal ends in a write that was cut short");
    votes(&up, 1, 1);
    all_have(&up, KEYS);
    is_needed(&up, 1, KEYS);
}

#[test]
fn a_snapshot_with_a_flipped_bit_is_set_aside_and_another_one_fetched() {
    let directory = Directory::new();
    let mut up = start(&directory, &OFTEN);
    for round in 0..8 {
        put(&up, round * KEYS..(round + 1) * KEYS);
    }
    wait::until("taken", || match directory.snapshot(1) {
        Some(_) => Ok(()),
        None => Err(up.log_of("sidecar-1")),
    });
    up.settled();
    assert!(up.stop().success());
    drop(up);
    let snapshot = directory.snapshot(1).expect("it was there");
    let middle = snapshot.metadata().expect("a file").len() / 2;
    flip(&snapshot, middle);
    assert_eq!(verified("snapshot", &directory.server(1)), Some(4));
    let up = start(&directory, &OFTEN);
    said(&up, 1, "a damaged snapshot is set aside");
    votes(&up, 1, 1);
    all_have(&up, 8 * KEYS);
}

/// Whether this kernel lets a test mount something in a namespace of its own. `LOCKSTEP_REQUIRE_MOUNT=1`: it must.
pub(crate) fn can_mount(test: &str) -> bool {
    let script = "d=$(mktemp -d) && mount -t tmpfs none $d && umount $d && rmdir $d";
    let status = Command::new("unshare").args(["-rm", "sh", "-c", script]).stderr(Stdio::null()).status();
    if status.is_ok_and(|status| status.success()) {
        return true;
    }
    assert!(std::env::var_os("LOCKSTEP_REQUIRE_MOUNT").is_none_or(|value| value != "1"), "no mount namespaces here");
    println!("SKIPPED {test}: this kernel gives no mount namespace to a user");
    false
}

#[test]
fn a_member_whose_disk_is_full_stops_voting_with_a_clear_error_and_the_others_go_on() {
    if !can_mount("a_member_whose_disk_is_full_stops_voting_with_a_clear_error_and_the_others_go_on") {
        return;
    }
    let directory = ended(&["--snapshot", "none"]);
    // Seen by this `up` and its parts only.
    let script = "mv \"$0/server-1\" \"$0/kept\" && mkdir \"$0/server-1\" && \
                  mount -t tmpfs -o size=16m none \"$0/server-1\" && cp -a \"$0/kept/.\" \"$0/server-1/\" && \
                  exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", script, directory.as_str()]).arg(binary::lockstep());
    let up = Up::start_by(command, &["--data-dir", directory.as_str(), "--snapshot", "none"]);
    let value = "x".repeat(64 << 10);
    // More than three times what the disk has.
    let mut keys = KEYS;
    for _ in 0..50 {
        let requests: String = (keys..keys + 16).map(|n| format!("PUT k{n} {value}\n")).collect();
        assert_eq!(netcat(up.listen(), &requests).expect("it answers"), "OK\n".repeat(16));
        keys += 16;
    }
    said(&up, 1, "the journal could not be written: this replica stops");
    let size = netcat(up.listen(), "SIZE\n").expect("it answers");
    assert_eq!(size.trim_end(), keys.to_string());
}
