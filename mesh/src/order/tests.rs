//! Handlers of the core, each tested by comparing whole outputs: an unexpected extra message fails too.

use super::*;
use crate::auth::by_transport;
use crate::config::{ClusterConfig, Config, Configuration, Durability};
use crate::ids::{ClientId, Digest, Generation, Incarnation, Life, Opening, Run, Seq};
use crate::limits::{Limits, Timing};
use crate::time::Duration;
use crate::wire::peer::{Batch, Marks};
use crate::wire::submit::Steer;
use crate::wire::{Body, Outcome, Request};
use bytes::Bytes;
use std::sync::Arc;

pub(super) const R0: ReplicaId = ReplicaId(0);
pub(super) const R1: ReplicaId = ReplicaId(1);
pub(super) const R2: ReplicaId = ReplicaId(2);
const CLIENT: ClientId = ClientId(7);
pub(super) const LIFE: Life = Life(9);

pub(super) fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

pub(super) fn ballot(round: u64, replica: ReplicaId) -> Ballot {
    Ballot { round, replica, incarnation: Incarnation(1) }
}

pub(super) fn config(id: ReplicaId, n: u32) -> Config {
    Config {
        name: "demo".to_owned(),
        id,
        life: Life(0),
        configuration: Configuration::first(ClusterConfig::of(n, "line/shared", Durability::Sync)),
        timing: Timing::DEFAULT,
        limits: Limits::DEFAULT,
        snapshots: None,
        divergence: crate::config::Divergence::Rebuild,
        wall_base: 1_000,
    }
}

/// A replica whose application runs, with what it puts out on the way forgotten.
pub(super) fn replica(id: ReplicaId, n: u32, recovered: Recovered) -> Replica {
    started(config(id, n), recovered)
}

/// Member 1 of three in a life that has not got the incarnation.
pub(super) fn learner() -> Replica {
    started(Config { life: LIFE, ..config(R1, 3) }, Recovered::default())
}

pub(super) fn started(config: Config, recovered: Recovered) -> Replica {
    let mut replica = Replica::new(config, 1, recovered, at(0));
    let started = step(&mut replica, 0, Input::Timeout);
    assert_eq!(
        started.first(),
        Some(&Output::Reset { run: Run(1), snapshot: None }),
        "nothing is known of the application at first"
    );
    step(&mut replica, 0, Input::Restored { run: Run(1) });
    replica
}

pub(super) fn step(replica: &mut Replica, millis: u64, input: Input) -> Vec<Output> {
    let mut out = Vec::new();
    replica.step(at(millis), input, &mut out);
    out
}

pub(super) fn message(replica: &mut Replica, millis: u64, from: ReplicaId, message: Message) -> Vec<Output> {
    step(replica, millis, Input::Message { from, life: Life(0), message })
}

pub(super) fn persisted(replica: &mut Replica, millis: u64, lsn: u64) -> Vec<Output> {
    step(replica, millis, Input::Persisted { lsn: Lsn(lsn) })
}

pub(super) fn open() -> Request {
    Request {
        client: CLIENT,
        opened: Opening::NONE,
        seq: Seq(0),
        body: Body::Open { window: 4, owner: None },
        proof: None,
    }
}

pub(super) fn call(seq: u64, body: &'static str) -> Request {
    Request {
        client: CLIENT,
        opened: Generation::FIRST.at(Slot(1)),
        seq: Seq(seq),
        body: Body::Call(Bytes::from_static(body.as_bytes())),
        proof: None,
    }
}

pub(super) fn batch(requests: Vec<Request>) -> Arc<Batch> {
    Arc::new(Batch { time: 5, requests, ..Batch::default() })
}

pub(super) fn accept(round: u64, leader: ReplicaId, slot: u64, decided: u64, requests: Vec<Request>) -> Message {
    let (slot, decided) = (Slot(slot), Slot(decided));
    Message::Accept { ballot: ballot(round, leader), slot, decided, configured: Slot(0), batch: batch(requests) }
}

pub(super) fn prepare(ballot: Ballot) -> Message {
    Message::Prepare { ballot, decided: Slot(0) }
}

pub(super) fn requests(list: Vec<Request>) -> Input {
    Input::Requests(list.into_iter().map(by_transport).collect())
}

pub(super) fn sent(out: &[Output]) -> Vec<(To, &Message)> {
    let message = |output| match output {
        &Output::Send { to, ref message } => Some((to, message)),
        _ => None,
    };
    out.iter().filter_map(message).collect()
}

/// A leader of three in round 1, with nothing in flight.
pub(super) fn leader() -> Replica {
    let mut leader = replica(R0, 3, Recovered::default());
    step(&mut leader, 1100, Input::Timeout);
    message(&mut leader, 1100, R1, Message::PreVoteGranted { round: 1 });
    persisted(&mut leader, 1100, 1);
    let promise = Message::Promise {
        ballot: ballot(1, R0),
        decided: Slot(0),
        first_kept: Slot(1),
        settled: Slot(0),
        accepted: Vec::new(),
    };
    message(&mut leader, 1100, R1, promise);
    assert!(leader.status().ready);
    leader
}

#[test]
fn a_follower_votes_only_when_the_value_is_durable() {
    let mut follower = replica(R1, 3, Recovered::default());
    let out = message(&mut follower, 1, R0, accept(1, R0, 1, 0, vec![open()]));
    let record = Record::Accepted { slot: Slot(1), ballot: ballot(1, R0), batch: batch(vec![open()]) };
    let following = Output::Event(Event::Following { ballot: ballot(1, R0) });
    assert_eq!(out, [following, Output::Persist { lsn: Lsn(1), record }]);
    let vote = Message::Accepted { ballot: ballot(1, R0), slots: vec![Slot(1)], marks: Marks::default() };
    let told = "the other follower too, which need not wait for the leader's word";
    assert_eq!(persisted(&mut follower, 2, 1), [Output::Send { to: To::Others, message: vote }], "{told}");
}

#[test]
fn a_promise_leaves_only_when_it_is_durable_and_says_what_was_accepted() {
    let mut follower = replica(R1, 3, Recovered::default());
    message(&mut follower, 1, R0, accept(1, R0, 1, 0, vec![open()]));
    let out = message(&mut follower, 2, R2, prepare(ballot(2, R2)));
    let record = Record::Promised { ballot: ballot(2, R2) };
    assert_eq!(out, [Output::Persist { lsn: Lsn(2), record }]);
    let out = persisted(&mut follower, 3, 2);
    let promise = Message::Promise {
        ballot: ballot(2, R2),
        decided: Slot(0),
        first_kept: Slot(1),
        settled: Slot(0),
        accepted: vec![(Slot(1), ballot(1, R0))],
    };
    let value =
        Message::Promised { ballot: ballot(2, R2), slot: Slot(1), accepted: ballot(1, R0), batch: batch(vec![open()]) };
    // The vote for the old leader is durable too, and no longer of use: it is not sent.
    assert_eq!(sent(&out), [(To::One(R2), &promise), (To::One(R2), &value)]);
}

#[test]
fn a_lower_ballot_is_told_that_it_is_outvoted() {
    let mut follower = replica(R1, 3, Recovered::default());
    message(&mut follower, 1, R2, prepare(ballot(2, R2)));
    let out = message(&mut follower, 2, R0, accept(1, R0, 1, 0, vec![]));
    let outvoted = Message::Outvoted { promised: ballot(2, R2) };
    assert_eq!(out, [Output::Send { to: To::One(R0), message: outvoted }]);
}

#[test]
fn a_ballot_of_somebody_else_is_nonsense() {
    let mut follower = replica(R1, 3, Recovered::default());
    let out = message(&mut follower, 1, R2, accept(1, R0, 1, 0, vec![]));
    let event = Event::Nonsense { from: R2, what: "a leader's message in another member's ballot" };
    assert_eq!(out, [Output::Event(event)]);
}

#[test]
fn a_decision_of_one_ballot_says_nothing_of_values_accepted_in_another() {
    let mut follower = replica(R1, 3, Recovered::default());
    message(&mut follower, 1, R0, accept(1, R0, 1, 0, vec![open()]));
    let heartbeat = Message::Heartbeat {
        ballot: ballot(2, R2),
        decided: Slot(1),
        settled: Slot(0),
        beyond: 0,
        covered: Slot(0),
        turn: None,
        answer: false,
    };
    message(&mut follower, 2, R2, heartbeat);
    assert_eq!(follower.status().decided, Slot(0), "the new leader may have decided another value (rule 2)");
    let out = step(&mut follower, 50, Input::Timeout);
    let fetch = Message::Fetch { from: Slot(1), to: Slot(1) };
    assert_eq!(sent(&out), [(To::One(R2), &fetch)]);
    let entries = vec![(ballot(2, R2), batch(vec![]))];
    message(&mut follower, 51, R2, Message::Fetched { from: Slot(1), entries, decided: Slot(1) });
    assert_eq!(follower.status().decided, Slot(1));
    assert_eq!(follower.status().sessions, 0, "the value that counts is the one fetched");
}

#[test]
fn an_idle_leader_proposes_at_once_and_a_busy_one_fills_a_batch() {
    let mut leader = leader();
    let out = step(&mut leader, 1101, requests(vec![open()]));
    assert_eq!(sent(&out).len(), 1, "idle: at once");
    for other in 0..3 {
        let out = step(&mut leader, 1101, requests(vec![Request { client: ClientId(100 + other), ..open() }]));
        assert_eq!(sent(&out).len(), 1, "up to the pipeline's depth");
    }
    let more = (0..10).map(|other| Request { client: ClientId(200 + other), ..open() }).collect();
    assert_eq!(sent(&step(&mut leader, 1101, requests(more))), [], "busy: wait for company");
    let vote = Message::Accepted { ballot: ballot(1, R0), slots: vec![Slot(1)], marks: Marks::default() };
    persisted(&mut leader, 1102, 3);
    let out = message(&mut leader, 1102, R1, vote);
    let proposed = sent(&out).into_iter().find_map(|(_, message)| match message {
        Message::Accept { slot, decided, batch, .. } => Some((*slot, *decided, batch.requests.len())),
        _ => None,
    });
    assert_eq!(proposed, Some((Slot(5), Slot(1), 10)), "one batch of all, which carries the decision");
}

#[test]
fn a_slot_is_decided_by_a_majority_whose_votes_are_durable_the_leaders_too() {
    let mut leader = leader();
    step(&mut leader, 1101, requests(vec![open()]));
    persisted(&mut leader, 1102, 2);
    assert_eq!(leader.status().decided, Slot(0), "the leader alone is no majority");
    let vote = Message::Accepted { ballot: ballot(1, R0), slots: vec![Slot(1)], marks: Marks::default() };
    message(&mut leader, 1103, R1, vote.clone());
    assert_eq!(leader.status().decided, Slot(1));

    let mut leader = self::leader();
    step(&mut leader, 1101, requests(vec![open()]));
    message(&mut leader, 1103, R1, vote.clone());
    assert_eq!(leader.status().decided, Slot(0), "the leader's own vote counts only once it is durable");
    message(&mut leader, 1103, R2, vote);
    assert_eq!(leader.status().decided, Slot(1), "two others are a majority without it");
}

#[test]
fn a_candidate_fetches_what_a_promiser_has_decided_and_fills_no_slot_there() {
    let mut candidate = replica(R0, 3, Recovered::default());
    step(&mut candidate, 1100, Input::Timeout);
    message(&mut candidate, 1100, R1, Message::PreVoteGranted { round: 1 });
    persisted(&mut candidate, 1100, 1);
    let promise = Message::Promise {
        ballot: ballot(1, R0),
        decided: Slot(2),
        first_kept: Slot(1),
        settled: Slot(0),
        accepted: vec![(Slot(4), ballot(0, R1))],
    };
    message(&mut candidate, 1101, R1, promise);
    assert!(!candidate.status().ready, "the value of slot 4 is still to come");
    let value =
        Message::Promised { ballot: ballot(1, R0), slot: Slot(4), accepted: ballot(0, R1), batch: batch(vec![open()]) };
    let out = message(&mut candidate, 1102, R1, value);
    assert_eq!(sent(&out), [(To::One(R1), &Message::Fetch { from: Slot(1), to: Slot(2) })], "nothing is proposed yet");
    let entries = vec![(ballot(0, R1), batch(vec![])), (ballot(0, R1), batch(vec![]))];
    let out = message(&mut candidate, 1103, R1, Message::Fetched { from: Slot(1), entries, decided: Slot(2) });
    let proposed: Vec<_> = sent(&out)
        .into_iter()
        .filter_map(|(_, message)| match message {
            Message::Accept { slot, batch, .. } => Some((*slot, batch.requests.len())),
            _ => None,
        })
        .collect();
    assert_eq!(proposed, [(Slot(3), 0), (Slot(4), 1)], "a no-op fills the hole, the accepted value is kept");
}

#[test]
fn no_pre_vote_is_granted_while_a_leader_is_heard() {
    let mut follower = replica(R1, 3, Recovered::default());
    message(&mut follower, 1000, R0, accept(1, R0, 1, 0, vec![]));
    let asked = Message::PreVote { round: 2, decided: Slot(0), suspects: Ballot::NONE };
    assert_eq!(message(&mut follower, 1100, R2, asked.clone()), []);
    let granted = Message::PreVoteGranted { round: 2 };
    assert_eq!(message(&mut follower, 1500, R2, asked), [Output::Send { to: To::One(R2), message: granted }]);
}

#[test]
fn a_learner_neither_votes_nor_promises_nor_stands() {
    let mut learner = learner();
    let out = message(&mut learner, 1, R0, accept(1, R0, 1, 0, vec![open()]));
    assert!(out.iter().any(|output| matches!(output, Output::Persist { lsn: Lsn(1), .. })));
    assert_eq!(persisted(&mut learner, 1, 1), []);
    let asked = Message::PreVote { round: 2, decided: Slot(0), suspects: Ballot::NONE };
    assert_eq!(message(&mut learner, 5000, R2, asked), []);
    assert_eq!(message(&mut learner, 5000, R2, prepare(ballot(2, R2))), []);
    assert_eq!(sent(&step(&mut learner, 60_000, Input::Timeout)), []);
}

#[test]
fn a_leader_without_a_majority_steps_down_after_one_election_timeout() {
    let mut leader = leader();
    step(&mut leader, 1500, Input::Timeout);
    assert!(leader.status().ready);
    let out = step(&mut leader, 1700, Input::Timeout);
    let event = Event::SteppedDown { ballot: ballot(1, R0), reason: "no answer from a majority" };
    assert_eq!(out, [Output::Event(event)]);
    assert!(!leader.status().ready);
}

/// A follower that knows the session of [`open`].
fn follower_with_session() -> Replica {
    let mut follower = replica(R1, 3, Recovered::default());
    message(&mut follower, 1, R0, accept(1, R0, 1, 0, vec![open()]));
    let heartbeat = Message::Heartbeat {
        ballot: ballot(1, R0),
        decided: Slot(1),
        settled: Slot(0),
        beyond: 0,
        covered: Slot(0),
        turn: None,
        answer: false,
    };
    message(&mut follower, 1, R0, heartbeat);
    assert_eq!(follower.status().sessions, 1);
    follower
}

/// Keeps the leader alive for the follower, without deciding anything.
fn hear_leader(follower: &mut Replica, millis: u64) -> Vec<Output> {
    let heartbeat = Message::Heartbeat {
        ballot: ballot(1, R0),
        decided: Slot(1),
        settled: Slot(0),
        beyond: 0,
        covered: Slot(0),
        turn: None,
        answer: false,
    };
    message(follower, millis, R0, heartbeat)
}

#[test]
fn an_executable_request_that_is_not_ordered_is_forwarded_and_then_the_leader_suspected() {
    let mut follower = follower_with_session();
    step(&mut follower, 100, requests(vec![call(1, "a")]));
    let mut all = Vec::new();
    for millis in (150..2000).step_by(50) {
        all.extend(hear_leader(&mut follower, millis));
    }
    let forwarded = Message::Forward { request: call(1, "a") };
    assert!(sent(&all).contains(&(To::One(R0), &forwarded)));
    let suspected = |output: &&Output| matches!(output, Output::Event(Event::Suspected { .. }));
    assert!(all.iter().any(|output| suspected(&output)));
    // Another member grants only if it suspects the same leader.
    let asked = Message::PreVote { round: 2, decided: Slot(1), suspects: ballot(1, R0) };
    let mut unsuspecting = follower_with_session();
    hear_leader(&mut unsuspecting, 1990);
    assert_eq!(message(&mut unsuspecting, 2000, R2, asked.clone()), []);
    hear_leader(&mut follower, 1990);
    let granted = Message::PreVoteGranted { round: 2 };
    assert_eq!(sent(&message(&mut follower, 2000, R2, asked)), [(To::One(R2), &granted)]);
}

#[test]
fn a_request_that_cannot_be_executed_next_causes_no_election() {
    let mut follower = follower_with_session();
    step(&mut follower, 100, requests(vec![call(2, "gap")]));
    let mut all = Vec::new();
    for millis in (150..5000).step_by(50) {
        all.extend(hear_leader(&mut follower, millis));
    }
    assert_eq!(all, [], "neither forwarded nor a reason to suspect (rule 5)");
}

#[test]
fn a_leader_puts_a_sessions_requests_in_order() {
    let mut leader = leader();
    step(&mut leader, 1101, requests(vec![open()]));
    persisted(&mut leader, 1102, 2);
    let vote = Message::Accepted { ballot: ballot(1, R0), slots: vec![Slot(1)], marks: Marks::default() };
    message(&mut leader, 1103, R1, vote);
    assert_eq!(sent(&step(&mut leader, 1104, requests(vec![call(2, "b"), call(3, "c")]))), []);
    let out = step(&mut leader, 1105, requests(vec![call(1, "a")]));
    let proposed = sent(&out).into_iter().find_map(|(_, message)| match message {
        Message::Accept { batch, .. } => Some(batch.requests.clone()),
        _ => None,
    });
    assert_eq!(proposed, Some(vec![call(1, "a"), call(2, "b"), call(3, "c")]));
    let refused = step(&mut leader, 1106, requests(vec![call(9, "far")]));
    assert_eq!(refused, [Output::Steer { tag: call(9, "far").tag(), steer: Steer::OutOfWindow }]);
}

#[test]
fn a_new_leader_orders_what_a_gap_of_the_old_one_held_up() {
    // The old leader's slot 2, with the session's first call, is lost with it; slot 3 with the second is not.
    let mut leader = replica(R0, 3, Recovered::default());
    let mut lsn = 0;
    let mut go = |leader: &mut Replica, millis: u64, input: Input| {
        let mut all = step(leader, millis, input);
        while let Some(newest) = all
            .iter()
            .filter_map(|output| match output {
                Output::Persist { lsn, .. } => Some(lsn.0),
                _ => None,
            })
            .max()
            .filter(|newest| *newest > lsn)
        {
            lsn = newest;
            all.extend(persisted(leader, millis, lsn));
        }
        all
    };
    let from = |from: ReplicaId, message: Message| Input::Message { from, life: Life(0), message };
    go(&mut leader, 1, from(R1, accept(1, R1, 1, 0, vec![open()])));
    go(&mut leader, 2, from(R1, accept(1, R1, 3, 1, vec![call(2, "b")])));
    go(&mut leader, 3, requests(vec![call(1, "a"), call(2, "b")]));
    for millis in [1100, 1200, 1300, 1400] {
        go(&mut leader, millis, Input::Timeout);
    }
    go(&mut leader, 1400, from(R2, Message::PreVoteGranted { round: 2 }));
    let ballot = ballot(2, R0);
    let (decided, first_kept, settled) = (Slot(0), Slot(1), Slot(0));
    go(&mut leader, 1401, from(R2, Message::Promise { ballot, decided, first_kept, settled, accepted: Vec::new() }));
    assert!(leader.status().ready);
    let mut proposed = Vec::new();
    for slot in 2..8 {
        let vote = Message::Accepted { ballot, slots: vec![Slot(slot)], marks: Marks::default() };
        proposed.extend(go(&mut leader, 1410 + slot, from(R2, vote)));
        if slot == 4 {
            // Its sender asks again, since nothing was answered.
            proposed.extend(go(&mut leader, 1410 + slot, requests(vec![call(2, "b")])));
        }
    }
    let proposed: Vec<Request> = sent(&proposed)
        .into_iter()
        .filter_map(|(_, message)| match message {
            Message::Accept { batch, .. } => Some(batch.requests.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(proposed, [call(1, "a"), call(2, "b")]);
}

/// A single replica that decides whatever it is given at once.
fn alone() -> (Replica, u64) {
    let mut alone = replica(R0, 1, Recovered::default());
    step(&mut alone, 1, Input::Timeout);
    persisted(&mut alone, 1, 1);
    assert!(alone.status().ready);
    (alone, 1)
}

/// Gives requests to [`alone`], lets its application answer each call with itself, and returns the outcomes.
fn run(replica: &mut Replica, lsn: &mut u64, list: &[Request]) -> Vec<(Request, Option<Outcome>)> {
    let mut todo = std::collections::VecDeque::from([requests(list.to_vec())]);
    let mut outcomes = Vec::new();
    while let Some(input) = todo.pop_front() {
        for output in step(replica, 2, input) {
            match output {
                Output::Persist { lsn: at, .. } => {
                    *lsn = at.0;
                    todo.push_back(Input::Persisted { lsn: at });
                }
                Output::Execute { run, slot, operations, .. } => {
                    let replies = operations.into_iter().filter_map(|operation| match operation {
                        Operation::Call { bytes, .. } => Some(AppReply { form: Digest::of(&bytes), bytes }),
                        Operation::End { .. } => None,
                    });
                    todo.push_back(Input::Executed { run, slot, replies: replies.collect() });
                }
                Output::Reply { tag, outcome, .. } => {
                    let request = list.iter().find(|request| request.tag() == tag);
                    outcomes.extend(request.map(|request| (request.clone(), outcome)));
                }
                _ => {}
            }
        }
    }
    outcomes
}

#[test]
fn a_number_runs_once_and_its_reply_is_kept() {
    let (mut replica, mut lsn) = alone();
    run(&mut replica, &mut lsn, &[open()]);
    let first = run(&mut replica, &mut lsn, &[call(1, "a")]);
    assert_eq!(first, [(call(1, "a"), Some(Outcome::Executed(Bytes::from_static(b"a"))))]);
    let executed = replica.status().executed;
    assert_eq!(run(&mut replica, &mut lsn, &[call(1, "a")]), first, "the stored reply");
    assert_eq!(replica.status().executed, executed, "and nothing ran");
    let other = step(&mut replica, 3, requests(vec![call(1, "b")]));
    let tag = call(1, "b").tag();
    let steer = Steer::OtherBody;
    assert_eq!(other, [Output::Event(Event::OtherBody { tag }), Output::Steer { tag, steer }]);
}

#[test]
fn a_cancel_settles_every_number_up_to_its_own() {
    let (mut replica, mut lsn) = alone();
    run(&mut replica, &mut lsn, &[open()]);
    run(&mut replica, &mut lsn, &[call(1, "a")]);
    let cancel = Request { body: Body::Cancel, ..call(3, "") };
    assert_eq!(run(&mut replica, &mut lsn, std::slice::from_ref(&cancel)), [(cancel.clone(), Some(Outcome::Settled))]);
    let executed = Some(Outcome::Executed(Bytes::from_static(b"a")));
    assert_eq!(run(&mut replica, &mut lsn, &[call(1, "a")]), [(call(1, "a"), executed)]);
    for late in [call(2, "b"), call(3, "c")] {
        assert_eq!(run(&mut replica, &mut lsn, std::slice::from_ref(&late)), [(late, Some(Outcome::Cancelled))]);
    }
    let next = run(&mut replica, &mut lsn, &[call(4, "d")]);
    assert_eq!(next, [(call(4, "d"), Some(Outcome::Executed(Bytes::from_static(b"d"))))]);
}

#[test]
fn a_lost_application_is_reset_and_everything_replayed() {
    let (mut replica, mut lsn) = alone();
    run(&mut replica, &mut lsn, &[open()]);
    run(&mut replica, &mut lsn, &[call(1, "a"), call(2, "b")]);
    let (digest, executed) = (replica.status().digest_now, replica.status().executed);
    assert_eq!(step(&mut replica, 5, Input::AppLost { run: Run(1) }), [Output::Reset { run: Run(2), snapshot: None }]);
    assert_eq!(replica.status().executed, Slot(0));
    assert_eq!(step(&mut replica, 5, Input::AppLost { run: Run(1) }), [], "an old run's end is no news");
    let out = step(&mut replica, 6, Input::Restored { run: Run(2) });
    let [Output::Execute { run, slot, operations, .. }] = &out[..] else { panic!("{out:?}") };
    let bodies: Vec<&[u8]> = operations
        .iter()
        .map(|operation| match operation {
            Operation::Call { bytes, .. } => &bytes[..],
            Operation::End { .. } => &b"end"[..],
        })
        .collect();
    assert_eq!(bodies, [b"a", b"b"]);
    let reply = |bytes: &'static [u8]| AppReply { bytes: Bytes::from_static(bytes), form: Digest::of(bytes) };
    let replies = vec![reply(b"a"), reply(b"b")];
    step(&mut replica, 7, Input::Executed { run: *run, slot: *slot, replies });
    assert_eq!((replica.status().digest_now, replica.status().executed), (digest, executed));
}

#[test]
fn a_restarted_member_keeps_its_promise_and_its_votes() {
    let records = [
        Record::Promised { ballot: ballot(1, R0) },
        Record::Accepted { slot: Slot(1), ballot: ballot(1, R0), batch: batch(vec![open()]) },
        Record::Accepted { slot: Slot(2), ballot: ballot(3, R2), batch: batch(vec![call(1, "a")]) },
        Record::Decided { slot: Slot(1) },
    ];
    let recovered = Recovered::from_records(records);
    assert_eq!(recovered.promised, ballot(3, R2), "a vote is a promise too");
    let mut member = replica(R1, 3, recovered);
    assert_eq!((member.status().decided, member.status().sessions), (Slot(1), 1));
    let outvoted = Message::Outvoted { promised: ballot(3, R2) };
    let out = message(&mut member, 1, R0, prepare(ballot(2, R0)));
    assert_eq!(sent(&out), [(To::One(R0), &outvoted)]);
    message(&mut member, 2, R0, prepare(ballot(4, R0)));
    let out = persisted(&mut member, 2, 1);
    let listed = sent(&out).into_iter().find_map(|(_, message)| match message {
        Message::Promise { accepted, decided, .. } => Some((*decided, accepted.clone())),
        _ => None,
    });
    assert_eq!(listed, Some((Slot(1), vec![(Slot(2), ballot(3, R2))])));
}

#[test]
fn a_full_table_evicts_the_session_idle_longest_but_none_of_late() {
    let mut config = config(R0, 1);
    config.configuration.cluster.sessions.sessions = 2;
    config.configuration.cluster.sessions.retention_slots = 3;
    let mut replica = Replica::new(config, 1, Recovered::default(), at(0));
    step(&mut replica, 0, Input::Timeout);
    step(&mut replica, 0, Input::Restored { run: Run(1) });
    persisted(&mut replica, 1, 1);
    let mut lsn = 1;
    let client = |id| Request { client: ClientId(id), ..open() };
    run(&mut replica, &mut lsn, &[client(1)]);
    run(&mut replica, &mut lsn, &[client(2)]);
    let refused = Some(Outcome::Refused(crate::wire::Refusal::SessionsFull));
    assert_eq!(run(&mut replica, &mut lsn, &[client(3)]), [(client(3), refused)]);
    let active = Request { client: ClientId(1), opened: Generation::FIRST.at(Slot(1)), ..call(1, "x") };
    run(&mut replica, &mut lsn, &[active]);
    run(&mut replica, &mut lsn, &[client(4)]);
    let opened = Outcome::Opened { opened: Generation::FIRST.at(Slot(6)), window: 4 };
    assert_eq!(run(&mut replica, &mut lsn, &[client(3)]), [(client(3), Some(opened))]);
    let gone = Request { client: ClientId(2), opened: Generation::FIRST.at(Slot(2)), ..call(1, "y") };
    let steer = step(&mut replica, 3, requests(vec![gone.clone()]));
    assert_eq!(steer, [Output::Steer { tag: gone.tag(), steer: Steer::NoSession }]);
}

#[test]
fn in_memory_mode_a_follower_of_three_decides_when_it_accepts() {
    let mut config = config(R1, 3);
    config.configuration.cluster.durability = Durability::Memory;
    let mut follower = Replica::new(config, 1, Recovered::default(), at(0));
    message(&mut follower, 1, R0, accept(1, R0, 1, 0, vec![open()]));
    persisted(&mut follower, 1, 1);
    assert_eq!(follower.status().decided, Slot(1));
}

#[test]
fn a_leader_that_drains_lets_the_furthest_member_take_over() {
    let mut leader = leader();
    let marks = Marks { decided: Slot(3), executed: Slot(3), ..Marks::default() };
    message(&mut leader, 1200, R2, Message::Following { ballot: ballot(1, R0), marks });
    let out = step(&mut leader, 1201, Input::Drain);
    assert_eq!(sent(&out), [(To::One(R2), &Message::TakeOver { ballot: ballot(1, R0) })]);
    assert_eq!(sent(&step(&mut leader, 1202, requests(vec![open()]))), [], "it proposes nothing more");
}

#[test]
fn a_leader_that_said_goodbye_is_not_waited_for() {
    let mut follower = replica(R1, 3, Recovered::default());
    message(&mut follower, 1, R0, accept(1, R0, 1, 0, vec![open()]));
    assert_eq!(follower.status().leader, Some(R0));
    let soon = at(2) + Timing::DEFAULT.heartbeat;
    step(&mut follower, 2, Input::Left { member: R2 });
    assert!(follower.deadline().is_some_and(|due| due > soon), "it was another one");
    step(&mut follower, 2, Input::Left { member: R0 });
    assert!(follower.deadline().is_some_and(|due| due <= soon) && follower.status().leader.is_none());
    let ask = Message::PreVote { round: 2, decided: Slot(0), suspects: Ballot::NONE };
    let out = message(&mut follower, 3, R2, ask);
    assert_eq!(sent(&out), [(To::One(R2), &Message::PreVoteGranted { round: 2 })]);
}

#[test]
fn members_that_are_level_are_shown_life_half_as_often_until_something_is_proposed() {
    let heartbeat = Timing::DEFAULT.heartbeat;
    let mut leader = leader();
    let tick = |leader: &mut Replica, level: [bool; 2]| {
        let due = leader.deadline().expect("it shows life");
        for (member, level) in [R1, R2].into_iter().zip(level) {
            let marks = Marks { executed: if level { Slot(0) } else { Slot(7) }, ..Marks::default() };
            let answer = Message::Following { ballot: ballot(1, R0), marks };
            let before = Instant::from_nanos(due.as_nanos() - 1);
            leader.step(before, Input::Message { from: member, life: Life(0), message: answer }, &mut Vec::new());
        }
        leader.step(due, Input::Timeout, &mut Vec::new());
        (due, leader.deadline().expect("it shows life again"))
    };
    let (due, next) = tick(&mut leader, [true, false]);
    assert_eq!(next, due + heartbeat, "somebody is not level");
    let (due, next) = tick(&mut leader, [true, true]);
    assert_eq!(next, due + heartbeat * 2);
    let later = due + heartbeat / 2;
    leader.step(later, requests(vec![open()]), &mut Vec::new());
    assert_eq!(leader.deadline(), Some(later + heartbeat), "what is proposed may have to be sent again");
}

#[test]
fn deadlines_are_asked_for_until_everything_is_quiet() {
    let mut learner = learner();
    assert_eq!(learner.deadline(), None, "a learner without anything to do sleeps");
    let mut follower = replica(R2, 3, Recovered::default());
    assert!(follower.deadline().is_some_and(|at| at <= self::at(0) + Duration::from_secs(1)));
    step(&mut learner, 1, Input::Timeout);
    step(&mut follower, 1, Input::Timeout);
}

#[test]
fn a_refusal_that_only_a_leader_makes_is_taken_from_nobody() {
    // With look_up's word for it alone it was ordered, and settled another client's number as refused.
    let refused = |seq| Request { body: Body::Refused(crate::wire::Refusal::LogFull), ..call(seq, "") };
    let mut leader = leader();
    step(&mut leader, 1100, requests(vec![open()]));
    persisted(&mut leader, 1100, 2);
    let vote = Message::Accepted { ballot: ballot(1, R0), slots: vec![Slot(1)], marks: Marks::default() };
    message(&mut leader, 1100, R1, vote);
    assert_eq!(leader.status().sessions, 1);
    for seq in [1, 2] {
        let tag = refused(seq).tag();
        let out = step(&mut leader, 1101, requests(vec![refused(seq)]));
        assert_eq!(out, [Output::Steer { tag, steer: Steer::Rejected(Rejected::NotForClients) }]);
        let out = message(&mut leader, 1101, R1, Message::Forward { request: refused(seq) });
        assert_eq!(out, [Output::Send { to: To::One(R1), message: Message::ForwardRefused { tag } }]);
    }
    assert_eq!(leader.status().held, 0);
}

/// A request whose proof has so many steps; what it proves is nothing.
fn with_proof_of(request: &Request, steps: u64) -> Request {
    let mut bytes = crate::wire::encode(request).to_vec();
    assert_eq!(bytes.pop(), Some(0), "the proof is last, and there is none");
    bytes.push(1);
    bytes.extend([0; 64]);
    bytes.extend(crate::wire::encode(&steps));
    bytes.extend(vec![0; 33 * steps as usize]);
    crate::wire::decode(&bytes).expect("a request")
}

#[test]
fn a_proof_or_certificate_longer_than_any_is_not_ordered_where_nobody_looks_at_it() {
    // A batch with it would be larger than a link carries: its slot would never be decided, by any leader.
    let mut leader = leader();
    let owner = crate::auth::Owner {
        key: crate::auth::PublicKey([0; 32]),
        nonce: 0,
        certificate: Bytes::from(vec![0; crate::auth::CERTIFICATE_BYTES_MAX + 1]),
    };
    let body = Body::Open { window: 4, owner: Some(Box::new(owner)) };
    for request in [with_proof_of(&open(), 13), Request { body, ..open() }] {
        let tag = request.tag();
        let out = step(&mut leader, 1100, requests(vec![request.clone()]));
        assert_eq!(out, [Output::Steer { tag, steer: Steer::TooLarge }]);
        let out = message(&mut leader, 1100, R1, Message::Forward { request });
        assert_eq!(out, [Output::Send { to: To::One(R1), message: Message::ForwardRefused { tag } }]);
    }
    assert_eq!(leader.status().held, 0);
    let out = step(&mut leader, 1100, requests(vec![with_proof_of(&open(), 12)]));
    assert!(matches!(&out[..], [Output::Persist { .. }, Output::Send { .. }]), "one of twelve steps is: {out:?}");
}

/// Mutants: a slot that is decided by the other follower's vote before the own one is durable (others-vote-alone); votes of
/// another ballot that count.
#[test]
fn two_followers_of_three_decide_by_each_others_votes_once_their_own_are_durable() {
    let vote = |round| Message::Accepted { ballot: ballot(round, R0), slots: vec![Slot(1)], marks: Marks::default() };
    for own_first in [true, false] {
        let mut follower = replica(R1, 3, Recovered::default());
        message(&mut follower, 50, R0, accept(2, R0, 1, 0, vec![open()]));
        let own = |follower: &mut Replica| {
            let out = persisted(follower, 51, 1);
            assert!(matches!(sent(&out)[..], [(To::Others, Message::Accepted { .. })]), "few requests: all are told");
        };
        if own_first {
            own(&mut follower);
        }
        message(&mut follower, 52, R2, vote(1));
        assert_eq!(follower.status().decided, Slot(0), "a vote of another ballot");
        message(&mut follower, 52, R2, vote(2));
        if !own_first {
            assert_eq!(follower.status().decided, Slot(0), "the own vote counts only once it is durable");
            own(&mut follower);
        }
        assert_eq!(follower.status().decided, Slot(1));
    }
    let mut of_five = replica(R1, 5, Recovered::default());
    message(&mut of_five, 50, R0, accept(2, R0, 1, 0, vec![open()]));
    assert!(matches!(sent(&persisted(&mut of_five, 51, 1))[..], [(To::One(R0), Message::Accepted { .. })]));
    message(&mut of_five, 52, R2, vote(2));
    assert_eq!(of_five.status().decided, Slot(0), "two are no majority of five");
}
