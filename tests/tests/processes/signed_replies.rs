//! Signed replies: nobody notices them but whoever gets a reply without them.

use super::binary;
use super::hashmap::netcat;
use super::misbehave::{self, Clients};
use super::up::{Up, signal};
use lockstep_tests::driver::http;
use std::process::{Command, Stdio};

/// One request of the native client with more arguments: exit code, reply, what it says on stderr.
fn call(up: &Up, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary::lockstep());
    command.args(["call", "--data-dir"]).arg(up.data_dir()).args(arguments).stdin(Stdio::null());
    let output = command.output().expect("lockstep runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The ingress counted no reply as badly signed.
fn nothing_failed(up: &Up) {
    let ingress = up.role("ingress").remove(0);
    assert_eq!(ingress.status().expect("its status")["signature_failures"], 0);
    let (_, metrics) = http::get(&ingress.admin, "/metrics").expect("its metrics");
    for who in ["reply", "request"] {
        let line = format!("lockstep_signature_failures_total{{who=\"{who}\"}} 0");
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
    }
}

#[test]
fn with_signatures_clients_get_their_replies_and_no_check_fails() {
    let up = Up::start(&["--signatures", "-n", "3"]);
    assert_eq!(netcat(up.listen(), "PUT a 1\nGET a\n").unwrap(), "OK\nVALUE 1\n");
    let (code, reply, error) = call(&up, &["--deadline", "60s", "PUT b 2"]);
    assert_eq!((code, reply.as_str()), (Some(0), "OK\n"), "{error}");
    // All three have signed it.
    let (code, reply, error) = call(&up, &["--deadline", "60s", "--reply-vote", "first", "GET b"]);
    assert_eq!((code, reply.as_str()), (Some(0), "VALUE 2\n"), "{error}");
    nothing_failed(&up);
}

/// Catches an ingress or client that does not look: the same call without the demand is answered.
#[test]
fn where_servers_do_not_sign_nothing_is_believed_by_whoever_demands_it() {
    let up = Up::start(&[]);
    let (code, reply, _) = call(&up, &["--deadline", "60s", "PUT a 1"]);
    assert_eq!((code, reply.as_str()), (Some(0), "OK\n"));
    let (code, reply, error) = call(&up, &["--deadline", "3s", "--reply-signatures", "required", "GET a"]);
    assert_ne!(code, Some(0), "{reply}");
    assert_eq!(reply, "", "{error}");
    let (code, reply, error) = call(&up, &["--deadline", "60s", "--reply-signatures", "optional", "GET a"]);
    assert_eq!((code, reply.as_str()), (Some(0), "VALUE 1\n"), "{error}");
}

#[test]
fn with_signatures_no_client_notices_the_loss_of_leader_follower_or_smart_client() {
    let up = misbehave::start(&["--signatures"]);
    let clients = Clients::start(&up, 4);
    clients.progress("before any fault");
    for name in ["the leader", "a follower", "a SMaRtClient"] {
        let victim = match name {
            "the leader" => up.leader().0,
            "a follower" => up.leader().1.remove(0),
            _ => up.role("smart-client").remove(0),
        };
        signal("KILL", victim.pid);
        clients.progress(&format!("after the loss of {name}"));
        up.restarted(&victim.role, victim.id, victim.pid);
        clients.progress(&format!("after the return of {name}"));
    }
    clients.finish(&up);
    nothing_failed(&up);
}
