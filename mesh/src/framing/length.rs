//! The adapter `length`: a big-endian u32, then as many bytes. Requests and replies alike; the prefix belongs to them
//! and counts towards the limit.

use super::{FramingError, wait};

/// Bytes of the prefix.
const PREFIX: usize = 4;

/// The end of the frame at the front. A prefix that announces too much is refused as soon as its first bytes prove it.
pub(super) fn next(bytes: &[u8], closed: bool, limit: usize) -> Result<Option<usize>, FramingError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut prefix = [0; PREFIX];
    let known = bytes.len().min(PREFIX);
    prefix[..known].copy_from_slice(&bytes[..known]);
    // Bytes that are still to come can only make it longer.
    let at_least = PREFIX as u64 + u64::from(u32::from_be_bytes(prefix));
    if at_least > limit as u64 {
        return Err(FramingError::TooLong { limit });
    }
    match usize::try_from(at_least) {
        Ok(end) if known == PREFIX && bytes.len() >= end => Ok(Some(end)),
        _ => wait(bytes.len(), closed, limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_long_as_its_prefix_says() {
        for (bytes, closed, expected) in [
            (&b""[..], true, Ok(None)),
            (b"\0\0", false, Ok(None)),
            (b"\0\0", true, Err(FramingError::Truncated)),
            (b"\0\0\0\0", false, Ok(Some(4))),
            (b"\0\0\0\x02a", false, Ok(None)),
            (b"\0\0\0\x02a", true, Err(FramingError::Truncated)),
            (b"\0\0\0\x02abc", false, Ok(Some(6))),
        ] {
            assert_eq!(next(bytes, closed, 100), expected, "{bytes:?} closed={closed}");
        }
    }

    #[test]
    fn a_prefix_above_the_limit_is_refused_before_anything_follows_it() {
        let too_long = Err(FramingError::TooLong { limit: 100 });
        assert_eq!(next(b"\0\0\0\x60", false, 100), Ok(None));
        assert_eq!(next(b"\0\0\0\x61", false, 100), too_long);
        assert_eq!(next(b"\x01", false, 100), too_long);
        assert_eq!(next(b"\xff\xff\xff\xff", false, 100), too_long);
        assert_eq!(next(b"\0", false, 3), Err(FramingError::TooLong { limit: 3 }));
    }
}
