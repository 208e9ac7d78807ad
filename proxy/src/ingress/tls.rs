//! TLS with outside clients: the handshake, and a certificate that is followed while the process runs.

use super::pipe::{self, LastWords};
use mesh::net::{Changes, NetError, Outside, OutsideFiles, POLL, Reloads};
use mesh::node::counts::Counts;
use prometheus_client::metrics::gauge::Gauge;
use serde_json::Value;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{error, info};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The certificate for outside clients, and what follows its files.
#[derive(Debug)]
pub(super) struct Tls {
    files: OutsideFiles,
    used: RwLock<Outside>,
    expiry: Gauge,
    reloads: Reloads,
}

impl Tls {
    /// Reads the files, and follows them for as long as anybody holds this.
    pub(super) fn start(files: OutsideFiles, expiry: Gauge, reloads: Reloads) -> Result<Arc<Self>, NetError> {
        let (content, read) = files.read();
        let outside = read?;
        expiry.set(outside.not_after);
        let tls = Arc::new(Self { files, used: RwLock::new(outside), expiry, reloads });
        let (followed, mut changes) = (Arc::downgrade(&tls), Changes::new(content));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(POLL).await;
                let Some(tls) = followed.upgrade() else { return };
                tls.look(&mut changes).await;
            }
        });
        Ok(tls)
    }

    async fn look(&self, changes: &mut Changes) {
        let files = self.files.clone();
        let Ok((content, read)) = tokio::task::spawn_blocking(move || files.read()).await else { return };
        match changes.look(content, || read) {
            None => {}
            Some(Ok(new)) => {
                self.reloads.ok.inc();
                self.expiry.set(new.not_after);
                info!(expires_at = new.not_after, "a new certificate for outside clients is used");
                *self.used.write().unwrap_or_else(PoisonError::into_inner) = new;
            }
            Some(Err(error)) => {
                self.reloads.failed.inc();
                error!("a new certificate for outside clients is not used, the old one stays: {error}");
            }
        }
    }

    /// For `/status`.
    pub(super) fn status(&self) -> Value {
        self.used.read().unwrap_or_else(PoisonError::into_inner).status()
    }

    /// The handshake with one client. None: it failed, was counted, and the client was told.
    pub(super) async fn accept(&self, stream: TcpStream, refused: &Counts) -> Option<TlsStream<TcpStream>> {
        let config = self.used.read().unwrap_or_else(PoisonError::into_inner).config.clone();
        match timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream).into_fallible()).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err((error, mut stream))) => {
                // One that went away by itself, as a probe does, was not refused.
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    refused.count("tls");
                }
                tracing::debug!(%error, "a TLS handshake failed");
                let (mut reader, mut writer) = stream.split();
                pipe::part(&mut reader, &mut writer, false).await;
                None
            }
            Err(_) => {
                refused.count("tls_timeout");
                None
            }
        }
    }
}

/// Tells of bytes as written only when they have left the TLS layer's own buffer: nobody flushes that later. The bytes
/// of a write that was not finished must be offered again.
pub(super) struct Flushed<W> {
    inner: W,
    taken: usize,
}

impl<W> Flushed<W> {
    pub(super) const fn new(inner: W) -> Self {
        Self { inner, taken: 0 }
    }
}

impl<W> LastWords for Flushed<W> {
    /// What TLS says at the end follows the last reply at once, in a packet of its own.
    fn hold_back(&self) {}
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Flushed<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.taken == 0 {
            self.taken = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        }
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.taken)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
