//! Framing adapters: where the next request and the next reply end, and what else must be known of a protocol.
//!
//! One file each. Pure functions of bytes, which come as they come, however they are cut: [`Scan`] remembers how far the
//! front of the buffer was looked at, so that feeding a long request byte by byte stays linear.

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
    /// Answer it here, without the cluster: it touches no state.
    Local(Bytes),
    /// Answer it here, then close the connection.
    LocalThenClose(Bytes),
    /// Refuse it with this error of the protocol: it must not run, for the reason that the error names.
    Refuse(Bytes),
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
    /// Length of the request at the front of `bytes`, or `None` if it needs more. `closed`: no more will come (the client's half-close);
    /// then `Ok(None)` means that nothing is left, and half a request is [`FramingError::Truncated`].
    pub fn next_request(&self, _scan: &mut Scan, _bytes: &[u8], _closed: bool) -> Result<Option<usize>, FramingError> {
        unreachable!()
    }
    /// Length of the reply to `request` at the front of `bytes`; `closed` as above, for the application's close.
    pub fn next_reply(
        &self,
        _scan: &mut Scan,
        _request: &[u8],
        _bytes: &[u8],
        _closed: bool,
    ) -> Result<Option<usize>, FramingError> {
        unreachable!()
    }
    /// What to do with one whole request.
    pub fn handle(&self, _request: &[u8]) -> Handling {
        unreachable!()
    }
    /// The hash of the comparison form of a reply (rule 28).
    pub fn form(&self, _request: &[u8], _reply: &[u8]) -> Digest {
        unreachable!()
    }
    /// A definite error in the protocol's own words, if it has errors; otherwise the connection is closed.
    pub fn refusal(&self, _reason: &str) -> Option<Bytes> {
        unreachable!()
    }
    /// What a client is told before its connection is closed because of `error` in its bytes, if the protocol has errors.
    pub fn protocol_error(&self, _error: &FramingError) -> Option<Bytes> {
        unreachable!()
    }
    /// Whether the connection to the client is closed after each reply.
    pub fn closes_after_reply(&self) -> bool {
        unreachable!()
    }
    /// The name of protocol and connection policy in the ordered configuration, such as "resp/shared".
    pub fn name(&self) -> String {
        unreachable!()
    }
}
