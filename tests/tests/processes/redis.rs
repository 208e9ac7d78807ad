//! A real, unmodified Redis.

use super::binary::{has_redis, lockstep};
use super::resp::{Client, Reply};
use super::up::Up;
use super::wait;
use std::process::Command;

/// A cluster around Redis.
pub(crate) fn start(more: &[&str]) -> Up {
    start_by(Command::new(lockstep()), more)
}

/// The same, with another build of the program.
pub(crate) fn start_by(program: Command, more: &[&str]) -> Up {
    let mut arguments = vec!["--protocol", "resp"];
    arguments.extend(more);
    arguments.extend(["--", "redis-server", "--port", "{port}", "--save", "", "--appendonly", "no"]);
    arguments.extend(["--enable-debug-command", "yes"]);
    Up::start_by(program, &arguments)
}

/// Waits until every replica's own Redis has the same contents, and returns the digest.
pub(crate) fn digest(up: &Up) -> String {
    wait::until("the same on all replicas", || {
        let mut digests = Vec::new();
        for sidecar in up.role("sidecar") {
            let (_, address) = sidecar.app.ok_or("a sidecar has no application")?;
            let mut client = Client::connect(&address).map_err(|error| format!("{address}: {error}"))?;
            match client.command(&["DEBUG", "DIGEST"]) {
                Ok(Reply::Simple(digest)) => digests.push(digest),
                other => return Err(format!("{address}: {other:?}")),
            }
        }
        if digests.iter().all(|digest| *digest == digests[0]) {
            Ok(digests.remove(0))
        } else {
            Err(format!("{digests:?}"))
        }
    })
}

fn cli(up: &Up, words: &[&str]) -> String {
    let (_, port) = up.listen().rsplit_once(':').unwrap();
    let output = Command::new("redis-cli").args(["-p", port]).args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn redis_cli_and_pipelines_work_and_all_replicas_have_the_same_contents() {
    if !has_redis("redis_cli_and_pipelines_work_and_all_replicas_have_the_same_contents") {
        return;
    }
    let up = start(&[]);
    let empty = digest(&up);
    assert_eq!(cli(&up, &["SET", "greeting", "hello"]), "OK");
    assert_eq!(cli(&up, &["GET", "greeting"]), "hello");
    assert_eq!(cli(&up, &["PING"]), "PONG");
    let mut client = Client::connect(up.listen()).unwrap();
    let numbers: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let commands: Vec<[&str; 3]> = numbers.iter().map(|n| ["RPUSH", "list", n.as_str()]).collect();
    let commands: Vec<&[&str]> = commands.iter().map(|words| &words[..]).collect();
    client.send(&commands).unwrap();
    for length in 1..=500 {
        assert_eq!(client.reply().unwrap(), Reply::Integer(length));
    }
    let full = digest(&up);
    assert_ne!(empty, full);
    let digests: Vec<_> = up.settled().into_iter().map(|status| status["digest_now"].clone()).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn redis_benchmark_runs_without_an_error() {
    if !has_redis("redis_benchmark_runs_without_an_error") {
        return;
    }
    let up = start(&[]);
    let (_, port) = up.listen().rsplit_once(':').unwrap();
    for pipeline in ["1", "16"] {
        let output = Command::new("redis-benchmark")
            .args(["-p", port, "-n", "4000", "-c", "20", "-r", "1000", "-P", pipeline, "-t", "set,get,incr,lpush,hset"])
            .arg("--csv")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("SET") && !said.contains("Error"), "{said}");
    }
    digest(&up);
    let ingress = up.role("ingress").remove(0).status().unwrap();
    assert_eq!(ingress["requests"]["unknown"], 0, "{ingress}");
}

#[test]
fn what_must_not_be_replicated_is_refused_by_name_and_the_connection_goes_on() {
    if !has_redis("what_must_not_be_replicated_is_refused_by_name_and_the_connection_goes_on") {
        return;
    }
    let up = start(&[]);
    let mut client = Client::connect(up.listen()).unwrap();
    for words in [&["SHUTDOWN"][..], &["MONITOR"], &["SUBSCRIBE", "c"], &["BLPOP", "k", "0"]] {
        match client.command(words).unwrap() {
            Reply::Error(why) => assert!(!why.is_empty()),
            other => panic!("{words:?} was not refused: {other:?}"),
        }
    }
    assert_eq!(client.command(&["SET", "a", "1"]).unwrap(), Reply::Simple("OK".to_owned()));
}

#[test]
fn connections_keep_their_own_database_and_transactions_where_each_session_has_its_own_connection() {
    if !has_redis("connections_keep_their_own_database_and_transactions_where_each_session_has_its_own_connection") {
        return;
    }
    let up = start(&["--app-connections", "per-session"]);
    let ok = || Reply::Simple("OK".to_owned());
    let (mut one, mut other) = (Client::connect(up.listen()).unwrap(), Client::connect(up.listen()).unwrap());
    assert_eq!(one.command(&["SELECT", "1"]).unwrap(), ok());
    assert_eq!(one.command(&["SET", "a", "one"]).unwrap(), ok());
    assert_eq!(other.command(&["GET", "a"]).unwrap(), Reply::Bulk(None));
    assert_eq!(other.command(&["SET", "a", "zero"]).unwrap(), ok());
    assert_eq!(one.command(&["GET", "a"]).unwrap(), Reply::Bulk(Some(b"one".to_vec())));
    drop(one);
    let mut later = Client::connect(up.listen()).unwrap();
    assert_eq!(later.command(&["GET", "a"]).unwrap(), Reply::Bulk(Some(b"zero".to_vec())));
    digest(&up);
}
