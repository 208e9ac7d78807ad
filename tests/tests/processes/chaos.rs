//! One short run of the chaos program: real clients, real faults.

use super::{binary, up};
use clap::Parser;
use lockstep_tests::chaos::{self, Options};
use std::sync::atomic::AtomicBool;

#[test]
fn real_clients_of_a_cluster_under_faults_see_one_copy_and_no_error() {
    let _machine = up::machine();
    let lockstep = binary::lockstep().to_str().unwrap();
    let options = Options::parse_from(["chaos", "--seconds", "10", "--clients", "16", "--lockstep", lockstep]);
    let report = chaos::run(&options, 1, &AtomicBool::new(false)).unwrap();
    println!("{report}");
    assert!(report.passed(), "{report}");
    assert!(report.checked.calls > 100 && report.checked.telling_sizes > 0, "{report}");
}
