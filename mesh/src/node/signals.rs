//! The wish of whoever started this process that it end.

use std::future::{pending, poll_fn};
use std::task::Poll;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Resolves on SIGTERM or SIGINT (a second one ends the process at once).
///
/// Make one such future per process and keep it: a signal that comes while nobody listens is lost.
pub async fn stop_signal() {
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
    let number = either(&mut terminate, &mut interrupt).await;
    tracing::info!(signal = number, "stopping; a second signal ends the process at once");
    tokio::spawn(async move {
        let number = either(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal = number, "ended at once by a second signal");
        std::process::exit(128 + number);
    });
}

/// `None` when the kernel refuses a handler: then the signal keeps its default, which ends the process.
fn listen(kind: SignalKind) -> Option<Signal> {
    signal(kind).inspect_err(|error| tracing::error!(%error, "cannot listen for a stop signal")).ok()
}

/// The number of the signal that came first.
async fn either(terminate: &mut Option<Signal>, interrupt: &mut Option<Signal>) -> i32 {
    if terminate.is_none() && interrupt.is_none() {
        return pending().await;
    }
    let came = |signal: &mut Option<Signal>, context: &mut std::task::Context<'_>| {
        signal.as_mut().is_some_and(|signal| signal.poll_recv(context).is_ready())
    };
    poll_fn(|context| {
        if came(terminate, context) {
            return Poll::Ready(SignalKind::terminate().as_raw_value());
        }
        if came(interrupt, context) {
            return Poll::Ready(SignalKind::interrupt().as_raw_value());
        }
        Poll::Pending
    })
    .await
}
