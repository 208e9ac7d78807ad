//! The admin HTTP server: takes connections, a bounded number, each for one bounded request and a bounded time.

use super::router::{self, Shared};
use super::{Admin, Quiet, Registry};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

/// Connections at one time. Further ones wait in the kernel's queue: each of these ends within bounded time.
const CONNECTIONS_MAX: usize = 64;
/// While there are no files left every try fails.
static CANNOT_ACCEPT: Quiet = Quiet::new();
/// Bytes of a request's line and headers.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Headers of one request.
const HEADERS_MAX: usize = 64;
/// From the connection to the end of the request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The life of a connection, the longest wait for a drain included.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30).saturating_add(router::DRAIN_WAIT_MAX);

/// The admin HTTP server of a process.
#[derive(Debug)]
pub struct AdminServer {
    address: SocketAddr,
    task: AbortHandle,
}

impl AdminServer {
    /// Binds at once, so that the address is known; serves until dropped.
    ///
    /// # Errors
    /// When the address cannot be had; the error names it.
    pub async fn bind(addr: SocketAddr, registry: Arc<Registry>, admin: Arc<dyn Admin>) -> std::io::Result<Self> {
        let named = |error: std::io::Error| std::io::Error::new(error.kind(), format!("admin address {addr}: {error}"));
        let listener = TcpListener::bind(addr).await.map_err(named)?;
        let address = listener.local_addr().map_err(named)?;
        let task = tokio::spawn(accept(listener, Arc::new(Shared::new(registry, admin)))).abort_handle();
        Ok(Self { address, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let _permit = permit;
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serve(stream, shared)).await;
                });
            }
            Err(error) => {
                if let Some(suppressed) = CANNOT_ACCEPT.may_speak() {
                    tracing::warn!(%error, suppressed, "admin port: cannot accept; trying again");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, std::convert::Infallible>(router::answer(&shared, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admin port: a connection failed");
    }
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
