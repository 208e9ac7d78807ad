//! What can go wrong with certificates, and what to do about it.

use mesh::names::NameError;
use std::path::PathBuf;

/// Why a certificate could not be issued or an authority not be used.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// There is one already; nothing was changed.
    #[error("{} exists already: nothing was changed; use `certs renew` for a leaf that is due", .0.display())]
    Exists(PathBuf),
    /// There is no authority here.
    #[error("{} has no certificate authority: run `certs init --cluster NAME` first, or check --dir", .0.display())]
    NoAuthority(PathBuf),
    /// A role, id or cluster that cannot stand in a certificate.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A key that others may read or the group may write.
    #[error("{}: mode {mode:04o} lets others read or the group write it: chmod 0600 it", path.display())]
    Insecure {
        /// The key.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file that is not what it should be.
    #[error("{}: {problem}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// The file system said no.
    #[error("{} cannot be {action}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The cryptography library said no: ours or its fault.
    #[error("a certificate cannot be made: {0}")]
    Crypto(#[from] rcgen::Error),
}

impl CertsError {
    pub(crate) fn unusable(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Unusable { path: path.into(), problem: problem.into() }
    }
}
