//! What dashboards and people read from the stateless parts: names that are a contract.

use super::hashmap::netcat;
use super::up::{Up, signal};
use lockstep_tests::driver::http;

#[test]
fn ingress_and_smart_client_show_what_the_interface_promises() {
    let up = Up::start(&[]);
    assert_eq!(netcat(up.listen(), "PUT a 1\n").unwrap(), "OK\n");
    let common = ["lockstep_requests_total{result=\"ok\"}", "lockstep_request_seconds_count", "lockstep_resends_total"];
    let of_ingress = [
        "lockstep_tcp_connections ",
        "lockstep_tcp_accepts_total 1",
        "lockstep_endpoints{state=\"ready\"} 2",
        "lockstep_endpoints{state=\"ejected\"} 0",
        "lockstep_refused_total{reason=\"overloaded\"} 0",
    ];
    let of_smart_client = ["lockstep_vote_disagreements_total{replica=\"0\"} 0"];
    for (role, own) in [("ingress", &of_ingress[..]), ("smart-client", &of_smart_client)] {
        for part in up.role(role) {
            let metrics = http::get(&part.admin, "/metrics").unwrap().1;
            for name in common.iter().chain(own) {
                assert!(metrics.contains(name), "{role} {} has no {name}:\n{metrics}", part.id);
            }
            let status = part.status().unwrap();
            assert_eq!(status["kind"], role);
            assert_eq!(status["id"], part.id.to_string());
            assert_eq!(status["cluster"], "local");
            assert!(status["version"].is_string() && status["tls"]["not_after"].is_string(), "{status}");
            let peers = status["peers"].as_array().unwrap();
            assert_eq!(peers.len(), if role == "ingress" { 2 } else { 3 });
            assert!(peers.iter().all(|peer| peer["up"] == true), "{status}");
            for path in ["/startupz", "/livez", "/readyz", "/app/livez"] {
                let (code, body) = http::get(&part.admin, path).unwrap();
                assert_eq!(code, 200, "{path}: {body}");
            }
            assert!(http::json(&part.admin, "/config").unwrap().is_object());
        }
    }
}

#[test]
fn without_a_quorum_the_smart_clients_are_not_ready_and_the_ingress_is() {
    let up = Up::start(&["--no-restart"]);
    for sidecar in up.role("sidecar").iter().skip(1) {
        signal("KILL", sidecar.pid);
    }
    for part in up.role("smart-client") {
        super::wait::until("unready", || match http::get(&part.admin, "/readyz?verbose")? {
            (503, body) if body.contains("quorum") => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    up.role("ingress").remove(0).ready().unwrap();
}
