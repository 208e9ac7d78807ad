//! Connections over in-memory pipes, against a driver that the test plays itself.

mod bounds;
mod told;

use super::connection::{Ending, Shared, WINDOW, serve};
use super::intake::{Cut, Intake};
use super::limits::Limits;
use super::room::Rooms;
use bytes::Bytes;
use mesh::client::running::Event;
use mesh::client::sender::{Answer, Connection, Refused};
use mesh::framing::{Adapter, Connections, FramingError, Manner, Protocol};
use mesh::node::counts::Counts;
use mesh::wire::client::Unknown;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(10);
const LIMITS: Limits = Limits {
    connections_max: 10,
    connections_per_address: None,
    idle_timeout: None,
    request_timeout: PATIENCE,
    reply_timeout: PATIENCE,
    quiet_period: None,
};

fn adapter(protocol: Protocol) -> Adapter {
    let connections = match protocol {
        Protocol::Close => Connections::PerRequest,
        _ => Connections::Shared,
    };
    Adapter { protocol, connections, request_bytes: 1 << 20, reply_bytes: 1 << 20 }
}

impl super::pipe::LastWords for WriteHalf<DuplexStream> {
    fn hold_back(&self) {}
}

/// A served connection with both of its ends.
struct Bench {
    read: ReadHalf<DuplexStream>,
    write: WriteHalf<DuplexStream>,
    calls: mpsc::Receiver<Event>,
    stop: watch::Sender<bool>,
    refused: Counts,
    serving: JoinHandle<Ending>,
}

/// What a bench differs in.
struct Setting {
    limits: Limits,
    /// Events that may wait for the driver.
    queue: usize,
    /// Bytes that the pipe holds, each way.
    pipe: usize,
    rooms: Rooms,
    /// Whether each session has its own connection to the application.
    own: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self { limits: LIMITS, queue: 4096, pipe: 64 << 10, rooms: Rooms::new(1000, 8 << 20, 64 << 20), own: false }
    }
}

impl Bench {
    fn new(protocol: Protocol) -> Self {
        Self::with(protocol, Setting::default())
    }

    fn with(protocol: Protocol, setting: Setting) -> Self {
        let (client, server) = tokio::io::duplex(setting.pipe);
        let (events, calls) = mpsc::channel(setting.queue);
        let (stop, stopping) = watch::channel(false);
        let refused = Counts::new(&mut mesh::node::Registry::default(), "refused", "", "reason", &["malformed"]);
        let mut adapter = adapter(protocol);
        if setting.own {
            adapter.connections = Connections::PerSession;
        }
        let shared = Arc::new(Shared {
            adapter,
            events,
            rooms: setting.rooms,
            limits: setting.limits,
            deadline: DEADLINE,
            read_only: None,
            refused: refused.clone(),
        });
        let (reader, writer) = tokio::io::split(server);
        let serving = tokio::spawn(serve(reader, writer, Connection(7), shared, stopping));
        let (read, write) = tokio::io::split(client);
        Self { read, write, calls, stop, refused, serving }
    }

    async fn send(&mut self, bytes: &str) {
        self.write.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// The next call's request and where its answer goes.
    async fn call(&mut self) -> (String, oneshot::Sender<Answer>) {
        match self.calls.recv().await {
            Some(Event::Call { connection: Connection(7), bytes, answer, .. }) => {
                (String::from_utf8_lossy(&bytes).into_owned(), answer)
            }
            other => panic!("expected a call, got {other:?}"),
        }
    }

    async fn read(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        self.read.read_exact(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Everything until the connection's end.
    async fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.read.read_to_string(&mut rest).await.unwrap();
        rest
    }

    /// How it ended; the sender must have heard of it if it knew the connection.
    async fn ending(mut self, was_called: bool) -> Ending {
        drop(self.write);
        drop(self.read);
        let ending = self.serving.await.unwrap();
        match self.calls.recv().await {
            Some(Event::Gone(Connection(7))) => assert!(was_called, "a client that never called was reported gone"),
            None => assert!(!was_called, "the sender was not told that the client is gone"),
            other => panic!("unexpected {other:?}"),
        }
        ending
    }
}

fn reply(text: &str) -> Answer {
    Answer::Reply(Bytes::copy_from_slice(text.as_bytes()))
}

#[tokio::test]
async fn replies_stay_in_the_order_of_the_requests_whatever_comes_first() {
    let mut bench = Bench::new(Protocol::Line);
    bench.send("PUT a 1\nPUT b 2\nPUT c 3\n").await;
    let (first, second, third) = (bench.call().await, bench.call().await, bench.call().await);
    assert_eq!((first.0.as_str(), third.0.as_str()), ("PUT a 1\n", "PUT c 3\n"));
    third.1.send(reply("three\n")).unwrap();
    second.1.send(reply("two\n")).unwrap();
    first.1.send(reply("one\n")).unwrap();
    assert_eq!(bench.read(14).await, "one\ntwo\nthree\n");
    assert_eq!(bench.ending(true).await, Ending::Closed);
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_one_request() {
    let mut bench = Bench::new(Protocol::Line);
    for byte in "PUT a 1\n".chars() {
        bench.send(&byte.to_string()).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.call().await.0, "PUT a 1\n");
}

#[tokio::test]
async fn a_client_that_half_closes_is_answered_and_then_closed() {
    let mut bench = Bench::new(Protocol::Line);
    bench.send("SIZE\nSIZE\n").await;
    bench.write.shutdown().await.unwrap();
    for _ in 0..2 {
        bench.call().await.1.send(reply("0\n")).unwrap();
    }
    assert_eq!(bench.rest().await, "0\n0\n");
    assert_eq!(bench.ending(true).await, Ending::Closed);
}

#[tokio::test]
async fn with_the_papers_protocol_the_half_close_ends_the_request_and_the_close_the_reply() {
    let mut bench = Bench::new(Protocol::Close);
    bench.send("anything\n").await;
    bench.send("at all").await;
    bench.write.shutdown().await.unwrap();
    let (request, answer) = bench.call().await;
    assert_eq!(request, "anything\nat all");
    answer.send(reply("done")).unwrap();
    assert_eq!(bench.rest().await, "done");
}

#[tokio::test]
async fn an_unknown_outcome_closes_without_a_reply_and_after_the_earlier_ones() {
    let mut bench = Bench::new(Protocol::Resp);
    bench.send("*1\r\n$6\r\nDBSIZE\r\n*2\r\n$4\r\nINCR\r\n$1\r\nx\r\n*1\r\n$6\r\nDBSIZE\r\n").await;
    let (first, second, third) = (bench.call().await, bench.call().await, bench.call().await);
    third.1.send(reply(":3\r\n")).unwrap();
    second.1.send(Answer::Unknown(Unknown::Deadline)).unwrap();
    first.1.send(reply(":1\r\n")).unwrap();
    assert_eq!(bench.rest().await, ":1\r\n");
    assert_eq!(bench.ending(true).await, Ending::Unanswered);
}

#[tokio::test]
async fn a_definite_refusal_is_an_error_where_the_protocol_has_errors_and_the_connection_goes_on() {
    let mut bench = Bench::new(Protocol::Resp);
    bench.send("*1\r\n$6\r\nDBSIZE\r\n").await;
    bench.call().await.1.send(Answer::Refused(Refused::Overloaded)).unwrap();
    let expected = adapter(Protocol::Resp).refusal(Manner::default(), &Refused::Overloaded.to_string()).unwrap();
    assert_eq!(bench.read(expected.len()).await.as_bytes(), expected);
    bench.send("*1\r\n$6\r\nDBSIZE\r\n").await;
    bench.call().await.1.send(reply(":0\r\n")).unwrap();
    assert_eq!(bench.read(4).await, ":0\r\n");
}

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

#[tokio::test]
async fn in_http_an_unknown_outcome_is_told_and_closes() {
    let mut bench = Bench::new(Protocol::Http);
    bench.send(&format!("HEAD{}{GET}", &GET[3..])).await;
    let (first, second) = (bench.call().await, bench.call().await);
    assert_eq!(first.0, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    second.1.send(reply("HTTP/1.1 204 \r\n\r\n")).unwrap();
    first.1.send(Answer::Unknown(Unknown::Deadline)).unwrap();
    let told = bench.rest().await;
    assert!(told.starts_with("HTTP/1.1 504 Gateway Timeout\r\nConnection: close\r\n"), "{told}");
    assert!(told.ends_with("\r\n\r\n") && !told.contains("204"), "{told}");
    assert_eq!(bench.ending(true).await, Ending::Unanswered);
}

#[tokio::test]
async fn in_http_a_definite_refusal_is_503_and_the_connection_goes_on_until_the_client_ends_it() {
    let mut bench = Bench::new(Protocol::Http);
    bench.send(GET).await;
    bench.call().await.1.send(Answer::Refused(Refused::Overloaded)).unwrap();
    let expected = adapter(Protocol::Http).refusal(Manner::default(), &Refused::Overloaded.to_string()).unwrap();
    let told = bench.read(expected.len()).await;
    assert!(told.contains(" 503 ") && told.contains("Retry-After: 1\r\n") && told.contains("not run"), "{told}");
    bench.send("GET / HTTP/1.0\r\nX: y\r\n\r\nGET /never HTTP/1.0\r\n\r\n").await;
    let (request, answer) = bench.call().await;
    assert_eq!(request, "GET / HTTP/1.1\r\nX: y\r\nHost: \r\n\r\n");
    answer.send(reply("HTTP/1.1 204 \r\n\r\n")).unwrap();
    assert_eq!(bench.rest().await, "HTTP/1.1 204 \r\nConnection: close\r\n\r\n");
    assert_eq!(bench.ending(true).await, Ending::Closed);
}

#[tokio::test]
async fn who_waits_for_leave_to_send_a_body_is_given_it_in_turn() {
    let mut bench = Bench::new(Protocol::Http);
    bench.send(GET).await;
    bench.send("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").await;
    bench.call().await.1.send(reply("HTTP/1.1 204 \r\n\r\n")).unwrap();
    let both = "HTTP/1.1 204 \r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    assert_eq!(bench.read(both.len()).await, both);
    bench.send("ab").await;
    let (request, answer) = bench.call().await;
    assert_eq!(request, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab");
    answer.send(reply("HTTP/1.1 201 \r\n\r\n")).unwrap();
    assert_eq!(bench.read(17).await, "HTTP/1.1 201 \r\n\r\n");
    assert_eq!(bench.ending(true).await, Ending::Closed);
}

#[tokio::test]
async fn a_definite_refusal_closes_where_the_protocol_has_no_errors() {
    let mut bench = Bench::new(Protocol::Length);
    bench.send("\0\0\0\x01x").await;
    bench.call().await.1.send(Answer::Refused(Refused::Overloaded)).unwrap();
    assert_eq!(bench.rest().await, "");
    assert_eq!(bench.ending(true).await, Ending::Unanswered);
}

#[tokio::test]
async fn what_is_answered_here_waits_for_its_turn() {
    let mut bench = Bench::new(Protocol::Resp);
    bench.send("*1\r\n$6\r\nDBSIZE\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nQUIT\r\n*1\r\n$6\r\nDBSIZE\r\n").await;
    let (_, answer) = bench.call().await;
    answer.send(reply(":0\r\n")).unwrap();
    assert_eq!(bench.rest().await, ":0\r\n+PONG\r\n+OK\r\n");
    assert_eq!(bench.ending(true).await, Ending::Closed);
}

#[tokio::test]
async fn rubbish_is_told_after_the_earlier_answers_and_ends_the_connection() {
    let mut bench = Bench::new(Protocol::Resp);
    bench.send("*1\r\n$6\r\nDBSIZE\r\n*1\r\n:rubbish\r\n").await;
    bench.call().await.1.send(reply(":0\r\n")).unwrap();
    let said = bench.rest().await;
    assert!(said.starts_with(":0\r\n-ERR Protocol error"), "{said}");
    assert_eq!(bench.refused.of("malformed"), 1);
    assert_eq!(bench.ending(true).await, Ending::Malformed);
}

#[tokio::test]
async fn a_request_beyond_the_limit_is_refused_and_never_called() {
    let mut bench = Bench::with(Protocol::Line, Setting { pipe: 4 << 20, ..Setting::default() });
    bench.send(&"x".repeat(3 << 20)).await;
    bench.rest().await;
    assert_eq!(bench.refused.of("too_long"), 1);
    assert_eq!(bench.ending(false).await, Ending::Malformed);
}

#[tokio::test]
async fn no_more_than_a_window_of_requests_is_in_flight() {
    let mut bench = Bench::new(Protocol::Line);
    bench.send(&"SIZE\n".repeat(usize::from(WINDOW) + 3)).await;
    let mut answers = Vec::new();
    for _ in 0..WINDOW {
        answers.push(bench.call().await.1);
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(bench.calls.try_recv().is_err(), "a request beyond the window was handed on");
    answers.remove(0).send(reply("0\n")).unwrap();
    bench.call().await;
}

#[tokio::test]
async fn requests_wait_while_the_sender_has_no_room_and_keep_their_order() {
    let mut bench = Bench::with(Protocol::Line, Setting { queue: 1, ..Setting::default() });
    let requests: String = (0..20).map(|n| format!("GET {n}\n")).collect();
    bench.send(&requests).await;
    let mut answers = Vec::new();
    for n in 0..20 {
        let (request, answer) = bench.call().await;
        assert_eq!(request, format!("GET {n}\n"));
        answers.push(answer);
    }
    for answer in answers {
        answer.send(reply("NIL\n")).unwrap();
    }
    assert_eq!(bench.read(80).await, "NIL\n".repeat(20));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_from_either() {
    let mut bench = Bench::with(Protocol::Line, Setting { pipe: 1024, ..Setting::default() });
    let mut answered = 0_usize;
    // Each answer is large; the pipe is small: at some point no further request may be taken.
    loop {
        if tokio::time::timeout(Duration::from_millis(200), bench.send("GET x\n")).await.is_err() {
            break;
        }
        match tokio::time::timeout(Duration::from_millis(200), bench.call()).await {
            Ok((_, answer)) => answer.send(reply(&format!("{}\n", "y".repeat(100_000)))).unwrap(),
            Err(_) => break,
        }
        answered += 1;
        assert!(answered < 20, "answers pile up without a bound");
    }
    assert!(answered >= 3);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_for_long_is_cut_off() {
    let mut bench = Bench::with(Protocol::Line, Setting { pipe: 64, ..Setting::default() });
    bench.send("GET x\n").await;
    bench.call().await.1.send(reply(&"y".repeat(1000))).unwrap();
    assert_eq!((&mut bench.serving).await.unwrap(), Ending::SlowReader);
    assert_eq!(bench.refused.of("slow_reader"), 1);
}

#[tokio::test(start_paused = true)]
async fn half_a_request_and_then_silence_is_cut_off() {
    let mut bench = Bench::new(Protocol::Line);
    bench.send("PUT a").await;
    assert_eq!(bench.rest().await, "");
    assert_eq!(bench.refused.of("slow_request"), 1);
    assert_eq!(bench.ending(false).await, Ending::SlowRequest);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_stays_open() {
    let mut bench = Bench::new(Protocol::Line);
    bench.send("SIZE\n").await;
    bench.call().await.1.send(reply("0\n")).unwrap();
    assert_eq!(bench.read(2).await, "0\n");
    tokio::time::sleep(10 * PATIENCE).await;
    bench.send("SIZE\n").await;
    bench.call().await.1.send(reply("0\n")).unwrap();
    assert_eq!(bench.read(2).await, "0\n");
}

#[tokio::test]
async fn a_client_that_vanishes_is_reported_while_its_request_is_outstanding() {
    let mut bench = Bench::new(Protocol::Line);
    bench.send("SIZE\n").await;
    let (_, answer) = bench.call().await;
    drop(bench.read);
    drop(bench.write);
    answer.send(reply("0\n")).unwrap();
    assert_eq!(bench.serving.await.unwrap(), Ending::Lost);
    assert!(matches!(bench.calls.recv().await, Some(Event::Gone(Connection(7)))));
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_connections_between_two_requests() {
    // One that asks for nothing.
    let mut idle = Bench::new(Protocol::Line);
    idle.stop.send_replace(true);
    assert_eq!(idle.rest().await, "");
    assert_eq!(idle.ending(false).await, Ending::Closed);

    // One that waits for a reply: behind it.
    let mut busy = Bench::new(Protocol::Line);
    busy.send("SIZE\n").await;
    let (_, answer) = busy.call().await;
    busy.stop.send_replace(true);
    answer.send(reply("0\n")).unwrap();
    assert_eq!(busy.rest().await, "0\n");
    assert_eq!(busy.ending(true).await, Ending::Closed);

    // One whose next request is under way: behind the reply to that.
    let mut half = Bench::new(Protocol::Line);
    half.send("SIZE\nSI").await;
    let (_, answer) = half.call().await;
    half.stop.send_replace(true);
    answer.send(reply("0\n")).unwrap();
    assert_eq!(half.read(2).await, "0\n");
    half.send("ZE\n").await;
    half.call().await.1.send(reply("1\n")).unwrap();
    assert_eq!(half.rest().await, "1\n");
    assert_eq!(half.ending(true).await, Ending::Closed);

    // One that brings some more.
    let mut next = Bench::new(Protocol::Line);
    next.stop.send_replace(true);
    next.send("SIZE\nSIZE\n").await;
    let answers = [next.call().await.1, next.call().await.1];
    answers.into_iter().for_each(|answer| answer.send(reply("0\n")).unwrap());
    assert_eq!(next.rest().await, "0\n0\n");
    assert_eq!(next.ending(true).await, Ending::Closed);
}

#[test]
fn cutting_does_not_depend_on_how_the_bytes_came() {
    let whole = b"PUT a 1\nGET a\nSIZE\n";
    for split in 0..=whole.len() {
        let mut intake = Intake::new(adapter(Protocol::Line));
        let mut requests = Vec::new();
        for part in [&whole[..split], &whole[split..]] {
            intake.feed(part);
            while let Cut::Request(request) = intake.cut().unwrap() {
                requests.push(request);
            }
        }
        intake.end();
        assert_eq!(intake.cut(), Ok(Cut::End));
        assert_eq!(requests, [&b"PUT a 1\n"[..], b"GET a\n", b"SIZE\n"]);
    }
}

#[test]
fn an_end_within_a_request_is_an_error() {
    let mut intake = Intake::new(adapter(Protocol::Length));
    intake.feed(b"\0\0\0\x05ab");
    assert_eq!(intake.cut(), Ok(Cut::More));
    intake.end();
    assert_eq!(intake.cut(), Err(FramingError::Truncated));
}
