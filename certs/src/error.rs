//! What can go wrong with certificates, and what to do about it.

use mesh::names::NameError;
use std::path::PathBuf;

/// Why something could not be done with certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertsError {
    /// There is one already; nothing was changed.
    #[error("{} exists already: nothing was changed; `lockstep certs renew` makes a new leaf, --force replaces", .0.display())]
    Exists(PathBuf),
    /// There is no authority here.
    #[error("{} has no certificate authority: run `lockstep certs init --cluster NAME` first, or check --dir", .0.display())]
    NoAuthority(PathBuf),
    /// The authority is that of another cluster.
    #[error("{} has the authority of cluster {found}, not of {wanted}: use another --dir", dir.display())]
    OtherCluster {
        /// The directory.
        dir: PathBuf,
        /// Whose authority is there.
        found: String,
        /// Whose was asked for.
        wanted: String,
    },
    /// It would break a rule; nothing was changed.
    #[error("refused: {0}")]
    Refused(String),
    /// Another command is at work in the directory.
    #[error("{} is in use by another `lockstep certs` command or `lockstep up`: try again when it has ended", .0.display())]
    Busy(PathBuf),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A role, id or cluster that cannot stand in a certificate.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A key is encrypted, and nobody gave the passphrase.
    #[error("{} is encrypted: give --passphrase-file", .0.display())]
    PassphraseMissing(PathBuf),
    /// A key is encrypted with another passphrase.
    #[error("{} cannot be decrypted: it is another passphrase, or the file is damaged", .0.display())]
    PassphraseWrong(PathBuf),
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
    /// A key could not be encrypted: ours or the library's fault.
    #[error("a key cannot be encrypted: {0}")]
    Encryption(String),
}

impl CertsError {
    pub(crate) fn unusable(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Unusable { path: path.into(), problem: problem.into() }
    }
}
