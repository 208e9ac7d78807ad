//! The adapter `line`: a request is a line, a reply is a line. LF ends it; a CR before it is a byte like any other and
//! is passed through.
//!
//! A request without its LF at the half-close is [`FramingError::Truncated`] and never runs: the application waits for
//! the LF, we cannot tell a whole last line from half of one, and adding the LF would run a request that the client did
//! not send.

use super::{Connections, FramingError, Scan, wait};

/// The line at the front, with its LF.
pub(super) fn next_request(
    scan: &mut Scan,
    bytes: &[u8],
    closed: bool,
    limit: usize,
) -> Result<Option<usize>, FramingError> {
    match find(scan, bytes, limit) {
        Some(end) => Ok(Some(end)),
        None => wait(bytes.len(), closed, limit),
    }
}

/// The line at the front, with its LF. On a connection that is used for one request only, the application's close ends a
/// line without LF as well; on a lasting one such a line is the remainder of an application that died.
pub(super) fn next_reply(
    scan: &mut Scan,
    bytes: &[u8],
    closed: bool,
    limit: usize,
    connections: Connections,
) -> Result<Option<usize>, FramingError> {
    if let Some(end) = find(scan, bytes, limit) {
        return Ok(Some(end));
    }
    if connections != Connections::PerRequest {
        return wait(bytes.len(), closed, limit);
    }
    if bytes.len() > limit {
        return Err(FramingError::TooLong { limit });
    }
    Ok((closed && !bytes.is_empty()).then_some(bytes.len()))
}

/// The end of the first line, if it is within the limit.
fn find(scan: &mut Scan, bytes: &[u8], limit: usize) -> Option<usize> {
    let window = &bytes[..bytes.len().min(limit)];
    let from = scan.seen.min(window.len());
    let found = window[from..].iter().position(|&byte| byte == b'\n').map(|at| from + at + 1);
    scan.seen = found.unwrap_or(window.len());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(bytes: &[u8], closed: bool) -> Result<Option<usize>, FramingError> {
        next_request(&mut Scan::default(), bytes, closed, 4)
    }

    fn reply(bytes: &[u8], closed: bool, connections: Connections) -> Result<Option<usize>, FramingError> {
        next_reply(&mut Scan::default(), bytes, closed, 4, connections)
    }

    #[test]
    fn a_request_ends_with_its_line_feed() {
        let too_long = Err(FramingError::TooLong { limit: 4 });
        for (bytes, closed, expected) in [
            (&b""[..], false, Ok(None)),
            (b"", true, Ok(None)),
            (b"\n", false, Ok(Some(1))),
            (b"ab", false, Ok(None)),
            (b"ab", true, Err(FramingError::Truncated)),
            (b"a\nb\n", true, Ok(Some(2))),
            (b"a\r\nb", false, Ok(Some(3))),
            (b"abc\n", false, Ok(Some(4))),
            (b"abcd", false, too_long.clone()),
            (b"abcd\n", false, too_long.clone()),
            (b"abcdefgh", true, too_long),
        ] {
            assert_eq!(request(bytes, closed), expected, "{bytes:?} closed={closed}");
        }
    }

    #[test]
    fn the_close_ends_a_reply_only_where_the_connection_served_one_request() {
        use Connections::{PerRequest, PerSession, Shared};
        for connections in [PerRequest, PerSession, Shared] {
            assert_eq!(reply(b"ok\nx", false, connections), Ok(Some(3)));
            assert_eq!(reply(b"", true, connections), Ok(None));
        }
        assert_eq!(reply(b"ok", true, PerRequest), Ok(Some(2)));
        assert_eq!(reply(b"okay", false, PerRequest), Ok(None));
        assert_eq!(reply(b"okay", true, PerRequest), Ok(Some(4)));
        assert_eq!(reply(b"okay.", false, PerRequest), Err(FramingError::TooLong { limit: 4 }));
        assert_eq!(reply(b"ok", true, Shared), Err(FramingError::Truncated));
        assert_eq!(reply(b"okay", false, PerSession), Err(FramingError::TooLong { limit: 4 }));
    }
}
