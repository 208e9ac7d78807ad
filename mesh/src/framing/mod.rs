//! Framing adapters: where the next request and the next reply end, and what else must be known of a protocol.
//!
//! One file each. Pure functions of bytes, which come as they come, however they are cut: [`Scan`] remembers how far the
//! front of the buffer was looked at, so that feeding a long request byte by byte stays linear.

mod close;
mod compose;
mod http;
mod length;
mod line;
mod names;
mod read_only;
mod resp;
mod state;
#[cfg(test)]
mod tests;

pub use names::UnknownName;
pub use read_only::{NoReadOnly, ReadOnly};
pub use state::{ConnectionState, Replayed};

use crate::ids::Digest;
use bytes::Bytes;

/// Where a scan of the front of a buffer stopped. Made new ([`Scan::default`]) for every request or reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Bytes of the front that were looked at already and need no second look.
    pub seen: usize,
    /// Adapter's own count, such as RESP values still to come at each depth; bounded by the adapter.
    pub pending: Vec<u64>,
}

/// Why bytes are no request, or no reply. The connection cannot go on: the next boundary is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Longer than the limit.
    #[error("longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// Not of the protocol.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// The bytes ended within a request or a reply.
    #[error("the connection ended in the middle")]
    Truncated,
}

/// What to do with one whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handling {
    /// Order it and execute it everywhere.
    Order,
    /// Likewise, but in this form, which means the same.
    OrderAs(Bytes),
    /// Answer it here, without the cluster: it touches no state.
    Local(Bytes),
    /// Answer it here, then close the connection.
    LocalThenClose(Bytes),
    /// Refuse it with this error of the protocol: it must not run, for the reason that the error names.
    Refuse(Bytes),
}

/// What must be kept of a request until it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// The client's connection ends with the answer.
    pub last: bool,
    /// The answer has no body (HTTP's `HEAD`).
    pub bodiless: bool,
    /// The client takes a connection for one request's unless it is told otherwise (HTTP/1.0).
    pub old: bool,
}

/// A whole reply of the application, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What is delivered.
    pub bytes: Bytes,
    /// The hash of its comparison form (rule 28).
    pub form: Digest,
    /// The application said that it takes no further request on this connection.
    pub last: bool,
}

/// The adapters that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A line a request, a line a reply.
    Line,
    /// The paper's: a request ends with the client's half-close, a reply with the application's close.
    Close,
    /// A big-endian u32 length before each request and reply.
    Length,
    /// HTTP/1.0 and HTTP/1.1.
    Http,
    /// Redis' RESP2 and RESP3.
    Resp,
}

/// How the application's connections are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// One for each request.
    PerRequest,
    /// One for all, requests pipelined in order.
    Shared,
    /// One for each session, one request at a time.
    PerSession,
}

/// A hash that stands for "not compared": every replica has the same.
#[must_use]
pub fn not_compared() -> Digest {
    Digest::of(b"lockstep: reply not compared")
}

/// A protocol as one cluster speaks it: the adapter with its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// The protocol.
    pub protocol: Protocol,
    /// How the application's connections are used.
    pub connections: Connections,
    /// Bytes of one request at most.
    pub request_bytes: usize,
    /// Bytes of one reply at most.
    pub reply_bytes: usize,
}

impl Adapter {
    /// Length of the request at the front of `bytes`, or `None` if it needs more. `closed`: no more will come (the
    /// client's half-close); then `Ok(None)` means that nothing is left, and half a request is [`FramingError::Truncated`].
    ///
    /// # Errors
    /// As soon as it is certain that no request of the protocol, or none within the limit, begins here.
    pub fn next_request(&self, scan: &mut Scan, bytes: &[u8], closed: bool) -> Result<Option<usize>, FramingError> {
        match self.protocol {
            Protocol::Line => line::next_request(scan, bytes, closed, self.request_bytes),
            Protocol::Close => close::next_request(bytes, closed, self.request_bytes),
            Protocol::Length => length::next(bytes, closed, self.request_bytes),
            Protocol::Http => http::next_request(scan, bytes, closed, self.request_bytes),
            Protocol::Resp => resp::next_request(scan, bytes, closed, self.request_bytes),
        }
    }

    /// What a client must be told before it sends the rest of the request that `scan` is at: after a
    /// [`Adapter::next_request`] that needs more, and once.
    pub fn interim(&self, scan: &mut Scan) -> Option<Bytes> {
        match self.protocol {
            Protocol::Http => http::interim(scan),
            Protocol::Line | Protocol::Close | Protocol::Length | Protocol::Resp => None,
        }
    }

    /// Length of the reply to `request` at the front of `bytes`; `closed` as above, for the application's close. Only the
    /// protocol `close` knows an empty reply, `Some(0)`, and only at the close.
    ///
    /// # Errors
    /// As soon as it is certain that no reply of the protocol, or none within the limit, begins here.
    pub fn next_reply(
        &self,
        scan: &mut Scan,
        request: &[u8],
        bytes: &[u8],
        closed: bool,
    ) -> Result<Option<usize>, FramingError> {
        match self.protocol {
            Protocol::Line => line::next_reply(scan, bytes, closed, self.reply_bytes, self.connections),
            Protocol::Close => close::next_reply(bytes, closed, self.reply_bytes),
            Protocol::Length => length::next(bytes, closed, self.reply_bytes),
            Protocol::Http => http::next_reply(scan, request, bytes, closed, self.reply_bytes, self.connections),
            Protocol::Resp => resp::next_reply(scan, bytes, closed, self.reply_bytes),
        }
    }

    /// What to do with one whole request.
    #[must_use]
    pub fn handle(&self, request: &[u8]) -> Handling {
        match self.protocol {
            Protocol::Line | Protocol::Close | Protocol::Length => Handling::Order,
            Protocol::Http => http::handle(self, request),
            Protocol::Resp => resp::handle(self.connections, request),
        }
    }

    /// Whether a transaction is open on a session's own connection behind `request`, if one was `open` before: a request
    /// that is not executed within one must not leave the others to be.
    #[must_use]
    pub fn in_transaction(&self, open: bool, request: &[u8]) -> bool {
        match (self.protocol, self.connections) {
            (Protocol::Resp, Connections::PerSession) => resp::in_transaction(open, request),
            _ => false,
        }
    }

    /// Whether `request` is exactly one request that may be ordered. A replica asks this of what comes over the mesh: a
    /// client that speaks to it without an ingress could otherwise make the application wait for ever, or run two at once.
    #[must_use]
    pub fn is_orderable(&self, request: &[u8]) -> bool {
        self.next_request(&mut Scan::default(), request, true) == Ok(Some(request.len()))
            && self.handle(request) == Handling::Order
    }

    /// How the answer to one whole request must be given.
    #[must_use]
    pub fn manner(&self, request: &[u8]) -> Manner {
        match self.protocol {
            Protocol::Http => http::manner(request),
            Protocol::Line | Protocol::Close | Protocol::Length | Protocol::Resp => Manner::default(),
        }
    }

    /// One whole reply of the application, as it is kept.
    #[must_use]
    pub fn reply(&self, request: &[u8], bytes: Bytes) -> Reply {
        match self.protocol {
            Protocol::Http => http::reply(request, bytes),
            _ => Reply { form: self.form(request, &bytes), bytes, last: false },
        }
    }

    /// The hash of the comparison form of a kept reply (rule 28).
    #[must_use]
    pub fn form(&self, request: &[u8], reply: &[u8]) -> Digest {
        match self.protocol {
            Protocol::Line | Protocol::Close | Protocol::Length => Digest::of(reply),
            Protocol::Http => http::form(reply),
            Protocol::Resp => resp::form(self.connections, request, reply),
        }
    }

    /// What to ask of a session's own connection in place of `request`, if anything (rule 27): there is no room to keep that,
    /// where the connections of all sessions keep `all` bytes; or the application must be kept from running it.
    #[must_use]
    pub fn instead(&self, state: &ConnectionState, request: &[u8], all: usize) -> Option<Bytes> {
        match self.protocol {
            Protocol::Line | Protocol::Close | Protocol::Length | Protocol::Http => None,
            Protocol::Resp => resp::instead(state, request, all),
        }
    }

    /// Notes what an executed request did to its session's own connection (rule 27). `instead` is what was asked in its
    /// place, `reply` the answer to that. Returns the reply that counts.
    pub fn executed(
        &self,
        state: &mut ConnectionState,
        request: &[u8],
        instead: Option<&Bytes>,
        reply: Bytes,
    ) -> Bytes {
        match self.protocol {
            Protocol::Line | Protocol::Close | Protocol::Length | Protocol::Http => reply,
            Protocol::Resp => resp::executed(state, request, instead, reply),
        }
    }

    /// What to ask, on a connection of its own, to learn whether what watching connections look at has changed.
    #[must_use]
    pub fn watch_question(&self) -> Option<Bytes> {
        (self.protocol == Protocol::Resp).then(resp::watch_question)
    }

    /// Whether it has for the connection that the application sees coming from `address`; `None` if the answer does not say.
    #[must_use]
    pub fn watch_answer(&self, answer: &[u8], address: std::net::SocketAddr) -> Option<bool> {
        if self.protocol == Protocol::Resp { resp::watch_answer(answer, address) } else { None }
    }

    /// A kept reply as the client must have it.
    #[must_use]
    pub fn deliver(&self, manner: Manner, reply: Bytes) -> Bytes {
        match self.protocol {
            Protocol::Http => http::deliver(manner, reply),
            Protocol::Line | Protocol::Close | Protocol::Length | Protocol::Resp => reply,
        }
    }

    /// A definite error in the protocol's own words, if it has errors; otherwise the connection is closed.
    #[must_use]
    pub fn refusal(&self, manner: Manner, reason: &str) -> Option<Bytes> {
        match self.protocol {
            Protocol::Line | Protocol::Close | Protocol::Length => None,
            Protocol::Http => Some(http::refusal(manner, reason)),
            Protocol::Resp => Some(resp::refusal(reason)),
        }
    }

    /// What a client is told before its connection is closed because the outcome is unknown, if the protocol has a word
    /// for that: nothing that could be taken for an error.
    #[must_use]
    pub fn unknown(&self, manner: Manner, reason: &str) -> Option<Bytes> {
        match self.protocol {
            Protocol::Http => Some(http::unknown(manner, reason)),
            Protocol::Line | Protocol::Close | Protocol::Length | Protocol::Resp => None,
        }
    }

    /// What a client is told before its connection is closed because of `error` in its bytes, if the protocol has errors.
    #[must_use]
    pub fn protocol_error(&self, error: &FramingError) -> Option<Bytes> {
        match self.protocol {
            Protocol::Line | Protocol::Close | Protocol::Length => None,
            Protocol::Http => http::protocol_error(self, error),
            Protocol::Resp => resp::protocol_error(error),
        }
    }

    /// Whether the connection to the client is closed after each reply.
    #[must_use]
    pub fn closes_after_reply(&self) -> bool {
        self.protocol == Protocol::Close
    }

    /// Whether the application's connection is half-closed after the request, because that is what ends it.
    #[must_use]
    pub fn half_closes_after_request(&self) -> bool {
        self.protocol == Protocol::Close
    }

    /// The name of protocol and connection policy in the ordered configuration, such as "resp/shared".
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.protocol, self.connections)
    }
}

/// The end is not among `len` bytes, which begin a request or reply unless there are none: whether it can still come.
fn wait(len: usize, closed: bool, limit: usize) -> Result<Option<usize>, FramingError> {
    match len {
        0 => Ok(None),
        _ if len >= limit => Err(FramingError::TooLong { limit }),
        _ if closed => Err(FramingError::Truncated),
        _ => Ok(None),
    }
}
