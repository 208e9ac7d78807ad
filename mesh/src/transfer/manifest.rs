//! What a snapshot consists of: one hash for each of its chunks.

use crate::ids::{Digest, Generation, ReplicaId, Slot};
use crate::limits::Limits;
use serde::{Deserialize, Serialize};

/// Bytes of every chunk but the last.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Chunks of a snapshot at most: 64 GiB.
pub const CHUNKS_MAX: usize = 1 << 16;
/// Bytes of an image at most: it is read into memory whole.
pub const IMAGE_BYTES_MAX: u64 = 1 << 30;

const _: () = {
    let message = Limits::DEFAULT.message_bytes;
    assert!(CHUNK_BYTES + 64 <= message, "a chunk and its envelope fit into a message");
    assert!(CHUNKS_MAX * 32 + 1024 <= message, "so does the largest manifest");
};

/// See the module. The content is the core's image followed by the application's dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The cluster's name.
    pub cluster: String,
    /// The generation that the log was in at that slot.
    pub generation: Generation,
    /// Who took the snapshot.
    pub member: ReplicaId,
    /// The state is that after this slot.
    pub slot: Slot,
    /// Bytes of the image, the first of the content.
    pub image_len: u64,
    /// Bytes of the content.
    pub total_len: u64,
    /// The hash of each chunk, in order.
    pub chunks: Vec<Digest>,
}

/// Why a manifest cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// Of another cluster.
    #[error("it is of cluster {found}, not of {expected}")]
    Cluster {
        /// What it says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// Lengths and hashes contradict each other, or a bound.
    #[error("its lengths contradict each other")]
    Lengths,
    /// Of no slot.
    #[error("it names no slot")]
    Slot,
}

impl Manifest {
    /// Refuses what no member of `cluster` can have written.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self, cluster: &str) -> Result<(), BadManifest> {
        if self.cluster != cluster {
            return Err(BadManifest::Cluster { found: self.cluster.clone(), expected: cluster.to_owned() });
        }
        if self.slot == Slot(0) {
            return Err(BadManifest::Slot);
        }
        let chunks = self.chunks.len();
        let fits = chunks <= CHUNKS_MAX && self.total_len.div_ceil(CHUNK_BYTES as u64) == chunks as u64;
        // An image is never empty.
        if !fits || self.image_len == 0 || self.image_len > self.total_len.min(IMAGE_BYTES_MAX) {
            return Err(BadManifest::Lengths);
        }
        Ok(())
    }

    /// Where chunk `index` begins.
    #[must_use]
    pub const fn offset(&self, index: usize) -> u64 {
        index as u64 * CHUNK_BYTES as u64
    }

    /// Bytes of chunk `index`; 0 where there is none.
    #[must_use]
    pub fn chunk_len(&self, index: usize) -> usize {
        let rest = self.total_len.saturating_sub(self.offset(index));
        usize::try_from(rest).unwrap_or(usize::MAX).min(CHUNK_BYTES)
    }

    /// Whether `bytes` are chunk `index`.
    #[must_use]
    pub fn matches(&self, index: usize, bytes: &[u8]) -> bool {
        bytes.len() == self.chunk_len(index) && self.chunks.get(index).is_some_and(|hash| *hash == Digest::of(bytes))
    }

    /// Its own hash, by which receivers name it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&crate::wire::encode(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(total: usize) -> Manifest {
        let content = vec![7; total];
        Manifest {
            cluster: "kv".to_owned(),
            generation: Generation { count: 1, mark: 2 },
            member: ReplicaId(1),
            slot: Slot(9),
            image_len: 1,
            total_len: total as u64,
            chunks: content.chunks(CHUNK_BYTES).map(Digest::of).collect(),
        }
    }

    #[test]
    fn lengths_and_hashes_agree_or_the_manifest_is_refused() {
        for total in [1, CHUNK_BYTES, CHUNK_BYTES + 1] {
            assert_eq!(manifest(total).validate("kv"), Ok(()), "{total}");
        }
        let refused = |change: fn(&mut Manifest)| {
            let mut manifest = manifest(CHUNK_BYTES + 1);
            change(&mut manifest);
            manifest.validate("kv").expect_err("it contradicts itself")
        };
        assert_eq!(refused(|manifest| manifest.total_len += CHUNK_BYTES as u64), BadManifest::Lengths);
        assert_eq!(refused(|manifest| manifest.total_len = u64::MAX), BadManifest::Lengths);
        assert_eq!(refused(|manifest| manifest.image_len = 0), BadManifest::Lengths);
        assert_eq!(refused(|manifest| manifest.image_len = manifest.total_len + 1), BadManifest::Lengths);
        assert_eq!(refused(|manifest| manifest.slot = Slot(0)), BadManifest::Slot);
        assert!(matches!(refused(|manifest| manifest.cluster.push('x')), BadManifest::Cluster { .. }));
    }

    #[test]
    fn a_chunk_is_recognised_by_its_place_its_length_and_every_byte() {
        let manifest = manifest(CHUNK_BYTES + 3);
        assert!(manifest.matches(0, &vec![7; CHUNK_BYTES]));
        assert!(manifest.matches(1, &[7; 3]));
        assert!(!manifest.matches(1, &[7, 7, 6]));
        assert!(!manifest.matches(1, &[7; 4]));
        assert!(!manifest.matches(0, &[7; 3]));
        assert!(!manifest.matches(2, &[]), "there is no third one");
    }
}
