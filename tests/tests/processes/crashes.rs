//! Processes that die, stop and come back, under clients that count what was acknowledged.

use super::binary::has_redis;
use super::counters::Counters;
use super::hashmap::netcat;
use super::redis;
use super::resp::{Client, Reply};
use super::up::{Up, signal};
use super::wait;
use std::sync::atomic::Ordering;

#[test]
fn no_client_notices_the_loss_of_leader_follower_or_smart_client() {
    if !has_redis("no_client_notices_the_loss_of_leader_follower_or_smart_client") {
        return;
    }
    let up = redis::start(&[]);
    let counters = Counters::start(&up, 8);
    counters.progress("before any fault");
    for round in 0..2 {
        for name in ["the leader", "a follower", "a SMaRtClient"] {
            let victim = match name {
                "the leader" => up.leader().0,
                "a follower" => up.leader().1.remove(0),
                _ => up.role("smart-client").remove(0),
            };
            signal("KILL", victim.pid);
            counters.progress(&format!("after the loss of {name} in round {round}"));
            up.restarted(&victim.role, victim.id, victim.pid);
            counters.progress(&format!("after the return of {name} in round {round}"));
        }
    }
    assert!(counters.sum() > 0);
    counters.finish(&up);
    redis::digest(&up);
}

#[test]
fn no_client_notices_an_orderly_restart_or_a_pause_of_any_inner_part() {
    if !has_redis("no_client_notices_an_orderly_restart_or_a_pause_of_any_inner_part") {
        return;
    }
    let up = redis::start(&[]);
    let counters = Counters::start(&up, 8);
    counters.progress("before any fault");
    let leader = up.leader().0;
    signal("STOP", leader.pid);
    counters.progress("while the leader stands still");
    signal("CONT", leader.pid);
    wait::until("ready again", || leader.ready());
    let parts = up.role("sidecar").into_iter().chain(up.role("smart-client"));
    for part in parts {
        signal("TERM", part.pid);
        let name = format!("after the restart of {} {}", part.role, part.id);
        up.restarted(&part.role, part.id, part.pid);
        counters.progress(&name);
    }
    counters.finish(&up);
    redis::digest(&up);
}

#[test]
fn after_the_loss_of_the_ingress_each_counter_is_off_by_the_one_request_in_doubt_at_most() {
    if !has_redis("after_the_loss_of_the_ingress_each_counter_is_off_by_the_one_request_in_doubt_at_most") {
        return;
    }
    let up = redis::start(&[]);
    let counters = Counters::start(&up, 8);
    counters.progress("before any fault");
    let ingress = up.role("ingress").remove(0);
    signal("KILL", ingress.pid);
    up.restarted("ingress", 0, ingress.pid);
    let acknowledged = counters.acknowledged.clone();
    let faults: Vec<_> = counters.clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(faults.iter().all(Result::is_err), "a client went on over a dead connection: {faults:?}");
    let mut client = Client::connect(up.listen()).unwrap();
    for (number, acknowledged) in acknowledged.iter().enumerate() {
        let acknowledged = acknowledged.load(Ordering::Relaxed);
        // One more INCR tells how many ran before it.
        let Reply::Integer(count) = client.command(&["INCR", &format!("counter:{number}")]).unwrap() else {
            panic!("no number")
        };
        assert!((acknowledged..=acknowledged + 1).contains(&(count - 1)), "{acknowledged} acknowledged, {count} now");
    }
}

#[test]
fn an_application_that_dies_is_rebuilt_without_a_client_noticing() {
    if !has_redis("an_application_that_dies_is_rebuilt_without_a_client_noticing") {
        return;
    }
    let up = redis::start(&[]);
    let counters = Counters::start(&up, 4);
    counters.progress("before any fault");
    let (_, followers) = up.leader();
    let (pid, _) = followers[0].app.clone().expect("a sidecar of up has an application");
    signal("KILL", pid);
    counters.progress("after the loss of a follower's application");
    wait::until("started again", || {
        let sidecar = up.role("sidecar").into_iter().find(|part| part.id == followers[0].id).unwrap();
        match &sidecar.app {
            Some((now, _)) if *now != pid => sidecar.ready(),
            _ => Err(up.log()),
        }
    });
    counters.finish(&up);
    redis::digest(&up);
}

#[test]
fn without_a_quorum_nothing_is_acknowledged_and_with_it_the_service_returns_by_itself() {
    if !has_redis("without_a_quorum_nothing_is_acknowledged_and_with_it_the_service_returns_by_itself") {
        return;
    }
    let up = redis::start(&["--no-restart"]);
    let mut client = Client::connect(up.listen()).unwrap();
    assert_eq!(client.command(&["INCR", "x"]).unwrap(), Reply::Integer(1));
    let (_, followers) = up.leader();
    for follower in &followers {
        signal("STOP", follower.pid);
    }
    match client.command(&["INCR", "x"]) {
        Ok(Reply::Error(why)) => assert!(why.starts_with("LOCKSTEP"), "{why}"),
        Err(_) => {} // Closed without a reply: unknown.
        Ok(other) => panic!("acknowledged without a quorum: {other:?}"),
    }
    for follower in &followers {
        signal("CONT", follower.pid);
    }
    let count = wait::until("answering again", || {
        let mut client = Client::connect(up.listen()).map_err(|error| error.to_string())?;
        match client.command(&["INCR", "x"]) {
            Ok(Reply::Integer(count)) => Ok(count),
            other => Err(format!("{other:?}")),
        }
    });
    // The one without a quorum may have run or not; the ones of the polling, too.
    assert!(count >= 2, "{count}");
    redis::digest(&up);
}

#[test]
fn killed_servers_stay_dead_without_restarts_and_what_was_acknowledged_survives_them_all() {
    let directory = std::env::temp_dir().join(format!("lockstep-test-quorum-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    let path = directory.to_str().unwrap();
    let up = Up::start(&["--no-restart", "--data-dir", path]);
    assert_eq!(netcat(up.listen(), "PUT a 1\n").unwrap(), "OK\n");
    let (leader, followers) = up.leader();
    for sidecar in [&leader, &followers[0]] {
        signal("KILL", sidecar.pid);
        wait::until("reported as exited", || {
            let gone = |event: &serde_json::Value| event["event"] == "exited" && event["pid"] == sidecar.pid;
            if up.events().iter().any(gone) { Ok(()) } else { Err(up.log()) }
        });
    }
    // The line protocol has no errors: whatever the outcome, the connection closes without a reply.
    assert_eq!(netcat(up.listen(), "PUT b 2\n").unwrap_or_default(), "");
    assert!(!up.events().iter().any(|event| event["event"] == "started"), "something was started again");
    drop(up);
    let up = Up::start(&["--data-dir", path]);
    assert_eq!(netcat(up.listen(), "GET a\n").unwrap(), "VALUE 1\n");
    drop(up);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn all_servers_killed_at_once_come_back_with_everything_acknowledged() {
    let up = Up::start(&[]);
    for n in 0..50 {
        assert_eq!(netcat(up.listen(), &format!("PUT k{n} {n}\n")).unwrap(), "OK\n");
    }
    let sidecars = up.role("sidecar");
    for sidecar in &sidecars {
        signal("KILL", sidecar.pid);
    }
    for sidecar in &sidecars {
        up.restarted("sidecar", sidecar.id, sidecar.pid);
    }
    let size = wait::until("answering again", || match netcat(up.listen(), "SIZE\n") {
        Ok(size) if !size.is_empty() => Ok(size),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(size, "50\n");
}
