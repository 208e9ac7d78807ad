//! State transfer: a snapshot travels from one member to another, chunk by chunk.
//!
//! Whoever lacks it pulls: it asks for the manifest, then for chunks, a few at a time, and believes nothing that the
//! manifest's hashes do not confirm. What to ask, and when to give up, is decided by [`Receiver`], which is pure.

mod manifest;
mod receiver;
#[cfg(test)]
mod tests;

pub use manifest::{BadManifest, CHUNK_BYTES, CHUNKS_MAX, IMAGE_BYTES_MAX, Manifest};
pub use receiver::{GiveUp, Receiver, Taken};
