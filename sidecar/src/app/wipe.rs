//! Bringing a running application to its initial state in its own protocol, which is quicker than a restart, and the only
//! way for one that somebody else starts.

use super::Settings;
use super::conversation::Conversation;
use super::resp::ask;
use super::worker::Left;
use anyhow::Context;
use mesh::framing::Protocol;
use std::net::SocketAddr;
use std::time::Duration;

/// How long the application has for it; one that needs longer is restarted.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the protocol has a way, given how the last run left the application. Calls that were sent and not answered may
/// still be waiting in a connection, and must not run after the reset: only where such connections can be cut off it is
/// tried with calls under way.
pub(super) fn is_possible(settings: &Settings, left: Left) -> bool {
    if settings.snapshot.ends_application() {
        return false;
    }
    match settings.reset_request {
        Some(_) => left == Left::Clean,
        None => settings.adapter.protocol == Protocol::Resp,
    }
}

/// Resets it. The caller looks whether it is empty then.
pub(super) async fn wipe(address: SocketAddr, settings: &Settings, left: Left) -> anyhow::Result<()> {
    let work = async {
        let mut conversation = Conversation::new(address, settings, PATIENCE);
        match &settings.reset_request {
            Some(request) => conversation.ask_for(request, None).await.map(|_| ()),
            None => flush(&mut conversation, left).await,
        }
    };
    tokio::time::timeout(PATIENCE, work).await.context("the application takes too long for it")?
}

async fn flush(conversation: &mut Conversation, left: Left) -> anyhow::Result<()> {
    if left != Left::Clean {
        // Calls that wait in the old connections go with them.
        ask(conversation, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
    }
    // SYNC came with Redis 6.2; before it, FLUSHALL was synchronous unless asked otherwise.
    if ask(conversation, &["FLUSHALL", "SYNC"]).await.is_err() {
        ask(conversation, &["FLUSHALL"]).await?;
    }
    ask(conversation, &["SCRIPT", "FLUSH"]).await?;
    Ok(())
}
