//! State transfer's input and output: serving own snapshots to peers, and fetching a peer's. What to ask and what to
//! believe is decided by [`mesh::transfer::Receiver`].
//!
//! Chunks travel on streams that yield to everything else on the link, and no faster than a set rate, so that the
//! ordering goes on meanwhile.

mod fetcher;
mod server;
#[cfg(test)]
mod tests;
mod throttle;

pub(crate) use fetcher::{Fetcher, View};
pub(crate) use server::{Asker, Server};

use mesh::ids::{ReplicaId, Slot};
use mesh::order::{Image, Input};
use tokio::sync::{mpsc, watch};

/// Results that wait.
const QUEUE: usize = 16;

/// An order to fetch a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Order {
    from: ReplicaId,
    least: Slot,
}

/// How an order ended.
#[derive(Debug)]
enum Fetched {
    Received(Box<Image>),
    Failed(ReplicaId),
}

/// The driver's handle. The fetching task ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Transfers {
    /// The last one counts.
    orders: watch::Sender<Option<Order>>,
    fetched: mpsc::Receiver<Fetched>,
    serving: watch::Receiver<Option<Slot>>,
    lost: watch::Receiver<Option<Slot>>,
    wanted: watch::Receiver<()>,
}

impl Transfers {
    /// Starts the task that fetches.
    pub(crate) fn start(fetcher: Fetcher, server: &Server) -> Self {
        let (orders, ordered) = watch::channel(None);
        let (told, fetched) = mpsc::channel(QUEUE);
        tokio::spawn(fetcher.run(ordered, told));
        Self { orders, fetched, serving: server.serving(), lost: server.lost(), wanted: server.wanted() }
    }

    /// Fetches a peer's snapshot, in the place of what is being fetched.
    pub(crate) fn fetch(&self, from: ReplicaId, least: Slot) {
        self.orders.send_replace(Some(Order { from, least }));
    }

    /// What the core is to be told next. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Input {
        tokio::select! {
            Some(fetched) = self.fetched.recv() => match fetched {
                Fetched::Received(image) => Input::Received { image },
                Fetched::Failed(from) => Input::TransferFailed { from },
            },
            Ok(()) = self.lost.changed() => Input::SnapshotLost { slot: (*self.lost.borrow_and_update()).unwrap_or_default() },
            Ok(()) = self.wanted.changed() => Input::Save,
            Ok(()) = self.serving.changed() => Input::Serving { slot: *self.serving.borrow_and_update() },
            else => std::future::pending().await,
        }
    }
}
