//! The directory of a cluster's certificates.

use crate::authority::{self, Authority};
use crate::error::CertsError;
use crate::files::{self, PUBLIC, SECRET};
use crate::leaf::{self, Kind, Signed, State};
use mesh::names::{DEFAULT_TRUST_DOMAIN, Identity, Role, check_cluster};
use std::fs;
use std::path::{Path, PathBuf};

/// Mode of the directory of an authority: nobody else looks in.
const AUTHORITY_DIR: u32 = 0o700;
/// Mode of the directory of a leaf.
const LEAF_DIR: u32 = 0o755;

/// Where the files of a leaf are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedPaths {
    /// The directory, `pki/<role>/<id>`: what a process gets as `--pki`.
    pub dir: PathBuf,
    /// The certificate, `tls.crt`.
    pub certificate: PathBuf,
    /// Its key, `tls.key`, mode 0600.
    pub key: PathBuf,
    /// Whom to trust, `ca.crt`: a copy of the bundle.
    pub authorities: PathBuf,
    /// The certificate for signatures, `signing.crt`, which only [`Pki::ensure_signing`] makes.
    pub signing_certificate: PathBuf,
    /// Its key, `signing.key`, mode 0600: ed25519 in PKCS#8 version 1 (of ring,
    /// `Ed25519KeyPair::from_pkcs8_maybe_unchecked` reads it; OpenSSL before 3.2 reads no other).
    pub signing_key: PathBuf,
}

impl IssuedPaths {
    fn in_dir(dir: PathBuf) -> Self {
        let (certificate, key, authorities) = (dir.join("tls.crt"), dir.join("tls.key"), dir.join("ca.crt"));
        let (signing_certificate, signing_key) = (dir.join("signing.crt"), dir.join("signing.key"));
        Self { dir, certificate, key, authorities, signing_certificate, signing_key }
    }
}

/// A cluster's certificate authority and what it issued.
pub struct Pki {
    dir: PathBuf,
    authority: Authority,
    bundle: String,
    /// Identifiers of the keys of all authorities in the bundle.
    authorities: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki").field("dir", &self.dir).field("cluster", &self.authority.cluster).finish_non_exhaustive()
    }
}

impl Pki {
    /// Makes the authority of a new cluster, valid for ten years.
    ///
    /// # Errors
    /// [`CertsError::Exists`] if there is one already; a name that no cluster can have; the file system's.
    pub fn init(dir: &Path, cluster: &str) -> Result<Self, CertsError> {
        check_cluster(cluster)?;
        let authorities = dir.join("ca");
        files::ensure_dir(&authorities)?;
        if !numbers(&authorities)?.is_empty() {
            return Err(CertsError::Exists(authorities));
        }
        files::create_dir_with(&authorities.join("1"), AUTHORITY_DIR, |staged| {
            Authority::create(staged, cluster, DEFAULT_TRUST_DOMAIN)
        })?;
        Self::open(dir)
    }

    /// Opens what [`Self::init`] made.
    ///
    /// # Errors
    /// [`CertsError::NoAuthority`] if there is none, [`CertsError::Insecure`] if others may read its key, or files
    /// that are not what they should be.
    pub fn open(dir: &Path) -> Result<Self, CertsError> {
        let parent = dir.join("ca");
        let numbers = if parent.is_dir() { numbers(&parent)? } else { Vec::new() };
        let newest = numbers.last().ok_or_else(|| CertsError::NoAuthority(dir.to_owned()))?;
        let authority = Authority::open(&parent.join(newest.to_string()))?;
        let (mut bundle, mut authorities) = (String::new(), Vec::new());
        for number in &numbers {
            let path = parent.join(number.to_string()).join(authority::CERTIFICATE);
            let text = files::read(&path)?;
            let pem = authority::parse_pem(&path, &text)?;
            authorities.extend(authority::subject_key_id(&authority::parse(&path, &pem)?).map(<[u8]>::to_vec));
            bundle.push_str(&text);
        }
        let pki = Self { dir: dir.to_owned(), authority, bundle, authorities };
        // Missing when the process that made the authority was killed right after.
        if !pki.bundle_path().exists() {
            files::replace(&pki.bundle_path(), pki.bundle.as_bytes(), PUBLIC)?;
        }
        Ok(pki)
    }

    /// Opens the authority in `dir`, or makes it if there is none.
    ///
    /// # Errors
    /// As for [`Self::open`] and [`Self::init`]; also if it is the authority of another cluster.
    pub fn open_or_init(dir: &Path, cluster: &str) -> Result<Self, CertsError> {
        let pki = match Self::open(dir) {
            Err(CertsError::NoAuthority(_)) => match Self::init(dir, cluster) {
                // Somebody else was quicker.
                Err(CertsError::Exists(_)) => Self::open(dir)?,
                other => other?,
            },
            other => other?,
        };
        if pki.cluster() != cluster {
            let problem =
                format!("has the authority of cluster {}, not of {cluster}: use another --dir", pki.cluster());
            return Err(CertsError::unusable(dir, problem));
        }
        Ok(pki)
    }

    /// The cluster whose authority this is.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.authority.cluster
    }

    /// All trusted authorities, `pki/bundle.crt`.
    #[must_use]
    pub fn bundle_path(&self) -> PathBuf {
        self.dir.join("bundle.crt")
    }

    /// Where the leaf of `role` and `id` is, or would be.
    ///
    /// # Errors
    /// A role or id that cannot be.
    pub fn paths(&self, role: &str, id: &str) -> Result<IssuedPaths, CertsError> {
        Ok(self.paths_of(&self.identity(role, id)?))
    }

    /// Issues a leaf, valid for ninety days, where there is none.
    ///
    /// # Errors
    /// [`CertsError::Exists`] if there is one; a role or id that cannot be; the file system's.
    pub fn issue(&self, role: &str, id: &str) -> Result<IssuedPaths, CertsError> {
        let who = self.identity(role, id)?;
        let paths = self.paths_of(&who);
        let signed = leaf::sign(&self.authority, &who, Kind::Tls)?;
        files::ensure_dir(&self.dir.join(who.role.as_str()))?;
        files::create_dir_with(&paths.dir, LEAF_DIR, |staged| {
            let staged = IssuedPaths::in_dir(staged.to_owned());
            files::create(&staged.key, signed.key.as_bytes(), SECRET)?;
            files::create(&staged.certificate, signed.certificate.as_bytes(), PUBLIC)?;
            files::create(&staged.authorities, self.bundle.as_bytes(), PUBLIC)
        })?;
        Ok(paths)
    }

    /// Makes sure that there is a good leaf: issues one where there is none, replaces one that has less than a third
    /// of its life left, lacks its key or is unknown to our authorities, and leaves any other alone. The copy of the
    /// bundle is brought up to date.
    ///
    /// # Errors
    /// A leaf of somebody else in that place, a key that others may read, a role or id that cannot be; the file
    /// system's.
    pub fn ensure(&self, role: &str, id: &str) -> Result<IssuedPaths, CertsError> {
        let who = self.identity(role, id)?;
        let paths = self.paths_of(&who);
        if !paths.dir.exists() {
            match self.issue(role, id) {
                // Somebody else was quicker.
                Err(CertsError::Exists(_)) => {}
                other => return other,
            }
        }
        if leaf::judge(&paths.certificate, &paths.key, &who, &self.authorities)? == State::Due {
            let Signed { certificate, key } = leaf::sign(&self.authority, &who, Kind::Tls)?;
            // Killed in between, the two do not fit, and the next run replaces both.
            files::replace(&paths.key, key.as_bytes(), SECRET)?;
            files::replace(&paths.certificate, certificate.as_bytes(), PUBLIC)?;
        }
        let copy = if paths.authorities.exists() { files::read(&paths.authorities)? } else { String::new() };
        if copy != self.bundle {
            files::replace(&paths.authorities, self.bundle.as_bytes(), PUBLIC)?;
        }
        Ok(paths)
    }

    /// Makes sure that there is a good leaf as [`Self::ensure`] does, and beside it one for signatures: an ed25519 key,
    /// and a certificate with the same names, whose only purpose is id-kp-documentSigning.
    ///
    /// # Errors
    /// As for [`Self::ensure`].
    pub fn ensure_signing(&self, role: &str, id: &str) -> Result<IssuedPaths, CertsError> {
        let paths = self.ensure(role, id)?;
        let who = self.identity(role, id)?;
        let (certificate, key) = (&paths.signing_certificate, &paths.signing_key);
        if leaf::judge(certificate, key, &who, &self.authorities)? == State::Due {
            let signed = leaf::sign(&self.authority, &who, Kind::Signing)?;
            files::replace(key, signed.key.as_bytes(), SECRET)?;
            files::replace(certificate, signed.certificate.as_bytes(), PUBLIC)?;
        }
        Ok(paths)
    }

    fn identity(&self, role: &str, id: &str) -> Result<Identity, CertsError> {
        Ok(Identity::new(self.cluster(), role.parse::<Role>()?, id)?)
    }

    fn paths_of(&self, who: &Identity) -> IssuedPaths {
        IssuedPaths::in_dir(self.dir.join(who.role.as_str()).join(&who.id))
    }
}

/// The numbers of the authorities in `dir`, ascending.
fn numbers(dir: &Path) -> Result<Vec<u32>, CertsError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(files::failed(dir, "listed"))? {
        let name = entry.map_err(files::failed(dir, "listed"))?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
