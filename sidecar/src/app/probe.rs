//! The look at a freshly reset application: replaying on top of old state would run requests twice (rule 26).

use super::Settings;
use super::conversation::Conversation;
use super::exchange::{connect, exchange};
use super::resp::{self, shorten};
use crate::config::{Dialect, Probe, SnapshotMode};
use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};
use mesh::framing::{Adapter, Connections, Protocol};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long an application that is still loading is asked again.
const LOADING_PATIENCE: Duration = Duration::from_secs(30);

/// Fails if the application is known not to be in its initial state. Asked are protocols with a general question for
/// that, and those for which one is configured; of the others nothing is known.
pub(super) async fn check_empty(address: SocketAddr, settings: &Settings) -> anyhow::Result<()> {
    let hashmap = SnapshotMode::Request(Dialect::Hashmap);
    if let Some(Probe { request, reply }) = &settings.empty_probe {
        check_reply(address, settings, request, reply).await
    } else if settings.adapter.protocol == Protocol::Resp {
        check_resp(address, settings).await
    } else if settings.snapshot == hashmap {
        check_reply(address, settings, "SIZE", "0").await
    } else {
        Ok(())
    }
}

async fn check_reply(address: SocketAddr, settings: &Settings, request: &str, expected: &str) -> anyhow::Result<()> {
    let mut conversation = Conversation::new(address, settings, settings.timeout);
    let content = conversation.ask_for(request, None).await.context("it was asked whether it is empty")?;
    // In HTTP the end of a line is part of the body, and whether it is there is nobody's intention.
    let reply = if settings.adapter.protocol == Protocol::Http { content.trim_ascii_end() } else { &content };
    ensure!(
        reply == expected.as_bytes(),
        "the application is not in its initial state: \"{request}\" was answered with \"{}\" instead of \"{expected}\"; it \
         must start so, or be brought there by --app-reset-request, otherwise requests would run twice",
        shorten(reply)
    );
    Ok(())
}

async fn check_resp(address: SocketAddr, settings: &Settings) -> anyhow::Result<()> {
    let request = Bytes::from_static(b"*1\r\n$6\r\nDBSIZE\r\n");
    let adapter = Adapter { connections: Connections::PerRequest, ..settings.adapter };
    let patience = settings.timeout;
    let deadline = Instant::now() + LOADING_PATIENCE;
    loop {
        let mut stream = connect(address, patience).await?;
        let answer = exchange(&mut stream, &adapter, &request, &mut BytesMut::new(), Some(patience)).await?;
        let reply = String::from_utf8_lossy(&answer.reply.bytes);
        match reply.trim_end() {
            ":0" => return check_databases(address, settings).await,
            loading if loading.starts_with("-LOADING") && Instant::now() < deadline => {
                sleep(Duration::from_millis(50)).await;
            }
            error if error.starts_with('-') => {
                tracing::warn!(answer = %shorten(error.as_bytes()), "the application does not answer DBSIZE: whether it is empty is not known");
                return Ok(());
            }
            entries => {
                let entries = entries.strip_prefix(':').and_then(|count| count.parse::<u64>().ok());
                let entries =
                    entries.with_context(|| format!("DBSIZE was answered with {}", shorten(reply.as_bytes())))?;
                bail!("{}", not_empty(entries))
            }
        }
    }
}

/// `DBSIZE` is of one database only. A server that has one only need not know the question.
async fn check_databases(address: SocketAddr, settings: &Settings) -> anyhow::Result<()> {
    let mut conversation = Conversation::new(address, settings, settings.timeout);
    match resp::databases(&mut conversation).await {
        Ok(databases) => {
            let entries = databases.iter().map(|(_, keys)| keys).sum::<u64>();
            ensure!(entries == 0, "{}", not_empty(entries));
        }
        Err(error) => {
            tracing::debug!(error = format!("{error:#}"), "whether its other databases are empty is not known");
        }
    }
    Ok(())
}

fn not_empty(entries: u64) -> String {
    format!(
        "the application was started with {entries} entries: it must start empty (no volume, no dump file, for \
         redis-server `--save \"\" --appendonly no`), otherwise requests would run twice"
    )
}
