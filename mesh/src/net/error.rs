//! What can go wrong with links, by whose fault it is and what to do about it.

use super::LinkKind;
use crate::names::{Identity, Role};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a link was refused by one of its ends. The label of `links_refused_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalReason {
    /// The certificate is not signed by a trusted authority, or there is none.
    UnknownCa,
    /// The certificate's time is over.
    Expired,
    /// The certificate's time has not begun: usually a wrong clock.
    NotYetValid,
    /// The certificate was revoked.
    Revoked,
    /// The role may not be at that end of such a link.
    WrongRole,
    /// The certificate belongs to another cluster.
    WrongCluster,
    /// Another one of that role than the one expected, or names that contradict each other.
    WrongId,
    /// The other end does not speak this kind of link, or not in this version.
    Version,
}

impl RefusalReason {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::UnknownCa,
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::WrongRole,
        Self::WrongCluster,
        Self::WrongId,
        Self::Version,
    ];

    /// The label in metrics and close reasons.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownCa => "unknown_ca",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::WrongRole => "wrong_role",
            Self::WrongCluster => "wrong_cluster",
            Self::WrongId => "wrong_id",
            Self::Version => "version",
        }
    }

    /// What the operator can do.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::UnknownCa => "give both ends certificates of one authority, or both authorities in the trust bundle",
            Self::Expired => "renew the certificate (`lockstep certs renew`)",
            Self::NotYetValid => "check the clocks of both machines",
            Self::Revoked => "renew the certificate (`lockstep certs renew ROLE/ID`)",
            Self::WrongRole => "check which certificate each part was given and which port was dialled",
            Self::WrongCluster => "check --cluster and the addresses: they lead to another cluster",
            Self::WrongId => "check --id and the addresses: another one answers there",
            Self::Version => {
                "check that the address is that of the right part, and that both run versions that go together"
            }
        }
    }
}

impl RefusalReason {
    /// What whoever has the keys of the authority can do about the certificate of `who`.
    #[must_use]
    pub fn hint_for(self, who: &Identity) -> String {
        match self {
            Self::UnknownCa => format!(
                "run `lockstep certs renew {}/{}`, or put its authority into the trust bundle",
                who.role, who.id
            ),
            Self::Expired | Self::Revoked => format!("run `lockstep certs renew {}/{}`", who.role, who.id),
            Self::WrongRole | Self::WrongCluster | Self::WrongId => {
                format!("run `lockstep certs issue {} {}`, and put what it makes there", who.role, who.id)
            }
            Self::NotYetValid | Self::Version => self.hint().to_owned(),
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which end refused a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusedBy {
    /// This process did not accept the other end.
    Us,
    /// The other end did not accept this process.
    Peer,
}

/// A refused link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// Who refused.
    pub by: RefusedBy,
    /// Who the other end claims to be; not verified.
    pub claims: Option<Identity>,
    /// More, for people; bounded and printable.
    pub detail: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            RefusedBy::Us => write!(f, "{}: {}", self.reason, self.detail),
            RefusedBy::Peer => write!(f, "{}, says the other end: {}", self.reason, self.detail),
        }?;
        write!(f, ": {}", self.reason.hint())
    }
}

impl std::error::Error for Refusal {}

/// An error of a link or an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Configuration: a certificate, key or bundle cannot be used.
    #[error("{}: {problem}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// Configuration: TLS cannot be set up with what was given.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// Configuration: this process' certificate has a role that may not dial or accept such links.
    #[error(
        "a certificate of role {role} cannot {verb} {kind} links: start this part with the certificate of the right role"
    )]
    NotOurRole {
        /// Our role.
        role: Role,
        /// `dial` or `accept`.
        verb: &'static str,
        /// The kind of link.
        kind: LinkKind,
    },
    /// Configuration: an identity that no certificate can have was asked for.
    #[error("no part can have this id: {0}")]
    Name(#[from] crate::names::NameError),
    /// The machine's: the UDP socket cannot be opened.
    #[error("UDP address {addr} cannot be used: {source}: choose another --quic address or end whoever uses it")]
    Bind {
        /// What was asked for.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The name service's, or a misspelled target. Passes or not: try again.
    #[error("{target} cannot be resolved: {problem}")]
    Resolve {
        /// HOST:PORT.
        target: String,
        /// What the resolver said.
        problem: String,
    },
    /// Nobody has said yet where the other end is.
    #[error("its address is not known yet: it has not come by, and nobody has named it")]
    NoAddress,
    /// The network's or the peer's: nobody answered at any address. Try again.
    #[error("{target} does not answer: {problem}")]
    Unreachable {
        /// HOST:PORT.
        target: String,
        /// What happened at the last address.
        problem: String,
    },
    /// One of both ends refused the other. Needs a person, or a new certificate; trying again is harmless.
    #[error("link with {target} refused: {refusal}")]
    Refused {
        /// HOST:PORT.
        target: String,
        /// Why and by whom.
        refusal: Refusal,
    },
    /// The link is gone; dial again.
    #[error("the link is gone: {0}")]
    Gone(String),
    /// The peer's: it takes no further stream or data in time. The message was not sent whole.
    #[error("the other end takes no data: message dropped")]
    Stalled,
    /// Ours: the message is larger than a link carries.
    #[error("a message of {bytes} bytes is larger than the {limit} bytes that a link carries")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The peer's: its answer is larger than allowed.
    #[error("the answer is larger than {limit} bytes: refused")]
    AnswerTooLarge {
        /// The bound.
        limit: usize,
    },
    /// The peer gave up on this stream: it does not want the message, or drops the request unanswered.
    #[error("the other end gave up on this stream (code {0})")]
    Abandoned(u64),
}
