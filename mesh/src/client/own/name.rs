//! The name of a session (rule 17).

use crate::ids::{ClientId, Slot};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The name of a session: no two sessions of a cluster ever have the same.
///
/// As text, and in serde: the client id in hexadecimal, `@`, the opening slot.
///
/// ```
/// # use mesh::client::SessionName;
/// let name: SessionName = "0000000000000000000000000000002a@7".parse().unwrap();
/// assert_eq!((name.client.0, name.opened.0), (42, 7));
/// assert_eq!(name.to_string(), "0000000000000000000000000000002a@7");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SessionName {
    /// What its opener drew at random.
    pub client: ClientId,
    /// The slot that opened it.
    pub opened: Slot,
}

/// A text that is no session's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session's name is a client id of up to 32 hexadecimal digits, @, and the number of the slot that opened it")]
pub struct NameError;

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.client, self.opened)
    }
}

impl FromStr for SessionName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (client, opened) = text.split_once('@').ok_or(NameError)?;
        let is_number = !opened.is_empty() && opened.bytes().all(|digit| digit.is_ascii_digit());
        let opened = opened.parse().ok().filter(|_| is_number).ok_or(NameError)?;
        Ok(Self { client: client.parse().map_err(|_| NameError)?, opened: Slot(opened) })
    }
}

impl From<SessionName> for String {
    fn from(name: SessionName) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for SessionName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}
