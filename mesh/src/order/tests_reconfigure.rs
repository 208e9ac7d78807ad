//! Changes of the members, each driven by hand.

use super::tests::{R0, R1, R2, accept, at, ballot, batch, call, config, leader, message, open, prepare};
use super::tests::{replica, requests, sent, started, step};
use super::*;
use crate::config::{ClusterConfig, Member};
use crate::ids::{Epoch, Incarnation, Life, Run};
use crate::wire::peer::{Change, Command, Marks};

const R3: ReplicaId = ReplicaId(3);
const NEW: Life = Life(5);

fn change(against: u64, change: Change) -> Arc<Batch> {
    let command = Some(Command::Configure { against: Epoch(against), change });
    Arc::new(Batch { command, ..Batch::default() })
}

fn add() -> Change {
    Change::Add { member: R3, life: NEW, application: true }
}

fn promote() -> Change {
    Change::Promote { member: R3, life: NEW }
}

/// A configuration of three with room for a fourth.
fn roomy(id: ReplicaId, n: u32) -> Config {
    let mut config = config(id, n);
    config.configuration.cluster.target_members = 4;
    config
}

fn heartbeat(round: u64, from: ReplicaId, decided: u64) -> Message {
    let (ballot, decided) = (ballot(round, from), Slot(decided));
    Message::Heartbeat { ballot, decided, settled: Slot(0), beyond: 0, covered: Slot(0), turn: None, answer: false }
}

/// A leader that says this is accepted and decided.
fn decided(follower: &mut Replica, millis: u64, slot: u64, value: Arc<Batch>) -> Vec<Output> {
    let (ballot, configured) = (ballot(1, R0), follower.configuration().configured);
    let before = Slot(slot - 1);
    let proposed = Message::Accept { ballot, slot: Slot(slot), decided: before, configured, batch: value };
    message(follower, millis, R0, proposed);
    message(follower, millis, R0, heartbeat(1, R0, slot))
}

fn vote(slot: u64, round: u64) -> Message {
    Message::Accepted { ballot: ballot(round, R0), slots: vec![Slot(slot)], marks: Marks::default() }
}

fn lead(config: Config) -> Replica {
    let mut leader = started(config, Recovered::default());
    let alone = leader.configuration().cluster.voter_count() == 1;
    step(&mut leader, 1100, Input::Timeout);
    if !alone {
        message(&mut leader, 1100, R1, Message::PreVoteGranted { round: 1 });
    }
    sync(&mut leader, 1100);
    if !alone {
        let (decided, first_kept, settled) = (Slot(0), Slot(1), Slot(0));
        let promise = Message::Promise { ballot: ballot(1, R0), decided, first_kept, settled, accepted: Vec::new() };
        message(&mut leader, 1100, R1, promise);
    }
    assert!(leader.status().ready);
    leader
}

fn proposed(out: &[Output]) -> Vec<(Slot, Option<Command>)> {
    let accept = |(_, message): (To, &Message)| match message {
        Message::Accept { slot, batch, .. } => Some((*slot, batch.command)),
        _ => None,
    };
    sent(out).into_iter().filter_map(accept).collect()
}

fn answer(out: &[Output]) -> Option<Result<(), ChangeRefused>> {
    out.iter().find_map(|output| match output {
        Output::Changed { token: 7, result } => Some(*result),
        _ => None,
    })
}

/// The disk has everything.
fn sync(replica: &mut Replica, millis: u64) -> Vec<Output> {
    let lsn = Lsn(replica.next_lsn.0 - 1);
    step(replica, millis, Input::Persisted { lsn })
}

/// A follower says that it has everything.
fn following(leader: &mut Replica, millis: u64, from: ReplicaId) -> Vec<Output> {
    message(leader, millis, from, Message::Following { ballot: ballot(1, R0), marks: Marks::default() })
}

/// A leader of three that has heard of one follower.
fn heard(from: ReplicaId) -> Replica {
    let mut leader = leader();
    following(&mut leader, 1101, from);
    leader
}

fn ask(leader: &mut Replica, millis: u64, change: Change) -> Vec<Output> {
    step(leader, millis, Input::Change { token: 7, change })
}

#[test]
fn a_member_is_added_as_a_learner_and_votes_when_it_has_caught_up() {
    let mut leader = lead(roomy(R0, 3));
    let join = Input::Message { from: R3, life: NEW, message: Message::Join { application: true } };
    let out = step(&mut leader, 1101, join.clone());
    assert_eq!(proposed(&out), [(Slot(1), Some(Command::Configure { against: Epoch(0), change: add() }))]);
    assert_eq!(proposed(&step(&mut leader, 1101, join)), [], "one at a time");
    sync(&mut leader, 1102);
    let out = message(&mut leader, 1102, R1, vote(1, 1));
    let learner = Member { id: R3, incarnation: Incarnation(1), life: NEW, votes: false, application: true };
    assert_eq!(leader.status().members[3], learner);
    assert!(
        sent(&out).iter().any(|(_, message)| matches!(message, Message::Prepare { .. })),
        "it prepares anew: {out:?}"
    );
    // Three vote still.
    sync(&mut leader, 1103);
    let promise = |millis, leader: &mut Replica, from: ReplicaId, life| {
        let (decided, first_kept, settled) = (Slot(1), Slot(1), Slot(0));
        let message = Message::Promise { ballot: ballot(2, R0), decided, first_kept, settled, accepted: Vec::new() };
        step(leader, millis, Input::Message { from, life, message });
    };
    promise(1103, &mut leader, R3, NEW);
    assert!(!leader.status().ready, "a learner's promise is none");
    promise(1103, &mut leader, R1, Life(0));
    assert!(leader.status().ready);
    let marks = Marks { decided: Slot(1), executed: Slot(1), ..Marks::default() };
    let following = Message::Following { ballot: ballot(2, R0), marks };
    step(&mut leader, 1200, Input::Message { from: R3, life: Life(4), message: following.clone() });
    assert_eq!(proposed(&step(&mut leader, 1203, Input::Timeout)), [], "another life is not the one that was added");
    message(&mut leader, 1210, R1, following.clone());
    step(&mut leader, 1210, Input::Message { from: R3, life: NEW, message: following });
    let out = step(&mut leader, 1303, Input::Timeout);
    assert_eq!(proposed(&out), [(Slot(2), Some(Command::Configure { against: Epoch(1), change: promote() }))]);
}

#[test]
fn a_change_that_was_proposed_against_another_configuration_does_nothing() {
    let mut follower = started(roomy(R1, 3), Recovered::default());
    decided(&mut follower, 1, 1, change(0, add()));
    assert_eq!((follower.status().epoch, follower.status().members.len()), (Epoch(1), 4));
    decided(&mut follower, 2, 2, change(0, Change::Remove { member: R2 }));
    assert_eq!((follower.status().epoch, follower.status().members.len()), (Epoch(1), 4));
    assert_eq!(follower.configuration().configured, Slot(2), "whoever ordered it prepares anew all the same");
}

#[test]
fn a_learner_neither_votes_nor_promises_until_it_is_promoted() {
    let mut joined = config(R3, 3);
    assert!(joined.configuration.cluster.apply(&Change::SetTarget { members: 4 }));
    assert!(joined.configuration.cluster.apply(&add()));
    (joined.configuration.epoch, joined.configuration.configured, joined.life) = (Epoch(1), Slot(1), NEW);
    let mut learner = started(joined, Recovered::default());
    let value = change(0, add());
    let proposal = |slot: u64, configured: u64, batch: Arc<Batch>| Message::Accept {
        ballot: ballot(1, R0),
        slot: Slot(slot),
        decided: Slot(slot - 1),
        configured: Slot(configured),
        batch,
    };
    message(&mut learner, 1, R0, proposal(1, 0, value));
    assert_eq!(sent(&sync(&mut learner, 1)), []);
    assert_eq!(message(&mut learner, 2, R2, prepare(ballot(2, R2))), []);
    message(&mut learner, 3, R0, heartbeat(1, R0, 1));
    assert_eq!(learner.status().members.len(), 4, "what is in the configuration that it began with is not done twice");
    assert_eq!((learner.status().role, learner.status().epoch), (Role::Learner, Epoch(1)));
    message(&mut learner, 4, R0, proposal(2, 1, change(1, promote())));
    let out = sync(&mut learner, 4);
    assert_eq!(sent(&out), [], "its own promotion is not its to vote for");
    message(&mut learner, 5, R0, heartbeat(1, R0, 2));
    assert_eq!(learner.status().role, Role::Follower);
    message(&mut learner, 6, R0, proposal(3, 2, batch(vec![])));
    assert!(matches!(sent(&sync(&mut learner, 6)).last(), Some((To::One(R0), Message::Accepted { .. }))));
}

#[test]
fn a_removal_is_done_when_those_who_are_left_have_decided_beyond_it() {
    let mut leader = lead(config(R0, 3));
    following(&mut leader, 1101, R1);
    let out = ask(&mut leader, 1101, Change::Remove { member: R2 });
    assert_eq!((proposed(&out).len(), answer(&out)), (1, None));
    assert_eq!(answer(&ask(&mut leader, 1101, Change::Remove { member: R1 })), Some(Err(ChangeRefused::InFlight)));
    sync(&mut leader, 1102);
    let out = message(&mut leader, 1102, R1, vote(1, 1));
    assert_eq!((answer(&out), leader.status().members.len()), (None, 2));
    let told = sent(&out);
    assert!(told.iter().any(|(to, m)| *to == To::Others && matches!(m, Message::Heartbeat { decided: Slot(1), .. })));
    sync(&mut leader, 1103);
    let (decided, first_kept, settled) = (Slot(1), Slot(1), Slot(0));
    let promise = Message::Promise { ballot: ballot(2, R0), decided, first_kept, settled, accepted: Vec::new() };
    let out = message(&mut leader, 1103, R1, promise);
    assert_eq!(proposed(&out), [(Slot(2), None)], "although there is nothing to order");
    sync(&mut leader, 1104);
    assert_eq!(answer(&message(&mut leader, 1104, R1, vote(2, 2))), Some(Ok(())));
}

#[test]
fn a_leader_that_is_removed_lets_another_one_take_over_and_tells_who_asks() {
    let mut leader = lead(config(R0, 3));
    for who in [R1, R2] {
        following(&mut leader, 1101, who);
    }
    ask(&mut leader, 1101, Change::Remove { member: R0 });
    sync(&mut leader, 1102);
    let out = message(&mut leader, 1102, R1, vote(1, 1));
    assert!(sent(&out).iter().any(|(_, message)| matches!(message, Message::TakeOver { .. })), "{out:?}");
    assert_eq!((leader.status().role, answer(&out)), (Role::Removed, None));
    let ask = Message::PreVote { round: 2, decided: Slot(0), suspects: Ballot::NONE };
    let behind = Message::Behind { decided: Slot(1) };
    assert_eq!(sent(&message(&mut leader, 1103, R1, ask)), [(To::One(R1), &behind)]);
    assert_eq!(sent(&message(&mut leader, 1103, R1, prepare(ballot(2, R1)))), [(To::One(R1), &behind)]);
    let fetched = message(&mut leader, 1103, R1, Message::Fetch { from: Slot(1), to: Slot(1) });
    assert!(matches!(sent(&fetched)[..], [(To::One(R1), Message::Fetched { .. })]), "{fetched:?}");
    let out = step(&mut leader, 1200, Input::Timeout);
    assert!(matches!(sent(&out)[..], [(To::One(_), Message::Fetch { from: Slot(2), .. })]), "it looks: {out:?}");
    let entries = vec![(ballot(2, R1), batch(vec![]))];
    let out = message(&mut leader, 1201, R1, Message::Fetched { from: Slot(2), entries, decided: Slot(2) });
    assert_eq!(answer(&out), Some(Ok(())));
    assert_eq!(sent(&step(&mut leader, 9000, Input::Timeout)), [], "it stands in no election");
}

#[test]
fn one_who_lacks_the_change_learns_it_from_whoever_was_removed_by_it() {
    let mut follower = replica(R1, 4, Recovered::default());
    message(
        &mut follower,
        1,
        R0,
        Message::Accept {
            ballot: ballot(1, R0),
            slot: Slot(1),
            decided: Slot(0),
            configured: Slot(0),
            batch: change(0, Change::Remove { member: R0 }),
        },
    );
    message(&mut follower, 2, R0, Message::Behind { decided: Slot(1) });
    let out = step(&mut follower, 60, Input::Timeout);
    assert!(sent(&out).contains(&(To::One(R0), &Message::Fetch { from: Slot(1), to: Slot(1) })), "{out:?}");
    let entries = vec![(ballot(1, R0), change(0, Change::Remove { member: R0 }))];
    message(&mut follower, 61, R0, Message::Fetched { from: Slot(1), entries, decided: Slot(1) });
    assert_eq!(follower.status().members.len(), 3);
    let out = message(&mut follower, 62, R0, prepare(ballot(9, R0)));
    assert_eq!(sent(&out), [(To::One(R0), &Message::Behind { decided: Slot(1) })], "it has no say any more");
}

#[test]
fn a_leader_learns_what_one_has_decided_that_it_takes_for_a_voter() {
    let marks = Marks { decided: Slot(1), ..Marks::default() };
    for message_of_it in [
        Message::Following { ballot: ballot(1, R0), marks },
        Message::Accepted { ballot: ballot(1, R0), slots: Vec::new(), marks },
    ] {
        let mut leader = heard(R1);
        message(&mut leader, 1102, R2, message_of_it);
        let out = step(&mut leader, 1200, Input::Timeout);
        assert!(sent(&out).contains(&(To::One(R2), &Message::Fetch { from: Slot(1), to: Slot(1) })), "{out:?}");
    }
}

#[test]
fn changes_that_would_break_the_quorum_or_do_not_fit_are_refused_with_a_reason() {
    let refused = |leader: &mut Replica, millis, change| {
        let out = ask(leader, millis, change);
        assert_eq!(proposed(&out), []);
        answer(&out).expect("an answer").expect_err("a refusal")
    };
    let mut leader = leader();
    // Member 2 was heard of last when this leader began.
    for millis in [1200, 1400, 1600] {
        step(&mut leader, millis, Input::Timeout);
        following(&mut leader, millis, R1);
    }
    let alive = |change, leader: &mut Replica| refused(leader, 1650, change);
    assert_eq!(alive(Change::Remove { member: R1 }, &mut leader), ChangeRefused::NoQuorum { alive: 1, needed: 2 });
    assert_eq!(alive(Change::Remove { member: R3 }, &mut leader), ChangeRefused::UnknownMember);
    assert_eq!(alive(add(), &mut leader), ChangeRefused::NotAdmitted { target: 3 });
    assert_eq!(alive(Change::SetTarget { members: 3 }, &mut leader), ChangeRefused::NothingToChange);
    assert_eq!(alive(promote(), &mut leader), ChangeRefused::UnknownMember);
    let again = Change::Add { member: R1, life: NEW, application: true };
    assert_eq!(alive(again, &mut leader), ChangeRefused::AlreadyMember);
    let rejoin = Change::Rejoin { member: R2, life: NEW, over: Life(0) };
    assert_eq!(alive(rejoin, &mut leader), ChangeRefused::NotForOperators);
    let mut alone = lead(config(R0, 1));
    assert_eq!(refused(&mut alone, 1101, Change::Remove { member: R0 }), ChangeRefused::LastApplication);
    let mut follower = replica(R1, 3, Recovered::default());
    message(&mut follower, 1, R0, accept(1, R0, 1, 0, vec![open()]));
    let leader = Some(R0);
    assert_eq!(refused(&mut follower, 1, Change::Remove { member: R2 }), ChangeRefused::NotLeader { leader });
    // The one that is not heard of can go.
    assert_eq!(proposed(&ask(&mut heard(R1), 1101, Change::Remove { member: R2 })).len(), 1);
}

#[test]
fn an_operator_hears_that_leadership_was_lost_with_the_change() {
    let mut leader = heard(R1);
    ask(&mut leader, 1101, Change::Remove { member: R2 });
    let out = decided_elsewhere(&mut leader, batch(vec![]));
    assert_eq!(answer(&out), Some(Err(ChangeRefused::Lost)));
    let mut leader = heard(R1);
    ask(&mut leader, 1101, Change::Remove { member: R2 });
    let out = decided_elsewhere(&mut leader, change(0, Change::Remove { member: R2 }));
    assert_eq!(answer(&out), None, "it is not confirmed");
}

#[test]
fn an_operator_does_not_wait_for_ever_for_what_the_next_leader_may_not_have() {
    let mut leader = heard(R1);
    ask(&mut leader, 1101, Change::SetTarget { members: 5 });
    let out = message(&mut leader, 1102, R1, heartbeat(2, R1, 0));
    assert_eq!((answer(&out), leader.status().changing), (None, true), "it may still be decided");
    let out = message(&mut leader, 3200, R1, heartbeat(2, R1, 0));
    assert_eq!(answer(&out), Some(Err(ChangeRefused::Unknown)));
    assert!(!leader.status().changing, "nobody proposes it");
}

/// Another leader decides slot 1.
fn decided_elsewhere(leader: &mut Replica, value: Arc<Batch>) -> Vec<Output> {
    let proposal =
        Message::Accept { ballot: ballot(2, R1), slot: Slot(1), decided: Slot(0), configured: Slot(0), batch: value };
    message(leader, 1102, R1, proposal);
    message(leader, 1102, R1, heartbeat(2, R1, 1))
}

#[test]
fn leadership_is_handed_to_the_member_that_an_operator_names() {
    let mut leader = heard(R2);
    let transfer = |leader: &mut Replica, to| step(leader, 1101, Input::TransferLeader { token: 7, to });
    assert_eq!(answer(&transfer(&mut leader, R3)), Some(Err(ChangeRefused::UnknownMember)));
    assert_eq!(answer(&transfer(&mut leader, R0)), Some(Ok(())));
    let out = transfer(&mut leader, R2);
    assert_eq!(sent(&out), [(To::One(R2), &Message::TakeOver { ballot: ballot(1, R0) })]);
    message(&mut leader, 1102, R2, prepare(ballot(2, R2)));
    assert_eq!(answer(&message(&mut leader, 1103, R2, accept(2, R2, 1, 0, vec![]))), Some(Ok(())));
    let mut leader = super::tests::leader();
    transfer(&mut leader, R2);
    for millis in (1200..2400).step_by(100) {
        let out = [following(&mut leader, millis, R1), step(&mut leader, millis, Input::Timeout)].concat();
        if let Some(result) = answer(&out) {
            return assert_eq!(result, Err(ChangeRefused::NotCaughtUp));
        }
    }
    panic!("it is not heard of, and nobody says so");
}

#[test]
fn an_id_that_comes_back_has_a_higher_incarnation_and_the_old_one_is_refused() {
    let mut cluster = ClusterConfig::of(3, "line", Durability::Sync);
    assert!(cluster.apply(&Change::Remove { member: R2 }));
    assert!(cluster.apply(&Change::Add { member: R2, life: NEW, application: true }));
    assert_eq!(cluster.member(R2).map(|member| member.incarnation), Some(Incarnation(2)));
    cluster.validate().unwrap();
    let mut follower = replica(R1, 3, Recovered::default());
    decided(&mut follower, 1, 1, change(0, Change::Remove { member: R2 }));
    decided(&mut follower, 2, 2, change(1, Change::Add { member: R2, life: NEW, application: true }));
    decided(&mut follower, 3, 3, change(2, Change::Promote { member: R2, life: NEW }));
    assert_eq!(
        sent(&message(&mut follower, 4, R2, prepare(ballot(9, R2)))),
        [(To::One(R2), &Message::Behind { decided: Slot(3) })]
    );
    let renewed = Ballot { incarnation: Incarnation(2), ..ballot(9, R2) };
    let out = message(&mut follower, 5, R2, prepare(renewed));
    assert!(matches!(out[..], [Output::Persist { record: Record::Promised { .. }, .. }]), "{out:?}");
}

#[test]
fn an_older_snapshot_does_not_take_a_newer_configuration_away() {
    let mut joined = config(R3, 3);
    assert!(joined.configuration.cluster.apply(&Change::SetTarget { members: 4 }));
    let before = joined.configuration.cluster.clone();
    assert!(joined.configuration.cluster.apply(&add()));
    (joined.configuration.epoch, joined.configuration.configured, joined.life) = (Epoch(2), Slot(9), NEW);
    let mut learner = started(joined, Recovered::default());
    let image = Image { slot: Slot(5), epoch: Epoch(1), configured: Slot(4), ..Image::genesis(before) };
    step(&mut learner, 1, Input::Received { image: Box::new(image) });
    let status = learner.status();
    assert_eq!((status.decided, status.epoch, status.members.len()), (Slot(5), Epoch(2), 4));
    assert_eq!(status.role, Role::Learner);
}

#[test]
fn one_that_joined_votes_as_soon_as_a_snapshot_brings_it_behind_its_own_promotion() {
    let mut config = roomy(R3, 3);
    config.life = NEW;
    let first = &mut config.configuration;
    assert!(first.cluster.apply(&add()) && first.cluster.apply(&promote()));
    (first.epoch, first.configured, first.elected) = (Epoch(2), Slot(5), Slot(5));
    let image = Image { slot: Slot(6), configured: Slot(5), epoch: Epoch(2), ..Image::genesis(first.cluster.clone()) };
    let mut joiner = started(config, Recovered::default());
    assert_eq!(joiner.status().role, Role::Learner);
    step(&mut joiner, 1, Input::Received { image: Box::new(image) });
    assert_eq!(joiner.status().role, Role::Follower);
}

#[test]
fn a_witness_votes_executes_nothing_and_answers_nobody() {
    let mut config = config(R2, 3);
    config.configuration.cluster.members[2].application = false;
    config.snapshots = Some(crate::config::Snapshots { every_requests: 2, every_bytes: u64::MAX });
    config.limits.log_tail_slots = 0;
    let mut witness = Replica::new(config, 1, Recovered::default(), at(0));
    assert_eq!(step(&mut witness, 0, Input::Timeout), [], "there is no application to bring up");
    message(&mut witness, 1, R0, accept(1, R0, 1, 0, vec![open()]));
    assert!(matches!(sent(&sync(&mut witness, 1))[..], [(To::Others, Message::Accepted { .. })]));
    message(&mut witness, 2, R0, accept(1, R0, 2, 1, vec![call(1, "a")]));
    let out = message(&mut witness, 2, R0, heartbeat(1, R0, 2));
    assert!(!out.iter().any(|output| matches!(output, Output::Execute { .. } | Output::Reply { .. })), "{out:?}");
    let status = witness.status();
    assert_eq!((status.role, status.decided, status.executed), (Role::Witness, Slot(2), Slot(2)));
    assert_eq!(step(&mut witness, 3, requests(vec![call(1, "a")])), [], "it has no reply to give");
    let settled = Message::Heartbeat {
        ballot: ballot(1, R0),
        decided: Slot(2),
        settled: Slot(2),
        beyond: 0,
        covered: Slot(2),
        turn: None,
        answer: false,
    };
    let dumped = |out: Vec<Output>| {
        out.into_iter().find_map(|output| match output {
            Output::Dump { run: Run(1), image } => Some(image),
            _ => None,
        })
    };
    assert_eq!(dumped(message(&mut witness, 4, R0, settled)), None, "the journal does not have yet what it stands for");
    let image = dumped(sync(&mut witness, 4)).expect("it can cut its log, too");
    assert!(image.hollow);
    assert_eq!(step(&mut witness, 5, Input::Dumped { slot: Slot(2) }), [Output::Cut { through: Slot(2) }]);
    // No application begins with it.
    let mut other = replica(R1, 3, Recovered::default());
    step(&mut other, 1, Input::Received { image });
    assert_eq!(other.status().decided, Slot(0));
}

#[test]
fn a_witness_that_leads_yields_to_an_application() {
    let mut config = config(R0, 3);
    config.configuration.cluster.members[0].application = false;
    let mut witness = Replica::new(config, 1, Recovered::default(), at(0));
    step(&mut witness, 1100, Input::Timeout);
    message(&mut witness, 1100, R1, Message::PreVoteGranted { round: 1 });
    sync(&mut witness, 1100);
    let (decided, first_kept, settled) = (Slot(0), Slot(1), Slot(0));
    let promise = Message::Promise { ballot: ballot(1, R0), decided, first_kept, settled, accepted: Vec::new() };
    message(&mut witness, 1100, R1, promise);
    assert!(witness.status().ready);
    following(&mut witness, 1150, R1);
    let take_over = Message::TakeOver { ballot: ballot(1, R0) };
    let out = step(&mut witness, 1200, Input::Timeout);
    assert!(sent(&out).contains(&(To::One(R1), &take_over)), "{out:?}");
}

#[test]
fn with_two_applications_one_settles_and_no_abort_is_ordered() {
    let mut leader = lead(config(R0, 2));
    step(&mut leader, 1101, requests(vec![open()]));
    sync(&mut leader, 1101);
    message(&mut leader, 1101, R1, vote(1, 1));
    step(&mut leader, 1102, requests(vec![call(1, "poison")]));
    sync(&mut leader, 1102);
    message(&mut leader, 1102, R1, vote(2, 1));
    assert_eq!(leader.status().settled, Slot(1), "one of two is enough");
    let at = crate::ids::Position { slot: Slot(2), call: 0 };
    step(&mut leader, 1103, Input::AppSilent { run: Run(1), slot: Slot(2), answered: 0 });
    sync(&mut leader, 1103);
    let marks = Marks { decided: Slot(2), executed: Slot(1), silent: Some(at), ..Marks::default() };
    let out = message(&mut leader, 1104, R1, Message::Following { ballot: ballot(1, R0), marks });
    assert_eq!(proposed(&out), []);
    let out = step(&mut leader, 1105, Input::Abort { at });
    assert_eq!(proposed(&out), [(Slot(3), Some(Command::Abort { at }))], "it is an operator's");
}
