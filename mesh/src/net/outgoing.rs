//! The sending half of a stream: a message is sent whole or the stream is reset. Quinn finishes a stream that is
//! dropped, which would pass a cut message off as a whole one.

use super::error::NetError;
use super::refusal::describe;
use bytes::Bytes;
use futures_util::FutureExt;
use quinn::{SendStream, StoppedError, VarInt, WriteError};
use std::pin::pin;
use std::time::Duration;
use tokio::time::timeout;

/// Stream code: the sender or answerer gave up.
pub(super) const ABANDONED: VarInt = VarInt::from_u32(1);
/// Stream code: the message is larger than this end takes.
pub(super) const TOO_LARGE: VarInt = VarInt::from_u32(2);

/// How long the other end may take no data, or give no stream, before a message is dropped.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Messages above this are not tried to be written at once: they may need more than one packet's worth of window.
pub(super) const AT_ONCE_BYTES: usize = 16 << 10;

/// Messages above this yield to smaller ones: votes and heartbeats do not queue behind bulk.
const BULK_BYTES: usize = 64 << 10;
/// Their priority.
const BULK: i32 = -1;
/// Priority of what yields to everything else, bulk included.
const LAST: i32 = -2;

/// What the future comes to, within the patience. What is ready at once costs no timer.
pub(super) async fn patiently<F: Future>(future: F) -> Result<F::Output, NetError> {
    let mut future = pin!(future);
    if let Some(output) = future.as_mut().now_or_never() {
        return Ok(output);
    }
    timeout(PATIENCE, future).await.map_err(|_| NetError::Stalled)
}

/// A stream that is reset unless it was written to its end.
#[derive(Debug)]
pub(super) struct Outgoing {
    stream: SendStream,
    whole: bool,
}

impl Outgoing {
    pub(super) const fn new(stream: SendStream) -> Self {
        Self { stream, whole: false }
    }

    /// Writes the only message of the stream and ends it.
    pub(super) async fn write(self, message: Bytes) -> Result<(), NetError> {
        let priority = priority(&message);
        self.write_at(priority, message).await
    }

    async fn write_at(mut self, priority: i32, message: Bytes) -> Result<(), NetError> {
        if priority != 0 {
            // Fails only on a closed stream, and then so does the write.
            let _ = self.stream.set_priority(priority);
        }
        if !message.is_empty() {
            let mut rest = [message];
            let mut done = 0;
            while done == 0 {
                done = patiently(self.stream.write_chunks(&mut rest)).await??.chunks;
            }
        }
        self.finish()
    }

    /// Writes the only message of the stream and ends it, if it can go at once. Otherwise the stream is reset.
    pub(super) fn write_now(mut self, mut message: Bytes) -> bool {
        if !message.is_empty() {
            let written = self.stream.write_chunks(std::slice::from_mut(&mut message)).now_or_never();
            if !matches!(written, Some(Ok(written)) if written.chunks == 1) {
                return false;
            }
        }
        self.finish().is_ok()
    }

    fn finish(&mut self) -> Result<(), NetError> {
        self.stream.finish().map_err(|_| NetError::Abandoned(0))?;
        self.whole = true;
        Ok(())
    }

    /// Resets the stream, saying why.
    pub(super) fn reset(mut self, code: VarInt) {
        self.whole = self.stream.reset(code).is_ok();
    }

    /// Resolves when the other end stopped the stream or the link is gone. Cancel-safe.
    pub(super) async fn stopped(&self) {
        let _: Result<Option<VarInt>, StoppedError> = self.stream.stopped().await;
    }
}

const fn priority(message: &Bytes) -> i32 {
    if message.len() > BULK_BYTES { BULK } else { 0 }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if !self.whole {
            // Fails only when the stream is over already.
            let _ = self.stream.reset(ABANDONED);
        }
    }
}

impl From<WriteError> for NetError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Abandoned(code.into_inner()),
            WriteError::ConnectionLost(error) => Self::Gone(describe(&error)),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Abandoned(0),
        }
    }
}

/// The answering half of a request's stream. Dropping it resets the stream.
#[derive(Debug)]
pub struct Responder {
    stream: Outgoing,
    limit: usize,
}

impl Responder {
    pub(super) const fn new(stream: SendStream, limit: usize) -> Self {
        Self { stream: Outgoing::new(stream), limit }
    }

    /// Refuses the request: it is larger than this end takes.
    pub(super) fn too_large(self) {
        self.stream.reset(TOO_LARGE);
    }

    /// Writes the answer (may be empty) and ends the stream. Does not wait for delivery.
    ///
    /// # Errors
    /// The asker gave up, takes no data for two seconds, or the link is gone; or the answer is larger than a link
    /// carries.
    pub async fn answer(self, bytes: Bytes) -> Result<(), NetError> {
        let priority = priority(&bytes);
        self.answer_at(priority, bytes).await
    }

    /// Writes the answer, behind everything else that is sent over the link, and ends the stream.
    ///
    /// # Errors
    /// As for [`Self::answer`].
    pub async fn answer_last(self, bytes: Bytes) -> Result<(), NetError> {
        self.answer_at(LAST, bytes).await
    }

    async fn answer_at(self, priority: i32, bytes: Bytes) -> Result<(), NetError> {
        if bytes.len() > self.limit {
            let (bytes, limit) = (bytes.len(), self.limit);
            self.too_large();
            return Err(NetError::TooLarge { bytes, limit });
        }
        self.stream.write_at(priority, bytes).await
    }

    /// Resolves when the asker gave up on the stream or the link is gone. Cancel-safe.
    pub async fn gone(&mut self) {
        self.stream.stopped().await;
    }
}
