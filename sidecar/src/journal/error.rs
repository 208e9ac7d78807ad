//! Why a journal cannot be used.

use super::format::{self, Identity};
use std::io;
use std::path::{Path, PathBuf};

/// Why a journal cannot be used. All are for an operator to resolve; damage is not among them, the member resolves that.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// The system's.
    #[error("{what} {}: {source}{}", path.display(), advice(source))]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// Another process has it.
    #[error("data directory {} is in use by another process: end that one first, or give this member its own directory", .0.display())]
    Locked(PathBuf),
    /// Something else.
    #[error("{} is not a journal of Lockstep: move it away, or give this member its own directory", .0.display())]
    NotAJournal(PathBuf),
    /// Of another version.
    #[error(
        "{} has format version {version}, this program writes version {}: use the program that wrote it, or move it away and start \
         again: the member then rejoins as a learner and is taught by its peers", path.display(), format::VERSION
    )]
    Version { path: PathBuf, version: u32 },
    /// It checks out and means nothing here.
    #[error("{} holds what this program does not know, at byte {at}: use the program that wrote it", path.display())]
    Unknown { path: PathBuf, at: u64 },
    /// Of another cluster or member.
    #[error("{} belongs to member {} of cluster {}, this is member {id} of cluster {cluster}: check --data-dir, --id and --cluster", path.display(), found.id, found.cluster)]
    Foreign { path: PathBuf, found: Identity, cluster: String, id: mesh::ids::ReplicaId },
}

impl JournalError {
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

/// Whether the disk has no room for what was to be written; what is written already is as it was.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn advice(error: &io::Error) -> &'static str {
    if is_full(error) { ": make room on that disk, then start again" } else { "" }
}
