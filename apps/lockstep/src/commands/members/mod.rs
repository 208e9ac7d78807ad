//! `lockstep members`: who is part of the cluster.

mod force;
mod set_aside;

use crate::exit::Failure;

/// What to do.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Start the cluster anew from one survivor, when a majority of its members is lost for good
    ///
    /// The stopped survivor becomes the only member of the cluster's next generation, with everything that it holds. What
    /// only the lost members held is lost, every session ends, and the members of the old generation are refused for ever.
    /// While a majority can be brought back, bring it back: then nothing is lost.
    ForceNewCluster(force::Args),
    /// Set the data of a stopped member aside, so that it begins anew: for one that was left behind by force-new-cluster
    ///
    /// Its journal and snapshots are renamed, not removed. At its next start it has no history.
    SetAside(set_aside::Args),
}

/// Does it.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::ForceNewCluster(args) => force::run(&args).await,
        Command::SetAside(args) => set_aside::run(&args).await,
    }
}
