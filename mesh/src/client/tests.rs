//! The clients' protocol, each rule by its inputs and whole outputs.

use super::sender::{self, Answer, Connection, Endpoint, Lending, Refused, Sender};
use super::smart_client::{self, SmartClient, Ticket};
use super::{ReplyVote, sender::Output as Sent};
use crate::auth::{Rejected, SecretKey};
use crate::ids::{ClientId, Digest, Epoch, Generation, ReplicaId, Seq, Slot};
use crate::time::{Duration, Instant};
use crate::wire::client::{NothingSent, Told, Unknown};
use crate::wire::roster::{Roster, Seat};
use crate::wire::submit::{Answer as Reply, Steer, Vote};
use crate::wire::{Body, Kind, Outcome, Request};
use bytes::Bytes;

const C: Connection = Connection(1);
const E0: Endpoint = Endpoint(0);
const E1: Endpoint = Endpoint(1);

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn sender(window: u16) -> Sender {
    doubting(window, false)
}

/// One that may take SMaRtClients for liars.
fn doubting(window: u16, doubts: bool) -> Sender {
    let resend = Duration::from_secs(1);
    let config = sender::Config {
        lending: Lending::Pooled,
        window,
        sessions: 4,
        held: 8,
        in_flight: 64,
        within: resend,
        turn: 64,
        resend,
        resends_saved: 1000,
        doubts,
        reads: false,
    };
    Sender::new(config, [1, 2, 3, 4])
}

fn feed(sender: &mut Sender, millis: u64, input: sender::Input) -> Vec<Sent> {
    let mut out = Vec::new();
    sender.step(at(millis), input, &mut out);
    out
}

fn call(sender: &mut Sender, millis: u64, body: &'static str, deadline: u64) -> Vec<Sent> {
    let bytes = Bytes::from_static(body.as_bytes());
    feed(sender, millis, sender::Input::Call { connection: C, bytes, read: false, deadline: at(deadline) })
}

fn told(sender: &mut Sender, millis: u64, endpoint: Endpoint, request: &Request, told: Told) -> Vec<Sent> {
    feed(sender, millis, sender::Input::Told { endpoint, tag: request.tag(), told })
}

/// The requests among outputs, and whom they went to.
fn asked(out: &[Sent]) -> Vec<(Endpoint, Request)> {
    let asked = |output: &Sent| match output {
        Sent::Send { endpoint, request, .. } => Some((*endpoint, request.clone())),
        _ => None,
    };
    out.iter().filter_map(asked).collect()
}

/// A sender with one link whose connection has an open session: the first call's request.
fn with_session(sender: &mut Sender, body: &'static str, deadline: u64) -> Request {
    feed(sender, 0, sender::Input::Up(E0));
    let open = asked(&call(sender, 0, body, deadline)).pop().expect("a session is opened first").1;
    assert_eq!(open.tag().kind, Kind::Open);
    let opened = Outcome::Opened { opened: Generation::FIRST.at(Slot(9)), window: 64 };
    let out = told(sender, 1, E0, &open, Told::unsigned(opened));
    asked(&out).pop().expect("then the call goes out").1
}

#[test]
fn calls_of_a_connection_have_consecutive_numbers_and_are_answered_in_order() {
    let mut sender = sender(4);
    let first = with_session(&mut sender, "a", 10_000);
    assert_eq!(
        (first.opened, first.seq, &first.body),
        (Generation::FIRST.at(Slot(9)), Seq(1), &Body::Call(Bytes::from_static(b"a")))
    );
    let second = asked(&call(&mut sender, 2, "b", 10_000)).pop().expect("the window has room").1;
    assert_eq!((second.client, second.seq), (first.client, Seq(2)));
    let reply = |bytes: &'static [u8]| Told::unsigned(Outcome::Executed(Bytes::from_static(bytes)));
    assert_eq!(told(&mut sender, 3, E0, &second, reply(b"B")), [], "the first is not answered yet");
    let answer = |bytes| Sent::Answer { connection: C, answer: Answer::Reply(Bytes::from_static(bytes)) };
    assert_eq!(told(&mut sender, 4, E0, &first, reply(b"A")), [answer(b"A"), answer(b"B")]);
    assert_eq!(sender.outstanding(), 0);
}

#[test]
fn a_request_goes_to_another_smart_client_with_the_same_number() {
    let mut sender = sender(4);
    let request = with_session(&mut sender, "a", 60_000);
    feed(&mut sender, 2, sender::Input::Up(E1));
    let out = feed(&mut sender, 1001, sender::Input::Timeout);
    assert_eq!(asked(&out), [(E1, request.clone())], "after the time-out");
    let out = feed(&mut sender, 1002, sender::Input::Down(E1));
    assert_eq!(asked(&out), [(E0, request)], "and at once when the link is lost");
}

/// One that has one request in flight at a time, whatever the rate.
fn narrow(sessions: usize, turn: u32) -> Sender {
    narrow_holding(sessions, turn, 8)
}

fn narrow_holding(sessions: usize, turn: u32, held: usize) -> Sender {
    let resend = Duration::from_secs(1);
    let config = sender::Config {
        lending: Lending::Pooled,
        window: 8,
        sessions,
        held,
        in_flight: 1,
        within: Duration::ZERO,
        turn,
        resend,
        resends_saved: 2,
        doubts: false,
        reads: false,
    };
    Sender::new(config, [1, 2, 3, 4])
}

fn call_of(sender: &mut Sender, millis: u64, connection: u64, body: &'static str, deadline: u64) -> Vec<Sent> {
    let (connection, bytes) = (Connection(connection), Bytes::from_static(body.as_bytes()));
    feed(sender, millis, sender::Input::Call { connection, bytes, read: false, deadline: at(deadline) })
}

fn done() -> Told {
    Told::unsigned(Outcome::Executed(Bytes::from_static(b"OK")))
}

/// Answers one request after the other until nothing is asked; the bodies in the order in which they were sent.
fn run_out(sender: &mut Sender, mut millis: u64, first: Request) -> Vec<Bytes> {
    let (mut bodies, mut next) = (Vec::new(), Some(first));
    while let Some(request) = next {
        millis += 1;
        if let Body::Call(body) = &request.body {
            bodies.push(body.clone());
        }
        let mut then = asked(&told(sender, millis, E0, &request, done()));
        assert!(then.len() <= 1, "one at a time: {then:?}");
        next = then.pop().map(|(_, request)| request);
    }
    bodies
}

#[test]
fn connections_take_turns_where_not_all_may_send() {
    let mut sender = narrow(2, 64);
    let first = with_session(&mut sender, "a1", 60_000);
    for body in ["a2", "a3", "a4"] {
        assert_eq!(asked(&call_of(&mut sender, 2, 1, body, 60_000)), [], "one is in flight");
    }
    let open = asked(&call_of(&mut sender, 2, 2, "b1", 60_000)).pop().expect("it needs a session").1;
    let opened = Told::unsigned(Outcome::Opened { opened: Generation::FIRST.at(Slot(10)), window: 8 });
    assert_eq!(asked(&told(&mut sender, 3, E0, &open, opened)), []);
    call_of(&mut sender, 3, 2, "b2", 60_000);
    assert_eq!(run_out(&mut sender, 3, first), ["a1", "a2", "b1", "a3", "b2", "a4"]);
    assert_eq!(sender.outstanding(), 0);
}

#[test]
fn a_busy_connection_lends_its_session_on_after_its_turn() {
    let mut sender = narrow(1, 2);
    let first = with_session(&mut sender, "a1", 60_000);
    for (connection, body) in [(1, "a2"), (1, "a3"), (1, "a4"), (2, "b1"), (2, "b2"), (3, "c1")] {
        call_of(&mut sender, 2, connection, body, 60_000);
    }
    assert_eq!(run_out(&mut sender, 2, first), ["a1", "a2", "b1", "b2", "c1", "a3", "a4"]);
    assert_eq!(sender.outstanding(), 0);
}

#[test]
fn what_would_miss_its_deadline_is_refused_before_it_is_sent() {
    let mut sender = narrow(1, 64);
    let mut request = with_session(&mut sender, "first", 600_000);
    // One answer each 500 ms, and always one more in line.
    let mut millis = 500;
    for _ in 0..10 {
        call(&mut sender, millis, "more", 600_000);
        request = asked(&told(&mut sender, millis + 1, E0, &request, done())).pop().expect("the next").1;
        call(&mut sender, millis + 2, "in line", 600_000);
        request = asked(&told(&mut sender, millis + 500, E0, &request, done())).pop().expect("the next").1;
        millis += 1000;
    }
    let out = call(&mut sender, millis, "too late", millis + 10);
    assert_eq!(asked(&out), []);
    let refused = Sent::Answer { connection: C, answer: Answer::Refused(Refused::Overloaded) };
    let (mut answers, mut next) = (Vec::new(), Some(request));
    while let Some(request) = next {
        millis += 1;
        let out = told(&mut sender, millis, E0, &request, done());
        next = asked(&out).pop().map(|(_, request)| request);
        answers.extend(out);
    }
    assert!(answers.contains(&refused), "{answers:?}");
    assert_eq!(sender.outstanding(), 0);
}

#[test]
fn who_waits_for_a_session_in_vain_is_refused_in_time_too() {
    let config = sender::Config::new(Lending::Pooled, 1, 1, 100, Duration::from_secs(60));
    let mut sender = Sender::new(config, [1, 2, 3, 4]);
    let mut request = with_session(&mut sender, "first", 600_000);
    for connection in 2..40 {
        call_of(&mut sender, 2, connection, "waits for the only session", 600_000);
    }
    let mut millis = 2;
    for _ in 0..20 {
        millis += 100;
        request = asked(&told(&mut sender, millis, E0, &request, done())).pop().expect("the next").1;
    }
    // Ten a second, and eighteen are before it.
    let refused = Sent::Answer { connection: Connection(50), answer: Answer::Refused(Refused::Overloaded) };
    assert_eq!(call_of(&mut sender, millis, 50, "too late", millis + 1_000), [refused]);
    assert_eq!(call_of(&mut sender, millis, 51, "in time", millis + 10_000), []);
}

#[test]
fn resends_are_a_bounded_share_and_those_in_the_place_of_lost_attempts_are_free() {
    let mut sender = narrow(1, 64);
    let request = with_session(&mut sender, "a", 600_000);
    feed(&mut sender, 2, sender::Input::Up(E1));
    let (mut resent, mut withheld) = (0, 0);
    // Two were saved up and one is earned with each five requests; ten a second are free.
    sender.step(at(2), sender::Input::Timeout, &mut Vec::new());
    for millis in (2..100_000).step_by(50) {
        let out = feed(&mut sender, millis, sender::Input::Timeout);
        resent += asked(&out).len();
        withheld += out.iter().filter(|output| **output == Sent::Withheld).count();
    }
    assert!(resent > 5 && withheld == 0, "a single quiet request has its free ones: {resent}, {withheld}");
    let out = feed(&mut sender, 100_000, sender::Input::Down(E0));
    let also = feed(&mut sender, 100_000, sender::Input::Down(E1));
    assert_eq!(asked(&out).len() + asked(&also).len(), 1, "{out:?} {also:?}");
    let out = feed(&mut sender, 100_001, sender::Input::Up(E0));
    assert_eq!(asked(&out), [(E0, request)]);
}

#[test]
fn a_carried_request_keeps_its_number_and_its_owner_is_told_how_it_ended() {
    let mut sender = sender(4);
    feed(&mut sender, 0, sender::Input::Up(E0));
    let body = Body::Call(Bytes::from_static(b"a"));
    let request =
        Request { client: ClientId(7), opened: Generation::FIRST.at(Slot(3)), seq: Seq(5), body, proof: None };
    let carry = |deadline| sender::Input::Carry { request: request.clone(), deadline: at(deadline) };
    assert_eq!(asked(&feed(&mut sender, 1, carry(9_000))), [(E0, request.clone())]);
    let tag = request.tag();
    let outcome = Outcome::Executed(Bytes::from_static(b"OK"));
    let out = told(&mut sender, 2, E0, &request, Told::unsigned(outcome.clone()));
    assert_eq!(out, [Sent::Carried { tag, end: sender::Carried::Outcome(outcome) }]);

    feed(&mut sender, 3, carry(500));
    let out = feed(&mut sender, 500, sender::Input::Timeout);
    assert_eq!(
        out,
        [Sent::Carried { tag, end: sender::Carried::Unknown(Unknown::Deadline) }],
        "and nothing is settled"
    );
    feed(&mut sender, 501, sender::Input::Down(E0));
    feed(&mut sender, 501, carry(900));
    let out = feed(&mut sender, 900, sender::Input::Timeout);
    assert_eq!(out, [Sent::Carried { tag, end: sender::Carried::Refused(Refused::NoSmartClient) }]);
    feed(&mut sender, 901, carry(9_000));
    feed(&mut sender, 902, sender::Input::Drop(tag));
    assert_eq!(feed(&mut sender, 9_000, sender::Input::Timeout), [], "nobody is told");
}

#[test]
fn an_ejected_smart_client_is_probed_with_a_copy_of_a_request() {
    let mut sender = sender(8);
    let mut request = with_session(&mut sender, "a", 600_000);
    feed(&mut sender, 2, sender::Input::Up(E1));
    // E0 keeps the request; E1 answers it and what follows.
    let out = feed(&mut sender, 1_001, sender::Input::Timeout);
    assert_eq!(asked(&out), [(E1, request.clone())]);
    told(&mut sender, 1_003, E1, &request, done());
    let mut probed = None;
    for millis in (1_300..4_000).step_by(100) {
        let sent = asked(&call(&mut sender, millis, "b", 600_000));
        let to_e0: Vec<_> = sent.iter().filter(|(endpoint, _)| *endpoint == E0).collect();
        assert!(sent.iter().any(|(endpoint, _)| *endpoint == E1), "the client is not kept waiting: {sent:?}");
        request = sent[0].1.clone();
        if let [(_, copy)] = to_e0[..] {
            assert_eq!(*copy, request);
            probed = Some((millis, request.clone()));
            told(&mut sender, millis + 1, E1, &request, done());
            break;
        }
        told(&mut sender, millis + 1, E1, &request, done());
    }
    let (millis, probe) = probed.expect("after a second or so");
    assert_eq!(sender.ready().len(), 1);
    assert_eq!(told(&mut sender, millis + 400, E0, &probe, done()), [], "it was answered already");
    assert_eq!(sender.ready().len(), 2);
}

#[test]
fn on_a_connection_with_its_own_session_nothing_follows_what_has_no_reply() {
    let config = sender::Config::new(Lending::Own, 1, 4, 8, Duration::from_secs(60));
    let mut sender = Sender::new(config, [1, 2, 3, 4]);
    let select = with_session(&mut sender, "SELECT 3", 60_000);
    let set = asked(&call(&mut sender, 2, "SET a 1", 60_000));
    assert_eq!(set, [], "the window is one");
    let refused = || Sent::Answer { connection: C, answer: Answer::Refused(Refused::Broken) };
    let out = told(&mut sender, 3, E0, &select, Told::unsigned(Outcome::Aborted));
    let aborted = Sent::Answer { connection: C, answer: Answer::Refused(Refused::Aborted) };
    assert_eq!(out, [aborted, refused()], "it would be set in database 0");
    assert_eq!(call(&mut sender, 4, "SET a 2", 60_000), [refused()]);
    let out = feed(&mut sender, 5, sender::Input::Gone(C));
    assert!(asked(&out).iter().all(|(_, request)| request.tag().kind == Kind::Close), "{out:?}");
    assert_eq!(sender.outstanding(), 0);
}

#[test]
fn a_deadline_is_unknown_when_a_server_may_have_the_request_and_its_number_is_settled() {
    let mut sender = sender(4);
    let request = with_session(&mut sender, "a", 500);
    let out = feed(&mut sender, 500, sender::Input::Timeout);
    let [(_, cancel)] = &asked(&out)[..] else { panic!("{out:?}") };
    assert_eq!((cancel.client, cancel.seq, &cancel.body), (request.client, request.seq, &Body::Cancel));
    let answer = Answer::Unknown(Unknown::Deadline);
    assert!(out.contains(&Sent::Answer { connection: C, answer }));
    // Until it is settled the session is not used again.
    let next = asked(&call(&mut sender, 501, "b", 9_000));
    assert!(next.iter().all(|(_, request)| request.tag().kind == Kind::Open), "{next:?}");
}

#[test]
fn a_deadline_is_a_definite_refusal_when_every_attempt_sent_nothing() {
    let mut sender = sender(4);
    let request = with_session(&mut sender, "a", 500);
    let why = NothingSent::NoQuorum { reachable: 1, members: 3, needed: 2 };
    told(&mut sender, 300, E0, &request, Told::NothingSent(why));
    let out = feed(&mut sender, 500, sender::Input::Timeout);
    let answer = Answer::Refused(Refused::NothingSent(why));
    assert!(out.contains(&Sent::Answer { connection: C, answer }), "{out:?}");
    assert_eq!(
        Refused::NothingSent(why).to_string(),
        "no quorum: 1 of 3 servers reachable, 2 needed; the request was not run"
    );
}

#[test]
fn an_attempt_whose_end_is_not_known_makes_the_outcome_unknown_whatever_others_say() {
    let mut sender = sender(4);
    let request = with_session(&mut sender, "a", 1_400);
    feed(&mut sender, 2, sender::Input::Down(E0));
    let out = feed(&mut sender, 3, sender::Input::Up(E1));
    assert_eq!(asked(&out), [(E1, request.clone())]);
    told(&mut sender, 4, E1, &request, Told::NothingSent(NothingSent::Busy));
    let out = feed(&mut sender, 1_400, sender::Input::Timeout);
    assert!(out.contains(&Sent::Answer { connection: C, answer: Answer::Unknown(Unknown::Deadline) }), "{out:?}");
}

#[test]
fn without_any_smart_client_a_call_is_refused_at_its_deadline_and_beyond_the_bound_at_once() {
    let mut sender = sender(1);
    for _ in 0..8 {
        assert_eq!(call(&mut sender, 0, "a", 100), []);
    }
    assert_eq!(call(&mut sender, 0, "too many", 100), [], "answers keep their order");
    let out = feed(&mut sender, 100, sender::Input::Timeout);
    let refused = |answer| Sent::Answer { connection: C, answer: Answer::Refused(answer) };
    assert_eq!(out.iter().filter(|output| **output == refused(Refused::NoSmartClient)).count(), 8);
    assert_eq!(out.last(), Some(&refused(Refused::Overloaded)));
}

const SERVERS: [ReplicaId; 3] = [ReplicaId(0), ReplicaId(1), ReplicaId(2)];
const T: Ticket = Ticket(1);

fn smart_client(vote: ReplyVote) -> SmartClient {
    SmartClient::new(smart_client::Config {
        servers: SERVERS.to_vec(),
        vote,
        resend: Duration::from_millis(800),
        margin: Duration::from_millis(200),
        held: 4,
        held_bytes: 64,
        resends_saved: 1000,
    })
}

fn push(client: &mut SmartClient, millis: u64, input: smart_client::Input) -> Vec<smart_client::Output> {
    let mut out = Vec::new();
    client.step(at(millis), input, &mut out);
    out
}

fn request() -> Request {
    Request {
        client: ClientId(0),
        opened: Generation::FIRST.at(Slot(1)),
        seq: Seq(1),
        body: Body::Call(Bytes::from_static(b"a")),
        proof: None,
    }
}

fn ask(client: &mut SmartClient, millis: u64) -> Vec<smart_client::Output> {
    push(client, millis, smart_client::Input::Ask { ticket: T, request: request(), deadline: at(5_000) })
}

fn vote(from: usize, body: &[u8]) -> smart_client::Input {
    let vote = Vote { tag: request().tag(), slot: Slot(2), form: Digest::of(body), signed: None };
    smart_client::Input::Votes { from: SERVERS[from], votes: vec![vote] }
}

fn whole(from: usize, body: &'static [u8]) -> smart_client::Input {
    let outcome = Outcome::Executed(Bytes::from_static(body));
    let answer = Reply { tag: request().tag(), slot: Slot(2), form: Digest::of(body), outcome, signed: None };
    smart_client::Input::Answer { from: SERVERS[from], answer }
}

fn linked(vote: ReplyVote) -> SmartClient {
    let mut client = smart_client(vote);
    for server in SERVERS {
        push(&mut client, 0, smart_client::Input::Up(server));
    }
    client
}

fn executed(body: &'static [u8]) -> smart_client::Output {
    smart_client::Output::Tell { ticket: T, told: Told::unsigned(Outcome::Executed(Bytes::from_static(body))) }
}

#[test]
fn every_server_is_asked_one_of_them_for_the_whole_reply_and_a_majority_decides() {
    let mut client = linked(ReplyVote::Majority);
    let out = ask(&mut client, 0);
    let whole_from = |output: &smart_client::Output| matches!(output, smart_client::Output::Send { whole: true, .. });
    assert_eq!((out.len(), out.iter().filter(|output| whole_from(output)).count()), (3, 1));
    assert_eq!(push(&mut client, 1, whole(0, b"x")), [], "one reply is no majority");
    assert_eq!(push(&mut client, 2, vote(1, b"x")), [executed(b"x")]);
}

#[test]
fn the_reply_of_a_minority_is_never_given_and_its_server_is_named() {
    let mut client = linked(ReplyVote::Majority);
    ask(&mut client, 0);
    assert_eq!(push(&mut client, 1, whole(0, b"wrong")), []);
    assert_eq!(push(&mut client, 2, vote(1, b"right")), []);
    let out = push(&mut client, 3, whole(2, b"right"));
    let disagreed = smart_client::Output::Disagreed { replica: SERVERS[0], tag: request().tag() };
    assert_eq!(out, [disagreed, executed(b"right")]);
}

#[test]
fn three_different_replies_leave_the_outcome_unknown() {
    let mut client = linked(ReplyVote::Majority);
    ask(&mut client, 0);
    push(&mut client, 1, whole(0, b"1"));
    push(&mut client, 1, vote(1, b"2"));
    let out = push(&mut client, 1, vote(2, b"3"));
    assert_eq!(out, [smart_client::Output::Tell { ticket: T, told: Told::Unknown(Unknown::Disagreement) }]);
}

#[test]
fn the_body_of_a_won_vote_is_asked_of_a_server_that_voted_for_it() {
    let mut client = linked(ReplyVote::Majority);
    let out = ask(&mut client, 0);
    let chosen = out.iter().find_map(|output| match output {
        smart_client::Output::Send { to, whole: true, .. } => Some(*to),
        _ => None,
    });
    assert_eq!(chosen, Some(SERVERS[0]), "by the session's name");
    push(&mut client, 1, vote(1, b"x"));
    push(&mut client, 1, vote(2, b"x"));
    let out = push(&mut client, 2, smart_client::Input::Down(SERVERS[0]));
    let [smart_client::Output::Send { to, whole: true, .. }] = &out[..] else { panic!("{out:?}") };
    assert!([SERVERS[1], SERVERS[2]].contains(to));
}

#[test]
fn without_a_quorum_nothing_is_sent_and_that_is_said_before_the_deadline() {
    let mut client = smart_client(ReplyVote::First);
    push(&mut client, 0, smart_client::Input::Up(SERVERS[0]));
    assert_eq!(ask(&mut client, 0), []);
    let why = NothingSent::NoQuorum { reachable: 1, members: 3, needed: 2 };
    let out = push(&mut client, 4_800, smart_client::Input::Timeout);
    assert_eq!(out, [smart_client::Output::Tell { ticket: T, told: Told::NothingSent(why) }]);
    assert_eq!(ask(&mut client, 10), []);
    assert_eq!(push(&mut client, 20, smart_client::Input::Up(SERVERS[1])).len(), 2, "a quorum: both are asked");
}

#[test]
fn a_session_is_believed_gone_only_when_every_reachable_server_says_so() {
    let mut client = linked(ReplyVote::Majority);
    ask(&mut client, 0);
    let steer =
        |from: usize| smart_client::Input::Steer { from: SERVERS[from], tag: request().tag(), steer: Steer::NoSession };
    assert_eq!(push(&mut client, 1, steer(1)), []);
    assert_eq!(push(&mut client, 1, steer(2)), [], "a majority that may be behind");
    let out = push(&mut client, 1, steer(0));
    assert_eq!(out, [smart_client::Output::Tell { ticket: T, told: Told::Unknown(Unknown::SessionGone) }]);
}

#[test]
fn a_number_that_a_majority_calls_too_far_ahead_is_told_so_before_the_deadline_and_not_sooner() {
    let steer = |client: &mut SmartClient, millis: u64, from: usize, steer: Steer| {
        push(client, millis, smart_client::Input::Steer { from: SERVERS[from], tag: request().tag(), steer })
    };
    let tells = |out: &[smart_client::Output]| {
        out.iter().any(|output| matches!(output, smart_client::Output::Tell { told: Told::Unknown(_), .. }))
    };
    let told = |unknown| smart_client::Output::Tell { ticket: T, told: Told::Unknown(unknown) };
    let mut client = linked(ReplyVote::Majority);
    ask(&mut client, 0);
    for from in 0..3 {
        assert_eq!(steer(&mut client, 1, from, Steer::OutOfWindow), [], "what servers say may pass");
    }
    assert!(!tells(&push(&mut client, 4_700, smart_client::Input::Timeout)));
    let out = push(&mut client, 4_800, smart_client::Input::Timeout);
    assert!(out.contains(&told(Unknown::OutOfWindow)), "{out:?}");

    let mut client = linked(ReplyVote::Majority);
    ask(&mut client, 0);
    for from in 0..3 {
        steer(&mut client, 1, from, Steer::OutOfWindow);
    }
    steer(&mut client, 2, 0, Steer::NotReady);
    steer(&mut client, 2, 1, Steer::Busy);
    assert!(!tells(&push(&mut client, 4_800, smart_client::Input::Timeout)), "a majority says so no longer");
    let out = push(&mut client, 5_000, smart_client::Input::Timeout);
    assert!(out.contains(&told(Unknown::Deadline)), "{out:?}");
}

#[test]
fn attempts_over_the_same_smart_client_are_counted() {
    let why = NothingSent::NoQuorum { reachable: 1, members: 3, needed: 2 };
    // How the call ends when all but so many of its attempts sent nothing.
    let ends = |silent: usize| {
        let mut sender = sender(4);
        let request = with_session(&mut sender, "a", 9_000);
        let mut attempts = 1;
        for millis in (100..8_900).step_by(100) {
            let again = asked(&feed(&mut sender, millis, sender::Input::Timeout));
            assert!(again.iter().all(|asked| *asked == (E0, request.clone())), "there is no other: {again:?}");
            attempts += again.len();
        }
        assert!(attempts > 2);
        for _ in silent..attempts {
            told(&mut sender, 8_950, E0, &request, Told::NothingSent(why));
        }
        feed(&mut sender, 9_000, sender::Input::Timeout)
    };
    let answer = |answer| Sent::Answer { connection: C, answer };
    assert!(ends(0).contains(&answer(Answer::Refused(Refused::NothingSent(why)))), "{:?}", ends(0));
    assert!(ends(1).contains(&answer(Answer::Unknown(Unknown::Deadline))), "{:?}", ends(1));
}

#[test]
fn a_connection_whose_calls_went_unserved_waits_for_one_session() {
    let mut sender = sender(4);
    for round in 0..3 {
        call(&mut sender, round * 100, "a", round * 100 + 50);
        let out = feed(&mut sender, round * 100 + 50, sender::Input::Timeout);
        assert_eq!(out, [Sent::Answer { connection: C, answer: Answer::Refused(Refused::NoSmartClient) }]);
    }
    call(&mut sender, 400, "a", 9_000);
    assert_eq!(asked(&feed(&mut sender, 401, sender::Input::Up(E0))).len(), 1, "it needs no more than one");
}

#[test]
fn refusing_everybody_who_waits_takes_no_stack() {
    const WAITING: u64 = 50_000;
    let mut sender = narrow_holding(1, 64, 100_000);
    let request = with_session(&mut sender, "first", 60_000);
    call(&mut sender, 2, "in line", 60_000);
    for connection in 2..WAITING {
        call_of(&mut sender, 2, connection, "waits for the session", 60_000);
    }
    // An answer so late that nobody else can have one in time.
    let out = told(&mut sender, 59_000, E0, &request, done());
    let refused = |output: &&Sent| matches!(output, Sent::Answer { answer: Answer::Refused(Refused::Overloaded), .. });
    assert_eq!(out.iter().filter(refused).count() as u64, WAITING - 1);
    assert_eq!(sender.outstanding(), 0);
}

/// With signed replies a SMaRtClient may lie: "nothing sent" may be its excuse for a request that it sent.
#[test]
fn where_smart_clients_may_lie_nothing_sent_is_not_definite() {
    for doubts in [false, true] {
        let mut sender = doubting(4, doubts);
        let request = with_session(&mut sender, "a", 2_000);
        let nothing = Told::NothingSent(NothingSent::Busy);
        assert_eq!(told(&mut sender, 2, E0, &request, nothing.clone()), [], "asked again after a breath");
        let mut millis = 100;
        let answer = loop {
            let out = feed(&mut sender, millis, sender::Input::Timeout);
            if let Some(Sent::Answer { answer, .. }) = out.iter().find(|sent| matches!(sent, Sent::Answer { .. })) {
                break answer.clone();
            }
            for (endpoint, request) in asked(&out) {
                told(&mut sender, millis, endpoint, &request, nothing.clone());
            }
            millis += 100;
        };
        let unknown = Answer::Unknown(Unknown::Deadline);
        let refused = Answer::Refused(Refused::NothingSent(NothingSent::Busy));
        assert_eq!(answer, if doubts { unknown } else { refused });
    }
}

#[test]
fn what_is_doubted_is_asked_of_another_smart_client_after_a_breath_and_blames_nobody() {
    let mut sender = sender(4);
    let request = with_session(&mut sender, "a", 60_000);
    feed(&mut sender, 2, sender::Input::Up(E1));
    assert_eq!(feed(&mut sender, 3, sender::Input::Doubted { endpoint: E0, tag: request.tag() }), []);
    let out = feed(&mut sender, 260, sender::Input::Timeout);
    assert_eq!(asked(&out), [(E1, request.clone())]);
    told(&mut sender, 261, E1, &request, done());
    feed(&mut sender, 5_000, sender::Input::Timeout);
    assert_eq!((sender.ready().len(), sender.ejected().count()), (2, 0));
}

#[test]
fn a_smart_client_holds_no_more_bytes_than_it_may() {
    let mut client = smart_client(ReplyVote::Majority);
    let ask = |ticket, seq, body: Body| smart_client::Input::Ask {
        ticket: Ticket(ticket),
        request: Request { seq: Seq(seq), body, ..request() },
        deadline: at(10_000),
    };
    let call = |bytes: usize| Body::Call(Bytes::from(vec![b'a'; bytes]));
    let busy =
        |ticket| smart_client::Output::Tell { ticket: Ticket(ticket), told: Told::NothingSent(NothingSent::Busy) };
    assert_eq!(push(&mut client, 0, ask(2, 1, call(100))), [], "the first is taken whatever its size");
    assert_eq!(push(&mut client, 0, ask(3, 2, call(1))), [busy(3)]);
    push(&mut client, 0, smart_client::Input::Gone(Ticket(2)));
    assert_eq!(push(&mut client, 0, ask(4, 2, call(64))), [], "what is gone makes room");
    assert_eq!(push(&mut client, 0, ask(5, 3, call(1))), [busy(5)]);
}

/// Mutant: keeping it means that openings whose certificate has ended are sent for ever and hold up everybody.
#[test]
fn openings_under_way_begin_again_with_a_new_key() {
    let card = |seed: u8| {
        let key = SecretKey::from_seed(&[seed; 32]).unwrap().public();
        sender::Card { key, certificate: Bytes::copy_from_slice(&[seed]) }
    };
    let owner = |request: &Request| match &request.body {
        Body::Open { owner, .. } => owner.as_ref().unwrap().certificate[0],
        _ => panic!("{request:?} opens nothing"),
    };
    let mut sender = sender(4);
    feed(&mut sender, 0, sender::Input::Up(E0));
    feed(&mut sender, 0, sender::Input::Signer(card(1)));
    let old = asked(&call(&mut sender, 0, "a", 10_000)).pop().unwrap().1;
    assert_eq!(owner(&old), 1);
    told(&mut sender, 1, E0, &old, Told::Unknown(Unknown::Rejected(Rejected::UntrustedSigner)));
    let new = asked(&feed(&mut sender, 2, sender::Input::Signer(card(2)))).pop().unwrap().1;
    assert_eq!(owner(&new), 2);
    assert!(asked(&feed(&mut sender, 900, sender::Input::Timeout)).iter().all(|(_, request)| *request != old));
    let opened = Told::Outcome {
        outcome: Outcome::Opened { opened: Generation::FIRST.at(Slot(1)), window: 4 },
        vouched: Vec::new(),
    };
    let asked = asked(&told(&mut sender, 901, E0, &new, opened));
    assert!(matches!(&asked[..], [(E0, Request { body: Body::Call(_), .. })]), "{asked:?}");
}

fn roster(members: &[u32], leaving: bool) -> Roster {
    let members = members.iter().map(|id| Seat { id: ReplicaId(*id), answers: true }).collect();
    Roster { epoch: Epoch(1), members, leaving, ..Roster::default() }
}

fn sent_to(out: &[smart_client::Output]) -> Vec<u32> {
    let to = |output: &smart_client::Output| match output {
        smart_client::Output::Send { to, .. } => Some(to.0),
        _ => None,
    };
    out.iter().filter_map(to).collect()
}

#[test]
fn a_new_member_is_asked_what_waits_and_counted_as_soon_as_enough_servers_name_it() {
    let mut client = linked(ReplyVote::Majority);
    ask(&mut client, 0);
    assert_eq!(push(&mut client, 1, smart_client::Input::Up(ReplicaId(3))), [], "it may be anybody");
    let say = |client: &mut SmartClient, from: u32| {
        let roster = roster(&[0, 1, 2, 3], false);
        push(client, 2, smart_client::Input::Roster { from: ReplicaId(from), roster })
    };
    assert_eq!([say(&mut client, 3), say(&mut client, 0)].concat(), []);
    let out = say(&mut client, 1);
    assert_eq!(sent_to(&out), [3]);
    assert!(
        matches!(&out[..], [.., smart_client::Output::Seated { edition: (_, Epoch(1)), members }] if members.len() == 4)
    );
    push(&mut client, 3, whole(0, b"x"));
    assert_eq!(push(&mut client, 3, vote(1, b"x")), [], "two are no majority of four");
    assert_eq!(push(&mut client, 3, vote(2, b"x")), [executed(b"x")]);
}

#[test]
fn when_a_member_is_removed_its_vote_counts_no_more_and_what_waits_may_have_enough() {
    let mut client = smart_client(ReplyVote::All);
    for server in SERVERS {
        push(&mut client, 0, smart_client::Input::Up(server));
    }
    ask(&mut client, 0);
    push(&mut client, 1, whole(0, b"x"));
    push(&mut client, 1, vote(1, b"x"));
    let say = |client: &mut SmartClient, from: u32| {
        let roster = roster(&[0, 1], false);
        push(client, 2, smart_client::Input::Roster { from: ReplicaId(from), roster })
    };
    assert_eq!(say(&mut client, 0), []);
    assert!(say(&mut client, 1).contains(&executed(b"x")), "all two have voted");
    assert_eq!(sent_to(&ask(&mut client, 3)), [0, 1], "the removed one is not asked");
}

#[test]
fn a_server_that_says_goodbye_is_asked_nothing_more_and_what_it_still_says_counts() {
    let mut client = linked(ReplyVote::Majority);
    ask(&mut client, 0);
    let say = |client: &mut SmartClient, leaving: bool| {
        let roster = roster(&[0, 1, 2], leaving);
        push(client, 1, smart_client::Input::Roster { from: SERVERS[0], roster })
    };
    let out = say(&mut client, true);
    let [smart_client::Output::Send { to, whole: true, .. }] = &out[..] else { panic!("{out:?}") };
    assert_ne!(*to, SERVERS[0], "another one is asked for the whole reply at once");
    assert_eq!(push(&mut client, 2, whole(0, b"x")), []);
    assert_eq!(push(&mut client, 2, vote(1, b"x")), [executed(b"x")]);
    assert_eq!(sent_to(&ask(&mut client, 3)), [1, 2]);
    assert_eq!(sent_to(&say(&mut client, false)), [0], "it stays after all");
}

#[test]
fn a_smart_client_that_says_goodbye_gets_no_new_request_and_keeps_those_that_it_has() {
    let mut sender = sender(4);
    let request = with_session(&mut sender, "a", 60_000);
    feed(&mut sender, 2, sender::Input::Up(E1));
    assert_eq!(feed(&mut sender, 3, sender::Input::Leaving { endpoint: E0, leaving: true }), []);
    assert_eq!((sender.ready().len(), sender.ejected().count()), (1, 0));
    for n in 0..3 {
        let asked = asked(&call(&mut sender, 4 + n, "b", 60_000));
        assert!(asked.iter().all(|(endpoint, _)| *endpoint == E1), "{asked:?}");
    }
    // What it had, but did not send, goes to the other one at once, under the same number; what it answers counts.
    let out = told(&mut sender, 9, E0, &request, Told::NothingSent(NothingSent::Stopping));
    assert_eq!(asked(&out), [(E1, request.clone())]);
    feed(&mut sender, 10, sender::Input::Down(E1));
    assert_eq!(sender.ready().len(), 1, "better one that is about to stop than none");
}
