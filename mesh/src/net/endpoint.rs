//! One UDP socket for links in both directions.

use super::accept::{Acceptor, LINKS_WAITING_MAX};
use super::error::{NetError, Refusal};
use super::identity::Credentials;
use super::link::{CLOSE_ORDERLY, Link};
use super::metrics::Metrics;
use super::tls::Tls;
use super::{LinkKind, LinkLimits, transport};
use crate::names::Identity;
use crate::node::Registry;
use quinn::{EndpointConfig, TokioRuntime, TransportConfig};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Mutex, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// How long a closing endpoint tries to tell its peers.
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);

/// One UDP socket, both ends of links. Cheap to clone; when the last clone is dropped, all links end.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
    accepted: Mutex<mpsc::Receiver<Link>>,
    acceptor: AbortHandle,
}

/// What dialling and accepting have in common.
pub(super) struct Shared {
    pub(super) quinn: quinn::Endpoint,
    pub(super) tls: Tls,
    pub(super) transport: Arc<TransportConfig>,
    pub(super) limits: LinkLimits,
    pub(super) metrics: Metrics,
}

impl Shared {
    pub(super) fn identity(&self) -> &Identity {
        self.tls.credentials.identity()
    }

    /// Counts a refusal, in which this endpoint was at either end.
    pub(super) fn count_refused(&self, refusal: &Refusal, address: SocketAddr, kind: Option<LinkKind>) {
        self.metrics.refused(refusal, address.ip(), kind, self.identity().role);
    }
}

impl Endpoint {
    /// Opens the socket and begins to accept links of `kinds` (none: only dials). Call it inside a tokio runtime;
    /// the metrics are registered in `registry`, once per process.
    ///
    /// # Errors
    /// The address is not available, the credentials cannot be used, or their role may not accept one of `kinds`.
    pub fn bind(
        addr: SocketAddr,
        credentials: Credentials,
        kinds: &[LinkKind],
        limits: LinkLimits,
        registry: &mut Registry,
    ) -> Result<Self, NetError> {
        let role = credentials.identity().role;
        if let Some(&kind) = kinds.iter().find(|kind| kind.acceptor() != role) {
            return Err(NetError::NotOurRole { role, verb: "accept", kind });
        }
        Self::bind_as_anyone(addr, credentials, kinds, limits, registry)
    }

    /// Binds without asking whether our role may accept such links; diallers ask, too.
    pub(super) fn bind_as_anyone(
        addr: SocketAddr,
        credentials: Credentials,
        kinds: &[LinkKind],
        limits: LinkLimits,
        registry: &mut Registry,
    ) -> Result<Self, NetError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        credentials.warn_if_due(i64::try_from(now).unwrap_or(i64::MAX));
        let tls = Tls::new(credentials)?;
        let transport = Arc::new(transport::config(&limits));
        let server = Acceptor::server_config(&tls, kinds, transport.clone())?;
        let failed = |source| NetError::Bind { addr, source };
        let socket = UdpSocket::bind(addr).map_err(failed)?;
        let runtime = Arc::new(TokioRuntime);
        let config = EndpointConfig::default();
        let quinn = quinn::Endpoint::new(config, server.clone(), socket, runtime).map_err(failed)?;
        let local_addr = quinn.local_addr().map_err(failed)?;
        let metrics = Metrics::register(registry);
        metrics.set_expiry(tls.credentials.expires_at());
        let shared = Arc::new(Shared { quinn, tls, transport, limits, metrics });
        let (links, accepted) = mpsc::channel(LINKS_WAITING_MAX);
        let acceptor = Acceptor::new(shared.clone(), kinds, server, links);
        let acceptor = tokio::spawn(acceptor.run()).abort_handle();
        Ok(Self(Arc::new(Inner { shared, local_addr, accepted: Mutex::new(accepted), acceptor })))
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// The socket's address, with the port that was chosen if none was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local_addr
    }

    /// Who we are.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        self.0.shared.identity()
    }

    /// The next link that passed the handshake and the checks of identity and role. Refused ones are counted and
    /// logged. None: closed. Cancel-safe.
    pub async fn accept(&self) -> Option<Link> {
        self.0.accepted.lock().await.recv().await
    }

    /// One attempt. `target` is HOST:PORT, resolved now (all addresses are tried, the first that accepts wins).
    /// `expect_id`: the only acceptable id of the other end; none: any of the role and cluster. `Ok` means that the
    /// other end has accepted us, too.
    ///
    /// # Errors
    /// [`NetError::Refused`] if one end refused the other, [`NetError::Unreachable`] and [`NetError::Resolve`] if
    /// nobody was reached.
    pub async fn dial(&self, kind: LinkKind, target: &str, expect_id: Option<&str>) -> Result<Link, NetError> {
        super::dial::dial(&self.0.shared, kind, target, expect_id).await
    }

    /// Closes every link and waits until the peers were told (bounded).
    pub async fn close(&self) {
        self.0.shared.quinn.close(CLOSE_ORDERLY, b"this process ends");
        self.0.acceptor.abort();
        // Whoever does not acknowledge finds out by himself.
        let _ = timeout(CLOSE_PATIENCE, self.0.shared.quinn.wait_idle()).await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.shared.quinn.close(CLOSE_ORDERLY, b"this process ends");
    }
}
