//! Requests that are sent to the leader alone: when they are, and how soon the others are asked where that is not enough.

use super::ReplyVote;
use super::smart_client::{Config, Input, Output, SmartClient, Ticket};
use crate::auth::{self, SecretKey, SharedProof};
use crate::ids::{Ballot, ClientId, Digest, Generation, Incarnation, Opening, ReplicaId, Seq, Slot};
use crate::time::{Duration, Instant};
use crate::wire::client::Told;
use crate::wire::submit::{Answer, Steer, Vote};
use crate::wire::{Body, Kind, Outcome, Request, Tag};
use bytes::Bytes;

const SERVERS: [ReplicaId; 3] = [ReplicaId(0), ReplicaId(1), ReplicaId(2)];
const LEADER: ReplicaId = SERVERS[1];

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn push(client: &mut SmartClient, millis: u64, input: Input) -> Vec<Output> {
    let mut out = Vec::new();
    client.step(at(millis), input, &mut out);
    out
}

fn leads(client: &mut SmartClient, millis: u64, from: ReplicaId, round: u64) -> Vec<Output> {
    let ballot = Ballot { round, replica: from, incarnation: Incarnation(1) };
    push(client, millis, Input::Leads { from, ballot: Some(ballot) })
}

fn linked() -> SmartClient {
    let mut client = SmartClient::new(Config {
        servers: SERVERS.to_vec(),
        vote: ReplyVote::Majority,
        resend: Duration::from_millis(800),
        margin: Duration::from_millis(200),
        held: 256,
        held_bytes: 64,
        // Not one resend is in the budget.
        resends_saved: 0,
    });
    for server in SERVERS {
        push(&mut client, 0, Input::Up(server));
    }
    client
}

/// One that knows its leader.
fn led() -> SmartClient {
    let mut client = linked();
    assert_eq!(leads(&mut client, 0, LEADER, 3), []);
    client
}

fn request(seq: u64) -> Request {
    let body = Body::Call(Bytes::from_static(b"a"));
    Request { client: ClientId(0), opened: Generation::FIRST.at(Slot(1)), seq: Seq(seq), body, proof: None }
}

fn ask_for(client: &mut SmartClient, millis: u64, request: Request) -> Vec<Output> {
    let (ticket, deadline) = (Ticket(request.seq.0), at(millis + 5_000));
    push(client, millis, Input::Ask { ticket, request, deadline })
}

fn ask(client: &mut SmartClient, millis: u64, seq: u64) -> Vec<Output> {
    ask_for(client, millis, request(seq))
}

/// Who is asked, and whether for the whole reply; nothing else may be among the outputs.
fn asked(out: &[Output]) -> Vec<(ReplicaId, bool)> {
    let of = |output: &Output| match output {
        Output::Send { to, whole, .. } => (*to, *whole),
        other => panic!("{other:?}"),
    };
    out.iter().map(of).collect()
}

const OTHERS: [(ReplicaId, bool); 2] = [(SERVERS[0], false), (SERVERS[2], false)];

fn tag(seq: u64) -> Tag {
    request(seq).tag()
}

/// A vote on the first request's outcome, `x`.
fn vote(from: ReplicaId) -> Input {
    let votes = vec![Vote { tag: tag(1), slot: Slot(2), form: Digest::of(b"x"), signed: None }];
    Input::Votes { from, votes }
}

#[test]
fn a_call_goes_to_the_leader_alone_and_the_votes_of_others_count_all_the_same() {
    let mut client = led();
    assert_eq!(asked(&ask(&mut client, 1, 1)), [(LEADER, true)]);
    let outcome = Outcome::Executed(Bytes::from_static(b"x"));
    let form = Digest::of(b"x");
    let answer = Answer { tag: tag(1), slot: Slot(2), form, outcome: outcome.clone(), signed: None };
    assert_eq!(push(&mut client, 2, Input::Answer { from: LEADER, answer }), [], "one reply is no majority");
    let out = push(&mut client, 3, vote(SERVERS[2]));
    assert_eq!(out, [Output::Tell { ticket: Ticket(1), told: Told::unsigned(outcome) }]);
}

#[test]
fn the_leaders_reply_is_waited_for_twice_as_long_as_the_votes_of_the_others_took() {
    // 100 ms are an eighth of the time to resend: the least.
    for (votes_at, patience) in [(11, 100), (211, 420)] {
        let mut client = led();
        ask(&mut client, 1, 1);
        push(&mut client, votes_at, vote(SERVERS[0]));
        assert_eq!(push(&mut client, votes_at, vote(SERVERS[2])), []);
        assert_eq!(push(&mut client, votes_at + patience - 1, Input::Timeout), []);
        let out = asked(&push(&mut client, votes_at + patience, Input::Timeout));
        assert!(matches!(out[..], [(to, true)] if to != LEADER), "{out:?}");
    }
}

#[test]
fn what_every_server_needs_early_and_what_nobody_leads_goes_to_all() {
    let everybody = |out: &[Output]| asked(out).len() == 3;
    assert!(everybody(&ask(&mut linked(), 1, 1)), "nobody is known to lead");
    let open = Request { seq: Seq(0), ..Request::open(ClientId(0), 4, None) };
    assert!(everybody(&ask_for(&mut led(), 1, open)), "each learns of the session");
    let key = SecretKey::from_seed(&[1; 32]).expect("a seed is a key");
    let proof = auth::sign(&key, &[auth::request_statement("c", &request(1))]).remove(0);
    let signed = Request { proof: Some(SharedProof::new(proof)), ..request(1) };
    assert!(everybody(&ask_for(&mut led(), 1, signed)), "each checks the signature");
    let mut client = led();
    push(&mut client, 1, Input::Leads { from: LEADER, ballot: None });
    assert!(everybody(&ask(&mut client, 2, 1)), "it leads no more");
}

/// Mutants: a widened request that waits for the retry budget; one whose body is still expected of the silent leader.
#[test]
fn a_silent_leader_is_not_waited_for_and_is_believed_again_when_it_speaks() {
    let mut client = led();
    ask(&mut client, 0, 1);
    assert_eq!(push(&mut client, 799, Input::Timeout), []);
    let others = [(SERVERS[0], true), (SERVERS[2], false)];
    assert_eq!(asked(&push(&mut client, 800, Input::Timeout)), others, "once, and no matter of the budget");
    assert_eq!(asked(&ask(&mut client, 801, 2)).len(), 3, "no other request is left to it");
    leads(&mut client, 802, LEADER, 3);
    assert_eq!(asked(&ask(&mut client, 803, 3)), [(LEADER, true)]);
}

/// Mutants: what was sent to a leader alone that is none any more waits for its time-out; its body is waited for when
/// another leads.
#[test]
fn another_leader_or_a_lost_one_sends_what_it_had_to_all_at_once() {
    let mut client = led();
    ask(&mut client, 0, 1);
    assert_eq!(leads(&mut client, 1, SERVERS[0], 2), [], "an older leader that does not know");
    let others = [(SERVERS[0], true), (SERVERS[2], false)];
    assert_eq!(asked(&leads(&mut client, 2, SERVERS[0], 4)), others);
    assert_eq!(asked(&ask(&mut client, 3, 2)), [(SERVERS[0], true)]);
    let mut out = push(&mut client, 4, Input::Down(SERVERS[0]));
    out.retain(|output| matches!(output, Output::Send { request, .. } if request.seq == Seq(2)));
    let mut others = asked(&out);
    others.sort_unstable();
    assert_eq!(others.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [SERVERS[1], SERVERS[1], SERVERS[2]], "{out:?}");
    assert_eq!(asked(&ask(&mut client, 5, 3)).len(), 2, "whoever is left");
}

#[test]
fn a_leader_that_turns_a_request_away_leaves_it_to_the_others_unless_it_is_only_busy() {
    let steer = |client: &mut SmartClient, steer| push(client, 1, Input::Steer { from: LEADER, tag: tag(1), steer });
    let mut client = led();
    ask(&mut client, 0, 1);
    assert_eq!(steer(&mut client, Steer::Busy), [], "it would be no less so");
    assert_eq!(asked(&steer(&mut client, Steer::NotReady)), OTHERS);
}

/// Mutants: a leader that is asked for every read; a read that counts for ever.
#[test]
fn reads_go_to_the_leader_as_long_as_it_has_not_too_many() {
    let mut client = led();
    let read = |client: &mut SmartClient, seq: u64| {
        let body = Body::Read(vec![Bytes::from_static(b"a")]);
        let out = ask_for(client, 1, Request { opened: Opening::NONE, body, ..request(seq) });
        asked(&out)[0].0
    };
    let answer = |client: &mut SmartClient, seq: u64| {
        let tag = Tag { client: ClientId(0), opened: Opening::NONE, seq: Seq(seq), kind: Kind::Read };
        let outcome = Outcome::Read(vec![Bytes::from_static(b"x")]);
        let answer = Answer { tag, slot: Slot(1), form: Digest::default(), outcome, signed: None };
        push(client, 2, Input::Answer { from: LEADER, answer })
    };
    for seq in 1..=64 {
        assert_eq!(read(&mut client, seq), LEADER);
    }
    let mut beyond: Vec<ReplicaId> = (65..=70).map(|seq| read(&mut client, seq)).collect();
    beyond.sort_unstable();
    beyond.dedup();
    assert_eq!(beyond, SERVERS);
    for seq in 1..=64 {
        assert_eq!(answer(&mut client, seq).len(), 1);
    }
    assert_eq!(read(&mut client, 71), LEADER);
}

/// Mutant: a server's word from before it had the request is held against its later vote.
#[test]
fn who_lacked_the_session_when_asked_and_votes_later_has_not_lost_it() {
    let mut client = linked();
    assert_eq!(asked(&ask(&mut client, 0, 1)).len(), 3, "nobody leads");
    for from in [SERVERS[0], SERVERS[1]] {
        push(&mut client, 1, Input::Steer { from, tag: tag(1), steer: Steer::NoSession });
    }
    let mut out = push(&mut client, 2, vote(SERVERS[0]));
    out.extend(push(&mut client, 3, vote(SERVERS[1])));
    assert!(out.iter().all(|output| matches!(output, Output::Send { .. })), "its body is still to be had: {out:?}");
}
