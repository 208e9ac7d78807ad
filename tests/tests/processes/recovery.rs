//! Everything that was acknowledged is there, once, whatever was killed.

use super::binary::{self, has_redis};
use super::counters::Counters;
use super::data_dir::Directory;
use super::hashmap::netcat;
use super::redis;
use super::resp::{Client, Reply};
use super::snapshots::OFTEN;
use super::up::{Up, signal};
use super::wait;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often everything is killed; 20 in the long form.
fn rounds() -> usize {
    std::env::var("LOCKSTEP_ROUNDS").map_or(2, |rounds| rounds.parse().expect("LOCKSTEP_ROUNDS is a number"))
}

/// Clients of which each asks one thing after the other until the cluster is gone.
struct Askers {
    /// Requests acknowledged, of each client.
    acknowledged: Vec<Arc<AtomicI64>>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Askers {
    /// `ask`: one request, the `n`-th of the client; `Ok(false)` when the cluster is gone, an error for a surprise.
    fn start<A: FnMut(i64) -> Result<bool, String> + Send + 'static>(begun: &[i64], ask: impl Fn(usize) -> A) -> Self {
        let mut askers = Self { acknowledged: Vec::new(), threads: Vec::new() };
        for (client, from) in begun.iter().enumerate() {
            let acknowledged = Arc::new(AtomicI64::new(*from));
            askers.acknowledged.push(acknowledged.clone());
            let mut ask = ask(client);
            askers.threads.push(std::thread::spawn(move || {
                loop {
                    let next = acknowledged.load(Ordering::Relaxed) + 1;
                    if !ask(next)? {
                        return Ok(());
                    }
                    acknowledged.store(next, Ordering::Relaxed);
                }
            }));
        }
        askers
    }

    /// Waits until every client was acknowledged so many requests more.
    fn progress(&self, begun: &[i64], requests: i64) {
        for ((acknowledged, from), thread) in self.acknowledged.iter().zip(begun).zip(&self.threads) {
            wait::until("under load", || {
                let now = acknowledged.load(Ordering::Relaxed);
                if now >= from + requests || thread.is_finished() { Ok(()) } else { Err(format!("at {now}")) }
            });
        }
    }

    /// Ends with the cluster: what each client was acknowledged.
    fn end(self) -> Vec<i64> {
        for thread in self.threads {
            thread.join().expect("no panic").expect("no surprise before the end");
        }
        self.acknowledged.iter().map(|acknowledged| acknowledged.load(Ordering::Relaxed)).collect()
    }
}

/// Kills everything under load, again and again; `begin` starts the cluster, `ask` is what a client does, and `found`
/// counts what each client's requests have done, on every replica's own application.
fn killed_all_at_once<A: FnMut(i64) -> Result<bool, String> + Send + 'static>(
    begin: impl Fn() -> Up,
    ask: impl Fn(&str, usize) -> A,
    found: impl Fn(&Up, usize) -> Vec<Vec<i64>>,
) {
    let mut counts = vec![0; 8];
    let mut up = begin();
    for round in 0..rounds() {
        let address = up.listen().to_owned();
        let askers = Askers::start(&counts, |client| ask(&address, client));
        askers.progress(&counts, 50);
        up.kill_all();
        let acknowledged = askers.end();
        up = begin();
        let replicas = found(&up, counts.len());
        assert_eq!(replicas.len(), 3);
        assert!(replicas.iter().all(|counts| *counts == replicas[0]), "round {round}: {replicas:?}");
        for (client, (acknowledged, found)) in acknowledged.iter().zip(&replicas[0]).enumerate() {
            let right = *acknowledged..=acknowledged + 1;
            assert!(
                right.contains(found),
                "round {round}, client {client}: {acknowledged} acknowledged, one more in doubt, {found} in effect"
            );
        }
        counts.clone_from(&replicas[0]);
    }
}

#[test]
fn every_acknowledged_incr_is_in_effect_once_after_everything_was_killed_at_once() {
    if !has_redis("every_acknowledged_incr_is_in_effect_once_after_everything_was_killed_at_once") {
        return;
    }
    let directory = Directory::new();
    let arguments = [&OFTEN[..], &["--data-dir", directory.as_str()]].concat();
    let ask = |address: &str, client: usize| {
        let mut connection = Client::connect(address).expect("the ingress listens");
        move |next| match connection.command(&["INCR", &format!("counter:{client}")]) {
            Ok(Reply::Integer(count)) if count == next => Ok(true),
            Ok(Reply::Error(why)) if why.starts_with("LOCKSTEP") => Ok(false),
            Err(_) => Ok(false),
            other => Err(format!("client {client} expected {next} and got {other:?}")),
        }
    };
    let found = |up: &Up, clients: usize| {
        redis::digest(up);
        let count = |address: &str| {
            let mut connection = Client::connect(address).expect("Redis listens");
            let get = |client| match connection.command(&["GET", &format!("counter:{client}")]) {
                Ok(Reply::Bulk(Some(count))) => String::from_utf8_lossy(&count).parse().expect("a number"),
                other => panic!("{other:?}"),
            };
            (0..clients).map(get).collect()
        };
        up.role("sidecar").iter().map(|part| count(&part.app.as_ref().expect("an application").1)).collect()
    };
    killed_all_at_once(|| redis::start(&arguments), ask, found);
}

#[test]
fn every_acknowledged_put_is_there_after_everything_was_killed_at_once() {
    let directory = Directory::new();
    let arguments = [&OFTEN[..], &["--data-dir", directory.as_str()]].concat();
    let ask = |address: &str, client: usize| {
        let stream = TcpStream::connect(address).expect("the ingress listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket option");
        let mut writer = stream.try_clone().expect("a second handle");
        let mut reader = BufReader::new(stream);
        move |next| {
            let mut reply = String::new();
            let written = writer.write_all(format!("PUT c{client}:{next} {client}-{next}\n").as_bytes());
            match written.and_then(|()| reader.read_line(&mut reply)) {
                Ok(0) | Err(_) => Ok(false),
                Ok(_) if reply == "OK\n" => Ok(true),
                Ok(_) => Err(format!("client {client} got {reply:?}")),
            }
        }
    };
    let found = |up: &Up, clients: usize| {
        let count = |address: &str| {
            let dump = netcat(address, "DUMP\n").expect("the hashmap answers");
            let json = dump.trim_end().strip_prefix("ENTRIES ").expect("entries");
            let entries: BTreeMap<String, String> =
                serde_json::from_str::<Vec<(String, String)>>(json).expect("pairs").into_iter().collect();
            // Without a hole from the first to the last, and each with its own value.
            let whole = |client: usize| {
                let has = |n: &i64| entries.get(&format!("c{client}:{n}")) == Some(&format!("{client}-{n}"));
                (1..).take_while(has).count() as i64
            };
            let counts: Vec<i64> = (0..clients).map(whole).collect();
            assert_eq!(counts.iter().sum::<i64>(), entries.len() as i64, "a hole, or what nobody put: {json}");
            counts
        };
        up.settled();
        up.role("sidecar").iter().map(|part| count(&part.app.as_ref().expect("an application").1)).collect()
    };
    killed_all_at_once(|| Up::start(&arguments), ask, found);
}

#[test]
fn a_request_is_in_effect_once_when_a_sidecar_ends_between_execution_and_reply() {
    if !has_redis("a_request_is_in_effect_once_when_a_sidecar_ends_between_execution_and_reply") {
        return;
    }
    let up = redis::start_by(Command::new(binary::failpoints()), &OFTEN);
    let counters = Counters::start(&up, 8);
    counters.progress("before any fault");
    for sidecar in up.role("sidecar") {
        let place = up.data_dir().join(format!("server-{}", sidecar.id)).join("failpoint");
        std::fs::write(&place, "after-execute-before-reply").expect("the member's data directory");
        up.restarted("sidecar", sidecar.id, sidecar.pid);
        assert!(!place.exists(), "it ended for another reason");
        counters.progress("after the return");
    }
    counters.finish(&up);
    redis::digest(&up);
}

#[test]
fn no_client_notices_that_one_application_is_killed_again_and_again() {
    if !has_redis("no_client_notices_that_one_application_is_killed_again_and_again") {
        return;
    }
    let up = redis::start(&OFTEN);
    let counters = Counters::start(&up, 8);
    counters.progress("before any fault");
    let victim = up.leader().1.remove(0).id;
    let of_victim = || up.role("sidecar").into_iter().find(|part| part.id == victim).expect("it is there");
    for round in 0..4 {
        let (pid, _) = of_victim().app.expect("a sidecar of up has an application");
        signal("KILL", pid);
        counters.progress(&format!("without one application in round {round}"));
        wait::until("rebuilt", || {
            let sidecar = of_victim();
            match &sidecar.app {
                Some((now, _)) if *now != pid => sidecar.ready(),
                _ => Err(up.log()),
            }
        });
    }
    counters.finish(&up);
    redis::digest(&up);
}
