//! What real clients did and saw, by one clock; kept as JSON lines.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "UPPERCASE")]
pub enum Op {
    /// Sets a key. No two calls of a history put the same value under the same key.
    Put {
        /// Which.
        key: String,
        /// To what.
        value: String,
    },
    /// Reads a key.
    Get {
        /// Which.
        key: String,
    },
    /// Removes a key.
    Remove {
        /// Which.
        key: String,
    },
    /// Counts the entries.
    Size,
}

/// What became of it. Times are nanoseconds of the clock that all clients share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Outcome {
    /// It was answered.
    Reply {
        /// When.
        returned: u64,
        /// How, without the line end.
        reply: String,
    },
    /// It did not run and never will.
    Refused,
    /// It may have run at any time since it was called, may run yet, or never.
    Unknown {
        /// When the client gave up, or its connection ended.
        ended: u64,
    },
}

/// One call of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Whose.
    pub client: u32,
    /// When, in nanoseconds.
    pub called: u64,
    /// What was asked.
    #[serde(flatten)]
    pub op: Op,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Op {
    /// The request's line, without its end.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Self::Put { key, value } => format!("PUT {key} {value}"),
            Self::Get { key } => format!("GET {key}"),
            Self::Remove { key } => format!("REMOVE {key}"),
            Self::Size => "SIZE".to_owned(),
        }
    }

    /// The key that it is about.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Put { key, .. } | Self::Get { key } | Self::Remove { key } => Some(key),
            Self::Size => None,
        }
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (client, request, called) = (self.client, self.op.line(), self.called as f64 / 1e9);
        write!(f, "client {client}: {request} (called at {called:.6} s, ")?;
        match &self.outcome {
            Outcome::Reply { returned, reply } => write!(f, "answered \"{reply}\" at {:.6} s)", *returned as f64 / 1e9),
            Outcome::Refused => f.write_str("refused)"),
            Outcome::Unknown { ended } => write!(f, "outcome unknown at {:.6} s)", *ended as f64 / 1e9),
        }
    }
}

/// Writes a history, a call a line.
///
/// # Errors
/// What the writer says.
pub fn write(calls: &[Call], to: &mut impl Write) -> anyhow::Result<()> {
    for call in calls {
        serde_json::to_writer(&mut *to, call)?;
        to.write_all(b"\n")?;
    }
    Ok(())
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// The first line that is no call.
pub fn read(from: impl BufRead) -> anyhow::Result<Vec<Call>> {
    let parse = |(number, line): (usize, std::io::Result<String>)| {
        serde_json::from_str(&line?).with_context(|| format!("line {} is no call", number + 1))
    };
    from.lines().enumerate().map(parse).collect()
}
