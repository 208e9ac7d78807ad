//! Requests: where one ends, and the normal form in which it is ordered.

use super::body::{self, Body, State};
use super::head::{self, Head, RequestLine, put};
use super::status;
use crate::framing::{Connections, FramingError, Manner, Scan, wait};

/// In [`Scan::pending`] behind the state, as long as the client waits for a word before it sends the body.
const EXPECTS: u64 = 1;

/// The end of the request at the front.
pub(in crate::framing) fn next_request(
    scan: &mut Scan,
    bytes: &[u8],
    closed: bool,
    limit: usize,
) -> Result<Option<usize>, FramingError> {
    let window = &bytes[..bytes.len().min(limit)];
    match find(scan, window, limit)? {
        Some(end) => Ok(Some(end)),
        None => wait(bytes.len(), closed, limit),
    }
}

fn find(scan: &mut Scan, window: &[u8], limit: usize) -> Result<Option<usize>, FramingError> {
    if matches!(State::load(scan), State::Head(_)) {
        let start = blank(window);
        let Some(end) = head::end(scan, start, window)? else { return Ok(None) };
        if end == start + 2 {
            return Err(FramingError::Malformed("an empty line instead of a request"));
        }
        let head = head::request(&window[start..end])?;
        check(&head)?;
        body::begin(scan, Body::of(&head)?.unwrap_or(Body::None), end, limit)?;
        if expects(&head)? {
            scan.pending.push(EXPECTS);
        }
    }
    body::end(scan, window, limit)
}

/// Whether the client waits to be told to send the body; it is told once.
pub(in crate::framing) fn take_expectation(scan: &mut Scan) -> bool {
    scan.pending.get_mut(2).is_some_and(|expects| std::mem::take(expects) == EXPECTS)
}

/// Bytes of the one empty line that old clients put behind a body, and so in front of the next request.
fn blank(bytes: &[u8]) -> usize {
    if bytes.starts_with(b"\r\n") { 2 } else { 0 }
}

/// Refuses what two servers may take for two different requests.
fn check(head: &Head<'_, RequestLine<'_>>) -> Result<(), FramingError> {
    let RequestLine { method, target } = head.line;
    let scheme = |scheme: &str| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let good = target.starts_with('/') || scheme("http://") || scheme("https://");
    let special = target == "*" && method == "OPTIONS" || method == "CONNECT";
    if !(good || special) || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(FramingError::Malformed("a bad request target"));
    }
    match head.only("host", "several Host fields")? {
        None if head.old => Ok(()),
        None => Err(FramingError::Malformed("a request without a Host field")),
        Some(host) if host.iter().all(|byte| byte.is_ascii_graphic() && !b",/@\\".contains(byte)) => Ok(()),
        Some(_) => Err(FramingError::Malformed("a bad Host field")),
    }
}

/// Whether the client waits for `100 Continue` (RFC 9110, section 10.1.1).
fn expects(head: &Head<'_, RequestLine<'_>>) -> Result<bool, FramingError> {
    match head.only("expect", status::EXPECTATION)? {
        Some(_) if head.old => Ok(false),
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => Ok(true),
        Some(_) => Err(FramingError::Malformed(status::EXPECTATION)),
        None => Ok(false),
    }
}

/// The head of a whole request, and where its body begins.
pub(super) fn parse(request: &[u8]) -> Result<(Head<'_, RequestLine<'_>>, usize), FramingError> {
    let start = blank(request);
    let head = head::request(&request[start..])?;
    let body = start + head.length;
    Ok((head, body))
}

/// How the reply to a whole request must be given.
pub(super) fn manner(head: &Head<'_, RequestLine<'_>>) -> Manner {
    Manner { last: head.closes(), bodiless: head.line.method == "HEAD", old: head.old }
}

/// The form in which a whole request is ordered, and which alone the application sees: HTTP/1.1, the body's length in
/// front of it, nothing that is about the client's own connection. It is its own normal form.
pub(super) fn normal(
    connections: Connections,
    head: &Head<'_, RequestLine<'_>>,
    request: &[u8],
    start: usize,
) -> Result<Vec<u8>, FramingError> {
    let body = Body::of(head)?;
    let content = body::content(body.unwrap_or(Body::None), request, start);
    let mut out = Vec::with_capacity(request.len() + 64);
    for part in [head.line.method, " ", head.line.target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for field in head.lasting() {
        put(&mut out, field.name, field.value);
    }
    if head.values("host").next().is_none() {
        put(&mut out, "Host", b"");
    }
    if body.is_some() {
        put(&mut out, "Content-Length", content.len().to_string().as_bytes());
    }
    if connections == Connections::PerRequest {
        put(&mut out, "Connection", b"close");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&content);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(text: &str) -> Result<Option<usize>, FramingError> {
        next_request(&mut Scan::default(), text.as_bytes(), false, 1000)
    }

    fn normal_of(connections: Connections, text: &str) -> String {
        let (head, start) = parse(text.as_bytes()).expect("a request");
        String::from_utf8(normal(connections, &head, text.as_bytes(), start).expect("normal")).expect("text")
    }

    #[test]
    fn a_request_ends_with_its_body() {
        let get = "GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n";
        let put = "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
        let chunked = "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        for text in [get, put, chunked, "\r\nGET / HTTP/1.0\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n"] {
            assert_eq!(next(&format!("{text}GET")), Ok(Some(text.len())), "{text}");
            for length in 0..text.len() {
                assert_eq!(next(&text[..length]), Ok(None), "{text}");
            }
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\ny\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\u{a0} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            assert!(matches!(next(text), Err(FramingError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn a_body_beyond_the_limit_is_refused_before_it_comes() {
        let head = "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n";
        assert_eq!(next(head), Err(FramingError::TooLong { limit: 1000 }));
        let head = "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n";
        assert_eq!(next(head), Err(FramingError::TooLong { limit: 1000 }));
    }

    #[test]
    fn a_client_that_waits_for_leave_is_given_it_once() {
        let text = "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\nab";
        let mut scan = Scan::default();
        for length in 0..text.len() - 2 {
            assert_eq!(next_request(&mut scan, &text.as_bytes()[..length], false, 1000), Ok(None));
            assert!(!take_expectation(&mut scan));
        }
        assert_eq!(next_request(&mut scan, &text.as_bytes()[..text.len() - 1], false, 1000), Ok(None));
        assert!(take_expectation(&mut scan) && !take_expectation(&mut scan));
        assert_eq!(next_request(&mut scan, text.as_bytes(), false, 1000), Ok(Some(text.len())));
        assert!(!take_expectation(&mut scan));
    }

    #[test]
    fn the_normal_form_is_about_the_request_alone() {
        let text = "\r\nPUT /k HTTP/1.0\r\nX:  y \r\nConnection: keep-alive, foo\r\nFoo: 1\r\nClose: 2\r\nExpect: 100-continue\r\n\
                    Content-Length: 2\r\nKeep-Alive: 5\r\nx: z\r\n\r\nab";
        let shared = "PUT /k HTTP/1.1\r\nX: y\r\nx: z\r\nHost: \r\nContent-Length: 2\r\n\r\nab";
        let alone = "PUT /k HTTP/1.1\r\nX: y\r\nx: z\r\nHost: \r\nContent-Length: 2\r\nConnection: close\r\n\r\nab";
        for (connections, expected) in [(Connections::Shared, shared), (Connections::PerRequest, alone)] {
            assert_eq!(normal_of(connections, text), expected);
            assert_eq!(normal_of(connections, expected), expected);
        }
        let chunked = "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n\
                       3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nA: b\r\n\r\n";
        let expected = "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabcde";
        assert_eq!(normal_of(Connections::Shared, chunked), expected);
        let get = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n";
        assert_eq!(normal_of(Connections::Shared, get), "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    }
}
