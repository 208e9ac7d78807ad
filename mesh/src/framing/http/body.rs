//! The body of a message: how its end is known, where it is, and what is in it.

use super::head::{self, Head};
use super::status;
use crate::framing::{FramingError, Scan};

/// Bytes of a line with the size of a chunk at most.
const SIZE_LINE: usize = 256;

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// There is none.
    None,
    /// It has so many bytes.
    Length(u64),
    /// In chunks, each with its length.
    Chunked,
    /// It ends with the connection; replies only.
    Close,
}

impl Body {
    /// What the fields of a head say; `None` if they say nothing. One of them, once, or the message is refused: a server
    /// that believes the other one would find another request inside this one.
    pub(super) fn of<Line>(head: &Head<'_, Line>) -> Result<Option<Self>, FramingError> {
        let length = head.only("content-length", "several Content-Length fields")?;
        let coding = head.only("transfer-encoding", "several Transfer-Encoding fields")?;
        match (length, coding) {
            (None, None) => Ok(None),
            (Some(length), None) => decimal(length).map(|length| Some(Self::Length(length))),
            (None, Some(_)) if head.old => Err(FramingError::Malformed("Transfer-Encoding in HTTP/1.0")),
            (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Self::Chunked)),
            (None, Some(_)) => Err(FramingError::Malformed(status::CODING)),
            (Some(_), Some(_)) => Err(FramingError::Malformed("Content-Length beside Transfer-Encoding")),
        }
    }
}

/// Digits and nothing else, as few as a length of ours can have.
fn decimal(text: &[u8]) -> Result<u64, FramingError> {
    let error = FramingError::Malformed("a bad Content-Length");
    if text.is_empty() || text.len() > 15 || !text.iter().all(u8::is_ascii_digit) {
        return Err(error);
    }
    Ok(text.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// The size that a chunk begins with, by its line without CR LF; extensions behind a semicolon mean nothing to anybody.
fn size(line: &[u8]) -> Result<u64, FramingError> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default();
    let value = |digit: &u8| char::from(*digit).to_digit(16).map(u64::from);
    if digits.is_empty() || digits.len() > 15 {
        return Err(FramingError::Malformed("a bad chunk size"));
    }
    digits
        .iter()
        .try_fold(0, |number, digit| Some(number * 16 + value(digit)?))
        .ok_or(FramingError::Malformed("a bad chunk size"))
}

/// What is looked for next, and from where or up to where. Kept in [`Scan::pending`], which is empty at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The head that begins there.
    Head(usize),
    /// Bytes up to there, and then all is there.
    Fixed(usize),
    /// The line with a chunk's size that begins there.
    Size(usize),
    /// A chunk that ends there, with its CR LF.
    Chunk(usize),
    /// The trailer fields that begin there.
    Trailer(usize),
    /// The close.
    Close,
}

impl State {
    pub(super) fn load(scan: &Scan) -> Self {
        let at = scan.pending.get(1).map_or(0, |&at| usize::try_from(at).unwrap_or(usize::MAX));
        match scan.pending.first() {
            None | Some(0) => Self::Head(at),
            Some(1) => Self::Fixed(at),
            Some(2) => Self::Size(at),
            Some(3) => Self::Chunk(at),
            Some(4) => Self::Trailer(at),
            Some(_) => Self::Close,
        }
    }

    pub(super) fn store(self, scan: &mut Scan) {
        let (kind, at) = match self {
            Self::Head(at) => (0, at),
            Self::Fixed(at) => (1, at),
            Self::Size(at) => (2, at),
            Self::Chunk(at) => (3, at),
            Self::Trailer(at) => (4, at),
            Self::Close => (5, 0),
        };
        scan.pending.resize(scan.pending.len().max(2), 0);
        (scan.pending[0], scan.pending[1]) = (kind, at as u64);
    }
}

/// Begins the body behind a head that ends at `start`.
pub(super) fn begin(scan: &mut Scan, body: Body, start: usize, limit: usize) -> Result<(), FramingError> {
    let state = match body {
        Body::None => State::Fixed(start),
        Body::Length(length) => State::Fixed(position(start as u64 + length, limit)?),
        Body::Chunked => State::Size(start),
        Body::Close => State::Close,
    };
    state.store(scan);
    Ok(())
}

/// Goes on in a body that was begun: the end of the message, if it is in the window.
pub(super) fn end(scan: &mut Scan, window: &[u8], limit: usize) -> Result<Option<usize>, FramingError> {
    loop {
        let state = State::load(scan);
        match state {
            State::Head(_) | State::Close => return Ok(None),
            State::Fixed(at) | State::Chunk(at) if window.len() < at => {
                scan.seen = window.len();
                return Ok(None);
            }
            State::Fixed(at) => return Ok(Some(at)),
            State::Chunk(at) => {
                if &window[at - 2..at] != b"\r\n" {
                    return Err(FramingError::Malformed("a chunk must end with CR LF"));
                }
                scan.seen = at;
                State::Size(at).store(scan);
            }
            State::Size(at) => match size_line(window, at)? {
                None => {
                    scan.seen = window.len();
                    return Ok(None);
                }
                Some((0, next)) => {
                    scan.seen = next;
                    State::Trailer(next).store(scan);
                }
                Some((size, next)) => {
                    scan.seen = next;
                    State::Chunk(position(next as u64 + size + 2, limit)?).store(scan);
                }
            },
            State::Trailer(at) => {
                let Some(end) = head::end(scan, at, window)? else { return Ok(None) };
                head::trailer(&window[at..end])?;
                return Ok(Some(end));
            }
        }
    }
}

/// A place that is within the limit; no message may go further.
fn position(at: u64, limit: usize) -> Result<usize, FramingError> {
    usize::try_from(at).ok().filter(|at| *at <= limit).ok_or(FramingError::TooLong { limit })
}

/// The size in the line that begins at `at`, and where the next line begins.
fn size_line(window: &[u8], at: usize) -> Result<Option<(u64, usize)>, FramingError> {
    let rest = &window[at..window.len().min(at + SIZE_LINE)];
    match rest.iter().position(|&byte| byte == b'\n') {
        Some(end) => {
            let line = rest[..end].strip_suffix(b"\r").ok_or(FramingError::Malformed("a line must end with CR LF"))?;
            if line.iter().any(u8::is_ascii_control) {
                return Err(FramingError::Malformed("a control character in a chunk size"));
            }
            Ok(Some((size(line)?, at + end + 1)))
        }
        None if rest.len() == SIZE_LINE => Err(FramingError::Malformed("a chunk size that is too long")),
        None => Ok(None),
    }
}

/// What is in the body that begins at `start` of a whole message, without the chunks' frames.
pub(super) fn content(body: Body, message: &[u8], start: usize) -> Vec<u8> {
    let bytes = message.get(start..).unwrap_or_default();
    if body != Body::Chunked {
        return bytes.to_vec();
    }
    let mut content = Vec::with_capacity(bytes.len());
    let mut at = start;
    // The message was found whole: this ends with the last chunk.
    while let Ok(Some((size, from))) = size_line(message, at) {
        let Some(chunk) = usize::try_from(size).ok().and_then(|size| message.get(from..from.checked_add(size)?)) else {
            break;
        };
        if chunk.is_empty() {
            break;
        }
        content.extend_from_slice(chunk);
        at = from + chunk.len() + 2;
        if at > message.len() {
            break;
        }
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(fields: &str) -> Result<Option<Body>, FramingError> {
        let text = format!("POST / HTTP/1.1\r\n{fields}\r\n");
        Body::of(&head::request(text.as_bytes())?)
    }

    #[test]
    fn the_end_of_a_body_is_said_once_and_in_one_way() {
        assert_eq!(body(""), Ok(None));
        assert_eq!(body("Content-Length: 7\r\n"), Ok(Some(Body::Length(7))));
        assert_eq!(body("Transfer-Encoding: Chunked\r\n"), Ok(Some(Body::Chunked)));
        for fields in [
            "Content-Length: 7\r\nContent-Length: 7\r\n",
            "Content-Length: 7\r\nContent-Length: 8\r\n",
            "Content-Length: 7, 7\r\n",
            "Content-Length: +7\r\n",
            "Content-Length: -7\r\n",
            "Content-Length: 0x7\r\n",
            "Content-Length: 7 7\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding:\r\n",
        ] {
            assert!(matches!(body(fields), Err(FramingError::Malformed(_))), "{fields}");
        }
    }

    #[test]
    fn chunk_sizes_are_hexadecimal_digits() {
        for (line, expected) in [("0", 0), ("a", 10), ("000F", 15), ("5;name=\"value\"", 5), ("5;", 5)] {
            assert_eq!(size(line.as_bytes()), Ok(expected), "{line}");
        }
        for line in ["", ";", " 5", "5 ", "0x5", "-5", "+5", "5\t", "g", "5 ;x", "1111111111111111"] {
            assert!(size(line.as_bytes()).is_err(), "{line}");
        }
    }

    fn chunked(bytes: &[u8]) -> Result<Option<usize>, FramingError> {
        let mut scan = Scan::default();
        begin(&mut scan, Body::Chunked, 0, 100)?;
        end(&mut scan, bytes, 100)
    }

    #[test]
    fn chunks_end_with_an_empty_one_and_the_trailer() {
        for (bytes, expected, text) in [
            (&b"0\r\n\r\n"[..], Some(5), ""),
            (b"3\r\nabc\r\n0\r\n\r\nGET", Some(13), "abc"),
            (b"3;x\r\nabc\r\n1\r\n\n\r\n00\r\nA: b\r\n\r\n", Some(28), "abc\n"),
            (b"3\r\nabc\r\n0\r\n", None, "abc"),
            (b"3\r\nab", None, ""),
            (b"3", None, ""),
        ] {
            assert_eq!(chunked(bytes), Ok(expected), "{bytes:?}");
            assert_eq!(content(Body::Chunked, bytes, 0), text.as_bytes(), "{bytes:?}");
        }
        for bytes in [
            &b"3\r\nabcd\r\n"[..],
            b"3\nabc\r\n",
            b"3\r\nabc\n0\r\n",
            b"0\r\nA : b\r\n\r\n",
            b"0\r\nA\r\n\r\n",
            b"0\r\n a: b\r\n\r\n",
            b"3;\0\r\n",
            b"3;a\rb\r\n",
        ] {
            assert!(matches!(chunked(bytes), Err(FramingError::Malformed(_))), "{bytes:?}");
        }
        assert_eq!(chunked(b"60\r\n"), Err(FramingError::TooLong { limit: 100 }));
        assert!(chunked(&[b'0'; SIZE_LINE]).is_err());
    }
}
