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
    let restart = Restart { generation: NEXT, members: vec![(R2, LIFE)] };
    records.extend(restart.records(Slot(3), ballot(3, R0)));
    Replica::new(Config { life: LIFE, ..config(R2, 3) }, 1, Recovered::from_records(records), at(0))
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
    assert_eq!((status.generation, status.members), (NEXT, vec![R2]));
    assert_eq!((status.role, status.incarnation.0, status.epoch.0), (Role::Follower, 2, 1));
    assert_eq!((status.decided, status.log_last), (Slot(4), Slot(4)), "slot 5 would come back otherwise");
    assert_eq!((status.sessions, status.silent), (0, None));
}

#[test]
fn a_life_that_was_over_goes_on_in_a_new_generation() {
    let mut records = journal();
    records.push(Record::Superseded);
    assert!(Recovered::from_records(records.clone()).superseded);
    records.extend(Restart { generation: NEXT, members: vec![(R2, LIFE)] }.records(Slot(3), ballot(3, R0)));
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
    let begin = |id, life| {
        let image = Image { slot: Slot(7), ..Image::genesis(ClusterConfig::of(3, "line/shared", Durability::Sync)) };
        let mut records = vec![Record::Jumped { slot: Slot(7) }];
        records.extend(restart.records(Slot(7), Ballot::NONE));
        let recovered = Recovered { image: Some(Box::new(image)), ..Recovered::from_records(records) };
        Replica::new(Config { life, ..config(id, 3) }, 1, recovered, at(0)).status()
    };
    for (id, life) in [(R0, Life(8)), (R1, Life(9))] {
        let status = begin(id, life);
        assert_eq!((status.role, &status.members[..], status.decided), (Role::Follower, &[R0, R1][..], Slot(8)));
    }
    assert_eq!(begin(R1, Life(8)).role, Role::Learner, "another life of it");
    let members = restart.members_after(&ClusterConfig::of(3, "", Durability::Sync).members);
    assert_eq!(members.iter().map(|member| member.incarnation.0).collect::<Vec<_>>(), [2, 2]);
}
