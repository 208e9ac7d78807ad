//! Dialling: resolve anew, try all addresses, believe in a link only when the other end has welcomed us.

use super::LinkKind;
use super::accept::{HANDSHAKE_PATIENCE, names_of};
use super::endpoint::Shared;
use super::error::{NetError, Refusal, RefusedBy};
use super::link::{Link, Side};
use super::refusal::{Verdict, close_code, describe};
use super::tls::Expected;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quinn::{ClientConfig, Connection, ConnectionError, ReadToEndError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::time::timeout;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// How long one address may be silent before the next is tried beside it.
const STAGGER: Duration = Duration::from_millis(250);

/// How long the name service may take.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(5);

/// Why one address gave no link.
enum Failure {
    Refused(Refusal),
    Failed(String),
    /// Not worth trying elsewhere: our own setup.
    Ours(NetError),
}

/// See [`super::Endpoint::dial`].
pub(super) async fn dial(
    shared: &Shared,
    kind: LinkKind,
    target: &str,
    expect_id: Option<&str>,
) -> Result<Link, NetError> {
    let role = shared.identity().role;
    if !kind.diallers().contains(&role) {
        return Err(NetError::NotOurRole { role, verb: "dial", kind });
    }
    dial_as_anyone(shared, kind, target, expect_id).await
}

/// See [`super::Endpoint::dial_any`].
pub(super) async fn dial_any(
    shared: &Shared,
    kind: LinkKind,
    targets: &[String],
    expect_id: Option<&str>,
) -> Result<Link, NetError> {
    let mut targets = targets.iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = None;
    loop {
        match targets.next() {
            Some(target) => attempts.push(dial(shared, kind, target, expect_id)),
            None if attempts.is_empty() => return Err(failure.unwrap_or(NetError::NoAddress)),
            None => {}
        }
        match timeout(STAGGER, attempts.next()).await {
            Ok(Some(Ok(link))) => return Ok(link),
            // A refusal says more than silence elsewhere.
            Ok(Some(Err(error))) if !matches!(failure, Some(NetError::Refused { .. })) => failure = Some(error),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Dials without asking whether our role may; the other end asks, too.
pub(super) async fn dial_as_anyone(
    shared: &Shared,
    kind: LinkKind,
    target: &str,
    expect_id: Option<&str>,
) -> Result<Link, NetError> {
    let expected = Expected {
        cluster: shared.identity().cluster.clone(),
        trust_domain: shared.trust_domain().to_owned(),
        role: kind.acceptor(),
        id: expect_id.map(str::to_owned),
    };
    let asked = expected.asked_name()?;
    let mut addresses = resolve(target).await?.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = Failure::Failed("it has no address".to_owned());
    loop {
        match addresses.next() {
            Some(address) => attempts.push(attempt(shared, kind, &expected, &asked, address)),
            None if attempts.is_empty() => return Err(failure.of(target)),
            None => {}
        }
        match timeout(STAGGER, attempts.next()).await {
            Ok(Some(Ok(link))) => return Ok(link),
            Ok(Some(Err(Failure::Ours(error)))) => return Err(error),
            // A refusal says more than silence elsewhere.
            Ok(Some(Err(other))) if !matches!(failure, Failure::Refused(_)) => failure = other,
            Ok(_) | Err(_) => {}
        }
    }
}

impl Failure {
    fn of(self, target: &str) -> NetError {
        let target = target.to_owned();
        match self {
            Self::Refused(refusal) => NetError::Refused { target, refusal },
            Self::Failed(problem) => NetError::Unreachable { target, problem },
            Self::Ours(error) => error,
        }
    }
}

/// All addresses of HOST:PORT, as of now.
pub(super) async fn resolve(target: &str) -> Result<Vec<SocketAddr>, NetError> {
    let failed = |problem: String| NetError::Resolve { target: target.to_owned(), problem };
    let found = timeout(RESOLVE_PATIENCE, lookup_host(target)).await;
    let found = found.map_err(|_| failed("the name service does not answer".to_owned()))?;
    let addresses: Vec<_> = found.map_err(|error| failed(error.to_string()))?.take(ADDRESSES_MAX).collect();
    if addresses.is_empty() { Err(failed("the name has no address".to_owned())) } else { Ok(addresses) }
}

/// One handshake with one address.
async fn attempt(
    shared: &Shared,
    kind: LinkKind,
    expected: &Expected,
    asked: &str,
    address: SocketAddr,
) -> Result<Link, Failure> {
    let verdict = Arc::new(Verdict::default());
    let terms = shared.terms();
    let tls = terms.tls.dialling(kind, expected.clone(), verdict.clone()).map_err(Failure::Ours)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(shared.transport.clone());
    let connecting = shared.quinn.connect_with(config, address, asked);
    let connecting = connecting.map_err(|error| Failure::Failed(format!("{address}: {error}")))?;
    let handshake = async {
        let connection = connecting.await?;
        welcomed(&connection).await?;
        Ok(connection)
    };
    let connection = match timeout(HANDSHAKE_PATIENCE, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            let Some(refusal) = verdict.explain(&error) else {
                return Err(Failure::Failed(format!("{address}: {}", describe(&error))));
            };
            shared.count_refused(&refusal, address, Some(kind));
            return Err(Failure::Refused(refusal));
        }
        Err(_) => return Err(Failure::Failed(format!("{address}: silent for {HANDSHAKE_PATIENCE:?}"))),
    };
    // TLS has checked the same; this is where the identity that everything else trusts is read.
    let named = names_of(&connection).map_err(|problem| Failure::Failed(format!("{address}: {problem}")))?;
    if let Err(mismatch) = expected.check(&named) {
        connection.close(close_code(mismatch.reason), mismatch.to_string().as_bytes());
        let (reason, detail, claims) = (mismatch.reason, mismatch.detail, Some(named.identity));
        let refusal = Refusal { reason, by: RefusedBy::Us, claims, detail };
        shared.count_refused(&refusal, address, Some(kind));
        return Err(Failure::Refused(refusal));
    }
    let link = shared.establish(connection, named, (kind, Side::Dialled), terms);
    link.ok_or_else(|| Failure::Failed(format!("{address}: it is not trusted any more")))
}

/// Waits for the acceptor's decision: its first stream, empty, or the link's end.
async fn welcomed(connection: &Connection) -> Result<(), ConnectionError> {
    let mut stream = connection.accept_uni().await?;
    match stream.read_to_end(0).await {
        Err(ReadToEndError::Read(quinn::ReadError::ConnectionLost(error))) => Err(error),
        // Anything else on that stream is not ours to understand, but it is an answer of the accepted peer.
        _ => Ok(()),
    }
}
