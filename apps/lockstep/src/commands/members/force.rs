//! `lockstep members force-new-cluster`: one survivor goes on alone, in another generation.

use crate::commands::confirm::confirm;
use crate::commands::place::Place;
use crate::exit::{Exit, Failure};
use sidecar::restart::{Outlook, Survivor};
use std::io::Write;
use std::path::PathBuf;

/// Settings.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The survivor; it must be stopped. Choose the one that has accepted the most: try each without --yes
    #[arg(long, value_name = "ID")]
    from: u32,
    /// Data directory of the survivor, or of `up`
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Does it, once it is confirmed.
pub(crate) async fn run(args: &Args) -> Result<(), Failure> {
    let place = Place::of(&args.data_dir, args.from).await?;
    let refused = |error: anyhow::Error| Failure::new(Exit::Refused, error);
    let survivor = Survivor::open(&place.dir, args.from).map_err(refused)?;
    confirm(&words(survivor.outlook()), args.yes)?;
    let id = args.from;
    let generation = survivor.restart()?;
    let said = format!(
        "member {id} is the only member of generation {generation}: start it. The others join it as soon as they are \
         started with empty directories; set what they have aside with lockstep members set-aside"
    );
    // A closed stdout leaves nobody to tell.
    let _ = writeln!(std::io::stdout(), "{said}");
    Ok(())
}

/// What is kept, what may be lost, and what is to be seen to.
fn words(outlook: &Outlook) -> String {
    let Outlook { cluster, id, generation, members, votes, snapshot, decided, kept, accepted } = outlook;
    let others: Vec<u32> = members.iter().copied().filter(|member| member != id).collect();
    let mut text =
        format!("Cluster {cluster}, generation {generation}, members {members:?}: member {id} goes on alone.\n");
    text += &match (kept > decided, *snapshot) {
        (true, _) => format!(
            "Kept: every slot up to {kept}. Slots {} to {kept} were accepted here and are not known to be decided: requests \
             in them take effect now, and may be such that nobody was told of.\n",
            decided + 1
        ),
        (false, 0) => format!("Kept: every slot up to {kept}.\n"),
        (false, snapshot) => format!("Kept: every slot up to {kept}, those up to {snapshot} in a snapshot.\n"),
    };
    text += &format!(
        "Lost: every request that was acknowledged in a slot above {kept}; only the members {others:?} can have it.\n"
    );
    if kept < decided {
        text +=
            &format!("Slots {} to {decided} are known to be decided, and are missing here: they are lost.\n", kept + 1);
    }
    if accepted > kept {
        text += &format!("Given up: what was accepted between {} and {accepted}, behind a gap.\n", kept + 1);
    }
    if !votes {
        text += "This member was being taught and had no vote: it may lack much of what was acknowledged.\n";
    }
    text += "Every session ends: a client that waits for an answer is told that its outcome is unknown.\n";
    text += &format!(
        "The members {others:?} must be stopped, and are refused for ever with the data that they have. If a majority of \
         {members:?} can still be started, do that instead: nothing is lost then."
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlook() -> Outlook {
        Outlook {
            cluster: "demo".to_owned(),
            id: 2,
            generation: "1-00000000000000ff".parse().expect("a generation"),
            members: vec![0, 1, 2],
            votes: true,
            snapshot: 40,
            decided: 50,
            kept: 50,
            accepted: 50,
        }
    }

    #[test]
    fn what_may_be_lost_is_named() {
        let text = words(&outlook());
        assert!(text.contains("Kept: every slot up to 50, those up to 40 in a snapshot."), "{text}");
        assert!(text.contains("Lost: every request that was acknowledged in a slot above 50; only the members [0, 1]"));
        assert!(!text.contains("Given up") && !text.contains("had no vote"));
        let text = words(&Outlook { votes: false, kept: 52, accepted: 54, ..outlook() });
        assert!(text.contains("Slots 51 to 52 were accepted here and are not known to be decided"), "{text}");
        assert!(text.contains("Given up: what was accepted between 53 and 54") && text.contains("had no vote"));
        let text = words(&Outlook { kept: 45, accepted: 45, ..outlook() });
        assert!(text.contains("Slots 46 to 50 are known to be decided, and are missing here"), "{text}");
    }
}
