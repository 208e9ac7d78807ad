//! Reads past the log: nothing is ordered for them, and what clients see is one copy whatever happens to the leader.

use super::up::{Process, Up, signal};
use super::wait;
use lockstep_tests::chaos::Watch;
use lockstep_tests::driver::http;
use lockstep_tests::linear;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long clients call between two faults.
const WHILE: Duration = Duration::from_millis(1_500);

/// A counter of an admin port.
fn counter(part: &Process, name: &str) -> u64 {
    counter_or(part, name, None)
}

/// The same, where it need not be there.
fn counter_or(part: &Process, name: &str, missing: Option<u64>) -> u64 {
    let (_, metrics) = http::get(&part.admin, "/metrics").expect("its metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let number = line.map(|number| number.parse().expect("a number"));
    number.or(missing).unwrap_or_else(|| panic!("no {name} in {metrics}"))
}

fn answered(up: &Up) -> (u64, u64) {
    let ingress = up.role("ingress").remove(0);
    let of = |result| counter(&ingress, &format!("lockstep_reads_total{{result=\"{result}\"}}"));
    (of("index"), of("log"))
}

/// Calls over one connection, one after the other.
fn ask(up: &Up, lines: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut link = BufReader::new(TcpStream::connect(up.listen()).expect("it listens"));
    let mut replies = Vec::new();
    for line in lines {
        link.get_mut().write_all(format!("{line}\n").as_bytes()).expect("sent");
        let mut reply = String::new();
        link.read_line(&mut reply).expect("answered");
        replies.push(reply.trim_end().to_owned());
    }
    replies
}

fn decided(up: &Up) -> u64 {
    up.settled()[0]["decided"].as_u64().expect("a slot")
}

#[test]
fn reads_enter_no_log_and_what_is_much_at_a_time_is_answered_by_every_replica() {
    let up = Up::start(&[]);
    assert_eq!(ask(&up, ["PUT a 1".to_owned(), "GET a".to_owned(), "SIZE".to_owned()]), ["OK", "VALUE 1", "1"]);
    let (before, slots) = (answered(&up).0, decided(&up));
    let reads = ask(&up, (0..300).map(|_| "GET a".to_owned()));
    assert!(reads.iter().all(|reply| reply == "VALUE 1"), "{reads:?}");
    let (index, log) = answered(&up);
    assert!(index - before > 250, "{index} past the log, {log} in it");
    // Hashes are compared by order now and then.
    assert!(decided(&up) - slots < 100, "the log grew by {}", decided(&up) - slots);
    // No line before the first one.
    let of = |part: &Process| counter_or(part, "lockstep_reads_total{result=\"answered\"}", Some(0));
    let given = || -> Vec<u64> { up.role("sidecar").iter().map(of).collect() };
    // Crowds, until each replica has had its share: the leader is asked for some at a time, and then the others in turn.
    let end = Instant::now() + Duration::from_secs(60);
    let mut shares = given();
    while shares.contains(&0) && Instant::now() < end {
        let connect = |_| TcpStream::connect(up.listen()).expect("it listens");
        let mut crowd: Vec<TcpStream> = (0..600).map(connect).collect();
        crowd.iter_mut().for_each(|link| link.write_all(b"GET a\n").expect("sent"));
        for link in crowd {
            let mut reply = String::new();
            BufReader::new(link).read_line(&mut reply).expect("answered");
            assert_eq!(reply, "VALUE 1\n");
        }
        shares = given();
    }
    assert!(!shares.contains(&0), "{shares:?}");
}

#[test]
fn a_pipeline_of_reads_and_writes_is_answered_in_its_order() {
    let up = Up::start(&[]);
    let mut link = BufReader::new(TcpStream::connect(up.listen()).expect("it listens"));
    let (mut asked, mut expected) = (String::new(), Vec::new());
    for round in 0..50 {
        asked.push_str(&format!("PUT a {round}\nGET a\nGET a\nSIZE\nREMOVE a\nGET a\n"));
        expected.extend(["OK".to_owned(), format!("VALUE {round}"), format!("VALUE {round}"), "1".to_owned()]);
        expected.extend(["OK".to_owned(), "NIL".to_owned()]);
    }
    // In pieces, so that some reads come when nothing is under way, and some when something is.
    for piece in asked.as_bytes().chunks(37) {
        link.get_mut().write_all(piece).expect("sent");
        std::thread::sleep(Duration::from_millis(1));
    }
    let replies: Vec<String> = link.lines().take(expected.len()).map(|line| line.expect("answered")).collect();
    assert_eq!(replies, expected);
}

#[test]
fn told_so_or_signed_reads_go_through_the_log() {
    for arguments in [&["--reads", "log"][..], &["--signatures"], &["--reply-vote", "all"]] {
        let up = Up::start(arguments);
        let replies = ask(&up, ["PUT a 1".to_owned()].into_iter().chain((0..30).map(|_| "GET a".to_owned())));
        assert!(replies[1..].iter().all(|reply| reply == "VALUE 1"), "{replies:?}");
        assert_eq!(answered(&up), (0, 0), "{arguments:?}");
    }
}

#[test]
fn clients_see_one_copy_while_the_leader_stands_still_dies_and_comes_back() {
    let up = Up::start(&[]);
    let watch = Watch::start(up.listen(), 12, Duration::from_secs(10), 7);
    for round in 0..2 {
        std::thread::sleep(WHILE);
        let leader = up.leader().0;
        signal("STOP", leader.pid);
        std::thread::sleep(WHILE);
        // Another one leads; the old one wakes with what it had in hand, and believes for a moment that it leads.
        let other = up.leader_beside(leader.id);
        assert_ne!(other.id, leader.id, "in round {round}");
        signal("CONT", leader.pid);
        std::thread::sleep(WHILE);
        let leader = up.leader().0;
        signal("KILL", leader.pid);
        up.restarted("sidecar", leader.id, leader.pid);
    }
    std::thread::sleep(WHILE);
    let seen = watch.finish();
    assert!(seen.errors.is_empty(), "{:?}", seen.errors);
    let checked = linear::check(&seen.calls).unwrap_or_else(|fault| panic!("{fault}"));
    let (index, log) = answered(&up);
    println!("{checked:?}, {index} groups of reads past the log, {log} that had to go through it");
    assert!(checked.calls > 200 && index > 100, "{checked:?}: {index} reads past the log, {log} in it");
    wait::until("settled", || up.role("sidecar").iter().try_for_each(Process::ready));
    up.settled();
}
