//! Reads past the log, on the clients' side (rule 32): what is asked so, what waits for it, and where it goes when it fails.

use super::ReplyVote;
use super::sender::{Answer, Config, Connection, Endpoint, Input, Lending, Output, Sender};
use super::smart_client::{self, SmartClient, Ticket};
use crate::ids::{ClientId, Digest, Generation, Opening, ReplicaId, Seq, Slot};
use crate::time::{Duration, Instant};
use crate::wire::client::{Told, Unread};
use crate::wire::submit::{Answer as Reply, Steer};
use crate::wire::{Body, Kind, Outcome, Request};
use bytes::Bytes;

const C: Connection = Connection(1);
const E: Endpoint = Endpoint(0);
const DEADLINE: u64 = 10_000;

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

/// One with a link.
fn sender() -> Sender {
    let config = Config { reads: true, ..Config::new(Lending::Pooled, 8, 4, 64, Duration::from_secs(10)) };
    let mut sender = Sender::new(config, [1, 2, 3, 4]);
    feed(&mut sender, 0, Input::Up(E));
    sender
}

fn feed(sender: &mut Sender, millis: u64, input: Input) -> Vec<Output> {
    let mut out = Vec::new();
    sender.step(at(millis), input, &mut out);
    out
}

fn call(sender: &mut Sender, millis: u64, body: &'static str) -> Vec<Output> {
    let (bytes, read) = (Bytes::from_static(body.as_bytes()), body.starts_with("GET"));
    feed(sender, millis, Input::Call { connection: C, bytes, read, deadline: at(DEADLINE) })
}

fn told(sender: &mut Sender, millis: u64, request: &Request, told: Told) -> Vec<Output> {
    feed(sender, millis, Input::Told { endpoint: E, tag: request.tag(), told })
}

fn asked(out: &[Output]) -> Vec<Request> {
    let request = |output: &Output| match output {
        Output::Send { request, .. } => Some(request.clone()),
        _ => None,
    };
    out.iter().filter_map(request).collect()
}

/// The one request that is asked.
fn one(out: &[Output]) -> Request {
    match &asked(out)[..] {
        [request] => request.clone(),
        other => panic!("{other:?}"),
    }
}

fn answers(out: &[Output]) -> Vec<&str> {
    let answer = |output: &'_ Output| match output {
        Output::Answer { answer: Answer::Reply(bytes), .. } => Some(bytes.clone()),
        Output::Answer { answer, .. } => panic!("{answer:?}"),
        _ => None,
    };
    let all = out.iter().filter_map(answer);
    all.map(|bytes| {
        if bytes == "1" {
            "1"
        } else if bytes == "2" {
            "2"
        } else {
            "OK"
        }
    })
    .collect()
}

fn body(request: &Request) -> Vec<&[u8]> {
    match &request.body {
        Body::Read(all) => all.iter().map(|bytes| &bytes[..]).collect(),
        Body::Call(bytes) => vec![&bytes[..]],
        _ => Vec::new(),
    }
}

fn replies(all: &[&'static str]) -> Told {
    Told::unsigned(Outcome::Read(all.iter().map(|reply| Bytes::from_static(reply.as_bytes())).collect()))
}

fn executed() -> Told {
    Told::unsigned(Outcome::Executed(Bytes::from_static(b"OK")))
}

fn opened(sender: &mut Sender, millis: u64, open: &Request) -> Vec<Output> {
    let opened = Generation::FIRST.at(Slot(1));
    told(sender, millis, open, Told::unsigned(Outcome::Opened { opened, window: 8 }))
}

#[test]
fn a_read_needs_neither_session_nor_number_and_those_that_wait_go_together() {
    let mut sender = sender();
    let first = one(&call(&mut sender, 1, "GET a"));
    assert_eq!((first.tag().kind, first.opened), (Kind::Read, Opening::NONE));
    assert_eq!(asked(&call(&mut sender, 2, "GET b")), [], "behind the first");
    assert_eq!(asked(&call(&mut sender, 2, "GET c")), []);
    let out = told(&mut sender, 3, &first, replies(&["1"]));
    assert_eq!(answers(&out), ["1"]);
    let second = one(&out);
    assert_eq!(body(&second), [b"GET b", b"GET c"]);
    assert_ne!(first.tag(), second.tag());
    assert_eq!(answers(&told(&mut sender, 4, &second, replies(&["1", "2"]))), ["1", "2"]);
    assert_eq!(sender.outstanding(), 0);
}

#[test]
fn no_write_is_sent_before_the_reads_ahead_of_it_are_answered() {
    let mut sender = sender();
    let read = one(&call(&mut sender, 1, "GET a"));
    assert_eq!(asked(&call(&mut sender, 2, "PUT a 1")), []);
    let out = told(&mut sender, 3, &read, replies(&["1"]));
    assert_eq!(answers(&out), ["1"]);
    assert_eq!(one(&out).tag().kind, Kind::Open, "now the write sees to a session");
}

#[test]
fn while_a_write_is_unanswered_the_reads_behind_it_go_through_the_log() {
    let mut sender = sender();
    let open = one(&call(&mut sender, 1, "PUT a 1"));
    let write = one(&opened(&mut sender, 2, &open));
    let read = one(&call(&mut sender, 3, "GET a"));
    assert_eq!((read.tag().kind, read.seq), (Kind::Call, Seq(2)));
    told(&mut sender, 4, &write, executed());
    told(&mut sender, 5, &read, executed());
    assert_eq!(one(&call(&mut sender, 6, "GET a")).tag().kind, Kind::Read, "nothing is under way any more");
}

#[test]
fn a_read_that_is_not_answered_goes_through_the_log_with_those_behind_it_in_order() {
    let mut sender = sender();
    let read = one(&call(&mut sender, 1, "GET a"));
    call(&mut sender, 2, "PUT a 1");
    let open = one(&told(&mut sender, 3, &read, Told::Unread(Unread::Now)));
    let numbered = asked(&opened(&mut sender, 4, &open));
    let numbers: Vec<_> = numbered.iter().map(|request| (request.seq, body(request))).collect();
    assert_eq!(numbers, [(Seq(1), vec![&b"GET a"[..]]), (Seq(2), vec![&b"PUT a 1"[..]])]);
    assert_eq!(asked(&told(&mut sender, 5, &read, replies(&["1"]))), [], "too late");
    assert_eq!(answers(&told(&mut sender, 6, &numbered[0], executed())), ["OK"], "the log's is the answer");
}

#[test]
fn a_late_one_goes_through_the_log_and_others_for_a_while_too() {
    let mut sender = sender();
    call(&mut sender, 1, "GET a");
    let out = feed(&mut sender, 501, Input::Timeout);
    let open = one(&out);
    assert!(open.tag().kind == Kind::Open && out.contains(&Output::Read { answered: false }));
    let read = one(&opened(&mut sender, 502, &open));
    told(&mut sender, 503, &read, executed());
    assert_eq!(one(&call(&mut sender, 600, "GET a")).tag().kind, Kind::Call);
    let last = sender.deadline();
    assert!(last.is_some());
}

#[test]
fn where_nobody_answers_reads_they_are_not_asked_again_soon() {
    let mut sender = sender();
    let read = one(&call(&mut sender, 1, "GET a"));
    let open = one(&told(&mut sender, 2, &read, Told::Unread(Unread::Never)));
    let logged = one(&opened(&mut sender, 3, &open));
    told(&mut sender, 4, &logged, executed());
    assert_eq!(one(&call(&mut sender, 5_000, "GET a")).tag().kind, Kind::Call);
}

#[test]
fn a_word_that_is_for_reads_says_nothing_of_a_call() {
    let mut sender = sender();
    let open = one(&call(&mut sender, 1, "PUT a 1"));
    let write = one(&opened(&mut sender, 2, &open));
    assert_eq!(answers(&told(&mut sender, 3, &write, Told::Unread(Unread::Now))), [] as [&str; 0]);
    assert_eq!(sender.outstanding(), 1, "it is asked again");
}

#[test]
fn who_is_gone_is_answered_nothing() {
    let mut sender = sender();
    let read = one(&call(&mut sender, 1, "GET a"));
    call(&mut sender, 1, "GET b");
    feed(&mut sender, 2, Input::Gone(C));
    assert_eq!(told(&mut sender, 3, &read, Told::Unread(Unread::Now)), [Output::Read { answered: false }]);
    assert_eq!(sender.outstanding(), 0);
}

const T: Ticket = Ticket(1);

fn smart_client(vote: ReplyVote) -> SmartClient {
    let mut client = SmartClient::new(smart_client::Config {
        servers: (0..3).map(ReplicaId).collect(),
        vote,
        resend: Duration::from_millis(800),
        margin: Duration::from_millis(20),
        held: 4,
        held_bytes: 64,
        resends_saved: 1000,
    });
    for server in 0..3 {
        push(&mut client, 0, smart_client::Input::Up(ReplicaId(server)));
    }
    client
}

fn push(client: &mut SmartClient, millis: u64, input: smart_client::Input) -> Vec<smart_client::Output> {
    let mut out = Vec::new();
    client.step(at(millis), input, &mut out);
    out
}

fn read(seq: u64) -> Request {
    let body = Body::Read(vec![Bytes::from_static(b"GET a")]);
    Request { client: ClientId(7), opened: Opening::NONE, seq: Seq(seq), body, proof: None }
}

fn ask(client: &mut SmartClient, millis: u64, seq: u64) -> Vec<smart_client::Output> {
    push(client, millis, smart_client::Input::Ask { ticket: T, request: read(seq), deadline: at(millis + 500) })
}

/// Which server is asked.
fn server(out: &[smart_client::Output]) -> ReplicaId {
    match out {
        [smart_client::Output::Send { to, whole: true, .. }] => *to,
        other => panic!("{other:?}"),
    }
}

fn tell(told: Told) -> smart_client::Output {
    smart_client::Output::Tell { ticket: T, told }
}

#[test]
fn one_server_is_asked_each_in_turn_and_its_word_is_enough() {
    let mut client = smart_client(ReplyVote::Majority);
    let mut seen = Vec::new();
    for seq in 1..=3 {
        let from = server(&ask(&mut client, seq, seq));
        let outcome = Outcome::Read(vec![Bytes::from_static(b"1")]);
        let answer =
            |tag| Reply { tag, slot: Slot(1), form: Digest::default(), outcome: outcome.clone(), signed: None };
        let other = ReplicaId((from.0 + 1) % 3);
        let answer = answer(read(seq).tag());
        let out = push(&mut client, seq, smart_client::Input::Answer { from: other, answer: answer.clone() });
        assert_eq!(out, [], "it was not asked");
        let out = push(&mut client, seq, smart_client::Input::Answer { from, answer });
        assert_eq!(out, [tell(Told::unsigned(outcome))]);
        seen.push(from.0);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2]);
}

#[test]
fn a_server_that_does_not_answer_is_left_alone_for_a_moment() {
    let mut client = smart_client(ReplyVote::Majority);
    let from = server(&ask(&mut client, 1, 1));
    let steer = smart_client::Input::Steer { from, tag: read(1).tag(), steer: Steer::Unread };
    assert_eq!(push(&mut client, 2, steer), [tell(Told::Unread(Unread::Now))]);
    for seq in 2..8 {
        let other = server(&ask(&mut client, 3, seq));
        assert_ne!(other, from);
        push(&mut client, 3, smart_client::Input::Gone(T));
    }
    let from = server(&ask(&mut client, 10, 9));
    assert_eq!(
        push(&mut client, 490, smart_client::Input::Timeout),
        [tell(Told::Unread(Unread::Now))],
        "in time to tell"
    );
    let steer = smart_client::Input::Steer { from, tag: read(9).tag(), steer: Steer::Unread };
    assert_eq!(push(&mut client, 491, steer), [], "once");
    let from = server(&ask(&mut client, 500, 10));
    assert_eq!(push(&mut client, 501, smart_client::Input::Down(from)), [tell(Told::Unread(Unread::Now))]);
    assert_eq!(client.waiting(), 0);
}

#[test]
fn where_all_must_agree_or_the_server_says_so_there_is_no_read() {
    let mut client = smart_client(ReplyVote::All);
    assert_eq!(ask(&mut client, 1, 1), [tell(Told::Unread(Unread::Never))]);
    let mut client = smart_client(ReplyVote::Majority);
    let from = server(&ask(&mut client, 1, 1));
    let steer = smart_client::Input::Steer { from, tag: read(1).tag(), steer: Steer::NoRead };
    assert_eq!(push(&mut client, 2, steer), [tell(Told::Unread(Unread::Never))]);
}
