//! Reading whole messages from many streams at once. A stream whose message is there already is read where it is
//! accepted; only an incomplete one is parked. What is parked is bounded in streams (by the stream limit), in bytes of
//! each and in bytes of all.

use super::refusal::describe;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quinn::{ConnectionError, ReadError, RecvStream};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use super::error::NetError;
use super::outgoing::TOO_LARGE;

/// Largest messages' worth of bytes that a link holds half-received; streams that grow beyond are stopped.
const PARTIAL_MESSAGES_MAX: usize = 6;

/// Chunks taken from a stream at once.
const CHUNKS: usize = 8;

/// Bounds of what is read, shared by all streams of one link.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    message_bytes: usize,
    parked_bytes: Arc<AtomicUsize>,
}

impl Budget {
    pub(super) fn new(message_bytes: usize) -> Self {
        Self { message_bytes, parked_bytes: Arc::default() }
    }

    pub(super) const fn message_bytes(&self) -> usize {
        self.message_bytes
    }
}

/// Why a stream gave no message.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is larger than allowed, or too much is half-received; the stream was stopped.
    TooLarge,
    /// The sender reset the stream.
    Reset(u64),
    /// The link is gone.
    Gone(String),
}

/// One stream on its way to a whole message. `companion` is what belongs to it (the sending half of a request).
#[derive(Debug)]
pub(super) struct Reading<T> {
    stream: RecvStream,
    companion: Option<T>,
    message: BytesMut,
    budget: Budget,
    parked: usize,
}

impl<T> Reading<T> {
    pub(super) fn new(stream: RecvStream, companion: T, budget: &Budget) -> Self {
        Self { stream, companion: Some(companion), message: BytesMut::new(), budget: budget.clone(), parked: 0 }
    }

    /// Takes what is there. `Ready(Ok)`: the stream ended.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unread>> {
        let mut chunks: [Bytes; CHUNKS] = Default::default();
        loop {
            let polled = pin!(self.stream.read_chunks(&mut chunks)).poll(cx);
            let read = match polled {
                Poll::Ready(Ok(Some(read))) => read,
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(ReadError::Reset(code))) => {
                    return Poll::Ready(Err(Unread::Reset(code.into_inner())));
                }
                Poll::Ready(Err(ReadError::ConnectionLost(error))) => {
                    return Poll::Ready(Err(Unread::Gone(describe(&error))));
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Unread::Reset(0))),
                Poll::Pending if self.park() => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Err(self.stop())),
            };
            let more: usize = chunks[..read].iter().map(Bytes::len).sum();
            if self.message.len() + more > self.budget.message_bytes {
                return Poll::Ready(Err(self.stop()));
            }
            // Copied: a chunk shares the buffer of a whole burst of datagrams and would keep it from being freed.
            for chunk in &chunks[..read] {
                self.message.extend_from_slice(chunk);
            }
        }
    }

    /// Counts what is held until the stream goes on. False: too much.
    fn park(&mut self) -> bool {
        let more = self.message.len() - self.parked;
        self.parked += more;
        let before = self.budget.parked_bytes.fetch_add(more, Ordering::Relaxed);
        more == 0 || before + more <= self.budget.message_bytes.saturating_mul(PARTIAL_MESSAGES_MAX)
    }

    /// Gives the stream back: what comes is discarded, its credit returns when the sender has seen this.
    fn stop(&mut self) -> Unread {
        // Fails only when the stream is over already.
        let _ = self.stream.stop(TOO_LARGE);
        Unread::TooLarge
    }
}

impl<T> Drop for Reading<T> {
    fn drop(&mut self) {
        self.budget.parked_bytes.fetch_sub(self.parked, Ordering::Relaxed);
    }
}

impl<T: Unpin> Future for Reading<T> {
    type Output = (T, Result<Bytes, Unread>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let done = std::task::ready!(self.poll_message(cx));
        let message = done.map(|()| std::mem::take(&mut self.message).freeze());
        let companion = self.companion.take().expect("polled again after it was ready");
        Poll::Ready((companion, message))
    }
}

/// The streams of one kind of a link that are being received. Cancel-safe: nothing is lost when its future is dropped.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    parked: FuturesUnordered<Reading<T>>,
}

impl<T: Unpin> Inbox<T> {
    pub(super) fn new() -> Self {
        Self { parked: FuturesUnordered::new() }
    }

    /// The next stream that came to its end; `accept` gives new ones.
    pub(super) async fn next<A>(
        &mut self,
        budget: &Budget,
        mut accept: impl FnMut() -> A,
    ) -> Result<(T, Result<Bytes, Unread>), NetError>
    where
        A: Future<Output = Result<(RecvStream, T), ConnectionError>>,
    {
        loop {
            let accepted = if self.parked.is_empty() {
                accept().await
            } else {
                tokio::select! {
                    biased;
                    Some(done) = self.parked.next() => return Ok(done),
                    accepted = accept() => accepted,
                }
            };
            let (stream, companion) = accepted.map_err(|error| NetError::Gone(describe(&error)))?;
            // No await between here and the push: a dropped future loses no stream.
            let mut reading = Reading::new(stream, companion, budget);
            let mut cx = Context::from_waker(std::task::Waker::noop());
            match Pin::new(&mut reading).poll(&mut cx) {
                Poll::Ready(done) => return Ok(done),
                // Polled again by the set, with a waker.
                Poll::Pending => self.parked.push(reading),
            }
        }
    }
}
