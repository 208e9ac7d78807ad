//! What the load generator says and how it knows the end of a reply: requests are formatted once, and only the key is
//! written anew for each; of a reply nothing is kept but whether it is good.
//!
//! Each protocol has a file of its own. None uses the adapters of the product: what is measured does not measure itself.

mod etcd;
mod http;
mod length;
mod line;
mod resp;
mod zookeeper;

use serde::{Deserialize, Serialize};

/// A key is a letter and so many digits.
pub(crate) const KEY_DIGITS: usize = 7;
/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = KEY_DIGITS + 1;
/// Different keys at most.
pub(crate) const KEYS_MAX: u64 = 10_u64.pow(KEY_DIGITS as u32);
/// Where the key stands until it is written: as long as one.
const KEY: &[u8; KEY_BYTES] = b"k#######";

/// What a service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// The hashmap's lines: PUT, GET, REMOVE, SIZE
    Line,
    /// The same, one a connection, ended by the half-close
    Close,
    /// The same, each behind its length as a big-endian u32
    Length,
    /// PUT, GET and DELETE of /key
    Http,
    /// Redis: SET, GET, DEL, DBSIZE
    Resp,
    /// The same, each SET followed by WAIT 1 and answered when a replica has it
    RespWait,
    /// etcd, version 3: Put, linearizable Range, DeleteRange
    Etcd,
    /// ZooKeeper: setData, getData, delete
    Zookeeper,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Op {
    /// Stores a value.
    Put,
    /// Reads one.
    Get,
    /// Removes one.
    Remove,
    /// How many there are.
    Size,
}

impl Op {
    /// All of them, in the order of a mix.
    pub(crate) const ALL: [Self; 4] = [Self::Put, Self::Get, Self::Remove, Self::Size];

    /// As the paper writes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Put => "PUT",
            Self::Get => "GET",
            Self::Remove => "REMOVE",
            Self::Size => "SIZE",
        }
    }
}

/// What the bytes at hand are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The beginning of something.
    More,
    /// So many bytes that are no reply.
    Other {
        /// Its bytes.
        used: usize,
    },
    /// A whole reply of so many bytes.
    Reply {
        /// Its bytes.
        used: usize,
        /// No error.
        good: bool,
    },
}

/// A request, but for its key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Template {
    bytes: Vec<u8>,
    key_at: Option<usize>,
}

impl Template {
    /// Of a request in which the key is written as [`KEY`].
    fn new(bytes: Vec<u8>) -> Self {
        let key_at = bytes.windows(KEY_BYTES).position(|window| window == KEY).map(|at| at + 1);
        Self { bytes, key_at }
    }

    /// Appends the request with this key.
    fn write(&self, mut key: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let Some(at) = self.key_at else { return };
        for digit in out[start + at..start + at + KEY_DIGITS].iter_mut().rev() {
            *digit = b'0' + (key % 10) as u8;
            key /= 10;
        }
    }
}

/// A protocol with its requests.
#[derive(Clone, Debug)]
pub(crate) struct Speech {
    protocol: Protocol,
    templates: [Template; 4],
    /// Writes a key for the first time, where that is another request.
    create: Option<Template>,
}

/// What is remembered of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Conversation(Memory);

#[derive(Clone, Debug)]
enum Memory {
    /// Nothing.
    None,
    /// Streams and windows.
    Etcd(etcd::State),
    /// Whether there is a session.
    Zookeeper(bool),
}

impl Conversation {
    /// Whether requests may be sent: what was said first is answered.
    pub(crate) fn is_ready(&self) -> bool {
        match &self.0 {
            Memory::None => true,
            Memory::Etcd(state) => state.ready,
            Memory::Zookeeper(ready) => *ready,
        }
    }
}

impl Speech {
    /// With values of so many bytes. `keep`: whether the connection is to stay open behind a request.
    pub(crate) fn new(protocol: Protocol, value_bytes: usize, keep: bool) -> Self {
        let value = "x".repeat(value_bytes);
        let request = |op| match protocol {
            Protocol::Line | Protocol::Close => line::request(op, &value),
            Protocol::Length => length::request(op, &value),
            Protocol::Http => http::request(op, &value, keep),
            Protocol::Resp => resp::request(op, &value),
            Protocol::RespWait => resp::request_and_wait(op, &value),
            Protocol::Etcd => etcd::request(op, &value),
            Protocol::Zookeeper => zookeeper::request(op, &value),
        };
        let create = (protocol == Protocol::Zookeeper).then(|| Template::new(zookeeper::create(&value)));
        Self { protocol, templates: Op::ALL.map(|op| Template::new(request(op))), create }
    }

    /// A new connection; what is said first is appended to `out`.
    pub(crate) fn begin(&self, out: &mut Vec<u8>) -> Conversation {
        Conversation(match self.protocol {
            Protocol::Etcd => {
                etcd::hello(out);
                Memory::Etcd(etcd::State::default())
            }
            Protocol::Zookeeper => {
                zookeeper::hello(out);
                Memory::Zookeeper(false)
            }
            _ => Memory::None,
        })
    }

    /// Appends a request.
    pub(crate) fn ask(&self, conversation: &mut Conversation, op: Op, key: u64, out: &mut Vec<u8>) {
        let start = out.len();
        self.templates[op as usize].write(key, out);
        if let Memory::Etcd(state) = &mut conversation.0 {
            state.number(&mut out[start..]);
        }
    }

    /// Appends the request that writes a key for the first time.
    pub(crate) fn create(&self, conversation: &mut Conversation, key: u64, out: &mut Vec<u8>) {
        match &self.create {
            Some(template) => template.write(key, out),
            None => self.ask(conversation, Op::Put, key, out),
        }
    }

    /// Looks for the end of what `bytes` begin with; what has to be said to it is appended to `out`.
    pub(crate) fn hear(&self, conversation: &mut Conversation, bytes: &[u8], out: &mut Vec<u8>) -> Step {
        if bytes.is_empty() {
            return Step::More;
        }
        match (self.protocol, &mut conversation.0) {
            (Protocol::Etcd, Memory::Etcd(state)) => state.hear(bytes, out),
            (Protocol::Zookeeper, Memory::Zookeeper(ready)) => zookeeper::hear(ready, bytes),
            (Protocol::Line, _) => line::reply(bytes),
            (Protocol::Length, _) => length::reply(bytes),
            (Protocol::Http, _) => http::reply(bytes),
            (Protocol::Resp, _) => resp::reply(bytes),
            (Protocol::RespWait, _) => resp::reply_and_wait(bytes),
            (Protocol::Close | Protocol::Etcd | Protocol::Zookeeper, _) => Step::More,
        }
    }

    /// Whether these bytes, behind which the other end closed, are a good reply.
    pub(crate) fn is_good_end(&self, bytes: &[u8]) -> bool {
        match self.protocol {
            Protocol::Close => line::is_good(bytes) && !bytes.is_empty(),
            Protocol::Http => http::is_good_end(bytes),
            _ => false,
        }
    }

    /// Whether the half-close is the end of a request.
    pub(crate) fn half_closes(&self) -> bool {
        self.protocol == Protocol::Close
    }
}

impl Protocol {
    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Close => "close",
            Self::Length => "length",
            Self::Http => "http",
            Self::Resp => "resp",
            Self::RespWait => "resp-wait",
            Self::Etcd => "etcd",
            Self::Zookeeper => "zookeeper",
        }
    }

    /// The one of this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        <Self as clap::ValueEnum>::value_variants().iter().copied().find(|protocol| protocol.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(protocol: Protocol, op: Op, key: u64) -> String {
        let mut out = b"before".to_vec();
        Speech::new(protocol, 3, true).ask(&mut Conversation(Memory::None), op, key, &mut out);
        String::from_utf8(out).expect("text").split_off(6)
    }

    #[test]
    fn the_key_is_written_into_the_request_that_is_kept() {
        assert_eq!(asked(Protocol::Line, Op::Put, 42), "PUT k0000042 xxx\n");
        assert_eq!(asked(Protocol::Close, Op::Get, 9_999_999), "GET k9999999\n");
        assert_eq!(asked(Protocol::Line, Op::Size, 1), "SIZE\n");
        assert_eq!(asked(Protocol::Length, Op::Remove, 7), "\0\0\0\x0fREMOVE k0000007");
        assert_eq!(asked(Protocol::Resp, Op::Put, 1), "*3\r\n$3\r\nSET\r\n$8\r\nk0000001\r\n$3\r\nxxx\r\n");
        assert!(asked(Protocol::Http, Op::Put, 1).starts_with("PUT /k0000001 HTTP/1.1\r\n"));
    }

    #[test]
    fn a_reply_without_an_end_of_its_own_ends_with_the_connection() {
        let close = Speech::new(Protocol::Close, 1, true);
        assert_eq!(close.hear(&mut Conversation(Memory::None), b"OK\n", &mut Vec::new()), Step::More);
        assert!(close.is_good_end(b"OK\n") && !close.is_good_end(b"") && !close.is_good_end(b"ERR x\n"));
        assert!(!Speech::new(Protocol::Line, 1, true).is_good_end(b"OK"));
    }
}
