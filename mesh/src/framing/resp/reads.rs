//! The commands that may be answered without the log (rule 32): they read the data, and nothing else. Their replies are a
//! function of the data alone, and they leave nothing behind that a later command could see.
//!
//! Not here, although they write nothing: what depends on a clock (`TTL`), on chance, on one process (`INFO`, `OBJECT FREQ`); what
//! keeps something beside the data (`PFCOUNT` its last result, `TOUCH` a time); what has options that write (`SORT`), or would
//! keep an application busy for long (`KEYS`). An error that Redis answers to one of them is a read like another reply.

use super::args::Args;
use super::classify::{self, Verdict};
use crate::framing::Connections;

/// In the order of their bytes.
const READS: [&str; 47] = [
    "bitcount",
    "bitfield_ro",
    "bitpos",
    "dbsize",
    "exists",
    "get",
    "getbit",
    "getrange",
    "hexists",
    "hget",
    "hgetall",
    "hkeys",
    "hlen",
    "hmget",
    "hstrlen",
    "hvals",
    "lindex",
    "llen",
    "lpos",
    "lrange",
    "mget",
    "scard",
    "sdiff",
    "sinter",
    "sintercard",
    "sismember",
    "smembers",
    "smismember",
    "strlen",
    "substr",
    "sunion",
    "type",
    "xlen",
    "xrange",
    "xrevrange",
    "zcard",
    "zcount",
    "zlexcount",
    "zmscore",
    "zrange",
    "zrangebylex",
    "zrangebyscore",
    "zrank",
    "zrevrange",
    "zrevrangebyscore",
    "zrevrank",
    "zscore",
];

/// Whether `request` is one of them, and would be ordered if it were not.
pub(in crate::framing) fn is_read(connections: Connections, request: &[u8]) -> bool {
    let known = classify::name(request).is_some_and(|(name, _): (_, Args<'_>)| READS.binary_search(&name).is_ok());
    known && matches!(classify::classify(connections, request), Verdict::Order(_))
}

#[cfg(test)]
mod tests {
    use super::super::commands::{self, Rule};
    use super::*;

    #[test]
    fn the_list_is_in_order_and_of_commands_that_are_ordered_as_they_are() {
        assert!(READS.is_sorted());
        for name in READS {
            let (found, rule) = commands::command(name.as_bytes()).unwrap_or_else(|| panic!("{name} is no command"));
            assert_eq!(found, name);
            assert!(matches!(rule, Rule::Exact | Rule::Sorted | Rule::Pairs), "{name}: {rule:?}");
        }
    }
}
