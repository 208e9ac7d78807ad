//! Reads past the log (rule 32): when a replica lets its application answer, and when not.

use super::tests::{R0, R1, R2, accept, at, ballot, call, config, leader, learner, message, open, persisted, replica};
use super::tests::{requests, sent, started, step};
use super::*;
use crate::ids::{ReadId, Run};
use crate::wire::peer::Marks;

const READ: ReadId = ReadId(5);

fn marks(executed: u64) -> Marks {
    Marks { decided: Slot(executed), executed: Slot(executed), ..Marks::default() }
}

/// The word of a follower on the leader's round, `executed` being how far its application is.
fn confirmed(round: u64, executed: u64) -> Message {
    Message::Confirmed { ballot: ballot(1, R0), round, marks: marks(executed) }
}

fn asks(round: u64) -> Output {
    Output::Send { to: To::Others, message: Message::Confirm { ballot: ballot(1, R0), round } }
}

fn reads(list: &[u64]) -> Input {
    Input::Reads(list.iter().copied().map(ReadId).collect())
}

fn void(why: Unread) -> Output {
    Output::ReadVoid { read: READ, why }
}

/// A follower of replica 0 that has decided and executed two slots without a call, of which the first is settled.
fn follower() -> Replica {
    let mut follower = replica(R1, 3, Recovered::default());
    message(&mut follower, 1, R0, accept(1, R0, 1, 0, vec![]));
    message(&mut follower, 1, R0, accept(1, R0, 2, 1, vec![]));
    heartbeat(&mut follower, 2, 1);
    assert_eq!(follower.status().executed, Slot(2));
    follower
}

fn heartbeat(follower: &mut Replica, decided: u64, settled: u64) -> Vec<Output> {
    let (decided, settled) = (Slot(decided), Slot(settled));
    let (beyond, covered, turn) = (0, Slot(0), None);
    let heartbeat =
        Message::Heartbeat { ballot: ballot(1, R0), decided, settled, beyond, covered, turn, answer: false };
    message(follower, 2, R0, heartbeat)
}

/// The name of the question that is asked in `out`.
fn question(out: &[Output]) -> u64 {
    match sent(out)[..] {
        [(To::One(R0), Message::ReadIndex { question, .. })] => *question,
        ref other => panic!("{other:?}"),
    }
}

fn indexed(question: u64, index: u64, settled: u64) -> Message {
    let (index, decided, settled) = (Slot(index), Slot(2), Slot(settled));
    Message::ReadIndexed { ballot: ballot(1, R0), question, index, decided, settled, beyond: 0 }
}

#[test]
fn a_leader_lets_nothing_be_read_before_a_majority_has_confirmed_it() {
    let mut leader = leader();
    assert_eq!(step(&mut leader, 1101, reads(&[5])), [asks(1)]);
    assert_eq!(message(&mut leader, 1102, R1, confirmed(0, 0)), [], "of an earlier round");
    let read = Output::Read { run: Run(1), read: READ };
    assert_eq!(message(&mut leader, 1102, R1, confirmed(1, 0)), [read]);
    let answer = Output::ReadAnswer { read: READ, slot: Slot(0) };
    assert_eq!(step(&mut leader, 1103, Input::ReadDone { run: Run(1), read: READ }), [answer]);
    assert_eq!(leader.status().read_rounds, 1);
}

#[test]
fn who_comes_during_a_round_waits_for_the_next_and_all_who_wait_share_it() {
    let mut leader = leader();
    step(&mut leader, 1101, reads(&[1]));
    let question = |question| Message::ReadIndex { ballot: ballot(1, R0), question };
    assert_eq!(message(&mut leader, 1101, R1, question(7)), []);
    assert_eq!(message(&mut leader, 1101, R2, question(8)), []);
    let out = message(&mut leader, 1102, R2, confirmed(1, 0));
    assert_eq!(out, [asks(2), Output::Read { run: Run(1), read: ReadId(1) }], "nobody else is answered yet");
    let out = message(&mut leader, 1103, R2, confirmed(2, 0));
    let told = |question| Message::ReadIndexed {
        ballot: ballot(1, R0),
        question,
        index: Slot(0),
        decided: Slot(0),
        settled: Slot(0),
        beyond: 0,
    };
    assert_eq!(sent(&out), [(To::One(R1), &told(7)), (To::One(R2), &told(8))]);
}

#[test]
fn the_index_is_what_was_proposed_and_not_what_is_decided() {
    let mut leader = leader();
    step(&mut leader, 1101, requests(vec![open()]));
    message(&mut leader, 1101, R1, Message::ReadIndex { ballot: ballot(1, R0), question: 7 });
    let out = message(&mut leader, 1102, R2, confirmed(1, 0));
    let index = sent(&out).into_iter().find_map(|(_, message)| match message {
        Message::ReadIndexed { index, decided, .. } => Some((*index, *decided)),
        _ => None,
    });
    assert_eq!(index, Some((Slot(1), Slot(0))));
}

#[test]
fn what_a_promise_reported_is_below_no_index() {
    let mut candidate = replica(R0, 3, Recovered::default());
    step(&mut candidate, 1100, Input::Timeout);
    message(&mut candidate, 1100, R1, Message::PreVoteGranted { round: 1 });
    persisted(&mut candidate, 1100, 1);
    let (b, none) = (ballot(1, R0), Slot(0));
    let accepted = vec![(Slot(3), ballot(0, R1))];
    let promise = Message::Promise { ballot: b, decided: none, first_kept: Slot(1), settled: none, accepted };
    message(&mut candidate, 1100, R1, promise);
    let value = super::tests::batch(vec![open()]);
    message(
        &mut candidate,
        1100,
        R1,
        Message::Promised { ballot: b, slot: Slot(3), accepted: ballot(0, R1), batch: value },
    );
    assert!(candidate.status().ready);
    message(&mut candidate, 1101, R1, Message::ReadIndex { ballot: b, question: 7 });
    let out = message(&mut candidate, 1102, R2, confirmed(1, 0));
    assert!(
        sent(&out).iter().any(|(_, message)| matches!(message, Message::ReadIndexed { index: Slot(3), .. })),
        "{out:?}"
    );
}

#[test]
fn a_follower_confirms_only_the_leader_that_nobody_has_outvoted() {
    let mut follower = replica(R1, 3, Recovered::default());
    let confirm = |leader, round| Message::Confirm { ballot: ballot(round, leader), round: 9 };
    let out = message(&mut follower, 1, R0, confirm(R0, 1));
    let yes = Message::Confirmed { ballot: ballot(1, R0), round: 9, marks: Marks::default() };
    assert_eq!(sent(&out), [(To::One(R0), &yes)]);
    message(&mut follower, 2, R2, super::tests::prepare(ballot(2, R2)));
    let out = message(&mut follower, 3, R0, confirm(R0, 1));
    assert_eq!(sent(&out), [(To::One(R0), &Message::Outvoted { promised: ballot(2, R2) })]);
    let mut learner = learner();
    assert_eq!(sent(&message(&mut learner, 1, R0, confirm(R0, 1))), [], "it has no word");
}

#[test]
fn a_follower_reads_behind_the_index_and_answers_when_that_is_settled() {
    let mut follower = follower();
    let asked = question(&step(&mut follower, 3, reads(&[5])));
    assert_eq!(message(&mut follower, 4, R0, indexed(asked + 1, 2, 1)), [], "the answer to another question");
    let read = Output::Read { run: Run(1), read: READ };
    assert_eq!(message(&mut follower, 4, R0, indexed(asked, 2, 1)), [read]);
    let out = step(&mut follower, 5, Input::ReadDone { run: Run(1), read: READ });
    assert_eq!(out, [], "what it shows may be taken back yet, and the mark was asked for only just now");
    let again = question(&step(&mut follower, 10, Input::Timeout));
    assert_eq!(
        message(&mut follower, 11, R0, indexed(again, 2, 2)),
        [Output::ReadAnswer { read: READ, slot: Slot(2) }]
    );
}

#[test]
fn what_is_settled_is_not_shown_before_every_abort_in_it_can_be_known() {
    let mut follower = follower();
    let asked = question(&step(&mut follower, 3, reads(&[5])));
    message(&mut follower, 4, R0, indexed(asked, 2, 1));
    // The leader has decided more, which is not here; an abort may be in it.
    heartbeat(&mut follower, 4, 2);
    assert_eq!(step(&mut follower, 5, Input::ReadDone { run: Run(1), read: READ }), []);
    message(&mut follower, 5, R0, accept(1, R0, 3, 2, vec![]));
    message(&mut follower, 5, R0, accept(1, R0, 4, 2, vec![]));
    let out = heartbeat(&mut follower, 4, 2);
    assert!(out.contains(&Output::ReadAnswer { read: READ, slot: Slot(2) }), "{out:?}");
}

#[test]
fn a_read_waits_for_its_index() {
    let mut follower = follower();
    let asked = question(&step(&mut follower, 3, reads(&[5])));
    assert_eq!(message(&mut follower, 4, R0, indexed(asked, 3, 2)), []);
    message(&mut follower, 5, R0, accept(1, R0, 3, 2, vec![]));
    let out = heartbeat(&mut follower, 3, 2);
    assert!(out.contains(&Output::Read { run: Run(1), read: READ }), "{out:?}");
}

#[test]
fn a_lost_application_another_leader_and_time_void_reads() {
    let mut lost = follower();
    let asked = question(&step(&mut lost, 3, reads(&[5])));
    message(&mut lost, 4, R0, indexed(asked, 2, 2));
    let out = step(&mut lost, 5, Input::AppLost { run: Run(1) });
    assert!(out.contains(&void(Unread::Lost)), "{out:?}");
    assert_eq!(step(&mut lost, 6, Input::ReadDone { run: Run(1), read: READ }), [], "it was of the lost one");
    assert_eq!(step(&mut lost, 6, reads(&[5])), [void(Unread::NotReady)], "it is being reset");

    let mut led = follower();
    step(&mut led, 3, reads(&[5]));
    let out = message(&mut led, 4, R2, super::tests::prepare(ballot(2, R2)));
    assert!(out.contains(&void(Unread::NotReady)), "{out:?}");
    assert_eq!(step(&mut led, 5, reads(&[5])), [void(Unread::NotReady)], "it follows nobody");

    let mut late = follower();
    step(&mut late, 3, reads(&[5]));
    let again = step(&mut late, 103, Input::Timeout);
    question(&again);
    heartbeat(&mut late, 2, 1);
    let out = step(&mut late, 503, Input::Timeout);
    assert!(out.contains(&void(Unread::Late)), "{out:?}");
    assert!(late.deadline().is_none_or(|due| due > at(503)), "nothing is due at once, for ever");
}

#[test]
fn who_has_no_word_answers_no_read() {
    let mut learner = learner();
    message(&mut learner, 1, R0, accept(1, R0, 1, 0, vec![]));
    assert_eq!(step(&mut learner, 2, reads(&[5])), [void(Unread::NotReady)]);
    let mut witness = config(R1, 3);
    witness.configuration.cluster.members[1].application = false;
    let mut witness = Replica::new(witness, 1, Recovered::default(), at(0));
    step(&mut witness, 0, Input::Timeout);
    message(&mut witness, 1, R0, accept(1, R0, 1, 0, vec![]));
    assert_eq!(step(&mut witness, 2, reads(&[5])), [void(Unread::NotReady)]);
}

#[test]
fn a_member_alone_confirms_itself() {
    let mut alone = started(config(R0, 1), Recovered::default());
    step(&mut alone, 1, Input::Timeout);
    persisted(&mut alone, 1, 1);
    assert!(alone.status().ready);
    assert_eq!(step(&mut alone, 2, reads(&[5])), [Output::Read { run: Run(1), read: READ }]);
}

#[test]
fn no_read_is_ordered() {
    let mut leader = leader();
    let read = Request { body: Body::Read(vec![bytes::Bytes::from_static(b"GET a\n")]), ..call(1, "") };
    let tag = read.tag();
    let steer = crate::wire::submit::Steer::Rejected(Rejected::NotForClients);
    assert_eq!(step(&mut leader, 1101, requests(vec![read])), [Output::Steer { tag, steer }]);
}
