//! Requests as people write them, and what is in the replies: for resets, probes and snapshots by requests.

use super::{Adapter, FramingError, Protocol, http, resp};
use bytes::Bytes;

impl Adapter {
    /// One request as people write it, in the protocol's frame; what it carries stands behind a space, or for HTTP in
    /// the body. For HTTP a line `METHOD /path`, and a field on each further line.
    ///
    /// # Errors
    /// For HTTP, a text that is no request; elsewhere, one that does not fit its frame.
    pub fn compose(&self, text: &str, carried: Option<&[u8]>) -> Result<Bytes, FramingError> {
        if self.protocol == Protocol::Http {
            return http::compose(self, text, carried);
        }
        let mut bytes = text.as_bytes().to_vec();
        if let Some(carried) = carried {
            bytes.push(b' ');
            bytes.extend_from_slice(carried);
        }
        let ended = bytes.ends_with(b"\n");
        match self.protocol {
            Protocol::Line if !ended => bytes.extend_from_slice(b"\n"),
            Protocol::Resp if !ended => bytes.extend_from_slice(b"\r\n"),
            Protocol::Length => {
                let most = FramingError::TooLong { limit: u32::MAX as usize };
                let length = u32::try_from(bytes.len()).map_err(|_| most)?;
                bytes.splice(..0, length.to_be_bytes());
            }
            Protocol::Line | Protocol::Close | Protocol::Http | Protocol::Resp => {}
        }
        Ok(bytes.into())
    }

    /// What is in a kept reply, without the protocol's frame.
    #[must_use]
    pub fn content(&self, reply: &Bytes) -> Bytes {
        match self.protocol {
            Protocol::Line | Protocol::Resp => {
                let text = reply.strip_suffix(b"\n").unwrap_or(reply);
                reply.slice_ref(text.strip_suffix(b"\r").unwrap_or(text))
            }
            Protocol::Length => reply.slice(reply.len().min(4)..),
            Protocol::Http => http::parts(reply).map_or_else(|| reply.clone(), |(_, start)| reply.slice(start..)),
            Protocol::Close => reply.clone(),
        }
    }

    /// Whether a kept reply is known to be an error: in HTTP any status but 2xx.
    #[must_use]
    pub fn is_error(&self, reply: &[u8]) -> bool {
        match self.protocol {
            Protocol::Resp => resp::is_error(reply),
            Protocol::Http => !http::parts(reply).is_some_and(|(code, _)| (200..300).contains(&code)),
            Protocol::Line | Protocol::Length | Protocol::Close => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::{Connections, Scan};

    #[test]
    fn what_is_composed_is_one_request_and_what_is_answered_is_read() {
        for (protocol, text, carried, request, reply) in [
            (Protocol::Line, "LOAD", Some(&b"a b"[..]), &b"LOAD a b\n"[..], &b"done\n"[..]),
            (Protocol::Line, "SIZE", None, b"SIZE\n", b"done\r\n"),
            (Protocol::Resp, "DBSIZE", None, b"DBSIZE\r\n", b"done\r\n"),
            (Protocol::Length, "x", Some(b"yz"), b"\0\0\0\x04x yz", b"\0\0\0\x04done"),
            (Protocol::Close, "x", None, b"x", b"done"),
            (
                Protocol::Http,
                "PUT /load\nX: y",
                Some(b"\r\n\0"),
                b"PUT /load HTTP/1.1\r\nX: y\r\nHost: localhost\r\nContent-Length: 3\r\nConnection: close\r\n\r\n\r\n\0",
                b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone",
            ),
            (
                Protocol::Http,
                "GET /dump\nhost: me",
                None,
                b"GET /dump HTTP/1.1\r\nhost: me\r\nConnection: close\r\n\r\n",
                b"HTTP/1.1 201 OK\r\n\r\ndone",
            ),
        ] {
            let connections = Connections::PerRequest;
            let adapter = Adapter { protocol, connections, request_bytes: 1000, reply_bytes: 1000 };
            let composed = adapter.compose(text, carried).expect("good text");
            assert_eq!(composed, request, "{text}");
            assert_eq!(adapter.next_request(&mut Scan::default(), &composed, true), Ok(Some(composed.len())), "{text}");
            let reply = Bytes::from_static(reply);
            assert_eq!((&adapter.content(&reply)[..], adapter.is_error(&reply)), (&b"done"[..], false), "{text}");
        }
    }

    #[test]
    fn what_is_no_http_request_is_not_composed_and_other_codes_are_errors() {
        let adapter = Adapter::from_name("http/shared", 1000, 1000).expect("known");
        for text in ["", "GET", "GET x", "GET /\n\nGET /", "GET /\nContent-Length: 5", "GET / HTTP/1.1", "GET /\nX"] {
            assert!(adapter.compose(text, None).is_err(), "{text}");
        }
        for reply in ["HTTP/1.1 404 Not Found\r\n\r\n", "HTTP/1.1 302 Found\r\n\r\n", "rubbish", ""] {
            assert!(adapter.is_error(reply.as_bytes()), "{reply}");
        }
        let resp = Adapter::from_name("resp/shared", 1000, 1000).expect("known");
        assert!(resp.is_error(b"-ERR x\r\n") && !resp.is_error(b"+OK\r\n"));
    }
}
