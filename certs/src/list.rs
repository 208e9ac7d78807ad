//! What there is, and how it is.

use crate::clock::Moment;
use crate::error::CertsError;
use crate::leaf::{Kind, State as LeafState};
use crate::pki::{self, Pki, State};
use crate::record::Issued;
use serde::Serialize;

/// A leaf, or what is known of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Role of its holder.
    pub role: String,
    /// Id of its holder.
    pub id: String,
    /// What its key is for.
    pub kind: Kind,
    /// Serial number, hexadecimal without leading zeros; absent where the file cannot be read.
    pub serial: Option<String>,
    /// Valid from.
    pub not_before: Option<Moment>,
    /// Valid until.
    pub not_after: Option<Moment>,
    /// The number of the authority that signed it; absent if none of the trusted ones did.
    pub ca: Option<u32>,
    /// How it is; absent where the file cannot be used.
    pub state: Option<LeafState>,
    /// Whether its files are here. Those that were only ever on record, or superseded, are not.
    pub present: bool,
    /// What is wrong with its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Pki {
    /// The leaves that are here, and those on record that are not here, were not superseded, and are neither expired nor
    /// revoked: they are lost, or only elsewhere. With `all`: everything that was ever issued.
    ///
    /// # Errors
    /// A directory that cannot be read. A leaf that cannot be used is listed with what is wrong.
    pub fn list(&self, all: bool) -> Result<Vec<Listed>, CertsError> {
        let state = State::read(&self.dir)?;
        let mut listed = Vec::new();
        for who in self.everybody()? {
            for kind in Kind::ALL {
                let found = pki::look(self, &state, &who, kind);
                let (role, id) = (who.role.to_string(), who.id.clone());
                let nothing = Listed {
                    role,
                    id,
                    kind,
                    serial: None,
                    not_before: None,
                    not_after: None,
                    ca: None,
                    state: None,
                    present: true,
                    error: None,
                };
                listed.extend(match found {
                    Ok(None) => None,
                    Err(problem) => Some(Listed { error: Some(problem.to_string()), ..nothing }),
                    Ok(Some((found, judged))) => Some(Listed {
                        serial: Some(found.facts.serial.clone()),
                        not_before: Some(found.facts.not_before),
                        not_after: Some(found.facts.not_after),
                        ca: state.authorities.iter().find(|by| by.issued(&found.facts)).map(|by| by.number),
                        state: Some(judged),
                        ..nothing
                    }),
                });
            }
        }
        let is_here = |issued: &Issued| listed.iter().any(|listed| listed.serial.as_ref() == Some(&issued.serial));
        let elsewhere: Vec<Listed> = if all {
            state.records.issued.iter().filter(|issued| !is_here(issued)).map(|issued| self.recorded(issued)).collect()
        } else {
            let newest = state.records.newest().filter(|issued| !is_here(issued)).map(|issued| self.recorded(issued));
            newest.filter(|listed| matches!(listed.state, Some(LeafState::Good | LeafState::Due))).collect()
        };
        listed.extend(elsewhere);
        Ok(listed)
    }

    fn recorded(&self, issued: &Issued) -> Listed {
        let by_age = LeafState::by_age(issued.not_before, issued.not_after, self.now());
        Listed {
            role: issued.role.clone(),
            id: issued.id.clone(),
            kind: issued.kind,
            serial: Some(issued.serial.clone()),
            not_before: Some(issued.not_before),
            not_after: Some(issued.not_after),
            ca: Some(issued.ca),
            state: Some(if issued.revoked_at.is_some() { LeafState::Revoked } else { by_age }),
            present: false,
            error: None,
        }
    }
}
