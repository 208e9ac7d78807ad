//! Where a Redis reply ends: one value of RESP2 or RESP3, with the attributes and pushes before it.
//!
//! Iterative: nesting costs an entry of [`Scan::pending`], at most [`DEPTH`] of them, and no stack. Streamed types, which no
//! Redis sends, are refused.

use super::header;
use crate::framing::{FramingError, Scan, wait};

/// Aggregates within aggregates at most.
const DEPTH: usize = 32;
/// Bytes of the shortest value, `+` CR LF.
const VALUE_BYTES_MIN: u64 = 3;

/// [`Scan::pending`] begins with where we are: before a value,
const VALUE: u64 = 0;
/// within a line that ends a value, or, with any larger number, within bytes that end there.
const LINE: u64 = 1;

/// The end of the reply at the front. [`Scan::pending`] holds where we are, then for each aggregate that is open how many
/// of its values are still to begin; the first counts the reply itself.
pub(in crate::framing) fn next_reply(
    scan: &mut Scan,
    bytes: &[u8],
    closed: bool,
    limit: usize,
) -> Result<Option<usize>, FramingError> {
    match value(scan, &bytes[..bytes.len().min(limit)], limit)? {
        Some(end) => Ok(Some(end)),
        None => wait(bytes.len(), closed, limit),
    }
}

/// The values of an aggregate's body, as far as they are whole.
pub(super) fn values(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut scan = Scan::default();
    let mut rest = bytes;
    std::iter::from_fn(move || {
        scan.seen = 0;
        scan.pending.clear();
        let end = value(&mut scan, rest, rest.len()).ok()??;
        let (front, back) = rest.split_at(end);
        rest = back;
        Some(front)
    })
}

/// The end of the value at the front of the window.
fn value(scan: &mut Scan, window: &[u8], limit: usize) -> Result<Option<usize>, FramingError> {
    if scan.pending.is_empty() {
        scan.pending.extend([VALUE, 1]);
    }
    loop {
        let whole = match scan.pending[0] {
            VALUE => begin(scan, window, limit)?,
            LINE => line(scan, window)?,
            end => tail(scan, window, usize::try_from(end).map_err(|_| FramingError::TooLong { limit })?)?,
        };
        match whole {
            None => return Ok(None),
            Some(false) => {}
            Some(true) => {
                while scan.pending.len() > 1 && scan.pending.last() == Some(&0) {
                    scan.pending.pop();
                }
                if scan.pending.len() == 1 {
                    return Ok(Some(scan.seen));
                }
            }
        }
    }
}

/// The header of a value: whether the value ends with it.
fn begin(scan: &mut Scan, window: &[u8], limit: usize) -> Result<Option<bool>, FramingError> {
    let Some(&kind) = window.get(scan.seen) else {
        return Ok(None);
    };
    match kind {
        b'+' | b'-' | b',' | b'(' => {
            count_one(scan);
            scan.seen += 1;
            scan.pending[0] = LINE;
            Ok(Some(false))
        }
        b':' | b'#' | b'_' => scalar(scan, window, kind),
        b'$' | b'=' | b'!' => bulk(scan, window, kind, limit),
        b'*' | b'~' | b'%' | b'|' | b'>' => aggregate(scan, window, kind, limit),
        _ => Err(FramingError::Malformed("unknown type of reply")),
    }
}

/// An integer, a boolean or a null.
fn scalar(scan: &mut Scan, window: &[u8], kind: u8) -> Result<Option<bool>, FramingError> {
    let wrong = "invalid integer, boolean or null";
    let Some((text, next)) = header::text(window, scan.seen, wrong)? else {
        return Ok(None);
    };
    let right = match kind {
        b'#' => matches!(text, b"t" | b"f"),
        b'_' => text.is_empty(),
        _ => {
            let digits = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
            !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
        }
    };
    if !right {
        return Err(FramingError::Malformed(wrong));
    }
    count_one(scan);
    scan.seen = next;
    Ok(Some(true))
}

/// A string, an error or a verbatim string with a length, or RESP2's null.
fn bulk(scan: &mut Scan, window: &[u8], kind: u8, limit: usize) -> Result<Option<bool>, FramingError> {
    let Some((length, next)) = header::number(window, scan.seen, "invalid bulk length")? else {
        return Ok(None);
    };
    count_one(scan);
    scan.seen = next;
    if length == -1 && kind == b'$' {
        return Ok(Some(true));
    }
    let length = u64::try_from(length).map_err(|_| FramingError::Malformed("invalid bulk length"))?;
    let end = (next as u64).saturating_add(length).saturating_add(2);
    fits(scan, end, limit)?;
    scan.pending[0] = end;
    Ok(Some(false))
}

/// An array, set, map, attribute or push.
fn aggregate(scan: &mut Scan, window: &[u8], kind: u8, limit: usize) -> Result<Option<bool>, FramingError> {
    let Some((count, next)) = header::number(window, scan.seen, "invalid aggregate length")? else {
        return Ok(None);
    };
    match kind {
        b'|' => {}                            // what it is an attribute of follows, and is what counts
        b'>' if scan.pending.len() == 2 => {} // the reply follows
        b'>' => return Err(FramingError::Malformed("a push within a reply")),
        _ => count_one(scan),
    }
    scan.seen = next;
    if count == -1 && kind == b'*' {
        return Ok(Some(true));
    }
    let count = u64::try_from(count).map_err(|_| FramingError::Malformed("invalid aggregate length"))?;
    let count = if matches!(kind, b'%' | b'|') { count.saturating_mul(2) } else { count };
    if count > 0 {
        if scan.pending.len() > DEPTH {
            return Err(FramingError::Malformed("nested too deeply"));
        }
        scan.pending.push(count);
        fits(scan, next as u64, limit)?;
    }
    Ok(Some(count == 0))
}

/// The rest of a line.
fn line(scan: &mut Scan, window: &[u8]) -> Result<Option<bool>, FramingError> {
    let from = scan.seen.min(window.len());
    let Some(at) = window[from..].iter().position(|&byte| byte == b'\r' || byte == b'\n') else {
        scan.seen = window.len();
        return Ok(None);
    };
    let at = from + at;
    match (window[at], window.get(at + 1)) {
        (b'\r', None) => {
            scan.seen = at;
            Ok(None)
        }
        (b'\r', Some(b'\n')) => {
            scan.seen = at + 2;
            scan.pending[0] = VALUE;
            Ok(Some(true))
        }
        _ => Err(FramingError::Malformed("expected CR LF")),
    }
}

/// The bytes of a string, and the CR LF after them.
fn tail(scan: &mut Scan, window: &[u8], end: usize) -> Result<Option<bool>, FramingError> {
    if window.len() < end {
        scan.seen = window.len().min(end - 2);
        return Ok(None);
    }
    if &window[end - 2..end] != b"\r\n" {
        return Err(FramingError::Malformed("expected CR LF after a string"));
    }
    scan.seen = end;
    scan.pending[0] = VALUE;
    Ok(Some(true))
}

/// One value less is to begin in the innermost aggregate. It is open, so there is one: those at zero are closed at the
/// end of each value.
fn count_one(scan: &mut Scan) {
    if let Some(left) = scan.pending.last_mut() {
        *left = left.saturating_sub(1);
    }
}

/// Refuses what cannot fit even if all values that are still to begin are as short as can be.
fn fits(scan: &Scan, end: u64, limit: usize) -> Result<(), FramingError> {
    let left = scan.pending[1..].iter().fold(0_u64, |sum, left| sum.saturating_add(*left));
    if end.saturating_add(left.saturating_mul(VALUE_BYTES_MIN)) > limit as u64 {
        Err(FramingError::TooLong { limit })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(bytes: &[u8]) -> Result<Option<usize>, FramingError> {
        next_reply(&mut Scan::default(), bytes, false, 1000)
    }

    /// Whole replies, one of each kind at least.
    const WHOLE: &[&[u8]] = &[
        b"+OK\r\n",
        b"+\r\n",
        b"-ERR no\r\n",
        b":-12\r\n",
        b":+12\r\n",
        b"$0\r\n\r\n",
        b"$-1\r\n",
        b"$4\r\n\r\n\r\n\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*3\r\n:1\r\n$1\r\na\r\n*2\r\n+a\r\n*0\r\n",
        b"_\r\n",
        b"#t\r\n",
        b"#f\r\n",
        b",3.25\r\n",
        b",-inf\r\n",
        b"(3492890328409238509324850943850943825024385\r\n",
        b"!5\r\nERR a\r\n",
        b"=7\r\ntxt:abc\r\n",
        b"%2\r\n+a\r\n:1\r\n+b\r\n%1\r\n+c\r\n_\r\n",
        b"%0\r\n",
        b"~2\r\n:1\r\n:2\r\n",
        b"|1\r\n+ttl\r\n:3600\r\n*1\r\n|1\r\n+x\r\n+y\r\n:5\r\n",
        b"|0\r\n:5\r\n",
        b">2\r\n+message\r\n+a\r\n:5\r\n",
        b">0\r\n>1\r\n+a\r\n|1\r\n+a\r\n+b\r\n+OK\r\n",
    ];

    #[test]
    fn a_reply_of_each_kind_ends_where_its_value_ends() {
        for bytes in WHOLE {
            assert_eq!(next(bytes), Ok(Some(bytes.len())), "{bytes:?}");
            assert_eq!(next(&[bytes, &b"+OK\r\n"[..]].concat()), Ok(Some(bytes.len())), "{bytes:?}");
            for cut in 0..bytes.len() {
                assert_eq!(next(&bytes[..cut]), Ok(None), "{:?}", &bytes[..cut]);
                let closed = next_reply(&mut Scan::default(), &bytes[..cut], true, 1000);
                assert_eq!(closed, if cut == 0 { Ok(None) } else { Err(FramingError::Truncated) });
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for bytes in [
            &b"x"[..],
            b"\r\n",
            b"+a\nb",
            b"+a\rb",
            b":\r\n",
            b":1a\r\n",
            b"#x\r\n",
            b"_a\r\n",
            b"$-2\r\n",
            b"$?\r\n",
            b"*?\r\n",
            b"%-1\r\n",
            b"~-1\r\n",
            b"!-1\r\n",
            b"$1\r\nabc",
            b"*1\r\n>0\r\n",
            b":111111111111111111111",
        ] {
            assert!(matches!(next(bytes), Err(FramingError::Malformed(_))), "{bytes:?}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat();
        assert_eq!(next(&nested(DEPTH - 1)), Ok(Some(4 * DEPTH)));
        assert_eq!(next(&nested(DEPTH)), Err(FramingError::Malformed("nested too deeply")));
        let attributes = b"|1\r\n".repeat(200);
        assert_eq!(next(&attributes), Err(FramingError::Malformed("nested too deeply")));
    }

    #[test]
    fn what_cannot_fit_is_refused_when_its_length_is_announced() {
        let too_long = Err(FramingError::TooLong { limit: 1000 });
        for bytes in [
            &b"$993\r\n"[..],
            b"$9223372036854775807\r\n",
            b"*332\r\n",
            b"%9223372036854775807\r\n",
            b"*300\r\n*100\r\n",
            b"*2\r\n$990\r\n",
        ] {
            assert_eq!(next(bytes), too_long, "{bytes:?}");
        }
        assert_eq!(next(b"$992\r\n"), Ok(None));
        assert_eq!(next(b"*331\r\n"), Ok(None));
        assert_eq!(next(&[b"+".to_vec(), vec![b'a'; 999]].concat()), too_long);
    }

    #[test]
    fn values_cuts_a_body_and_stops_at_what_is_none() {
        let found: Vec<_> = values(b":1\r\n*1\r\n+a\r\n$1\r\nb\r\nx").collect();
        assert_eq!(found, [&b":1\r\n"[..], b"*1\r\n+a\r\n", b"$1\r\nb\r\n"]);
    }
}
