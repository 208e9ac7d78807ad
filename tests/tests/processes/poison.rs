//! Requests that the application hangs on, or dies on (rule 23).

use super::misbehave::{self, Clients};
use super::up::Up;
use super::wait;

/// The requests aborted so far, as every replica knows them.
fn aborted(up: &Up) -> Result<Vec<u64>, String> {
    let count = |status: serde_json::Value| status["aborted_requests"].as_u64().ok_or(format!("{status}"));
    up.role("sidecar").iter().map(|sidecar| sidecar.status().and_then(count)).collect()
}

/// What all copies fail on is given up by order: its client gets a definite error, no replay meets it again.
fn is_aborted_everywhere(request: &str) {
    let up = misbehave::start(&[]);
    let clients = Clients::start(&up, 4);
    clients.progress("before the poison");
    let (code, reply, error) = misbehave::call(&up, request);
    assert_eq!((code, reply.as_str()), (Some(7), ""), "{error}");
    assert!(error.contains("it was undone and will not be run"), "{error}");
    clients.progress("after the poison");
    wait::until("known to all", || match aborted(&up)? {
        counts if counts.iter().all(|count| *count >= 1) => Ok(()),
        counts => Err(format!("{counts:?}")),
    });
    // A replay goes past it.
    // A moment after it was started anew `up` may still name the process before.
    let (victim, pid) = wait::until("named anew", || {
        let victim = up.leader().1.remove(0);
        match &victim.app {
            Some((pid, _)) if super::up::lives(*pid) => Ok((victim.clone(), *pid)),
            other => Err(format!("{other:?}")),
        }
    });
    super::up::signal("KILL", pid);
    wait::until("rebuilt", || {
        let sidecar = up.role("sidecar").into_iter().find(|part| part.id == victim.id).expect("it is there");
        match &sidecar.app {
            Some((now, _)) if *now != pid => sidecar.ready(),
            _ => Err(up.log()),
        }
    });
    clients.finish(&up);
}

#[test]
fn a_request_that_all_applications_hang_on_is_aborted_by_order() {
    is_aborted_everywhere("HANG");
}

#[test]
fn a_request_that_all_applications_crash_on_is_aborted_by_order() {
    is_aborted_everywhere("CRASH");
}

/// What one copy alone fails on is run again there, for as long as it takes.
fn is_run_again_on_one(how: &str) {
    let up = misbehave::start(&[]);
    let clients = Clients::start(&up, 4);
    clients.progress("before the fault");
    for victim in [up.leader().0, up.leader().1.remove(0)] {
        let resets = victim.status().expect("it answers")["app_resets"].as_u64().expect("a number");
        misbehave::tell(&up, victim.id, how);
        clients.progress("while one application is rebuilt");
        wait::until("rebuilt", || {
            let status = victim.status()?;
            let again = status["app_resets"].as_u64() > Some(resets) && status["silent"].is_null();
            if again { victim.ready() } else { Err(status.to_string()) }
        });
    }
    clients.progress("after both were rebuilt");
    assert_eq!(aborted(&up).expect("all answer"), [0, 0, 0]);
    clients.finish(&up);
}

#[test]
fn no_client_notices_that_one_application_hangs() {
    is_run_again_on_one("hang");
}

#[test]
fn no_client_notices_that_one_application_crashes_on_a_request() {
    is_run_again_on_one("crash");
}
