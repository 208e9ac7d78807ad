//! QUIC links between the parts: mutual TLS 1.3, identity from the certificate, roles by ALPN and SAN, one message a
//! stream. Nothing here knows what a message means.

use bytes::Bytes;
use std::net::SocketAddr;
use std::path::Path;

/// What a certificate says its holder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Server,
    SmartClient,
    Ingress,
    Client,
    Admin,
}

/// Who is at the other end, by the SANs of its certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    pub cluster: String,
    pub role: Role,
    pub id: String,
}

/// What a link is for: its ALPN. Decides which role may be at which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkKind {
    Peer,
    Submit,
    Client,
    Admin,
}

/// Our certificate, its key and whom we trust, read from `pki/<role>/<id>`.
pub struct Credentials {}
impl Credentials {
    pub fn load(_dir: &Path, _trust_bundle: Option<&Path>) -> Result<Self, NetError> {
        unreachable!()
    }
    pub fn identity(&self) -> &Identity {
        unreachable!()
    }
}

/// Bounds of a link.
#[derive(Clone, Debug)]
pub struct LinkLimits {
    pub message_bytes: usize,
    pub uni_streams: u32,
    pub bidi_streams: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("{0}")]
    Skeleton(String),
}

/// One UDP socket, both ends of links.
#[derive(Clone)]
pub struct Endpoint {}
impl Endpoint {
    pub fn bind(
        _addr: SocketAddr,
        _credentials: Credentials,
        _kinds: &[LinkKind],
        _limits: LinkLimits,
        _metrics: &mut crate::node::Registry,
    ) -> Result<Self, NetError> {
        unreachable!()
    }
    pub fn local_addr(&self) -> SocketAddr {
        unreachable!()
    }
    pub fn identity(&self) -> &Identity {
        unreachable!()
    }
    /// The next link that passed the handshake and the checks of identity and role. Refused ones are counted and logged. None: closed.
    pub async fn accept(&self) -> Option<Link> {
        unreachable!()
    }
    /// One attempt. `target` is HOST:PORT, resolved now (all addresses are tried). `expect_id`: the only acceptable id of the other end.
    pub async fn dial(&self, _kind: LinkKind, _target: &str, _expect_id: Option<&str>) -> Result<Link, NetError> {
        unreachable!()
    }
    /// Closes every link and waits until the peers were told (bounded).
    pub async fn close(&self) {
        unreachable!()
    }
}

/// An authenticated link. Cheap to clone.
#[derive(Clone)]
pub struct Link {}
impl Link {
    pub fn peer(&self) -> &Identity {
        unreachable!()
    }
    pub fn kind(&self) -> LinkKind {
        unreachable!()
    }
    pub fn remote_address(&self) -> SocketAddr {
        unreachable!()
    }
    pub fn rtt(&self) -> std::time::Duration {
        unreachable!()
    }
    /// Sends one message on a unidirectional stream of its own. Waits for stream credit (with a bounded time), not for delivery.
    pub async fn send(&self, _message: Bytes) -> Result<(), NetError> {
        unreachable!()
    }
    /// The next whole message of a unidirectional stream, in order of completion.  Only one task calls this.
    pub async fn receive(&self) -> Result<Bytes, NetError> {
        unreachable!()
    }
    /// Sends a request on a bidirectional stream of its own, returns the whole answer (may be empty).
    pub async fn ask(&self, _request: Bytes) -> Result<Bytes, NetError> {
        unreachable!()
    }
    /// The next whole request of a bidirectional stream. Only one task calls this.
    pub async fn accept_ask(&self) -> Result<(Bytes, Responder), NetError> {
        unreachable!()
    }
    /// Resolves when the link is gone; the reason for people.
    pub async fn closed(&self) -> String {
        unreachable!()
    }
    pub fn close(&self, _reason: &str) {
        unreachable!()
    }
}

/// The answering half of a request's stream. Dropping it resets the stream.
pub struct Responder {}
impl Responder {
    /// Writes the answer and ends the stream. Does not wait for delivery.
    pub async fn answer(self, _bytes: Bytes) -> Result<(), NetError> {
        unreachable!()
    }
    /// Resolves when the asker gave up on the stream or the link is gone.
    pub async fn gone(&mut self) {
        unreachable!()
    }
}
