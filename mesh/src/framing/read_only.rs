//! Which requests change nothing, so that one replica may answer them without the log (rule 32).
//!
//! It is judged by the bytes, on both sides: the ingress asks this way only for what it takes for a read, and a replica answers
//! nothing else. What is not known for certain is no read: it goes through the log, which is always right.
//!
//! Of `resp` the table of commands knows; nothing needs to be said. Of `line` and `close` it is known by the first word, and
//! of `http` by the method, if the operator says so: whether a `GET` changes nothing only he can know. Of `length` nothing
//! is known. Where each session has a connection of its own, what a request means depends on what that was told before: there
//! nothing is a read.

use super::{Adapter, Connections, Protocol, Scan, resp};
use std::collections::BTreeSet;

/// The first words that an operator vouches for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOnly {
    words: BTreeSet<String>,
}

/// Why words cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReadOnly {
    /// The adapter knows no first word.
    #[error("requests of {0} have no first word that tells")]
    NotOf(Protocol),
    /// Not a word.
    #[error("\"{0}\" is no word that a request could begin with")]
    NoWord(String),
}

impl ReadOnly {
    /// Those words, for requests of `protocol`; none are needed.
    ///
    /// # Errors
    /// They tell nothing there.
    pub fn new(protocol: Protocol, words: impl IntoIterator<Item = String>) -> Result<Self, NoReadOnly> {
        let words: BTreeSet<String> = words.into_iter().collect();
        let tells = matches!(protocol, Protocol::Line | Protocol::Close | Protocol::Http);
        match words.iter().find(|word| word.is_empty() || word.bytes().any(|byte| !byte.is_ascii_graphic())) {
            Some(word) => Err(NoReadOnly::NoWord(word.clone())),
            None if !words.is_empty() && !tells => Err(NoReadOnly::NotOf(protocol)),
            None => Ok(Self { words }),
        }
    }

    /// The words.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(String::as_str)
    }

    /// Whether `request`, in the form in which it would be ordered, is exactly one request that changes nothing.
    #[must_use]
    pub fn is_read(&self, adapter: &Adapter, request: &[u8]) -> bool {
        if adapter.connections == Connections::PerSession {
            return false;
        }
        let read = match adapter.protocol {
            Protocol::Resp => resp::is_read(adapter.connections, request),
            // What one closes with may be many lines, and so many requests to the application.
            Protocol::Line | Protocol::Close => self.has(first_word(request)) && is_one_line(request),
            Protocol::Http => self.has(first_word(request)),
            Protocol::Length => false,
        };
        read && adapter.next_request(&mut Scan::default(), request, true) == Ok(Some(request.len()))
    }

    fn has(&self, word: &[u8]) -> bool {
        std::str::from_utf8(word).is_ok_and(|word| self.words.contains(word))
    }
}

fn first_word(request: &[u8]) -> &[u8] {
    let end = request.iter().position(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    &request[..end.unwrap_or(request.len())]
}

/// Whether nothing that could be taken for the end of a line stands before the end.
fn is_one_line(request: &[u8]) -> bool {
    let line = request.strip_suffix(b"\n").unwrap_or(request);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    !line.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(protocol: Protocol, connections: Connections) -> Adapter {
        Adapter { protocol, connections, request_bytes: 1 << 10, reply_bytes: 1 << 10 }
    }

    fn words(protocol: Protocol, words: &[&str]) -> ReadOnly {
        ReadOnly::new(protocol, words.iter().map(ToString::to_string)).expect("words")
    }

    #[test]
    fn a_line_is_a_read_by_its_first_word_and_nothing_else() {
        let reads = words(Protocol::Line, &["GET", "SIZE"]);
        let line = adapter(Protocol::Line, Connections::Shared);
        for read in ["GET a\n", "GET a\r\n", "SIZE\n", "GET\n", "GET\ta\n"] {
            assert!(reads.is_read(&line, read.as_bytes()), "{read:?}");
        }
        for no in [
            "PUT a 1\n",
            "get a\n",
            "GETSET a\n",
            " GET a\n",
            "GET a",
            "GET a\nPUT a 1\n",
            "GET a\rPUT a 1\n",
            "\n",
            "",
        ] {
            assert!(!reads.is_read(&line, no.as_bytes()), "{no:?}");
        }
        assert!(!reads.is_read(&adapter(Protocol::Line, Connections::PerSession), b"GET a\n"));
        assert!(!ReadOnly::default().is_read(&line, b"GET a\n"), "nobody has said so");
    }

    #[test]
    fn of_close_a_single_line_alone_is_one() {
        let reads = words(Protocol::Close, &["GET"]);
        let close = adapter(Protocol::Close, Connections::PerRequest);
        assert!(reads.is_read(&close, b"GET a\n") && reads.is_read(&close, b"GET a"));
        assert!(!reads.is_read(&close, b"GET a\nPUT a 1\n") && !reads.is_read(&close, b"GET a\nPUT a 1"));
    }

    #[test]
    fn of_http_it_is_the_method() {
        let reads = words(Protocol::Http, &["GET", "HEAD"]);
        let http = adapter(Protocol::Http, Connections::PerRequest);
        assert!(reads.is_read(&http, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        assert!(!reads.is_read(&http, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        assert!(!ReadOnly::default().is_read(&http, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
    }

    #[test]
    fn of_redis_the_table_knows() {
        let (reads, resp) = (ReadOnly::default(), adapter(Protocol::Resp, Connections::Shared));
        let command = |words: &[&str]| {
            let mut bytes = format!("*{}\r\n", words.len());
            words.iter().for_each(|word| bytes.push_str(&format!("${}\r\n{word}\r\n", word.len())));
            bytes.into_bytes()
        };
        for read in
            [&["GET", "a"][..], &["mget", "a", "b"], &["HGETALL", "h"], &["ZRANGE", "z", "0", "-1"], &["DBSIZE"]]
        {
            assert!(reads.is_read(&resp, &command(read)), "{read:?}");
        }
        assert!(reads.is_read(&resp, b"GET a\r\n"), "inline");
        // Writes; what a clock or chance decides; what is kept beside the data; what is not ordered as it is.
        for no in [
            &["SET", "a", "1"][..],
            &["GETDEL", "a"],
            &["GETEX", "a"],
            &["GETSET", "a", "1"],
            &["TTL", "a"],
            &["OBJECT", "FREQ", "a"],
            &["PFCOUNT", "a"],
            &["TOUCH", "a"],
            &["INFO"],
            &["PING"],
            &["MULTI"],
            &["SORT", "a", "STORE", "b"],
            &["BITFIELD", "a", "INCRBY", "u8", "0", "1"],
            &["EVAL", "x", "0"],
            &["nothing"],
        ] {
            assert!(!reads.is_read(&resp, &command(no)), "{no:?}");
        }
        let two = [command(&["GET", "a"]), command(&["SET", "a", "1"])].concat();
        assert!(!reads.is_read(&resp, &two));
        assert!(!reads.is_read(&adapter(Protocol::Resp, Connections::PerSession), &command(&["GET", "a"])));
    }

    #[test]
    fn words_that_tell_nothing_are_refused() {
        let new = |protocol, word: &str| ReadOnly::new(protocol, [word.to_owned()]);
        assert_eq!(new(Protocol::Resp, "GET"), Err(NoReadOnly::NotOf(Protocol::Resp)));
        assert_eq!(new(Protocol::Length, "GET"), Err(NoReadOnly::NotOf(Protocol::Length)));
        assert_eq!(new(Protocol::Line, "GET a"), Err(NoReadOnly::NoWord("GET a".to_owned())));
        assert_eq!(new(Protocol::Line, ""), Err(NoReadOnly::NoWord(String::new())));
        assert!(ReadOnly::new(Protocol::Resp, []).is_ok());
    }
}
