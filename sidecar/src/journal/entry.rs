//! What is in the journal: the core's records and the sidecar's own word on its history.

use mesh::config::{ClusterConfig, Configuration};
use mesh::ids::{Ballot, Life, Position, Slot};
use mesh::order::Record;
use serde::{Deserialize, Serialize};

/// One entry of the journal. New kinds go to the end: the order is the encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// The first of every segment, and only that.
    Head {
        /// Where the frames of the segment before end; 0 where there was none.
        previous_end: u64,
        /// What the segments before said and is needed without them.
        summary: Box<Summary>,
    },
    /// A proposal for the cluster's first configuration: nothing was promised or voted before it was committed.
    Proposed {
        /// The attempt.
        token: u128,
        /// The configuration.
        cluster: ClusterConfig,
    },
    /// The last proposal was committed: this member votes.
    Started,
    /// This member begins a new life: it joined a cluster without proof of what it once promised (rule 12), or an operator
    /// has another generation begin here (rule 14).
    Learner {
        /// The configuration in which it does, the generation with it.
        configuration: Configuration,
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

/// How far this member's history is. New kinds go to the end: the order is the encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        /// The configuration in which it began, the generation with it.
        configuration: Configuration,
        /// Its life.
        life: Life,
    },
    /// Its journal was damaged so that it does not know whether it was part of a cluster: it can only join one that is
    /// there.
    Lost,
}

impl History {
    /// The history after one more entry.
    pub(crate) fn after(self, entry: &Entry) -> Self {
        match (self, entry) {
            (_, Entry::Head { summary, .. }) => summary.history.clone(),
            (Self::Blank | Self::Proposed { .. }, Entry::Proposed { token, cluster }) => {
                Self::Proposed { token: *token, cluster: cluster.clone() }
            }
            (Self::Proposed { cluster, .. }, Entry::Started) => {
                Self::Started { configuration: Configuration::first(cluster), life: Life(0) }
            }
            (_, Entry::Learner { configuration, life }) => {
                Self::Started { configuration: configuration.clone(), life: *life }
            }
            (history, _) => history,
        }
    }
}

/// What of a journal's entries must outlive their segments: all but the votes, which go when snapshots cover them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// How far the history is.
    pub(crate) history: History,
    /// The boot that wrote last.
    pub(crate) boot: String,
    /// The highest promise; a vote is one too.
    pub(crate) promised: Ballot,
    /// The last decided mark.
    pub(crate) decided: Slot,
    /// The last request that the application fell silent on; of slot 0 where its outcome is known.
    pub(crate) silent: Option<Position>,
    /// The slot of the last snapshot of a peer that took the place of what was before.
    pub(crate) jumped: Slot,
    /// The life is over.
    pub(crate) superseded: bool,
}

impl Summary {
    /// Of a journal that begins with this history.
    pub(crate) fn new(history: History, boot: &str) -> Self {
        Self {
            history,
            boot: boot.to_owned(),
            promised: Ballot::NONE,
            decided: Slot(0),
            silent: None,
            jumped: Slot(0),
            superseded: false,
        }
    }

    /// Takes one more entry in.
    pub(crate) fn note(&mut self, entry: &Entry) {
        match entry {
            // Nothing that the entries before it said is missing in a head.
            Entry::Head { summary, .. } => self.clone_from(summary),
            Entry::Proposed { .. } | Entry::Started | Entry::Learner { .. } => {
                let history = std::mem::replace(&mut self.history, History::Blank);
                self.history = history.after(entry);
            }
            Entry::Booted { boot } => self.boot.clone_from(boot),
            Entry::Core(Record::Promised { ballot } | Record::Accepted { ballot, .. }) => {
                self.promised = self.promised.max(*ballot);
            }
            Entry::Core(Record::Decided { slot }) => self.decided = self.decided.max(*slot),
            Entry::Core(Record::Silent { at }) => self.silent = Some(*at),
            Entry::Core(Record::Jumped { slot }) => {
                self.jumped = self.jumped.max(*slot);
                self.decided = self.decided.max(*slot);
            }
            Entry::Core(Record::Superseded) => self.superseded = true,
            Entry::Core(Record::Restarted { slot }) => {
                (self.decided, self.silent, self.superseded) = (*slot, None, false);
            }
        }
    }

    /// The core's part as records.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> + use<> {
        let promised = Some(Record::Promised { ballot: self.promised });
        let decided = Some(Record::Decided { slot: self.decided });
        let silent = self.silent.map(|at| Record::Silent { at });
        let jumped = (self.jumped > Slot(0)).then_some(Record::Jumped { slot: self.jumped });
        let superseded = self.superseded.then_some(Record::Superseded);
        [promised, decided, silent, jumped, superseded].into_iter().flatten()
    }
}

/// What a journal that can be gone on with says.
#[derive(Debug)]
pub(crate) struct Recovery {
    /// How far the history is.
    pub(crate) history: History,
    /// The core's records, in order.
    pub(crate) records: Vec<Record>,
}

impl Recovery {
    /// Of a journal that has nothing but a history.
    pub(crate) const fn of(history: History) -> Self {
        Self { history, records: Vec::new() }
    }
}
