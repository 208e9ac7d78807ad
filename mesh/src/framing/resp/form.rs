//! The comparison form of a reply (rule 28), as a hash.

use super::classify::{Verdict, classify};
use super::commands::Form;
use super::reply::values;
use crate::framing::{Connections, not_compared};
use crate::ids::Digest;
use blake3::Hasher;

/// The hash of the form in which replies to `request` are compared.
pub(in crate::framing) fn form(connections: Connections, request: &[u8], reply: &[u8]) -> Digest {
    let form = match classify(connections, request) {
        Verdict::Order(form) => form,
        // Never sent to an application.
        _ => Form::Exact,
    };
    match (form, reply.first()) {
        (Form::NotCompared, Some(b'-' | b'!') | None) | (Form::Exact, _) => Digest::of(reply),
        (Form::NotCompared, Some(_)) => not_compared(),
        (Form::Sorted, _) => canonical(reply, 1),
        (Form::Pairs, _) => canonical(reply, 2),
        (Form::Transaction, _) => transaction(reply),
    }
}

/// The elements of the reply, `group` at a time, as a set; what is not an aggregate as it is.
fn canonical(reply: &[u8], group: usize) -> Digest {
    let Some((header, body)) = aggregate(reply) else {
        return Digest::of(reply);
    };
    let mut hasher = Hasher::new();
    hasher.update(b"lockstep: reply sorted\n");
    sorted(&mut hasher, header, body, group);
    Digest(*hasher.finalize().as_bytes())
}

/// The replies of a transaction in order, each that is an aggregate as a set.
fn transaction(reply: &[u8]) -> Digest {
    let Some((header, body)) = aggregate(reply) else {
        return Digest::of(reply);
    };
    let mut hasher = Hasher::new();
    hasher.update(b"lockstep: reply of a transaction\n").update(header);
    let mut rest = body;
    for value in values(body) {
        rest = &rest[value.len()..];
        match aggregate(value) {
            Some((header, body)) => sorted(&mut hasher, header, body, 1),
            None => {
                hasher.update(value);
            }
        }
    }
    hasher.update(rest);
    Digest(*hasher.finalize().as_bytes())
}

/// Hashes the header, then the body's elements in the order of their bytes. Each is a whole RESP value and so ends itself.
fn sorted(hasher: &mut Hasher, header: &[u8], body: &[u8], group: usize) {
    let group = if header.starts_with(b"%") { 2 } else { group };
    let (mut elements, mut from, mut end) = (Vec::new(), 0, 0);
    for (index, value) in values(body).enumerate() {
        end += value.len();
        if (index + 1) % group == 0 {
            elements.push(&body[from..end]);
            from = end;
        }
    }
    elements.sort_unstable();
    hasher.update(header);
    for element in elements {
        hasher.update(element);
    }
    // What is no whole group, or no value: nothing, unless the reply is malformed.
    hasher.update(&body[from..]);
}

/// The header and body of an array, set or map.
pub(super) fn aggregate(reply: &[u8]) -> Option<(&[u8], &[u8])> {
    if !matches!(reply.first(), Some(b'*' | b'~' | b'%')) {
        return None;
    }
    let end = reply.iter().position(|&byte| byte == b'\n')? + 1;
    Some(reply.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(request: &str, reply: &[u8]) -> Digest {
        form(Connections::PerSession, format!("{request}\r\n").as_bytes(), reply)
    }

    #[test]
    fn ordinary_replies_are_compared_byte_by_byte() {
        assert_eq!(of("GET k", b"$1\r\na\r\n"), Digest::of(b"$1\r\na\r\n"));
        assert_ne!(of("LRANGE k 0 -1", b"*2\r\n:1\r\n:2\r\n"), of("LRANGE k 0 -1", b"*2\r\n:2\r\n:1\r\n"));
    }

    #[test]
    fn sets_are_compared_without_their_order() {
        for (one, other) in [
            (&b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"[..], &b"*2\r\n$1\r\nb\r\n$1\r\na\r\n"[..]),
            (b"~2\r\n:1\r\n:2\r\n", b"~2\r\n:2\r\n:1\r\n"),
        ] {
            assert_eq!(of("SMEMBERS k", one), of("SMEMBERS k", other));
            assert_ne!(of("SMEMBERS k", one), of("SMEMBERS k", b"*1\r\n$1\r\na\r\n"));
        }
        let missing = of("SMEMBERS k", b"*2\r\n$1\r\na\r\n$1\r\na\r\n");
        assert_ne!(missing, of("SMEMBERS k", b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"));
    }

    #[test]
    fn hashes_are_compared_by_their_pairs() {
        let ab = b"*4\r\n+a\r\n+1\r\n+b\r\n+2\r\n";
        assert_eq!(of("HGETALL k", ab), of("HGETALL k", b"*4\r\n+b\r\n+2\r\n+a\r\n+1\r\n"));
        assert_ne!(of("HGETALL k", ab), of("HGETALL k", b"*4\r\n+a\r\n+2\r\n+b\r\n+1\r\n"));
        let ab = b"%2\r\n+a\r\n+1\r\n+b\r\n+2\r\n";
        assert_eq!(of("HGETALL k", ab), of("HGETALL k", b"%2\r\n+b\r\n+2\r\n+a\r\n+1\r\n"));
        assert_ne!(of("HGETALL k", ab), of("HGETALL k", b"%2\r\n+a\r\n+2\r\n+b\r\n+1\r\n"));
    }

    #[test]
    fn a_transaction_is_compared_reply_by_reply_and_each_collection_without_its_order() {
        let reply = b"*2\r\n:1\r\n*2\r\n+a\r\n+b\r\n";
        assert_eq!(of("EXEC", reply), of("EXEC", b"*2\r\n:1\r\n*2\r\n+b\r\n+a\r\n"));
        assert_ne!(of("EXEC", reply), of("EXEC", b"*2\r\n*2\r\n+a\r\n+b\r\n:1\r\n"));
        assert_ne!(of("EXEC", reply), of("EXEC", b"*2\r\n:2\r\n*2\r\n+a\r\n+b\r\n"));
        assert_eq!(of("EXEC", b"*-1\r\n"), of("EXEC", b"*-1\r\n"));
        assert_ne!(of("EXEC", b"*-1\r\n"), of("EXEC", b"*0\r\n"));
    }

    #[test]
    fn what_is_said_of_one_process_is_not_compared_but_its_errors_are() {
        assert_eq!(of("INFO", b"$1\r\na\r\n"), not_compared());
        assert_eq!(of("INFO", b"$1\r\na\r\n"), of("TIME", b"*0\r\n"));
        assert_eq!(of("INFO", b"-ERR a\r\n"), Digest::of(b"-ERR a\r\n"));
        assert_eq!(of("SMEMBERS k", b"-WRONGTYPE x\r\n"), Digest::of(b"-WRONGTYPE x\r\n"));
    }

    #[test]
    fn malformed_replies_have_a_form_as_well() {
        for reply in [&b""[..], b"*", b"*2\r\n+a", b"*3\r\n+a\r\nx", b"%1\r\n+a\r\n"] {
            for request in ["SMEMBERS k", "HGETALL k", "EXEC", "INFO", "GET k", "\"", ""] {
                assert_eq!(of(request, reply), of(request, reply));
            }
        }
        assert_ne!(of("SMEMBERS k", b"*2\r\n+a\r\n+b"), of("SMEMBERS k", b"*2\r\n+a\r\n+c"));
    }
}
