//! A call without an answer is blamed; a loss with nothing under way is not (rule 23).

use super::*;
use crate::app::exchange::Loss;

#[tokio::test]
async fn an_application_that_closes_with_calls_unanswered_fell_silent() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, SHARED, PATIENCE);
    app.reset(1).await;
    let mut stream = accept(&listener).await;
    app.execute(1, 1, &["a\n", "b\n"]).await;
    read_until(&mut stream, "a\nb\n").await;
    stream.write_all(b"A\n").await.expect("write");
    drop(stream);
    assert_eq!(app.next().await, Event::Silent { run: Run(1), slot: Slot(1), answered: 1 });
    assert_eq!(app.handle.view.borrow().state, State::Down);
}

#[tokio::test]
async fn a_call_without_an_answer_in_time_is_blamed() {
    for connections in [Connections::Shared, Connections::PerRequest, Connections::PerSession] {
        let listener = listen().await;
        let mut app = Fixture::found(&listener, (Protocol::Line, connections), Duration::from_millis(50));
        app.reset(1).await;
        app.execute(1, 1, &["a\n"]).await;
        let _silent = accept(&listener).await;
        let silent = Event::Silent { run: Run(1), slot: Slot(1), answered: 0 };
        assert_eq!(app.next().await, silent, "{connections:?}");
    }
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_lose_the_application() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, SHARED, PATIENCE);
    app.reset(1).await;
    let mut stream = accept(&listener).await;
    stream.write_all(b"welcome\n").await.expect("write");
    assert_eq!(app.next().await, Event::Lost { run: Run(1) });
}

#[tokio::test]
async fn more_sessions_than_allowed_lose_the_application_rather_than_a_session() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, (Protocol::Line, Connections::PerSession), PATIENCE);
    app.reset(1).await;
    app.execute_as(1, 1, &[(1, "a\n"), (2, "a\n"), (3, "a\n"), (4, "a\n"), (5, "a\n")]).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = accept(&listener).await;
        stream.write_all(b"A\n").await.expect("write");
        streams.push(stream);
    }
    assert_eq!(app.next().await, Event::Lost { run: Run(1) });
}

#[test]
fn losses_tell_people_what_happened() {
    let told = Loss::Silent(Duration::from_secs(30)).to_string();
    assert_eq!(told, "the application did not answer within 30s");
}

#[tokio::test]
async fn what_was_answered_before_is_told_first() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, SHARED, PATIENCE);
    app.reset(1).await;
    let mut stream = accept(&listener).await;
    app.execute(1, 1, &["a\n", "b\n"]).await;
    app.execute(1, 2, &["c\n", "d\n", "e\n"]).await;
    read_until(&mut stream, "a\nb\nc\nd\ne\n").await;
    stream.write_all(b"A\nB\nC\nD\nhal").await.expect("write");
    drop(stream);
    assert_eq!(app.replies(1, 1).await, ["A\n", "B\n"]);
    assert_eq!(app.next().await, Event::Silent { run: Run(1), slot: Slot(2), answered: 2 });
}

#[tokio::test]
async fn a_reply_that_is_not_of_the_protocol_is_the_calls_fault() {
    for connections in [Connections::Shared, Connections::PerSession] {
        let listener = listen().await;
        let mut app = Fixture::found(&listener, (Protocol::Length, connections), PATIENCE);
        app.reset(1).await;
        app.execute(1, 1, &["\0\0\0\x01a", "\0\0\0\x01b"]).await;
        let mut stream = accept(&listener).await;
        read_until(&mut stream, "\0\0\0\x01a").await;
        stream.write_all(b"\0\0\0\x01A").await.expect("write");
        read_until(&mut stream, "\0\0\0\x01b").await;
        stream.write_all(b"\xff\xff\xff\xff").await.expect("write");
        let silent = Event::Silent { run: Run(1), slot: Slot(1), answered: 1 };
        assert_eq!(app.next().await, silent, "{connections:?}");
    }
}

#[tokio::test]
async fn what_a_majority_executed_has_no_time_limit() {
    for connections in [Connections::Shared, Connections::PerSession] {
        let listener = listen().await;
        let limit = Duration::from_millis(50);
        let mut app = Fixture::found(&listener, (Protocol::Line, connections), limit);
        app.reset(1).await;
        app.execute_patiently(1, 1, &["a\n", "b\n"], 1).await;
        let mut stream = accept(&listener).await;
        read_until(&mut stream, "a\n").await;
        tokio::time::sleep(limit * 4).await;
        assert!(app.handle.events.try_recv().is_err(), "{connections:?}");
        stream.write_all(b"A\n").await.expect("write");
        let silent = Event::Silent { run: Run(1), slot: Slot(1), answered: 1 };
        assert_eq!(app.next().await, silent, "{connections:?}: the second call has one");
    }
}

#[tokio::test]
async fn a_call_that_hangs_for_ever_does_not_keep_the_next_beginning_away() {
    for connections in [Connections::Shared, Connections::PerRequest, Connections::PerSession] {
        let listener = listen().await;
        let mut app = Fixture::found(&listener, (Protocol::Line, connections), PATIENCE);
        app.reset(1).await;
        app.execute_patiently(1, 1, &["a\n"], usize::MAX).await;
        let mut stream = accept(&listener).await;
        read_until(&mut stream, "a\n").await;
        // More than is handed to a connection, so that the worker is behind as well.
        let long = format!("{}\n", "x".repeat(1 << 20));
        for slot in 2..20 {
            app.execute(1, slot, &[&long]).await;
        }
        app.send(Command::Reset { run: Run(2), snapshot: None }).await;
        let awaits_restart = app.handle.awaits_restart.clone();
        let awaited = || awaits_restart.load(std::sync::atomic::Ordering::Relaxed);
        eventually_async("the reset is begun", awaited).await;
        assert!(app.handle.events.try_recv().is_err(), "the run is over by order");
    }
}
