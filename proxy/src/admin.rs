//! What a stateless process shows on its admin port, and the drain that is asked for there.

use mesh::node::Admin;
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

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
    /// Tells whoever sends requests here that the process is about to stop, or stays after all.
    fn leave(&self, leaving: bool);
    /// `/status`.
    fn status(&self) -> Value;
    /// `/config`.
    fn config(&self) -> Value;
}

/// A [`Subject`] as the admin server wants it. Cheap to clone.
#[derive(Debug)]
pub(crate) struct Face<S>(Arc<Inner<S>>);

#[derive(Debug)]
struct Inner<S> {
    subject: S,
    state: Mutex<State>,
}

/// How far the process is with stopping.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// A drain that was asked for here is on; and how many were asked for so far.
    draining: bool,
    drains: u64,
    /// It stops for good.
    stopping: bool,
}

impl<S> Clone for Face<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Subject> Face<S> {
    /// The face of `subject`.
    pub(crate) fn new(subject: S) -> Self {
        Self(Arc::new(Inner { subject, state: Mutex::default() }))
    }

    /// From now on not ready any more: the process stops.
    pub(crate) fn stop(&self) {
        self.state().stopping = true;
        self.0.subject.leave(true);
    }

    fn is_draining(&self) -> bool {
        let state = *self.state();
        state.stopping || state.draining
    }

    /// Begins a drain that is undone by itself, unless another one or the process' end follows.
    fn begin_drain(&self) {
        let begun = {
            let mut state = self.state();
            (state.draining, state.drains) = (true, state.drains + 1);
            state.drains
        };
        self.0.subject.leave(true);
        let face = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(UNDONE_AFTER).await;
            let mut state = face.state();
            if state.drains == begun && !state.stopping {
                state.draining = false;
                warn!("no stop followed the drain: taking part again");
                face.0.subject.leave(false);
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subject> Admin for Face<S> {
    fn ready(&self) -> Vec<(&'static str, bool)> {
        vec![self.0.subject.ready(), ("not draining", !self.is_draining())]
    }

    fn started(&self) -> bool {
        // The admin port is bound after the identity was loaded and the sockets were opened.
        true
    }

    fn app_live(&self) -> bool {
        true
    }

    fn status(&self) -> Value {
        let mut status = self.0.subject.status();
        if let Value::Object(fields) = &mut status {
            fields.insert("draining".to_owned(), json!(self.is_draining()));
            fields.insert("outstanding".to_owned(), json!(self.0.subject.outstanding()));
        }
        status
    }

    fn config(&self) -> Value {
        self.0.subject.config()
    }

    /// Not ready, so that nobody new is sent here; whoever comes all the same is served.
    fn drain(&self, wait: Duration) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        self.begin_drain();
        Box::pin(async move {
            let end = Instant::now() + wait;
            while self.0.subject.outstanding() > 0 {
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
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    /// Requests that are outstanding, and whether those who send them were told that it is about to stop.
    struct Busy(AtomicUsize, AtomicBool);

    impl Subject for Busy {
        fn ready(&self) -> (&'static str, bool) {
            ("reaches somebody", true)
        }
        fn outstanding(&self) -> usize {
            // One less at every look.
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(1))).unwrap_or(0)
        }
        fn leave(&self, leaving: bool) {
            self.1.store(leaving, Ordering::Relaxed);
        }
        fn status(&self) -> Value {
            json!({ "kind": "test" })
        }
        fn config(&self) -> Value {
            json!({})
        }
    }

    fn face(outstanding: usize) -> Face<Busy> {
        Face::new(Busy(AtomicUsize::new(outstanding), AtomicBool::new(false)))
    }

    fn told(face: &Face<Busy>) -> bool {
        face.0.subject.1.load(Ordering::Relaxed)
    }

    async fn wait(time: Duration) {
        tokio::time::sleep(time).await;
        // Whoever was to wake at the same time is through.
        tokio::task::yield_now().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_what_is_outstanding_and_is_undone_when_nothing_follows() {
        let face = face(3);
        assert!(face.drain(Duration::from_secs(20)).await);
        assert_eq!(face.ready(), [("reaches somebody", true), ("not draining", false)]);
        assert_eq!((face.status()["draining"].clone(), told(&face)), (json!(true), true));
        wait(UNDONE_AFTER).await;
        assert_eq!(face.ready(), [("reaches somebody", true), ("not draining", true)]);
        assert!(!told(&face), "they are told that it stays");
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_not_undone_before_the_newest_one_nor_when_the_process_stops() {
        let face = face(0);
        assert!(face.drain(Duration::ZERO).await);
        wait(UNDONE_AFTER / 2).await;
        assert!(face.drain(Duration::ZERO).await);
        wait(UNDONE_AFTER * 3 / 4).await;
        assert!(told(&face), "the first one would be over, the second is not");
        face.stop();
        wait(UNDONE_AFTER).await;
        assert!(told(&face) && face.is_draining());
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_that_takes_too_long_says_so() {
        assert!(!face(usize::MAX).drain(Duration::from_millis(100)).await);
    }
}
