//! QUIC links between the parts: mutual TLS 1.3, identity from the certificate, roles by ALPN and SAN, one message a
//! stream. Nothing here knows what a message means.
//!
//! How to use it: [`Credentials::load`], [`Endpoint::bind`] (inside a tokio runtime), then [`Endpoint::dial`] and
//! [`Endpoint::accept`]. A [`Link`] exists only after both ends have verified and accepted each other.

mod accept;
mod backoff;
mod dial;
mod endpoint;
mod error;
mod examine;
mod explain;
mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod identity;
mod inbox;
pub mod kept;
mod link;
mod live;
mod metrics;
mod outgoing;
mod outside;
mod probe;
mod refusal;
mod reload;
mod reset;
mod revocation;
mod runtime;
mod signing;
mod socket;
mod tls;
mod transport;

#[cfg(test)]
mod tests;

pub use crate::names::{Identity, Role};
pub use backoff::Backoff;
pub use endpoint::Endpoint;
pub use error::{NetError, Refusal, RefusalReason, RefusedBy};
pub use examine::{Finding, Standing, examine};
pub use files::Files;
pub use identity::Credentials;
pub use link::Link;
pub use live::unix_now;
pub use outgoing::Responder;
pub use outside::{Outside, OutsideFiles};
pub use probe::presented_certificates;
pub use reload::{Changes, POLL, Reloads};
pub use signing::{Followed, Signer, SignerTrust, Trusted};
pub use socket::udp_buffer;

use crate::wire;
use std::fmt;
use std::time::Duration;

/// What a link is for: its ALPN. Decides which role may be at which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// Server to server: consensus.
    Peer,
    /// SMaRtClient to server: requests.
    Submit,
    /// Ingress or native client to SMaRtClient: requests.
    Client,
    /// Operator to server.
    Admin,
}

impl LinkKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Peer, Self::Submit, Self::Client, Self::Admin];

    /// The kind's name in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Submit => "submit",
            Self::Client => "client",
            Self::Admin => "admin",
        }
    }

    /// What the TLS handshake calls it; has the newest version of its messages.
    #[must_use]
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Peer => wire::ALPN_PEER,
            Self::Submit => wire::ALPN_SUBMIT,
            Self::Client => wire::ALPN_CLIENT,
            Self::Admin => wire::ALPN_ADMIN,
        }
    }

    /// The role that accepts such links.
    #[must_use]
    pub const fn acceptor(self) -> Role {
        match self {
            Self::Peer | Self::Submit | Self::Admin => Role::Server,
            Self::Client => Role::SmartClient,
        }
    }

    /// The roles that dial such links.
    #[must_use]
    pub const fn diallers(self) -> &'static [Role] {
        match self {
            Self::Peer => &[Role::Server],
            Self::Submit => &[Role::SmartClient],
            Self::Client => &[Role::Ingress, Role::Client],
            Self::Admin => &[Role::Admin],
        }
    }

    /// The same for every version that this program speaks, the newest first: two ends settle on the newest one that both
    /// know. There is one so far; the next one stands before it until nobody speaks the old one any more.
    const fn alpns(self) -> [&'static [u8]; 1] {
        [self.alpn()]
    }

    fn of_alpn(protocol: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.alpns().contains(&protocol))
    }
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When a link is replaced by a new one, unless told otherwise.
pub const LINK_MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// Bounds of a link. They bound what the *other* end may do to this one.
#[derive(Clone, Debug)]
pub struct LinkLimits {
    /// Bytes of one message, in either direction.
    pub message_bytes: usize,
    /// Unidirectional streams that the other end may have open at once: just above the messages really in flight.
    /// At least one.
    pub uni_streams: u32,
    /// Bidirectional streams that the other end may have open at once: just above the requests really in flight.
    pub bidi_streams: u32,
    /// Whoever dialled a link replaces it before it is as old; one that is twice as old is closed by the other end.
    pub max_age: Duration,
}
