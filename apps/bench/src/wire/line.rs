//! The hashmap's lines, a request or a reply each.

use super::{KEY, Op, Step};

/// A request.
pub(super) fn request(op: Op, value: &str) -> Vec<u8> {
    let mut bytes = body(op, value);
    bytes.push(b'\n');
    bytes
}

/// A request without the line's end.
pub(super) fn body(op: Op, value: &str) -> Vec<u8> {
    let key = String::from_utf8_lossy(KEY);
    match op {
        Op::Put => format!("PUT {key} {value}"),
        Op::Get => format!("GET {key}"),
        Op::Remove => format!("REMOVE {key}"),
        Op::Size => "SIZE".to_owned(),
    }
    .into_bytes()
}

/// Up to the line's end.
pub(super) fn reply(bytes: &[u8]) -> Step {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => Step::Reply { used: end + 1, good: is_good(bytes) },
        None => Step::More,
    }
}

/// Whether a reply is no error.
pub(super) fn is_good(bytes: &[u8]) -> bool {
    !bytes.starts_with(b"ERR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_ends_with_its_line_and_an_error_is_none() {
        assert_eq!(reply(b"VALUE x"), Step::More);
        assert_eq!(reply(b"VALUE x\nOK\n"), Step::Reply { used: 8, good: true });
        assert_eq!(reply(b"NIL\n"), Step::Reply { used: 4, good: true });
        assert_eq!(reply(b"ERR no\n"), Step::Reply { used: 7, good: false });
    }
}
