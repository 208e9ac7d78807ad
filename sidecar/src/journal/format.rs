//! Bytes of a journal's segment: one header, then frames. No input or output here.
//!
//! A frame is one group commit: everything that one write and one sync made durable together. The last frame of all that
//! does not check out was torn by a crash before its sync answered, so nothing of it was ever acknowledged; any other one
//! had been synced, and the disk lost it (rule 13).
//!
//! The checks are keyed with a secret of the segment and cover the frame's offset: neither the body of a client's request
//! nor a stale copy of a frame elsewhere can pass for a frame.

use mesh::ids::ReplicaId;
use serde::{Deserialize, Serialize};

/// First bytes of a segment.
pub(super) const MAGIC: [u8; 8] = *b"LOCKSTEP";
/// The version of this format. Version 1 was one file that grew for ever; version 2 knew of no changes of members and no generations.
pub(super) const VERSION: u32 = 3;
/// Bytes that the header takes; the first frame begins here.
pub(super) const HEADER_BYTES: u64 = 4096;
/// Frames begin at multiples of this.
pub(super) const ALIGN: u64 = 8;
/// Bytes before a frame's payload: length (u32), check of the length (u32), check of the whole (u64).
pub(super) const FRAME_HEAD: usize = 16;
/// Bytes of one frame's payload at most.
pub(super) const FRAME_MAX: usize = 48 << 20;

/// Whose journal this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// The member.
    pub(crate) id: ReplicaId,
}

/// What a segment's header says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) identity: Identity,
    /// Drawn at random for each journal: no segment of another one is taken for one of this.
    pub(super) journal: u128,
    /// The segment's number.
    pub(super) number: u64,
    /// The key of the segment's frames.
    pub(super) key: Key,
}

/// Why a header cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// Of another version of this program.
    Version(u32),
    /// Damaged.
    Damaged,
}

/// The header's bytes.
pub(super) fn encode_header(header: &Header) -> Vec<u8> {
    let payload = mesh::wire::encode(header);
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER_BYTES as usize);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(header_check(VERSION, length, &payload).as_bytes());
    bytes.extend_from_slice(&payload);
    assert!(bytes.len() <= HEADER_BYTES as usize, "a cluster's name is a DNS name and fits");
    bytes.resize(HEADER_BYTES as usize, 0);
    bytes
}

/// Reads what [`encode_header`] wrote.
pub(super) fn decode_header(bytes: &[u8]) -> Result<Header, BadHeader> {
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(BadHeader::Damaged)?;
    let (version, rest) = rest.split_first_chunk::<4>().ok_or(BadHeader::Damaged)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(BadHeader::Damaged)?;
    let (check, rest) = rest.split_first_chunk::<32>().ok_or(BadHeader::Damaged)?;
    let (version, length) = (u32::from_le_bytes(*version), u32::from_le_bytes(*length));
    let payload = rest.get(..length as usize).ok_or(BadHeader::Damaged)?;
    // The version is covered by the check, so that a flipped bit of it is not taken for another program's.
    if *magic != MAGIC || header_check(version, length, payload).as_bytes() != check {
        return Err(BadHeader::Damaged);
    }
    if version != VERSION {
        return Err(BadHeader::Version(version));
    }
    mesh::wire::decode(payload).map_err(|_| BadHeader::Damaged)
}

/// The format's version of a file that begins with these bytes, if it is of this program at all.
pub(super) fn version_of(bytes: &[u8]) -> Option<u32> {
    let (version, _) = bytes.strip_prefix(&MAGIC)?.split_first_chunk::<4>()?;
    Some(u32::from_le_bytes(*version))
}

fn header_check(version: u32, length: u32, payload: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&version.to_le_bytes()).update(&length.to_le_bytes()).update(payload);
    hasher.finalize()
}

/// The secret that a segment's frames are checked with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key(pub(super) [u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    fn hasher(&self, offset: u64, length: u32) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&offset.to_le_bytes()).update(&length.to_le_bytes());
        hasher
    }

    fn check_length(&self, offset: u64, length: u32) -> u32 {
        u32::from_le_bytes(first(self.hasher(offset, length).finalize().as_bytes()))
    }

    fn check_payload(&self, offset: u64, payload: &[u8]) -> u64 {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        u64::from_le_bytes(first(self.hasher(offset, length).update(payload).finalize().as_bytes()))
    }

    /// The length of the frame that begins at `offset` with these bytes, if its head checks out.
    pub(super) fn read_head(&self, offset: u64, head: &[u8]) -> Option<usize> {
        let (length, rest) = head.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length);
        // The cheap tests first: a search of damaged bytes comes by here for every eighth one.
        if length == 0 || length as usize > FRAME_MAX {
            return None;
        }
        let (check, _) = rest.split_first_chunk::<4>()?;
        (self.check_length(offset, length) == u32::from_le_bytes(*check)).then_some(length as usize)
    }

    /// Whether `payload` is what was written at `offset` under this head.
    pub(super) fn payload_matches(&self, offset: u64, head: &[u8; FRAME_HEAD], payload: &[u8]) -> bool {
        let [.., a, b, c, d, e, f, g, h] = *head;
        self.check_payload(offset, payload) == u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// Completes the frame in `buffer`, which is [`FRAME_HEAD`] bytes of room followed by the payload.
    pub(super) fn seal(&self, offset: u64, buffer: &mut Vec<u8>) {
        let length = u32::try_from(buffer.len() - FRAME_HEAD).expect("a frame is at most FRAME_MAX");
        assert!(length > 0 && length as usize <= FRAME_MAX, "a frame of {length} bytes");
        let check = self.check_payload(offset, &buffer[FRAME_HEAD..]);
        buffer[..4].copy_from_slice(&length.to_le_bytes());
        buffer[4..8].copy_from_slice(&self.check_length(offset, length).to_le_bytes());
        buffer[8..16].copy_from_slice(&check.to_le_bytes());
        buffer.resize(frame_bytes(length as usize) as usize, 0);
    }
}

/// Bytes that a frame takes in the file.
pub(super) fn frame_bytes(payload: usize) -> u64 {
    ((FRAME_HEAD + payload) as u64).next_multiple_of(ALIGN)
}

fn first<const N: usize>(hash: &[u8; 32]) -> [u8; N] {
    std::array::from_fn(|index| hash[index])
}
