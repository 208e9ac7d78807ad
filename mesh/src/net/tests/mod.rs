//! Tests of links over loopback.

mod examine;
mod messages;
mod pki;
mod questions;
mod refusals;
mod reloads;
mod restarts;

use super::*;
use crate::node::Registry;
use pki::Pki;
use std::net::SocketAddr;
use std::time::Duration;

/// Streams that the other end may have open at once in these tests.
const STREAMS: u32 = 8;

/// The message bound in these tests.
const MESSAGE_BYTES: usize = 64 << 10;

/// One part: its endpoint and its metrics.
struct Part {
    endpoint: Endpoint,
    registry: Registry,
}

fn limits() -> LinkLimits {
    LinkLimits { message_bytes: MESSAGE_BYTES, uni_streams: STREAMS, bidi_streams: STREAMS, max_age: LINK_MAX_AGE }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

impl Part {
    /// A part that accepts what its role accepts.
    fn new(credentials: Credentials) -> Self {
        Self::with_limits(credentials, limits())
    }

    fn with_limits(credentials: Credentials, limits: LinkLimits) -> Self {
        let role = credentials.identity().role;
        let kinds: Vec<_> = LinkKind::ALL.into_iter().filter(|kind| kind.acceptor() == role).collect();
        let mut registry = Registry::default();
        let endpoint = Endpoint::bind(loopback(), credentials, &kinds, limits, &mut registry).unwrap();
        Self { endpoint, registry }
    }

    /// A part that accepts what its role may not.
    fn pretender(credentials: Credentials, kinds: &[LinkKind]) -> Self {
        let mut registry = Registry::default();
        let endpoint = Endpoint::bind_as_anyone(loopback(), credentials, kinds, limits(), &mut registry).unwrap();
        Self { endpoint, registry }
    }

    fn address(&self) -> String {
        self.endpoint.local_addr().to_string()
    }

    /// The value of a metric by its full name and labels as they are printed.
    fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
    }

    fn refused(&self, reason: &str) -> u64 {
        self.metric(&format!("links_refused_total{{reason=\"{reason}\"}}"))
    }

    /// Links refused for any reason.
    fn all_refused(&self) -> u64 {
        RefusalReason::ALL.iter().map(|reason| self.refused(reason.as_str())).sum()
    }
}

/// Both ends of a new link.
async fn join(dialler: &Part, kind: LinkKind, acceptor: &Part) -> (Link, Link) {
    let address = acceptor.address();
    let (dialled, accepted) = tokio::join!(dialler.endpoint.dial(kind, &address, None), acceptor.endpoint.accept());
    (dialled.unwrap(), accepted.unwrap())
}

/// Two servers and a link between them.
async fn linked_servers(pki: &Pki) -> (Part, Part, Link, Link) {
    let one = Part::new(pki.issue(Role::Server, "1").load());
    let two = Part::new(pki.issue(Role::Server, "2").load());
    let (to_two, to_one) = join(&one, LinkKind::Peer, &two).await;
    (one, two, to_two, to_one)
}

/// Waits until `done` holds.
async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The outcome of `future`, which must come.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.unwrap_or_else(|_| panic!("never: {what}"))
}
