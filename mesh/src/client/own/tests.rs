//! Sessions that their owners keep: what is in doubt, and when not any more.

use super::*;
use crate::ids::{Generation, Slot};
use crate::wire::Refusal;

const ID: ClientId = ClientId(42);

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn opened() -> OwnSession {
    let end = Carried::Outcome(Outcome::Opened { opened: Generation::FIRST.at(Slot(7)), window: 8 });
    OwnSession::opened(ID, end).expect("it was opened")
}

fn executed(reply: &'static str) -> Carried {
    Carried::Outcome(Outcome::Executed(bytes(reply)))
}

#[test]
fn numbers_are_consecutive_and_part_of_the_sessions_name() {
    let mut session = opened();
    for number in 1..=2 {
        let request = session.invoke(bytes("a")).unwrap();
        let body = Body::Call(bytes("a"));
        assert_eq!(
            request,
            Request { client: ID, opened: Generation::FIRST.at(Slot(7)), seq: Seq(number), body, proof: None }
        );
        assert_eq!(session.invoked(executed("A")), Ok(bytes("A")));
    }
    assert_eq!((session.next(), session.in_doubt()), (Seq(3), None));
}

#[test]
fn an_unknown_outcome_keeps_the_number_until_the_same_request_has_an_end() {
    let mut session = opened();
    let first = session.invoke(bytes("a")).unwrap();
    let lost = session.invoked(Carried::Unknown(Told::Deadline));
    assert_eq!(lost, Err(InvokeError::Unknown(Unknown::Deadline)));
    assert_eq!(session.in_doubt(), Some(&bytes("a")));
    assert_eq!(session.invoke(bytes("b")), Err(NotRun::InDoubt { seq: Seq(1) }));
    assert_eq!(session.close(), Err(NotRun::InDoubt { seq: Seq(1) }));
    assert_eq!(session.invoke(bytes("a")), Ok(first));
    assert_eq!(session.invoked(executed("A")), Ok(bytes("A")));
    assert_eq!(session.invoke(bytes("b")).unwrap().seq, Seq(2));
}

#[test]
fn only_the_first_attempt_of_a_number_is_definitely_not_sent() {
    let refused = || Carried::Refused(Refused::NoSmartClient);
    let not_run = || Err(InvokeError::NotRun(NotRun::Refused(Refused::NoSmartClient)));
    let unknown = || Err(InvokeError::Unknown(Unknown::NotReached(Refused::NoSmartClient)));
    let mut session = opened();
    session.invoke(bytes("a")).unwrap();
    assert_eq!(session.invoked(refused()), not_run(), "and another request may have the number");
    session.invoke(bytes("b")).unwrap();
    assert_eq!(session.invoked(Carried::Unknown(Told::Lost)), Err(InvokeError::Unknown(Unknown::Lost)));
    session.invoke(bytes("b")).unwrap();
    assert_eq!(session.invoked(refused()), unknown(), "the attempt before may have run");

    let mut resumed = OwnSession::resume(opened().name(), Seq(5));
    resumed.invoke(bytes("c")).unwrap();
    assert_eq!(resumed.invoked(refused()), unknown(), "the life before may have sent it");

    let mut settled = OwnSession::resume_settled(opened().name(), Seq(5));
    settled.invoke(bytes("c")).unwrap();
    assert_eq!(settled.invoked(refused()), not_run(), "the life before sent nothing of this number");

    let mut dropped = opened();
    dropped.invoke(bytes("d")).unwrap();
    dropped.invoke(bytes("d")).unwrap();
    assert_eq!(dropped.invoked(refused()), unknown(), "whoever dropped the first attempt may have sent it");
}

#[test]
fn an_ordered_outcome_uses_the_number_up() {
    let ends = [
        (Outcome::Refused(Refusal::LogFull), Refused::Ordered(Refusal::LogFull)),
        (Outcome::Cancelled, Refused::Cancelled),
        (Outcome::Aborted, Refused::Aborted),
    ];
    for (outcome, why) in ends {
        let mut session = opened();
        session.invoke(bytes("a")).unwrap();
        let end = session.invoked(Carried::Outcome(outcome));
        assert_eq!(end, Err(InvokeError::NotRun(NotRun::Refused(why))));
        assert_eq!((session.next(), session.in_doubt()), (Seq(2), None));
    }
}

#[test]
fn settling_cancels_and_then_asks_what_became_of_the_request() {
    assert_eq!(opened().cancel(), None, "nothing is in doubt");
    for (end, settled) in [
        (executed("A"), Settled::Executed(bytes("A"))),
        (Carried::Outcome(Outcome::Cancelled), Settled::NotRun(NotRun::Refused(Refused::Cancelled))),
    ] {
        let mut session = OwnSession::resume_in_doubt(opened().name(), Seq(5), bytes("a"));
        let cancel = session.cancel().unwrap();
        assert_eq!((cancel.seq, &cancel.body), (Seq(5), &Body::Cancel));
        assert_eq!(session.cancelled(Carried::Unknown(Told::Deadline)), Err(Unknown::Deadline));
        let question = session.cancelled(Carried::Outcome(Outcome::Settled)).unwrap();
        assert_eq!((question.seq, &question.body), (Seq(5), &Body::Call(bytes("a"))));
        let refused = Carried::Refused(Refused::NoSmartClient);
        assert_eq!(session.settled(refused), Err(Unknown::NotReached(Refused::NoSmartClient)));
        assert_eq!(session.in_doubt(), Some(&bytes("a")));
        assert_eq!(session.settled(end), Ok(settled));
        assert_eq!((session.next(), session.in_doubt()), (Seq(6), None));
    }
}

#[test]
fn outcomes_of_another_kind_of_request_settle_nothing() {
    let mut session = opened();
    session.invoke(bytes("a")).unwrap();
    let end = session.invoked(Carried::Outcome(Outcome::Settled));
    assert_eq!(end, Err(InvokeError::Unknown(Unknown::Disagreement)));
    assert_eq!(session.in_doubt(), Some(&bytes("a")));
    assert_eq!(session.cancelled(executed("A")), Err(Unknown::Disagreement));
}

#[test]
fn a_session_that_is_gone_counts_as_closed() {
    assert_eq!(OwnSession::closed(Carried::Outcome(Outcome::Closed)), Ok(()));
    assert_eq!(OwnSession::closed(Carried::Unknown(Told::SessionGone)), Ok(()));
    let lost = OwnSession::closed(Carried::Unknown(Told::Deadline));
    assert_eq!(lost, Err(InvokeError::Unknown(Unknown::Deadline)));
}

#[test]
fn names_are_text_and_back() {
    let name = opened().name();
    let text = name.to_string();
    assert_eq!(text, "0000000000000000000000000000002a@7@1-0000000000000000");
    assert_eq!(text.parse(), Ok(name));
    assert_eq!("2a@7@1-0000000000000000".parse(), Ok(name));
    let slots =
        ["", "2a", "@7", "2a@", "2a@-7", "2a@+7", "+2a@7", "2g@7"].map(|slot| format!("{slot}@1-0000000000000000"));
    let generations = ["2a@7", "2a@7@", "2a@7@7", "2a@7@1-0", "2a@7@-0000000000000000", "2a@7@+1-0000000000000000"];
    let long = format!("{text}0").repeat(2);
    let slots = slots.iter().map(String::as_str);
    for wrong in slots.chain(generations).chain([long.as_str()]) {
        assert_eq!(wrong.parse::<SessionName>(), Err(NameError), "{wrong:?}");
    }
}

#[test]
fn a_larger_request_than_any_cluster_takes_is_not_sent() {
    let mut session = opened();
    let large = Bytes::from(vec![0; REQUEST_BYTES_MAX + 1]);
    assert_eq!(session.invoke(large.clone()), Err(NotRun::TooLarge { bytes: large.len() }));
    assert_eq!(session.in_doubt(), None);
}
