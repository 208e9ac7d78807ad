//! An operator's commands around a running cluster: check, smoke, top, debug, and what the logs tell.

use super::binary::{has_redis, lockstep};
use super::up::{Up, signal};
use super::wait;
use serde_json::Value;
use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str]) -> Output {
    Command::new(lockstep()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn data_dir(up: &Up) -> String {
    up.data_dir().to_str().unwrap().to_owned()
}

/// The checks that failed, as "category name label".
fn failing(arguments: &[&str]) -> (Option<i32>, Vec<String>) {
    let output = run(&[&["check", "-o", "json"], arguments].concat());
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let bad = said["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false);
    let lines = bad.map(|check| {
        assert!(check["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{check}");
        let word = |field: &str| check[field].as_str().unwrap().to_owned();
        format!("{} {} {}", word("category"), word("name"), word("label"))
    });
    (output.status.code(), lines.collect())
}

#[test]
fn check_names_what_was_broken_and_a_leader_change_is_told_in_few_lines() {
    let up = Up::start(&["--no-restart"]);
    let dir = data_dir(&up);
    let healthy = run(&["check", "--data-dir", &dir, "--wait", "1m"]);
    assert_eq!(healthy.status.code(), Some(0), "{}", text(&healthy));
    let said = String::from_utf8_lossy(&healthy.stdout).into_owned();
    let headings: Vec<&str> = said.lines().filter(|line| !line.starts_with(' ')).collect();
    let expected =
        ["certificates", "parts", "quorum", "links", "lag", "divergence", "disk", "system", "clocks", "versions"];
    assert_eq!(headings, expected, "{said}");

    let (leader, others) = up.leader();
    let before: Vec<usize> =
        others.iter().map(|part| up.log_of(&format!("sidecar-{}", part.id)).lines().count()).collect();
    signal("KILL", leader.pid);
    let next = wait::until("led by another", || {
        let leads = |part: &&super::up::Process| part.status().is_ok_and(|status| status["role"] == "leader");
        others.iter().find(leads).map(|part| part.id).ok_or_else(|| up.log())
    });
    let dead = leader.id;
    wait::until("told what is missing", || {
        let (code, found) = failing(&["--data-dir", &dir]);
        let all = [
            format!("parts sidecar {dead} unreachable"),
            "quorum service reduced".to_owned(),
            format!("links sidecar {next} link_down"),
            "links smart-client 0 link_down".to_owned(),
        ];
        let complete = code == Some(5) && all.iter().all(|line| found.contains(line));
        if complete { Ok(()) } else { Err(format!("{code:?} {found:#?}")) }
    });
    for (part, before) in others.iter().zip(before) {
        let log = up.log_of(&format!("sidecar-{}", part.id));
        let told: Vec<&str> = log.lines().skip(before).collect();
        assert!(told.len() <= 8, "a leader change makes {} lines:\n{}", told.len(), told.join("\n"));
        assert!(
            told.iter().any(|line| line.contains("this member leads") || line.contains("following a new leader")),
            "{told:#?}"
        );
    }

    signal("KILL", others[0].pid);
    wait::until("without a quorum", || {
        let (_, found) = failing(&["--data-dir", &dir]);
        let lines = ["quorum service no_quorum", "quorum smart-client 0 no_quorum"];
        if lines.iter().all(|line| found.iter().any(|one| one == line)) { Ok(()) } else { Err(format!("{found:#?}")) }
    });
}

#[test]
fn check_fails_for_a_port_that_is_taken_and_for_names_that_are_none() {
    let _machine = super::up::machine();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let quic = taken.local_addr().unwrap().to_string();
    let dir = std::env::temp_dir();
    let pre = ["--pre", "--listen", "127.0.0.1:0", "--data-dir", dir.to_str().unwrap()];
    let (code, found) = failing(&[&pre[..], &["--quic", &quic, "--seeds", "no-such-host.invalid:7500"]].concat());
    assert_eq!(code, Some(5));
    let port = format!("system --quic {quic} port");
    assert!(found.contains(&port), "{found:#?}");
    assert!(found.contains(&"links name no-such-host.invalid:7500 no_address".to_owned()), "{found:#?}");
    drop(taken);
    let (_, found) = failing(&[&pre[..], &["--quic", &quic]].concat());
    assert!(!found.contains(&port), "{found:#?}");
}

#[test]
fn smoke_top_and_debug_work_on_a_running_cluster() {
    let up = Up::start(&[]);
    let dir = data_dir(&up);
    let smoke = run(&["smoke", "--to", up.listen(), "--protocol", "line"]);
    assert_eq!(smoke.status.code(), Some(0), "{}", text(&smoke));
    assert_eq!(super::hashmap::netcat(up.listen(), "SIZE\n").unwrap(), "0\n", "its key is left behind");
    let wrong = run(&["smoke", "--to", up.listen(), "--protocol", "resp", "--timeout", "20s"]);
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong));
    assert!(text(&wrong).contains("is --protocol right?"), "{}", text(&wrong));

    let top = run(&["top", "--once", "--interval", "200ms", "--data-dir", &dir]);
    let said = text(&top);
    assert!(top.status.success(), "{said}");
    for word in ["REPLICA", "SMART CLIENT", "INGRESS", "DECIDED/s", "leader", "follower"] {
        assert!(said.contains(word), "{word} in {said}");
    }

    let file = up.data_dir().join("bundle.json");
    let debug = run(&["debug", "--data-dir", &dir, "--file", file.to_str().unwrap()]);
    assert!(debug.status.success(), "{}", text(&debug));
    let bundle: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(bundle["missing"], serde_json::json!([]), "{}", bundle["missing"]);
    let parts = bundle["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 6);
    for part in parts {
        assert!(part["/status"]["kind"].is_string() && part["/config"].is_object(), "{part}");
        assert!(part["/metrics"].as_str().is_some_and(|text| text.contains("lockstep_build_info")), "{part}");
        assert!(part["log"].as_str().is_some_and(|text| text.contains("starting")), "{part}");
    }
    assert_eq!(run(&["debug", "--data-dir", &dir, "--file", file.to_str().unwrap()]).status.code(), Some(3));

    // Without a quorum nothing ran, or nobody knows.
    for sidecar in up.role("sidecar").into_iter().take(2) {
        signal("STOP", sidecar.pid);
    }
    let smoke = run(&["smoke", "--to", up.listen(), "--protocol", "line", "--timeout", "30s"]);
    assert_eq!(smoke.status.code(), Some(6), "{}", text(&smoke));
    for sidecar in up.role("sidecar").into_iter().take(2) {
        signal("CONT", sidecar.pid);
    }
}

#[test]
fn smoke_speaks_every_protocol() {
    let binary = lockstep().to_str().unwrap();
    {
        let up =
            Up::start(&["--protocol", "close", "--", binary, "hashmap", "--listen", "127.0.0.1:{port}", "--close"]);
        let smoke = run(&["smoke", "--to", up.listen(), "--protocol", "close"]);
        assert_eq!(smoke.status.code(), Some(0), "{}", text(&smoke));
    }
    {
        let web = env!("CARGO_BIN_EXE_web");
        let up = Up::start(&["--protocol", "http", "--snapshot", "none", "--", web, "{port}"]);
        let smoke = run(&["smoke", "--to", up.listen(), "--protocol", "http"]);
        assert_eq!(smoke.status.code(), Some(0), "{}", text(&smoke));
    }
    if has_redis("smoke_speaks_every_protocol") {
        let up = super::redis::start(&[]);
        let smoke = run(&["smoke", "--to", up.listen(), "--protocol", "resp"]);
        assert_eq!(smoke.status.code(), Some(0), "{}", text(&smoke));
        // What cannot be replicated is refused for certain.
        let refused = run(&["smoke", "--to", up.listen(), "--protocol", "resp", "--write", "SUBSCRIBE {key}"]);
        assert_eq!(refused.status.code(), Some(7), "{}", text(&refused));
    }
}
