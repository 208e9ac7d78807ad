//! Places between two steps at which a test ends this process as a power cut would. Compiled in with the feature
//! `failpoints`, which nothing that ships has.
//!
//! A file `failpoint` in the data directory names the place. It is removed when the process comes there, so that the next
//! life of the process goes on.

use std::path::Path;

/// The application executed, and nobody was told.
pub(crate) const AFTER_EXECUTE_BEFORE_REPLY: &str = "after-execute-before-reply";

/// Ends the process if a test asked for it here.
#[cfg(feature = "failpoints")]
pub(crate) fn reach(data_dir: Option<&Path>, place: &str) {
    use rustix::process::{Signal, getpid, kill_process};
    let Some(file) = data_dir.map(|dir| dir.join("failpoint")) else { return };
    let asked = std::fs::read_to_string(&file).is_ok_and(|asked| asked.trim() == place);
    if asked && std::fs::remove_file(&file).is_ok() {
        // The signal ends this process before the call returns.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

/// Does nothing.
#[cfg(not(feature = "failpoints"))]
pub(crate) const fn reach(_data_dir: Option<&Path>, _place: &str) {}
