//! The simulator in small: a thousand seeds, the same ones every time. To hunt with more:
//! `cargo run --release -p lockstep-tests --bin sim -- --seeds 100000 --jobs 2`.

use lockstep_tests::check::enough::Counters;
use lockstep_tests::sim;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const SEEDS: u64 = 1000;

/// Runs `work` for every number below `end`, two at a time.
fn each(end: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    work(seed);
                }
            });
        }
    });
}

#[test]
fn every_seed_passes_and_together_they_see_every_fault() {
    let (failures, totals) = (Mutex::new(Vec::new()), Mutex::new(Counters::default()));
    each(SEEDS, |seed| match sim::run(seed, false) {
        Ok(report) => totals.lock().unwrap().add(&report.counters),
        Err(failure) => failures.lock().unwrap().push(failure),
    });
    for failure in failures.lock().unwrap().iter() {
        println!("{failure}");
        println!("  replay: cargo run --release -p lockstep-tests --bin sim -- --seed {} --trace", failure.seed);
    }
    assert!(failures.lock().unwrap().is_empty(), "see above");
    let totals = *totals.lock().unwrap();
    println!("{totals}");
    let seen = [
        totals.replies / 20,
        totals.refused,
        totals.unknown,
        totals.elections,
        totals.drops,
        totals.doubles,
        totals.crashes,
        totals.lost_records,
        totals.amnesia,
        totals.smart_crashes,
        totals.sender_crashes,
        totals.partitions,
        totals.link_cuts,
        totals.forgeries,
        totals.pauses,
        totals.app_losses,
        totals.late_answers,
        totals.drains,
        totals.stalls,
        totals.ends,
        totals.resends,
        totals.session_gone,
        totals.native_crashes,
        totals.native_doubts,
        totals.native_settled,
        totals.native_cancelled,
        totals.native_replies / 20,
        totals.suspicions,
        totals.snapshots,
        totals.failed_snapshots,
        totals.rotten_snapshots,
        totals.lost_snapshots,
        totals.loads,
        totals.transfers,
        totals.failed_transfers,
        totals.cuts,
        totals.rejoins,
        totals.silences,
        totals.aborts,
        totals.divergences,
        totals.rebuilds,
        totals.differing,
        totals.resumes,
        totals.damages,
        totals.torn,
        totals.lost_disks,
        totals.changes,
        totals.changes_refused,
        totals.removals,
        totals.handovers,
        totals.joiners,
        totals.learners,
        totals.joiner_crashes,
        totals.full_disks,
        totals.failed_syncs,
    ];
    assert!(seen.iter().all(|count| *count > SEEDS / 100), "too little happened: {totals}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    each(20, |seed| assert_eq!(sim::run(seed, false), sim::run(seed, false)));
    assert_ne!(sim::run(1, false).map(|report| report.trace), sim::run(2, false).map(|report| report.trace));
}
