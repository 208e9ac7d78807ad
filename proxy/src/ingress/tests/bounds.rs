//! What clients in crowds, and slow ones, can make an ingress hold, and for how long.

use super::super::connection::Ending;
use super::super::limits::Limits;
use super::super::room::Rooms;
use super::{Bench, DEADLINE, LIMITS, PATIENCE, Setting, reply};
use bytes::Bytes;
use mesh::client::running::Event;
use mesh::framing::Manner;
use mesh::framing::Protocol;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// The next call's bytes, held on to, and where its answer goes.
async fn held_call(calls: &mut mpsc::Receiver<Event>) -> (Bytes, tokio::sync::oneshot::Sender<super::Answer>) {
    match calls.recv().await {
        Some(Event::Call { bytes, answer, .. }) => (bytes, answer),
        other => panic!("expected a call, got {other:?}"),
    }
}

#[tokio::test]
async fn large_requests_wait_for_their_room_until_others_are_let_go() {
    let rooms = Rooms::new(1000, 30_000, 64 << 20);
    let mut bench = Bench::with(Protocol::Line, Setting { pipe: 256 << 10, rooms, ..Setting::default() });
    bench.send(&format!("{}\n", "x".repeat(20_000)).repeat(2)).await;
    let (first, _answer) = held_call(&mut bench.calls).await;
    settle().await;
    assert!(bench.calls.try_recv().is_err(), "there was no room for the second request");
    drop(first);
    assert_eq!(bench.call().await.0.len(), 20_001);
}

#[tokio::test(start_paused = true)]
async fn half_a_large_request_has_room_for_the_rest_or_is_not_read() {
    let rooms = Rooms::new(1000, 1 << 20, 64 << 20);
    let setting = || Setting { rooms: rooms.clone(), ..Setting::default() };
    let (mut slow, mut other) = (Bench::with(Protocol::Line, setting()), Bench::with(Protocol::Line, setting()));
    slow.send(&"x".repeat(60_000)).await;
    settle().await;
    assert_eq!(rooms.large_held(), 1 << 20);
    other.send(&"y".repeat(60_000)).await;
    let more = tokio::time::timeout(Duration::from_secs(1), other.send(&"y".repeat(60_000))).await;
    assert!(more.is_err(), "it was read although there was no room");
    // The time in which it was not read is not counted against it.
    assert_eq!(slow.serving.await.unwrap(), Ending::SlowRequest);
    settle().await;
    other.send("\n").await;
    let (request, answer) = other.call().await;
    assert!(request.len() > 60_000, "{}", request.len());
    answer.send(reply("OK\n")).unwrap();
    assert_eq!(other.read(3).await, "OK\n");
    assert_eq!(rooms.large_held(), 0);
}

#[tokio::test]
async fn a_connection_is_not_read_while_as_many_requests_are_held_as_may_be() {
    let rooms = Rooms::new(2, 0, 64 << 20);
    let setting = || Setting { pipe: 64, rooms: rooms.clone(), ..Setting::default() };
    let (mut first, mut second) = (Bench::with(Protocol::Line, setting()), Bench::with(Protocol::Line, setting()));
    first.send("GET a\nGET b\nGET c\n").await;
    let (a, a_answer) = held_call(&mut first.calls).await;
    let (_b, _b_answer) = held_call(&mut first.calls).await;
    second.send("GET d\n").await;
    let flood = "GET x\n".repeat(1000);
    assert!(tokio::time::timeout(Duration::from_millis(100), second.send(&flood)).await.is_err(), "it was read");
    assert!(second.calls.try_recv().is_err() && first.calls.try_recv().is_err());
    // A request that ends makes room for the one that waits longest, which is the first connection's third.
    a_answer.send(reply("1\n")).unwrap();
    drop(a);
    let (c, _c_answer) = held_call(&mut first.calls).await;
    assert_eq!(c, "GET c\n");
    settle().await;
    assert!(second.calls.try_recv().is_err());
    drop(c);
    assert_eq!(second.call().await.0, "GET d\n");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_finds_no_room_within_the_deadline_is_refused() {
    let rooms = Rooms::new(1, 0, 64 << 20);
    let setting = || Setting { rooms: rooms.clone(), ..Setting::default() };
    let (mut first, mut second) = (Bench::with(Protocol::Resp, setting()), Bench::with(Protocol::Resp, setting()));
    first.send("*1\r\n$6\r\nDBSIZE\r\n").await;
    let (held, _answer) = held_call(&mut first.calls).await;
    let begun = Instant::now();
    second.send("*1\r\n$6\r\nDBSIZE\r\n").await;
    let told =
        super::adapter(Protocol::Resp).refusal(Manner::default(), "overloaded; the request was not run").unwrap();
    assert_eq!(second.read(told.len()).await.as_bytes(), told);
    assert_eq!(begun.elapsed(), DEADLINE);
    assert_eq!(second.refused.of("overloaded"), 1);
    assert!(second.calls.try_recv().is_err(), "it was refused and handed on");
    drop(held);
    second.send("*1\r\n$6\r\nDBSIZE\r\n").await;
    second.call().await.1.send(reply(":0\r\n")).unwrap();
    assert_eq!(second.read(4).await, ":0\r\n");
}

#[tokio::test(start_paused = true)]
async fn slow_readers_of_large_replies_hold_a_bounded_number_of_bytes_and_harm_nobody_for_long() {
    const EACH: usize = 1 << 20;
    let rooms = Rooms::new(1000, 0, 8 << 20);
    let setting = || Setting { pipe: 1024, rooms: rooms.clone(), ..Setting::default() };
    let mut small = Bench::with(Protocol::Line, setting());
    small.send("SIZE\n").await;
    small.call().await.1.send(reply("0\n")).unwrap();
    let mut readers = Vec::new();
    let mut asked = 0;
    for _ in 0..100 {
        let mut bench = Bench::with(Protocol::Line, setting());
        bench.send("BIG\nBIG\nBIG\nBIG\n").await;
        settle().await;
        while let Ok(Event::Call { answer, .. }) = bench.calls.try_recv() {
            asked += 1;
            answer.send(reply(&"y".repeat(EACH))).unwrap();
            settle().await;
        }
        readers.push(bench);
    }
    // Each was asked once; more only until it was known how large the answers are.
    assert!((100..110).contains(&asked), "{asked}");
    // Small answers go on meanwhile.
    small.send("SIZE\n").await;
    small.call().await.1.send(reply("0\n")).unwrap();
    assert_eq!(small.read(4).await, "0\n0\n");
    let mut new = Bench::with(Protocol::Line, setting());
    new.send("SIZE\n").await;
    new.call().await.1.send(reply("0\n")).unwrap();
    assert_eq!(new.read(2).await, "0\n");
    // There is little patience with those who hold most of the room.
    let begun = Instant::now();
    assert_eq!(readers.remove(0).serving.await.unwrap(), Ending::SlowReader);
    assert!(begun.elapsed() < PATIENCE / 4, "{:?}", begun.elapsed());
    settle().await;
    assert!(!rooms.answers.is_tight(), "{} bytes are unread", rooms.answers.unread());
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_a_few_bytes_at_a_time_is_cut_off_like_one_of_none() {
    let mut bench = Bench::with(Protocol::Line, Setting { pipe: 64, ..Setting::default() });
    bench.send("GET x\n").await;
    bench.call().await.1.send(reply(&"y".repeat(100_000))).unwrap();
    let begun = Instant::now();
    while !bench.serving.is_finished() {
        let _ = bench.read.read(&mut [0; 16]).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(begun.elapsed() < 3 * PATIENCE, "it reads on and on");
    }
    assert_eq!(bench.serving.await.unwrap(), Ending::SlowReader);
    assert_eq!(bench.refused.of("slow_reader"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_keeps_the_pace_is_served_to_the_end() {
    let mut bench = Bench::with(Protocol::Line, Setting { pipe: 70_000, ..Setting::default() });
    bench.send("GET x\n").await;
    bench.call().await.1.send(reply(&"y".repeat(500_000))).unwrap();
    let mut read = 0;
    while read < 500_000 {
        tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
        read += bench.read(70_000.min(500_000 - read)).await.len();
    }
    assert_eq!(bench.ending(true).await, Ending::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_byte_by_byte_has_as_much_time_as_one_that_stands_still() {
    let mut bench = Bench::new(Protocol::Line);
    let begun = Instant::now();
    while !bench.serving.is_finished() {
        let _ = bench.write.write_all(b"x").await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(begun.elapsed() < 3 * PATIENCE, "it sends on and on");
    }
    assert_eq!(bench.refused.of("slow_request"), 1);
    assert_eq!(bench.ending(false).await, Ending::SlowRequest);
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_nothing_happens_is_closed_where_that_is_wanted() {
    let limits = Limits { idle_timeout: Some(Duration::from_secs(5)), ..LIMITS };
    let mut bench = Bench::with(Protocol::Line, Setting { limits, ..Setting::default() });
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        bench.send("SIZE\n").await;
        let (_, answer) = bench.call().await;
        // Waiting for an answer is not idle.
        tokio::time::sleep(Duration::from_secs(9)).await;
        answer.send(reply("0\n")).unwrap();
        assert_eq!(bench.read(2).await, "0\n");
    }
    let begun = Instant::now();
    assert_eq!(bench.rest().await, "");
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    assert_eq!(bench.refused.of("idle_timeout"), 1);
    assert_eq!(bench.ending(true).await, Ending::Idle);
}

#[tokio::test(start_paused = true)]
async fn with_the_papers_protocol_a_quiet_period_ends_a_request_where_that_is_wanted() {
    let limits = Limits { quiet_period: Some(Duration::from_secs(2)), ..LIMITS };
    let mut bench = Bench::with(Protocol::Close, Setting { limits, ..Setting::default() });
    // Silence before the first byte is none of the request.
    tokio::time::sleep(Duration::from_secs(10)).await;
    bench.send("anything").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.send(" at all").await;
    let (request, answer) = bench.call().await;
    assert_eq!(request, "anything at all");
    answer.send(reply("done")).unwrap();
    assert_eq!(bench.rest().await, "done");
    assert_eq!(bench.ending(true).await, Ending::Closed);
}
