//! The name of a session (rule 17).

use crate::ids::{ClientId, Opening, Slot};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The name of a session: no two sessions of a cluster ever have the same.
///
/// As text, and in serde: the client id in hexadecimal, `@`, the opening slot, `@`, the generation.
///
/// ```
/// # use mesh::client::SessionName;
/// let name: SessionName = "0000000000000000000000000000002a@7@1-00000000000000ff".parse().unwrap();
/// assert_eq!((name.client.0, name.opened.slot.0, name.opened.generation.mark), (42, 7, 255));
/// assert_eq!(name.to_string(), "0000000000000000000000000000002a@7@1-00000000000000ff");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SessionName {
    /// What its opener drew at random.
    pub client: ClientId,
    /// Where it was opened.
    pub opened: Opening,
}

/// A text that is no session's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a session's name is a client id of up to 32 hexadecimal digits, @, the number of the slot that opened it, @, and the \
     generation, such as 2a@7@1-00000000000000ff"
)]
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
        let (slot, generation) = opened.split_once('@').ok_or(NameError)?;
        let is_number = !slot.is_empty() && slot.bytes().all(|digit| digit.is_ascii_digit());
        let slot = slot.parse().ok().filter(|_| is_number).map(Slot).ok_or(NameError)?;
        let generation = generation.parse().map_err(|_| NameError)?;
        Ok(Self { client: client.parse().map_err(|_| NameError)?, opened: Opening { generation, slot } })
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
