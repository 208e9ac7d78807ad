//! What clients are told, for every adapter: the table of README.md.

use super::super::connection::Ending;
use super::super::limits::Limits;
use super::{Bench, LIMITS, Setting, adapter};
use mesh::client::sender::{Answer, Refused};
use mesh::framing::Protocol;
use mesh::wire::client::Unknown;
use tokio::io::AsyncWriteExt;

/// Of each protocol: a whole request, half of one, and bytes that are none.
const PROTOCOLS: [(Protocol, &str, &str, Option<&str>); 4] = [
    (Protocol::Line, "SIZE\n", "SI", None),
    (Protocol::Length, "\0\0\0\x01x", "\0\0\0\x05ab", None),
    (Protocol::Close, "SIZE", "SI", None),
    (Protocol::Resp, "*1\r\n$6\r\nDBSIZE\r\n", "*2\r\n$3\r\nGET\r\n", Some("*1\r\n:rubbish\r\n")),
];

/// One request, answered like this; what the client reads to the end, after it asked to end where it is not closed.
async fn told(protocol: Protocol, request: &str, answer: Answer) -> (String, Ending) {
    let mut bench = Bench::new(protocol);
    bench.send(request).await;
    if protocol == Protocol::Close {
        bench.write.shutdown().await.unwrap();
    }
    let (_, waiting) = bench.call().await;
    waiting.send(answer).unwrap();
    let length = match protocol {
        // It stays open, so the error is read and then the end is asked for.
        Protocol::Resp => 1,
        _ => 0,
    };
    if length == 1 && !bench.serving.is_finished() {
        let _ = bench.write.shutdown().await;
    }
    let said = bench.rest().await;
    (said, bench.ending(true).await)
}

#[tokio::test]
async fn an_unknown_outcome_is_told_by_closing_in_every_protocol() {
    for (protocol, request, _, _) in PROTOCOLS {
        for unknown in [Unknown::Deadline, Unknown::Lost] {
            let (said, ending) = told(protocol, request, Answer::Unknown(unknown)).await;
            assert_eq!((said.as_str(), ending), ("", Ending::Unanswered), "{protocol}");
        }
    }
}

#[tokio::test]
async fn a_definite_refusal_is_told_where_there_are_words_for_it_and_else_by_closing() {
    for (protocol, request, _, _) in PROTOCOLS {
        for refused in [Refused::NoAnswer, Refused::Overloaded, Refused::NoSmartClient] {
            let (said, ending) = told(protocol, request, Answer::Refused(refused.clone())).await;
            let expected = match protocol {
                Protocol::Resp => (format!("-LOCKSTEP {refused}\r\n"), Ending::Closed),
                _ => (String::new(), Ending::Unanswered),
            };
            assert_eq!((said, ending), expected, "{protocol}");
        }
    }
}

#[tokio::test]
async fn bytes_that_are_no_request_are_told_where_there_are_words_for_it_and_then_closed() {
    for (protocol, _, half, malformed) in PROTOCOLS {
        // What is too large, whatever it is.
        let mut bench = Bench::with(protocol, Setting { pipe: 4 << 20, ..Setting::default() });
        let large = match protocol {
            Protocol::Resp => "*2\r\n$3\r\nGET\r\n$9999999\r\n".to_owned(),
            Protocol::Length => "\x7f\0\0\0".to_owned(),
            _ => "x".repeat(adapter(protocol).request_bytes + 1),
        };
        bench.send(&large).await;
        let said = bench.rest().await;
        let words = protocol == Protocol::Resp;
        assert_eq!(said.starts_with("-ERR Protocol error: ") && said.ends_with("\r\n"), words, "{protocol}: {said:?}");
        assert!(words || said.is_empty(), "{protocol}: {said:?}");
        assert_eq!(bench.refused.of("too_long") + bench.refused.of("malformed"), 1, "{protocol}");
        assert_eq!(bench.ending(false).await, Ending::Malformed, "{protocol}");

        if let Some(malformed) = malformed {
            let mut bench = Bench::new(protocol);
            bench.send(malformed).await;
            let said = bench.rest().await;
            assert!(said.starts_with("-ERR Protocol error: "), "{protocol}: {said:?}");
            assert_eq!(bench.ending(false).await, Ending::Malformed, "{protocol}");
        }

        // The end within a request. With the paper's protocol there is no such thing.
        if protocol != Protocol::Close {
            let mut bench = Bench::new(protocol);
            bench.send(half).await;
            bench.write.shutdown().await.unwrap();
            assert_eq!(bench.rest().await, "", "{protocol}");
            assert_eq!(bench.refused.of("truncated"), 1, "{protocol}");
            assert_eq!(bench.ending(false).await, Ending::Malformed, "{protocol}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_too_slow_or_idle_is_closed_without_a_word() {
    let limits = Limits { idle_timeout: Some(LIMITS.request_timeout / 2), ..LIMITS };
    for (protocol, request, half, _) in PROTOCOLS {
        let mut bench = Bench::new(protocol);
        bench.send(half).await;
        assert_eq!(bench.rest().await, "", "{protocol}");
        assert_eq!(bench.ending(false).await, Ending::SlowRequest, "{protocol}");

        let mut bench = Bench::with(protocol, Setting { pipe: 64, ..Setting::default() });
        bench.send(request).await;
        if protocol == Protocol::Close {
            bench.write.shutdown().await.unwrap();
        }
        bench.call().await.1.send(super::reply(&"y".repeat(1000))).unwrap();
        assert_eq!((&mut bench.serving).await.unwrap(), Ending::SlowReader, "{protocol}");

        let mut bench = Bench::with(protocol, Setting { limits, ..Setting::default() });
        assert_eq!(bench.rest().await, "", "{protocol}");
        assert_eq!(bench.ending(false).await, Ending::Idle, "{protocol}");
    }
}

#[tokio::test]
async fn an_ingress_that_stops_answers_what_it_took_and_closes() {
    for (protocol, request, half, _) in PROTOCOLS {
        let mut bench = Bench::new(protocol);
        bench.send(request).await;
        if protocol == Protocol::Close {
            bench.write.shutdown().await.unwrap();
        }
        let (_, answer) = bench.call().await;
        if protocol != Protocol::Close {
            bench.send(half).await;
        }
        bench.stop.send_replace(true);
        answer.send(super::reply("answer")).unwrap();
        assert_eq!(bench.rest().await, "answer", "{protocol}");
        assert_eq!(bench.ending(true).await, Ending::Closed, "{protocol}");
    }
}

#[tokio::test]
async fn a_connection_of_its_own_ends_with_a_refusal_that_what_follows_may_count_on() {
    let own = || Bench::with(Protocol::Resp, Setting { own: true, ..Setting::default() });
    let mut bench = own();
    bench.send("SELECT 3\r\n").await;
    bench.call().await.1.send(Answer::Refused(Refused::Overloaded)).unwrap();
    assert_eq!(bench.rest().await, format!("-LOCKSTEP {}\r\n", Refused::Overloaded));
    assert_eq!(bench.ending(true).await, Ending::Unanswered);

    // The application knows nothing of a request that is refused here: `EXEC` would execute the others.
    let mut bench = own();
    bench.send("MULTI\r\nBLPOP a 0\r\nEXEC\r\n").await;
    let (multi, answer) = bench.call().await;
    assert_eq!(multi, "MULTI\r\n");
    answer.send(super::reply("+OK\r\n")).unwrap();
    let said = bench.rest().await;
    assert!(said.starts_with("+OK\r\n-LOCKSTEP 'BLPOP' is refused") && said.matches('\n').count() == 2, "{said}");
    assert_eq!(bench.ending(true).await, Ending::Unanswered);

    // After it, and outside, the connection goes on.
    let mut bench = own();
    bench.send("MULTI\r\nDISCARD\r\nBLPOP a 0\r\nDBSIZE\r\n").await;
    for reply in ["+OK\r\n", "+OK\r\n", ":0\r\n"] {
        bench.call().await.1.send(super::reply(reply)).unwrap();
    }
    bench.write.shutdown().await.unwrap();
    let said = bench.rest().await;
    assert!(said.ends_with(":0\r\n") && said.contains("-LOCKSTEP"), "{said}");
    assert_eq!(bench.ending(true).await, Ending::Closed);
}
