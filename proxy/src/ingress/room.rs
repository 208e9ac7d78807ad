//! What all connections of an ingress may hold together, and how they wait for their turn.
//!
//! There are three rooms, each a fair queue, so that connections take turns and whoever waits is not read from:
//! requests by their number, requests that are large by their bytes, and answers by theirs. What a connection holds up
//! to [`FREE`] in each direction is bounded by the number of connections alone. A connection asks for room for answers
//! before it asks for them, by what it was answered last; if they turn out larger, the room is overdrawn and nobody
//! else enters until that was given back.
//!
//! Nobody who holds room for answers needs more in order to give it back, and whoever waits for a large request's room
//! holds none: nothing here can deadlock.

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of requests, and of answers, that a connection may hold without asking for room.
pub(super) const FREE: usize = 16 << 10;
/// What an answer is taken for at least.
const LEAST: usize = 4 << 10;
/// By one part in so many of the difference each smaller answer makes the largest of late smaller.
const FORGET: usize = 64;

/// The rooms of an ingress.
#[derive(Clone, Debug)]
pub(super) struct Rooms {
    /// Requests that were handed on and not answered.
    requests: Arc<Semaphore>,
    /// Bytes of requests longer than [`FREE`].
    large: Arc<Semaphore>,
    /// How many bytes of those there may be.
    large_bytes: usize,
    /// Bytes of answers.
    pub(super) answers: Arc<Answers>,
}

/// A request's right to be held.
#[derive(Debug)]
pub(super) struct Admitted {
    request: OwnedSemaphorePermit,
    /// Room for its answer.
    pub(super) share: Share,
}

impl Rooms {
    /// Room for so many requests, for so many bytes of large ones, and of answers.
    pub(super) fn new(requests: usize, large_bytes: usize, answer_bytes: usize) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(requests)),
            large: Arc::new(Semaphore::new(large_bytes)),
            large_bytes,
            answers: Arc::new(Answers::new(answer_bytes)),
        }
    }

    /// Room for a large request, of which no more than `bytes` will come.
    pub(super) async fn large(self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes.min(self.large_bytes)).unwrap_or(u32::MAX);
        self.large.acquire_many_owned(bytes).await.ok()
    }

    /// Room for one more request, and `bytes` more of answers, if there is some at once.
    pub(super) fn try_admit(&self, bytes: usize) -> Option<Admitted> {
        let request = self.requests.clone().try_acquire_owned().ok()?;
        Some(Admitted { request, share: self.answers.try_enter(bytes)? })
    }

    /// The same, when its turn comes.
    pub(super) async fn admit(self, bytes: usize) -> Option<Admitted> {
        let request = self.requests.clone().acquire_owned().await.ok()?;
        Some(Admitted { request, share: self.answers.enter(bytes).await })
    }

    /// Large requests' bytes that are held.
    pub(super) fn large_held(&self) -> usize {
        self.large_bytes.saturating_sub(self.large.available_permits())
    }
}

/// The bytes of a request that give its room back when their last holder lets go of them.
pub(super) fn held(bytes: Bytes, admitted: Admitted, large: Option<OwnedSemaphorePermit>) -> (Bytes, Share) {
    let owner = Held { bytes, _request: admitted.request, _large: large };
    (Bytes::from_owner(owner), admitted.share)
}

struct Held {
    bytes: Bytes,
    _request: OwnedSemaphorePermit,
    _large: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The room for answers.
#[derive(Debug)]
pub(super) struct Answers {
    bytes: usize,
    free: Semaphore,
    /// Bytes that were taken although there was no room.
    overdrawn: AtomicUsize,
    /// Bytes that are there and that clients have not read.
    unread: AtomicUsize,
    /// Near the largest answer of late.
    largest: AtomicUsize,
}

impl Answers {
    fn new(bytes: usize) -> Self {
        Self {
            bytes,
            free: Semaphore::new(bytes),
            overdrawn: AtomicUsize::new(0),
            unread: AtomicUsize::new(0),
            largest: AtomicUsize::new(FREE),
        }
    }

    /// Whether clients that do not read hold so much that there is less patience with them.
    pub(super) fn is_tight(&self) -> bool {
        self.unread() > self.bytes / 2
    }

    /// Bytes that are there and that clients have not read.
    pub(super) fn unread(&self) -> usize {
        self.unread.load(Ordering::Relaxed)
    }

    /// Near the largest answer of late.
    pub(super) fn largest_of_late(&self) -> usize {
        self.largest.load(Ordering::Relaxed)
    }

    /// After an answer of `length` bytes to a connection that expected `expected`: what it expects next.
    pub(super) fn next_expected(&self, expected: usize, length: usize) -> usize {
        let length = length.max(LEAST);
        let largest = self.largest_of_late();
        let lower = largest - largest.saturating_sub(length) / FORGET;
        // A lost update is one answer less to learn from.
        self.largest.store(lower.max(length), Ordering::Relaxed);
        length.max(expected / 2)
    }

    fn try_enter(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let bytes = bytes.min(self.bytes);
        if bytes > 0 {
            self.free.try_acquire_many(u32::try_from(bytes).unwrap_or(u32::MAX)).ok()?.forget();
        }
        Some(Share { answers: self.clone(), bytes, unread: 0 })
    }

    async fn enter(self: &Arc<Self>, bytes: usize) -> Share {
        let bytes = bytes.min(self.bytes);
        if bytes > 0
            && let Ok(permit) = self.free.acquire_many(u32::try_from(bytes).unwrap_or(u32::MAX)).await
        {
            permit.forget();
        }
        Share { answers: self.clone(), bytes, unread: 0 }
    }

    fn take(&self, bytes: usize) {
        let found = self.free.forget_permits(bytes);
        self.overdrawn.fetch_add(bytes - found, Ordering::Relaxed);
    }

    fn give(&self, bytes: usize) {
        let less = |overdrawn: usize| Some(overdrawn.saturating_sub(bytes));
        let overdrawn = self.overdrawn.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).unwrap_or(0);
        self.free.add_permits(bytes - overdrawn.min(bytes));
    }
}

/// One connection's part of the room for answers; given back with it.
#[derive(Debug)]
pub(super) struct Share {
    answers: Arc<Answers>,
    bytes: usize,
    unread: usize,
}

impl Share {
    /// An empty one.
    pub(super) fn new(answers: Arc<Answers>) -> Self {
        Self { answers, bytes: 0, unread: 0 }
    }

    /// How much more room `bytes` of answers need.
    pub(super) fn lacks(&self, bytes: usize) -> usize {
        bytes.saturating_sub(FREE).saturating_sub(self.bytes)
    }

    /// Adds another one.
    pub(super) fn join(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Makes it what `expected` bytes that are to come and `unread` ones that are there need.
    pub(super) fn settle(&mut self, expected: usize, unread: usize) {
        let bytes = (expected + unread).saturating_sub(FREE);
        if bytes > self.bytes {
            self.answers.take(bytes - self.bytes);
        } else if bytes < self.bytes {
            self.answers.give(self.bytes - bytes);
        }
        self.bytes = bytes;
        if unread != self.unread {
            self.answers.unread.fetch_add(unread, Ordering::Relaxed);
            self.answers.unread.fetch_sub(self.unread, Ordering::Relaxed);
            self.unread = unread;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.settle(0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_larger_than_expected_keep_others_out_until_they_are_read() {
        let rooms = Rooms::new(10, 0, 100_000);
        let Admitted { mut share, .. } = rooms.try_admit(10_000).expect("there is room");
        share.settle(0, FREE + 150_000);
        assert!(rooms.answers.is_tight());
        assert!(rooms.try_admit(1).is_none());
        assert!(rooms.try_admit(0).is_some(), "who needs no room need not wait");
        share.settle(0, FREE + 100_000);
        assert!(rooms.try_admit(1).is_none());
        share.settle(0, FREE + 60_000);
        drop(rooms.try_admit(40_000).expect("there is room again"));
        drop(share);
        assert_eq!((rooms.answers.unread(), rooms.answers.is_tight()), (0, false));
        assert!(rooms.try_admit(100_000).is_some(), "all of it was given back, once");
        assert!(rooms.try_admit(100_001).is_some(), "more than there is at all counts as all of it");
    }

    #[test]
    fn the_number_of_requests_is_bounded_until_their_bytes_are_let_go() {
        let rooms = Rooms::new(1, 0, 1000);
        let (bytes, share) = held(Bytes::from_static(b"GET a\n"), rooms.try_admit(10).expect("room"), None);
        drop(share);
        let copy = bytes.clone();
        drop(bytes);
        assert!(rooms.try_admit(0).is_none(), "somebody still holds the request");
        drop(copy);
        assert!(rooms.try_admit(0).is_some());
    }

    #[tokio::test]
    async fn whoever_comes_first_is_let_in_first() {
        let rooms = Rooms::new(10, 100, 100);
        let first = rooms.clone().large(60).await;
        let mut second = std::pin::pin!(rooms.clone().large(80));
        let mut third = std::pin::pin!(rooms.clone().large(10));
        for _ in 0..2 {
            let waits = std::time::Duration::from_millis(1);
            assert!(tokio::time::timeout(waits, second.as_mut()).await.is_err());
            assert!(tokio::time::timeout(waits, third.as_mut()).await.is_err(), "it overtook a larger one");
        }
        drop(first);
        let second = second.await;
        assert_eq!(rooms.large_held(), 90, "the second has 80, and the third the 10 that it waits for");
        drop((second, third.await));
        assert_eq!(rooms.large_held(), 0);
    }

    #[test]
    fn a_connection_expects_what_it_was_answered_and_forgets_it_slowly() {
        let answers = Answers::new(1 << 20);
        let mut expected = answers.next_expected(answers.largest_of_late(), 1 << 20);
        assert_eq!((expected, answers.largest_of_late()), (1 << 20, 1 << 20));
        expected = answers.next_expected(expected, 10);
        assert_eq!(expected, 512 << 10);
        for _ in 0..1000 {
            expected = answers.next_expected(expected, 10);
        }
        assert_eq!(expected, LEAST);
        assert!(answers.largest_of_late() < 2 * LEAST, "{}", answers.largest_of_late());
    }
}
