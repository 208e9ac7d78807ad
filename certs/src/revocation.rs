//! Certificates revoked, and the lists that say so: `pki/crl.pem`, one for each trusted authority.

use crate::authority::Authority;
use crate::clock::Moment;
use crate::error::CertsError;
use crate::facts::{hex, unhex};
use crate::files::{self, PUBLIC};
use crate::issue::{Action, Change};
use crate::leaf::{Kind, State, normal_serial};
use crate::pki::{Locked, Pki};
use crate::record::Issued;
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;
use x509_parser::pem::Pem;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

/// How long a revocation list is valid. Links heed it beyond that too; OpenSSL does not.
const LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);

/// What to revoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoke {
    /// All certificates of a part that are still valid.
    Part {
        /// Its role.
        role: String,
        /// Its id.
        id: String,
    },
    /// The certificate with this serial number, in hexadecimal.
    Serial(String),
}

/// What a revocation list says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CrlFacts {
    /// Whose list it is, as a distinguished name.
    pub issuer: String,
    /// Its number: newer lists have higher ones.
    pub number: Option<u64>,
    /// When it was made.
    pub this_update: Moment,
    /// When its successor is to be there.
    pub next_update: Option<Moment>,
    /// What is revoked.
    pub revoked: Vec<RevokedFacts>,
}

/// A certificate in a revocation list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RevokedFacts {
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// Since when.
    pub at: Moment,
}

impl CrlFacts {
    /// Reads a revocation list in DER, without verifying it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(der: &[u8]) -> Result<Self, &'static str> {
        let (_, list) = CertificateRevocationList::from_der(der).map_err(|_| "a malformed revocation list")?;
        let revoked = list.iter_revoked_certificates().map(|revoked| RevokedFacts {
            serial: hex(&revoked.serial().to_bytes_be()),
            at: Moment(revoked.revocation_date.timestamp()),
        });
        Ok(Self {
            issuer: list.issuer().to_string(),
            number: list.crl_number().and_then(|number| number.try_into().ok()),
            this_update: Moment(list.last_update().timestamp()),
            next_update: list.next_update().map(|date| Moment(date.timestamp())),
            revoked: revoked.collect(),
        })
    }
}

/// The lists in PEM text; what is none, or malformed, is left out.
pub(crate) fn lists_in(text: &str) -> Vec<CrlFacts> {
    let blocks = Pem::iter_from_buffer(text.as_bytes()).filter_map(Result::ok);
    blocks.filter(|block| block.label == "X509 CRL").filter_map(|block| CrlFacts::of(&block.contents).ok()).collect()
}

impl Pki {
    /// Revokes certificates and signs the revocation lists anew. One that is revoked already stays so.
    ///
    /// # Errors
    /// [`CertsError::Refused`] if nothing is known of such a certificate; a role or id that cannot be; that an
    /// authority's key is not here.
    pub fn revoke(&self, which: &Revoke) -> Result<Vec<Change>, CertsError> {
        let mut locked = self.locked()?;
        // First of all: without the keys nothing could be told to anybody.
        locked.state.authorities.iter().try_for_each(|authority| self.signer(authority).map(|_| ()))?;
        let now = self.now();
        let chosen: Vec<Issued> = match which {
            Revoke::Part { role, id } => locked.of_part(role, id)?,
            Revoke::Serial(serial) => {
                if normal_serial(serial).is_none() {
                    let problem = format!("{serial} is not a serial number: write it in hexadecimal, as `list` does");
                    return Err(CertsError::Usage(problem));
                }
                let found = locked.state.records.find(serial).cloned();
                let unknown = || CertsError::Refused(format!("no certificate with serial {serial} was issued here"));
                vec![found.ok_or_else(unknown)?]
            }
        };
        let mut changes = Vec::new();
        for issued in chosen {
            let what = format!("{}/{} {}", issued.role, issued.id, issued.kind.as_str());
            let is_new = issued.revoked_at.is_none();
            if is_new {
                locked.state.records.add_revoked(&issued.serial, now)?;
            }
            let change = Change::new(if is_new { Action::Revoked } else { Action::Kept }, what);
            let change = change.until(&issued.serial, issued.not_after);
            changes.push(if is_new { change } else { change.because("it was revoked before") });
        }
        changes.push(locked.write_crl()?);
        Ok(changes)
    }

    /// Signs the revocation lists anew.
    ///
    /// # Errors
    /// That an authority's key is not here; the file system's.
    pub fn write_crl(&self) -> Result<Change, CertsError> {
        self.locked()?.write_crl()
    }
}

impl Locked<'_> {
    /// What a part has that is valid, or will be, or is revoked already.
    fn of_part(&mut self, role: &str, id: &str) -> Result<Vec<Issued>, CertsError> {
        let who = self.pki.identity(role, id)?;
        let now = self.pki.now();
        for kind in Kind::ALL {
            // Issued by a build that kept no record, or the record was lost.
            if let Some((found, _)) = self.look(&who, kind)?
                && self.state.records.find(&found.facts.serial).is_none()
                && let Some(by) = self.state.authorities.iter().find(|authority| authority.issued(&found.facts))
            {
                let number = by.number;
                self.state.records.add_issued(&found.facts, &who, kind, number, now)?;
            }
        }
        let issued = self.state.records.issued.iter();
        let theirs = issued.filter(|issued| issued.role == role && issued.id == id && issued.not_after >= now);
        let theirs: Vec<Issued> = theirs.cloned().collect();
        if theirs.is_empty() {
            return Err(CertsError::Refused(format!("{role}/{id} has no certificate that is still valid")));
        }
        Ok(theirs)
    }

    /// What the list of an authority has to name.
    fn revoked_by(&self, authority: &Authority) -> impl Iterator<Item = (&Issued, Moment)> {
        // RFC 5280, section 3.3: an entry stays until one list has been made after its certificate has expired.
        let since = self.pki.now().minus(LIFETIME);
        let issued = self.state.records.issued.iter();
        let theirs = issued.filter(move |issued| issued.ca == authority.number && issued.not_after >= since);
        theirs.filter_map(|issued| Some((issued, issued.revoked_at?)))
    }

    /// Signs the revocation lists anew.
    pub(crate) fn write_crl(&mut self) -> Result<Change, CertsError> {
        let now = self.pki.now();
        let path = self.pki.crl_path();
        let there = lists_in(&files::read_if_there(&path)?).iter().filter_map(|list| list.number).max();
        let number = self.state.records.crl_number.max(there.unwrap_or(0)) + 1;
        let (mut text, mut revoked) = (String::new(), 0);
        for authority in &self.state.authorities {
            let serial = |issued: &Issued| SerialNumber::from(unhex(&issued.serial).unwrap_or_default());
            let entries = self.revoked_by(authority).map(|(issued, at)| RevokedCertParams {
                serial_number: serial(issued),
                revocation_time: at.date(),
                reason_code: None,
                invalidity_date: None,
            });
            let params = CertificateRevocationListParams {
                this_update: now.date(),
                next_update: now.plus(LIFETIME).date(),
                crl_number: SerialNumber::from(number),
                issuing_distribution_point: None,
                revoked_certs: entries.collect(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            revoked += params.revoked_certs.len();
            text.push_str(&params.signed_by(&*self.pki.signer(authority)?)?.pem()?);
        }
        self.state.records.add_crl(number, now)?;
        files::replace(&path, text.as_bytes(), PUBLIC)?;
        let reason = format!("number {number}, {revoked} revoked");
        let change = Change::new(Action::Issued, "crl.pem").because(reason);
        Ok(Change { not_after: Some(now.plus(LIFETIME)), ..change })
    }

    /// Signs the revocation lists anew if they lack an authority or a revocation, or are due. Where the key is not at
    /// hand, the change says so and the lists stay: everything else has been done.
    pub(crate) fn write_crl_if_stale(&mut self) -> Result<Option<Change>, CertsError> {
        let lists = lists_in(&files::read_if_there(&self.pki.crl_path())?);
        let is_current = |authority: &Authority| {
            let list = lists.iter().find(|list| list.issuer == authority.facts.subject);
            list.is_some_and(|list| {
                let listed: BTreeSet<&str> = list.revoked.iter().map(|revoked| revoked.serial.as_str()).collect();
                let until = list.next_update.unwrap_or(list.this_update);
                self.revoked_by(authority).all(|(issued, _)| listed.contains(issued.serial.as_str()))
                    && State::by_age(list.this_update, until, self.pki.now()) == State::Good
            })
        };
        if lists.len() == self.state.authorities.len() && self.state.authorities.iter().all(is_current) {
            return Ok(None);
        }
        match self.write_crl() {
            Err(problem @ CertsError::PassphraseMissing(_)) => {
                Ok(Some(Change::new(Action::Failed, "crl.pem").because(problem.to_string())))
            }
            written => written.map(Some),
        }
    }
}
