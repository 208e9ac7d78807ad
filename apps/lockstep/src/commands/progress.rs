//! How far something is, on stderr: one line that changes on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two changes on a terminal.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two lines elsewhere.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    terminal: bool,
    last: Instant,
    shown: bool,
}

impl Progress {
    /// Of this.
    pub(crate) fn new(what: String) -> Self {
        Self { what, terminal: std::io::stderr().is_terminal(), last: Instant::now(), shown: false }
    }

    /// So many bytes are done, of so many where that is known.
    pub(crate) fn show(&mut self, done: u64, total: Option<u64>) {
        let every = if self.terminal { LOOK_EVERY } else { LINE_EVERY };
        if self.last.elapsed() < every {
            return;
        }
        (self.last, self.shown) = (Instant::now(), true);
        let text = words(&self.what, done, total);
        // A closed stderr leaves nobody to tell.
        let _ = if self.terminal {
            write!(std::io::stderr(), "\r{text}\x1b[K")
        } else {
            writeln!(std::io::stderr(), "{text}")
        };
    }

    /// Leaves the terminal's line.
    pub(crate) fn end(self) {
        if self.terminal && self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn words(what: &str, done: u64, total: Option<u64>) -> String {
    let mebi = done >> 20;
    match total.filter(|total| *total > 0) {
        Some(total) => format!("{what}: {} %, {mebi} of {} MiB", done as u128 * 100 / u128::from(total), total >> 20),
        None => format!("{what}: {mebi} MiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_said_in_percent_and_what_has_no_end_in_bytes() {
        assert_eq!(words("verifying", 3 << 20, Some(12 << 20)), "verifying: 25 %, 3 of 12 MiB");
        assert_eq!(words("verifying", u64::MAX, Some(u64::MAX)).split(',').next(), Some("verifying: 100 %"));
        assert_eq!(words("taking", 3 << 20, None), "taking: 3 MiB");
    }
}
