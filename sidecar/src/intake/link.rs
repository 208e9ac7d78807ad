//! The tasks of one SMaRtClient's link: one takes requests, one sends what the driver has for it.

use super::Delivery;
use super::outbox::{Deliveries, Outbox, outbox};
use crate::budget::{Budget, Share};
use crate::metrics::Metrics;
use mesh::net::{Link, Responder};
use mesh::wire::submit::Submit;
use tokio::sync::mpsc;

/// One link of a SMaRtClient, numbered by this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LinkId(pub(crate) u64);

/// A request and where it came from.
#[derive(Debug)]
pub(crate) struct Ask {
    /// The link.
    pub(crate) link: LinkId,
    /// The request.
    pub(crate) submit: Submit,
    /// What its stream is answered with.
    pub(crate) stream: Responder,
    /// Its share of the memory for requests that wait for the driver.
    pub(crate) share: Share,
}

/// What the driver is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// A link is up.
    Up(LinkId, Outbox<Responder>),
    /// A request came.
    Ask(Ask),
    /// A link is gone.
    Down(LinkId),
}

/// Serves a link until it is gone. What it asks waits while the driver is busy: the streams' credit holds the asker back.
pub(crate) async fn serve(link: Link, id: LinkId, events: mpsc::Sender<Event>, budget: Budget, metrics: Metrics) {
    let (out, deliveries) = outbox();
    if events.send(Event::Up(id, out)).await.is_err() {
        return;
    }
    let sender = tokio::spawn(deliver(link.clone(), deliveries));
    while let Ok((bytes, stream)) = link.accept_ask().await {
        let Ok(submit) = mesh::wire::decode(&bytes) else {
            metrics.malformed("submit");
            tracing::debug!(from = %link.peer().id, "a request does not decode; its stream is reset");
            continue;
        };
        let share = budget.take(bytes.len()).await;
        if events.send(Event::Ask(Ask { link: id, submit, stream, share })).await.is_err() {
            break;
        }
    }
    sender.abort();
    let _ = events.send(Event::Down(id)).await;
}

async fn deliver(link: Link, mut deliveries: Deliveries<Responder>) {
    while let Some(delivery) = deliveries.next().await {
        // A stream or link that is gone loses its answer: it is asked again.
        let _ = match delivery {
            Delivery::Answer(stream, bytes) => stream.answer(bytes).await,
            Delivery::Message(bytes) => link.send(bytes).await,
        };
    }
}
