//! How far a long run is, on stderr: a bar on a terminal, a line for each point elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Places of the bar.
const WIDTH: usize = 30;

/// See the module.
#[derive(Debug)]
pub(crate) struct Progress {
    total: usize,
    done: usize,
    /// Points that took no time: they were finished before.
    skipped: usize,
    begun: Instant,
    terminal: bool,
}

impl Progress {
    /// Of so many points.
    pub(crate) fn new(total: usize) -> Self {
        Self { total, done: 0, skipped: 0, begun: Instant::now(), terminal: std::io::stderr().is_terminal() }
    }

    /// This one was measured before.
    pub(crate) fn skip(&mut self) {
        self.done += 1;
        self.skipped += 1;
    }

    /// This one begins.
    pub(crate) fn begin(&self, what: &str) {
        let line = line(self.done, self.total, self.rest(), what);
        // A closed stderr leaves nobody to tell.
        let _ = if self.terminal {
            write!(std::io::stderr(), "\r{line}\x1b[K")
        } else {
            writeln!(std::io::stderr(), "{line}")
        };
    }

    /// The one that began is finished.
    pub(crate) fn done(&mut self) {
        self.done += 1;
    }

    /// Leaves the terminal's line.
    pub(crate) fn end(&self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    /// How long the others will take, if they take as long as those before.
    fn rest(&self) -> Option<Duration> {
        let measured = u32::try_from(self.done - self.skipped).ok().filter(|measured| *measured > 0)?;
        let left = u32::try_from(self.total.saturating_sub(self.done)).ok()?;
        Some(self.begun.elapsed() / measured * left)
    }
}

fn line(done: usize, total: usize, rest: Option<Duration>, what: &str) -> String {
    let full = (WIDTH * done).checked_div(total).unwrap_or(WIDTH);
    let rest = match rest.map(|rest| rest.as_secs()) {
        Some(seconds) if seconds >= 5400 => format!(", {:.1} h left", seconds as f64 / 3600.0),
        Some(seconds) if seconds >= 90 => format!(", {} min left", seconds.div_ceil(60)),
        Some(seconds) => format!(", {seconds} s left"),
        None => String::new(),
    };
    format!("[{}{}] {done} of {total}{rest}: {what}", "#".repeat(full), ".".repeat(WIDTH - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_grows_and_says_what_is_left() {
        assert_eq!(line(0, 3, None, "a"), format!("[{}] 0 of 3: a", ".".repeat(30)));
        let half = line(1, 2, Some(Duration::from_secs(100)), "b");
        assert_eq!(half, format!("[{}{}] 1 of 2, 2 min left: b", "#".repeat(15), ".".repeat(15)));
        assert!(line(0, 0, None, "").starts_with(&format!("[{}]", "#".repeat(30))));
    }

    #[test]
    fn what_was_finished_before_is_no_measure_of_time() {
        let mut progress = Progress::new(3);
        progress.skip();
        assert_eq!(progress.rest(), None);
        progress.done();
        assert!(progress.rest().is_some());
    }
}
