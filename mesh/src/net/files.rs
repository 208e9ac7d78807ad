//! The files that a process has its identity and its trust from, read whole.

use super::error::NetError;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes of a certificate, key, bundle or revocation list that are read at most.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Where certificate, key, trusted authorities and revocation lists are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The directory with `tls.crt` and `tls.key`: `pki/<role>/<id>`.
    pub dir: PathBuf,
    /// The trusted authorities, if not `ca.crt` in that directory.
    pub trust_bundle: Option<PathBuf>,
    /// The revocation lists (`pki/crl.pem`). While there is no such file nobody counts as revoked.
    pub crl: Option<PathBuf>,
}

impl Files {
    /// Those in `dir`, and no revocation lists.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        Self::new(dir, None, None)
    }

    /// Those in `dir`, with what is given in place of the usual.
    #[must_use]
    pub fn new(dir: &Path, trust_bundle: Option<&Path>, crl: Option<&Path>) -> Self {
        Self { dir: dir.to_owned(), trust_bundle: trust_bundle.map(Path::to_owned), crl: crl.map(Path::to_owned) }
    }

    /// The certificate and what authorities are between it and a trusted one.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("tls.crt")
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.dir.join("tls.key")
    }

    /// The trusted authorities.
    #[must_use]
    pub fn bundle(&self) -> PathBuf {
        self.trust_bundle.clone().unwrap_or_else(|| self.dir.join("ca.crt"))
    }

    /// Reads all of them. No lock holds a writer off: what was read in the midst of a change does not fit together.
    pub(super) fn read(&self) -> Result<Contents, NetError> {
        Ok(Contents {
            certificate: read(&self.certificate(), false)?,
            key: read(&self.key(), true)?,
            bundle: read(&self.bundle(), false)?,
            crl: self.crl.as_deref().map(read_if_there).transpose()?.flatten(),
        })
    }
}

/// What was in the files.
pub(super) struct Contents {
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) bundle: Vec<u8>,
    pub(super) crl: Option<Vec<u8>>,
}

impl Contents {
    /// Tells one set of contents from another.
    pub(super) fn fingerprint(&self) -> blake3::Hash {
        let parts = [Some(&self.certificate), Some(&self.key), Some(&self.bundle), self.crl.as_ref()];
        fingerprint(parts.into_iter().flatten())
    }
}

/// Tells the contents of some files from others.
pub(super) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a Vec<u8>>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize()
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, NetError> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        _ => read(path, false).map(Some),
    }
}

/// The bytes of a file. Of a secret one, the mode is checked on what was opened, behind every symlink.
pub(super) fn read(path: &Path, secret: bool) -> Result<Vec<u8>, NetError> {
    let failed = |problem: std::io::Error| fault(path, &format!("cannot be read: {problem}"));
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.mode();
    if secret && mode & 0o027 != 0 {
        let problem = format!("mode {:04o} lets others read or the group write it: chmod 0600 it", mode & 0o7777);
        return Err(fault(path, &problem));
    }
    // Read every two seconds: in one piece, not in ever larger ones.
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(FILE_BYTES_MAX)).unwrap_or_default());
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fault(path, "too large to be what it should be"));
    }
    Ok(bytes)
}

pub(super) fn fault(path: &Path, problem: &str) -> NetError {
    NetError::Credentials { path: path.to_owned(), problem: problem.to_owned() }
}
