//! Asks before what cannot be taken back.

use crate::exit::{Exit, Failure};
use std::io::{BufRead, IsTerminal, Write};

/// Says what would happen, on stderr; goes on only if the answer is yes, or was given with `--yes`.
pub(crate) fn confirm(text: &str, yes: bool) -> Result<(), Failure> {
    let mut stderr = std::io::stderr();
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(stderr, "{text}");
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Refused, "nothing is changed: confirm it with --yes"));
    }
    let _ = write!(stderr, "Type yes to go on: ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && answer.trim() == "yes" {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, "nothing is changed"))
}
