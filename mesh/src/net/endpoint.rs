//! One UDP socket for links in both directions.

use super::accept::{Acceptor, LINKS_WAITING_MAX};
use super::error::{NetError, Refusal, RefusalReason};
use super::identity::{Credentials, Named};
use super::link::{CLOSE_ORDERLY, Link, Side};
use super::live::{self, Live, unix_now};
use super::metrics::Metrics;
use super::reload::{self, Reloads};
use super::runtime::Frugal;
use super::signing::{InUse, SignerTrust};
use super::socket::Socket;
use super::tls::Tls;
use super::{LinkKind, LinkLimits, transport};
use crate::names::Identity;
use crate::node::Registry;
use quinn::{Connection, TransportConfig};
use serde_json::Value;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, watch};
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
    socket: Socket,
    accepted: Mutex<mpsc::Receiver<Link>>,
    acceptor: AbortHandle,
    reloader: AbortHandle,
}

/// What dialling and accepting have in common.
pub(super) struct Shared {
    pub(super) quinn: quinn::Endpoint,
    /// Stays the same when certificates are renewed.
    names: Named,
    tls: RwLock<Arc<Tls>>,
    signers: watch::Sender<Arc<SignerTrust>>,
    signing: InUse,
    pub(super) transport: Arc<TransportConfig>,
    pub(super) limits: LinkLimits,
    pub(super) metrics: Metrics,
    pub(super) live: Live,
}

/// What a link is made with, taken before its handshake.
pub(super) struct Terms {
    pub(super) tls: Arc<Tls>,
    renewals: watch::Receiver<u64>,
}

impl Shared {
    pub(super) const fn identity(&self) -> &Identity {
        &self.names.identity
    }

    pub(super) fn trust_domain(&self) -> &str {
        &self.names.trust_domain
    }

    /// What new links are made with.
    pub(super) fn tls(&self) -> Arc<Tls> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn terms(&self) -> Terms {
        let renewals = self.live.renewals();
        Terms { tls: self.tls(), renewals }
    }

    /// From now on new links are made with another set.
    pub(super) fn replace(&self, new: Arc<Tls>, old: &Tls) {
        let credentials = &new.credentials;
        self.metrics.reloads.ok.inc();
        self.metrics.set_expiry(credentials.expires_at());
        let renewed = !credentials.presents_the_same_as(&old.credentials);
        tracing::info!(who = %self.identity(), expires_at = credentials.expires_at(), renewed, "new certificate files are used");
        credentials.warn_if_due(unix_now());
        self.signers.send_replace(credentials.signer_trust());
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = new;
        if renewed {
            self.live.renewed();
        }
    }

    /// A link whose two ends have accepted each other. None: trust changed during the handshake.
    pub(super) fn establish(
        &self,
        connection: Connection,
        named: Named,
        (kind, side): (LinkKind, Side),
        terms: Terms,
    ) -> Option<Link> {
        let term = self.live.term(side, &named, terms.renewals);
        let link = Link::new(connection, named.identity, (kind, side), term, self.limits.message_bytes, &self.metrics);
        self.live.add(link.inner());
        // Whoever replaces the set judges the links that are listed by then; this one may have come too late for that.
        let now = self.tls();
        let same = Arc::ptr_eq(&now, &terms.tls);
        (same || live::judge(link.inner(), &now, &self.metrics, self.identity().role)).then_some(link)
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
        credentials.warn_if_due(unix_now());
        let tls = Tls::new(credentials)?;
        let server = Acceptor::server_config(&tls, kinds, Arc::new(transport::accepted(&limits)))?;
        let failed = |source| NetError::Bind { addr, source };
        let socket = UdpSocket::bind(addr).map_err(failed)?;
        let known = Socket::prepare(&socket);
        let runtime = Arc::new(Frugal);
        let local_addr = socket.local_addr().map_err(failed)?;
        let mut config = tls.credentials.resets.endpoint_config(local_addr);
        // Within what the protocol allows.
        config.max_udp_payload_size(transport::PACKET_BYTES_MAX).expect("between 1,200 and 65,527");
        let quinn = quinn::Endpoint::new(config, server.clone(), socket, runtime).map_err(failed)?;
        let metrics = Metrics::register(registry);
        metrics.set_expiry(tls.credentials.expires_at());
        let seed = crate::node::seed().map_or(0, |seed| seed[0]);
        let shared = Arc::new(Shared {
            quinn,
            names: tls.credentials.named.clone(),
            signers: watch::Sender::new(tls.credentials.signer_trust()),
            signing: InUse::default(),
            tls: RwLock::new(Arc::new(tls)),
            transport: Arc::new(transport::dialled(&limits)),
            live: Live::new(limits.max_age, seed),
            limits,
            metrics,
        });
        let (links, accepted) = mpsc::channel(LINKS_WAITING_MAX);
        let acceptor = Acceptor::new(shared.clone(), kinds, server, links);
        let acceptor = tokio::spawn(acceptor.run()).abort_handle();
        let reloader = tokio::spawn(reload::follow(shared.clone())).abort_handle();
        Ok(Self(Arc::new(Inner {
            shared,
            local_addr,
            socket: known,
            accepted: Mutex::new(accepted),
            acceptor,
            reloader,
        })))
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

    /// The `tls` of `/status`, of the certificates that new links are made and that words are signed with.
    #[must_use]
    pub fn tls_status(&self) -> Value {
        let mut status = self.0.shared.tls().credentials.status();
        status["signing_serial"] = self.signing().serial().into();
        status
    }

    /// The `udp` of `/status`: the buffers of our socket, and the datagrams that were dropped because one was full.
    #[must_use]
    pub fn udp_status(&self) -> Value {
        self.0.socket.status()
    }

    pub(super) fn signing(&self) -> &InUse {
        &self.0.shared.signing
    }

    /// Whose signatures are believed, now and after every new set of authorities and revocations.
    #[must_use]
    pub fn signer_trust(&self) -> watch::Receiver<Arc<SignerTrust>> {
        self.0.shared.signers.subscribe()
    }

    /// What counts new certificates, for whoever has others beside those of the links.
    #[must_use]
    pub fn reloads(&self) -> Reloads {
        self.0.shared.metrics.reloads.clone()
    }

    /// Closes a link whose other end has a good certificate and is still not one of those expected here: counted and
    /// told as a refusal.
    pub fn refuse(&self, link: &Link, reason: RefusalReason, detail: &str) {
        live::refuse(link.inner(), reason, detail, &self.0.shared.metrics, self.identity().role);
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

    /// One attempt at several targets, the likeliest first: each a little after the one before, as long as none accepts.
    ///
    /// # Errors
    /// As for [`Self::dial`]; [`NetError::NoAddress`] if there is no target.
    pub async fn dial_any(
        &self,
        kind: LinkKind,
        targets: &[String],
        expect_id: Option<&str>,
    ) -> Result<Link, NetError> {
        super::dial::dial_any(&self.0.shared, kind, targets, expect_id).await
    }

    /// Closes every link and waits until the peers were told (bounded).
    pub async fn close(&self) {
        self.0.shared.quinn.close(CLOSE_ORDERLY, b"this process ends");
        self.0.acceptor.abort();
        self.0.reloader.abort();
        // Whoever does not acknowledge finds out by himself.
        let _ = timeout(CLOSE_PATIENCE, self.0.shared.quinn.wait_idle()).await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.reloader.abort();
        self.shared.quinn.close(CLOSE_ORDERLY, b"this process ends");
    }
}
