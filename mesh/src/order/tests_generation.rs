//! Another generation: what is kept, what is void, and who is a member (rule 14).

use super::tests::{LIFE, R0, R1, R2, at, ballot, batch, call, config, open, requests, step};
use super::*;
use crate::config::ClusterConfig;
use crate::ids::{Generation, Run};
use crate::wire::Outcome;
use crate::wire::submit::Steer;

const NEXT: Generation = Generation::FIRST.next(7);

fn accepted(slot: u64, list: Vec<crate::wire::Request>) -> Record {
    Record::Accepted { slot: Slot(slot), ballot: ballot(3, R0), batch: batch(list) }
}

/// A journal of member 2: slots 1 and 2 decided, slot 3 accepted, and one beyond a gap.
fn journal() -> Vec<Record> {
    vec![
        accepted(1, vec![open()]),
        accepted(2, vec![call(1, "a")]),
        Record::Decided { slot: Slot(2) },
        accepted(3, vec![call(2, "b")]),
        accepted(5, vec![call(3, "c")]),
        Record::Silent { at: Position { slot: Slot(3), call: 0 } },
    ]
}

/// Member 2 alone, in a new life, behind what it kept.
fn restarted() -> Replica {
    let mut records = journal();
    let begun = alone().begin(&config(R2, 3).configuration, Slot(3), ballot(3, R0)).expect("it is a member");
    records.extend(begun.records);
    let config = Config { life: LIFE, configuration: begun.configuration, ..config(R2, 3) };
    Replica::new(config, 1, Recovered::from_records(records), at(0))
}

fn alone() -> Restart {
    Restart { generation: NEXT, members: vec![(R2, LIFE)] }
}

fn ids(status: &Status) -> Vec<ReplicaId> {
    status.members.iter().map(|member| member.id).collect()
}

/// The same, leading and with a running application.
fn leading() -> (Replica, Vec<Output>) {
    let mut replica = restarted();
    step(&mut replica, 0, Input::Timeout);
    let mut out = step(&mut replica, 1, Input::Restored { run: Run(1) });
    for millis in 2..20 {
        out.extend(step(&mut replica, millis * 200, Input::Timeout));
        let durable = replica.next_lsn.0 - 1;
        out.extend(step(&mut replica, millis * 200, Input::Persisted { lsn: Lsn(durable) }));
    }
    assert!(replica.status().ready, "nobody else is needed");
    (replica, out)
}

#[test]
fn what_was_accepted_without_a_gap_is_kept() {
    let kept = Recovered::from_records(journal()).kept();
    assert_eq!(kept, Some(Kept { base: Slot(0), decided: Slot(2), through: Slot(3), last: Slot(5) }));
    assert_eq!(Recovered::default().kept().map(|kept| kept.through), Some(Slot(0)), "nothing was ever ordered");
}

#[test]
fn a_log_whose_beginning_is_gone_is_worth_nothing_without_a_snapshot_that_reaches_it() {
    let cut = || Recovered::from_records(journal().split_off(1));
    assert_eq!(cut().kept(), None);
    let image =
        |slot| Some(Box::new(Image { slot: Slot(slot), ..Image::genesis(ClusterConfig::of(3, "", Durability::Sync)) }));
    let with = |slot| Recovered { image: image(slot), ..cut() }.kept();
    assert_eq!(with(1), Some(Kept { base: Slot(1), decided: Slot(2), through: Slot(3), last: Slot(5) }));
    assert_eq!(with(9), Some(Kept { base: Slot(9), decided: Slot(9), through: Slot(9), last: Slot(9) }));
    let mut holed = journal();
    holed.remove(1);
    let kept = Recovered::from_records(holed).kept();
    assert_eq!(kept, Some(Kept { base: Slot(0), decided: Slot(2), through: Slot(1), last: Slot(5) }), "slot 2 is lost");
}

#[test]
fn the_survivor_is_the_only_member_and_what_it_did_not_keep_is_gone() {
    let status = restarted().status();
    assert_eq!((status.generation, ids(&status)), (NEXT, vec![R2]));
    assert_eq!((status.role, status.incarnation.0, status.epoch.0), (Role::Follower, 2, 1));
    assert_eq!(status.target_members, 3, "the others may join anew");
    assert_eq!((status.decided, status.log_last), (Slot(4), Slot(4)), "slot 5 would come back otherwise");
    assert_eq!((status.sessions, status.silent), (0, None));
}

#[test]
fn a_life_that_was_over_goes_on_in_a_new_generation() {
    let mut records = journal();
    records.push(Record::Superseded);
    assert!(Recovered::from_records(records.clone()).superseded);
    let begun = alone().begin(&config(R2, 3).configuration, Slot(3), ballot(3, R0)).expect("it is a member");
    records.extend(begun.records);
    assert!(!Recovered::from_records(records).superseded);
}

#[test]
fn what_was_kept_is_executed_with_its_sessions_and_these_then_are_void() {
    let (mut replica, out) = leading();
    let executes = |slot| {
        let of = |output: &Output| matches!(output, Output::Execute { slot: of, operations, .. } if *of == Slot(slot) && operations.iter().any(|operation| matches!(operation, Operation::Call { .. })));
        out.iter().any(of)
    };
    assert!(executes(2) && executes(3), "decided or not, it was accepted: {out:?}");
    let ends = |output: &Output| matches!(output, Output::Execute { slot: Slot(4), operations, .. } if matches!(operations[..], [Operation::End { .. }]));
    assert!(out.iter().any(ends), "connections of void sessions are closed: {out:?}");
    let old = call(3, "x");
    let told = step(&mut replica, 5000, requests(vec![old.clone()]));
    assert_eq!(told, [Output::Steer { tag: old.tag(), steer: Steer::NoSession }]);
}

#[test]
fn a_session_is_named_by_the_generation_that_opened_it() {
    let (mut replica, _) = leading();
    step(&mut replica, 5000, requests(vec![open()]));
    let durable = replica.next_lsn.0 - 1;
    let out = step(&mut replica, 5001, Input::Persisted { lsn: Lsn(durable) });
    let opened = |output: &Output| match output {
        Output::Reply { outcome: Some(Outcome::Opened { opened, .. }), .. } => Some(*opened),
        _ => None,
    };
    let opened: Vec<_> = out.iter().filter_map(opened).collect();
    assert!(matches!(opened[..], [opened] if opened.generation == NEXT && opened.slot > Slot(4)), "{out:?}");
}

#[test]
fn all_members_of_a_restored_cluster_vote_and_others_do_not() {
    let restart = Restart { generation: NEXT, members: vec![(R0, Life(8)), (R1, Life(9))] };
    let before = config(R0, 3).configuration;
    let begun = restart.begin(&before, Slot(7), Ballot::NONE).expect("they are admitted");
    let begin = |id, life| {
        let image = Image { slot: Slot(7), ..Image::genesis(before.cluster.clone()) };
        let mut records = vec![Record::Jumped { slot: Slot(7) }];
        records.extend(begun.records.clone());
        let recovered = Recovered { image: Some(Box::new(image)), ..Recovered::from_records(records) };
        let config = Config { life, configuration: begun.configuration.clone(), ..config(id, 3) };
        Replica::new(config, 1, recovered, at(0))
    };
    for (id, life) in [(R0, Life(8)), (R1, Life(9))] {
        let replica = begin(id, life);
        let status = replica.status();
        assert_eq!((status.role, ids(&status), status.decided), (Role::Follower, vec![R0, R1], Slot(10)));
        assert_eq!((replica.configuration(), status.generation), (&begun.configuration, NEXT));
    }
    assert_eq!(begin(R1, Life(8)).status().role, Role::Learner, "another life of it");
    let stranger = Restart { generation: NEXT, members: vec![(R0, Life(8)), (ReplicaId(3), Life(9))] };
    assert_eq!(stranger.begin(&before, Slot(7), Ballot::NONE), None, "its id is not below the target");
}

#[test]
fn whoever_replays_the_log_from_below_comes_to_what_was_begun() {
    let before = config(R0, 3).configuration;
    let begun = alone().begin(&before, Slot(3), ballot(3, R0)).expect("it is a member");
    let mut records = journal();
    records.extend(begun.records);
    // One that knows the configuration before, as if it had been there.
    let replica = Replica::new(config(R2, 3), 1, Recovered::from_records(records), at(0));
    assert_eq!(replica.configuration(), &begun.configuration);
    assert_eq!(replica.configuration().cluster.retired.iter().map(|retired| retired.id).collect::<Vec<_>>(), [R0, R1]);
}
