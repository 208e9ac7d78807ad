//! The short line before every RESP value: a type byte, then a number or nothing, then CR LF.

use crate::framing::FramingError;

/// Bytes between the type byte and the CR at most: what a 64-bit number takes. So a header that is not complete yet may
/// be read again from its type byte, and the cost stays linear.
pub(super) const TEXT_MAX: usize = 20;

/// The text between the type byte at `at` and the CR, and where the next line begins; `None` if it is not complete.
///
/// # Errors
/// `wrong` when no such text can be that long; or a CR that no LF follows.
pub(super) fn text<'a>(
    bytes: &'a [u8],
    at: usize,
    wrong: &'static str,
) -> Result<Option<(&'a [u8], usize)>, FramingError> {
    let from = (at + 1).min(bytes.len());
    let window = &bytes[from..bytes.len().min(from + TEXT_MAX + 1)];
    match window.iter().position(|&byte| byte == b'\r') {
        Some(length) => match bytes.get(from + length + 1) {
            Some(b'\n') => Ok(Some((&window[..length], from + length + 2))),
            Some(_) => Err(FramingError::Malformed("expected CR LF")),
            None => Ok(None),
        },
        None if window.len() > TEXT_MAX => Err(FramingError::Malformed(wrong)),
        None => Ok(None),
    }
}

/// The number at `at` and where the next line begins, as Redis' `string2ll` reads it: no `+`, no blanks, no leading zeros.
pub(super) fn number(bytes: &[u8], at: usize, wrong: &'static str) -> Result<Option<(i64, usize)>, FramingError> {
    let Some((text, next)) = text(bytes, at, wrong)? else {
        return Ok(None);
    };
    parse(text).map_or(Err(FramingError::Malformed(wrong)), |number| Ok(Some((number, next))))
}

/// A decimal number in its only spelling.
pub(super) fn parse(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let spelled = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if spelled { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_spelling() {
        for (text, number) in [
            (&b"0"[..], Some(0)),
            (b"-1", Some(-1)),
            (b"9223372036854775807", Some(i64::MAX)),
            (b"-9223372036854775808", Some(i64::MIN)),
            (b"9223372036854775808", None),
            (b"", None),
            (b"-", None),
            (b"-0", None),
            (b"+1", None),
            (b"01", None),
            (b" 1", None),
            (b"1x", None),
        ] {
            assert_eq!(parse(text), number, "{text:?}");
        }
    }
}
