//! The look at a freshly reset application: replaying on top of old state would run requests twice (rule 26).

use super::exchange::{connect, exchange};
use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use mesh::framing::{Adapter, Connections, Protocol};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long an application that is still loading is asked again.
const LOADING_PATIENCE: Duration = Duration::from_secs(30);

/// Fails if the application is known not to be in its initial state. Only protocols with a general question for that
/// are asked; of the others nothing is known.
pub(super) async fn check_empty(address: SocketAddr, adapter: &Adapter, patience: Duration) -> anyhow::Result<()> {
    if adapter.protocol != Protocol::Resp {
        return Ok(());
    }
    let request = Bytes::from_static(b"*1\r\n$6\r\nDBSIZE\r\n");
    let adapter = Adapter { connections: Connections::PerRequest, ..*adapter };
    let deadline = Instant::now() + LOADING_PATIENCE;
    loop {
        let mut stream = connect(address, patience).await?;
        let reply = exchange(&mut stream, &adapter, &request, &mut BytesMut::new(), patience).await?.bytes;
        let reply = String::from_utf8_lossy(&reply);
        match reply.trim_end() {
            ":0" => return Ok(()),
            loading if loading.starts_with("-LOADING") && Instant::now() < deadline => {
                sleep(Duration::from_millis(50)).await;
            }
            error if error.starts_with('-') => {
                tracing::warn!(answer = %shorten(error), "the application does not answer DBSIZE: whether it is empty is not known");
                return Ok(());
            }
            entries => {
                let entries = entries.strip_prefix(':').and_then(|count| count.parse::<u64>().ok());
                let entries = entries.with_context(|| format!("DBSIZE was answered with {}", shorten(&reply)))?;
                bail!(
                    "the application was started with {entries} entries: it must start empty (no volume, no dump file, \
                     for redis-server `--save \"\" --appendonly no`), otherwise requests would run twice"
                )
            }
        }
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}
