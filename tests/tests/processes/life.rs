//! The life of `up` itself.

use super::binary::lockstep;
use super::hashmap::netcat;
use super::up::{Up, lives, signal};
use super::wait;
use lockstep_tests::driver::http;
use std::process::Command;

fn nothing_is_left(pids: &[u64]) {
    wait::until("all gone", || {
        let left: Vec<_> = pids.iter().copied().filter(|pid| lives(*pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("pids {left:?} are left")) }
    });
}

#[test]
fn sigterm_ends_everything() {
    let mut up = Up::start(&[]);
    let (pids, directory) = (up.pids(), up.data_dir());
    assert_eq!(pids.len(), 3 * 2 + 2 + 1 + 1, "three pairs, two SMaRtClients, an ingress, up");
    assert!(up.stop().success());
    nothing_is_left(&pids);
    assert!(!directory.exists(), "the temporary data directory {} is left", directory.display());
}

#[test]
fn sigkill_leaves_nothing_running() {
    let mut up = Up::start(&[]);
    let pids = up.pids();
    signal("KILL", up.pid());
    up.wait();
    nothing_is_left(&pids);
    let _ = std::fs::remove_dir_all(up.data_dir());
}

#[test]
fn a_data_directory_that_was_given_is_kept_and_resumed() {
    let directory = std::env::temp_dir().join(format!("lockstep-test-resume-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    let path = directory.to_str().unwrap();
    let mut first = Up::start(&["--data-dir", path]);
    assert_eq!(netcat(first.listen(), "PUT a 1\n").unwrap(), "OK\n");
    assert!(first.stop().success());
    drop(first);
    let mut second = Up::start(&["--data-dir", path]);
    assert_eq!(netcat(second.listen(), "GET a\n").unwrap(), "VALUE 1\n");
    let busy = Command::new(lockstep()).args(["up", "-o", "json", "--data-dir", path]).output().unwrap();
    assert_eq!(busy.status.code(), Some(3), "{}", String::from_utf8_lossy(&busy.stderr));
    let said = String::from_utf8_lossy(&busy.stderr).into_owned();
    assert!(said.contains(&second.pid().to_string()), "it does not say who uses the directory: {said}");
    assert!(second.stop().success());
    drop(second);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn an_even_number_of_replicas_is_warned_of_and_works() {
    let up = Up::start(&["-n", "4"]);
    assert!(up.log().contains("an even number of members"), "no warning:\n{}", up.log());
    assert_eq!(up.role("sidecar").len(), 4);
    assert_eq!(netcat(up.listen(), "PUT a 1\nGET a\n").unwrap(), "OK\nVALUE 1\n");
}

#[test]
fn wrong_usage_ends_with_2_and_says_why() {
    let cases: [&[&str]; 4] = [
        &["up", "--protocol", "nonsense"],
        &["up", "-n", "0"],
        &["up", "--no-such-flag"],
        &["up", "--", "/no/such/command"],
    ];
    for arguments in cases {
        let output = Command::new(lockstep()).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(!said.trim().is_empty(), "{arguments:?} says nothing");
    }
}

/// Mutants: an ingress that does not pass its answers on, or one that is ready without reaching the servers.
#[test]
fn an_ingress_with_a_smart_client_inside_serves_and_outlives_the_leader() {
    for more in [&[][..], &["--spin", "100us"], &["--signatures"]] {
        let arguments = [&["--smart-clients", "0"], more].concat();
        let up = Up::start(&arguments);
        assert!(up.role("smart-client").is_empty(), "{arguments:?}");
        assert_eq!(netcat(up.listen(), "PUT a 1\nGET a\n").unwrap(), "OK\nVALUE 1\n", "{arguments:?}");
        let (leader, _) = up.leader();
        signal("KILL", leader.pid);
        assert_eq!(netcat(up.listen(), "PUT a 2\nGET a\n").unwrap(), "OK\nVALUE 2\n", "{arguments:?}");
        let ingress = &up.role("ingress")[0];
        let status = http::json(&ingress.admin, "/status").unwrap();
        assert_eq!(status["smart_client"]["quorum"], true, "{status}");
        assert!(status["smart_client"]["requests"]["ok"].as_u64().is_some_and(|served| served >= 2), "{status}");
    }
}
