//! What a stateless process shows on its admin port, and the drain that is asked for there.

use mesh::node::Admin;
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A drain that was asked for on the admin port is forgotten after this: no SIGTERM followed.
const UNDONE_AFTER: Duration = Duration::from_secs(60);
/// How often a drain looks whether it is done.
const LOOK: Duration = Duration::from_millis(20);

/// What the process has to say of itself. Called from admin tasks: answers at once.
pub(crate) trait Subject: Send + Sync + 'static {
    /// The check that readiness rests on.
    fn ready(&self) -> (&'static str, bool);
    /// Requests that wait for an answer.
    fn outstanding(&self) -> usize;
    /// `/status`.
    fn status(&self) -> Value;
    /// `/config`.
    fn config(&self) -> Value;
}

/// A [`Subject`] as the admin server wants it.
#[derive(Debug)]
pub(crate) struct Face<S> {
    subject: S,
    /// When a drain was last asked for here.
    drained: Mutex<Option<Instant>>,
    /// Whether the process is stopping for good.
    stopping: Mutex<bool>,
}

impl<S: Subject> Face<S> {
    /// The face of `subject`.
    pub(crate) fn new(subject: S) -> Self {
        Self { subject, drained: Mutex::new(None), stopping: Mutex::new(false) }
    }

    /// From now on not ready any more.
    pub(crate) fn stop(&self) {
        *self.stopping.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    fn is_draining(&self) -> bool {
        let drained = *self.drained.lock().unwrap_or_else(PoisonError::into_inner);
        let stopping = *self.stopping.lock().unwrap_or_else(PoisonError::into_inner);
        stopping || drained.is_some_and(|since| since.elapsed() < UNDONE_AFTER)
    }
}

impl<S: Subject> Admin for Face<S> {
    fn ready(&self) -> Vec<(&'static str, bool)> {
        vec![self.subject.ready(), ("not draining", !self.is_draining())]
    }

    fn started(&self) -> bool {
        // The admin port is bound after the identity was loaded and the sockets were opened.
        true
    }

    fn app_live(&self) -> bool {
        true
    }

    fn status(&self) -> Value {
        let mut status = self.subject.status();
        if let Value::Object(fields) = &mut status {
            fields.insert("draining".to_owned(), json!(self.is_draining()));
            fields.insert("outstanding".to_owned(), json!(self.subject.outstanding()));
        }
        status
    }

    fn config(&self) -> Value {
        self.subject.config()
    }

    /// Not ready, so that nobody new is sent here; whoever comes all the same is served.
    fn drain(&self, wait: Duration) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        *self.drained.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Box::pin(async move {
            let end = Instant::now() + wait;
            while self.subject.outstanding() > 0 {
                if Instant::now() >= end {
                    return false;
                }
                tokio::time::sleep(LOOK).await;
            }
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Busy(AtomicUsize);

    impl Subject for Busy {
        fn ready(&self) -> (&'static str, bool) {
            ("reaches somebody", true)
        }
        fn outstanding(&self) -> usize {
            // One less at every look.
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(1))).unwrap_or(0)
        }
        fn status(&self) -> Value {
            json!({ "kind": "test" })
        }
        fn config(&self) -> Value {
            json!({})
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_what_is_outstanding_and_is_undone_when_nothing_follows() {
        let face = Face::new(Busy(AtomicUsize::new(3)));
        assert!(face.drain(Duration::from_secs(20)).await);
        assert_eq!(face.ready(), [("reaches somebody", true), ("not draining", false)]);
        assert_eq!(face.status()["draining"], json!(true));
        tokio::time::advance(UNDONE_AFTER).await;
        assert_eq!(face.ready(), [("reaches somebody", true), ("not draining", true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_that_takes_too_long_says_so() {
        let face = Face::new(Busy(AtomicUsize::new(usize::MAX)));
        assert!(!face.drain(Duration::from_millis(100)).await);
    }
}
