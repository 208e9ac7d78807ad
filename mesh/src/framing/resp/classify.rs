//! What is done with one request: the table of commands applied to it, with a look at its arguments where they matter.
//!
//! Options are read exactly as Redis reads them, so that an argument cannot be taken for an option, or hide one. What
//! Redis itself would answer with an error is ordered: the error is the same on each replica.

use super::args::Args;
use super::commands::{self, Form, Rule};
use super::connection;
use crate::framing::Connections;
use bytes::Bytes;
use std::borrow::Cow;

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Order it; compare its replies so.
    Order(Form),
    /// Answer it here.
    Local(Bytes),
    /// Answer it here, then close.
    LocalThenClose(Bytes),
    /// Refuse it with this error.
    Refuse(Bytes),
}

/// What is done with `request`, which the scanner found whole.
pub(super) fn classify(connections: Connections, request: &[u8]) -> Verdict {
    match find(request) {
        Found::Known(name, rule, args) => apply(connections, name, rule, args),
        Found::Unknown(words) => unknown(&words),
        // Nothing but blanks, or an empty array: Redis says nothing.
        Found::Nothing => Verdict::Local(Bytes::new()),
    }
}

/// The name of the command in the table, and the arguments after it.
pub(super) fn name(request: &[u8]) -> Option<(&'static str, Args<'_>)> {
    match find(request) {
        Found::Known(name, _, args) => Some((name, args)),
        Found::Unknown(_) | Found::Nothing => None,
    }
}

/// Whether a transaction is open on a connection behind `request`, if one was `open` before.
pub(in crate::framing) fn in_transaction(open: bool, request: &[u8]) -> bool {
    match name(request).map(|(name, _)| name) {
        Some("multi") => true,
        Some("exec" | "discard" | "reset") => false,
        _ => open,
    }
}

/// What the table has for a request.
enum Found<'a> {
    Known(&'static str, Rule, Args<'a>),
    /// These words are no command.
    Unknown(Vec<Cow<'a, [u8]>>),
    Nothing,
}

fn find(request: &[u8]) -> Found<'_> {
    let mut args = Args::of(request);
    let Some(first) = args.next() else { return Found::Nothing };
    // A separator of the table's must not reach a subcommand past its family.
    let known = if first.contains(&b'|') { None } else { commands::command(&first) };
    let Some((name, rule)) = known else { return Found::Unknown(vec![first]) };
    let Rule::Family(bare) = rule else { return Found::Known(name, rule, args) };
    match args.next() {
        None => Found::Known(name, *bare, args),
        Some(second) => match commands::subcommand(&first, &second) {
            Some((name, rule)) => Found::Known(name, rule, args),
            None => Found::Unknown(vec![first, second]),
        },
    }
}

/// A rule applied to the arguments after the command's name.
fn apply(connections: Connections, name: &str, rule: Rule, args: Args<'_>) -> Verdict {
    let own = connections == Connections::PerSession;
    let exact_unless = |reason: Option<&str>| match reason {
        Some(reason) => refuse(name, reason),
        None => Verdict::Order(Form::Exact),
    };
    match rule {
        Rule::Exact => Verdict::Order(Form::Exact),
        Rule::Sorted => Verdict::Order(Form::Sorted),
        Rule::Pairs => Verdict::Order(Form::Pairs),
        Rule::NotCompared => Verdict::Order(Form::NotCompared),
        Rule::Refused(reason) => refuse(name, reason),
        Rule::State(form) if own => Verdict::Order(form),
        Rule::State(_) => refuse(name, commands::STATE),
        // The table has no family within a family.
        Rule::Family(_) => Verdict::Order(Form::Exact),
        Rule::Here(reply) => Verdict::Local(Bytes::from_static(reply)),
        Rule::Quit => Verdict::LocalThenClose(Bytes::from_static(b"+OK\r\n")),
        Rule::Shared(count, reply) if !own && args.len() == count => Verdict::Local(Bytes::from_static(reply)),
        Rule::Shared(..) => Verdict::Order(Form::Exact),
        // Within a transaction, which only a connection of its own can have, these are queued.
        Rule::Ping | Rule::Echo if own => Verdict::Order(Form::Exact),
        Rule::Ping if args.len() == 0 => Verdict::Local(Bytes::from_static(b"+PONG\r\n")),
        Rule::Ping | Rule::Echo => echo(args),
        Rule::Hello if own && connection::Hello::of(args.clone()).is_err() => refuse(name, commands::HELLO),
        Rule::Hello if own => Verdict::Order(Form::NotCompared),
        Rule::Hello => hello(name, args),
        Rule::Select if own => Verdict::Order(Form::Exact),
        Rule::Select => select(name, args),
        Rule::Set => exact_unless(expires(args, 2)),
        Rule::GetEx => exact_unless(expires(args, 1)),
        Rule::Restore => exact_unless(restore(args)),
        Rule::Sort => sort(name, args),
        Rule::XAdd => exact_unless(xadd(args)),
        Rule::XRead => exact_unless(xread(args)),
        Rule::XClaim => exact_unless(xclaim(args)),
    }
}

/// `-LOCKSTEP 'NAME' is refused: reason`.
fn refuse(name: &str, reason: &str) -> Verdict {
    let name = name.to_ascii_uppercase().replace('|', " ");
    Verdict::Refuse(super::refusal(&format!("'{name}' is refused: {reason}")))
}

/// A command that is not in the table; its name as far as it can be shown.
fn unknown(words: &[Cow<'_, [u8]>]) -> Verdict {
    let shown = |word: &[u8]| -> String {
        let letters = word.iter().take(64);
        letters.map(|&byte| if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '?' }).collect()
    };
    let name = words.iter().map(|word| shown(word)).collect::<Vec<_>>().join(" ");
    Verdict::Refuse(super::refusal(&format!("'{name}' is refused: it is no command of Redis 7 that Lockstep knows")))
}

/// The one argument as a bulk string.
fn echo(mut args: Args<'_>) -> Verdict {
    match (args.len(), args.next()) {
        (1, Some(text)) => {
            let mut reply = format!("${}\r\n", text.len()).into_bytes();
            reply.extend_from_slice(&text);
            reply.extend_from_slice(b"\r\n");
            Verdict::Local(reply.into())
        }
        _ => Verdict::Order(Form::Exact),
    }
}

/// `HELLO [2 [SETNAME name]]`: shared connections speak RESP2.
fn hello(name: &str, mut args: Args<'_>) -> Verdict {
    const TOLD: &[u8] = b"*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$5\r\nproto\r\n:2\r\n$2\r\nid\r\n:1\r\n\
        $4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n";
    const NO_VERSION: &[u8] = b"-ERR Protocol version is not an integer or out of range\r\n";
    let told = Verdict::Local(Bytes::from_static(TOLD));
    let Some(version) = args.next() else {
        return told;
    };
    match super::header::parse(&version) {
        Some(2) => {}
        Some(_) => return Verdict::Refuse(Bytes::from_static(b"-NOPROTO unsupported protocol version\r\n")),
        None => return Verdict::Refuse(Bytes::from_static(NO_VERSION)),
    }
    while let Some(option) = args.next() {
        match (option.eq_ignore_ascii_case(b"SETNAME"), args.next()) {
            (true, Some(_)) => {}
            _ => return refuse(name, commands::STATE),
        }
    }
    told
}

/// `SELECT 0`, where everybody is already.
fn select(name: &str, mut args: Args<'_>) -> Verdict {
    match (args.len(), args.next()) {
        (1, Some(database)) if *database == *b"0" => Verdict::Local(Bytes::from_static(b"+OK\r\n")),
        (1, _) => refuse(name, commands::DATABASE),
        _ => Verdict::Order(Form::Exact),
    }
}

/// Whether an option after the first `skip` arguments sets an expiry. The operands of all options are numbers.
fn expires(args: Args<'_>, skip: usize) -> Option<&'static str> {
    let expiry = |option: &[u8]| [&b"EX"[..], b"PX", b"EXAT", b"PXAT"].iter().any(|ex| option.eq_ignore_ascii_case(ex));
    args.skip(skip).any(|option| expiry(&option)).then_some(commands::EXPIRY)
}

/// `RESTORE key ttl payload …`: without a ttl, and not of a hash whose fields have one (types 22 to 25 of an RDB).
fn restore(mut args: Args<'_>) -> Option<&'static str> {
    let ttl = args.nth(1)?;
    let fields_expire = args.next()?.first().is_some_and(|kind| (22..=25).contains(kind));
    (*ttl != *b"0" || fields_expire).then_some(commands::EXPIRY)
}

/// `SORT key …`. The elements of a set come in hash order unless they are sorted by what has no ties: Redis breaks ties
/// of numbers by the element itself, not those of ALPHA with BY. With STORE it sorts sets even when BY names no pattern.
fn sort(name: &str, args: Args<'_>) -> Verdict {
    let mut args = args.skip(1);
    let (mut alpha, mut by, mut unsorted, mut limit, mut store) = (false, false, false, false, false);
    while let Some(option) = args.next() {
        let is = |text: &[u8]| option.eq_ignore_ascii_case(text);
        if is(b"ALPHA") {
            alpha = true;
        } else if is(b"LIMIT") {
            limit = true;
            args.nth(1);
        } else if is(b"STORE") {
            store = true;
            args.next();
        } else if is(b"BY") {
            by = true;
            unsorted |= args.next().is_some_and(|pattern| !pattern.contains(&b'*'));
        } else if is(b"GET") {
            args.next();
        }
    }
    match (store, unsorted || (alpha && by)) {
        (true, true) if !unsorted => refuse(name, commands::TIES),
        (true, _) | (_, false) => Verdict::Order(Form::Exact),
        (false, true) if limit => Verdict::Order(Form::NotCompared),
        (false, true) => Verdict::Order(Form::Sorted),
    }
}

/// `XADD key [NOMKSTREAM] [MAXLEN|MINID [=|~] threshold [LIMIT count]] *|id …`.
fn xadd(args: Args<'_>) -> Option<&'static str> {
    let mut args = args.skip(1);
    while let Some(word) = args.next() {
        if *word == *b"*" {
            return Some(commands::CLOCK_ID);
        } else if word.eq_ignore_ascii_case(b"MAXLEN") || word.eq_ignore_ascii_case(b"MINID") {
            if args.next().is_some_and(|next| matches!(*next, [b'~' | b'='])) {
                args.next();
            }
        } else if word.eq_ignore_ascii_case(b"LIMIT") {
            args.next();
        } else if !word.eq_ignore_ascii_case(b"NOMKSTREAM") {
            return None; // the id
        }
    }
    None
}

/// `XREAD` and `XREADGROUP`: the options up to `STREAMS`.
fn xread(mut args: Args<'_>) -> Option<&'static str> {
    while let Some(option) = args.next() {
        let is = |text: &[u8]| option.eq_ignore_ascii_case(text);
        if is(b"BLOCK") {
            return Some(commands::BLOCKS);
        } else if is(b"COUNT") {
            args.next();
        } else if is(b"GROUP") {
            args.nth(1);
        } else if !is(b"NOACK") {
            return None;
        }
    }
    None
}

/// `XCLAIM` and `XAUTOCLAIM key group consumer min-idle-time …`.
fn xclaim(mut args: Args<'_>) -> Option<&'static str> {
    args.nth(3).is_some_and(|idle| *idle != *b"0").then_some(commands::IDLE)
}

#[cfg(test)]
mod tests {
    use super::Connections::{PerRequest, PerSession, Shared};
    use super::*;

    fn of(connections: Connections, line: &str) -> Verdict {
        classify(connections, format!("{line}\r\n").as_bytes())
    }

    #[track_caller]
    fn refused(line: &str, reason: &str) {
        for connections in [Shared, PerRequest, PerSession] {
            refused_with(connections, line, reason);
        }
    }

    #[track_caller]
    fn refused_with(connections: Connections, line: &str, reason: &str) {
        let Verdict::Refuse(error) = of(connections, line) else {
            panic!("{line} is not refused");
        };
        let error = String::from_utf8_lossy(&error).into_owned();
        assert!(error.starts_with("-LOCKSTEP '") && error.ends_with(&format!("' is refused: {reason}\r\n")), "{error}");
    }

    #[track_caller]
    fn ordered(line: &str, form: Form) {
        for connections in [Shared, PerRequest, PerSession] {
            assert_eq!(of(connections, line), Verdict::Order(form), "{line} with {connections}");
        }
    }

    #[track_caller]
    fn local(connections: Connections, line: &str, reply: &str) {
        assert_eq!(of(connections, line), Verdict::Local(Bytes::from(reply.to_owned())), "{line}");
    }

    #[test]
    fn a_refusal_names_the_command_and_the_reason() {
        let error = "-LOCKSTEP 'BLPOP' is refused: it blocks until another client acts; ask again instead\r\n";
        assert_eq!(of(Shared, "bLpOp k 0"), Verdict::Refuse(error.into()));
        let error =
            "-LOCKSTEP 'CLIENT KILL' is refused: it acts on other connections, and those are Lockstep's own\r\n";
        assert_eq!(of(PerSession, "client kill x"), Verdict::Refuse(error.into()));
    }

    #[test]
    fn unknown_commands_are_refused_and_their_names_are_shown_harmlessly() {
        let error = |name: &str| {
            Verdict::Refuse(super::super::refusal(&format!(
                "'{name}' is refused: it is no command of Redis 7 that Lockstep knows"
            )))
        };
        assert_eq!(of(Shared, "post / HTTP/1.1"), error("post"));
        assert_eq!(of(Shared, "client fly"), error("client fly"));
        assert_eq!(of(Shared, "client|kill x"), error("client|kill"));
        assert_eq!(of(Shared, "\"a\\r\\nb\\xff\""), error("a??b?"));
        assert_eq!(of(Shared, &"x".repeat(100)), error(&"x".repeat(64)));
        assert_eq!(of(Shared, "\"\""), error(""));
    }

    #[test]
    fn commands_are_ordered_with_the_form_of_their_replies() {
        ordered("get k", Form::Exact);
        ordered("SMEMBERS k", Form::Sorted);
        ordered("HGETALL k", Form::Pairs);
        ordered("INFO", Form::NotCompared);
        ordered("OBJECT ENCODING k", Form::NotCompared);
        ordered("xgroup create k g 0", Form::Exact);
        ordered("XGROUP", Form::Exact);
    }

    #[test]
    fn the_state_of_a_connection_needs_a_connection_of_its_own() {
        for line in ["MULTI", "DISCARD", "WATCH k", "UNWATCH", "AUTH p"] {
            refused_with(Shared, line, commands::STATE);
            refused_with(PerRequest, line, commands::STATE);
            assert_eq!(of(PerSession, line), Verdict::Order(Form::Exact), "{line}");
        }
        assert_eq!(of(PerSession, "EXEC"), Verdict::Order(Form::Transaction));
        refused_with(Shared, "EXEC", commands::STATE);
        local(Shared, "SELECT 0", "+OK\r\n");
        refused_with(Shared, "SELECT 1", commands::DATABASE);
        assert_eq!(of(PerSession, "SELECT 1"), Verdict::Order(Form::Exact));
    }

    #[test]
    fn the_ingress_answers_what_touches_no_state() {
        for connections in [Shared, PerRequest] {
            local(connections, "PING", "+PONG\r\n");
            local(connections, "PING \"a b\"", "$3\r\na b\r\n");
            local(connections, "ECHO \"\"", "$0\r\n\r\n");
            local(connections, "CLIENT SETNAME me", "+OK\r\n");
            local(connections, "CLIENT GETNAME", "$-1\r\n");
            local(connections, "RESET", "+RESET\r\n");
        }
        for connections in [Shared, PerRequest, PerSession] {
            local(connections, "COMMAND", "*0\r\n");
            local(connections, "COMMAND DOCS get", "*0\r\n");
            local(connections, "CLIENT ID", ":1\r\n");
            local(connections, "CLIENT SETINFO LIB-NAME x", "+OK\r\n");
            local(connections, "", "");
            assert_eq!(classify(connections, b"*0\r\n"), Verdict::Local(Bytes::new()));
            assert_eq!(of(connections, "QUIT"), Verdict::LocalThenClose(Bytes::from_static(b"+OK\r\n")));
        }
    }

    #[test]
    fn what_a_transaction_would_queue_is_not_answered_at_the_ingress() {
        for line in ["PING", "ECHO a", "CLIENT SETNAME me", "CLIENT GETNAME", "RESET"] {
            assert_eq!(of(PerSession, line), Verdict::Order(Form::Exact), "{line}");
        }
    }

    #[test]
    fn wrong_numbers_of_arguments_are_left_to_the_application() {
        for line in ["PING a b", "ECHO", "ECHO a b", "SELECT", "CLIENT GETNAME x", "CLIENT", "RESTORE k", "XCLAIM k"] {
            ordered(line, Form::Exact);
        }
    }

    #[test]
    fn shared_connections_speak_resp2() {
        for line in ["HELLO", "HELLO 2", "hello 2 setname x"] {
            let Verdict::Local(reply) = of(Shared, line) else { panic!("{line} is not answered") };
            let mut scan = crate::framing::Scan::default();
            assert_eq!(super::super::next_reply(&mut scan, &reply, true, 1000), Ok(Some(reply.len())));
        }
        let no_proto = Verdict::Refuse(Bytes::from_static(b"-NOPROTO unsupported protocol version\r\n"));
        assert_eq!(of(Shared, "HELLO 3"), no_proto);
        assert!(matches!(of(Shared, "HELLO x"), Verdict::Refuse(error) if error.starts_with(b"-ERR Protocol version")));
        refused_with(Shared, "HELLO 2 AUTH u p", commands::STATE);
        assert_eq!(of(PerSession, "HELLO 3"), Verdict::Order(Form::NotCompared));
    }

    #[test]
    fn expiry_is_refused_wherever_it_is_asked_for() {
        for line in [
            "EXPIRE k 1",
            "PSETEX k 1 v",
            "SET k v EX 1",
            "set k v nx px 1",
            "SET k v GET EXAT 1",
            "GETEX k PXAT 1",
            "RESTORE k 1 x",
            "RESTORE k 0 \"\\x18\"",
            "HPEXPIRE k 1 FIELDS 1 f",
        ] {
            refused(line, commands::EXPIRY);
        }
        for line in
            ["SET EX EX", "SET k v KEEPTTL", "SET k EX NX GET", "GETEX k", "GETEX EX PERSIST", "RESTORE k 0 x REPLACE"]
        {
            ordered(line, Form::Exact);
        }
    }

    #[test]
    fn stream_ids_from_the_clock_are_refused() {
        for line in [
            "XADD k * f v",
            "XADD k NOMKSTREAM * f v",
            "XADD k MAXLEN 5 * f v",
            "XADD k maxlen ~ 5 limit 2 * f v",
            "XADD k MINID = 5-0 NOMKSTREAM * f v",
        ] {
            refused(line, commands::CLOCK_ID);
        }
        for line in ["XADD k 1-1 * *", "XADD * 5-* f *", "XADD k MAXLEN ~ 5 1-1 f *", "XADD k"] {
            ordered(line, Form::Exact);
        }
    }

    #[test]
    fn blocking_reads_of_streams_are_refused() {
        refused("XREAD BLOCK 0 STREAMS k $", commands::BLOCKS);
        refused("XREAD COUNT 1 block 0 STREAMS k $", commands::BLOCKS);
        refused("XREADGROUP GROUP STREAMS STREAMS NOACK BLOCK 0 STREAMS k >", commands::BLOCKS);
        ordered("XREAD COUNT 1 STREAMS BLOCK 0", Form::Exact);
        ordered("XREADGROUP GROUP BLOCK BLOCK STREAMS k >", Form::Exact);
    }

    #[test]
    fn claims_by_idle_time_are_refused() {
        refused("XCLAIM k g c 1 1-1", commands::IDLE);
        refused("XAUTOCLAIM k g c 60000 0", commands::IDLE);
        ordered("XCLAIM k g c 0 1-1", Form::Exact);
        ordered("XAUTOCLAIM k g c 0 0 COUNT 5", Form::Exact);
    }

    #[test]
    fn sorting_is_compared_as_far_as_it_is_determined() {
        ordered("SORT k", Form::Exact);
        ordered("SORT k ALPHA DESC LIMIT 0 5", Form::Exact);
        ordered("SORT k BY w_* GET # GET v_*", Form::Exact);
        ordered("SORT k BY nosort", Form::Sorted);
        ordered("SORT_RO k BY nosort GET x_*", Form::Sorted);
        ordered("SORT k BY w_* ALPHA", Form::Sorted);
        ordered("SORT k BY w_* ALPHA LIMIT 0 5", Form::NotCompared);
        ordered("SORT k BY nosort LIMIT 0 5", Form::NotCompared);
        ordered("SORT k BY nosort STORE d", Form::Exact);
        ordered("SORT ALPHA GET ALPHA BY w_*", Form::Exact);
        refused("SORT k ALPHA BY w_* STORE d", commands::TIES);
    }
}
