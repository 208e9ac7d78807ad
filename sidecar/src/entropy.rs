//! Chance from the operating system.

use std::io::{self, Read};

/// Random bytes, fit for secrets.
///
/// # Errors
/// The system gives none.
pub(crate) fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The mark of a new generation of a cluster.
///
/// # Errors
/// The system has no randomness.
pub(crate) fn generation() -> io::Result<u64> {
    Ok(u64::from_le_bytes(bytes()?))
}

/// A new life of this member: 0 is the bootstrap's.
///
/// # Errors
/// The system has no randomness.
pub(crate) fn life() -> io::Result<mesh::ids::Life> {
    Ok(mesh::ids::Life(u64::from_le_bytes(bytes()?).max(1)))
}
