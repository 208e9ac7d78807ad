//! Bytes of a snapshot's file: the content, then the manifest, then a trailer of fixed size that finds and checks the
//! manifest. The manifest is behind the content because it is not known before. No input or output here.

use mesh::ids::{Digest, Slot};
use mesh::transfer::Manifest;

/// Bytes of the trailer: length of the manifest (u32), its hash, magic, version (u32).
pub(super) const TRAILER_BYTES: usize = 4 + 32 + MAGIC.len() + 4;
/// Begins the last bytes.
const MAGIC: [u8; 8] = *b"LOCKSNAP";
/// The version of this format. Version 2 knew of no generations.
const VERSION: u32 = 3;

/// Ends every whole snapshot's name.
const WHOLE: &str = ".snapshot";
/// Ends the name of one that is being taken.
pub(super) const NEW: &str = ".new";
/// Ends the name of one that is being received.
pub(super) const PART: &str = ".part";

/// Why the end of a file is not that of a snapshot.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadEnd {
    /// The bytes are not those that were written, or never were a snapshot's.
    #[error("its manifest does not check out")]
    Damaged,
    /// Of another version of this program.
    #[error("it has format version {0}, this program reads version {VERSION}: use the program that wrote it")]
    Version(u32),
}

/// The bytes that follow the content.
pub(super) fn encode_end(manifest: &Manifest) -> Vec<u8> {
    let mut bytes = mesh::wire::encode(manifest).to_vec();
    let (length, hash) = (u32::try_from(bytes.len()).unwrap_or(u32::MAX), Digest::of(&bytes));
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&hash.0);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes
}

/// Reads a trailer: the length of the manifest before it, and its hash.
pub(super) fn decode_trailer(bytes: &[u8; TRAILER_BYTES]) -> Result<(u32, Digest), BadEnd> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(BadEnd::Damaged)?;
    let (hash, rest) = rest.split_first_chunk::<32>().ok_or(BadEnd::Damaged)?;
    let (magic, version) = rest.split_first_chunk::<8>().ok_or(BadEnd::Damaged)?;
    if *magic != MAGIC {
        return Err(BadEnd::Damaged);
    }
    let version = u32::from_le_bytes(version.try_into().map_err(|_| BadEnd::Damaged)?);
    if version != VERSION {
        return Err(BadEnd::Version(version));
    }
    Ok((u32::from_le_bytes(*length), Digest(*hash)))
}

/// Reads a manifest that has this hash.
pub(super) fn decode_manifest(bytes: &[u8], hash: Digest) -> Result<Manifest, BadEnd> {
    if Digest::of(bytes) != hash {
        return Err(BadEnd::Damaged);
    }
    mesh::wire::decode(bytes).map_err(|_| BadEnd::Damaged)
}

/// The name of a whole snapshot.
pub(super) fn name(slot: Slot) -> String {
    format!("{slot:020}{WHOLE}")
}

/// The slot that a whole snapshot's name says.
pub(super) fn slot_of(name: &str) -> Option<Slot> {
    let digits = name.strip_suffix(WHOLE)?;
    let all = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok().map(Slot)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::ids::{Generation, ReplicaId};

    #[test]
    fn the_end_is_the_agreed_one_and_every_flipped_byte_of_it_is_noticed() {
        let manifest = Manifest {
            cluster: "kv".to_owned(),
            generation: Generation { count: 1, mark: 5 },
            member: ReplicaId(1),
            slot: Slot(7),
            image_len: 2,
            total_len: 3,
            chunks: vec![Digest::of(b"abc")],
        };
        let end = encode_end(&manifest);
        let read = |end: &[u8]| {
            let (rest, trailer) = end.split_last_chunk::<TRAILER_BYTES>().expect("long enough");
            let (length, hash) = decode_trailer(trailer)?;
            if rest.len() != length as usize { Err(BadEnd::Damaged) } else { decode_manifest(rest, hash) }
        };
        assert_eq!(read(&end), Ok(manifest));
        for at in 0..end.len() {
            let mut flipped = end.clone();
            flipped[at] ^= 1;
            assert!(read(&flipped).is_err(), "byte {at}");
        }
        let hex: String = end[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "026b760105010702", "encoded otherwise: the version has to change with it");
    }

    #[test]
    fn a_name_says_its_slot() {
        assert_eq!(name(Slot(42)), "00000000000000000042.snapshot");
        assert_eq!(slot_of(&name(Slot(u64::MAX))), Some(Slot(u64::MAX)));
        for other in ["42.snapshot", "00000000000000000042.new", "+0000000000000000042.snapshot", "journal"] {
            assert_eq!(slot_of(other), None, "{other}");
        }
    }
}
