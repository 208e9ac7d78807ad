//! Replies: where one ends, the normal form in which it is kept and delivered, and the form in which it is compared.

use super::body::{self, Body, State};
use super::head::{self, Head, StatusLine, put};
use crate::framing::{Connections, FramingError, Scan, wait};
use crate::ids::Digest;
use blake3::Hasher;

/// The end of the reply to `request`, with the interim replies in front of it.
pub(in crate::framing) fn next_reply(
    scan: &mut Scan,
    request: &[u8],
    bytes: &[u8],
    closed: bool,
    limit: usize,
    connections: Connections,
) -> Result<Option<usize>, FramingError> {
    let window = &bytes[..bytes.len().min(limit)];
    if let Some(end) = find(scan, request, window, limit, connections)? {
        return Ok(Some(end));
    }
    if State::load(scan) != State::Close {
        return wait(bytes.len(), closed, limit);
    }
    scan.seen = window.len();
    if bytes.len() > limit {
        return Err(FramingError::TooLong { limit });
    }
    Ok(closed.then_some(bytes.len()))
}

fn find(
    scan: &mut Scan,
    request: &[u8],
    window: &[u8],
    limit: usize,
    connections: Connections,
) -> Result<Option<usize>, FramingError> {
    while let State::Head(start) = State::load(scan) {
        let Some(end) = head::end(scan, start, window)? else { return Ok(None) };
        let head = head::reply(&window[start..end])?;
        if is_interim(&head)? {
            State::Head(end).store(scan);
            continue;
        }
        let body = body_of(&head, request)?;
        if body == Body::Close && connections != Connections::PerRequest {
            // The end of an application that died would look the same.
            return Err(FramingError::Malformed(
                "a reply that only the close ends (use --app-connections per-request)",
            ));
        }
        body::begin(scan, body, end, limit)?;
    }
    body::end(scan, window, limit)
}

/// Whether another reply to the same request follows.
fn is_interim(head: &Head<'_, StatusLine<'_>>) -> Result<bool, FramingError> {
    match head.line.code {
        101 => Err(FramingError::Malformed("another protocol than HTTP/1.1, which nobody asked for")),
        100..=199 => Ok(true),
        200..=999 => Ok(false),
        _ => Err(FramingError::Malformed("a bad status code")),
    }
}

/// How the body of a final reply ends (RFC 9112, section 6.3).
fn body_of(head: &Head<'_, StatusLine<'_>>, request: &[u8]) -> Result<Body, FramingError> {
    let said = Body::of(head)?;
    let bodiless = is_head(request) || matches!(head.line.code, 204 | 304);
    Ok(if bodiless { Body::None } else { said.unwrap_or(Body::Close) })
}

fn is_head(request: &[u8]) -> bool {
    request.starts_with(b"HEAD ")
}

/// The final head of a whole reply, and where its body begins.
fn last_head(reply: &[u8]) -> Result<(Head<'_, StatusLine<'_>>, usize), FramingError> {
    let mut start = 0;
    loop {
        let head = head::reply(&reply[start..])?;
        start += head.length;
        if !is_interim(&head)? {
            return Ok((head, start));
        }
    }
}

/// A whole reply as it is kept and delivered: HTTP/1.1, with the body's length in front of it where it has a body,
/// without interim replies and what is about the application's own connection. Also whether that connection ends.
pub(super) fn normal(request: &[u8], reply: &[u8]) -> Result<(Vec<u8>, bool), FramingError> {
    let (head, start) = last_head(reply)?;
    let body = body_of(&head, request)?;
    let content = body::content(body, reply, start);
    let mut out = Vec::with_capacity(reply.len() + 64);
    out.extend_from_slice(format!("HTTP/1.1 {} {}\r\n", head.line.code, head.line.reason).as_bytes());
    for field in head.lasting() {
        put(&mut out, field.name, field.value);
    }
    match body {
        // The length is that of the body that another request would get.
        Body::None if head.line.code != 204 => {
            if let Some(length) = head.only("content-length", "several Content-Length fields")? {
                put(&mut out, "Content-Length", length);
            }
        }
        Body::None => {}
        _ => put(&mut out, "Content-Length", content.len().to_string().as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&content);
    Ok((out, head.closes() || body == Body::Close))
}

/// The hash of what two correct copies must agree on in a normal reply: the status line, the fields by name without
/// `Date`, the body. Fields of one name stay in their order, which means something.
pub(in crate::framing) fn form(reply: &[u8]) -> Digest {
    let Ok(head) = head::reply(reply) else { return Digest::of(reply) };
    let mut fields: Vec<_> = head.fields.iter().filter(|field| !field.name.eq_ignore_ascii_case("date")).collect();
    fields.sort_by_cached_key(|field| field.name.to_ascii_lowercase());
    let mut text = format!("{} {}\r\n", head.line.code, head.line.reason).into_bytes();
    for field in fields {
        put(&mut text, &field.name.to_ascii_lowercase(), field.value);
    }
    text.extend_from_slice(b"\r\n");
    let mut hasher = Hasher::new();
    hasher.update(b"lockstep: reply of HTTP\n").update(&text).update(&reply[head.length..]);
    Digest(*hasher.finalize().as_bytes())
}

/// Status code and body of a normal reply.
pub(in crate::framing) fn parts(reply: &[u8]) -> Option<(u16, usize)> {
    head::reply(reply).ok().map(|head| (head.line.code, head.length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    const HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n";

    fn next(
        request: &[u8],
        reply: &str,
        closed: bool,
        connections: Connections,
    ) -> Result<Option<usize>, FramingError> {
        next_reply(&mut Scan::default(), request, reply.as_bytes(), closed, 1000, connections)
    }

    fn normal_of(request: &[u8], reply: &str) -> (String, bool) {
        let (bytes, closes) = normal(request, reply.as_bytes()).expect("a reply");
        (String::from_utf8(bytes).expect("text"), closes)
    }

    #[test]
    fn the_end_of_a_reply_depends_on_its_request() {
        let sized = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(next(GET, sized, false, Connections::Shared), Ok(Some(41)));
        assert_eq!(next(HEAD, sized, false, Connections::Shared), Ok(Some(38)));
        for (reply, length) in [
            ("HTTP/1.1 204 No Content\r\n\r\nrest", 27),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\nrest", 48),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nrest", 63),
            ("HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 102 X\r\n\r\nHTTP/1.1 204 \r\n\r\n", 63),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nrest", 58),
        ] {
            assert_eq!(next(GET, reply, false, Connections::Shared), Ok(Some(length)), "{reply}");
            assert_eq!(next(GET, &reply[..length - 1], false, Connections::Shared), Ok(None), "{reply}");
            let cut = next(GET, &reply[..length - 1], true, Connections::PerRequest);
            assert_eq!(cut, Err(FramingError::Truncated), "{reply}");
        }
    }

    #[test]
    fn the_close_ends_a_reply_only_where_the_connection_served_one_request() {
        let reply = "HTTP/1.0 200 OK\r\n\r\nabc";
        assert_eq!(next(GET, reply, false, Connections::PerRequest), Ok(None));
        assert_eq!(next(GET, reply, true, Connections::PerRequest), Ok(Some(reply.len())));
        assert!(matches!(next(GET, reply, false, Connections::Shared), Err(FramingError::Malformed(_))));
        assert_eq!(next(GET, "HTTP/1.0 200 OK\r\n", true, Connections::PerRequest), Err(FramingError::Truncated));
        assert_eq!(next(HEAD, reply, false, Connections::Shared), Ok(Some(19)));
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for reply in [
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 099 Odd\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "\r\nHTTP/1.1 204 X\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(
                matches!(next(GET, reply, false, Connections::PerRequest), Err(FramingError::Malformed(_))),
                "{reply}"
            );
        }
    }

    #[test]
    fn the_normal_form_has_its_length_in_front() {
        let plain = "HTTP/1.1 200 Fine\r\nA: b\r\nContent-Length: 3\r\n\r\nabc";
        for (raw, closes) in [
            (plain, false),
            (
                "HTTP/1.0 200 Fine\r\nA: b\r\nContent-Length: 3\r\nConnection: keep-alive\r\nKeep-Alive: 5\r\n\r\nabc",
                false,
            ),
            ("HTTP/1.0 200 Fine\r\nA: b\r\n\r\nabc", true),
            ("HTTP/1.1 200 Fine\r\nA: b\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", true),
            (
                "HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nA:b\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nT: u\r\n\r\n",
                false,
            ),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Fine\r\nA: b\r\nContent-Length: 3\r\n\r\nabc", false),
        ] {
            assert_eq!(normal_of(GET, raw), (plain.to_owned(), closes), "{raw}");
        }
        let empty = "HTTP/1.1 204 \r\n\r\n";
        assert_eq!(normal_of(GET, "HTTP/1.1 204\r\nContent-Length: 0\r\n\r\n"), (empty.to_owned(), false));
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
        assert_eq!(normal_of(HEAD, head), (head.to_owned(), false));
        assert_eq!(
            normal_of(HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").0,
            "HTTP/1.1 200 OK\r\n\r\n"
        );
    }

    #[test]
    fn replies_are_compared_without_their_date_and_the_order_of_their_fields() {
        let of = |reply: &str| form(reply.as_bytes());
        let one = of("HTTP/1.1 200 OK\r\nDate: now\r\nB: 1\r\nA: 2\r\na: 3\r\n\r\nbody");
        assert_eq!(one, of("HTTP/1.1 200 OK\r\na: 2\r\nA: 3\r\nb: 1\r\ndate: then\r\n\r\nbody"));
        for other in [
            "HTTP/1.1 201 OK\r\nB: 1\r\nA: 2\r\nA: 3\r\n\r\nbody",
            "HTTP/1.1 200 ok\r\nB: 1\r\nA: 2\r\nA: 3\r\n\r\nbody",
            "HTTP/1.1 200 OK\r\nB: 1\r\nA: 3\r\nA: 2\r\n\r\nbody",
            "HTTP/1.1 200 OK\r\nB: 2\r\nA: 2\r\nA: 3\r\n\r\nbody",
            "HTTP/1.1 200 OK\r\nB: 1\r\nA: 2\r\n\r\nbody",
            "HTTP/1.1 200 OK\r\nB: 1\r\nA: 2\r\nA: 3\r\n\r\nbody.",
        ] {
            assert_ne!(one, of(other), "{other}");
        }
    }
}
