//! Two applications and a witness: whichever of the three machines goes, the service goes on.

use super::binary::lockstep;
use super::hashmap::netcat;
use super::moves::{Part, line};
use super::snapshots::OFTEN;
use super::up::{Process, Up, lives, signal, try_signal};
use super::wait;
use lockstep_tests::chaos::Watch;
use lockstep_tests::linear;
use std::process::Command;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(20);

/// The machine of a member is lost, its application with it.
fn lose(part: &Process) {
    let app = part.app.as_ref().map(|(pid, _)| *pid);
    signal("KILL", part.pid);
    // It may end with its sidecar.
    app.into_iter().for_each(|pid| drop(try_signal("KILL", pid)));
    wait::until("gone", || if lives(part.pid) { Err(format!("{part:?}")) } else { Ok(()) });
}

/// A member that was started again has what the others have.
fn level(up: &Up, id: u64) {
    wait::until("level", || {
        let statuses: Result<Vec<_>, _> = up.role("sidecar").iter().map(Process::status).collect();
        let statuses = statuses?;
        let decided = statuses.iter().map(|status| status["decided"].as_u64().unwrap_or(0)).max();
        let own = statuses.iter().find(|status| status["id"] == id).ok_or("it does not answer")?;
        let behind = decided.unwrap_or(0).saturating_sub(own["executed"].as_u64().unwrap_or(0));
        if behind < 200 && own["leader"].is_u64() { Ok(()) } else { Err(own.to_string()) }
    });
}

#[test]
fn either_application_or_the_witness_may_go() {
    let with = ["-n", "2", "--witnesses", "1", "--no-restart", "--deadline", "20s"];
    let up = Up::start(&[&OFTEN[..], &with].concat());
    let sidecars = up.role("sidecar");
    assert!(sidecars[2].app.is_none() && sidecars[0].app.is_some() && sidecars[1].app.is_some(), "{sidecars:?}");
    let watch = Watch::start(up.listen(), 8, DEADLINE, 11);
    let mut again = Vec::new();
    for lost in &sidecars {
        let line = line(lost);
        lose(lost);
        // A key that the watch does not know of, and enough of the log for a snapshot (reads are not in it).
        let written = netcat(up.listen(), &"REMOVE nothing\n".repeat(300)).expect("it serves");
        assert_eq!(written, "NIL\n".repeat(300), "without member {}", lost.id);
        again.push(Part::start(&line));
        level(&up, lost.id);
    }
    let seen = watch.finish();
    assert!(seen.errors.is_empty(), "{:#?}", seen.errors);
    let checked = linear::check(&seen.calls).unwrap_or_else(|fault| panic!("{fault:#?}"));
    assert!(checked.calls > 100, "only {} calls", checked.calls);

    let statuses = up.settled();
    assert_eq!(statuses[0]["digest_now"], statuses[1]["digest_now"]);
    assert_eq!(statuses[0]["witnesses"], serde_json::json!([2]));
    let witness = &statuses[2];
    assert_eq!((witness["role"].as_str(), witness["app"].as_str()), (Some("witness"), Some("none")), "{witness}");
    wait::until("cut", || {
        let witness = sidecars[2].status()?;
        if witness["snapshot_slot"].as_u64() > Some(0) { Ok(()) } else { Err(witness.to_string()) }
    });
    assert_eq!(sidecars[2].ready(), Ok(()));
}

#[test]
fn a_member_does_not_turn_into_a_witness_by_another_command_line() {
    let up = Up::start(&["-n", "2", "--witnesses", "1", "--no-restart"]);
    assert_eq!(netcat(up.listen(), "PUT a 1\n").expect("it serves"), "OK\n");
    let sidecars = up.role("sidecar");
    let mut words = line(&sidecars[1]);
    lose(&sidecars[1]);
    let keep = |word: &String| !["--app-port", "--app-dir"].iter().any(|flag| word.starts_with(flag));
    words.truncate(words.iter().position(|word| word == "--").expect("a command"));
    words.retain(keep);
    words.push("--witness".to_owned());
    let output = Command::new(lockstep()).args(&words).output().expect("lockstep runs");
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && why.contains("the cluster has this member with an application"), "{why}");
    assert_eq!(netcat(up.listen(), "GET a\n").expect("it serves"), "VALUE 1\n");
}
