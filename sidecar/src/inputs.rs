//! What reaches whoever is in charge: the member that waits for its cluster first, the driver later.

use crate::intake;
use crate::metrics::Metrics;
use crate::peers::Incoming;
use crate::transfer::{Asker, Server};
use mesh::net::{Link, Responder, Signer};
use mesh::wire::admin::{AdminReply, AdminRequest};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Requests that wait for the driver; their bytes are bounded by a budget.
pub(crate) const REQUESTS: usize = 4096;
/// Bytes of them.
pub(crate) const REQUEST_BYTES: usize = 64 << 20;
/// Operators' questions that wait.
pub(crate) const ADMIN: usize = 16;
/// Orders of this process that wait.
pub(crate) const CONTROL: usize = 16;

/// A question of an operator's command.
#[derive(Debug)]
pub(crate) struct AdminAsk {
    /// The question.
    pub(crate) request: AdminRequest,
    stream: Responder,
}

impl AdminAsk {
    /// Answers it without waiting.
    pub(crate) fn answer(self, reply: &AdminReply) {
        let (stream, bytes) = (self.stream, mesh::wire::encode(reply));
        tokio::spawn(async move {
            // Who is gone asks again.
            let _ = stream.answer(bytes).await;
        });
    }
}

/// An order of this process.
#[derive(Debug)]
pub(crate) enum Control {
    /// Hand leadership over; say so when it is done.
    Drain(oneshot::Sender<()>),
    /// Sign replies with this key from now on.
    Sign(Arc<Signer>),
    /// Drain, take no requests, and end when nothing is in flight.
    Stop,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) peers: mpsc::Receiver<Incoming>,
    pub(crate) requests: mpsc::Receiver<intake::Event>,
    pub(crate) admin: mpsc::Receiver<AdminAsk>,
    pub(crate) control: mpsc::Receiver<Control>,
}

/// Serves the link of an operator's command until it is gone.
pub(crate) async fn serve_admin(link: Link, asks: mpsc::Sender<AdminAsk>, snapshots: Server, metrics: Metrics) {
    while let Ok((bytes, stream)) = link.accept_ask().await {
        match mesh::wire::decode(&bytes) {
            // From the disk: nothing for whoever is in charge.
            Ok(AdminRequest::Fetch(ask)) => {
                let answer = AdminReply::Fetched(snapshots.answer(Asker::Operator, &ask).await);
                // Who does not take it asks again.
                let _ = stream.answer_last(mesh::wire::encode(&answer)).await;
            }
            Ok(request) => {
                if asks.send(AdminAsk { request, stream }).await.is_err() {
                    return;
                }
            }
            Err(_) => metrics.malformed("admin"),
        }
    }
}
