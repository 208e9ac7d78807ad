//! What waits to be sent over one SMaRtClient's link: bounded in number and in bytes, so that one that asks for large
//! replies and reads none of them costs no more than that. What does not fit is asked for again.

use super::waiters::Delivery;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// Answers and messages that wait: a turn's worth of answers to all that may wait, and then some.
const DELIVERIES: usize = 8192;
/// Bytes of them. One is taken whatever its size.
const BYTES: usize = 64 << 20;

/// The driver's end.
#[derive(Debug)]
pub(crate) struct Outbox<R> {
    queue: mpsc::Sender<Delivery<R>>,
    bytes: Arc<AtomicUsize>,
}

/// The link's end.
#[derive(Debug)]
pub(crate) struct Deliveries<R> {
    queue: mpsc::Receiver<Delivery<R>>,
    bytes: Arc<AtomicUsize>,
}

/// Both ends.
pub(crate) fn outbox<R>() -> (Outbox<R>, Deliveries<R>) {
    let (sender, receiver) = mpsc::channel(DELIVERIES);
    let bytes = Arc::new(AtomicUsize::new(0));
    (Outbox { queue: sender, bytes: Arc::clone(&bytes) }, Deliveries { queue: receiver, bytes })
}

impl<R> Outbox<R> {
    /// Puts it in; false if there is no room, then it is dropped.
    pub(crate) fn put(&self, delivery: Delivery<R>) -> bool {
        let more = delivery.bytes();
        // Only this end adds.
        let waiting = self.bytes.load(Ordering::Relaxed);
        if waiting > 0 && waiting.saturating_add(more) > BYTES {
            return false;
        }
        self.bytes.fetch_add(more, Ordering::Relaxed);
        let put = self.queue.try_send(delivery).is_ok();
        if !put {
            self.bytes.fetch_sub(more, Ordering::Relaxed);
        }
        put
    }
}

impl<R> Deliveries<R> {
    /// The next one, or `None` when the driver forgot the link.
    pub(crate) async fn next(&mut self) -> Option<Delivery<R>> {
        let delivery = self.queue.recv().await?;
        self.bytes.fetch_sub(delivery.bytes(), Ordering::Relaxed);
        Some(delivery)
    }

    #[cfg(test)]
    pub(crate) fn try_next(&mut self) -> Option<Delivery<R>> {
        let delivery = self.queue.try_recv().ok()?;
        self.bytes.fetch_sub(delivery.bytes(), Ordering::Relaxed);
        Some(delivery)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn answer(bytes: usize) -> Delivery<()> {
        Delivery::Answer((), Bytes::from(vec![0; bytes]))
    }

    #[test]
    fn a_link_that_takes_nothing_holds_no_more_than_the_bound() {
        let (outbox, mut deliveries) = outbox();
        assert!(outbox.put(answer(BYTES + 1)), "whatever its size");
        assert!(!outbox.put(answer(1)));
        while deliveries.try_next().is_some() {}
        for _ in 0..4 {
            assert!(outbox.put(answer(BYTES / 4)), "what was taken makes room");
        }
        assert!(!outbox.put(answer(1)));
        assert!(deliveries.try_next().is_some() && outbox.put(answer(BYTES / 4)));
    }

    #[test]
    fn what_did_not_fit_by_number_counts_for_nothing() {
        let (outbox, mut deliveries) = outbox();
        for _ in 0..DELIVERIES {
            assert!(outbox.put(answer(1)));
        }
        assert!(!outbox.put(answer(1)));
        while deliveries.try_next().is_some() {}
        assert_eq!(outbox.bytes.load(Ordering::Relaxed), 0);
    }
}
