//! The table of all commands of Redis 7 (7.0, and what 7.2 and 7.4 added) and what is done with each (rule 28).
//!
//! Part of the semantics of execution: a change here changes outcomes, and so needs a new
//! [`EXECUTION_VERSION`](crate::config::EXECUTION_VERSION). A command that is not here is refused: who does not know a
//! command cannot promise that it runs alike everywhere.

/// What is done with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Ordered; replies are compared byte by byte.
    Exact,
    /// Ordered; the reply's elements come in the order of a hash table that each process seeds anew.
    Sorted,
    /// Ordered; the same, and the elements are pairs.
    Pairs,
    /// Ordered; the reply says something about one process.
    NotCompared,
    /// Never run, for this reason.
    Refused(&'static str),
    /// It changes the state of a connection: ordered where each session has its own connection, refused elsewhere.
    State(Form),
    /// A family of subcommands, and what is done without one.
    Family(&'static Rule),
    /// Answered by the ingress, whatever the arguments.
    Here(&'static [u8]),
    /// With that many arguments answered by the ingress, unless each session has its own connection.
    Shared(usize, &'static [u8]),
    /// Answered by the ingress unless it may stand within a transaction.
    Ping,
    /// The same.
    Echo,
    /// Ends the connection.
    Quit,
    /// Chooses the protocol's version.
    Hello,
    /// Chooses a database.
    Select,
    /// Refused with an expiry.
    Set,
    /// Refused with an expiry.
    GetEx,
    /// Refused with an expiry.
    Restore,
    /// Depends on what it sorts by.
    Sort,
    /// Refused when the entry's id comes from the clock.
    XAdd,
    /// Refused when it blocks.
    XRead,
    /// Refused when it depends on how long entries are idle.
    XClaim,
}

/// How a reply is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Byte by byte.
    Exact,
    /// As a set of elements.
    Sorted,
    /// As a set of pairs of elements.
    Pairs,
    /// The replies of a transaction, each aggregate among them as a set: the command that each answers is not known here.
    Transaction,
    /// Errors byte by byte, anything else not at all.
    NotCompared,
}

pub(super) const BLOCKS: &str = "it blocks until another client acts; ask again instead";
pub(super) const EXPIRY: &str = "each replica would expire keys by its own clock";
pub(super) const STATE: &str =
    "it changes the state of a connection, and clients share them; run with --app-connections per-session";
pub(super) const IDLE: &str = "each replica measures idle times by its own clock; use a minimum of 0";
pub(super) const CLOCK_ID: &str = "each replica would take the id '*' from its own clock; give an explicit id";
pub(super) const TIES: &str =
    "BY with ALPHA leaves ties in an order that differs on each replica, and STORE would keep it";
pub(super) const DATABASE: &str =
    "clients share connections, and those use database 0; run with --app-connections per-session";
pub(super) const HELLO: &str =
    "after the version only AUTH, then SETNAME are understood, and a name has no blanks; use AUTH and CLIENT SETNAME";
pub(super) const NO_ROOM: &str = "what connections keep (open transactions, watched keys) has reached its bound";
const PUB_SUB: &str = "messages beside replies are not replicated";
const RANDOM: &str = "its result is random, and would differ on each replica";
const SCRIPT: &str = "a script cannot be proven to run alike on each replica";
const CURSOR: &str = "cursors follow a hash order that differs on each replica; read the whole collection instead";
const STORAGE: &str = "Lockstep's log and snapshots keep the data";
const ONE_SERVER: &str = "it changes the setup of a server; configure all replicas alike at their start";
const OTHER_CLIENTS: &str = "it acts on other connections, and those are Lockstep's own";
const NO_REPLIES: &str = "every request needs its reply";
const STREAMS_ALL: &str = "it turns the connection into a stream";
const ENDS: &str = "it would stop every replica";
const REPLICATION: &str = "Lockstep replicates";
const CLUSTER: &str = "Lockstep replicates a server that stands alone, not a Redis cluster";
const DEBUG: &str = "it is for debugging a single server";
const OTHER_SERVERS: &str = "each replica would speak to another server on its own";

const OK: &[u8] = b"+OK\r\n";
const NULL: &[u8] = b"$-1\r\n";
const EMPTY: &[u8] = b"*0\r\n";

use Rule::*;

/// All commands, subcommands as `command|subcommand`, in the order of their bytes.
#[rustfmt::skip]
static COMMANDS: &[(&str, Rule)] = &[
    ("acl", Family(&Exact)),
    ("acl|cat", Sorted),
    ("acl|deluser", Refused(ONE_SERVER)),
    ("acl|dryrun", Exact),
    ("acl|genpass", Refused(RANDOM)),
    ("acl|getuser", Exact),
    ("acl|help", Exact),
    ("acl|list", Exact),
    ("acl|load", Refused(ONE_SERVER)),
    ("acl|log", NotCompared),
    ("acl|save", Refused(ONE_SERVER)),
    ("acl|setuser", Refused(ONE_SERVER)),
    ("acl|users", Exact),
    ("acl|whoami", Exact),
    ("append", Exact),
    ("asking", Refused(CLUSTER)),
    ("auth", State(Form::Exact)),
    ("bgrewriteaof", Refused(STORAGE)),
    ("bgsave", Refused(STORAGE)),
    ("bitcount", Exact),
    ("bitfield", Exact),
    ("bitfield_ro", Exact),
    ("bitop", Exact),
    ("bitpos", Exact),
    ("blmove", Refused(BLOCKS)),
    ("blmpop", Refused(BLOCKS)),
    ("blpop", Refused(BLOCKS)),
    ("brpop", Refused(BLOCKS)),
    ("brpoplpush", Refused(BLOCKS)),
    ("bzmpop", Refused(BLOCKS)),
    ("bzpopmax", Refused(BLOCKS)),
    ("bzpopmin", Refused(BLOCKS)),
    ("client", Family(&Exact)),
    ("client|caching", Refused(PUB_SUB)),
    ("client|getname", Shared(0, NULL)),
    ("client|getredir", Exact),
    ("client|help", Exact),
    ("client|id", Here(b":1\r\n")),
    ("client|info", NotCompared),
    ("client|kill", Refused(OTHER_CLIENTS)),
    ("client|list", NotCompared),
    ("client|no-evict", State(Form::Exact)),
    ("client|no-touch", State(Form::Exact)),
    ("client|pause", Refused(OTHER_CLIENTS)),
    ("client|reply", Refused(NO_REPLIES)),
    ("client|setinfo", Here(OK)),
    ("client|setname", Shared(1, OK)),
    ("client|tracking", Refused(PUB_SUB)),
    ("client|trackinginfo", NotCompared),
    ("client|unblock", Refused(OTHER_CLIENTS)),
    ("client|unpause", Refused(OTHER_CLIENTS)),
    ("cluster", Family(&Exact)),
    ("cluster|addslots", Refused(CLUSTER)),
    ("cluster|addslotsrange", Refused(CLUSTER)),
    ("cluster|bumpepoch", Refused(CLUSTER)),
    ("cluster|count-failure-reports", NotCompared),
    ("cluster|countkeysinslot", Exact),
    ("cluster|delslots", Refused(CLUSTER)),
    ("cluster|delslotsrange", Refused(CLUSTER)),
    ("cluster|failover", Refused(CLUSTER)),
    ("cluster|flushslots", Refused(CLUSTER)),
    ("cluster|forget", Refused(CLUSTER)),
    ("cluster|getkeysinslot", NotCompared),
    ("cluster|help", Exact),
    ("cluster|info", NotCompared),
    ("cluster|keyslot", Exact),
    ("cluster|links", NotCompared),
    ("cluster|meet", Refused(CLUSTER)),
    ("cluster|myid", NotCompared),
    ("cluster|myshardid", NotCompared),
    ("cluster|nodes", NotCompared),
    ("cluster|replicas", NotCompared),
    ("cluster|replicate", Refused(CLUSTER)),
    ("cluster|reset", Refused(CLUSTER)),
    ("cluster|saveconfig", Refused(CLUSTER)),
    ("cluster|set-config-epoch", Refused(CLUSTER)),
    ("cluster|setslot", Refused(CLUSTER)),
    ("cluster|shards", NotCompared),
    ("cluster|slaves", NotCompared),
    ("cluster|slots", NotCompared),
    ("command", Family(&Here(EMPTY))),
    ("command|count", Exact),
    ("command|docs", Here(EMPTY)),
    ("command|getkeys", Exact),
    ("command|getkeysandflags", Exact),
    ("command|help", Exact),
    ("command|info", NotCompared),
    ("command|list", Sorted),
    ("config", Family(&Exact)),
    ("config|get", NotCompared),
    ("config|help", Exact),
    ("config|resetstat", Exact),
    ("config|rewrite", Refused(ONE_SERVER)),
    ("config|set", Refused(ONE_SERVER)),
    ("copy", Exact),
    ("dbsize", Exact),
    ("debug", Refused(DEBUG)),
    ("decr", Exact),
    ("decrby", Exact),
    ("del", Exact),
    ("discard", State(Form::Exact)),
    ("dump", NotCompared),
    ("echo", Echo),
    ("eval", Refused(SCRIPT)),
    ("eval_ro", Refused(SCRIPT)),
    ("evalsha", Refused(SCRIPT)),
    ("evalsha_ro", Refused(SCRIPT)),
    ("exec", State(Form::Transaction)),
    ("exists", Exact),
    ("expire", Refused(EXPIRY)),
    ("expireat", Refused(EXPIRY)),
    ("expiretime", Exact),
    ("failover", Refused(REPLICATION)),
    ("fcall", Refused(SCRIPT)),
    ("fcall_ro", Refused(SCRIPT)),
    ("flushall", Exact),
    ("flushdb", Exact),
    ("function", Family(&Exact)),
    ("function|delete", Exact),
    ("function|dump", Exact),
    ("function|flush", Exact),
    ("function|help", Exact),
    ("function|kill", Refused(SCRIPT)),
    ("function|list", NotCompared),
    ("function|load", Refused(SCRIPT)),
    ("function|restore", Refused(SCRIPT)),
    ("function|stats", NotCompared),
    ("geoadd", Exact),
    ("geodist", Exact),
    ("geohash", Exact),
    ("geopos", Exact),
    ("georadius", Exact),
    ("georadius_ro", Exact),
    ("georadiusbymember", Exact),
    ("georadiusbymember_ro", Exact),
    ("geosearch", Exact),
    ("geosearchstore", Exact),
    ("get", Exact),
    ("getbit", Exact),
    ("getdel", Exact),
    ("getex", GetEx),
    ("getrange", Exact),
    ("getset", Exact),
    ("hdel", Exact),
    ("hello", Hello),
    ("hexists", Exact),
    ("hexpire", Refused(EXPIRY)),
    ("hexpireat", Refused(EXPIRY)),
    ("hexpiretime", Exact),
    ("hget", Exact),
    ("hgetall", Pairs),
    ("hincrby", Exact),
    ("hincrbyfloat", Exact),
    ("hkeys", Sorted),
    ("hlen", Exact),
    ("hmget", Exact),
    ("hmset", Exact),
    ("hpersist", Exact),
    ("hpexpire", Refused(EXPIRY)),
    ("hpexpireat", Refused(EXPIRY)),
    ("hpexpiretime", Exact),
    ("hpttl", Exact),
    ("hrandfield", Refused(RANDOM)),
    ("hscan", Refused(CURSOR)),
    ("hset", Exact),
    ("hsetnx", Exact),
    ("hstrlen", Exact),
    ("httl", Exact),
    ("hvals", Sorted),
    ("incr", Exact),
    ("incrby", Exact),
    ("incrbyfloat", Exact),
    ("info", NotCompared),
    ("keys", Sorted),
    ("lastsave", NotCompared),
    ("latency", Family(&Exact)),
    ("latency|doctor", NotCompared),
    ("latency|graph", NotCompared),
    ("latency|help", Exact),
    ("latency|histogram", NotCompared),
    ("latency|history", NotCompared),
    ("latency|latest", NotCompared),
    ("latency|reset", NotCompared),
    ("lcs", Exact),
    ("lindex", Exact),
    ("linsert", Exact),
    ("llen", Exact),
    ("lmove", Exact),
    ("lmpop", Exact),
    ("lolwut", NotCompared),
    ("lpop", Exact),
    ("lpos", Exact),
    ("lpush", Exact),
    ("lpushx", Exact),
    ("lrange", Exact),
    ("lrem", Exact),
    ("lset", Exact),
    ("ltrim", Exact),
    ("memory", Family(&Exact)),
    ("memory|doctor", NotCompared),
    ("memory|help", Exact),
    ("memory|malloc-stats", NotCompared),
    ("memory|purge", NotCompared),
    ("memory|stats", NotCompared),
    ("memory|usage", NotCompared),
    ("mget", Exact),
    ("migrate", Refused(OTHER_SERVERS)),
    ("module", Family(&Exact)),
    ("module|help", Exact),
    ("module|list", NotCompared),
    ("module|load", Refused(ONE_SERVER)),
    ("module|loadex", Refused(ONE_SERVER)),
    ("module|unload", Refused(ONE_SERVER)),
    ("monitor", Refused(STREAMS_ALL)),
    ("move", Exact),
    ("mset", Exact),
    ("msetnx", Exact),
    ("multi", State(Form::Exact)),
    ("object", Family(&Exact)),
    ("object|encoding", NotCompared),
    ("object|freq", NotCompared),
    ("object|help", Exact),
    ("object|idletime", NotCompared),
    ("object|refcount", NotCompared),
    ("persist", Exact),
    ("pexpire", Refused(EXPIRY)),
    ("pexpireat", Refused(EXPIRY)),
    ("pexpiretime", Exact),
    ("pfadd", Exact),
    ("pfcount", Exact),
    ("pfdebug", Refused(DEBUG)),
    ("pfmerge", Exact),
    ("pfselftest", Refused(RANDOM)),
    ("ping", Ping),
    ("psetex", Refused(EXPIRY)),
    ("psubscribe", Refused(PUB_SUB)),
    ("psync", Refused(REPLICATION)),
    ("pttl", Exact),
    ("publish", Refused(PUB_SUB)),
    ("pubsub", Family(&Exact)),
    ("pubsub|channels", Refused(PUB_SUB)),
    ("pubsub|help", Refused(PUB_SUB)),
    ("pubsub|numpat", Refused(PUB_SUB)),
    ("pubsub|numsub", Refused(PUB_SUB)),
    ("pubsub|shardchannels", Refused(PUB_SUB)),
    ("pubsub|shardnumsub", Refused(PUB_SUB)),
    ("punsubscribe", Refused(PUB_SUB)),
    ("quit", Quit),
    ("randomkey", Refused(RANDOM)),
    ("readonly", Refused(CLUSTER)),
    ("readwrite", Refused(CLUSTER)),
    ("rename", Exact),
    ("renamenx", Exact),
    ("replconf", Refused(REPLICATION)),
    ("replicaof", Refused(REPLICATION)),
    ("reset", Shared(0, b"+RESET\r\n")),
    ("restore", Restore),
    ("restore-asking", Refused(CLUSTER)),
    ("role", NotCompared),
    ("rpop", Exact),
    ("rpoplpush", Exact),
    ("rpush", Exact),
    ("rpushx", Exact),
    ("sadd", Exact),
    ("save", Refused(STORAGE)),
    ("scan", Refused(CURSOR)),
    ("scard", Exact),
    ("script", Family(&Exact)),
    ("script|debug", Refused(SCRIPT)),
    ("script|exists", Exact),
    ("script|flush", Exact),
    ("script|help", Exact),
    ("script|kill", Refused(SCRIPT)),
    ("script|load", Refused(SCRIPT)),
    ("sdiff", Sorted),
    ("sdiffstore", Exact),
    ("select", Select),
    ("set", Set),
    ("setbit", Exact),
    ("setex", Refused(EXPIRY)),
    ("setnx", Exact),
    ("setrange", Exact),
    ("shutdown", Refused(ENDS)),
    ("sinter", Sorted),
    ("sintercard", Exact),
    ("sinterstore", Exact),
    ("sismember", Exact),
    ("slaveof", Refused(REPLICATION)),
    ("slowlog", Family(&Exact)),
    ("slowlog|get", NotCompared),
    ("slowlog|help", Exact),
    ("slowlog|len", NotCompared),
    ("slowlog|reset", NotCompared),
    ("smembers", Sorted),
    ("smismember", Exact),
    ("smove", Exact),
    ("sort", Sort),
    ("sort_ro", Sort),
    ("spop", Refused(RANDOM)),
    ("spublish", Refused(PUB_SUB)),
    ("srandmember", Refused(RANDOM)),
    ("srem", Exact),
    ("sscan", Refused(CURSOR)),
    ("ssubscribe", Refused(PUB_SUB)),
    ("strlen", Exact),
    ("subscribe", Refused(PUB_SUB)),
    ("substr", Exact),
    ("sunion", Sorted),
    ("sunionstore", Exact),
    ("sunsubscribe", Refused(PUB_SUB)),
    ("swapdb", Exact),
    ("sync", Refused(REPLICATION)),
    ("time", NotCompared),
    ("touch", Exact),
    ("ttl", Exact),
    ("type", Exact),
    ("unlink", Exact),
    ("unsubscribe", Refused(PUB_SUB)),
    ("unwatch", State(Form::Exact)),
    ("wait", Refused(BLOCKS)),
    ("waitaof", Refused(BLOCKS)),
    ("watch", State(Form::Exact)),
    ("xack", Exact),
    ("xadd", XAdd),
    ("xautoclaim", XClaim),
    ("xclaim", XClaim),
    ("xdel", Exact),
    ("xgroup", Family(&Exact)),
    ("xgroup|create", Exact),
    ("xgroup|createconsumer", Exact),
    ("xgroup|delconsumer", Exact),
    ("xgroup|destroy", Exact),
    ("xgroup|help", Exact),
    ("xgroup|setid", Exact),
    ("xinfo", Family(&Exact)),
    ("xinfo|consumers", NotCompared),
    ("xinfo|groups", Exact),
    ("xinfo|help", Exact),
    ("xinfo|stream", NotCompared),
    ("xlen", Exact),
    ("xpending", NotCompared),
    ("xrange", Exact),
    ("xread", XRead),
    ("xreadgroup", XRead),
    ("xrevrange", Exact),
    ("xsetid", Exact),
    ("xtrim", Exact),
    ("zadd", Exact),
    ("zcard", Exact),
    ("zcount", Exact),
    ("zdiff", Exact),
    ("zdiffstore", Exact),
    ("zincrby", Exact),
    ("zinter", Exact),
    ("zintercard", Exact),
    ("zinterstore", Exact),
    ("zlexcount", Exact),
    ("zmpop", Exact),
    ("zmscore", Exact),
    ("zpopmax", Exact),
    ("zpopmin", Exact),
    ("zrandmember", Refused(RANDOM)),
    ("zrange", Exact),
    ("zrangebylex", Exact),
    ("zrangebyscore", Exact),
    ("zrangestore", Exact),
    ("zrank", Exact),
    ("zrem", Exact),
    ("zremrangebylex", Exact),
    ("zremrangebyrank", Exact),
    ("zremrangebyscore", Exact),
    ("zrevrange", Exact),
    ("zrevrangebylex", Exact),
    ("zrevrangebyscore", Exact),
    ("zrevrank", Exact),
    ("zscan", Refused(CURSOR)),
    ("zscore", Exact),
    ("zunion", Exact),
    ("zunionstore", Exact),
];

/// The table's entry of a command, however its letters are cased: its name there, and what is done.
pub(super) fn command(name: &[u8]) -> Option<(&'static str, Rule)> {
    find(name.iter().copied())
}

/// The table's entry of a subcommand.
pub(super) fn subcommand(name: &[u8], subcommand: &[u8]) -> Option<(&'static str, Rule)> {
    find(name.iter().copied().chain([b'|']).chain(subcommand.iter().copied()))
}

/// Bytes of a name in the table, at most.
const NAME_BYTES: usize = 32;

/// The entry of that name.
fn find(name: impl Iterator<Item = u8>) -> Option<(&'static str, Rule)> {
    let (mut lower, mut length) = ([0; NAME_BYTES], 0);
    for byte in name {
        // A longer one is not there.
        *lower.get_mut(length)? = byte.to_ascii_lowercase();
        length += 1;
    }
    let name = &lower[..length];
    COMMANDS.binary_search_by(|(entry, _)| entry.as_bytes().cmp(name)).ok().map(|at| COMMANDS[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `COMMAND LIST` of Redis 7.0.15 names.
    const REDIS_7_0: &str = "\
        acl acl|cat acl|deluser acl|dryrun acl|genpass acl|getuser acl|help acl|list acl|load acl|log \
        acl|save acl|setuser acl|users acl|whoami append asking auth bgrewriteaof bgsave bitcount bitfield \
        bitfield_ro bitop bitpos blmove blmpop blpop brpop brpoplpush bzmpop bzpopmax bzpopmin client \
        client|caching client|getname client|getredir client|help client|id client|info client|kill \
        client|list client|no-evict client|pause client|reply client|setname client|tracking \
        client|trackinginfo client|unblock client|unpause cluster cluster|addslots cluster|addslotsrange \
        cluster|bumpepoch cluster|count-failure-reports cluster|countkeysinslot cluster|delslots \
        cluster|delslotsrange cluster|failover cluster|flushslots cluster|forget cluster|getkeysinslot \
        cluster|help cluster|info cluster|keyslot cluster|links cluster|meet cluster|myid cluster|nodes \
        cluster|replicas cluster|replicate cluster|reset cluster|saveconfig cluster|set-config-epoch \
        cluster|setslot cluster|shards cluster|slaves cluster|slots command command|count command|docs \
        command|getkeys command|getkeysandflags command|help command|info command|list config config|get \
        config|help config|resetstat config|rewrite config|set copy dbsize debug decr decrby del discard \
        dump echo eval eval_ro evalsha evalsha_ro exec exists expire expireat expiretime failover fcall \
        fcall_ro flushall flushdb function function|delete function|dump function|flush function|help \
        function|kill function|list function|load function|restore function|stats geoadd geodist geohash \
        geopos georadius georadius_ro georadiusbymember georadiusbymember_ro geosearch geosearchstore get \
        getbit getdel getex getrange getset hdel hello hexists hget hgetall hincrby hincrbyfloat hkeys hlen \
        hmget hmset hrandfield hscan hset hsetnx hstrlen hvals incr incrby incrbyfloat info keys lastsave \
        latency latency|doctor latency|graph latency|help latency|histogram latency|history latency|latest \
        latency|reset lcs lindex linsert llen lmove lmpop lolwut lpop lpos lpush lpushx lrange lrem lset \
        ltrim memory memory|doctor memory|help memory|malloc-stats memory|purge memory|stats memory|usage \
        mget migrate module module|help module|list module|load module|loadex module|unload monitor move \
        mset msetnx multi object object|encoding object|freq object|help object|idletime object|refcount \
        persist pexpire pexpireat pexpiretime pfadd pfcount pfdebug pfmerge pfselftest ping psetex \
        psubscribe psync pttl publish pubsub pubsub|channels pubsub|help pubsub|numpat pubsub|numsub \
        pubsub|shardchannels pubsub|shardnumsub punsubscribe quit randomkey readonly readwrite rename \
        renamenx replconf replicaof reset restore restore-asking role rpop rpoplpush rpush rpushx sadd save \
        scan scard script script|debug script|exists script|flush script|help script|kill script|load sdiff \
        sdiffstore select set setbit setex setnx setrange shutdown sinter sintercard sinterstore sismember \
        slaveof slowlog slowlog|get slowlog|help slowlog|len slowlog|reset smembers smismember smove sort \
        sort_ro spop spublish srandmember srem sscan ssubscribe strlen subscribe substr sunion sunionstore \
        sunsubscribe swapdb sync time touch ttl type unlink unsubscribe unwatch wait watch xack xadd \
        xautoclaim xclaim xdel xgroup xgroup|create xgroup|createconsumer xgroup|delconsumer xgroup|destroy \
        xgroup|help xgroup|setid xinfo xinfo|consumers xinfo|groups xinfo|help xinfo|stream xlen xpending \
        xrange xread xreadgroup xrevrange xsetid xtrim zadd zcard zcount zdiff zdiffstore zincrby zinter \
        zintercard zinterstore zlexcount zmpop zmscore zpopmax zpopmin zrandmember zrange zrangebylex \
        zrangebyscore zrangestore zrank zrem zremrangebylex zremrangebyrank zremrangebyscore zrevrange \
        zrevrangebylex zrevrangebyscore zrevrank zscan zscore zunion zunionstore";

    #[test]
    fn every_command_of_redis_is_in_the_table() {
        assert_eq!(REDIS_7_0.split_whitespace().count(), 366);
        for name in REDIS_7_0.split_whitespace() {
            assert_eq!(command(name.as_bytes()).map(|(found, _)| found), Some(name));
            assert!(command(name.to_ascii_uppercase().as_bytes()).is_some(), "{name} in capitals");
        }
    }

    #[test]
    fn the_table_is_sorted_and_in_lower_case() {
        for pair in COMMANDS.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} before {}", pair[0].0, pair[1].0);
        }
        assert!(COMMANDS.iter().all(|(name, _)| !name.bytes().any(|byte| byte.is_ascii_uppercase())));
        assert!(COMMANDS.iter().all(|(name, _)| name.len() <= NAME_BYTES));
    }

    #[test]
    fn every_family_has_subcommands_and_every_subcommand_a_family() {
        for (name, rule) in COMMANDS {
            match name.split_once('|') {
                Some((family, _)) => assert!(matches!(command(family.as_bytes()), Some((_, Family(_)))), "{name}"),
                None if matches!(rule, Family(_)) => {
                    assert!(COMMANDS.iter().any(|(other, _)| other.starts_with(&format!("{name}|"))), "{name}");
                }
                None => {}
            }
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_not_found() {
        for name in [&b""[..], b"GE", b"GETT", b"post", b"host:", b"\xff", b"client|"] {
            assert_eq!(command(name), None, "{name:?}");
        }
        assert_eq!(subcommand(b"CLIENT", b"Kill").map(|(name, _)| name), Some("client|kill"));
        assert_eq!(subcommand(b"CLIENT", b"fly"), None);
    }
}
