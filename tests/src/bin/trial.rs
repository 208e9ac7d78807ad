//! Tries every behaviour of a malicious SMaRtClient on a real cluster, and prints what each came to as a table.
//!
//! `lockstep`, `misbehave` and `malicious` are taken from beside this program.

use anyhow::Context;
use clap::Parser;
use lockstep_tests::malicious::trial::{Bench, Programs, Verdict, table};
use lockstep_tests::malicious::{Behaviour, Group, Wish};
use std::process::ExitCode;

/// Tries what a malicious SMaRtClient can do
#[derive(Debug, Parser)]
struct Args {
    /// With signatures on requests and replies; otherwise without
    #[arg(long)]
    signatures: bool,
    /// Only this; again for more. NAME or NAME=PROBABILITY
    #[arg(long = "do", value_name = "NAME[=P]")]
    wishes: Vec<Wish>,
    /// All that were given at once, and not one after the other
    #[arg(long)]
    mixed: bool,
    /// A trial goes on until it happened so often, but not for longer than 30 s
    #[arg(long, default_value_t = 1)]
    least: u64,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let here = std::env::current_exe()?;
    let sibling = |name: &str| here.with_file_name(name);
    let programs =
        Programs { lockstep: sibling("lockstep"), application: sibling("misbehave"), malicious: sibling("malicious") };
    let (mut rows, mut broken) = (Vec::new(), false);
    for group in Group::ALL {
        let trials = trials(&args, group);
        if trials.is_empty() {
            continue;
        }
        let start = || -> anyhow::Result<Bench> {
            let mut bench = Bench::start(programs.clone(), args.signatures).context("no cluster")?;
            bench.insist(args.least);
            Ok(bench)
        };
        let mut bench = start()?;
        for wishes in trials {
            let names: Vec<_> = wishes.iter().map(ToString::to_string).collect();
            match bench.try_out(&wishes) {
                Ok(verdict) => {
                    say(&names, &verdict);
                    rows.push((args.signatures, verdict));
                }
                Err(error) => {
                    println!("{}: the cluster did not survive it: {error:#}", names.join(" "));
                    broken = true;
                    bench = start()?;
                }
            }
        }
    }
    print!("\n{}", table(&rows));
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What is tried on the cluster for a group.
fn trials(args: &Args, group: Group) -> Vec<Vec<Wish>> {
    if args.mixed {
        let first = args.wishes.first().filter(|wish| wish.behaviour.group() == group);
        return first.map(|_| args.wishes.clone()).into_iter().collect();
    }
    let wanted = |behaviour: Behaviour| args.wishes.iter().copied().find(|wish| wish.behaviour == behaviour);
    let all = args.wishes.is_empty();
    group
        .members()
        .filter_map(|one| if all { Some(Wish::always(one)) } else { wanted(one) })
        .map(|wish| vec![wish])
        .collect()
}

fn say(names: &[String], verdict: &Verdict) {
    let Verdict { answered, wrong, failed, forged, lost, surprises, .. } = verdict;
    println!(
        "{}: done {}, answered {answered}, wrong {wrong}, failed {failed}, forged {forged}, lost {lost} {surprises:?}",
        names.join(" "),
        verdict.done()
    );
}
