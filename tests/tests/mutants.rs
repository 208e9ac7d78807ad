//! Deliberate errors in the core, each of which the simulator must catch, by the check that is there for it. They are
//! compiled in by a flag only, in a build of its own: `tests/mutants` runs this test.
//!
//! One test, because the chosen error is the whole process's.
#![cfg(lockstep_mutants)]

use lockstep_tests::check::Violation;
use lockstep_tests::sim;
use mesh::order::Mutant;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds within which each must be caught: what shows only where several rare things meet takes thousands.
const SEEDS: u64 = 6_000;
/// Seeds in which nothing may be caught without an error. The simulator's own runs have more.
const CLEAN: u64 = 1_500;

/// The checks that are there for each error; whichever sees it first.
fn expected(mutant: Mutant) -> &'static [&'static str] {
    match mutant {
        Mutant::MinorityCommit => &["quorum", "agreement", "durability"],
        Mutant::VoteForgotten => &["promises", "agreement"],
        Mutant::SessionCheckSkipped => &["exactly-once", "execution"],
        // It also votes in any ballot for what it takes for the chosen value, without a record of that one.
        Mutant::DecidedAnyBallot => &["execution", "agreement", "quorum", "promises"],
        Mutant::NoopOverCut => &["quorum", "agreement", "execution"],
        Mutant::EqualBallots => &["ballots", "agreement"],
        Mutant::AcknowledgeBeforeSync => &["promises", "quorum", "durability"],
        Mutant::SkipTailCheck => &["promises", "quorum", "agreement", "durability", "execution"],
        Mutant::SessionsForgotten => &["divergence", "exactly-once", "execution", "convergence"],
        Mutant::VoteAfterAmnesia => &["membership", "quorum"],
        Mutant::AbortByOne => &["abort", "lineage", "execution", "linearizable"],
        Mutant::CutUncovered => &["cut"],
        Mutant::ForgedTaken => &["forged", "exactly-once", "linearizable"],
        Mutant::OldQuorum => &["quorum"],
        Mutant::LearnerCounted => &["membership", "quorum"],
        Mutant::TwoChanges => &["membership", "quorum"],
        // A leader that was deposed and does not know it answers from what it had.
        Mutant::ReadUnconfirmed => &["linearizable"],
        // What the leader before it acknowledged is proposed anew and not decided yet.
        Mutant::ReadDecidedIndex => &["linearizable"],
        // An execution is shown that an abort takes back.
        Mutant::ReadUnsettled => &["linearizable"],
        Mutant::OthersVoteAlone => &["quorum"],
    }
}

/// Which check catches an error first, in which seed, and what it saw; "assertion" is the core's own.
fn first_catch(seeds: u64) -> Option<(u64, Violation)> {
    (0..seeds).find_map(|seed| match catch_unwind(AssertUnwindSafe(|| sim::run(seed, false))) {
        Ok(Ok(_)) => None,
        Ok(Err(failure)) => Some((seed, failure.violation)),
        Err(_) => Some((seed, Violation { check: "assertion", what: String::new() })),
    })
}

#[test]
fn every_mutant_is_caught() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut escaped = Vec::new();
    for (mutant, name) in Mutant::ALL {
        mesh::order::mutant::choose(Some(mutant));
        match first_catch(SEEDS) {
            Some((seed, Violation { check, .. })) if expected(mutant).contains(&check) => {
                println!("{name}: caught by {check} in seed {seed}");
            }
            Some((seed, Violation { check, what })) => {
                escaped.push(format!("{name}, but by {check} in seed {seed}: {what}"));
            }
            None => escaped.push(name.to_owned()),
        }
    }
    mesh::order::mutant::choose(None);
    // Panics are silent here.
    println!("escaped: {escaped:?}");
    let caught = first_catch(CLEAN);
    assert!(caught.is_none(), "without an error nothing may be caught: {caught:?}");
    assert!(escaped.is_empty(), "not caught within {SEEDS} seeds: {escaped:?}");
}
