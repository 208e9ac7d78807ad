//! The directory of a cluster's certificates: opened, locked, mended.

use crate::authority::{self, Authority, Signer};
use crate::clock::Moment;
use crate::error::CertsError;
use crate::files::{self, PUBLIC};
use crate::leaf::{self, Kind};
use crate::lock::Lock;
use crate::passphrase::Passphrase;
use crate::record::Records;
use mesh::names::{DEFAULT_TRUST_DOMAIN, Identity, Role, check_cluster, check_trust_domain};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Mode of the directory of an authority: nobody else looks in.
const AUTHORITY_DIR: u32 = 0o700;
/// The authority that was made and does not issue yet: others must trust it first.
pub(crate) const NEXT: &str = "next";
/// Where authorities go that are no longer trusted. Their keys are never deleted.
pub(crate) const RETIRED: &str = "retired";

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
    /// Its key, `signing.key`, mode 0600: ed25519 in PKCS#8 version 1 (of AWS-LC,
    /// `Ed25519KeyPair::from_pkcs8_maybe_unchecked` reads it; OpenSSL before 3.2 reads no other).
    pub signing_key: PathBuf,
}

impl IssuedPaths {
    pub(crate) fn in_dir(dir: PathBuf) -> Self {
        let (certificate, key) = Kind::Tls.files();
        let (signing_certificate, signing_key) = Kind::Signing.files();
        Self {
            certificate: dir.join(certificate),
            key: dir.join(key),
            authorities: dir.join(AUTHORITIES),
            signing_certificate: dir.join(signing_certificate),
            signing_key: dir.join(signing_key),
            dir,
        }
    }
}

/// The copy of the bundle beside a leaf.
pub(crate) const AUTHORITIES: &str = "ca.crt";

/// What a new authority is to be.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The cluster's name.
    pub cluster: String,
    /// The trust domain of all SPIFFE names.
    pub trust_domain: String,
    /// How long the authority lives.
    pub lifetime: Duration,
    /// Move an authority that is there aside, instead of refusing.
    pub force: bool,
}

impl Setup {
    /// A new cluster with all else as it is by default: ten years.
    #[must_use]
    pub fn new(cluster: &str) -> Self {
        let trust_domain = DEFAULT_TRUST_DOMAIN.to_owned();
        Self { cluster: cluster.to_owned(), trust_domain, lifetime: authority::LIFETIME, force: false }
    }
}

/// A directory, and what is needed to work in it, before it is opened.
#[derive(Clone)]
pub struct Access {
    dir: PathBuf,
    passphrase: Option<Passphrase>,
    now: Option<Moment>,
}

impl Access {
    /// The directory `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), passphrase: None, now: None }
    }

    /// Encrypts the keys of new authorities with this, and decrypts those that are encrypted.
    #[must_use]
    pub fn with_passphrase(mut self, passphrase: Option<Passphrase>) -> Self {
        self.passphrase = passphrase;
        self
    }

    /// Takes this for the time, instead of the clock's: for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn at(mut self, now: Moment) -> Self {
        self.now = Some(now);
        self
    }

    /// Makes the authority of a new cluster.
    ///
    /// # Errors
    /// [`CertsError::Exists`] if there is one already and `setup` does not force; a name that no cluster can have; the
    /// file system's.
    pub fn init(self, setup: &Setup) -> Result<Pki, CertsError> {
        check_cluster(&setup.cluster)?;
        check_trust_domain(&setup.trust_domain)?;
        let authorities = self.dir.join("ca");
        files::ensure_dir(&self.dir)?;
        let lock = Lock::take(&self.dir)?;
        files::ensure_dir(&authorities)?;
        files::sweep(&authorities)?;
        let found = State::read(&self.dir)?;
        if !found.authorities.is_empty() && !setup.force {
            return Err(CertsError::Exists(authorities));
        }
        found.authorities.iter().chain(&found.next).try_for_each(|authority| retire(&self.dir, authority))?;
        let wanted = authority::Wanted {
            cluster: &setup.cluster,
            trust_domain: &setup.trust_domain,
            lifetime: setup.lifetime,
            passphrase: self.passphrase.as_ref(),
            now: self.now.unwrap_or_else(Moment::now),
        };
        let number = found.unused_number().to_string();
        files::create_dir_with(&authorities.join(number), AUTHORITY_DIR, |staged| authority::create(staged, &wanted))?;
        drop(lock);
        let pki = self.open()?;
        pki.locked()?.write_crl_if_stale()?;
        Ok(pki)
    }

    /// Opens what [`Self::init`] made.
    ///
    /// # Errors
    /// [`CertsError::NoAuthority`] if there is none, [`CertsError::Insecure`] if others may read its key, or files
    /// that are not what they should be.
    pub fn open(self) -> Result<Pki, CertsError> {
        let pki = self.view()?;
        let state = State::read(&pki.dir)?;
        // Found out here rather than at the first leaf. A key under a passphrase is opened when it is needed.
        if let Some(newest) = state.authorities.last()
            && !newest.is_encrypted()?
        {
            pki.signer(newest)?;
        }
        // They differ when the process that made the authority was killed right after.
        if files::read_if_there(&pki.bundle_path())? != state.bundle() {
            drop(pki.locked()?);
        }
        Ok(pki)
    }

    /// Opens what [`Self::init`] made to look at it only; keys are not read, nothing is mended.
    ///
    /// # Errors
    /// As for [`Self::open`], but for those about keys.
    pub fn view(self) -> Result<Pki, CertsError> {
        let state = State::read(&self.dir)?;
        let cluster = state.newest(&self.dir)?.cluster.clone();
        let Self { dir, passphrase, now } = self;
        Ok(Pki { dir, cluster, passphrase, now, signers: Mutex::default() })
    }

    /// Opens the authority, or makes it if there is none.
    ///
    /// # Errors
    /// As for [`Self::open`] and [`Self::init`]; [`CertsError::OtherCluster`] if it is the authority of another one.
    pub fn open_or_init(self, setup: &Setup) -> Result<Pki, CertsError> {
        let pki = match self.clone().open() {
            Err(CertsError::NoAuthority(_)) => match self.clone().init(setup) {
                // Somebody else was quicker.
                Err(CertsError::Exists(_)) => self.open()?,
                other => other?,
            },
            other => other?,
        };
        if pki.cluster != setup.cluster {
            let (found, wanted) = (pki.cluster, setup.cluster.clone());
            return Err(CertsError::OtherCluster { dir: pki.dir, found, wanted });
        }
        Ok(pki)
    }
}

/// A cluster's certificate authority and what it issued.
pub struct Pki {
    pub(crate) dir: PathBuf,
    cluster: String,
    pub(crate) passphrase: Option<Passphrase>,
    now: Option<Moment>,
    /// Keys that were opened, by the number of their authority: a passphrase is made slow to try.
    signers: Mutex<BTreeMap<u32, Arc<Signer>>>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki").field("dir", &self.dir).field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Pki {
    /// Makes the authority of a new cluster, valid for ten years.
    ///
    /// # Errors
    /// As for [`Access::init`].
    pub fn init(dir: &Path, cluster: &str) -> Result<Self, CertsError> {
        Access::new(dir).init(&Setup::new(cluster))
    }

    /// Opens what [`Self::init`] made.
    ///
    /// # Errors
    /// As for [`Access::open`].
    pub fn open(dir: &Path) -> Result<Self, CertsError> {
        Access::new(dir).open()
    }

    /// Opens the authority in `dir`, or makes it if there is none.
    ///
    /// # Errors
    /// As for [`Access::open_or_init`].
    pub fn open_or_init(dir: &Path, cluster: &str) -> Result<Self, CertsError> {
        Access::new(dir).open_or_init(&Setup::new(cluster))
    }

    /// The cluster whose authority this is.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// All trusted authorities, `pki/bundle.crt`.
    #[must_use]
    pub fn bundle_path(&self) -> PathBuf {
        self.dir.join("bundle.crt")
    }

    /// The revocation lists, `pki/crl.pem`.
    #[must_use]
    pub fn crl_path(&self) -> PathBuf {
        self.dir.join("crl.pem")
    }

    /// Where the leaf of `role` and `id` is, or would be.
    ///
    /// # Errors
    /// A role or id that cannot be.
    pub fn paths(&self, role: &str, id: &str) -> Result<IssuedPaths, CertsError> {
        Ok(self.paths_of(&self.identity(role, id)?))
    }

    pub(crate) fn identity(&self, role: &str, id: &str) -> Result<Identity, CertsError> {
        Ok(Identity::new(&self.cluster, role.parse::<Role>()?, id)?)
    }

    pub(crate) fn paths_of(&self, who: &Identity) -> IssuedPaths {
        IssuedPaths::in_dir(self.dir.join(who.role.as_str()).join(&who.id))
    }

    /// Everybody who has a directory here.
    pub(crate) fn everybody(&self) -> Result<Vec<Identity>, CertsError> {
        let mut everybody = Vec::new();
        for role in Role::ALL {
            for path in files::list(&self.dir.join(role.as_str()))? {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                everybody.extend(path.is_dir().then(|| Identity::new(&self.cluster, role, &name).ok()).flatten());
            }
        }
        everybody.sort_by_key(|who| (who.role, who.id.parse::<u32>().unwrap_or(u32::MAX), who.id.clone()));
        Ok(everybody)
    }

    pub(crate) fn now(&self) -> Moment {
        self.now.unwrap_or_else(Moment::now)
    }

    /// The opened key of an authority.
    pub(crate) fn signer(&self, authority: &Authority) -> Result<Arc<Signer>, CertsError> {
        let mut signers = self.signers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signer) = signers.get(&authority.number) {
            return Ok(signer.clone());
        }
        let signer = Arc::new(authority.signer(self.passphrase.as_ref())?);
        signers.insert(authority.number, signer.clone());
        Ok(signer)
    }

    /// Locks the directory, and mends in it what a command that was killed left.
    pub(crate) fn locked(&self) -> Result<Locked<'_>, CertsError> {
        let lock = Lock::take(&self.dir)?;
        let everybody = self.everybody()?;
        let dirs = ["", "ca"].into_iter().chain(Role::ALL.map(Role::as_str)).map(|name| self.dir.join(name));
        dirs.chain(everybody.iter().map(|who| self.paths_of(who).dir)).try_for_each(|dir| files::sweep(&dir))?;
        let state = State::read(&self.dir)?;
        state.newest(&self.dir)?;
        let locked = Locked { pki: self, state, _lock: lock };
        locked.spread_trust()?;
        Ok(locked)
    }
}

/// What is in the directory.
pub(crate) struct State {
    /// Trusted, by number; the last one issues.
    pub(crate) authorities: Vec<Authority>,
    /// Trusted as well, before it issues.
    pub(crate) next: Option<Authority>,
    pub(crate) records: Records,
    retired: Vec<u32>,
}

impl State {
    pub(crate) fn read(dir: &Path) -> Result<Self, CertsError> {
        let parent = dir.join("ca");
        let retired = numbers(&parent.join(RETIRED))?;
        let authorities: Result<Vec<_>, _> = numbers(&parent)?
            .into_iter()
            .map(|number| Authority::read(parent.join(number.to_string()), number))
            .collect();
        let mut state = Self { authorities: authorities?, next: None, records: Records::read(dir)?, retired };
        let next = parent.join(NEXT);
        if next.is_dir() {
            state.next = Some(Authority::read(next, state.unused_number())?);
        }
        Ok(state)
    }

    /// A number that no authority ever had: it is in the records.
    pub(crate) fn unused_number(&self) -> u32 {
        let used = self.authorities.iter().map(|authority| authority.number).chain(self.retired.iter().copied());
        let used = used.chain(self.next.iter().map(|next| next.number));
        used.chain(self.records.issued.iter().map(|issued| issued.ca)).max().unwrap_or(0) + 1
    }

    /// All whom to trust, in PEM.
    pub(crate) fn bundle(&self) -> String {
        self.authorities.iter().chain(&self.next).map(|authority| authority.pem.as_str()).collect()
    }

    /// The one that issues.
    pub(crate) fn newest(&self, dir: &Path) -> Result<&Authority, CertsError> {
        self.authorities.last().ok_or_else(|| CertsError::NoAuthority(dir.to_owned()))
    }
}

/// The directory while nobody else changes it.
pub(crate) struct Locked<'a> {
    pub(crate) pki: &'a Pki,
    pub(crate) state: State,
    _lock: Lock,
}

impl Locked<'_> {
    /// Reads everything again, after authorities came or went, and tells everybody whom to trust.
    pub(crate) fn reload(&mut self) -> Result<(), CertsError> {
        self.state = State::read(&self.pki.dir)?;
        self.spread_trust()
    }

    /// Brings the bundle and all copies of it up to date.
    fn spread_trust(&self) -> Result<(), CertsError> {
        let bundle = self.state.bundle();
        let copies = self.pki.everybody()?.into_iter().map(|who| self.pki.paths_of(&who).authorities);
        for path in std::iter::once(self.pki.bundle_path()).chain(copies) {
            if files::read_if_there(&path)? != bundle {
                files::replace(&path, bundle.as_bytes(), PUBLIC)?;
            }
        }
        Ok(())
    }

    /// How the leaf of `who` is; `None` if there is none.
    pub(crate) fn look(&self, who: &Identity, kind: Kind) -> Result<Option<(leaf::OnDisk, leaf::State)>, CertsError> {
        look(self.pki, &self.state, who, kind)
    }
}

/// How the leaf of `who` is; `None` if there is none.
pub(crate) fn look(
    pki: &Pki,
    state: &State,
    who: &Identity,
    kind: Kind,
) -> Result<Option<(leaf::OnDisk, leaf::State)>, CertsError> {
    let Some(found) = leaf::OnDisk::read(&pki.paths_of(who).dir, who, kind)? else { return Ok(None) };
    let is_revoked = state.records.is_revoked(&found.facts.serial);
    let judged = found.state(&state.authorities, is_revoked, pki.now());
    Ok(Some((found, judged)))
}

/// Makes the directory of the next authority.
pub(crate) fn create_next(dir: &Path, wanted: &authority::Wanted<'_>) -> Result<(), CertsError> {
    let path = dir.join("ca").join(NEXT);
    files::create_dir_with(&path, AUTHORITY_DIR, |staged| authority::create(staged, wanted))
}

/// Puts an authority where nobody trusts it; its key stays.
pub(crate) fn retire(dir: &Path, authority: &Authority) -> Result<(), CertsError> {
    let retired = dir.join("ca").join(RETIRED);
    files::ensure_dir(&retired)?;
    files::rename(&authority.dir, &retired.join(authority.number.to_string()))
}

/// The numbers of the authorities in `dir`, ascending.
fn numbers(dir: &Path) -> Result<Vec<u32>, CertsError> {
    let paths = files::list(dir)?;
    let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
    let mut numbers: Vec<u32> =
        names.filter_map(|name| name.parse().ok().filter(|number: &u32| number.to_string() == name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}
