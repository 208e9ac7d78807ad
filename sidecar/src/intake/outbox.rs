//! What waits to be sent over one SMaRtClient's link: bounded in number and in bytes, so that one that asks for large
//! replies and reads none of them costs no more than that. What does not fit is asked for again.

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// Messages that wait.
const MESSAGES: usize = 8192;
/// Bytes of them. One is taken whatever its size.
const BYTES: usize = 64 << 20;

/// The driver's end.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: mpsc::Sender<Bytes>,
    bytes: Arc<AtomicUsize>,
}

/// The link's end.
#[derive(Debug)]
pub(crate) struct Messages {
    queue: mpsc::Receiver<Bytes>,
    bytes: Arc<AtomicUsize>,
}

/// Both ends.
pub(crate) fn outbox() -> (Outbox, Messages) {
    let (sender, receiver) = mpsc::channel(MESSAGES);
    let bytes = Arc::new(AtomicUsize::new(0));
    (Outbox { queue: sender, bytes: Arc::clone(&bytes) }, Messages { queue: receiver, bytes })
}

impl Outbox {
    /// Puts it in; false if there is no room, then it is dropped.
    pub(crate) fn put(&self, message: Bytes) -> bool {
        let more = message.len();
        // Only this end adds.
        let waiting = self.bytes.load(Ordering::Relaxed);
        if waiting > 0 && waiting.saturating_add(more) > BYTES {
            return false;
        }
        self.bytes.fetch_add(more, Ordering::Relaxed);
        let put = self.queue.try_send(message).is_ok();
        if !put {
            self.bytes.fetch_sub(more, Ordering::Relaxed);
        }
        put
    }
}

impl Messages {
    /// The next one, or `None` when the driver forgot the link.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let message = self.queue.recv().await?;
        self.bytes.fetch_sub(message.len(), Ordering::Relaxed);
        Some(message)
    }

    #[cfg(test)]
    pub(crate) fn try_next(&mut self) -> Option<Bytes> {
        let message = self.queue.try_recv().ok()?;
        self.bytes.fetch_sub(message.len(), Ordering::Relaxed);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: usize) -> Bytes {
        Bytes::from(vec![0; bytes])
    }

    #[test]
    fn a_link_that_takes_nothing_holds_no_more_than_the_bound() {
        let (outbox, mut messages) = outbox();
        assert!(outbox.put(answer(BYTES + 1)), "whatever its size");
        assert!(!outbox.put(answer(1)));
        while messages.try_next().is_some() {}
        for _ in 0..4 {
            assert!(outbox.put(answer(BYTES / 4)), "what was taken makes room");
        }
        assert!(!outbox.put(answer(1)));
        assert!(messages.try_next().is_some() && outbox.put(answer(BYTES / 4)));
    }

    #[test]
    fn what_did_not_fit_by_number_counts_for_nothing() {
        let (outbox, mut messages) = outbox();
        for _ in 0..MESSAGES {
            assert!(outbox.put(answer(1)));
        }
        assert!(!outbox.put(answer(1)));
        while messages.try_next().is_some() {}
        assert_eq!(outbox.bytes.load(Ordering::Relaxed), 0);
    }
}
