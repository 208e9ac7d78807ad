//! Places between two steps at which a test ends this process as a power cut would. Compiled in with the feature
//! `failpoints`, which nothing that ships has.
//!
//! A file `failpoint` in a directory of the process's own (a sidecar's data directory, a SMaRtClient's certificate)
//! names the place. It is removed when the process comes there, so that the next life of the process goes on.

use std::path::Path;

/// A sidecar: the application executed, and nobody was told.
pub const AFTER_EXECUTE_BEFORE_REPLY: &str = "after-execute-before-reply";
/// A SMaRtClient: the servers executed a request that it forwarded, and its sender was not told.
pub const AFTER_FORWARD_BEFORE_ANSWER: &str = "after-forward-before-answer";

/// Ends the process if a test asked for it here.
#[cfg(feature = "failpoints")]
pub fn reach(dir: Option<&Path>, place: &str) {
    use rustix::process::{Signal, getpid, kill_process};
    let Some(file) = dir.map(|dir| dir.join("failpoint")) else { return };
    let asked = std::fs::read_to_string(&file).is_ok_and(|asked| asked.trim() == place);
    if asked && std::fs::remove_file(&file).is_ok() {
        // The signal ends this process before the call returns.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

/// Does nothing.
#[cfg(not(feature = "failpoints"))]
pub const fn reach(_dir: Option<&Path>, _place: &str) {}
