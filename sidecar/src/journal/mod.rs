//! The journal: makes records durable, in the order in which they were asked for, and says up to where they are.
//!
//! It is a row of segments, each of which begins with what is needed of those before it, so that these can be deleted
//! when snapshots cover their votes. A thread of its own gathers everything that waits, writes it once and syncs it once
//! (group commit), while the driver goes on. It acknowledges nothing that the disk did not confirm: a failed write or
//! sync ends the process.

mod entry;
mod error;
mod file;
mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod scan;
mod segment;
mod start;
#[cfg(test)]
mod tests;
pub mod tool;
mod writer;

pub(crate) use entry::{Entry, History, Recovery};
pub(crate) use error::JournalError;
pub(crate) use file::JournalFile;
pub(crate) use format::Identity;
pub(crate) use segment::Options;
pub(crate) use start::{Aside, Looked, owner};
pub(crate) use writer::{Journal, Observe};

/// Takes a data directory that has no journal (durability `memory`) for this process alone.
///
/// # Errors
/// It is in use, or the system's.
pub(crate) fn lock(dir: &std::path::Path) -> Result<std::fs::File, JournalError> {
    std::fs::create_dir_all(dir).map_err(JournalError::io("cannot create", dir))?;
    start::lock(dir)
}
