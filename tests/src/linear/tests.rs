//! Histories that no single copy gives, each beside a near one that it does; and the definition, by brute force.

use super::brute::{apply, linearizable};
use super::{Call, Fault, Op, Outcome, check, read, write};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// "PUT a 1", answered or not: `put(0..1, …)` is called at 0 and returns at 1.
fn call(line: &str, called: u64, outcome: Outcome) -> Call {
    let words: Vec<&str> = line.split(' ').collect();
    let key = || words[1].to_owned();
    let op = match words[0] {
        "PUT" => Op::Put { key: key(), value: words[2].to_owned() },
        "GET" => Op::Get { key: key() },
        "REMOVE" => Op::Remove { key: key() },
        "SIZE" => Op::Size,
        other => panic!("{other}"),
    };
    Call { client: 0, called, op, outcome }
}

fn done(line: &str, time: std::ops::Range<u64>, reply: &str) -> Call {
    call(line, time.start, Outcome::Reply { returned: time.end, reply: reply.to_owned() })
}

fn unknown(line: &str, called: u64) -> Call {
    call(line, called, Outcome::Unknown { ended: called + 1 })
}

fn accepts(calls: &[Call]) {
    assert!(linearizable(calls), "this history is no good example");
    check(calls).unwrap();
}

fn rejects(calls: &[Call]) {
    assert!(!linearizable(calls), "this history is no good example");
    let fault = check(calls).expect_err("no single copy answers so");
    assert!(matches!(fault, Fault::Impossible(_)), "{fault}");
}

#[test]
fn a_stale_read() {
    rejects(&[done("PUT a 1", 0..1, "OK"), done("PUT a 2", 2..3, "OK"), done("GET a", 4..5, "VALUE 1")]);
    accepts(&[done("PUT a 1", 0..1, "OK"), done("PUT a 2", 2..5, "OK"), done("GET a", 4..6, "VALUE 1")]);
    accepts(&[done("PUT a 1", 0..1, "OK"), done("PUT a 2", 2..5, "OK"), done("GET a", 4..6, "VALUE 2")]);
}

#[test]
fn an_acknowledged_write_that_is_lost() {
    rejects(&[done("PUT a 1", 0..1, "OK"), done("GET a", 2..3, "NIL")]);
    accepts(&[done("PUT a 1", 0..2, "OK"), done("GET a", 1..3, "NIL")]);
    accepts(&[unknown("PUT a 1", 0), done("GET a", 2..3, "NIL")]);
}

#[test]
fn an_acknowledged_write_that_is_lost_behind_an_earlier_one() {
    let lost = |outcome| [done("PUT a 1", 0..1, "OK"), call("PUT a 2", 2, outcome), done("GET a", 4..5, "VALUE 1")];
    rejects(&lost(Outcome::Reply { returned: 3, reply: "OK".to_owned() }));
    accepts(&lost(Outcome::Unknown { ended: 3 }));
}

#[test]
fn an_acknowledged_remove_that_is_lost() {
    rejects(&[done("PUT a 1", 0..1, "OK"), done("REMOVE a", 2..3, "OK"), done("GET a", 4..5, "VALUE 1")]);
    accepts(&[done("PUT a 1", 0..1, "OK"), unknown("REMOVE a", 2), done("GET a", 4..5, "VALUE 1")]);
}

#[test]
fn a_write_that_is_applied_twice() {
    let head = [done("PUT a 1", 0..1, "OK"), done("REMOVE a", 2..3, "OK")];
    rejects(&[&head[..], &[done("GET a", 4..5, "VALUE 1")]].concat());
    accepts(&[&head[..], &[done("PUT a 2", 3..6, "OK"), done("GET a", 4..5, "VALUE 2")]].concat());
    let late = [done("REMOVE a", 0..1, "NIL"), done("GET a", 4..5, "VALUE 1")];
    accepts(&[&[unknown("PUT a 1", 0)], &late[..]].concat());
}

#[test]
fn a_remove_that_is_applied_twice() {
    let head = [done("PUT a 1", 0..1, "OK"), done("REMOVE a", 2..3, "OK"), done("PUT a 2", 4..5, "OK")];
    rejects(&[&head[..], &[done("GET a", 6..7, "NIL")]].concat());
    accepts(&[&head[..], &[unknown("REMOVE a", 2), done("GET a", 6..7, "NIL")]].concat());
    // One unknown REMOVE explains one disappearance.
    let again = [done("GET a", 6..7, "NIL"), done("PUT a 3", 8..9, "OK"), done("GET a", 10..11, "NIL")];
    rejects(&[&head[..], &[unknown("REMOVE a", 2)], &again[..]].concat());
    accepts(&[&head[..], &[unknown("REMOVE a", 2), unknown("REMOVE a", 7)], &again[..]].concat());
}

#[test]
fn an_unknown_write_that_is_applied_twice() {
    let removes = [done("REMOVE a", 2..3, "OK"), done("REMOVE a", 4..5, "OK")];
    rejects(&[&[unknown("PUT a 1", 0)], &removes[..]].concat());
    accepts(&[&[unknown("PUT a 1", 0), unknown("PUT a 2", 0)], &removes[..]].concat());
}

#[test]
fn an_unknown_remove_beside_one_that_is_still_open() {
    let head = [done("PUT a 1", 0..1, "OK"), done("REMOVE a", 2..20, "OK"), done("GET a", 3..4, "NIL")];
    let tail = [done("PUT a 2", 5..6, "OK"), done("GET a", 7..8, "NIL")];
    rejects(&[&head[..], &tail[..]].concat());
    accepts(&[&head[..], &[unknown("REMOVE a", 2)], &tail[..]].concat());
}

#[test]
fn what_either_an_unknown_write_or_an_unknown_remove_explains_leaves_the_other() {
    let either = [
        unknown("PUT a 1", 0),
        done("PUT a 2", 2..11, "OK"),
        done("REMOVE a", 6..15, "OK"),
        done("REMOVE a", 8..15, "OK"),
        done("REMOVE a", 8..11, "NIL"),
        done("PUT a 3", 12..15, "OK"),
        unknown("REMOVE a", 14),
    ];
    accepts(&[&either[..], &[done("REMOVE a", 22..31, "OK")]].concat());
    rejects(&[&either[..], &[done("REMOVE a", 22..31, "OK"), done("REMOVE a", 32..33, "OK")]].concat());
}

#[test]
fn a_read_that_goes_back_in_time() {
    let put = [done("PUT a 1", 0..1, "OK"), done("PUT a 2", 2..9, "OK")];
    rejects(&[&put[..], &[done("GET a", 3..4, "VALUE 2"), done("GET a", 5..6, "VALUE 1")]].concat());
    accepts(&[&put[..], &[done("GET a", 3..4, "VALUE 1"), done("GET a", 5..6, "VALUE 2")]].concat());
    accepts(&[&put[..], &[done("GET a", 3..6, "VALUE 2"), done("GET a", 4..5, "VALUE 1")]].concat());
}

#[test]
fn two_readers_who_disagree_about_the_order_of_two_writes() {
    let puts = [done("PUT a 1", 0..9, "OK"), done("PUT a 2", 0..9, "OK")];
    let reads = [done("GET a", 1..2, "VALUE 1"), done("GET a", 3..4, "VALUE 2"), done("GET a", 5..6, "VALUE 1")];
    rejects(&[&puts[..], &reads[..]].concat());
    accepts(&[&puts[..], &reads[..2]].concat());
    accepts(&[&puts[..], &reads[1..]].concat());
}

#[test]
fn the_reply_of_another_request() {
    rejects(&[done("PUT a 1", 0..1, "VALUE 1")]);
    rejects(&[done("GET a", 0..1, "OK")]);
    rejects(&[done("PUT a 1", 0..1, "NIL")]);
    rejects(&[done("SIZE", 0..1, "NIL")]);
    rejects(&[done("GET a", 0..1, "ERR no")]);
    // The replies of two concurrent reads, exchanged.
    let puts = [done("PUT a 1", 0..1, "OK"), done("PUT b 2", 0..1, "OK")];
    rejects(&[&puts[..], &[done("GET a", 2..3, "VALUE 2"), done("GET b", 2..3, "VALUE 1")]].concat());
    accepts(&[&puts[..], &[done("GET a", 2..3, "VALUE 1"), done("GET b", 2..3, "VALUE 2")]].concat());
}

#[test]
fn a_value_that_nobody_wrote() {
    rejects(&[done("GET a", 0..1, "VALUE 1")]);
    rejects(&[done("GET a", 0..1, "VALUE 1"), done("PUT a 1", 2..3, "OK")]);
    rejects(&[done("GET a", 0..1, "VALUE 1"), unknown("PUT a 1", 2)]);
    accepts(&[done("GET a", 0..3, "VALUE 1"), unknown("PUT a 1", 2)]);
}

#[test]
fn a_refused_write_that_is_read() {
    let read = done("GET a", 2..3, "VALUE 1");
    rejects(&[call("PUT a 1", 0, Outcome::Refused), read.clone()]);
    accepts(&[unknown("PUT a 1", 0), read]);
    accepts(&[call("PUT a 1", 0, Outcome::Refused), done("GET a", 2..3, "NIL")]);
}

#[test]
fn an_unknown_write_that_is_seen_then_gone_then_seen_again() {
    let put = [done("PUT a 1", 0..1, "OK"), unknown("PUT a 2", 2)];
    let seen = |time| done("GET a", time, "VALUE 2");
    rejects(&[&put[..], &[seen(4..5), done("GET a", 6..7, "VALUE 1")]].concat());
    rejects(&[&put[..], &[seen(4..5), done("REMOVE a", 6..7, "OK"), seen(8..9)]].concat());
    accepts(&[&put[..], &[done("GET a", 4..5, "VALUE 1"), seen(6..7), seen(8..9)]].concat());
    accepts(&[&put[..], &[done("REMOVE a", 4..5, "OK"), done("GET a", 6..7, "NIL"), seen(8..9)]].concat());
}

#[test]
fn a_remove_that_says_what_was_not_so() {
    rejects(&[done("REMOVE a", 0..1, "OK")]);
    rejects(&[done("PUT a 1", 0..1, "OK"), done("REMOVE a", 2..3, "NIL")]);
    accepts(&[done("PUT a 1", 0..3, "OK"), done("REMOVE a", 2..4, "NIL")]);
    // Two concurrent REMOVEs of one entry: one found it.
    let two =
        |first, second| [done("PUT a 1", 0..1, "OK"), done("REMOVE a", 2..5, first), done("REMOVE a", 3..4, second)];
    rejects(&two("OK", "OK"));
    rejects(&two("NIL", "NIL"));
    accepts(&two("OK", "NIL"));
    accepts(&two("NIL", "OK"));
    // … unless somebody's unknown PUT came between.
    accepts(&[&two("OK", "OK")[..], &[unknown("PUT a 2", 0)]].concat());
}

#[test]
fn a_size_that_was_never_so() {
    let puts = [done("PUT a 1", 0..1, "OK"), done("PUT b 2", 2..5, "OK")];
    for (time, size, right) in [
        (6..7, "2", true),
        (6..7, "1", false),
        (3..4, "1", true),
        (3..4, "2", true),
        (3..4, "0", false),
        (0..1, "2", false),
        (0..1, "0", true),
        (3..6, "1", true),
    ] {
        let history = [&puts[..], &[done("SIZE", time.clone(), size)]].concat();
        if right { accepts(&history) } else { rejects(&history) }
    }
    // It was 1 before and 1 after, and at no time 2.
    let moved = [&puts[..1], &[done("REMOVE a", 2..3, "OK"), done("PUT b 2", 4..5, "OK")]].concat();
    rejects(&[&moved[..], &[done("SIZE", 2..6, "2")]].concat());
    accepts(&[&moved[..], &[done("SIZE", 2..6, "0")]].concat());
    // The read may have come first, although it returned last.
    let read = [done("PUT a 1", 0..1, "OK"), done("REMOVE a", 2..9, "OK"), done("GET a", 3..9, "VALUE 1")];
    accepts(&[&read[..], &[done("SIZE", 4..5, "0")]].concat());
    rejects(
        &[&read[..1], &[done("REMOVE a", 2..9, "OK"), done("GET a", 6..9, "VALUE 1"), done("SIZE", 4..5, "0")]]
            .concat(),
    );
    // The unknown may have run.
    accepts(&[unknown("PUT a 1", 0), done("SIZE", 2..3, "1")]);
    accepts(&[unknown("PUT a 1", 0), done("SIZE", 2..3, "0")]);
    rejects(&[unknown("PUT a 1", 0), done("SIZE", 2..3, "2")]);
    rejects(&[unknown("PUT a 1", 0), unknown("GET a", 0), done("SIZE", 2..3, "2")]);
}

#[test]
fn what_is_said_of_size_and_not_caught() {
    // Each is possible alone.
    let history = [unknown("PUT a 1", 0), done("SIZE", 1..2, "1"), done("SIZE", 3..4, "0")];
    assert!(!linearizable(&history));
    check(&history).unwrap();
}

#[test]
fn what_is_no_history_is_not_judged() {
    let twice = [done("PUT a 1", 0..1, "OK"), done("PUT a 1", 2..3, "OK")];
    assert!(matches!(check(&twice), Err(Fault::Malformed(_))));
    let backwards = [call("GET a", 5, Outcome::Reply { returned: 4, reply: "NIL".to_owned() })];
    assert!(matches!(check(&backwards), Err(Fault::Malformed(_))));
    check(&[]).unwrap();
}

#[test]
fn calls_at_the_same_time_are_in_no_order() {
    accepts(&[done("PUT a 1", 0..1, "OK"), done("GET a", 1..2, "NIL")]);
    rejects(&[done("PUT a 1", 0..1, "OK"), done("GET a", 2..3, "NIL")]);
}

/// Many unknown calls, read or not, before, between and after.
#[test]
fn a_hundred_unknown_calls_do_not_explode() {
    let mut history = Vec::new();
    for n in 0..100 {
        history.push(unknown(&format!("PUT a u{n}"), n * 10));
        history.push(unknown("REMOVE a", n * 10 + 1));
        history.push(done(&format!("PUT a {n}"), n * 10 + 2..n * 10 + 4, "OK"));
        let found = if n % 3 == 0 { format!("VALUE u{}", n / 2) } else { "NIL".to_owned() };
        history.push(done("GET a", n * 10 + 5..n * 10 + 7, &found));
    }
    let checked = check(&history).unwrap();
    assert!(checked.states < 1000, "{checked:?}");
    history.push(done("GET a", 2000..2001, "VALUE u0"));
    assert!(matches!(check(&history), Err(Fault::Impossible(_))));
}

/// More than there are places for open calls: one whose value was read is open no more.
#[test]
fn unknown_writes_that_were_read_do_not_stay_open() {
    let write_and_read =
        |n: u64| [unknown(&format!("PUT a {n}"), n * 10), done("GET a", n * 10 + 2..n * 10 + 4, &format!("VALUE {n}"))];
    let history: Vec<Call> = (0..300).flat_map(write_and_read).collect();
    check(&history).unwrap();
}

#[test]
fn a_search_that_would_not_end_is_not_a_pass() {
    // Thirty PUTs at once, all of whose values are read at the end, in no way that helps.
    let mut history: Vec<Call> = (0..30).map(|n| done(&format!("PUT a {n}"), 0..100 + n, "OK")).collect();
    history.extend((0..30).map(|n| done("GET a", 0..200, &format!("VALUE {n}"))));
    assert!(matches!(check(&history), Err(Fault::Undecided(_))), "{:?}", check(&history));
}

#[test]
fn a_history_survives_its_file() {
    let history = vec![
        done("PUT a 1", 0..1, "OK"),
        unknown("REMOVE a", 7),
        done("SIZE", 3..9, "0"),
        call("GET a", 5, Outcome::Refused),
    ];
    let mut file = Vec::new();
    write(&history, &mut file).unwrap();
    assert_eq!(read(&file[..]).unwrap(), history);
    assert!(read(&b"{}\n"[..]).is_err());
}

/// One drawn call: which operation, key and outcome, its times, and when it takes effect.
type Draw = (u8, u8, u8, u64, u64, u64);

/// What drawn histories look like.
#[derive(Clone, Copy)]
struct Shape {
    keys: &'static [&'static str],
    sizes: bool,
    /// One call in so many has an unknown outcome.
    unknown: u8,
}

const USUAL: Shape = Shape { keys: &["a", "b"], sizes: false, unknown: 6 };
const SIZES: Shape = Shape { sizes: true, ..USUAL };
const UNKNOWN: Shape = Shape { keys: &["a"], sizes: false, unknown: 3 };

/// A history that one copy gave, and then one reply of it changed.
fn history(draws: &[Draw], spoil: Option<(usize, u8)>, shape: Shape) -> Vec<Call> {
    let mut effects: Vec<(u64, usize)> = Vec::new();
    let mut calls: Vec<Call> = Vec::new();
    for (number, (kind, key, outcome, called, length, point)) in draws.iter().copied().enumerate() {
        let key = shape.keys[usize::from(key) % shape.keys.len()];
        let line = match kind % if shape.sizes { 4 } else { 3 } {
            0 => format!("PUT {key} {number}"),
            1 => format!("GET {key}"),
            2 => format!("REMOVE {key}"),
            _ => "SIZE".to_owned(),
        };
        // Real intervals are [2c, 2r + 1]: no two events of different kinds at one time.
        let (from, to) = (2 * called, 2 * (called + length) + 1);
        match outcome % shape.unknown {
            0 => {
                calls.push(call(&line, from, Outcome::Unknown { ended: to }));
                if point % 3 > 0 {
                    effects.push((from + point * 3, number));
                }
            }
            1 if length == 0 => calls.push(call(&line, from, Outcome::Refused)),
            _ => {
                calls.push(call(&line, from, Outcome::Reply { returned: to, reply: String::new() }));
                effects.push((from + point % (to - from), number));
            }
        }
    }
    effects.sort_unstable();
    let mut map = BTreeMap::new();
    for (_, number) in effects {
        let answer = apply(&mut map, &calls[number].op);
        if let Outcome::Reply { reply, .. } = &mut calls[number].outcome {
            *reply = answer;
        }
    }
    if let Some((which, how)) = spoil {
        let count = calls.len();
        let call = &mut calls[which % count];
        if let Outcome::Reply { reply, .. } = &mut call.outcome {
            *reply = match call.op {
                Op::Get { .. } if how % 3 == 0 => "NIL".to_owned(),
                Op::Get { .. } => format!("VALUE {}", usize::from(how) % count),
                Op::Remove { .. } => ["OK", "NIL"][usize::from(how % 2)].to_owned(),
                Op::Put { .. } => "OK".to_owned(),
                Op::Size => (how % 3).to_string(),
            };
        }
    }
    calls
}

fn draws() -> impl Strategy<Value = Vec<Draw>> {
    prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>(), 0_u64..12, 0_u64..5, 0_u64..12), 1..10)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn without_size_it_is_the_definition(draws in draws(), spoil in prop::option::of((any::<usize>(), any::<u8>()))) {
        let history = history(&draws, spoil, USUAL);
        prop_assert_eq!(linearizable(&history), check(&history).is_ok(), "{:#?}", history);
    }

    #[test]
    fn with_many_unknown_calls_it_is_the_definition(draws in draws(), spoil in prop::option::of((any::<usize>(), any::<u8>()))) {
        let history = history(&draws, spoil, UNKNOWN);
        prop_assert_eq!(linearizable(&history), check(&history).is_ok(), "{:#?}", history);
    }

    #[test]
    fn with_size_whatever_one_copy_can_answer_passes(draws in draws(), spoil in prop::option::of((any::<usize>(), any::<u8>()))) {
        let history = history(&draws, spoil, SIZES);
        if linearizable(&history) {
            prop_assert_eq!(check(&history).err(), None, "{:#?}", history);
        }
    }
}

/// The drawn histories are of both kinds, or the tests above would say little.
#[test]
fn drawn_histories_pass_and_fail() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut right, mut wrong) = (0, 0);
    let strategy = (draws(), any::<usize>(), any::<u8>());
    for _ in 0..1000 {
        let (draws, which, how) = strategy.new_tree(&mut runner).unwrap().current();
        assert!(linearizable(&history(&draws, None, SIZES)), "one copy gave it");
        if linearizable(&history(&draws, Some((which, how)), USUAL)) { right += 1 } else { wrong += 1 }
    }
    assert!(right > 100 && wrong > 100, "{right} right, {wrong} wrong");
}
