//! `lockstep abort`: the operator's word that a request is not to be waited for any more.

use super::reach::Reach;
use crate::exit::{Exit, Failure};
use sidecar::operator::{Answer, Position, Slot};
use std::io::Write;

/// Settings of an abort.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The request, as logs and `status` name it; without CALL the first of the slot
    #[arg(value_name = "SLOT[.CALL]", value_parser = position)]
    at: Position,
    #[command(flatten)]
    reach: Reach,
}

/// Asks the leader.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    match args.reach.access()?.abort(args.at).await? {
        Answer::Done(leader) => {
            let said = format!("member {leader} leads and orders the abort of {}, if it is a request", args.at);
            // A closed stdout leaves nobody to tell.
            let _ = writeln!(std::io::stdout(), "{said}");
            Ok(())
        }
        Answer::Refused(why) => Err(Failure::new(Exit::Refused, format!("{} is not aborted: {why}", args.at))),
    }
}

fn position(text: &str) -> Result<Position, String> {
    let (slot, call) = text.split_once('.').unwrap_or((text, "0"));
    match (slot.parse(), call.parse()) {
        (Ok(slot), Ok(call)) if slot > 0 => Ok(Position { slot: Slot(slot), call }),
        _ => Err(format!("\"{text}\": write SLOT or SLOT.CALL, such as 4711.2")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_named_by_its_slot_and_its_place_in_it() {
        assert_eq!(position("4711"), Ok(Position { slot: Slot(4711), call: 0 }));
        assert_eq!(position("4711.2"), Ok(Position { slot: Slot(4711), call: 2 }));
        for bad in ["", "0", "x", "1.", "1.x", ".1", "-1", "1.2.3"] {
            assert!(position(bad).is_err(), "{bad}");
        }
    }
}
