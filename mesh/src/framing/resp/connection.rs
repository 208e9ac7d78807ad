//! What requests do to the connection that they came over (rule 27): which of them a new connection must be told, and
//! what of that an error or a transaction undoes.
//!
//! Functions of requests and replies that all replicas agree on, so each comes to the same state.

use super::args::Args;
use super::classify::name;
use super::commands;
use super::form::aggregate;
use super::reply::values;
use crate::framing::state::{Aspect, ConnectionState};
use bytes::Bytes;
use std::borrow::Cow;
use std::net::SocketAddr;

const DISCARD: Bytes = Bytes::from_static(b"*1\r\n$7\r\nDISCARD\r\n");
/// No server has it, so that an open transaction is refused as with any other error.
const NO_ROOM: Bytes = Bytes::from_static(b"*1\r\n$16\r\nLOCKSTEP-NO-ROOM\r\n");
const NIL: Bytes = Bytes::from_static(b"*-1\r\n");
const NIL_3: Bytes = Bytes::from_static(b"_\r\n");

/// What to ask in place of `request`. See [`Adapter::instead`](crate::framing::Adapter::instead).
pub(in crate::framing) fn instead(state: &ConnectionState, request: &[u8], all: usize) -> Option<Bytes> {
    let (name, args) = name(request)?;
    match (name, state.queue.is_empty()) {
        // The application does not know that a watched key has changed: it was told to another one.
        ("exec", false) if state.void && !state.will_be_refused() && args.len() == 0 => Some(DISCARD),
        ("exec" | "discard" | "reset" | "unwatch", _) => None,
        (_, false) if state.doomed => None,
        (_, true) if name != "multi" && aspect(name).is_none() => None,
        _ => (!state.has_room(request.len(), all)).then_some(NO_ROOM),
    }
}

/// What `request` did. See [`Adapter::executed`](crate::framing::Adapter::executed).
pub(in crate::framing) fn executed(
    state: &mut ConnectionState,
    request: &[u8],
    instead: Option<&Bytes>,
    reply: Bytes,
) -> Bytes {
    let Some((name, _)) = name(request) else { return reply };
    let failed = is_error(&reply);
    if instead == Some(&NO_ROOM) {
        state.doom(&NO_ROOM);
        let name = name.to_ascii_uppercase().replace('|', " ");
        return super::refusal(&format!("'{name}' is refused: {}", commands::NO_ROOM));
    }
    if instead == Some(&DISCARD) && !failed {
        let nil = if speaks_resp3(state) { NIL_3 } else { NIL };
        state.end_transaction();
        return nil;
    }
    match (name, state.queue.is_empty()) {
        ("reset", _) if !failed => *state = ConnectionState::default(),
        ("exec", false) => exec(state, &reply),
        ("discard", false) if !failed => drop(state.end_transaction()),
        ("discard", false) => {}
        (_, false) => state.queue(request, failed),
        ("multi", true) if !failed => state.queue(request, false),
        ("unwatch", true) if !failed => state.unwatch(),
        (_, true) if !failed => take_effect(state, request),
        (_, true) => {}
    }
    reply
}

/// Whether a reply is an error.
pub(in crate::framing) fn is_error(reply: &[u8]) -> bool {
    matches!(reply.first(), Some(b'-' | b'!'))
}

/// The end of a transaction: what its requests did, as far as they ran and succeeded.
fn exec(state: &mut ConnectionState, reply: &[u8]) {
    // With any other error it is still open.
    if is_error(reply) && !reply.starts_with(b"-EXECABORT") {
        return;
    }
    let queue = state.end_transaction();
    let body = aggregate(reply).map_or(&b""[..], |(_, body)| body);
    for (queued, reply) in queue.iter().skip(1).zip(values(body)) {
        if !is_error(reply) {
            take_effect(state, &queued.request);
        }
    }
}

/// What an executed request of this name decides for its connection.
fn aspect(name: &str) -> Option<Aspect> {
    match name {
        "auth" | "hello" => Some(Aspect::User),
        "client|no-evict" => Some(Aspect::Eviction),
        "client|no-touch" => Some(Aspect::Touch),
        "client|setname" => Some(Aspect::Name),
        "select" => Some(Aspect::Database),
        "watch" => Some(Aspect::Watch),
        _ => None,
    }
}

/// A request that succeeded.
fn take_effect(state: &mut ConnectionState, request: &[u8]) {
    let Some((name, args)) = name(request) else { return };
    match aspect(name) {
        None => {}
        Some(_) if name == "hello" => {
            if let Ok(hello) = Hello::of(args) {
                hello.take_effect(state);
            }
        }
        // Within a transaction the application refuses it.
        Some(Aspect::Watch) if state.void => {}
        Some(aspect) => state.keep(aspect, request),
    }
}

fn speaks_resp3(state: &ConnectionState) -> bool {
    let version = state.kept.iter().rev().find(|kept| kept.aspect == Aspect::Protocol);
    version.is_some_and(|kept| Args::of(&kept.request).nth(1).as_deref() == Some(b"3"))
}

/// `HELLO [version [AUTH user password] [SETNAME name]]`. In this order, and with a good name, nothing of it is done if
/// the answer is an error.
pub(super) struct Hello<'a> {
    version: Option<Cow<'a, [u8]>>,
    auth: Option<[Cow<'a, [u8]>; 2]>,
    name: Option<Cow<'a, [u8]>>,
}

/// A `HELLO` that may do one part and answer with an error to another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ambiguous;

impl<'a> Hello<'a> {
    pub(super) fn of(mut args: Args<'a>) -> Result<Self, Ambiguous> {
        let mut hello = Self { version: args.next(), auth: None, name: None };
        while let Some(option) = args.next() {
            if option.eq_ignore_ascii_case(b"AUTH") && hello.auth.is_none() && hello.name.is_none() {
                hello.auth = Some([args.next().ok_or(Ambiguous)?, args.next().ok_or(Ambiguous)?]);
            } else if option.eq_ignore_ascii_case(b"SETNAME") && hello.name.is_none() {
                let name = args.next().ok_or(Ambiguous)?;
                if !name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
                    return Err(Ambiguous);
                }
                hello.name = Some(name);
            } else {
                return Err(Ambiguous);
            }
        }
        Ok(hello)
    }

    /// Each part by itself, so that a later request can take the place of one.
    fn take_effect(&self, state: &mut ConnectionState) {
        let Some(version) = &self.version else { return };
        if let Some([user, password]) = &self.auth {
            state.keep(Aspect::User, &array(&[b"AUTH", user, password]));
        }
        if let Some(name) = &self.name {
            // Who may say HELLO may not be allowed to say CLIENT SETNAME.
            state.keep(Aspect::Name, &array(&[b"HELLO", version, b"SETNAME", name]));
        }
        state.keep(Aspect::Protocol, &array(&[b"HELLO", version]));
    }
}

/// A request of these words.
fn array(words: &[&[u8]]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
    request
}

/// Asks for the flags of all connections.
pub(in crate::framing) fn watch_question() -> Bytes {
    Bytes::from_static(b"*2\r\n$6\r\nCLIENT\r\n$4\r\nLIST\r\n")
}

/// Whether the flags of the connection from `address` have the `d` of one whose watched keys have changed.
pub(in crate::framing) fn watch_answer(answer: &[u8], address: SocketAddr) -> Option<bool> {
    let answer = std::str::from_utf8(answer).ok().filter(|answer| answer.starts_with('$'))?;
    let of = |line: &str| line.split(' ').any(|field| field.strip_prefix("addr=") == Some(&address.to_string()));
    let mut fields = answer.lines().find(|line| of(line))?.split(' ');
    fields.find_map(|field| field.strip_prefix("flags=")).map(|flags| flags.contains('d'))
}

#[cfg(test)]
mod tests {
    use super::super::{handle, refusal};
    use super::*;
    use crate::framing::state::{STATE_BYTES, STATE_BYTES_EACH};
    use crate::framing::{Connections::PerSession, Handling};

    const OK: &str = "+OK\r\n";
    const QUEUED: &str = "+QUEUED\r\n";

    /// Executes a line on a connection, with this reply of the application's; the reply that counts.
    fn run(state: &mut ConnectionState, line: &str, reply: &str) -> String {
        let request = format!("{line}\r\n");
        assert_eq!(handle(PerSession, request.as_bytes()), Handling::Order, "{line}");
        let instead = instead(state, request.as_bytes(), state.bytes());
        let reply = executed(state, request.as_bytes(), instead.as_ref(), Bytes::from(reply.to_owned()));
        String::from_utf8(reply.to_vec()).expect("text")
    }

    fn after(lines: &[(&str, &str)]) -> ConnectionState {
        let mut state = ConnectionState::default();
        for (line, reply) in lines {
            assert_eq!(run(&mut state, line, reply), *reply, "{line}");
        }
        state
    }

    /// The words of what a new connection is asked; a `!` before those that must fail.
    fn replayed(state: &ConnectionState) -> Vec<String> {
        let words = |request| Args::of(request).map(|word| String::from_utf8_lossy(&word).into_owned());
        let line = |request| words(request).collect::<Vec<_>>().join(" ");
        let replayed = state.replayed();
        replayed
            .map(|replayed| format!("{}{}", if replayed.fails { "!" } else { "" }, line(replayed.request)))
            .collect()
    }

    #[track_caller]
    fn remembers(lines: &[(&str, &str)], expected: &[&str]) {
        let state = after(lines);
        assert_eq!(replayed(&state), expected);
        assert_eq!(state.is_empty(), expected.is_empty());
        assert_eq!(state.bytes() == 0, expected.is_empty());
    }

    #[test]
    fn every_command_that_changes_a_connection_is_kept_or_refused_or_answered_by_the_ingress() {
        let hello = "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n";
        for (line, reply, expected) in [
            ("SELECT 3", OK, &["SELECT 3"][..]),
            ("AUTH password", OK, &["AUTH password"]),
            ("auth user password", OK, &["auth user password"]),
            ("HELLO", hello, &[]),
            ("HELLO 3", hello, &["HELLO 3"]),
            ("HELLO 3 AUTH u p", hello, &["AUTH u p", "HELLO 3"]),
            ("HELLO 2 setname n", hello, &["HELLO 2 SETNAME n", "HELLO 2"]),
            ("HELLO 3 AUTH u p SETNAME n", hello, &["AUTH u p", "HELLO 3 SETNAME n", "HELLO 3"]),
            ("CLIENT SETNAME n", OK, &["CLIENT SETNAME n"]),
            ("CLIENT NO-EVICT on", OK, &["CLIENT NO-EVICT on"]),
            ("CLIENT NO-TOUCH on", OK, &["CLIENT NO-TOUCH on"]),
            ("WATCH a b", OK, &["WATCH a b"]),
            ("MULTI", OK, &["MULTI"]),
            ("UNWATCH", OK, &[]),
            ("RESET", "+RESET\r\n", &[]),
            ("EXEC", "-ERR EXEC without MULTI\r\n", &[]),
            ("DISCARD", "-ERR DISCARD without MULTI\r\n", &[]),
            ("SWAPDB 0 3", OK, &[]),
            ("CLIENT GETNAME", "$-1\r\n", &[]),
            ("ACL WHOAMI", "$7\r\ndefault\r\n", &[]),
        ] {
            remembers(&[(line, reply)], expected);
            remembers(&[(line, "-ERR no\r\n")], &[]);
        }
        let refused = "READONLY;READWRITE;ASKING;SUBSCRIBE c;PSUBSCRIBE c;SSUBSCRIBE c;UNSUBSCRIBE;PUNSUBSCRIBE;\
            SUNSUBSCRIBE;MONITOR;SYNC;PSYNC a 1;REPLCONF a b;CLIENT REPLY OFF;CLIENT TRACKING on;CLIENT CACHING yes;\
            SCRIPT DEBUG yes;DEBUG SLEEP 0;ACL SETUSER a;CONFIG SET a b;FAILOVER;CLIENT KILL ID 1;\
            HELLO 3 SETNAME n AUTH u p;HELLO 3 AUTH u p AUTH u p;HELLO 3 SETNAME \"a b\";HELLO 3 AUTH u;HELLO 3 X";
        for line in refused.split(';') {
            let handling = handle(PerSession, format!("{line}\r\n").as_bytes());
            assert!(matches!(handling, Handling::Refuse(_)), "{line}: {handling:?}");
        }
        for line in ["CLIENT SETINFO LIB-NAME x", "CLIENT ID", "QUIT"] {
            let handling = handle(PerSession, format!("{line}\r\n").as_bytes());
            assert!(matches!(handling, Handling::Local(_) | Handling::LocalThenClose(_)), "{line}: {handling:?}");
        }
    }

    #[test]
    fn a_later_request_takes_the_place_of_an_earlier_one_that_nothing_depends_on() {
        remembers(&[("SELECT 1", OK), ("CLIENT SETNAME a", OK), ("SELECT 2", OK)], &["CLIENT SETNAME a", "SELECT 2"]);
        remembers(&[("AUTH a", OK), ("AUTH b", OK)], &["AUTH b"]);
        // The second user may not be allowed to select, nor the first one whatever comes next.
        let users = [("AUTH a x", OK), ("SELECT 1", OK), ("AUTH b x", OK)];
        remembers(&users, &["AUTH a x", "SELECT 1", "AUTH b x"]);
        remembers(&[&users[..], &[("SELECT 2", OK)]].concat(), &["AUTH b x", "SELECT 2"]);
        // Keys are watched in the database that was chosen then.
        let watched = [("SELECT 1", OK), ("WATCH k", OK), ("WATCH k", OK), ("SELECT 2", OK), ("WATCH k", OK)];
        remembers(&watched, &["SELECT 1", "WATCH k", "SELECT 2", "WATCH k"]);
        remembers(&[&watched[..], &[("UNWATCH", OK)]].concat(), &["SELECT 2"]);
        remembers(&[("HELLO 3 SETNAME a", "%0\r\n"), ("HELLO 2", "*0\r\n")], &["HELLO 3 SETNAME a", "HELLO 2"]);
        remembers(&[("SELECT 1", OK), ("AUTH a", OK), ("MULTI", OK), ("RESET", "+RESET\r\n")], &[]);
    }

    #[test]
    fn an_open_transaction_is_kept_whole_and_what_it_does_to_the_connection_counts_when_it_ran() {
        let open = [("SELECT 1", OK), ("WATCH k", OK), ("MULTI", OK), ("SELECT 2", QUEUED), ("SELECT x", QUEUED)];
        let whole = ["SELECT 1", "WATCH k", "MULTI", "SELECT 2", "SELECT x"];
        remembers(&open, &whole);
        let then = |line, reply| [&open[..], &[(line, reply)]].concat();
        remembers(&then("EXEC", "*2\r\n+OK\r\n-ERR no\r\n"), &["SELECT 2"]);
        remembers(&then("EXEC", "*-1\r\n"), &["SELECT 1"]);
        remembers(&then("EXEC", "_\r\n"), &["SELECT 1"]);
        remembers(&then("EXEC", "-EXECABORT Transaction discarded\r\n"), &["SELECT 1"]);
        remembers(&then("EXEC", "-ERR no\r\n"), &whole);
        remembers(&then("DISCARD", OK), &["SELECT 1"]);
        remembers(&then("GET", "-ERR wrong number\r\n"), &[&whole[..], &["!GET"]].concat());
        remembers(&then("UNWATCH", QUEUED), &[&whole[..], &["UNWATCH"]].concat());
        remembers(&then("PING", QUEUED), &[&whole[..], &["PING"]].concat());
        remembers(&then("EXEC x", "-EXECABORT no\r\n"), &["SELECT 1"]);
    }

    #[test]
    fn a_transaction_whose_keys_changed_before_the_connection_was_made_runs_nothing() {
        for (hello, nil) in [("HELLO 2", "*-1\r\n"), ("HELLO 3", "_\r\n")] {
            let mut state = after(&[(hello, "*0\r\n"), ("WATCH k", OK), ("MULTI", OK), ("SET k 1", QUEUED)]);
            assert!(state.is_watching());
            state.set_void();
            assert!(!state.is_watching() && !state.is_empty());
            assert_eq!(replayed(&state), [hello, "MULTI", "SET k 1"]);
            assert_eq!(instead(&state, b"EXEC\r\n", 0), Some(DISCARD));
            assert_eq!(run(&mut state.clone(), "EXEC", "-ERR no\r\n"), "-ERR no\r\n", "still open");
            assert_eq!(run(&mut state, "EXEC", OK), nil);
            assert_eq!(instead(&state, b"EXEC\r\n", 0), None);
            assert_eq!(replayed(&state), [hello]);
        }
        // Whatever ends the watching ends that.
        for (line, reply) in [("UNWATCH", OK), ("RESET", "+RESET\r\n")] {
            let mut state = after(&[("WATCH k", OK)]);
            state.set_void();
            assert_eq!(run(&mut state, "WATCH other", OK), OK);
            assert!(!state.is_watching() && !state.is_empty());
            run(&mut state, line, reply);
            assert!(state.is_empty());
        }
        // A transaction that is refused anyway is refused.
        let mut state = after(&[("WATCH k", OK), ("MULTI", OK), ("GET", "-ERR wrong number\r\n")]);
        state.set_void();
        assert_eq!(instead(&state, b"EXEC\r\n", 0), None);
        // Without a watch there is nothing that could have changed.
        let mut state = after(&[("MULTI", OK)]);
        state.set_void();
        assert_eq!(instead(&state, b"EXEC\r\n", 0), None);
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_transaction_beyond_is_refused() {
        let set = format!("SET k {}", "x".repeat(STATE_BYTES_EACH / 4));
        let mut state = after(&[("MULTI", OK), (&set, QUEUED), (&set, QUEUED), (&set, QUEUED)]);
        let kept = state.bytes();
        assert!(kept > STATE_BYTES_EACH / 2 && kept < STATE_BYTES_EACH);
        let error = run(&mut state, &set, "-ERR unknown command\r\n");
        let refused = format!("'SET' is refused: {}", commands::NO_ROOM);
        assert_eq!(error.as_bytes(), refusal(&refused));
        assert_eq!(replayed(&state), ["MULTI", "!LOCKSTEP-NO-ROOM"]);
        assert!(state.bytes() < 1000);
        // It is refused already, so nothing more of it is kept.
        assert_eq!(run(&mut state, &set, QUEUED), QUEUED);
        assert!(state.bytes() < 1000);
        assert_eq!(run(&mut state, "EXEC", "-EXECABORT no\r\n"), "-EXECABORT no\r\n");
        assert!(state.is_empty());
    }

    #[test]
    fn where_there_is_no_room_nothing_is_kept_but_everything_else_runs() {
        let state = ConnectionState::default();
        for line in ["SELECT 1", "AUTH p", "HELLO 3", "CLIENT SETNAME n", "WATCH k", "MULTI"] {
            let request = format!("{line}\r\n");
            assert_eq!(instead(&state, request.as_bytes(), STATE_BYTES), Some(NO_ROOM), "{line}");
            assert_eq!(instead(&state, request.as_bytes(), STATE_BYTES / 2), None, "{line}");
        }
        for line in ["SET k v", "EXEC", "UNWATCH", "RESET", "DISCARD", "INFO"] {
            assert_eq!(instead(&state, format!("{line}\r\n").as_bytes(), STATE_BYTES), None, "{line}");
        }
        let open = after(&[("MULTI", OK)]);
        for line in ["EXEC", "RESET", "DISCARD"] {
            assert_eq!(instead(&open, format!("{line}\r\n").as_bytes(), STATE_BYTES), None, "{line}");
        }
        assert_eq!(instead(&open, b"GET k\r\n", STATE_BYTES), Some(NO_ROOM));
        let mut state = ConnectionState::default();
        let reply = executed(&mut state, b"SELECT 1\r\n", Some(&NO_ROOM), Bytes::from_static(b"-ERR unknown\r\n"));
        assert!(reply.starts_with(b"-LOCKSTEP 'SELECT' is refused: ") && state.is_empty());
    }

    #[test]
    fn the_flags_of_a_connection_tell_whether_what_it_watches_has_changed() {
        let answer = b"$9\r\nid=1 addr=127.0.0.1:1000 laddr=127.0.0.1:1 flags=N name=flags=d\nid=2 addr=127.0.0.1:100 \
            laddr=127.0.0.1:1 fd=8 name= flags=xd db=0\n\r\n";
        let told = |address: &str| watch_answer(answer, address.parse().expect("an address"));
        assert_eq!(told("127.0.0.1:100"), Some(true));
        assert_eq!(told("127.0.0.1:1000"), Some(false));
        assert_eq!(told("127.0.0.1:1"), None);
        assert_eq!(watch_answer(b"-NOPERM addr=127.0.0.1:1 flags=N\r\n", ([127, 0, 0, 1], 1).into()), None);
    }

    #[test]
    fn a_state_is_the_same_after_a_snapshot() {
        let state = after(&[("SELECT 1", OK), ("WATCH k", OK), ("MULTI", OK), ("GET", "-ERR wrong number\r\n")]);
        let bytes = crate::wire::encode(&state);
        assert_eq!(crate::wire::decode::<ConnectionState>(&bytes), Ok(state));
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = "02020a53454c45435420310d0a06095741544348206b0d0a02074d554c54490d0a00054745540d0a0100009f02";
        assert_eq!(hex, expected, "encoded otherwise: the version of snapshots has to change with it");
    }
}
