//! The core's part of a snapshot: everything that is a function of the log up to its slot, beside the application's state.

use super::sessions::Table;
use crate::config::ClusterConfig;
use crate::framing::ConnectionState;
use crate::ids::{ClientId, Digest, Epoch, Generation, Opening, Slot};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What of a snapshot is the core's. Stored with the application's dump, transferred with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The state is that after this slot.
    pub slot: Slot,
    /// The effective time of the slot, Unix time in ns (rule 7).
    pub time: u64,
    /// What was ordered up to it.
    pub work: Work,
    /// The rolling hash of all replies up to it.
    pub digest: Digest,
    /// The rolling hash at the last slot divisible by 1,000, and that slot.
    pub milestone: (Slot, Digest),
    /// The generation that the log is in after it.
    pub generation: Generation,
    /// The configuration after it.
    pub cluster: ClusterConfig,
    /// Changes of the configuration so far.
    pub epoch: Epoch,
    /// The slot of the last of them.
    pub configured: Slot,
    /// The slot of the last of those after which other members' replies count.
    pub elected: Slot,
    /// There is no part of the application beside it: a witness took it. Nothing with an application can begin with it.
    pub hollow: bool,
    /// What the connections of sessions to the application remember, where sessions have their own and these are as good as
    /// a new one no more (rule 27). Part of what is executed, as the dump is, and so put here by whoever takes that.
    pub connections: BTreeMap<(ClientId, Opening), ConnectionState>,
    /// The session table, with the replies that were kept.
    pub(super) sessions: Table,
}

impl Image {
    /// The state before the first slot.
    #[must_use]
    pub fn genesis(cluster: ClusterConfig) -> Self {
        Self {
            slot: Slot(0),
            time: 0,
            work: Work::default(),
            digest: Digest::default(),
            milestone: Default::default(),
            generation: cluster.generation,
            cluster,
            epoch: Epoch(0),
            configured: Slot(0),
            elected: Slot(0),
            hollow: false,
            connections: BTreeMap::new(),
            sessions: Table::new(),
        }
    }
}

/// How much was ordered, since the first slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Requests.
    pub requests: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}
