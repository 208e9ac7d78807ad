//! The load generator, and the experiments made with it: `lockstep bench`.
//!
//! `load` loads any address, `run` a cluster that it starts (`cluster`), both by the `generator`, which speaks what
//! `wire` knows. What processes and the machine did meanwhile is read from /proc (`procfs`) and admin ports
//! (`http`, `metrics`). `peers`, `paper`, `limits` and `soak` are experiments, whose points are kept
//! (`results`), drawn (`plot`) and held against each other (`compare`).

#![forbid(unsafe_code)]

mod args;
mod children;
mod cluster;
mod compare;
mod generator;
mod http;
mod limits;
mod load;
mod machine;
mod metrics;
mod paper;
mod peers;
mod plot;
mod procfs;
mod progress;
mod results;
mod run;
mod soak;
mod stop;
mod wire;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// Settings of `bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to measure
    #[command(subcommand)]
    command: Command,
}

/// What to measure.
#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Load any address, and say what clients see
    Load(load::Args),
    /// Start a cluster, load it, and say what a request costs in each part
    ///
    /// What stands behind -- are the settings of `lockstep up`, such as `lockstep bench run -- -n 5 --protocol resp --
    /// redis-server --port {port} --save "" --appendonly no`.
    Run(run::Args),
    /// Measure what else could be used, side by side: the application alone and behind a proxy, etcd, ZooKeeper, Redis with
    /// replicas, and Lockstep as sync, memory and with signatures, with three and five replicas
    ///
    /// What is not installed is left out. Run again with the same --out it goes on with what is missing.
    Peers(peers::Args),
    /// Measure again what the paper measured, and draw its Figures 3 to 6
    ///
    /// Run again with the same --out it goes on with what is missing.
    Paper(paper::Args),
    /// Load a cluster for hours at a fixed rate, and draw its memory, disk and latencies over the time
    ///
    /// Run again with the same --out it goes on with what is missing, on the same data. What stands behind -- are the
    /// settings of `lockstep up`.
    Soak(soak::Args),
    /// Measure the best that this machine can do for the shape of our work: QUIC streams, an echo quorum, syncs, signatures,
    /// hashes
    Limits(limits::Args),
    /// Tell a change from noise between two runs of the same experiment
    Compare(compare::Args),
}

/// Measures; SIGINT and SIGTERM end what was started for it, and then it.
///
/// # Errors
/// In words that say what to do.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let (done, ended) = tokio::sync::oneshot::channel();
    // It waits a lot, and must not hold up the signals.
    std::thread::Builder::new().name("bench".into()).spawn(move || {
        let _ = done.send(dispatch(&args.command));
    })?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopped = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop::stop();
        // Another one changes nothing: what runs is being ended.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = ended => result.context("the measuring thread ended")?,
        () = stopped => Ok(()),
    }
}

fn dispatch(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Load(args) => load::run(args),
        Command::Run(args) => run::run(args),
        Command::Peers(args) => peers::run(args),
        Command::Paper(args) => paper::run(args),
        Command::Soak(args) => soak::run(args),
        Command::Limits(args) => limits::run(args),
        Command::Compare(args) => compare::run(args),
    }
}
