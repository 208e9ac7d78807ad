//! ZooKeeper's protocol (jute records behind their lengths): create, setData, getData, delete.

use super::{KEY, Op, Step};

/// Operations.
mod code {
    pub(super) const CREATE: u32 = 1;
    pub(super) const DELETE: u32 = 2;
    pub(super) const EXISTS: u32 = 3;
    pub(super) const GET: u32 = 4;
    pub(super) const SET: u32 = 5;
}
/// There is no such node: what was removed, or never written.
const NO_NODE: i32 = -101;
/// There is one already.
const NODE_EXISTS: i32 = -110;
/// Every version.
const ANY_VERSION: u32 = u32::MAX;
/// How long a session lives without a word, in milliseconds.
const SESSION: u32 = 40_000;
/// Everything is allowed.
const ALL: u32 = 31;

fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

fn record(parts: &[&[u8]]) -> Vec<u8> {
    text(&parts.concat())
}

fn path() -> Vec<u8> {
    text(&[b"/", &KEY[..]].concat())
}

/// What a client says first: it wants a new session.
pub(super) fn hello(out: &mut Vec<u8>) {
    out.extend_from_slice(&record(&[&[0; 12], &SESSION.to_be_bytes(), &[0; 8], &text(&[0; 16]), &[0]]));
}

/// A request. The number that it should have is always the same: replies come in order.
pub(super) fn request(op: Op, value: &str) -> Vec<u8> {
    let any = ANY_VERSION.to_be_bytes();
    match op {
        Op::Put => call(code::SET, &[&path(), &text(value.as_bytes()), &any]),
        Op::Get => call(code::GET, &[&path(), &[0]]),
        Op::Remove => call(code::DELETE, &[&path(), &any]),
        Op::Size => call(code::EXISTS, &[&text(b"/"), &[0]]),
    }
}

/// Makes the node that [`Op::Put`] writes.
pub(super) fn create(value: &str) -> Vec<u8> {
    let one = 1_u32.to_be_bytes();
    let everybody = [&one[..], &ALL.to_be_bytes(), &text(b"world"), &text(b"anyone")].concat();
    call(code::CREATE, &[&path(), &text(value.as_bytes()), &everybody, &[0; 4]])
}

fn call(code: u32, parts: &[&[u8]]) -> Vec<u8> {
    record(&[&1_u32.to_be_bytes(), &code.to_be_bytes(), &parts.concat()])
}

/// The next record: first the answer to [`hello`], then replies.
pub(super) fn hear(ready: &mut bool, bytes: &[u8]) -> Step {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Step::More };
    let length = u32::from_be_bytes(*length) as usize;
    let Some(record) = rest.get(..length) else { return Step::More };
    let used = 4 + length;
    if !std::mem::replace(ready, true) {
        return Step::Other { used };
    }
    // A number, a transaction's, an error.
    let error = record.get(12..16).and_then(|error| error.try_into().ok()).map_or(-1, i32::from_be_bytes);
    Step::Reply { used, good: matches!(error, 0 | NO_NODE | NODE_EXISTS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_written_as_jute_has_them() {
        let set = request(Op::Put, "xy");
        assert_eq!(set, b"\0\0\0\x1f\0\0\0\x01\0\0\0\x05\0\0\0\x09/k#######\0\0\0\x02xy\xff\xff\xff\xff");
        let get = request(Op::Get, "");
        assert_eq!(get, b"\0\0\0\x16\0\0\0\x01\0\0\0\x04\0\0\0\x09/k#######\0");
        let mut hello_bytes = Vec::new();
        hello(&mut hello_bytes);
        assert_eq!(hello_bytes.len(), 4 + 45);
    }

    #[test]
    fn the_first_record_is_no_reply_and_an_error_is_a_bad_one() {
        let mut ready = false;
        let connected = record(&[&[0; 36]]);
        assert_eq!(hear(&mut ready, &connected[..20]), Step::More);
        assert!(!ready);
        assert_eq!(hear(&mut ready, &connected), Step::Other { used: 40 });
        assert!(ready);
        let reply = |error: i32| record(&[&[0; 12], &error.to_be_bytes(), b"stat"]);
        assert_eq!(hear(&mut ready, &reply(0)), Step::Reply { used: 24, good: true });
        assert_eq!(hear(&mut ready, &reply(NODE_EXISTS)), Step::Reply { used: 24, good: true });
        assert_eq!(hear(&mut ready, &reply(-4)), Step::Reply { used: 24, good: false });
    }
}
