//! The tasks of one SMaRtClient's link: one takes requests, one sends what the driver has for it.

use super::outbox::{Messages, Outbox, outbox};
use crate::budget::{Budget, Share};
use crate::metrics::Metrics;
use mesh::net::{Link, NetError};
use mesh::wire::peer::Desk;
use mesh::wire::roster::Roster;
use mesh::wire::submit::{FromServer, Submit, ToServer};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Before a link that took nothing is told again where the servers are.
const AGAIN: Duration = Duration::from_secs(1);

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
    /// Its share of the memory for requests that wait for the driver.
    pub(crate) share: Share,
}

/// What the driver is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// A link is up.
    Up(LinkId, Outbox),
    /// Votes for that desk go over the link.
    Desk(LinkId, Desk),
    /// A request came.
    Ask(Ask),
    /// A link is gone.
    Down(LinkId),
}

/// Serves a link until it is gone. What it asks waits while the driver is busy: the streams' credit holds the asker back.
pub(crate) async fn serve(
    link: Link,
    id: LinkId,
    roster: watch::Receiver<Roster>,
    events: mpsc::Sender<Event>,
    budget: Budget,
    metrics: Metrics,
) {
    let (out, messages) = outbox();
    if events.send(Event::Up(id, out)).await.is_err() {
        return;
    }
    let sender = tokio::spawn(deliver(link.clone(), messages));
    let introducing = tokio::spawn(introduce(link.clone(), roster));
    while let Ok(bytes) = link.receive().await {
        let event = match mesh::wire::decode(&bytes) {
            Ok(ToServer::Submit(submit)) => {
                let share = budget.take(bytes.len()).await;
                Event::Ask(Ask { link: id, submit, share })
            }
            Ok(ToServer::Desk(number)) => Event::Desk(id, Desk::of(&link.peer().id, number)),
            Err(_) => {
                metrics.malformed("submit");
                tracing::debug!(from = %link.peer().id, "a request does not decode");
                continue;
            }
        };
        if events.send(event).await.is_err() {
            break;
        }
    }
    sender.abort();
    introducing.abort();
    let _ = events.send(Event::Down(id)).await;
}

/// Says over one link who and where the servers are, and again whenever that changes. What comes while one message is
/// on its way makes one message more.
async fn introduce(link: Link, mut roster: watch::Receiver<Roster>) {
    roster.mark_changed();
    while roster.changed().await.is_ok() {
        let message = FromServer::Roster(roster.borrow_and_update().clone());
        match link.send(mesh::wire::encode(&message)).await {
            Ok(()) => {}
            Err(NetError::Gone(_)) => return,
            Err(error) => {
                tracing::debug!(id = %link.peer().id, %error, "a SMaRtClient was not told where the servers are");
                tokio::time::sleep(AGAIN).await;
                roster.mark_changed();
            }
        }
    }
}

async fn deliver(link: Link, mut messages: Messages) {
    while let Some(message) = messages.next().await {
        // What is lost is asked again.
        let _ = link.send(message).await;
    }
}
