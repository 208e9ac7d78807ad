//! What a client's own connection remembers: database, user, transaction. It outlives the application's processes.

use super::binary::has_redis;
use super::redis;
use super::resp::{Client, Reply};
use super::snapshots::OFTEN;
use super::up::{Process, Up, signal};
use super::wait;

/// A cluster that gives each client its connections, and snapshots them often.
fn start(more: &[&str]) -> Up {
    redis::start(&[&OFTEN[..], &["--app-connections", "per-session", "--snapshot", "request"], more].concat())
}

fn ok() -> Reply {
    Reply::Simple("OK".to_owned())
}

fn tell(client: &mut Client, words: &[&str], expected: &Reply) {
    assert_eq!(client.command(words).expect("a reply"), *expected, "{words:?}");
}

/// Requests of another client, until every replica has a snapshot of a later slot than any that exists now.
fn snapshots_everywhere(up: &Up) {
    let snapshot = |sidecar: &Process| sidecar.status().ok()?["snapshot_slot"].as_u64();
    let decided = up.settled()[0]["decided"].as_u64().expect("a slot");
    let mut client = Client::connect(up.listen()).expect("it listens");
    wait::until("snapshots on all replicas", || {
        for _ in 0..100 {
            client.command(&["INCR", "requests"]).map_err(|error| error.to_string())?;
        }
        let slots: Vec<_> = up.role("sidecar").iter().map(snapshot).collect();
        if slots.iter().all(|slot| slot.is_some_and(|slot| slot > decided)) {
            Ok(())
        } else {
            Err(format!("{slots:?}"))
        }
    });
}

/// Kills the application of each replica in turn, and waits until it is back.
fn lose_every_application(up: &Up) {
    for id in 0..3 {
        let find = || up.role("sidecar").into_iter().find(|sidecar| sidecar.id == id).ok_or("no sidecar");
        let before = find().expect("it runs").app.expect("it has an application").0;
        signal("KILL", before);
        wait::until("the application is back", || {
            let sidecar = find()?;
            let again = sidecar.app.as_ref().is_some_and(|(pid, _)| *pid != before);
            if again { sidecar.ready() } else { Err(up.log()) }
        });
    }
}

#[test]
fn a_chosen_database_outlives_the_applications_and_the_log() {
    if !has_redis("a_chosen_database_outlives_the_applications_and_the_log") {
        return;
    }
    let up = start(&[]);
    let mut client = Client::connect(up.listen()).expect("it listens");
    tell(&mut client, &["SELECT", "3"], &ok());
    tell(&mut client, &["SET", "before", "1"], &ok());
    snapshots_everywhere(&up);
    lose_every_application(&up);
    tell(&mut client, &["SET", "after", "2"], &ok());
    tell(&mut client, &["GET", "before"], &Reply::Bulk(Some(b"1".to_vec())));
    redis::digest(&up);
    for sidecar in up.role("sidecar") {
        let mut own = Client::connect(&sidecar.app.expect("it has an application").1).expect("it listens");
        tell(&mut own, &["EXISTS", "after"], &Reply::Integer(0));
        tell(&mut own, &["SELECT", "3"], &ok());
        tell(&mut own, &["EXISTS", "before", "after"], &Reply::Integer(2));
    }
}

#[test]
fn open_transactions_and_watched_keys_outlive_the_applications_and_the_log() {
    if !has_redis("open_transactions_and_watched_keys_outlive_the_applications_and_the_log") {
        return;
    }
    let up = start(&[]);
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(up.listen()).expect("it listens")).collect();
    for (client, key) in clients.iter_mut().zip(["changed", "untouched", "later"]) {
        tell(client, &["WATCH", key], &ok());
    }
    tell(&mut clients[1], &["MULTI"], &ok());
    tell(&mut clients[1], &["SELECT", "2"], &Reply::Simple("QUEUED".to_owned()));
    tell(&mut clients[3], &["SET", "changed", "1"], &ok());
    snapshots_everywhere(&up);
    tell(&mut clients[3], &["SET", "later", "1"], &ok());
    lose_every_application(&up);
    for client in [0, 2] {
        tell(&mut clients[client], &["MULTI"], &ok());
        tell(&mut clients[client], &["SET", "overwritten", "1"], &Reply::Simple("QUEUED".to_owned()));
        let reply = clients[client].command(&["EXEC"]).expect("a reply");
        assert_eq!(reply, Reply::Array(Vec::new()), "client {client}: what it watched has changed");
    }
    tell(&mut clients[1], &["SET", "done", "1"], &Reply::Simple("QUEUED".to_owned()));
    tell(&mut clients[1], &["EXEC"], &Reply::Array(vec![ok(), ok()]));
    tell(&mut clients[1], &["EXISTS", "done"], &Reply::Integer(1));
    tell(&mut clients[3], &["EXISTS", "done", "overwritten"], &Reply::Integer(0));
    redis::digest(&up);
}
