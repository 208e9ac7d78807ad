//! What was issued and revoked: `pki/issued.jsonl`, one event a line, added to and never rewritten. A certificate is
//! recorded before it is put in place, so that one whose files are lost, or were copied, can still be revoked.

use crate::clock::Moment;
use crate::error::CertsError;
use crate::facts::Facts;
use crate::files;
use crate::leaf::{Kind, normal_serial};
use mesh::names::Identity;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Issued {
        at: Moment,
        serial: String,
        role: String,
        id: String,
        kind: Kind,
        ca: u32,
        not_before: Moment,
        not_after: Moment,
    },
    Revoked {
        at: Moment,
        serial: String,
    },
    Crl {
        at: Moment,
        number: u64,
    },
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    /// Hexadecimal, without leading zeros.
    pub(crate) serial: String,
    pub(crate) role: String,
    pub(crate) id: String,
    pub(crate) kind: Kind,
    /// The number of the authority that signed it.
    pub(crate) ca: u32,
    pub(crate) not_before: Moment,
    pub(crate) not_after: Moment,
    pub(crate) revoked_at: Option<Moment>,
}

/// All that was issued, in the order in which it was.
pub(crate) struct Records {
    path: PathBuf,
    pub(crate) issued: Vec<Issued>,
    /// The number of the newest revocation lists, 0 before the first.
    pub(crate) crl_number: u64,
}

impl Records {
    pub(crate) fn read(dir: &Path) -> Result<Self, CertsError> {
        let path = dir.join("issued.jsonl");
        let text = files::read_record(&path)?;
        let mut records = Self { path, issued: Vec::new(), crl_number: 0 };
        // What follows the last line's end was not written whole, and nothing came of it.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for (number, line) in whole.lines().enumerate() {
            let event = serde_json::from_str(line).map_err(|problem| {
                let problem = format!("line {}: {problem}: restore the file, or remove that line", number + 1);
                CertsError::unusable(&records.path, problem)
            })?;
            records.apply(event);
        }
        Ok(records)
    }

    /// The one with this serial number.
    pub(crate) fn find(&self, serial: &str) -> Option<&Issued> {
        let serial = normal_serial(serial)?;
        self.issued.iter().find(|issued| issued.serial == serial)
    }

    pub(crate) fn is_revoked(&self, serial: &str) -> bool {
        self.find(serial).is_some_and(|issued| issued.revoked_at.is_some())
    }

    /// The newest of each part and kind.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Issued> {
        self.issued.iter().enumerate().filter_map(|(at, issued)| {
            let is_same =
                |other: &Issued| (&other.role, &other.id, other.kind) == (&issued.role, &issued.id, issued.kind);
            (!self.issued[at + 1..].iter().any(is_same)).then_some(issued)
        })
    }

    pub(crate) fn add_issued(
        &mut self,
        facts: &Facts,
        who: &Identity,
        kind: Kind,
        ca: u32,
        at: Moment,
    ) -> Result<(), CertsError> {
        self.append(Event::Issued {
            at,
            serial: facts.serial.clone(),
            role: who.role.to_string(),
            id: who.id.clone(),
            kind,
            ca,
            not_before: facts.not_before,
            not_after: facts.not_after,
        })
    }

    pub(crate) fn add_revoked(&mut self, serial: &str, at: Moment) -> Result<(), CertsError> {
        self.append(Event::Revoked { at, serial: serial.to_owned() })
    }

    pub(crate) fn add_crl(&mut self, number: u64, at: Moment) -> Result<(), CertsError> {
        self.append(Event::Crl { at, number })
    }

    fn append(&mut self, event: Event) -> Result<(), CertsError> {
        let line =
            serde_json::to_string(&event).map_err(|problem| CertsError::unusable(&self.path, problem.to_string()))?;
        files::append_line(&self.path, &line)?;
        self.apply(event);
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Issued { at: _, serial, role, id, kind, ca, not_before, not_after } => {
                self.issued.push(Issued { serial, role, id, kind, ca, not_before, not_after, revoked_at: None });
            }
            Event::Revoked { at, serial } => {
                let found = self.issued.iter_mut().find(|issued| issued.serial == serial);
                if let Some(issued) = found {
                    issued.revoked_at.get_or_insert(at);
                }
            }
            Event::Crl { at: _, number } => self.crl_number = self.crl_number.max(number),
        }
    }
}
