//! Every fuzz target for a moment, always with the same inputs: what the program `fuzz` does for longer. A property that
//! does not hold panics; what must not be allocated is counted.

use lockstep_tests::fuzz::engine::{self, Until};
use lockstep_tests::fuzz::{Bound, Meter, Seen, Target, remove_scratch, targets};
use peak_alloc::PeakAlloc;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const METER: Meter = Meter {
    reset: || {
        ALLOCATOR.reset_peak_usage();
        ALLOCATOR.current_usage()
    },
    peak: || ALLOCATOR.peak_usage(),
};

/// Of each target. They end by number, and not by time, so that they are the same on every machine.
const INPUTS: Until = Until { inputs: 1500, time: Duration::from_secs(120) };

fn broken(bytes: &[u8], _: &mut Seen) {
    let room = Vec::<u8>::with_capacity(usize::from(bytes.first().copied().unwrap_or_default()) << 16);
    std::hint::black_box(room);
}

/// One test, since what others allocate meanwhile would be counted too.
#[test]
fn every_target_holds_for_a_moment_and_a_greedy_one_is_found() {
    for target in targets::all() {
        let run = engine::fuzz(&target, 1, INPUTS, METER, &mut ());
        let greedy = run.greedy.as_ref().map(|(input, bytes)| (input.escape_ascii().to_string(), bytes));
        assert_eq!(greedy, None, "{}: allocates more than it may", target.name);
        assert!(run.inputs >= INPUTS.inputs && run.reached > 1, "{}: {run:?}", target.name);
    }
    let bound = Bound { per_byte: 64, base: 1 << 20 };
    let seeds = || vec![vec![0, 1, 2]];
    let greedy = Target { name: "greedy", about: "", seeds, words: &[], longest: 8, bound, run: broken };
    assert!(engine::fuzz(&greedy, 1, INPUTS, METER, &mut ()).greedy.is_some(), "the allocator does not count");
    remove_scratch(std::process::id());
}
