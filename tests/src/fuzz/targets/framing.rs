//! Framing adapters: where requests and replies end, in what form they are ordered and compared.

use crate::fuzz::{Bound, Seen, Target};
use bytes::Bytes;
use mesh::framing::{Adapter, ConnectionState, Connections, FramingError, Handling, Manner, Protocol, Scan};

const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"*2\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"$3\r\nfoo\r\n",
    b"%1\r\n",
    b"|1\r\n+a\r\n:1\r\n",
    b">2\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n",
    b"*1\r\n$5\r\nMULTI\r\n",
    b"*1\r\n$4\r\nEXEC\r\n",
    b"*2\r\n$5\r\nWATCH\r\n$1\r\na\r\n",
    b"*2\r\n$6\r\nSELECT\r\n$1\r\n1\r\n",
    b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n",
    b"*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$1\r\na\r\n",
    b"*1\r\n$7\r\nDISCARD\r\n",
    b"*1\r\n$5\r\nRESET\r\n",
    b"+QUEUED\r\n",
    b"+OK\r\n",
    b"-EXECABORT x\r\n",
    b"INFO\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.0",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked, chunked\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: x\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b" HTTP/1.1\r\n",
    b"\0\0\0\x04",
    b"\xff\xff\xff\xff",
];

const fn target(
    name: &'static str,
    about: &'static str,
    seeds: fn() -> Vec<Vec<u8>>,
    run: fn(&[u8], &mut Seen),
) -> Target {
    Target { name, about, seeds, words: WORDS, longest: 2048, bound: Bound { per_byte: 96, base: 256 << 10 }, run }
}

pub(super) const TARGETS: &[Target] = &[
    target(
        "framing-cut",
        "boundaries do not depend on how the bytes came, in both directions, all adapters",
        cut_seeds,
        cut,
    ),
    target("framing-request", "what is done with whole requests, all adapters", whole_seeds, requests),
    target("framing-reply", "normal and comparison forms of replies, all adapters", reply_seeds, replies),
    target("resp-connection", "what a connection of RESP remembers", connection_seeds, connection),
];

fn adapters(request_bytes: usize, reply_bytes: usize) -> Vec<Adapter> {
    let all =
        Protocol::ALL.into_iter().flat_map(|protocol| Connections::ALL.map(|connections| (protocol, connections)));
    all.filter(|(protocol, connections)| protocol.goes_with(*connections))
        .map(|(protocol, connections)| Adapter { protocol, connections, request_bytes, reply_bytes })
        .collect()
}

/// What an adapter is known to look at: streams of each protocol, in both directions.
fn streams() -> Vec<&'static [u8]> {
    vec![
        b"GET a\nPUT b 2\r\n",
        b"\0\0\0\x03abc\0\0\0\0",
        b"anything",
        b"*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING\r\n*1\r\n$4\r\nPING\r\n",
        b"*3\r\n:1\r\n*2\r\n+a\r\n$1\r\nb\r\n_\r\n",
        b"%1\r\n+a\r\n~2\r\n#t\r\n,1.5\r\n(123\r\n=5\r\ntxt:a\r\n|1\r\n+x\r\n+y\r\n:1\r\n-ERR x\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\nPUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcHEAD / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: now\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nuntil the close",
    ]
}

/// Which adapter, which side, the limit, and where it is cut; then the bytes.
fn cut_seeds() -> Vec<Vec<u8>> {
    let count = adapters(0, 0).len() as u8;
    let fronts = (0..count).flat_map(|adapter| [0, 1, 2].map(|side| [adapter, side, 200, 3, 17, 40]));
    fronts.flat_map(|front| streams().into_iter().map(move |bytes| [&front[..], bytes].concat())).collect()
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Requests,
    Replies,
    HeadReplies,
}

fn cut(input: &[u8], seen: &mut Seen) {
    let Some((&[adapter, side, limit, a, b, c], bytes)) = input.split_first_chunk::<6>() else { return };
    let limit = if limit == 255 { 1 << 20 } else { usize::from(limit) };
    let all = adapters(limit, limit);
    let adapter = all[usize::from(adapter) % all.len()];
    let side = [Side::Requests, Side::Replies, Side::HeadReplies][usize::from(side) % 3];
    let expected = boundaries(&adapter, side, &[bytes]);
    let mut at = [a, b, c].map(|at| usize::from(at) % (bytes.len() + 1));
    at.sort_unstable();
    let pieces = [&bytes[..at[0]], &bytes[at[0]..at[1]], &bytes[at[1]..at[2]], &bytes[at[2]..]];
    assert_eq!(boundaries(&adapter, side, &pieces), expected, "{adapter:?} {side:?} cut at {at:?}");
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(boundaries(&adapter, side, &single), expected, "{adapter:?} {side:?} byte by byte");
    seen.note((adapter.name(), side as u8, expected.0.len().min(6), format!("{:?}", expected.1)));
}

/// The lengths of what a connection carries, and how it ends, when its bytes come in such pieces.
fn boundaries(adapter: &Adapter, side: Side, pieces: &[&[u8]]) -> (Vec<usize>, Option<FramingError>) {
    let (mut buffer, mut scan, mut lengths) = (Vec::new(), Scan::default(), Vec::new());
    for index in 0..=pieces.len() {
        let closed = index == pieces.len();
        buffer.extend_from_slice(pieces.get(index).copied().unwrap_or_default());
        loop {
            match next(adapter, side, &mut scan, &buffer, closed) {
                Ok(None) => break,
                // The adapter `close` takes an empty rest for an empty reply; the connection is over then.
                Ok(Some(0)) => return (lengths, None),
                Ok(Some(length)) => {
                    buffer.drain(..length);
                    scan = Scan::default();
                    lengths.push(length);
                }
                Err(error) => return (lengths, Some(error)),
            }
        }
        assert!(!closed || buffer.is_empty(), "at the close nothing is left without an error");
        let limit = adapter.request_bytes.max(adapter.reply_bytes);
        assert!(closed || buffer.len() <= limit.max(1), "more than the limit waits for an end");
    }
    (lengths, None)
}

fn next(
    adapter: &Adapter,
    side: Side,
    scan: &mut Scan,
    bytes: &[u8],
    closed: bool,
) -> Result<Option<usize>, FramingError> {
    let found = match side {
        Side::Requests => adapter.next_request(scan, bytes, closed),
        Side::Replies => adapter.next_reply(scan, b"", bytes, closed),
        Side::HeadReplies => adapter.next_reply(scan, b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", bytes, closed),
    };
    assert!(scan.seen <= bytes.len() && scan.pending.len() <= 33, "{scan:?}");
    if let Ok(Some(length)) = found {
        assert!(length <= bytes.len() && length <= adapter.request_bytes.max(adapter.reply_bytes));
    }
    found
}

fn whole_seeds() -> Vec<Vec<u8>> {
    let count = adapters(0, 0).len() as u8;
    let mut bodies = streams();
    bodies.extend(WORDS);
    (0..count).flat_map(|adapter| bodies.iter().map(move |bytes| [&[adapter][..], bytes].concat())).collect()
}

fn requests(input: &[u8], seen: &mut Seen) {
    let Some((&adapter, bytes)) = input.split_first() else { return };
    let all = adapters(1 << 20, 1 << 20);
    let adapter = all[usize::from(adapter) % all.len()];
    let mut open = false;
    let mut rest = bytes;
    while let Ok(Some(length @ 1..)) = adapter.next_request(&mut Scan::default(), rest, true) {
        let (request, after) = rest.split_at(length);
        rest = after;
        let handling = adapter.handle(request);
        seen.note((adapter.name(), std::mem::discriminant(&handling), adapter.manner(request).last));
        match &handling {
            Handling::Order => assert!(adapter.is_orderable(request), "what is to be ordered may be"),
            Handling::OrderAs(normal) => {
                assert!(
                    adapter.is_orderable(normal),
                    "a normal form may be ordered: {:?}",
                    normal.escape_ascii().to_string()
                );
                assert!(!adapter.is_orderable(request), "and only it");
                assert_eq!(adapter.manner(normal).bodiless, adapter.manner(request).bodiless);
            }
            Handling::Local(_) | Handling::LocalThenClose(_) | Handling::Refuse(_) => {
                assert!(!adapter.is_orderable(request), "what is not ordered may not be");
            }
        }
        open = adapter.in_transaction(open, request);
        let refusal = adapter.refusal(adapter.manner(request), "no");
        seen.note((adapter.name(), open, refusal.is_some()));
    }
    // What comes over the mesh was cut by nobody.
    let whole = adapter.is_orderable(bytes);
    seen.note((adapter.name(), "whole", whole));
    for error in [FramingError::Truncated, FramingError::TooLong { limit: 3 }, FramingError::Malformed("x")] {
        let _ = adapter.protocol_error(&error);
    }
}

fn reply_seeds() -> Vec<Vec<u8>> {
    let count = adapters(0, 0).len() as u8;
    let bodies = streams();
    let fronts = (0..count).flat_map(|adapter| (0..ASKED.len() as u8).map(move |asked| [adapter, asked]));
    fronts.flat_map(|front| bodies.clone().into_iter().map(move |bytes| [&front[..], bytes].concat())).collect()
}

/// Requests to which the bytes are a reply.
const ASKED: [&[u8]; 6] = [
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"SMEMBERS k\r\n",
    b"HGETALL k\r\n",
    b"EXEC\r\n",
    b"GET a\n",
];

fn replies(input: &[u8], seen: &mut Seen) {
    let Some((&[adapter, asked], bytes)) = input.split_first_chunk::<2>() else { return };
    let all = adapters(1 << 20, 1 << 20);
    let adapter = all[usize::from(adapter) % all.len()];
    let request = ASKED[usize::from(asked) % ASKED.len()];
    // Malformed ones have a form as well.
    let any = adapter.form(request, bytes);
    assert_eq!(any, adapter.form(request, bytes));
    let Ok(Some(length)) = adapter.next_reply(&mut Scan::default(), request, bytes, true) else { return };
    let raw = Bytes::copy_from_slice(&bytes[..length]);
    let kept = adapter.reply(request, raw);
    assert_eq!(adapter.form(request, &kept.bytes), kept.form, "the form is that of what is kept");
    let again = adapter.reply(request, kept.bytes.clone());
    assert_eq!(again.bytes, kept.bytes, "a normal form is its own");
    seen.note((adapter.name(), asked, kept.last, kept.bytes.len() == length, kept.bytes.first()));
    let content = adapter.content(&kept.bytes);
    assert!(content.len() <= kept.bytes.len());
    seen.note((adapter.name(), adapter.is_error(&kept.bytes)));
    for manner in [Manner::default(), Manner { last: true, bodiless: true, old: true }] {
        let delivered = adapter.deliver(manner, kept.bytes.clone());
        assert!(delivered.len() <= kept.bytes.len() + 256);
    }
}

fn connection_seeds() -> Vec<Vec<u8>> {
    let words = WORDS.iter().filter(|word| word.starts_with(b"*")).copied().collect::<Vec<_>>();
    let mut seeds: Vec<Vec<u8>> = words.iter().map(|word| [b"\0", *word].concat()).collect();
    seeds.push([b"\0", words.concat().as_slice()].concat());
    seeds.push([b"\xaa", words.concat().as_slice()].concat());
    seeds
}

/// A connection's requests in a row; the first byte says which of them fail. The application is played as Redis answers.
fn connection(input: &[u8], seen: &mut Seen) {
    let Some((&fails, mut rest)) = input.split_first() else { return };
    let (protocol, connections) = (Protocol::Resp, Connections::PerSession);
    let adapter = Adapter { protocol, connections, request_bytes: 1 << 20, reply_bytes: 1 << 20 };
    let mut state = ConnectionState::default();
    let mut count = 0_u32;
    while let Ok(Some(length @ 1..)) = adapter.next_request(&mut Scan::default(), rest, true) {
        let (request, after) = rest.split_at(length);
        rest = after;
        if !adapter.is_orderable(request) {
            continue;
        }
        // Nearly no room, now and then.
        let all = if count % 7 == 6 { 64 << 20 } else { state.bytes() };
        let instead = adapter.instead(&state, request, all);
        let reply: &[u8] = match fails >> (count % 8) & 1 {
            1 => b"-ERR x\r\n",
            _ if count.is_multiple_of(3) => b"*1\r\n+OK\r\n",
            _ => b"+OK\r\n",
        };
        let given = adapter.executed(&mut state, request, instead.as_ref(), Bytes::from_static(reply));
        assert!(!given.is_empty());
        let kept: usize = state.replayed().map(|replayed| replayed.request.len()).sum();
        assert!(
            kept <= state.bytes() && kept <= input.len() + 64 * (count as usize + 1),
            "it keeps what was asked, once"
        );
        for replayed in state.replayed() {
            let whole = adapter.next_request(&mut Scan::default(), replayed.request, true);
            assert_eq!(whole, Ok(Some(replayed.request.len())), "what is replayed is a request");
        }
        seen.note((state.is_watching(), state.is_empty(), state.replayed().count().min(8), instead.is_some()));
        if count % 11 == 10 {
            state.set_void();
        }
        count += 1;
    }
}
