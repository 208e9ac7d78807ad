//! Where a Redis command ends: an array of bulk strings, or an inline line.
//!
//! Refuses where Redis does, in its words, and also what Redis tolerates by not looking (other bytes than CR LF after a
//! count or an argument): another server may read those differently, and then a request could hide in another one.
//! Blank lines and empty arrays, which Redis skips without a reply, are requests of their own that are answered with
//! nothing.

use super::{args, header};
use crate::framing::{FramingError, Scan, wait};

/// Bytes of an inline command with its LF at most, as in Redis.
const INLINE_BYTES: usize = 64 << 10;
/// Arguments at most.
const ARGS: i64 = 1 << 20;
/// Bytes of one argument at most: Redis' default.
const BULK_BYTES: i64 = 512 << 20;
/// Bytes of the shortest argument, `$0` CR LF CR LF.
const ARG_BYTES_MIN: u64 = 6;

/// The end of the command at the front. [`Scan::pending`] is empty before an array's count is known; then it holds the
/// number of arguments still to come, and while the bytes of one are awaited, where they end.
pub(in crate::framing) fn next_request(
    scan: &mut Scan,
    bytes: &[u8],
    closed: bool,
    limit: usize,
) -> Result<Option<usize>, FramingError> {
    let window = &bytes[..bytes.len().min(limit)];
    let found = match bytes.first() {
        None => return Ok(None),
        Some(b'*') => array(scan, window, limit)?,
        Some(_) if !scan.pending.is_empty() => array(scan, window, limit)?,
        Some(_) => inline(scan, window)?,
    };
    match found {
        Some(end) => Ok(Some(end)),
        None => wait(bytes.len(), closed, limit),
    }
}

/// A line: ended by LF, cut into arguments as a shell would.
fn inline(scan: &mut Scan, window: &[u8]) -> Result<Option<usize>, FramingError> {
    let line = &window[..window.len().min(INLINE_BYTES)];
    let from = scan.seen.min(line.len());
    match line[from..].iter().position(|&byte| byte == b'\n' || byte == 0) {
        // Redis looks for the end with `strchr`: it would wait for ever.
        Some(at) if line[from + at] == 0 => Err(FramingError::Malformed("NUL in an inline request")),
        Some(at) => {
            scan.seen = from + at + 1;
            match args::split(&line[..from + at]) {
                Some(_) => Ok(Some(scan.seen)),
                None => Err(FramingError::Malformed("unbalanced quotes in request")),
            }
        }
        None if line.len() == INLINE_BYTES => Err(FramingError::Malformed("too big inline request")),
        None => {
            scan.seen = line.len();
            Ok(None)
        }
    }
}

/// An array of bulk strings.
fn array(scan: &mut Scan, window: &[u8], limit: usize) -> Result<Option<usize>, FramingError> {
    if scan.pending.is_empty() {
        let Some((count, next)) = header::number(window, 0, "invalid multibulk length")? else {
            return Ok(None);
        };
        if count > ARGS {
            return Err(FramingError::Malformed("invalid multibulk length"));
        }
        let count = u64::try_from(count).unwrap_or(0);
        fits(next as u64, count, limit)?;
        scan.pending.push(count);
        scan.seen = next;
    }
    loop {
        if scan.pending.len() < 2 {
            let left = scan.pending[0];
            if left == 0 {
                return Ok(Some(scan.seen));
            }
            let Some(end) = bulk(scan.seen, left, window, limit)? else {
                return Ok(None);
            };
            scan.pending.push(end);
        }
        let end = usize::try_from(scan.pending[1]).map_err(|_| FramingError::TooLong { limit })?;
        if window.len() < end {
            scan.seen = window.len().min(end - 2);
            return Ok(None);
        }
        if &window[end - 2..end] != b"\r\n" {
            return Err(FramingError::Malformed("expected CR LF after an argument"));
        }
        scan.seen = end;
        scan.pending.truncate(1);
        scan.pending[0] -= 1;
    }
}

/// Where the argument whose header is at `at` ends, with its CR LF; `left` arguments are still to come, this one included.
fn bulk(at: usize, left: u64, window: &[u8], limit: usize) -> Result<Option<u64>, FramingError> {
    match window.get(at) {
        None => return Ok(None),
        Some(b'$') => {}
        Some(&other) => return Err(FramingError::Malformed(expected_dollar(other))),
    }
    let Some((length, next)) = header::number(window, at, "invalid bulk length")? else {
        return Ok(None);
    };
    if !(0..=BULK_BYTES).contains(&length) {
        return Err(FramingError::Malformed("invalid bulk length"));
    }
    let end = next as u64 + length.unsigned_abs() + 2;
    fits(end, left - 1, limit)?;
    Ok(Some(end))
}

/// Refuses what cannot fit even if all `left` arguments after `end` are empty.
fn fits(end: u64, left: u64, limit: usize) -> Result<(), FramingError> {
    if end + left * ARG_BYTES_MIN > limit as u64 { Err(FramingError::TooLong { limit }) } else { Ok(()) }
}

/// Redis' message for another byte where an argument should begin.
fn expected_dollar(other: u8) -> &'static str {
    const MESSAGE: [u8; 21] = *b"expected '$', got '?'";
    static MESSAGES: [[u8; 21]; 256] = {
        let mut messages = [MESSAGE; 256];
        // Redis shows CR and LF as a space; what is not ASCII stays the question mark.
        let mut byte = 1;
        while byte < 0x7f {
            messages[byte as usize][19] = if byte == b'\r' || byte == b'\n' { b' ' } else { byte };
            byte += 1;
        }
        messages
    };
    std::str::from_utf8(&MESSAGES[usize::from(other)]).unwrap_or("expected '$'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(bytes: &[u8]) -> Result<Option<usize>, FramingError> {
        next_request(&mut Scan::default(), bytes, false, 100)
    }

    #[test]
    fn an_array_ends_with_its_last_argument() {
        for (bytes, expected) in [
            (&b""[..], None),
            (b"*", None),
            (b"*1\r", None),
            (b"*1\r\n", None),
            (b"*1\r\n$4\r\nPI", None),
            (b"*1\r\n$4\r\nPING\r", None),
            (b"*1\r\n$4\r\nPING\r\n", Some(14)),
            (b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n+", Some(19)),
            (b"*1\r\n$2\r\n\r\n\r\n", Some(12)),
            (b"*0\r\nx", Some(4)),
            (b"*-1\r\nx", Some(5)),
        ] {
            assert_eq!(next(bytes), Ok(expected), "{bytes:?}");
        }
    }

    #[test]
    fn an_inline_command_is_a_line() {
        for (bytes, expected) in [
            (&b"PING"[..], None),
            (b"PING\n", Some(5)),
            (b"PING\r\nx", Some(6)),
            (b"\r\n", Some(2)),
            (b"  \n", Some(3)),
            (b"SET k \"a b\\\"\"\n", Some(14)),
        ] {
            assert_eq!(next(bytes), Ok(expected), "{bytes:?}");
        }
    }

    #[test]
    fn what_redis_refuses_is_refused_in_its_words() {
        for (bytes, words) in [
            (&b"*x\r\n"[..], "invalid multibulk length"),
            (b"*\r\n", "invalid multibulk length"),
            (b"*01\r\n", "invalid multibulk length"),
            (b"*1048577\r\n", "invalid multibulk length"),
            (b"*111111111111111111111", "invalid multibulk length"),
            (b"*1\r\n:1\r\n", "expected '$', got ':'"),
            (b"*1\r\n\n", "expected '$', got ' '"),
            (b"*1\r\n\xff", "expected '$', got '?'"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$x\r\n", "invalid bulk length"),
            (b"*1\r\n$536870913\r\n", "invalid bulk length"),
            (b"GET \"a\n", "unbalanced quotes in request"),
            (b"GET 'a'b\n", "unbalanced quotes in request"),
        ] {
            assert_eq!(next(bytes), Err(FramingError::Malformed(words)), "{bytes:?}");
        }
    }

    #[test]
    fn what_redis_does_not_look_at_must_be_right_as_well() {
        for bytes in [&b"*1\rx"[..], b"*1\r\n$1\rx", b"*1\r\n$1\r\naXX", b"PI\0NG\n"] {
            assert!(matches!(next(bytes), Err(FramingError::Malformed(_))), "{bytes:?}");
        }
    }

    #[test]
    fn what_cannot_fit_is_refused_when_its_length_is_announced() {
        let too_long = Err(FramingError::TooLong { limit: 100 });
        assert_eq!(next(b"*15\r\n"), Ok(None));
        assert_eq!(next(b"*16\r\n"), too_long, "16 arguments of 6 bytes after a header of 5");
        assert_eq!(next(b"*1\r\n$89\r\n"), Ok(None));
        assert_eq!(next(b"*1\r\n$90\r\n"), too_long);
        assert_eq!(next(b"*2\r\n$84\r\n"), too_long);
        assert_eq!(next(&[b'a'; 99]), Ok(None));
        assert_eq!(next(&[b'a'; 100]), too_long);
    }

    #[test]
    fn an_inline_command_has_a_limit_of_its_own() {
        let mut line = vec![b'a'; INLINE_BYTES - 1];
        let mut scan = Scan::default();
        assert_eq!(next_request(&mut scan, &line, false, 1 << 20), Ok(None));
        line.push(b'\n');
        assert_eq!(next_request(&mut scan, &line, false, 1 << 20), Ok(Some(INLINE_BYTES)));
        line.insert(0, b'a');
        let error = next_request(&mut Scan::default(), &line, false, 1 << 20);
        assert_eq!(error, Err(FramingError::Malformed("too big inline request")));
    }

    #[test]
    fn half_a_command_at_the_close_is_truncated_and_none_is_nothing() {
        for bytes in [&b"*1\r\n$4\r\nPING\r"[..], b"*", b"PING"] {
            assert_eq!(next_request(&mut Scan::default(), bytes, true, 100), Err(FramingError::Truncated));
        }
        assert_eq!(next_request(&mut Scan::default(), b"", true, 100), Ok(None));
    }
}
