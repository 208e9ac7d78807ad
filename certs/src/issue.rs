//! Leaves issued and renewed.

use crate::authority::Authority;
use crate::clock::Moment;
use crate::error::CertsError;
use crate::files::{NewFile, PUBLIC, SECRET, ensure_dir, put_into_dir};
use crate::leaf::{self, Kind, San, State, Wanted};
use crate::pki::{AUTHORITIES, IssuedPaths, Locked, Pki};
use mesh::names::Identity;
use serde::Serialize;
use std::time::Duration;

/// Mode of the directory of a leaf.
const LEAF_DIR: u32 = 0o755;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Made where there was none.
    Issued,
    /// Replaced, with a new key.
    Renewed,
    /// Left as it is.
    Kept,
    /// Revoked.
    Revoked,
    /// It could not be done; nothing of it was changed.
    Failed,
}

/// One thing that was done, or deliberately not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What was done.
    pub action: Action,
    /// To what: `server/0 tls`, `ca/2`, `crl.pem`.
    pub what: String,
    /// The serial number of the certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Until when it is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Moment>,
    /// Why, where it is not obvious.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Change {
    pub(crate) fn new(action: Action, what: impl Into<String>) -> Self {
        Self { action, what: what.into(), serial: None, not_after: None, reason: None }
    }

    pub(crate) fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    pub(crate) fn until(mut self, serial: &str, not_after: Moment) -> Self {
        self.serial = Some(serial.to_owned());
        self.not_after = Some(not_after);
        self
    }
}

/// A leaf to be issued.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The role.
    pub role: String,
    /// The id.
    pub id: String,
    /// More names than those of the role and id.
    pub sans: Vec<San>,
    /// How long it lives: ninety days unless told otherwise.
    pub lifetime: Option<Duration>,
    /// Also one for signatures.
    pub signing: bool,
    /// Replace what is there.
    pub force: bool,
}

/// Which leaves to renew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Those that are due or have expired.
    Due,
    /// All, but for revoked ones.
    All,
    /// These parts, by role and id, whatever their state.
    These(Vec<(String, String)>),
}

impl Pki {
    /// Issues a leaf, valid for ninety days, where there is none.
    ///
    /// # Errors
    /// [`CertsError::Exists`] if there is one; a role or id that cannot be; the file system's.
    pub fn issue(&self, role: &str, id: &str) -> Result<IssuedPaths, CertsError> {
        self.issue_as(&Request { role: role.to_owned(), id: id.to_owned(), ..Request::default() })?;
        self.paths(role, id)
    }

    /// Issues a leaf, and perhaps one for signatures.
    ///
    /// # Errors
    /// [`CertsError::Exists`] if there is what was asked for, unless forced; as for [`Self::issue`].
    pub fn issue_as(&self, request: &Request) -> Result<Vec<Change>, CertsError> {
        let who = self.identity(&request.role, &request.id)?;
        let mut locked = self.locked()?;
        let paths = self.paths_of(&who);
        let asked = if request.signing { &Kind::ALL[..] } else { &[Kind::Tls] };
        let mut missing = Vec::new();
        for kind in asked {
            let (certificate, key) = (paths.dir.join(kind.files().0), paths.dir.join(kind.files().1));
            let found = locked.look(&who, *kind)?.is_some() || certificate.exists() || key.exists();
            missing.extend((!found || request.force).then_some(*kind));
        }
        if missing.is_empty() || (!request.sans.is_empty() && !missing.contains(&Kind::Tls)) {
            return Err(CertsError::Exists(paths.dir));
        }
        let lifetime = request.lifetime.unwrap_or(leaf::LIFETIME);
        let wanted: Vec<Wanted> =
            missing.into_iter().map(|kind| Wanted { kind, lifetime, sans: request.sans.clone() }).collect();
        locked.put(&who, &wanted)
    }

    /// Makes sure that there is a good leaf: issues one where there is none, replaces one that has less than a third
    /// of its life left, lacks its key or is unknown to our authorities, and leaves any other alone. A revoked one is
    /// left alone too: only [`Self::renew`] by name brings its holder back.
    ///
    /// # Errors
    /// A leaf of somebody else in that place, a key that others may read, a role or id that cannot be; the file
    /// system's.
    pub fn ensure(&self, role: &str, id: &str) -> Result<IssuedPaths, CertsError> {
        self.ensure_kinds(role, id, &[Kind::Tls])
    }

    /// Makes sure that there is a good leaf as [`Self::ensure`] does, and beside it one for signatures: an ed25519 key,
    /// and a certificate with the same names, whose only purpose is id-kp-documentSigning.
    ///
    /// # Errors
    /// As for [`Self::ensure`].
    pub fn ensure_signing(&self, role: &str, id: &str) -> Result<IssuedPaths, CertsError> {
        self.ensure_kinds(role, id, &Kind::ALL)
    }

    fn ensure_kinds(&self, role: &str, id: &str, kinds: &[Kind]) -> Result<IssuedPaths, CertsError> {
        let who = self.identity(role, id)?;
        let mut locked = self.locked()?;
        let mut wanted = Vec::new();
        for kind in kinds {
            wanted.extend(match locked.look(&who, *kind)? {
                Some((_, State::Good | State::Revoked)) => None,
                Some((found, _)) => Some(locked.successor(*kind, &found)),
                None => Some(Wanted { kind: *kind, lifetime: leaf::LIFETIME, sans: Vec::new() }),
            });
        }
        locked.put(&who, &wanted)?;
        Ok(self.paths_of(&who))
    }

    /// Makes new leaves, with new keys, for those selected. They live as long as the ones before unless `lifetime` says
    /// otherwise, and have the same names. Goes on when one fails, and says so.
    ///
    /// # Errors
    /// A role or id that cannot be; [`CertsError::Refused`] for a part that is named and has no leaf.
    pub fn renew(&self, selection: &Selection, lifetime: Option<Duration>) -> Result<Vec<Change>, CertsError> {
        let mut locked = self.locked()?;
        let named = match selection {
            Selection::These(parts) => {
                parts.iter().map(|(role, id)| self.identity(role, id)).collect::<Result<Vec<_>, _>>()?
            }
            Selection::Due | Selection::All => self.everybody()?,
        };
        if let (Selection::These(_), Some(who)) =
            (selection, named.iter().find(|who| !self.paths_of(who).certificate.exists()))
        {
            let (role, id) = (who.role, &who.id);
            let problem = format!("{role}/{id} has no certificate here: `lockstep certs issue {role} {id}` makes one");
            return Err(CertsError::Refused(problem));
        }
        let mut changes = Vec::new();
        for who in named {
            match locked.renew_part(&who, selection, lifetime) {
                Ok(more) => changes.extend(more),
                Err(problem) => changes.push(failed(&who, &problem)),
            }
        }
        changes.extend(locked.write_crl_if_stale()?);
        Ok(changes)
    }
}

/// That nothing was done for `who`, and why.
pub(crate) fn failed(who: &Identity, problem: &CertsError) -> Change {
    Change::new(Action::Failed, format!("{}/{}", who.role, who.id)).because(problem.to_string())
}

impl Locked<'_> {
    fn renew_part(
        &mut self,
        who: &Identity,
        selection: &Selection,
        lifetime: Option<Duration>,
    ) -> Result<Vec<Change>, CertsError> {
        let (mut wanted, mut kept) = (Vec::new(), Vec::new());
        for kind in Kind::ALL {
            let Some((found, state)) = self.look(who, kind)? else { continue };
            let what = format!("{}/{} {}", who.role, who.id, kind.as_str());
            match (selection, state) {
                (Selection::Due, State::Good) => {}
                (Selection::Due | Selection::All, State::Revoked) => {
                    let reason = "it is revoked: name it to bring its holder back";
                    kept.push(Change::new(Action::Kept, what).because(reason));
                }
                _ => {
                    let successor = self.successor(kind, &found);
                    wanted.push(Wanted { lifetime: lifetime.unwrap_or(successor.lifetime), ..successor });
                }
            }
        }
        Ok([kept, self.put(who, &wanted)?].concat())
    }

    /// What is to come after a leaf.
    pub(crate) fn successor(&self, kind: Kind, found: &leaf::OnDisk) -> Wanted {
        Wanted { kind, lifetime: found.lifetime(&self.state.authorities), sans: found.sans() }
    }

    /// Signs leaves and puts them in place, all in one step. Each is on record before anybody can use it.
    pub(crate) fn put(&mut self, who: &Identity, wanted: &[Wanted]) -> Result<Vec<Change>, CertsError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.pki.now();
        let paths = self.pki.paths_of(who);
        let (mut files, mut changes) = (Vec::new(), Vec::new());
        for wanted in wanted {
            if wanted.lifetime.as_secs() == 0 {
                return Err(CertsError::Usage("a certificate must live for a second at least".to_owned()));
            }
            let authority: &Authority = self.state.newest(&self.pki.dir)?;
            let signer = self.pki.signer(authority)?;
            let signed = leaf::sign(authority, &signer, who, wanted, now)?;
            let number = authority.number;
            self.state.records.add_issued(&signed.facts, who, wanted.kind, number, now)?;
            let (certificate, key) = wanted.kind.files();
            let action = if paths.dir.join(certificate).exists() { Action::Renewed } else { Action::Issued };
            let what = format!("{}/{} {}", who.role, who.id, wanted.kind.as_str());
            changes.push(Change::new(action, what).until(&signed.facts.serial, signed.facts.not_after));
            files.push(NewFile { name: key, bytes: signed.key.into_bytes(), mode: SECRET });
            files.push(NewFile { name: certificate, bytes: signed.certificate.into_bytes(), mode: PUBLIC });
        }
        files.push(NewFile { name: AUTHORITIES, bytes: self.state.bundle().into_bytes(), mode: PUBLIC });
        ensure_dir(&self.pki.dir.join(who.role.as_str()))?;
        put_into_dir(&paths.dir, LEAF_DIR, &files)?;
        Ok(changes)
    }
}
