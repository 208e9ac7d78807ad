//! The hashmap's requests and replies behind their lengths.

use super::{Op, Step, line};

/// Bytes of a length.
const PREFIX: usize = 4;

/// A request.
pub(super) fn request(op: Op, value: &str) -> Vec<u8> {
    let body = line::body(op, value);
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &body].concat()
}

/// As long as it says.
pub(super) fn reply(bytes: &[u8]) -> Step {
    let Some((prefix, body)) = bytes.split_first_chunk::<PREFIX>() else { return Step::More };
    let length = u32::from_be_bytes(*prefix) as usize;
    match body.get(..length) {
        Some(body) => Step::Reply { used: PREFIX + length, good: line::is_good(body) },
        None => Step::More,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_as_long_as_it_says() {
        assert_eq!(reply(b"\0\0\0"), Step::More);
        assert_eq!(reply(b"\0\0\0\x02O"), Step::More);
        assert_eq!(reply(b"\0\0\0\x02OK\0"), Step::Reply { used: 6, good: true });
        assert_eq!(reply(b"\0\0\0\x03ERR"), Step::Reply { used: 7, good: false });
        assert_eq!(reply(b"\0\0\0\0"), Step::Reply { used: 4, good: true });
    }
}
