//! Replies of our own: errors, each told to whom it concerns, and which of them ends the connection.

use super::head;
use crate::framing::{FramingError, Manner};
use bytes::Bytes;

/// Errors in a request that have a status code of their own.
pub(super) const VERSION: &str = "only HTTP/1.0 and HTTP/1.1 are spoken here";
pub(super) const TOO_MANY_FIELDS: &str = "too many fields in the head";
pub(super) const CODING: &str = "another Transfer-Encoding than chunked";
pub(super) const EXPECTATION: &str = "another expectation than 100-continue";

/// What a client is told that waits before it sends a body.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// It did not run and will not.
pub(super) const REFUSED: &str = "503 Service Unavailable";
/// It may have run.
pub(super) const UNKNOWN: &str = "504 Gateway Timeout";
/// Cannot be replicated.
pub(super) const NOT_IMPLEMENTED: &str = "501 Not Implemented";
const TOO_LARGE: &str = "413 Content Too Large";

/// A reply of ours with a sentence for people.
pub(super) fn reply(status: &str, manner: Manner, text: &str) -> Bytes {
    let retry = if status == REFUSED { "Retry-After: 1\r\n" } else { "" };
    let length = text.len() + 1;
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n{retry}Content-Length: {length}\r\n\r\n");
    let body = if manner.bodiless { String::new() } else { format!("{text}\n") };
    deliver(manner, (head + &body).into())
}

/// A request that is too large, in its normal form.
pub(super) fn too_large(manner: Manner, limit: usize) -> Bytes {
    reply(TOO_LARGE, manner, &FramingError::TooLong { limit }.to_string())
}

/// What is said of bytes that are no request, before the connection is closed; nothing to a client that ended in the
/// middle.
pub(super) fn protocol_error(error: &FramingError, request_bytes: usize) -> Option<Bytes> {
    let status = match error {
        FramingError::Truncated => return None,
        FramingError::TooLong { limit } if *limit == head::BYTES && request_bytes > head::BYTES => {
            "431 Request Header Fields Too Large"
        }
        FramingError::TooLong { .. } => TOO_LARGE,
        FramingError::Malformed(TOO_MANY_FIELDS) => "431 Request Header Fields Too Large",
        FramingError::Malformed(VERSION) => "505 HTTP Version Not Supported",
        FramingError::Malformed(CODING) => NOT_IMPLEMENTED,
        FramingError::Malformed(EXPECTATION) => "417 Expectation Failed",
        FramingError::Malformed(_) => "400 Bad Request",
    };
    let manner = Manner { last: true, ..Manner::default() };
    Some(reply(status, manner, &error.to_string()))
}

/// A normal reply as one client must have it: whether its connection goes on is said where it is not understood.
pub(super) fn deliver(manner: Manner, reply: Bytes) -> Bytes {
    let connection = match manner {
        Manner { last: true, .. } => &b"Connection: close\r\n"[..],
        Manner { old: true, .. } => b"Connection: keep-alive\r\n",
        _ => return reply,
    };
    let Some(end) = reply.iter().position(|&byte| byte == b'\n') else { return reply };
    let (status, rest) = reply.split_at(end + 1);
    [status, connection, rest].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_replies_that_say_how_the_connection_goes_on() {
        let told = reply(REFUSED, Manner::default(), "why");
        let expected = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nwhy\n";
        assert_eq!(told, expected);
        let told = reply(UNKNOWN, Manner { last: true, bodiless: true, old: true }, "why");
        let expected = "HTTP/1.1 504 Gateway Timeout\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\n";
        assert_eq!(told, expected);
        let kept = deliver(Manner { old: true, ..Manner::default() }, Bytes::from_static(b"HTTP/1.1 204 \r\n\r\n"));
        assert_eq!(kept, "HTTP/1.1 204 \r\nConnection: keep-alive\r\n\r\n");
    }

    #[test]
    fn each_error_has_its_code() {
        let code =
            |error| protocol_error(&error, 1 << 20).map(|told| String::from_utf8_lossy(&told[9..12]).into_owned());
        for (error, expected) in [
            (FramingError::Malformed("x"), Some("400")),
            (FramingError::Malformed(VERSION), Some("505")),
            (FramingError::Malformed(CODING), Some("501")),
            (FramingError::Malformed(EXPECTATION), Some("417")),
            (FramingError::Malformed(TOO_MANY_FIELDS), Some("431")),
            (FramingError::TooLong { limit: head::BYTES }, Some("431")),
            (FramingError::TooLong { limit: 1 << 20 }, Some("413")),
            (FramingError::Truncated, None),
        ] {
            assert_eq!(code(error).as_deref(), expected);
        }
    }
}
