//! Between two servers, on bidirectional streams of their link: one fetches the other's snapshot.

use crate::ids::{Digest, Generation, Slot};
use crate::transfer::Manifest;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TransferAsk {
    /// What does your newest snapshot consist of? It is of use from this slot on.
    Manifest {
        /// The lowest slot that is of use.
        least: Slot,
        /// The asker's generation: what belongs to another one is of no use.
        generation: Generation,
    },
    /// One of its chunks.
    Chunk {
        /// The snapshot's slot.
        slot: Slot,
        /// The hash of its manifest: a slot can have several snapshots, one after another.
        manifest: Digest,
        /// Which chunk, from 0.
        index: u32,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferAnswer {
    /// To [`TransferAsk::Manifest`].
    Manifest(Box<Manifest>),
    /// To [`TransferAsk::Chunk`].
    Chunk(Bytes),
    /// There is no snapshot of such a slot.
    Nothing,
    /// That snapshot is not served any more, or is damaged.
    Gone,
}
