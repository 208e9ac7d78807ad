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
