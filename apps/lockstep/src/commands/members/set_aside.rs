//! `lockstep members set-aside`: a member that was left behind begins anew.

use crate::commands::confirm::confirm;
use crate::commands::place::Place;
use crate::exit::{Exit, Failure};
use sidecar::restart;
use std::io::Write;
use std::path::PathBuf;

/// Settings.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The member; it must be stopped
    #[arg(value_name = "ID")]
    id: u32,
    /// Data directory of the member, or of `up`
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Does it, once it is confirmed.
pub(crate) async fn run(args: &Args) -> Result<(), Failure> {
    let place = Place::of(&args.data_dir, args.id).await?;
    let refused = |error: anyhow::Error| Failure::new(Exit::Refused, error);
    let member = restart::Aside::open(&place.dir).map_err(refused)?;
    if member.id() != args.id {
        let text =
            format!("{} is the data directory of member {}, not of {}", place.dir.display(), member.id(), args.id);
        return Err(Failure::new(Exit::Refused, text));
    }
    let text = format!(
        "Member {} of cluster {}: its journal and snapshots in {} are renamed. It has no history then: what only it holds \
         is of no use to the cluster any more, and its vote does not count until the others have taught it.",
        member.id(),
        member.cluster(),
        place.dir.display()
    );
    confirm(&text, args.yes)?;
    for path in restart::set_aside(&member)? {
        // A closed stdout leaves nobody to tell.
        let _ = writeln!(std::io::stdout(), "{}", path.display());
    }
    Ok(())
}
