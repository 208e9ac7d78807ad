//! HTTP/1.1 as far as a store of keys answers in it: a length, chunks, or the end of the connection.

use super::{KEY, Op, Step};

/// A request.
pub(super) fn request(op: Op, value: &str, keep: bool) -> Vec<u8> {
    let key = String::from_utf8_lossy(KEY);
    let (method, path, body) = match op {
        Op::Put => ("PUT", key.as_ref(), value),
        Op::Get => ("GET", key.as_ref(), ""),
        Op::Remove => ("DELETE", key.as_ref(), ""),
        Op::Size => ("GET", "size", ""),
    };
    let length = if op == Op::Put { format!("Content-Length: {}\r\n", body.len()) } else { String::new() };
    let close = if keep { "" } else { "Connection: close\r\n" };
    format!("{method} /{path} HTTP/1.1\r\nHost: bench\r\n{length}{close}\r\n{body}").into_bytes()
}

/// A head, and what it says of the body.
struct Head {
    bytes: usize,
    status: u16,
    body: Body,
}

enum Body {
    Length(usize),
    Chunks,
    ToTheEnd,
}

fn head(bytes: &[u8]) -> Option<Head> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..end]).unwrap_or_default();
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).unwrap_or(0);
    let mut body = if matches!(status, 100..=199 | 204 | 304) { Body::Length(0) } else { Body::ToTheEnd };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            body = Body::Length(value.trim().parse().unwrap_or(0));
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            body = Body::Chunks;
        }
    }
    Some(Head { bytes: end, status, body })
}

/// What is not there is no error: keys are also read before they are written.
fn is_good(status: u16) -> bool {
    matches!(status, 200..=399 | 404)
}

/// The head, and the body that it announces.
pub(super) fn reply(bytes: &[u8]) -> Step {
    let Some(head) = head(bytes) else { return Step::More };
    let body = &bytes[head.bytes..];
    let length = match head.body {
        Body::Length(length) => Some(length).filter(|length| *length <= body.len()),
        Body::Chunks => chunks(body),
        Body::ToTheEnd => None,
    };
    match length {
        Some(length) => Step::Reply { used: head.bytes + length, good: is_good(head.status) },
        None => Step::More,
    }
}

/// Bytes of a whole body in chunks, which has no trailer fields.
fn chunks(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = body[at..].windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&body[at..at + line]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        at += line + 2 + size + 2;
        if at > body.len() {
            return None;
        }
        if size == 0 {
            return Some(at);
        }
    }
}

/// A reply that the end of the connection ends.
pub(super) fn is_good_end(bytes: &[u8]) -> bool {
    head(bytes).is_some_and(|head| matches!(head.body, Body::ToTheEnd) && is_good(head.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_ends_as_its_head_says() {
        for (text, good) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", true),
            ("HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n", true),
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", true),
            ("HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\nno", false),
        ] {
            assert_eq!(reply(format!("{text}HTTP").as_bytes()), Step::Reply { used: text.len(), good }, "{text:?}");
            for cut in 0..text.len() {
                assert_eq!(reply(&text.as_bytes()[..cut]), Step::More, "{text:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn without_a_length_the_end_of_the_connection_ends_it() {
        assert_eq!(reply(b"HTTP/1.0 200 OK\r\n\r\nabc"), Step::More);
        assert!(is_good_end(b"HTTP/1.0 200 OK\r\n\r\nabc") && !is_good_end(b"HTTP/1.0 500 No\r\n\r\n"));
        assert!(!is_good_end(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), "cut off");
    }
}
