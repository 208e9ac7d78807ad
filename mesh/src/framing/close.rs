//! The adapter `close` (the paper's): a request is everything up to the client's half-close, a reply everything up to
//! the application's close.
//!
//! It never looks at a byte: only lengths and the close count.

use super::FramingError;

/// Everything, once the client closed its half; a client that closes without a byte asked for nothing.
pub(super) fn next_request(bytes: &[u8], closed: bool, limit: usize) -> Result<Option<usize>, FramingError> {
    if bytes.len() > limit {
        return Err(FramingError::TooLong { limit });
    }
    Ok((closed && !bytes.is_empty()).then_some(bytes.len()))
}

/// Everything, once the application closed; an empty reply is a reply. That the application did not die instead is
/// proven by its incarnation (rule 24), not here.
pub(super) fn next_reply(bytes: &[u8], closed: bool, limit: usize) -> Result<Option<usize>, FramingError> {
    if bytes.len() > limit {
        return Err(FramingError::TooLong { limit });
    }
    Ok(closed.then_some(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_everything_up_to_the_half_close() {
        assert_eq!(next_request(b"a\nb", false, 8), Ok(None));
        assert_eq!(next_request(b"a\nb", true, 8), Ok(Some(3)));
        assert_eq!(next_request(b"", true, 8), Ok(None));
    }

    #[test]
    fn a_reply_may_be_empty() {
        assert_eq!(next_reply(b"", false, 8), Ok(None));
        assert_eq!(next_reply(b"", true, 8), Ok(Some(0)));
        assert_eq!(next_reply(b"abc", true, 8), Ok(Some(3)));
    }

    #[test]
    fn the_limit_is_the_last_length_that_passes() {
        let too_long = Err(FramingError::TooLong { limit: 3 });
        assert_eq!(next_request(b"abc", true, 3), Ok(Some(3)));
        assert_eq!(next_request(b"abcd", false, 3), too_long);
        assert_eq!(next_reply(b"abc", true, 3), Ok(Some(3)));
        assert_eq!(next_reply(b"abcd", false, 3), too_long);
    }
}
