//! The head of a message: its end, found byte by byte, its lines and fields once it is whole.
//!
//! Nothing is tolerated that two programs may read differently: only CR LF ends a line, and no other control character
//! than a tab is in one; no field is folded over lines, no space stands before a colon.

use super::status;
use crate::framing::{FramingError, Scan};
use httparse::{EMPTY_HEADER, Error, Header, Status};

/// Bytes of a head, or of the trailer fields behind a body, at most.
pub(super) const BYTES: usize = 64 << 10;
/// Fields of one at most.
pub(super) const FIELDS: usize = 128;

/// Where the lines that begin at `start` end: behind the first empty one. [`Scan::seen`] counts the bytes that were
/// looked at.
pub(super) fn end(scan: &mut Scan, start: usize, window: &[u8]) -> Result<Option<usize>, FramingError> {
    let reach = window.len().min(start.saturating_add(BYTES));
    let from = scan.seen.clamp(start, reach.max(start));
    for at in from..reach {
        let line = &window[start..at];
        match (line.last(), window[at]) {
            (Some(b'\r'), b'\n') => {
                if line.len() == 1 || line.ends_with(b"\r\n\r") {
                    scan.seen = at + 1;
                    return Ok(Some(at + 1));
                }
            }
            (Some(b'\r'), _) | (_, b'\n') => return Err(FramingError::Malformed("a line must end with CR LF")),
            (_, b'\r' | b'\t' | b' '..=b'~' | 0x80..) => {}
            _ => return Err(FramingError::Malformed("a control character in the head")),
        }
    }
    scan.seen = reach.max(scan.seen);
    if reach == start.saturating_add(BYTES) { Err(FramingError::TooLong { limit: BYTES }) } else { Ok(None) }
}

/// What both kinds of heads have.
#[derive(Debug)]
pub(super) struct Head<'a, Line> {
    /// What the first line says.
    pub(super) line: Line,
    /// HTTP/1.0.
    pub(super) old: bool,
    /// In order.
    pub(super) fields: Vec<Header<'a>>,
    /// Its bytes.
    pub(super) length: usize,
}

/// The first line of a request.
#[derive(Debug)]
pub(super) struct RequestLine<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
}

/// The first line of a reply.
#[derive(Debug)]
pub(super) struct StatusLine<'a> {
    pub(super) code: u16,
    pub(super) reason: &'a str,
}

/// The head of a request, which [`end`] found whole.
pub(super) fn request(bytes: &[u8]) -> Result<Head<'_, RequestLine<'_>>, FramingError> {
    let mut fields = [EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let length = whole(parsed.parse(bytes))?;
    let line = RequestLine { method: parsed.method.unwrap_or(""), target: parsed.path.unwrap_or("") };
    Ok(Head { line, old: parsed.version == Some(0), fields: parsed.headers.to_vec(), length })
}

/// The head of a reply, likewise.
pub(super) fn reply(bytes: &[u8]) -> Result<Head<'_, StatusLine<'_>>, FramingError> {
    let mut fields = [EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let length = whole(parsed.parse(bytes))?;
    let line = StatusLine { code: parsed.code.unwrap_or(0), reason: parsed.reason.unwrap_or("") };
    Ok(Head { line, old: parsed.version == Some(0), fields: parsed.headers.to_vec(), length })
}

/// Checks the fields behind a body, which [`end`] found whole; they are not kept.
pub(super) fn trailer(bytes: &[u8]) -> Result<(), FramingError> {
    let mut fields = [EMPTY_HEADER; FIELDS];
    let parsed = httparse::parse_headers(bytes, &mut fields).map(|status| match status {
        Status::Complete((length, _)) => Status::Complete(length),
        Status::Partial => Status::Partial,
    });
    whole(parsed).map(|_| ())
}

fn whole(parsed: httparse::Result<usize>) -> Result<usize, FramingError> {
    match parsed {
        Ok(Status::Complete(length)) => Ok(length),
        Ok(Status::Partial) => Err(FramingError::Malformed("an incomplete head")),
        Err(Error::TooManyHeaders) => Err(FramingError::Malformed(status::TOO_MANY_FIELDS)),
        Err(Error::Version) => Err(FramingError::Malformed(status::VERSION)),
        Err(Error::HeaderName) => Err(FramingError::Malformed("a bad field name, or a field over several lines")),
        Err(Error::HeaderValue) => Err(FramingError::Malformed("a bad field value")),
        Err(Error::Status) => Err(FramingError::Malformed("a bad status line")),
        Err(Error::NewLine | Error::Token) => Err(FramingError::Malformed("a bad first line")),
    }
}

impl<Line> Head<'_, Line> {
    /// The values of all fields of a name, in order.
    pub(super) fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s [u8]> + 's {
        self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// The members of the lists that all fields of a name are.
    pub(super) fn members<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s [u8]> + 's {
        let members = self.values(name).flat_map(|value| value.split(|&byte| byte == b','));
        members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
    }

    /// Whether such a list has a member.
    pub(super) fn lists(&self, name: &str, member: &str) -> bool {
        self.members(name).any(|other| other.eq_ignore_ascii_case(member.as_bytes()))
    }

    /// The only value of a field that may be there once.
    pub(super) fn only(&self, name: &'static str, repeated: &'static str) -> Result<Option<&[u8]>, FramingError> {
        let mut values = self.values(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(FramingError::Malformed(repeated)),
        }
    }

    /// Whether whoever sent it closes the connection after this message, or wants that.
    pub(super) fn closes(&self) -> bool {
        self.lists("connection", "close") || self.old && !self.lists("connection", "keep-alive")
    }

    /// The fields that are about more than one connection, but without the length of the body.
    pub(super) fn lasting(&self) -> impl Iterator<Item = &Header<'_>> {
        self.fields.iter().filter(|field| {
            let hop = HOP_BY_HOP.iter().any(|name| field.name.eq_ignore_ascii_case(name));
            !hop && !self.lists("connection", field.name) || field.name.eq_ignore_ascii_case("host")
        })
    }
}

/// What is about one connection only (RFC 9110, section 7.6.1), or about the framing, which is written anew. `close` is
/// no field, but once `Connection: close` is written it would be listed as one.
const HOP_BY_HOP: [&str; 10] = [
    "close",
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Appends a field's line.
pub(super) fn put(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(bytes: &[u8]) -> Result<Option<usize>, FramingError> {
        end(&mut Scan::default(), 0, bytes)
    }

    #[test]
    fn a_head_ends_with_an_empty_line() {
        for (bytes, expected) in [
            (&b""[..], None),
            (b"\r", None),
            (b"\r\n", Some(2)),
            (b"a\r\n", None),
            (b"a\r\n\r", None),
            (b"a\r\n\r\nrest\n", Some(5)),
            (b"a: \xe4\t\r\nb:\r\n\r\n", Some(13)),
        ] {
            assert_eq!(find(bytes), Ok(expected), "{bytes:?}");
        }
    }

    #[test]
    fn only_cr_lf_ends_a_line_and_nothing_unprintable_is_in_one() {
        for bytes in [&b"a\n"[..], b"a\rb", b"a\r\r\n", b"\n", b"a\0", b"a\x0b", b"\x16\x03\x01", b"a\x7f", b"\x1b"] {
            assert!(matches!(find(bytes), Err(FramingError::Malformed(_))), "{bytes:?}");
        }
    }

    #[test]
    fn a_head_is_bounded() {
        let mut scan = Scan::default();
        assert_eq!(end(&mut scan, 0, &vec![b'a'; BYTES - 1]), Ok(None));
        assert_eq!(end(&mut scan, 0, &vec![b'a'; BYTES]), Err(FramingError::TooLong { limit: BYTES }));
        let fields = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert_eq!(request(fields(FIELDS).as_bytes()).map(|head| head.fields.len()), Ok(FIELDS));
        let error = request(fields(FIELDS + 1).as_bytes()).map(|head| head.length);
        assert_eq!(error, Err(FramingError::Malformed(status::TOO_MANY_FIELDS)));
    }

    #[test]
    fn what_is_about_one_connection_does_not_last() {
        let bytes =
            b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close, X-One,host\r\nx-one: 1\r\nX-Two: 2\r\nTE: x\r\n\r\n";
        let head = request(bytes).expect("a head");
        let names: Vec<_> = head.lasting().map(|field| field.name).collect();
        assert_eq!(names, ["Host", "X-Two"]);
        assert!(head.closes() && head.lists("connection", "x-ONE") && !head.lists("connection", "x"));
    }

    #[test]
    fn the_old_version_closes_unless_it_says_otherwise() {
        for (text, closes) in [
            ("GET / HTTP/1.1\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", true),
            ("GET / HTTP/1.0\r\n\r\n", true),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", false),
        ] {
            assert_eq!(request(text.as_bytes()).map(|head| head.closes()), Ok(closes), "{text}");
        }
    }
}
