//! Snapshots, and what they make possible: a short log, and a member that comes back far behind.

use super::binary::{has_redis, lockstep};
use super::counters::Counters;
use super::misbehave::call;
use super::redis;
use super::up::{Up, signal};
use super::wait;
use serde_json::Value;
use std::process::{Command, Stdio};

/// So that a test has seen several within seconds.
pub(crate) const OFTEN: [&str; 4] = ["--snapshot-every-requests", "500", "--log-tail-slots", "20"];

fn number(status: &Value, field: &str) -> u64 {
    status[field].as_u64().unwrap_or_else(|| panic!("{field} in {status}"))
}

/// Waits until every one of these replicas has cut its log behind a slot.
fn cut_behind(up: &Up, ids: &[u64], slot: u64) {
    wait::until("cut", || {
        for sidecar in up.role("sidecar").iter().filter(|sidecar| ids.contains(&sidecar.id)) {
            let status = sidecar.status()?;
            if number(&status, "log_first") <= slot {
                return Err(status.to_string());
            }
        }
        Ok(())
    });
}

#[test]
fn a_member_that_was_away_for_longer_than_the_log_returns_by_snapshot_and_tail() {
    if !has_redis("a_member_that_was_away_for_longer_than_the_log_returns_by_snapshot_and_tail") {
        return;
    }
    let up = redis::start(&OFTEN);
    let counters = Counters::start(&up, 8);
    counters.progress("before the pause");
    let (_, mut followers) = up.leader();
    let away = followers.remove(0);
    let away_status = away.status().expect("it answers");
    signal("STOP", away.pid);
    let decided = up.leader_beside(away.id).status().expect("it answers");
    let others: Vec<u64> = up.role("sidecar").iter().map(|part| part.id).filter(|id| *id != away.id).collect();
    // What was on its way to it when it stopped, and what queues for it still, is not enough then.
    cut_behind(&up, &others, number(&decided, "decided") + 4000);
    let behind = number(&away_status, "decided");
    signal("CONT", away.pid);
    wait::until("back", || {
        let status = away.status()?;
        if number(&status, "log_first") > behind { away.ready() } else { Err(status.to_string()) }
    });
    counters.progress("after the return");
    let log = up.log_of(&format!("sidecar-{}", away.id));
    assert!(log.contains("a snapshot was fetched and verified"), "{log}");
    counters.finish(&up);
    redis::digest(&up);
}

#[test]
fn what_was_cut_is_not_missing_when_everything_starts_again() {
    if !has_redis("what_was_cut_is_not_missing_when_everything_starts_again") {
        return;
    }
    let directory = super::data_dir::Directory::new();
    let arguments = [&OFTEN[..], &["--data-dir", directory.as_str()]].concat();
    let mut up = redis::start(&arguments);
    let counters = Counters::start(&up, 8);
    counters.progress("before the end");
    cut_behind(&up, &[0, 1, 2], 20);
    counters.finish(&up);
    let before = redis::digest(&up);
    up.stop();
    drop(up);
    let up = redis::start(&arguments);
    assert_eq!(redis::digest(&up), before);
    let counters = Counters::start(&up, 1);
    // The counters went on from where they were: one that began anew is a surprise.
    assert!(counters.clients.into_iter().next().expect("one client").join().expect("no panic").is_err());
}

#[test]
fn a_full_log_refuses_definitely_and_status_names_the_command_that_makes_room() {
    let up = Up::start(&["--log-max-bytes", "1MiB", "--log-tail-slots", "0", "--snapshot-every-requests", "1000000"]);
    let value = "x".repeat(32 << 10);
    let refused = (0..100).find_map(|n| {
        let (code, _, error) = call(&up, &format!("PUT k{n} {value}"));
        (code != Some(0)).then_some((code, error))
    });
    let (code, error) = refused.expect("the log is bounded");
    assert_eq!(code, Some(7), "{error}");
    let run = |words: &[&str]| {
        let mut command = Command::new(lockstep());
        command.args(words).arg("--data-dir").arg(up.data_dir()).stdin(Stdio::null());
        let output = command.output().expect("lockstep runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let (code, text) = run(&["status"]);
    assert_eq!(code, Some(5), "{text}");
    assert!(text.contains("what to do:") && text.contains("`lockstep snapshot save`"), "{text}");
    let (code, text) = run(&["snapshot", "save"]);
    assert_eq!(code, Some(0), "{text}");
    wait::until("taken again", || match call(&up, "PUT after 1") {
        (Some(0), ..) => Ok(()),
        (code, _, error) => Err(format!("{code:?} {error}")),
    });
    wait::until("healthy", || match run(&["status"]) {
        (Some(0), _) => Ok(()),
        (_, text) => Err(text),
    });
}
