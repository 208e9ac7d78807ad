//! Accepting links: a bounded number of handshakes at once, address validation when there are many, then the checks of
//! identity and role.

use super::LinkKind;
use super::endpoint::Shared;
use super::error::{NetError, Refusal, RefusalReason, RefusedBy};
use super::identity::{Named, read_names};
use super::link::{CLOSE_ORDERLY, Link, Side};
use super::refusal::{Verdict, close_code, describe};
use super::tls::Tls;
use crate::node::{Quiet, grid};
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionError, Incoming, ServerConfig, TransportConfig};
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Links that passed all checks and wait for [`super::Endpoint::accept`].
pub(super) const LINKS_WAITING_MAX: usize = 64;

/// Handshakes at once; further attempts are ignored and come again.
const HANDSHAKES_MAX: usize = 128;

/// Handshakes at once above which an address must first prove that it receives (a Retry costs it a round trip).
const UNVALIDATED_MAX: usize = 32;

/// Links at once.
const LINKS_MAX: usize = 4096;

/// First packets that wait to be looked at, and bytes that they may bring along.
const INCOMING_MAX: usize = 256;
const INCOMING_BYTES_EACH: u64 = 32 << 10;
const INCOMING_BYTES_ALL: u64 = 4 << 20;

/// How long a handshake may take, the wait for the other end's decision included.
pub(super) const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(3);

/// Every attempt of anybody would say it again.
static UNUSABLE: Quiet = Quiet::new();

/// How often live links are sampled for the metrics.
const SAMPLE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 2 });

/// The task that accepts links until the endpoint is closed.
pub(super) struct Acceptor {
    shared: Arc<Shared>,
    kinds: Arc<[LinkKind]>,
    server: Option<ServerConfig>,
    links: mpsc::Sender<Link>,
}

impl Acceptor {
    /// What quinn needs to know beforehand; none if nothing is accepted.
    pub(super) fn server_config(
        tls: &Tls,
        kinds: &[LinkKind],
        transport: Arc<TransportConfig>,
    ) -> Result<Option<ServerConfig>, NetError> {
        if kinds.is_empty() {
            return Ok(None);
        }
        let crypto = tls.accepting(kinds, Arc::default())?;
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        config
            .transport_config(transport)
            // Identity is the certificate, but a moved address is a new pod: it dials anew.
            .migration(false)
            .max_incoming(INCOMING_MAX)
            .incoming_buffer_size(INCOMING_BYTES_EACH)
            .incoming_buffer_size_total(INCOMING_BYTES_ALL);
        Ok(Some(config))
    }

    pub(super) fn new(
        shared: Arc<Shared>,
        kinds: &[LinkKind],
        server: Option<ServerConfig>,
        links: mpsc::Sender<Link>,
    ) -> Self {
        Self { shared, kinds: kinds.into(), server, links }
    }

    pub(super) async fn run(self) {
        let mut handshakes = JoinSet::new();
        let sampling = grid::sleep(SAMPLE);
        tokio::pin!(sampling);
        loop {
            tokio::select! {
                incoming = self.shared.quinn.accept() => match incoming {
                    Some(incoming) => self.admit(incoming, &mut handshakes),
                    None => return,
                },
                Some(_) = handshakes.join_next() => {}
                () = &mut sampling => {
                    self.shared.live.sample(&self.shared.metrics, self.shared.identity().role);
                    sampling.set(grid::sleep(SAMPLE));
                }
            }
        }
    }

    /// Begins a handshake, asks for proof of the address, or ignores the attempt.
    fn admit(&self, incoming: Incoming, handshakes: &mut JoinSet<()>) {
        let Some(server) = &self.server else { return incoming.refuse() };
        if handshakes.len() >= HANDSHAKES_MAX || self.shared.quinn.open_connections() >= LINKS_MAX {
            return incoming.ignore();
        }
        if handshakes.len() >= UNVALIDATED_MAX && incoming.may_retry() {
            // Fails only if the address is validated already.
            let _ = incoming.retry();
            return;
        }
        let (shared, kinds, links) = (self.shared.clone(), self.kinds.clone(), self.links.clone());
        let server = server.clone();
        handshakes.spawn(async move {
            let address = incoming.remote_address();
            let Some(link) = handshake(&shared, &kinds, server, incoming, address).await else { return };
            // The receiver goes away only with the endpoint.
            let _ = links.send(link).await;
        });
    }
}

/// One handshake; the link if both ends accept each other.
async fn handshake(
    shared: &Shared,
    kinds: &[LinkKind],
    mut server: ServerConfig,
    incoming: Incoming,
    address: SocketAddr,
) -> Option<Link> {
    let verdict = Arc::new(Verdict::default());
    let terms = shared.terms();
    match terms.tls.accepting(kinds, verdict.clone()) {
        Ok(crypto) => server.crypto = Arc::new(crypto),
        Err(error) => {
            if let Some(suppressed) = UNUSABLE.may_speak() {
                tracing::error!(%error, suppressed, "a link cannot be accepted");
            }
            return None;
        }
    }
    let connecting = match incoming.accept_with(Arc::new(server)) {
        Ok(connecting) => connecting,
        Err(error) => return report(shared, &verdict, &error, address),
    };
    let connection = match timeout(HANDSHAKE_PATIENCE, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return report(shared, &verdict, &error, address),
        Err(_) => {
            tracing::debug!(%address, "a handshake took too long");
            return None;
        }
    };
    let (kind, named) = match check(shared, &connection) {
        Ok(checked) => checked,
        Err(refused) => {
            let (kind, refusal) = *refused;
            let text = format!("{}: {}", refusal.reason, refusal.detail);
            connection.close(close_code(refusal.reason), text.as_bytes());
            shared.count_refused(&refusal, address, kind);
            return None;
        }
    };
    if let Err(error) = welcome(&connection).await {
        return report(shared, &verdict, &error, address);
    }
    shared.establish(connection, named, (kind, Side::Accepted), terms)
}

/// Counts a failed handshake if it was a refusal.
fn report(shared: &Shared, verdict: &Verdict, error: &ConnectionError, address: SocketAddr) -> Option<Link> {
    match verdict.explain(error) {
        Some(refusal) => shared.count_refused(&refusal, address, None),
        None => tracing::debug!(%address, "a handshake failed: {}", describe(error)),
    }
    None
}

/// A refusal on its way to the close reason and the counters.
type Refused = Box<(Option<LinkKind>, Refusal)>;

/// What the link is for and who dialled, if that one may.
fn check(shared: &Shared, connection: &Connection) -> Result<(LinkKind, Named), Refused> {
    let refuse = |kind, claims, reason, detail| Box::new((kind, Refusal { reason, by: RefusedBy::Us, claims, detail }));
    let kind =
        kind_of(connection).ok_or_else(|| refuse(None, None, RefusalReason::Version, "unknown kind of link".into()))?;
    let named =
        names_of(connection).map_err(|problem| refuse(Some(kind), None, RefusalReason::WrongId, problem.to_owned()))?;
    let (we, who) = (shared.identity(), &named.identity);
    let (reason, detail) = if who.cluster != we.cluster || named.trust_domain != shared.trust_domain() {
        (RefusalReason::WrongCluster, format!("{who} dialled {we}"))
    } else if !kind.diallers().contains(&who.role) {
        (RefusalReason::WrongRole, format!("{who} is of role {}, which cannot dial {kind} links", who.role))
    } else if kind == LinkKind::Peer && who == we {
        (RefusalReason::WrongId, format!("{who} dialled another process of the same id"))
    } else {
        return Ok((kind, named));
    };
    Err(refuse(Some(kind), Some(named.identity), reason, detail))
}

/// Tells the dialler that it was accepted: TLS 1.3 lets it believe so before our checks. The link's first
/// unidirectional stream, empty.
async fn welcome(connection: &Connection) -> Result<(), ConnectionError> {
    let opened = timeout(HANDSHAKE_PATIENCE, connection.open_uni()).await;
    match opened {
        Ok(stream) => {
            // Fails only on a stream that was stopped, and nobody stops an empty one before it was sent.
            let _ = stream?.finish();
            Ok(())
        }
        Err(_) => {
            connection.close(CLOSE_ORDERLY, b"no stream for the welcome");
            Err(ConnectionError::TimedOut)
        }
    }
}

/// The kind of link that the handshake agreed on.
pub(super) fn kind_of(connection: &Connection) -> Option<LinkKind> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    LinkKind::of_alpn(data.protocol.as_deref()?)
}

/// The names in the other end's certificate, whose chain TLS has verified.
pub(super) fn names_of(connection: &Connection) -> Result<Named, &'static str> {
    let chain = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let chain = chain.ok_or("there is no certificate")?;
    read_names(chain.first().ok_or("there is no certificate")?)
}
