//! The links from ingresses and native clients: each request on a stream of its own.

use super::driver::{AskerId, Event, Way};
use bytes::Bytes;
use mesh::net::{Endpoint, Link, LinkKind, NetError};
use mesh::node::Quiet;
use mesh::node::counts::Counts;
use mesh::wire::client::{Ask, FromSmartClient};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tracing::{debug, warn};

/// A sender's patience counts up to here.
const PATIENCE_MAX: Duration = Duration::from_secs(300);

/// Bytes of requests that wait for the driver, of all links: whoever brings more waits, and with it the streams of its link.
const WAITING_BYTES: usize = 64 << 20;
/// Whoever may ask may send nonsense, as often as it likes.
static MALFORMED: Quiet = Quiet::new();
/// Before certificates that could not be shown are shown again.
const AGAIN: Duration = Duration::from_secs(1);

/// What serving a link needs.
#[derive(Clone)]
struct Desk {
    events: mpsc::Sender<Event>,
    room: Arc<Semaphore>,
    /// The servers' signing certificates, as they are shown; empty as long as there are none.
    signers: watch::Receiver<Bytes>,
    /// Whether this process is about to stop.
    leaving: watch::Receiver<bool>,
    rejected: Counts,
}

/// Accepts links until the endpoint is closed.
pub(super) async fn accept(
    endpoint: Endpoint,
    events: mpsc::Sender<Event>,
    signers: watch::Receiver<Bytes>,
    leaving: watch::Receiver<bool>,
    rejected: Counts,
) {
    let room = Arc::new(Semaphore::new(WAITING_BYTES));
    let desk = Desk { events, room, signers, leaving, rejected };
    let mut links = 0;
    while let Some(link) = endpoint.accept().await {
        if link.kind() == LinkKind::Client {
            tokio::spawn(introduce(link.clone(), desk.signers.clone()));
            tokio::spawn(take_leave(link.clone(), desk.leaving.clone()));
            links += 1;
            tokio::spawn(serve(link, AskerId(links), desk.clone()));
        } else {
            link.close("a SMaRtClient takes client links only");
        }
    }
}

/// Shows one link the servers' signing certificates, and again whenever there is another. What comes while one message is
/// on its way makes one message more.
async fn introduce(link: Link, mut signers: watch::Receiver<Bytes>) {
    signers.mark_changed();
    while signers.changed().await.is_ok() {
        let message = signers.borrow_and_update().clone();
        if message.is_empty() {
            continue;
        }
        match link.send(message).await {
            Ok(()) => {}
            Err(NetError::Gone(_)) => return,
            // The other end takes nothing just now; without the certificates it would believe nothing for ever.
            Err(error) => {
                debug!(id = %link.peer().id, %error, "the servers' certificates could not be shown");
                tokio::time::sleep(AGAIN).await;
                signers.mark_changed();
            }
        }
    }
}

/// Says goodbye over one link before this process stops, so that nobody sends it another request; or that it stays.
async fn take_leave(link: Link, mut leaving: watch::Receiver<bool>) {
    let mut said = false;
    while leaving.wait_for(|leaving| *leaving != said).await.is_ok() {
        match link.send(mesh::wire::encode(&FromSmartClient::Leaving(!said))).await {
            Ok(()) => said = !said,
            Err(NetError::Gone(_)) => return,
            Err(error) => {
                debug!(id = %link.peer().id, %error, "not told that this process is about to stop");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Takes requests from one link until it is gone.
async fn serve(link: Link, id: AskerId, desk: Desk) {
    debug!(from = %link.remote_address(), role = ?link.peer().role, id = %link.peer().id, "link accepted");
    if desk.events.send(Event::Came(id, Way::Link(link.clone()))).await.is_err() {
        return;
    }
    loop {
        let bytes = match link.receive().await {
            Ok(bytes) => bytes,
            Err(error) => {
                debug!(id = %link.peer().id, %error, "link ended");
                break;
            }
        };
        let Ok(Ask { request, within_ms }) = mesh::wire::decode(&bytes) else {
            desk.rejected.count("malformed");
            if let Some(suppressed) = MALFORMED.may_speak() {
                let id = &link.peer().id;
                warn!(%id, suppressed, "bytes that are no request: do both run the same version?");
            }
            continue;
        };
        // The last handle of the semaphore is not gone while this runs, and messages are smaller than its whole.
        let bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let Ok(share) = Arc::clone(&desk.room).acquire_many_owned(bytes).await else { return };
        let within = Duration::from_millis(within_ms.into()).min(PATIENCE_MAX);
        if desk.events.send(Event::Ask { request, within, asker: id, share: Some(share) }).await.is_err() {
            return;
        }
    }
    let _ = desk.events.send(Event::Went(id)).await;
}
