//! Tests of the plan: command lines that this program takes, addresses that nobody shares.

use super::*;
use crate::cli::Command;

async fn planned(argv: &[&str]) -> (Plan, DataDir) {
    let Command::Up(args) = crate::parse(&[&["up"], argv].concat()).expect("a good command line") else {
        panic!("not up")
    };
    let settings = args.settings().expect("good settings");
    let dir = DataDir::open(None).await.expect("the temporary directory can be written");
    (plan(&settings, &dir).expect("there are free ports"), dir)
}

/// The words of a part's command line.
fn words(part: &PartPlan) -> Vec<&str> {
    part.arguments.iter().map(|word| word.to_str().expect("ASCII")).collect()
}

#[tokio::test]
async fn every_part_has_a_command_line_that_this_program_takes() {
    for argv in [&["--listen", "127.0.0.1:0"][..], &["--listen", "127.0.0.1:0", "--protocol", "close"]] {
        let (plan, _dir) = planned(argv).await;
        assert_eq!(plan.parts.len(), 3 + 2 + 1);
        for part in &plan.parts {
            let command = crate::parse(&words(part)).unwrap_or_else(|error| panic!("{}: {error}", part.name()));
            match (part.role, command) {
                (Role::Sidecar, Command::Sidecar(_)) | (Role::SmartClient, Command::SmartClient(_)) => {}
                (Role::Ingress, Command::Ingress(_)) => {}
                (_, other) => panic!("{} became {other:?}", part.name()),
            }
        }
    }
}

#[tokio::test]
async fn no_two_parts_share_an_address() {
    let (plan, _dir) = planned(&["--listen", "127.0.0.1:0", "-n", "11", "--smart-clients", "4"]).await;
    let of = |part: &PartPlan| [Some(part.admin), part.quic, part.listen, part.app];
    let mut addresses: Vec<_> = plan.parts.iter().flat_map(of).flatten().collect();
    let count = addresses.len();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!((addresses.len(), count), (count, 11 * 3 + 4 * 2 + 2));
}

#[tokio::test]
async fn ports_are_kept_over_restarts() {
    let (first, dir) = planned(&["--listen", "127.0.0.1:0"]).await;
    let Command::Up(args) = crate::parse(&["up", "--listen", "127.0.0.1:0"]).expect("a good command line") else {
        panic!("not up")
    };
    let second = plan(&args.settings().expect("good settings"), &dir).expect("there are free ports");
    assert_eq!(second.listen, first.listen);
    assert_eq!(second.members, first.members);
}

#[tokio::test]
async fn a_command_goes_to_every_sidecar_as_it_is() {
    let (plan, _dir) =
        planned(&["--listen", "127.0.0.1:0", "--protocol", "line", "--", "sh", "-c", "serve {port} --id {id}"]).await;
    for part in plan.parts.iter().filter(|part| part.role == Role::Sidecar) {
        assert!(words(part).ends_with(&["--", "sh", "-c", "serve {port} --id {id}"]), "{part:?}");
    }
}

#[test]
fn the_stages_of_the_end_fill_its_time_and_leave_room_beside_the_drain() {
    let total: f64 = STAGES.iter().map(|(_, share, _)| share).sum();
    assert!((total - 1.0).abs() < 1e-9);
    assert!(STAGES.iter().all(|(_, share, drain)| drain < share));
}
