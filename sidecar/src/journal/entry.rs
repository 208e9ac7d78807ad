//! What is in the journal: the core's records and the sidecar's own word on its history.

use mesh::config::ClusterConfig;
use mesh::ids::Life;
use mesh::order::Record;
use serde::{Deserialize, Serialize};

/// One entry of the journal. New kinds go to the end: the order is the encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// A proposal for the cluster's first configuration: nothing was promised or voted before it was committed.
    Proposed {
        /// The attempt.
        token: u128,
        /// The configuration.
        cluster: ClusterConfig,
    },
    /// The last proposal was committed: this member votes.
    Started,
    /// This member joined a cluster without proof of what it once promised: it begins a new life (rule 12).
    Learner {
        /// The first configuration.
        cluster: ClusterConfig,
        /// The life that begins.
        life: Life,
    },
    /// The machine's boot in which the journal is written from here on.
    Booted {
        /// Its id.
        boot: String,
    },
    /// A record of the ordering core.
    Core(Record),
}

/// How far this member's history is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum History {
    /// None.
    Blank,
    /// It holds a proposal and never voted.
    Proposed {
        /// The attempt.
        token: u128,
        /// The configuration.
        cluster: ClusterConfig,
    },
    /// It is part of a cluster.
    Started {
        /// The configuration.
        cluster: ClusterConfig,
        /// Its life.
        life: Life,
    },
}

impl History {
    /// The history after one more entry.
    pub(crate) fn after(self, entry: &Entry) -> Self {
        match (self, entry) {
            (Self::Blank | Self::Proposed { .. }, Entry::Proposed { token, cluster }) => {
                Self::Proposed { token: *token, cluster: cluster.clone() }
            }
            (Self::Proposed { cluster, .. }, Entry::Started) => Self::Started { cluster, life: Life(0) },
            (_, Entry::Learner { cluster, life }) => Self::Started { cluster: cluster.clone(), life: *life },
            (history, _) => history,
        }
    }
}

/// What a whole journal says.
#[derive(Debug)]
pub(crate) struct Recovery {
    /// How far the history is.
    pub(crate) history: History,
    /// The core's records, in order.
    pub(crate) records: Vec<Record>,
    /// The boot that wrote last, if it is known.
    pub(crate) boot: Option<String>,
}

impl Recovery {
    /// Of a member that has no journal.
    pub(crate) const fn blank() -> Self {
        Self { history: History::Blank, records: Vec::new(), boot: None }
    }

    /// Of a journal with these entries.
    pub(crate) fn of(entries: Vec<Entry>) -> Self {
        let mut recovery = Self::blank();
        for entry in entries {
            recovery.history = recovery.history.after(&entry);
            match entry {
                Entry::Core(record) => recovery.records.push(record),
                Entry::Booted { boot } => recovery.boot = Some(boot),
                Entry::Proposed { .. } | Entry::Started | Entry::Learner { .. } => {}
            }
        }
        recovery
    }
}
