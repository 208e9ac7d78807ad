//! Members come and go by command while clients work: the leader too, and one that is killed while it is filled.

use super::binary::lockstep;
use super::hashmap::netcat;
use super::moves::{Part, line};
use super::ports::free_port;
use super::up::{Up, signal};
use super::wait;
use lockstep_tests::chaos::Watch;
use lockstep_tests::driver::http;
use lockstep_tests::linear;
use serde_json::Value;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const CLIENTS: u32 = 8;
const DEADLINE: Duration = Duration::from_secs(20);

/// `lockstep members …` about the cluster of an `up`.
fn members(up: &Up, words: &[&str]) -> Command {
    let mut command = Command::new(lockstep());
    command.arg("members").args(words).arg("--data-dir").arg(up.data_dir());
    command
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs it to a good end.
fn well(up: &Up, words: &[&str]) -> String {
    let output = members(up, words).output().expect("lockstep runs");
    assert!(output.status.success(), "{words:?}: {}", told(&output));
    told(&output)
}

/// It is refused with a reason.
fn refused(up: &Up, words: &[&str]) -> String {
    let output = members(up, words).output().expect("lockstep runs");
    assert_eq!(output.status.code(), Some(3), "{words:?}: {}", told(&output));
    told(&output)
}

fn list(up: &Up) -> Value {
    let output = members(up, &["list", "-o", "json"]).output().expect("lockstep runs");
    assert!(output.status.success(), "{}", told(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn ids(list: &Value) -> Vec<u64> {
    let members = list["members"].as_array().expect("a list");
    members
        .iter()
        .filter(|member| member["votes"] == true)
        .map(|member| member["id"].as_u64().expect("a number"))
        .collect()
}

/// Exactly these vote.
fn voters(up: &Up, wanted: &[u64]) {
    wait::until("the members", || {
        let list = list(up);
        if ids(&list) == wanted { Ok(()) } else { Err(list.to_string()) }
    });
}

/// The command line of a server with a new id, made of that of one that runs.
fn newcomer(up: &Up, id: u64) -> (Vec<String>, String) {
    let pki = up.data_dir().join("pki");
    let mut issue = Command::new(lockstep());
    issue.args(["certs", "issue", "server", &id.to_string(), "--dir"]).arg(&pki).stdout(Stdio::null());
    assert!(issue.status().expect("lockstep runs").success());
    let quic = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (admin, app) = (format!("127.0.0.1:{}", free_port()), free_port());
    let dir = up.data_dir();
    let mut words = line(&up.role("sidecar")[0]);
    words.insert(1, format!("--advertise={quic}"));
    for word in &mut words {
        let Some((flag, _)) = word.split_once('=') else { continue };
        let value = match flag {
            "--id" => id.to_string(),
            "--quic" => quic.to_string(),
            "--admin" => admin.clone(),
            "--app-port" => app.to_string(),
            "--data-dir" => dir.join(format!("server-{id}")).display().to_string(),
            "--app-dir" => dir.join(format!("app-{id}")).display().to_string(),
            "--pki" => pki.join("server").join(id.to_string()).display().to_string(),
            _ => continue,
        };
        *word = format!("{flag}={value}");
    }
    (words, admin)
}

/// Every request is answered, and the history of all calls is one that a single copy could have given.
fn judge(watch: Watch) {
    let seen = watch.finish();
    assert!(seen.errors.is_empty(), "{:#?}", seen.errors);
    let checked = linear::check(&seen.calls).unwrap_or_else(|fault| panic!("{fault:#?}"));
    assert!(checked.calls > 100 * CLIENTS as usize, "only {} calls", checked.calls);
    println!("{} calls, the longest took {:?}", checked.calls, seen.longest);
}

#[test]
fn members_come_and_go_under_load_and_no_client_notices() {
    let up = Up::start(&["--deadline", "20s"]);
    let watch = Watch::start(up.listen(), CLIENTS, DEADLINE, 7);
    voters(&up, &[0, 1, 2]);
    assert!(refused(&up, &["add", "1"]).contains("one already"));
    assert!(refused(&up, &["remove", "9"]).contains("no such member"));

    // Three to five. One of the new ones is killed while it is filled, and started again.
    let (three, three_admin) = newcomer(&up, 3);
    let mut first = Part::start(&three);
    wait::until("waiting", || {
        let status = http::json(&three_admin, "/status").map_err(|error| format!("{error:#}"))?;
        if status["role"] == "waiting" { Ok(()) } else { Err(status.to_string()) }
    });
    let mut adding = members(&up, &["add", "3"]).stdout(Stdio::null()).spawn().expect("lockstep runs");
    wait::until("a member", || {
        let list = list(&up);
        if list["members"].to_string().contains("\"id\":3") { Ok(()) } else { Err(list.to_string()) }
    });
    signal("KILL", first.0.id().into());
    first.0.wait().expect("a child");
    let _third = Part::start(&three);
    assert!(adding.wait().expect("a child").success());
    let (four, _) = newcomer(&up, 4);
    let _fourth = Part::start(&four);
    well(&up, &["add", "4"]);
    voters(&up, &[0, 1, 2, 3, 4]);

    // The leader is removed; its id is below the target, so that it joins anew when it is started again.
    let (leader, _) = up.leader();
    well(&up, &["remove", &leader.id.to_string()]);
    voters(&up, &[0, 1, 2, 3, 4]);
    let incarnation = |list: &Value| {
        list["members"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|member| member["id"] == leader.id)
            .map(|member| member["incarnation"].clone())
    };
    assert_eq!(incarnation(&list(&up)), Some(Value::from(2)), "it came back as another one");

    // Five to three to one, and back.
    well(&up, &["set-target", "3"]);
    well(&up, &["remove", "4"]);
    well(&up, &["remove", "3"]);
    voters(&up, &[0, 1, 2]);
    well(&up, &["transfer-leader", "1"]);
    assert_eq!(list(&up)["leader"], 1);
    well(&up, &["set-target", "1"]);
    well(&up, &["remove", "1"]);
    well(&up, &["remove", "2"]);
    voters(&up, &[0]);
    assert!(refused(&up, &["remove", "0"]).contains("last member"));
    well(&up, &["set-target", "3"]);
    voters(&up, &[0, 1, 2]);
    judge(watch);
    assert_eq!(netcat(up.listen(), "PUT last 1\nGET last\n").unwrap(), "OK\nVALUE 1\n");
}
