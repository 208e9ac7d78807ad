//! The names of protocols and connection policies, as flags, files and the ordered configuration spell them.

use super::{Adapter, Connections, Protocol};
use std::fmt;
use std::str::FromStr;

/// A name that means nothing here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownName {
    /// Not a protocol.
    #[error("unknown protocol '{0}': use line, close, length, http or resp")]
    Protocol(String),
    /// Not a connection policy.
    #[error("unknown connection policy '{0}': use per-request, shared or per-session")]
    Connections(String),
    /// Not an adapter.
    #[error("unknown adapter '{0}': it is spelled PROTOCOL/CONNECTIONS, such as line/shared")]
    Adapter(String),
    /// A protocol that cannot be spoken over such connections.
    #[error("protocol {0} does not go with {1} connections: {why}; use per-request", why = .0.why_not())]
    Mismatch(Protocol, Connections),
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Line, Self::Close, Self::Length, Self::Http, Self::Resp];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Close => "close",
            Self::Length => "length",
            Self::Http => "http",
            Self::Resp => "resp",
        }
    }

    /// How its connections are used unless told otherwise. HTTP servers may close a lasting connection whenever they
    /// like, and many take no second request before they answered the first.
    #[must_use]
    pub const fn default_connections(self) -> Connections {
        match self {
            Self::Close | Self::Http => Connections::PerRequest,
            Self::Line | Self::Length | Self::Resp => Connections::Shared,
        }
    }

    /// Whether it can be spoken over such connections: where the close ends a reply, a connection serves one request, and
    /// where connections have no state, a session needs none of its own.
    #[must_use]
    pub const fn goes_with(self, connections: Connections) -> bool {
        match self {
            Self::Close => matches!(connections, Connections::PerRequest),
            Self::Http => !matches!(connections, Connections::PerSession),
            Self::Line | Self::Length | Self::Resp => true,
        }
    }

    /// Why it does not go with some connections.
    const fn why_not(self) -> &'static str {
        match self {
            Self::Close => "its replies end with the connection",
            _ => "its connections have no state that a session could need",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|protocol| protocol.as_str() == name);
        found.ok_or_else(|| UnknownName::Protocol(name.to_owned()))
    }
}

impl Connections {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::PerRequest, Self::Shared, Self::PerSession];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PerRequest => "per-request",
            Self::Shared => "shared",
            Self::PerSession => "per-session",
        }
    }
}

impl fmt::Display for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Connections {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|connections| connections.as_str() == name);
        found.ok_or_else(|| UnknownName::Connections(name.to_owned()))
    }
}

impl Adapter {
    /// The adapter of a [`Adapter::name`] in the ordered configuration.
    ///
    /// # Errors
    /// A name that is none, or a protocol that does not go with the connection policy.
    pub fn from_name(name: &str, request_bytes: usize, reply_bytes: usize) -> Result<Self, UnknownName> {
        let (protocol, connections) = name.split_once('/').ok_or_else(|| UnknownName::Adapter(name.to_owned()))?;
        let (protocol, connections) = (protocol.parse::<Protocol>()?, connections.parse()?);
        if !protocol.goes_with(connections) {
            return Err(UnknownName::Mismatch(protocol, connections));
        }
        Ok(Self { protocol, connections, request_bytes, reply_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for protocol in Protocol::ALL {
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
            assert!(protocol.goes_with(protocol.default_connections()));
            for connections in Connections::ALL {
                assert_eq!(connections.to_string().parse(), Ok(connections));
                let adapter = Adapter { protocol, connections, request_bytes: 7, reply_bytes: 9 };
                match Adapter::from_name(&adapter.name(), 7, 9) {
                    Ok(read) => assert!(read == adapter && protocol.goes_with(connections)),
                    Err(error) => assert_eq!(error, UnknownName::Mismatch(protocol, connections)),
                }
            }
        }
    }

    #[test]
    fn names_are_those_of_the_interface() {
        let adapter = Adapter::from_name("resp/per-session", 1, 1).map(|a| (a.protocol, a.connections));
        assert_eq!(adapter, Ok((Protocol::Resp, Connections::PerSession)));
        assert_eq!("RESP".parse::<Protocol>(), Err(UnknownName::Protocol("RESP".into())));
        assert_eq!("pooled".parse::<Connections>(), Err(UnknownName::Connections("pooled".into())));
        assert_eq!(Adapter::from_name("line", 1, 1), Err(UnknownName::Adapter("line".into())));
        for name in ["close/shared", "close/per-session", "http/per-session"] {
            assert!(matches!(Adapter::from_name(name, 1, 1), Err(UnknownName::Mismatch(..))), "{name}");
        }
        assert!(Adapter::from_name("http/shared", 1, 1).is_ok());
    }
}
