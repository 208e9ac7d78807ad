//! Each line of the check, provoked once on made-up statuses.

use super::super::line::Verdict;
use super::*;
use crate::commands::status::{Clock, Known};
use serde_json::json;

fn tls() -> Value {
    json!({ "serial": "1", "not_after": "2030-01-01T00:00:00Z", "bundle_sha256": ["aaaaaaaaaaaa"], "crl_number": 1 })
}

fn udp() -> Value {
    json!({ "receive_buffer_bytes": 4 << 20, "send_buffer_bytes": 4 << 20, "dropped": 0 })
}

fn peer(id: u32) -> Value {
    json!({ "address": format!("host-{id}:7500"), "id": id, "remote": "10.0.0.1:7500", "up": true, "error": null })
}

fn replica(id: u32) -> Value {
    let digest = json!({ "slot": 1000, "blake3": "abc" });
    json!({
        "kind": "sidecar", "id": id, "role": if id == 0 { "leader" } else { "follower" }, "leader": 0,
        "members": [0, 1, 2], "decided": 1700, "executed": 1700, "behind": 0, "app": "running", "silent": null,
        "divergences": 0, "digest": digest, "digest_now": { "slot": 1700, "blake3": "def" }, "state_transfer": null,
        "disk": { "free_bytes": 8_u64 << 30, "total_bytes": 16_u64 << 30 }, "sync_seconds": 0.001,
        "log_bytes": 10, "log_max_bytes": 100, "version": "1 (c)", "tls": tls(), "udp": udp(), "hints": [],
        "peers": (0..3).filter(|other| *other != id).map(peer).collect::<Vec<_>>(),
    })
}

/// Three replicas, a SMaRtClient and an ingress, all well.
fn healthy() -> Found {
    let mut found = Found::default();
    let smart_client = json!({
        "kind": "smart-client", "id": "0", "quorum": true, "version": "1 (c)", "tls": tls(), "udp": udp(),
        "peers": (0..3).map(peer).collect::<Vec<_>>(),
    });
    let ingress = json!({
        "kind": "ingress", "id": "0", "version": "1 (c)", "tls": tls(), "udp": udp(), "peers": [peer(0)],
    });
    for status in (0..3).map(replica).chain([smart_client, ingress]) {
        let who = name(&status);
        found.add(&Known::at("127.0.0.1:9"), Ok(status));
        found.clocks.push(Clock { who, ahead: 3, doubt: 2 });
    }
    found
}

/// The lines that failed after a change, as "name label".
fn failed(change: impl FnOnce(&mut Found)) -> Vec<String> {
    let mut found = healthy();
    change(&mut found);
    let checks = judge(&found);
    let bad = checks.iter().filter(|check| !check.is_good());
    let lines = bad.map(|check| {
        assert_eq!(check.state, Verdict::Unhealthy);
        assert!(check.hint.as_ref().is_some_and(|hint| hint.len() > 20), "{check:?}");
        format!("{} {}", check.name, check.label)
    });
    lines.collect()
}

#[test]
fn a_healthy_cluster_has_a_good_line_in_each_category() {
    assert_eq!(failed(|_| {}), Vec::<String>::new());
    let checks = judge(&healthy());
    for category in [
        Category::Certificates,
        Category::Quorum,
        Category::Links,
        Category::Lag,
        Category::Divergence,
        Category::Disk,
        Category::System,
        Category::Clocks,
        Category::Versions,
    ] {
        assert!(checks.iter().any(|check| check.category == category), "{category:?}: {checks:?}");
    }
}

/// One line fails for each of these, and no other.
#[test]
fn each_line_fails_for_its_own_reason() {
    type Change = fn(&mut Found);
    let provoked: [(&str, Change); 24] = [
        ("sidecar 1 link_down", |found| {
            found.replicas[1]["peers"][0]["up"] = json!(false);
            found.replicas[1]["peers"][0]["error"] = json!("the other end fell silent");
        }),
        ("ingress 0 link_down", |found| found.ingresses[0]["peers"][0]["up"] = json!(false)),
        ("smart-client 0 no_quorum", |found| found.smart_clients[0]["quorum"] = json!(false)),
        ("sidecar 2 filling", |found| {
            found.replicas[2]["state_transfer"] = json!({ "from": 0, "done_bytes": 1, "total_bytes": 2 });
        }),
        ("sidecar 2 behind", |found| found.replicas[2]["behind"] = json!(65)),
        ("sidecar 2 application_behind", |found| found.replicas[2]["decided"] = json!(1700 + 1025)),
        ("sidecar 0 application", |found| found.replicas[0]["app"] = json!("down")),
        ("sidecar 0 silent", |found| found.replicas[0]["silent"] = json!("7.2")),
        ("sidecar 1 quarantined", |found| found.replicas[1]["role"] = json!("quarantined")),
        ("sidecar 1 diverged", |found| found.replicas[1]["divergences"] = json!(2)),
        ("replicas digests_differ", |found| found.replicas[1]["digest"]["blake3"] = json!("other")),
        ("sidecar 0 disk_full", |found| found.replicas[0]["disk"]["free_bytes"] = json!(FREE_BYTES_MIN - 1)),
        ("sidecar 0 slow_sync", |found| found.replicas[0]["sync_seconds"] = json!(0.051)),
        ("sidecar 0 log_full", |found| found.replicas[0]["log_bytes"] = json!(50)),
        ("sidecar 0 small_buffer", |found| found.replicas[0]["udp"]["receive_buffer_bytes"] = json!(4096)),
        ("ingress 0 dropped", |found| found.ingresses[0]["udp"]["dropped"] = json!(1001)),
        ("clocks skew", |found| found.clocks[4].ahead = 3 + 2 + 2 + 1001),
        ("versions mixed", |found| found.smart_clients[0]["version"] = json!("0 (b)")),
        ("trust of running parts different_authorities", |found| {
            found.replicas[0]["tls"]["bundle_sha256"] = json!(["aaaaaaaaaaaa", "bbbbbbbbbbbb"]);
        }),
        ("trust of running parts different_revocations", |found| found.replicas[0]["tls"]["crl_number"] = json!(2)),
        ("service no_leader", |found| found.replicas.iter_mut().for_each(|replica| replica["leader"] = Value::Null)),
        ("service no_leader", |found| found.replicas[2]["leader"] = json!(1)),
        ("service reduced", |found| found.replicas[2]["role"] = json!("learner")),
        ("service no_quorum", |found| {
            found.replicas[1]["role"] = json!("learner");
            found.replicas[2]["role"] = json!("learner");
        }),
    ];
    for (line, change) in provoked {
        assert_eq!(failed(change), [line]);
    }
}

#[test]
fn a_part_that_does_not_answer_fails_and_so_does_the_quorum_that_it_is_missing_from() {
    let gone = |found: &mut Found, index: usize| {
        found.replicas[index] = json!({ "id": index, "admin": "127.0.0.1:9", "error": "cannot connect" });
    };
    assert_eq!(failed(|found| gone(found, 2)), ["sidecar 2 unreachable", "service reduced"]);
    let both = failed(|found| (1..3).for_each(|index| gone(found, index)));
    assert_eq!(both, ["sidecar 1 unreachable", "sidecar 2 unreachable", "service no_quorum"]);
}

#[test]
fn what_is_no_part_is_said() {
    let stranger = |found: &mut Found| found.add(&Known::at("127.0.0.1:9"), Ok(json!({ "hello": 1 })));
    assert_eq!(failed(stranger), ["part at 127.0.0.1:9 no_part"]);
}

#[test]
fn a_cluster_that_was_not_started_names_the_command() {
    let mut found = healthy();
    for replica in &mut found.replicas {
        (replica["role"], replica["members"], replica["leader"]) = (json!("waiting"), json!([]), Value::Null);
    }
    let checks = judge(&found);
    let service = checks.iter().find(|check| check.label == "not_started").expect("it was not started");
    assert!(service.hint.as_ref().is_some_and(|hint| hint.contains("lockstep bootstrap")), "{service:?}");
}

#[test]
fn a_rotation_that_all_parts_know_of_is_no_fault_and_is_told() {
    let mut found = healthy();
    let both = json!(["aaaaaaaaaaaa", "bbbbbbbbbbbb"]);
    for part in found.replicas.iter_mut().chain(&mut found.smart_clients).chain(&mut found.ingresses) {
        part["tls"]["bundle_sha256"] = both.clone();
    }
    let checks = judge(&found);
    let line = checks.iter().find(|check| check.label == "rotation").expect("a rotation is under way");
    assert!(line.is_good() && line.text.contains("rotate-ca finish"), "{line:?}");
}

#[test]
fn what_a_replica_says_can_be_done_is_the_hint() {
    let mut found = healthy();
    found.replicas[2]["role"] = json!("learner");
    found.replicas[2]["hints"] = json!(["12 slots are missing here; nothing is to be done"]);
    let checks = judge(&found);
    let service = checks.iter().find(|check| check.label == "reduced").expect("one does not vote");
    assert_eq!(service.hint.as_deref(), Some("12 slots are missing here; nothing is to be done"));
}

#[test]
fn a_slow_question_is_no_wrong_clock() {
    assert_eq!(failed(|found| (found.clocks[4].ahead, found.clocks[4].doubt) = (1500, 600)), Vec::<String>::new());
}
