//! Settings that all who touch the application's bytes must have alike: protocol, connections, sizes, durability, votes.

use clap::ValueEnum;
use mesh::client::ReplyVote;
use mesh::framing;
use mesh::node::human;

/// The application's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// A line a request, a line a reply
    Line,
    /// A request ends with the client's half-close, a reply with the application's close
    Close,
    /// A big-endian u32 length before each request and reply
    Length,
    /// HTTP/1.0 and HTTP/1.1
    Http,
    /// Redis' RESP2 and RESP3
    Resp,
}

impl Protocol {
    /// How its connections are used unless told otherwise.
    pub(crate) fn default_connections(self) -> Connections {
        match framing::Protocol::from(self).default_connections() {
            framing::Connections::PerRequest => Connections::PerRequest,
            framing::Connections::Shared => Connections::Shared,
            framing::Connections::PerSession => Connections::PerSession,
        }
    }
}

impl From<Protocol> for framing::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Line => Self::Line,
            Protocol::Close => Self::Close,
            Protocol::Length => Self::Length,
            Protocol::Http => Self::Http,
            Protocol::Resp => Self::Resp,
        }
    }
}

/// How the application's connections are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Connections {
    /// One for each request
    PerRequest,
    /// One for all, requests pipelined in order
    Shared,
    /// One for each session, one request at a time
    PerSession,
}

impl From<Connections> for framing::Connections {
    fn from(connections: Connections) -> Self {
        match connections {
            Connections::PerRequest => Self::PerRequest,
            Connections::Shared => Self::Shared,
            Connections::PerSession => Self::PerSession,
        }
    }
}

/// How writes reach the disk before they are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// Synced before every promise and vote
    Sync,
    /// Written, not synced: survives the process, not the machine
    Async,
    /// Not written: survives the loss of a minority only
    Memory,
}

impl From<Durability> for mesh::config::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Sync => Self::Sync,
            Durability::Async => Self::Async,
            Durability::Memory => Self::Memory,
        }
    }
}

/// How many equal replies make an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Vote {
    /// Any one
    First,
    /// Those of a majority of the replicas
    #[default]
    Majority,
    /// Those of all replicas
    All,
}

impl From<Vote> for ReplyVote {
    fn from(vote: Vote) -> Self {
        match vote {
            Vote::First => Self::First,
            Vote::Majority => Self::Majority,
            Vote::All => Self::All,
        }
    }
}

/// A setting's value as the command line spells it.
pub(crate) fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Bounds of one request and one reply.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Sizes {
    /// Size of one request at most; the same for all parts
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = size)]
    pub(crate) request_bytes: usize,
    /// Size of one reply at most; the same for all parts
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = size)]
    pub(crate) reply_bytes: usize,
}

/// Each travels in one message.
fn size(text: &str) -> Result<usize, String> {
    let most = mesh::limits::REQUEST_BYTES_MAX as u64;
    match human::parse_size(text)? {
        0 => Err("must be more than nothing".to_owned()),
        size if size > most => Err(format!("must be {} at most", human::format_size(most))),
        size => usize::try_from(size).map_err(|error| error.to_string()),
    }
}

/// The adapter of these settings; checked against each other.
pub(crate) fn adapter(
    protocol: Protocol,
    connections: Option<Connections>,
    sizes: Sizes,
) -> Result<framing::Adapter, String> {
    let connections = connections.unwrap_or_else(|| protocol.default_connections());
    let (protocol, connections) = (framing::Protocol::from(protocol), framing::Connections::from(connections));
    // It knows which go together, and says why not.
    framing::Adapter::from_name(&format!("{protocol}/{connections}"), sizes.request_bytes, sizes.reply_bytes)
        .map_err(|error| error.to_string())
}
