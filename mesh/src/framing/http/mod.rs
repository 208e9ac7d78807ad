//! The adapter `http`: HTTP/1.0 and HTTP/1.1.
//!
//! Requests are ordered, and replies kept, in a normal form: HTTP/1.1, the body's length in front of it, nothing about
//! the connection that it came over. Whoever frames in another way than we do therefore never sees the bytes about which
//! we could differ, a client's wish to close ends the client's connection and no other, and an application that closes
//! after each reply serves clients that keep theirs. The price: trailer fields and interim replies are dropped.
//!
//! [`head`] and [`body`] are of both kinds of messages, [`request`] and [`reply`] of one, [`status`] has our own replies.

mod body;
mod head;
mod reply;
mod request;
mod status;

pub(super) use reply::{form, next_reply, parts};
pub(super) use request::next_request;

use super::{Adapter, FramingError, Handling, Manner, Reply, Scan};
use bytes::Bytes;

/// What to do with one whole request. Refused is what would turn the connection into another protocol's.
pub(super) fn handle(adapter: &Adapter, request: &[u8]) -> Handling {
    let whole = request::parse(request);
    let normal = whole.as_ref().map_err(Clone::clone).and_then(|(head, start)| {
        request::normal(adapter.connections, head, request, *start).map(|normal| (head, request::manner(head), normal))
    });
    let (head, manner, normal) = match normal {
        Ok(parts) => parts,
        Err(error) => {
            return Handling::LocalThenClose(status::protocol_error(&error, adapter.request_bytes).unwrap_or_default());
        }
    };
    if head.line.method == "CONNECT" {
        let manner = Manner { last: true, ..manner };
        let text = "CONNECT is refused: this is no proxy to elsewhere";
        Handling::LocalThenClose(status::reply(status::NOT_IMPLEMENTED, manner, text))
    } else if head.lists("upgrade", "websocket") {
        let text = "a WebSocket is refused: what goes over it cannot be replicated";
        Handling::Refuse(status::reply(status::NOT_IMPLEMENTED, manner, text))
    } else if normal.len() > adapter.request_bytes {
        Handling::Refuse(status::too_large(manner, adapter.request_bytes))
    } else if normal == request {
        Handling::Order
    } else {
        Handling::OrderAs(normal.into())
    }
}

/// How the answer to one whole request must be given.
pub(super) fn manner(request: &[u8]) -> Manner {
    request::parse(request).map_or(Manner { last: true, ..Manner::default() }, |(head, _)| request::manner(&head))
}

/// What the client must be told before it sends the rest of its request.
pub(super) fn interim(scan: &mut Scan) -> Option<Bytes> {
    request::take_expectation(scan).then_some(Bytes::from_static(status::CONTINUE))
}

/// One whole reply of the application, in its normal form.
pub(super) fn reply(request: &[u8], bytes: Bytes) -> Reply {
    match reply::normal(request, &bytes) {
        Ok((normal, last)) => Reply { form: form(&normal), bytes: normal.into(), last },
        // Not of the protocol: never found whole.
        Err(_) => Reply { form: form(&bytes), bytes, last: true },
    }
}

/// A definite error.
pub(super) fn refusal(manner: Manner, reason: &str) -> Bytes {
    status::reply(status::REFUSED, manner, reason)
}

/// An unknown outcome; the connection is closed.
pub(super) fn unknown(manner: Manner, reason: &str) -> Bytes {
    let text = format!("{reason}; the request may have been run, or may still be");
    status::reply(status::UNKNOWN, Manner { last: true, ..manner }, &text)
}

/// What is said of bytes that are no request.
pub(super) fn protocol_error(adapter: &Adapter, error: &FramingError) -> Option<Bytes> {
    status::protocol_error(error, adapter.request_bytes)
}

/// A kept reply as the client must have it.
pub(super) fn deliver(manner: Manner, reply: Bytes) -> Bytes {
    status::deliver(manner, reply)
}

/// A request as people write it, "GET /path" with a field on each further line, and its body.
pub(super) fn compose(adapter: &Adapter, text: &str, body: Option<&[u8]>) -> Result<Bytes, FramingError> {
    let mut lines = text.lines();
    let mut head = format!("{} HTTP/1.1\r\n", lines.next().unwrap_or_default().trim());
    let mut named = false;
    for line in lines {
        named |= line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case("host:"));
        head.extend([line.trim_end(), "\r\n"]);
    }
    if !named {
        head.push_str("Host: localhost\r\n");
    }
    if let Some(body) = body {
        head.extend([format!("Content-Length: {}\r\n", body.len())]);
    }
    head.push_str("\r\n");
    let bytes = [head.as_bytes(), body.unwrap_or_default()].concat();
    if next_request(&mut Scan::default(), &bytes, true, usize::MAX)? != Some(bytes.len()) {
        return Err(FramingError::Malformed("not one request"));
    }
    let (head, start) = request::parse(&bytes)?;
    request::normal(adapter.connections, &head, &bytes, start).map(Bytes::from)
}
