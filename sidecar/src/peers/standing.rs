//! How the links to the other members stand, for `/status`.

use super::PeerLinks;
use mesh::ids::ReplicaId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Why the newest attempt to reach each peer failed. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Troubles(Arc<Mutex<BTreeMap<ReplicaId, String>>>);

impl Troubles {
    /// It was not reached.
    pub(super) fn note(&self, id: ReplicaId, reason: String) {
        self.lock().insert(id, reason);
    }

    /// It was.
    pub(super) fn forget(&self, id: ReplicaId) {
        self.lock().remove(&id);
    }

    fn of(&self, id: ReplicaId) -> Option<String> {
        self.lock().get(&id).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ReplicaId, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PeerLinks {
    /// The `peers` of `/status`: ids, and the addresses that are dialled.
    pub(crate) fn status<'a>(&self, peers: impl Iterator<Item = (ReplicaId, Option<&'a str>)>) -> Value {
        let one = |(id, address): (ReplicaId, Option<&str>)| {
            let link = self.get(id);
            let remote = link.as_ref().map(|link| link.remote_address().to_string());
            json!({
                "address": address.or(remote.as_deref()),
                "id": id.0,
                "remote": remote,
                "up": link.is_some(),
                "error": self.troubles.of(id),
                "rtt_seconds": link.map(|link| link.rtt().as_secs_f64()),
            })
        };
        peers.map(one).collect()
    }
}
