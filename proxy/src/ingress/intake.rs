//! The front of a connection: bytes as they come, cut into requests. No input or output, no clock.

use bytes::{Buf, Bytes, BytesMut};
use mesh::framing::{Adapter, FramingError, Scan};

/// A request up to this size is copied out of a buffer with more in it.
const SMALL: usize = 16 << 10;

/// What the bytes that are there amount to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// A whole request.
    Request(Bytes),
    /// Not one yet.
    More,
    /// Not one yet, and the client waits for these words before it sends the rest.
    Interim(Bytes),
    /// The client has ended its side, and everything was cut.
    End,
}

/// Bytes of one connection that were not cut yet: at most one incomplete request and what came with its end.
#[derive(Debug)]
pub(super) struct Intake {
    adapter: Adapter,
    buffer: BytesMut,
    scan: Scan,
    ended: bool,
}

impl Intake {
    /// An empty one, which holds no memory.
    pub(super) fn new(adapter: Adapter) -> Self {
        Self { adapter, buffer: BytesMut::new(), scan: Scan::default(), ended: false }
    }

    /// Takes bytes in.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The client sends no more.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Whether the client sends no more.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Bytes that were not cut.
    pub(super) fn length(&self) -> usize {
        self.buffer.len()
    }

    /// Whether a part of a request is there.
    pub(super) fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Forgets what was not cut.
    pub(super) fn discard(&mut self) {
        self.buffer = BytesMut::new();
    }

    /// The next request.
    pub(super) fn cut(&mut self) -> Result<Cut, FramingError> {
        if self.buffer.is_empty() && !self.ended {
            return Ok(Cut::More);
        }
        match self.adapter.next_request(&mut self.scan, &self.buffer, self.ended)? {
            Some(length) => {
                self.scan = Scan::default();
                // The usual case, one whole request, costs no copy and leaves no buffer behind. A small one with others
                // behind it must not hold on to the buffer of all.
                Ok(Cut::Request(if length >= self.buffer.len() {
                    std::mem::take(&mut self.buffer).freeze()
                } else if length <= SMALL {
                    let request = Bytes::copy_from_slice(&self.buffer[..length]);
                    self.buffer.advance(length);
                    request
                } else {
                    self.buffer.split_to(length).freeze()
                }))
            }
            None if self.ended => Ok(Cut::End),
            None if self.buffer.len() > self.longest() => {
                Err(FramingError::TooLong { limit: self.adapter.request_bytes })
            }
            None => Ok(self.adapter.interim(&mut self.scan).map_or(Cut::More, Cut::Interim)),
        }
    }

    /// No adapter may ask for more than this: what frames a request is short beside the limit on its own.
    fn longest(&self) -> usize {
        self.adapter.request_bytes.saturating_mul(2).saturating_add(1 << 16)
    }
}
