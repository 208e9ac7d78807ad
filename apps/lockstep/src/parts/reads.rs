//! Settings of reads past the log.

use super::adapter::Protocol;
use clap::ValueEnum;
use mesh::framing::ReadOnly;
use mesh::node::config::Problems;

/// How requests that change nothing are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reads {
    /// By one server, after a majority has confirmed that its leader leads; nothing enters the log
    #[default]
    Index,
    /// Like all others
    Log,
}

/// Which requests change nothing; ingresses and sidecars must be told alike.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Words {
    /// Requests with these first words (of http: methods) change nothing: a server may answer them without the log. The
    /// same for all parts. Of resp that is known, and nothing need be said
    #[arg(long, value_name = "WORD,…", value_delimiter = ',')]
    read_only: Vec<String>,
}

/// Those of the hashmap.
const HASHMAP: [&str; 2] = ["GET", "SIZE"];

impl Words {
    /// As the parts have it.
    pub(crate) fn check(&self, protocol: Protocol, problems: &mut Problems) -> ReadOnly {
        let read_only = ReadOnly::new(protocol.into(), self.read_only.iter().cloned());
        problems.take("--read-only", read_only).unwrap_or_default()
    }

    /// The same, with those of the hashmap if it is one and nothing is said.
    pub(crate) fn or_hashmap(self, hashmap: bool, protocol: Protocol) -> Self {
        let lines = matches!(protocol, Protocol::Line | Protocol::Close);
        if hashmap && lines && self.read_only.is_empty() {
            return Self { read_only: HASHMAP.map(str::to_owned).to_vec() };
        }
        self
    }
}

/// As the flag of a part.
pub(crate) fn flag(read_only: &ReadOnly) -> Option<(&'static str, String)> {
    let words: Vec<&str> = read_only.words().collect();
    (!words.is_empty()).then(|| ("read-only", words.join(",")))
}
