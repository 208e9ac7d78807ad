//! One authority replaced by another, with both trusted in between:
//!
//! 1. `start` makes the new one and tells everybody to trust it; only then does it issue.
//! 2. The leaves are renewed, while nobody minds which of the two signed a peer's.
//! 3. `finish` ends the trust in the old one, once no live leaf chains to it.

use crate::authority::{self, Authority};
use crate::clock::Moment;
use crate::error::CertsError;
use crate::files;
use crate::issue::{Action, Change};
use crate::leaf::{Kind, State as LeafState};
use crate::pki::{self, Pki, State};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;

/// How a rotation stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rotation {
    /// Whether one is under way: two authorities are trusted.
    pub rotating: bool,
    /// The number of the authority that issues.
    pub issuing: u32,
    /// Whether the next authority is made, but does not issue yet: `start` was interrupted.
    pub starting: bool,
    /// All that are trusted.
    pub authorities: Vec<AuthorityFacts>,
}

/// A trusted authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuthorityFacts {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub subject: String,
    /// Its serial number.
    pub serial: String,
    /// Until when it is valid.
    pub not_after: Moment,
    /// SHA-256 of its certificate, hexadecimal, as `/status` has it.
    pub sha256: String,
    /// Parts whose newest leaf is from it, and neither expired nor revoked: `server/0`.
    pub live: Vec<String>,
}

impl Pki {
    /// How a rotation stands.
    ///
    /// # Errors
    /// Files that cannot be read or used.
    pub fn rotation(&self) -> Result<Rotation, CertsError> {
        let state = State::read(&self.dir)?;
        let facts = state.authorities.iter().map(|authority| {
            Ok(AuthorityFacts {
                number: authority.number,
                subject: authority.facts.subject.clone(),
                serial: authority.facts.serial.clone(),
                not_after: authority.facts.not_after,
                sha256: authority.facts.sha256.clone(),
                live: self.live(&state, authority)?.into_iter().collect(),
            })
        });
        Ok(Rotation {
            rotating: state.authorities.len() > 1,
            issuing: state.newest(&self.dir)?.number,
            starting: state.next.is_some(),
            authorities: facts.collect::<Result<_, CertsError>>()?,
        })
    }

    /// Makes a new authority. Everybody's copy of the bundle has it before it issues anything. Goes on with a start that
    /// was interrupted.
    ///
    /// # Errors
    /// [`CertsError::Refused`] if a rotation is under way; a passphrase that is missing or wrong; the file system's.
    pub fn rotation_start(&self, lifetime: Option<Duration>) -> Result<Vec<Change>, CertsError> {
        let mut locked = self.locked()?;
        if let [first, .., last] = &locked.state.authorities[..] {
            let problem = format!(
                "a rotation from ca/{} to ca/{} is under way: `lockstep certs rotate-ca finish` or `abort` ends it",
                first.number, last.number
            );
            return Err(CertsError::Refused(problem));
        }
        // Opened here: a key under a passphrase must not be followed by one without, nor under another one.
        let newest = locked.state.newest(&self.dir)?;
        self.signer(newest)?;
        if locked.state.next.is_none() {
            let wanted = authority::Wanted {
                cluster: &newest.cluster,
                trust_domain: &newest.trust_domain,
                lifetime: lifetime.unwrap_or(authority::LIFETIME),
                passphrase: self.passphrase.as_ref(),
                now: self.now(),
            };
            pki::create_next(&self.dir, &wanted)?;
        }
        // Trusted first,
        locked.reload()?;
        let next = locked.state.next.as_ref().ok_or_else(|| CertsError::NoAuthority(self.dir.clone()))?;
        let (number, facts) = (next.number, next.facts.clone());
        let place = self.dir.join("ca").join(number.to_string());
        // and only then issuing.
        files::rename(&next.dir, &place)?;
        locked.reload()?;
        let change = Change::new(Action::Issued, format!("ca/{number}")).until(&facts.serial, facts.not_after);
        Ok([Some(change), locked.write_crl_if_stale()?].into_iter().flatten().collect())
    }

    /// Ends the trust in all authorities but the newest. Their keys are kept in `ca/retired`. Without a rotation there
    /// is nothing to do.
    ///
    /// # Errors
    /// [`CertsError::Refused`] while a live leaf chains to one of them, or `start` was interrupted.
    pub fn rotation_finish(&self) -> Result<Vec<Change>, CertsError> {
        let mut locked = self.locked()?;
        if locked.state.next.is_some() {
            let problem =
                "the start of a rotation was interrupted: `lockstep certs rotate-ca start` goes on, `abort` ends it";
            return Err(CertsError::Refused(problem.to_owned()));
        }
        let (_, old) =
            locked.state.authorities.split_last().ok_or_else(|| CertsError::NoAuthority(self.dir.clone()))?;
        let mut live = BTreeSet::new();
        for authority in old {
            live.extend(self.live(&locked.state, authority)?);
        }
        if !live.is_empty() {
            let live = Vec::from_iter(live).join(" ");
            let problem = format!(
                "certificates of the old authority are in use: {live}: `lockstep certs renew {live}` replaces them, and \
                 `lockstep certs revoke ROLE/ID` gives up one that is lost"
            );
            return Err(CertsError::Refused(problem));
        }
        let mut changes: Vec<Change> = Vec::new();
        for authority in old {
            pki::retire(&self.dir, authority)?;
            changes.push(retired(authority));
        }
        locked.reload()?;
        changes.extend(locked.write_crl_if_stale()?);
        Ok(changes)
    }

    /// Goes back to the authority before the newest, if no live leaf chains to the newest. Its key is kept in
    /// `ca/retired`. Without a rotation there is nothing to do.
    ///
    /// # Errors
    /// [`CertsError::Refused`] while a live leaf chains to the newest one.
    pub fn rotation_abort(&self) -> Result<Vec<Change>, CertsError> {
        let mut locked = self.locked()?;
        let newest = match (&locked.state.next, &locked.state.authorities[..]) {
            (Some(next), _) => next,
            (None, [_, .., newest]) => newest,
            _ => return Ok(Vec::new()),
        };
        let live = Vec::from_iter(self.live(&locked.state, newest)?).join(" ");
        if !live.is_empty() {
            let problem = format!(
                "certificates of the new authority are in use: {live}: `lockstep certs rotate-ca finish` goes forward, \
                 `lockstep certs revoke ROLE/ID` gives one up"
            );
            return Err(CertsError::Refused(problem));
        }
        pki::retire(&self.dir, newest)?;
        let mut changes = vec![retired(newest)];
        locked.reload()?;
        changes.extend(locked.write_crl_if_stale()?);
        Ok(changes)
    }

    /// The parts that would be cut off without `authority`: those whose newest leaf on record is from it, or whose leaf
    /// on the disk is, if that is neither expired nor revoked.
    fn live(&self, state: &State, authority: &Authority) -> Result<BTreeSet<String>, CertsError> {
        let now = self.now();
        let on_record = state
            .records
            .newest()
            .filter(|issued| issued.ca == authority.number && issued.not_after >= now && issued.revoked_at.is_none());
        let mut live: BTreeSet<String> = on_record.map(|issued| format!("{}/{}", issued.role, issued.id)).collect();
        for who in self.everybody()? {
            for kind in Kind::ALL {
                if let Some((found, judged)) = pki::look(self, state, &who, kind)?
                    && authority.issued(&found.facts)
                    && matches!(judged, LeafState::Good | LeafState::Due)
                {
                    live.insert(format!("{}/{}", who.role, who.id));
                }
            }
        }
        Ok(live)
    }
}

fn retired(authority: &Authority) -> Change {
    let reason = format!("no longer trusted; its key is kept in ca/{}/{}", pki::RETIRED, authority.number);
    let change = Change::new(Action::Revoked, format!("ca/{}", authority.number));
    change.until(&authority.facts.serial, authority.facts.not_after).because(reason)
}
