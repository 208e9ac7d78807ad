//! Tests of the verdict over the whole cluster.

use super::*;

fn part(role: Option<(Role, &str)>) -> Known {
    Known { role: role.map(|(role, id)| (role, id.to_owned())), admin: "127.0.0.1:1".to_owned() }
}

fn replica(id: u32, role: &str) -> Value {
    json!({ "kind": "sidecar", "id": id, "role": role, "leader": 0, "app": "running", "divergences": 0 })
}

fn three() -> Found {
    let mut found = Found::default();
    for (id, role) in [(0, "leader"), (1, "follower"), (2, "follower")] {
        found.add(&part(None), Ok(replica(id, role)));
    }
    found.add(&part(None), Ok(json!({ "kind": "smart-client", "id": "0" })));
    found.add(&part(None), Ok(json!({ "kind": "ingress", "id": "0" })));
    found
}

#[test]
fn a_whole_cluster_is_healthy() {
    let found = three();
    assert_eq!(found.problems(), Vec::<String>::new());
    let document = found.document(&[]);
    assert_eq!(document["replicas"].as_array().map(Vec::len), Some(3));
    assert_eq!(document["ingresses"][0]["admin"], "127.0.0.1:1");
    assert!(status_table::render(&found, &[]).ends_with("healthy\n"));
}

#[test]
fn a_part_that_cannot_be_reached_keeps_its_place_and_says_why() {
    let mut found = three();
    found.add(&part(Some((Role::Sidecar, "7"))), Err(anyhow::anyhow!("connection refused")));
    found.add(&part(None), Err(anyhow::anyhow!("no answer")));
    let expected = json!({ "id": 7, "admin": "127.0.0.1:1", "error": "connection refused" });
    assert_eq!(found.replicas[3], expected);
    assert_eq!(found.problems().len(), 2);
    assert!(found.document(&found.problems())["unknown"].is_array());
}

#[test]
fn a_replica_without_its_application_a_leader_or_agreement_is_not_healthy() {
    for (field, value) in [
        ("app", json!("down")),
        ("leader", Value::Null),
        ("divergences", json!(2)),
        ("role", json!("quarantined")),
        ("silent", json!("7.0")),
    ] {
        let mut found = three();
        found.replicas[1][field] = value;
        assert_eq!(found.problems().len(), 1, "{field}: {:?}", found.problems());
    }
}

#[test]
fn what_replicas_say_can_be_done_is_shown() {
    let mut found = three();
    found.replicas[2]["hints"] = json!(["`lockstep abort 7.0` gives it up"]);
    let line = "replica 2: `lockstep abort 7.0` gives it up";
    assert!(status_table::render(&found, &[]).contains(line));
    assert_eq!(found.document(&[])["hints"], json!([line]));
}

#[test]
fn a_log_that_is_half_full_is_a_problem() {
    let mut found = three();
    (found.replicas[0]["log_bytes"], found.replicas[0]["log_max_bytes"]) = (json!(49), json!(100));
    assert_eq!(found.problems(), Vec::<String>::new());
    found.replicas[0]["log_bytes"] = json!(50);
    assert_eq!(found.problems().len(), 1);
}

#[test]
fn replicas_that_all_follow_have_no_leader() {
    let mut found = three();
    found.replicas[0]["role"] = json!("follower");
    assert_eq!(found.problems().len(), 1);
}

#[test]
fn the_usual_admin_port_need_not_be_said() {
    assert_eq!(with_port("host"), "host:9400");
    assert_eq!(with_port("host:1"), "host:1");
    assert_eq!(with_port("[::1]"), "[::1]:9400");
    assert_eq!(with_port("[::1]:5"), "[::1]:5");
}
