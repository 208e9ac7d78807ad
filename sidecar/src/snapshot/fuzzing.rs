//! Doors for the fuzzer: snapshots with any image and dump behind checks that are right.

use super::format::encode_end;
use super::{SnapshotFile, file::FileError};
use mesh::config::{ClusterConfig, Durability};
use mesh::ids::{Digest, Generation, ReplicaId, Slot};
use mesh::order::Image;
use mesh::transfer::{CHUNK_BYTES, Manifest};
use std::path::Path;

/// The bytes of an image.
#[must_use]
pub fn image() -> Vec<u8> {
    let cluster = ClusterConfig::of(3, "line/shared", Durability::Sync);
    let mut image = Image::genesis(cluster);
    (image.slot, image.time) = (Slot(9), 7);
    mesh::wire::encode(&image).to_vec()
}

/// The manifest of this content.
#[must_use]
pub fn manifest(content: &[u8], image_len: u64) -> Manifest {
    Manifest {
        cluster: "fuzz".to_owned(),
        generation: Generation::FIRST,
        member: ReplicaId(1),
        slot: Slot(9),
        image_len,
        total_len: content.len() as u64,
        chunks: content.chunks(CHUNK_BYTES).map(Digest::of).collect(),
    }
}

/// A snapshot's file.
#[must_use]
pub fn whole(content: &[u8], manifest: &Manifest) -> Vec<u8> {
    [content, &encode_end(manifest)].concat()
}

/// Opens a snapshot's file and reads all of it: the bytes of its dump.
///
/// # Errors
/// It is none, in words.
pub fn read(path: &Path) -> Result<usize, String> {
    let words = |error: FileError| error.to_string();
    let file = SnapshotFile::open(path).map_err(words)?;
    file.manifest().validate("fuzz").map_err(|error| error.to_string())?;
    file.image().map_err(words)?;
    let mut bytes = 0;
    let dumped = file.dump(|piece| {
        bytes += piece.len();
        true
    });
    dumped.map_err(words)?;
    file.verify(&mut |_| ()).map_err(words)?;
    Ok(bytes)
}
