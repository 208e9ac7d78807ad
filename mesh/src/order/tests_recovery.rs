//! Snapshots, lives, silence and divergence: handlers of the core, each driven by hand.

use super::tests::{
    LIFE, R0, R1, R2, accept, at, ballot, batch, call, config, leader, learner, message, open, persisted,
};
use super::tests::{replica, requests, sent, started, step};
use super::*;
use crate::config::Snapshots;
use crate::ids::{Digest, Epoch, Position, Run};
use crate::wire::Outcome;
use crate::wire::peer::{Change, Command, Marks};
use bytes::Bytes;

fn reply(text: &'static str) -> AppReply {
    AppReply { bytes: Bytes::from_static(text.as_bytes()), form: Digest::of(text.as_bytes()) }
}

fn heartbeat(decided: u64, settled: u64, covered: u64) -> Message {
    let (decided, settled, covered) = (Slot(decided), Slot(settled), Slot(covered));
    Message::Heartbeat { ballot: ballot(1, R0), decided, settled, beyond: 0, covered, turn: Some(R1), answer: false }
}

/// Lets a follower of member 0 decide a slot.
fn decide(follower: &mut Replica, slot: u64, list: Vec<crate::wire::Request>) -> Vec<Output> {
    message(follower, slot, R0, accept(1, R0, slot, slot - 1, list));
    message(follower, slot, R0, heartbeat(slot, 0, 0))
}

/// The member's next incarnation goes to another life.
fn rejoin(member: ReplicaId) -> Command {
    let change = Change::Rejoin { member, life: LIFE, over: Life(0) };
    Command::Configure { against: Epoch(0), change }
}

fn executed(follower: &mut Replica, slot: u64, run: u64, text: &'static str) -> Vec<Output> {
    step(follower, slot, Input::Executed { run: Run(run), slot: Slot(slot), replies: vec![reply(text)] })
}

/// A follower whose snapshot is due after two requests and that keeps no tail; slots 1 (open) and 2 (a call) are executed.
fn follower() -> Replica {
    let mut config = config(R1, 3);
    config.snapshots = Some(Snapshots { every_requests: 3, every_bytes: u64::MAX });
    config.limits.log_tail_slots = 0;
    let mut follower = started(config, Recovered::default());
    decide(&mut follower, 1, vec![open()]);
    decide(&mut follower, 2, vec![call(1, "a")]);
    executed(&mut follower, 2, 1, "A");
    follower
}

fn dumped(out: &[Output]) -> Option<Box<Image>> {
    out.iter().find_map(|output| match output {
        Output::Dump { image, .. } => Some(image.clone()),
        _ => None,
    })
}

/// The same with a snapshot of slot 2, and its image.
fn with_snapshot() -> (Replica, Box<Image>) {
    let mut follower = follower();
    let out = message(&mut follower, 3, R0, heartbeat(2, 2, 0));
    let image = dumped(&out).expect("slot 2 is settled");
    step(&mut follower, 4, Input::Dumped { slot: Slot(2) });
    (follower, image)
}

#[test]
fn only_settled_slots_enter_a_snapshot_and_execution_waits_for_it() {
    let mut follower = follower();
    assert!(dumped(&message(&mut follower, 3, R0, heartbeat(2, 1, 0))).is_none(), "slot 2 may still be aborted");
    let image = dumped(&message(&mut follower, 3, R0, heartbeat(2, 2, 0))).expect("settled");
    assert_eq!((image.slot, image.work.requests), (Slot(2), 2));
    let out = decide(&mut follower, 3, vec![call(2, "b")]);
    assert!(!out.iter().any(|output| matches!(output, Output::Execute { .. })), "the application stands still");
    let out = step(&mut follower, 4, Input::Dumped { slot: Slot(2) });
    assert!(matches!(out[..], [Output::Execute { slot: Slot(3), .. }]), "{out:?}");
    assert_eq!(follower.status().snapshot, Slot(2));
}

#[test]
fn a_failed_snapshot_lets_execution_go_on() {
    let mut follower = follower();
    message(&mut follower, 3, R0, heartbeat(2, 2, 0));
    decide(&mut follower, 3, vec![call(2, "b")]);
    let out = step(&mut follower, 4, Input::DumpFailed { slot: Slot(2) });
    assert!(matches!(out[..], [Output::Execute { slot: Slot(3), .. }]), "{out:?}");
    assert_eq!(follower.status().snapshot, Slot(0));
}

#[test]
fn the_log_is_cut_behind_what_a_majority_covers() {
    let (mut follower, _) = with_snapshot();
    assert_eq!(message(&mut follower, 5, R0, heartbeat(2, 2, 1)), [Output::Cut { through: Slot(1) }]);
    assert_eq!(follower.status().log_first, Slot(2));
    step(&mut follower, 5, Input::Serving { slot: Some(Slot(1)) });
    assert_eq!(message(&mut follower, 5, R0, heartbeat(2, 2, 2)), [], "a transfer needs it");
    let fetch = Message::Fetch { from: Slot(1), to: Slot(2) };
    let cut = Message::Cut { snapshot: Slot(2) };
    assert_eq!(message(&mut follower, 6, R2, fetch), [Output::Send { to: To::One(R2), message: cut }]);
}

#[test]
fn a_restart_begins_at_the_snapshot_and_answers_from_its_sessions() {
    let (_, image) = with_snapshot();
    let recovered = Recovered { image: Some(image), decided: Slot(2), ..Recovered::default() };
    let mut again = Replica::new(config(R1, 3), 1, recovered, at(0));
    let out = step(&mut again, 0, Input::Timeout);
    assert_eq!(out, [Output::Reset { run: Run(1), snapshot: Some(Slot(2)) }]);
    step(&mut again, 0, Input::Restored { run: Run(1) });
    let out = step(&mut again, 0, requests(vec![call(1, "a")]));
    let outcome = Some(Outcome::Executed(Bytes::from_static(b"A")));
    let answer = Output::Reply { tag: call(1, "a").tag(), slot: Slot(2), form: Digest::of(b"A"), outcome };
    assert_eq!(out, [answer]);
    assert_eq!((again.status().executed, again.status().log_first), (Slot(2), Slot(3)));
}

#[test]
fn a_lost_application_begins_at_the_snapshot_and_a_lost_snapshot_at_the_whole_log() {
    let (mut follower, _) = with_snapshot();
    let reset = |run, snapshot| Output::Reset { run: Run(run), snapshot };
    assert_eq!(step(&mut follower, 5, Input::AppLost { run: Run(1) }), [reset(2, Some(Slot(2)))]);
    assert_eq!(step(&mut follower, 5, Input::SnapshotLost { slot: Slot(2) }), [reset(3, None)]);
    let out = step(&mut follower, 5, Input::Restored { run: Run(3) });
    assert!(matches!(out[..], [Output::Execute { slot: Slot(2), patient: usize::MAX, .. }]), "{out:?}");
}

#[test]
fn where_the_log_is_cut_a_lost_snapshot_is_fetched_from_a_peer() {
    let (mut follower, image) = with_snapshot();
    message(&mut follower, 5, R0, heartbeat(2, 2, 2));
    step(&mut follower, 5, Input::AppLost { run: Run(1) });
    let out = step(&mut follower, 5, Input::SnapshotLost { slot: Slot(2) });
    assert_eq!(out, [Output::Transfer { from: R2, least: Slot(2) }]);
    step(&mut follower, 6, Input::TransferFailed { from: R2 });
    let out = step(&mut follower, 1000, Input::Timeout);
    assert!(out.contains(&Output::Transfer { from: R0, least: Slot(2) }), "{out:?}");
    let out = step(&mut follower, 1001, Input::Received { image });
    assert_eq!(out, [Output::Reset { run: Run(4), snapshot: Some(Slot(2)) }]);
}

#[test]
fn a_snapshot_that_a_peer_found_damaged_is_replaced_while_the_application_runs() {
    let (mut follower, image) = with_snapshot();
    assert_eq!(follower.status().snapshot, Slot(2));
    let out = step(&mut follower, 5, Input::SnapshotLost { slot: Slot(2) });
    assert_eq!(dumped(&out), Some(image), "the same state once more");
    assert_eq!(follower.status().snapshot, Slot(0), "until it is stored there is none");
    step(&mut follower, 6, Input::Dumped { slot: Slot(2) });
    assert_eq!(follower.status().snapshot, Slot(2));
}

#[test]
fn one_who_is_behind_the_cut_goes_on_from_a_snapshot() {
    let (_, image) = with_snapshot();
    let mut behind = replica(R2, 3, Recovered::default());
    message(&mut behind, 1, R0, heartbeat(2, 2, 2));
    let out = step(&mut behind, 100, Input::Timeout);
    assert!(sent(&out).contains(&(To::One(R0), &Message::Fetch { from: Slot(1), to: Slot(2) })));
    let out = message(&mut behind, 101, R0, Message::Cut { snapshot: Slot(2) });
    assert_eq!(out, [Output::Transfer { from: R0, least: Slot(1) }]);
    let jumped = Output::Persist { lsn: Lsn(1), record: Record::Jumped { slot: Slot(2) } };
    let out = step(&mut behind, 102, Input::Received { image });
    assert_eq!(out, [jumped, Output::Reset { run: Run(2), snapshot: Some(Slot(2)) }]);
    assert_eq!(
        persisted(&mut behind, 103, 1),
        [Output::Cut { through: Slot(2) }],
        "only what the journal holds otherwise goes"
    );
    assert_eq!((behind.status().decided, behind.status().sessions), (Slot(2), 1));
}

#[test]
fn one_whose_snapshot_is_gone_votes_when_it_has_again_what_it_had_decided() {
    let (_, image) = with_snapshot();
    let entries = vec![(Slot(3), ballot(2, R2), batch(vec![]))];
    let recovered = Recovered { promised: ballot(2, R2), decided: Slot(3), entries, ..Recovered::default() };
    let mut replica = replica(R1, 3, recovered);
    let ask = Message::PreVote { round: 3, decided: Slot(3), suspects: Ballot::NONE };
    assert_eq!(sent(&message(&mut replica, 1, R0, ask.clone())), []);
    let out = step(&mut replica, 9000, Input::Timeout);
    assert!(matches!(sent(&out)[..], [(_, Message::Fetch { .. })]), "it does not stand: {out:?}");
    step(&mut replica, 9001, Input::Received { image });
    assert_eq!((replica.status().role, replica.status().decided), (Role::Follower, Slot(3)));
    let granted = Message::PreVoteGranted { round: 3 };
    assert_eq!(sent(&message(&mut replica, 9002, R0, ask)), [(To::One(R0), &granted)]);
}

/// A follower whose application has fallen silent on the call of slot 2, durably.
fn silent() -> Replica {
    let mut follower = replica(R1, 3, Recovered::default());
    decide(&mut follower, 1, vec![open()]);
    decide(&mut follower, 2, vec![call(1, "poison")]);
    let at = Position { slot: Slot(2), call: 0 };
    let out = step(&mut follower, 3, Input::AppSilent { run: Run(1), slot: Slot(2), answered: 0 });
    assert!(
        matches!(out.last(), Some(Output::Persist { lsn: Lsn(4), record: Record::Silent { at: said } }) if *said == at)
    );
    let out = persisted(&mut follower, 4, 4);
    let said = sent(&out).iter().any(|(to, message)| {
        matches!(message, Message::Following { marks: Marks { silent: Some(said), .. }, .. } if *said == at)
            && *to == To::One(R0)
    });
    assert!(said && out.contains(&Output::Reset { run: Run(2), snapshot: None }), "{out:?}");
    step(&mut follower, 5, Input::Restored { run: Run(2) });
    follower
}

#[test]
fn silence_is_said_when_it_is_durable_and_then_waits_for_the_outcome() {
    let mut follower = silent();
    let out = decide(&mut follower, 3, vec![call(2, "b")]);
    assert!(!out.iter().any(|output| matches!(output, Output::Execute { .. })), "{out:?}");
}

#[test]
fn an_ordered_abort_skips_the_call_and_tells_its_client() {
    let mut follower = silent();
    let command = Command::Abort { at: Position { slot: Slot(2), call: 0 } };
    let aborting = Batch { command: Some(command), ..(*batch(vec![call(2, "b")])).clone() };
    let (slot, decided) = (Slot(3), Slot(2));
    let proposed =
        Message::Accept { ballot: ballot(1, R0), slot, decided, configured: Slot(0), batch: Arc::new(aborting) };
    message(&mut follower, 6, R0, proposed);
    let out = message(&mut follower, 6, R0, heartbeat(3, 0, 0));
    let tag = call(1, "poison").tag();
    let told = Output::Reply { tag, slot: Slot(2), form: Outcome::Aborted.form(), outcome: Some(Outcome::Aborted) };
    assert!(out.contains(&told), "{out:?}");
    let ran: Vec<_> = out.iter().filter(|output| matches!(output, Output::Execute { .. })).collect();
    assert!(matches!(ran[..], [Output::Execute { slot: Slot(3), .. }]), "slot 2 has nothing left to run: {ran:?}");
    let again = step(&mut follower, 7, requests(vec![call(1, "poison")]));
    assert_eq!(again, [told], "asked again, the same outcome");
}

#[test]
fn what_a_majority_executed_is_run_again_without_a_limit() {
    let mut follower = silent();
    let out = message(&mut follower, 6, R0, heartbeat(2, 2, 0));
    let ran: Vec<_> = out.iter().filter(|output| matches!(output, Output::Execute { .. })).collect();
    assert!(matches!(ran[..], [Output::Execute { slot: Slot(2), patient: usize::MAX, .. }]), "{out:?}");
    let cleared = Record::Silent { at: Position::default() };
    assert!(out.iter().any(|output| matches!(output, Output::Persist { record, .. } if *record == cleared)));
}

#[test]
fn what_may_have_been_answered_before_a_restart_is_not_called_silent() {
    let recovered = Recovered {
        entries: vec![
            (Slot(1), ballot(1, R0), batch(vec![open()])),
            (Slot(2), ballot(1, R0), batch(vec![call(1, "poison")])),
        ],
        decided: Slot(2),
        promised: ballot(1, R0),
        answered: Slot(2),
        ..Recovered::default()
    };
    let mut follower = replica(R1, 3, recovered);
    let out = step(&mut follower, 3, Input::AppSilent { run: Run(1), slot: Slot(2), answered: 0 });
    assert_eq!(out, [Output::Reset { run: Run(2), snapshot: None }]);
}

#[test]
fn the_leader_orders_an_abort_when_a_majority_is_silent() {
    let mut leader = leader();
    step(&mut leader, 1101, requests(vec![open()]));
    persisted(&mut leader, 1101, 2);
    let voted = |slot, marks| Message::Accepted { ballot: ballot(1, R0), slots: vec![Slot(slot)], marks };
    message(&mut leader, 1101, R1, voted(1, Marks::default()));
    step(&mut leader, 1102, requests(vec![call(1, "poison")]));
    persisted(&mut leader, 1102, 4);
    message(&mut leader, 1102, R1, voted(2, Marks::default()));
    let at = Position { slot: Slot(2), call: 0 };
    let marks = Marks { decided: Slot(2), executed: Slot(1), silent: Some(at), ..Marks::default() };
    let proposes = |out: &[Output]| {
        let abort = Some(Command::Abort { at });
        sent(out).iter().any(|(_, message)| matches!(message, Message::Accept { batch, .. } if batch.command == abort))
    };
    let said = Message::Following { ballot: ballot(1, R0), marks };
    assert!(!proposes(&message(&mut leader, 1103, R1, said.clone())), "one is no majority");
    assert!(!proposes(&message(&mut leader, 1103, R1, said.clone())), "and does not count twice");
    assert!(proposes(&message(&mut leader, 1103, R2, said)));
}

#[test]
fn a_new_life_asks_for_its_vote_and_gets_it_by_order() {
    let mut learner = learner();
    let asked = Message::Heartbeat {
        ballot: ballot(1, R0),
        decided: Slot(0),
        settled: Slot(0),
        beyond: 0,
        covered: Slot(0),
        turn: None,
        answer: true,
    };
    let out = message(&mut learner, 1, R0, asked);
    assert!(sent(&out).contains(&(To::One(R0), &Message::Rejoin { over: Life(0) })), "{out:?}");
    let granted = Batch { command: Some(rejoin(R1)), ..Batch::default() };
    let (slot, decided) = (Slot(1), Slot(0));
    let proposed =
        Message::Accept { ballot: ballot(1, R0), slot, decided, configured: Slot(0), batch: Arc::new(granted) };
    message(&mut learner, 2, R0, proposed);
    let out = persisted(&mut learner, 2, 1);
    assert_eq!(sent(&out), [], "the grant itself is not its to vote for");
    let out = message(&mut learner, 3, R0, heartbeat(1, 0, 0));
    let incarnation = crate::ids::Incarnation(2);
    assert!(out.contains(&Output::Event(Event::Rejoined { member: R1, incarnation, own: true })), "{out:?}");
    assert_eq!(learner.status().role, Role::Follower);
}

#[test]
fn a_leader_grants_one_life_at_a_time_and_then_prepares_anew() {
    let mut leader = leader();
    let asked = Input::Message { from: R2, life: LIFE, message: Message::Rejoin { over: Life(0) } };
    let out = step(&mut leader, 1101, asked);
    let rejoin = rejoin(R2);
    assert!(matches!(sent(&out)[..], [(To::Others, Message::Accept { batch, .. })] if batch.command == Some(rejoin)));
    assert_eq!(sent(&step(&mut leader, 1101, requests(vec![open()]))), [], "nothing goes above it until it is decided");
    persisted(&mut leader, 1102, 2);
    let vote = Message::Accepted { ballot: ballot(1, R0), slots: vec![Slot(1)], marks: Marks::default() };
    let forgotten = Input::Message { from: R2, life: LIFE, message: vote.clone() };
    assert_eq!(step(&mut leader, 1102, forgotten), [], "the new life has no vote yet");
    let out = message(&mut leader, 1103, R1, vote);
    assert!(
        sent(&out).contains(&(To::Others, &Message::Prepare { ballot: ballot(2, R0), decided: Slot(1) })),
        "{out:?}"
    );
}

#[test]
fn a_life_that_lost_its_incarnation_to_another_stops() {
    let mut old = replica(R1, 3, Recovered::default());
    let granted = Batch { command: Some(rejoin(R1)), ..Batch::default() };
    let (slot, decided) = (Slot(1), Slot(0));
    let proposed =
        Message::Accept { ballot: ballot(1, R0), slot, decided, configured: Slot(0), batch: Arc::new(granted) };
    message(&mut old, 2, R0, proposed);
    let out = message(&mut old, 3, R0, heartbeat(1, 0, 0));
    assert!(out.contains(&Output::Event(Event::Superseded)), "{out:?}");
    assert_eq!(old.status().role, Role::Learner);
}

#[test]
fn one_who_differs_from_the_majority_is_rebuilt_and_answers_nobody_until_it_agrees() {
    let mut follower = replica(R1, 3, Recovered::default());
    decide(&mut follower, 1, vec![open()]);
    decide(&mut follower, 2, vec![call(1, "a")]);
    executed(&mut follower, 2, 1, "wrong");
    let right = Digest::default().chain(&Digest::of(b"A").0);
    let agreed = Batch { agreed: Some((Slot(2), right)), ..Batch::default() };
    let (slot, decided) = (Slot(3), Slot(2));
    let proposed =
        Message::Accept { ballot: ballot(1, R0), slot, decided, configured: Slot(0), batch: Arc::new(agreed) };
    message(&mut follower, 4, R0, proposed);
    let out = message(&mut follower, 4, R0, heartbeat(3, 2, 0));
    let own = Digest::default().chain(&Digest::of(b"wrong").0);
    let event = Event::Diverged { slot: Slot(2), agreed: Slot(0), own, majority: right, rebuild: true };
    assert!(out.contains(&Output::Event(event)), "{out:?}");
    assert!(out.contains(&Output::Reset { run: Run(2), snapshot: None }), "{out:?}");
    assert!(follower.status().quarantined);
    assert_eq!(step(&mut follower, 5, requests(vec![call(1, "a")])), [], "nobody is answered");
    step(&mut follower, 5, Input::Restored { run: Run(2) });
    let out = executed(&mut follower, 2, 2, "A");
    assert!(out.contains(&Output::Event(Event::Rebuilt { slot: Slot(2) })), "{out:?}");
    assert!(!follower.status().quarantined);
}

#[test]
fn a_living_application_is_taken_over_where_the_marker_proves_what_it_did() {
    let entries = vec![
        (Slot(1), ballot(1, R0), batch(vec![open()])),
        (Slot(2), ballot(1, R0), batch(vec![call(1, "a")])),
        (Slot(3), ballot(1, R0), batch(vec![call(2, "b")])),
    ];
    let resumed = Some(Resumed { executed: Slot(2), replies: vec![(Slot(2), vec![reply("A")])] });
    let recovered = Recovered { entries, decided: Slot(3), promised: ballot(1, R0), resumed, ..Recovered::default() };
    let mut again = Replica::new(config(R1, 3), 1, recovered.clone(), at(0));
    assert_eq!(step(&mut again, 0, Input::Timeout), [Output::Resume { run: Run(1) }]);
    let out = step(&mut again, 0, Input::Restored { run: Run(1) });
    assert!(matches!(out[..], [Output::Execute { slot: Slot(3), .. }]), "{out:?}");
    let out = step(&mut again, 0, requests(vec![call(1, "a")]));
    assert!(matches!(&out[..], [Output::Reply { outcome: Some(Outcome::Executed(bytes)), .. }] if bytes == "A"));
    // A marker of another log proves nothing.
    let resumed = Some(Resumed { executed: Slot(2), replies: vec![] });
    let mut again = Replica::new(config(R1, 3), 1, Recovered { resumed, ..recovered }, at(0));
    assert_eq!(step(&mut again, 0, Input::Timeout), [Output::Reset { run: Run(1), snapshot: None }]);
}

#[test]
fn a_full_log_refuses_calls_by_order() {
    let mut leader = leader();
    leader.config.limits.log_bytes = 1;
    let out = step(&mut leader, 1101, requests(vec![open()]));
    assert!(out.iter().any(|output| matches!(output, Output::Event(Event::LogGrows { .. }))), "{out:?}");
    persisted(&mut leader, 1101, 2);
    let voted = |slot| Message::Accepted { ballot: ballot(1, R0), slots: vec![Slot(slot)], marks: Marks::default() };
    message(&mut leader, 1101, R1, voted(1));
    leader.config.limits.log_bytes = leader.status().log_bytes;
    step(&mut leader, 1102, requests(vec![call(1, "a")]));
    persisted(&mut leader, 1102, 4);
    let out = message(&mut leader, 1102, R1, voted(2));
    let refused = Outcome::Refused(crate::wire::Refusal::LogFull);
    let told = Output::Reply { tag: call(1, "a").tag(), slot: Slot(2), form: refused.form(), outcome: Some(refused) };
    assert!(out.contains(&told), "{out:?}");
}

#[test]
fn one_member_at_a_time_takes_a_snapshot_and_a_long_pause_waits_for_everybody() {
    let turn = |out: &[Output]| {
        let turns = sent(out).into_iter().filter_map(|(_, message)| match message {
            Message::Heartbeat { turn, answer: true, .. } => Some(*turn),
            _ => None,
        });
        turns.last().unwrap_or_else(|| panic!("no heartbeat in {out:?}"))
    };
    let says = |leader: &mut Replica, millis, who, turn| {
        let marks = Marks { turn, ..Marks::default() };
        message(leader, millis, who, Message::Following { ballot: ballot(1, R0), marks });
    };
    let mut leader = leader();
    says(&mut leader, 1190, R1, Some(5));
    says(&mut leader, 1190, R2, Some(5));
    assert_eq!(turn(&step(&mut leader, 1200, Input::Timeout)), Some(R1));
    says(&mut leader, 1290, R2, Some(5));
    assert_eq!(turn(&step(&mut leader, 1300, Input::Timeout)), Some(R1), "it has not said that it is done");
    says(&mut leader, 1390, R1, None);
    says(&mut leader, 1390, R2, Some(60_000));
    assert_eq!(turn(&step(&mut leader, 1400, Input::Timeout)), Some(R2), "the two others go on");
    says(&mut leader, 1490, R2, None);
    assert_eq!(turn(&step(&mut leader, 1500, Input::Timeout)), None);
    // Member 1 is not heard of any more: without member 2 too there would be too few.
    for millis in [1590, 1690, 1790, 1890] {
        says(&mut leader, millis, R2, None);
        step(&mut leader, millis + 10, Input::Timeout);
    }
    says(&mut leader, 1990, R2, Some(60_000));
    assert_eq!(turn(&step(&mut leader, 2000, Input::Timeout)), None);
    says(&mut leader, 2090, R2, Some(5));
    assert_eq!(turn(&step(&mut leader, 2100, Input::Timeout)), Some(R2), "nobody notices a short one");
}
