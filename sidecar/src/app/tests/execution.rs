//! The calls of a run, in order, over each kind of connection.

use super::*;

#[tokio::test]
async fn calls_of_many_slots_are_written_before_any_reply() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, SHARED, PATIENCE);
    app.reset(1).await;
    let mut stream = accept(&listener).await;
    app.execute(1, 1, &["a\n", "b\n"]).await;
    app.execute(1, 2, &["c\n"]).await;
    read_until(&mut stream, "a\nb\nc\n").await;
    // Replies however they are cut.
    for piece in ["A", "\nB\n", "C", "\n"] {
        stream.write_all(piece.as_bytes()).await.expect("write");
        stream.flush().await.expect("flush");
        tokio::task::yield_now().await;
    }
    assert_eq!(app.replies(1, 1).await, ["A\n", "B\n"]);
    assert_eq!(app.replies(1, 2).await, ["C\n"]);
    assert_eq!(app.handle.view.borrow().state, State::Running);
}

#[tokio::test]
async fn a_slot_without_calls_is_executed_in_its_turn() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, SHARED, PATIENCE);
    app.reset(1).await;
    let mut stream = accept(&listener).await;
    app.execute(1, 1, &["a\n"]).await;
    let operations = vec![Operation::End { session: (ClientId(1), mesh::ids::Generation::FIRST.at(Slot(1))) }];
    app.send(Command::Execute { run: Run(1), slot: Slot(2), operations, patient: 0 }).await;
    read_until(&mut stream, "a\n").await;
    stream.write_all(b"A\n").await.expect("write");
    assert_eq!(app.replies(1, 1).await, ["A\n"]);
    assert!(app.replies(1, 2).await.is_empty());
}

#[tokio::test]
async fn a_connection_that_is_closed_while_idle_is_made_again() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, SHARED, PATIENCE);
    app.reset(1).await;
    drop(accept(&listener).await);
    let mut stream = accept(&listener).await;
    app.execute(1, 1, &["a\n"]).await;
    read_until(&mut stream, "a\n").await;
    stream.write_all(b"A\n").await.expect("write");
    assert_eq!(app.replies(1, 1).await, ["A\n"]);
}

#[tokio::test]
async fn commands_of_a_lost_run_are_not_executed() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, SHARED, PATIENCE);
    app.reset(1).await;
    let _first = accept(&listener).await;
    app.reset(2).await;
    app.execute(1, 1, &["old\n"]).await;
    app.execute(2, 1, &["new\n"]).await;
    let mut stream = accept(&listener).await;
    read_until(&mut stream, "new\n").await;
}

#[tokio::test]
async fn each_request_has_a_connection_of_its_own_that_is_half_closed() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, (Protocol::Close, Connections::PerRequest), PATIENCE);
    app.reset(1).await;
    app.execute(1, 1, &["first", "second"]).await;
    for _ in 0..2 {
        shout(accept(&listener).await).await;
    }
    assert_eq!(app.replies(1, 1).await, ["FIRST", "SECOND"]);
}

/// Reads one request to its half-close and answers in capitals.
async fn shout(mut stream: TcpStream) -> String {
    let mut request = String::new();
    stream.read_to_string(&mut request).await.expect("until the half-close");
    stream.write_all(request.to_uppercase().as_bytes()).await.expect("write");
    request
}

#[tokio::test]
async fn the_connections_of_a_slot_are_opened_together_and_used_in_their_order() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, (Protocol::Close, Connections::PerRequest), PATIENCE);
    app.reset(1).await;
    app.execute(1, 1, &["first", "second"]).await;
    let (one, two) = (accept(&listener).await, accept(&listener).await);
    assert_eq!(shout(one).await, "first");
    assert_eq!(shout(two).await, "second");
    assert_eq!(app.replies(1, 1).await, ["FIRST", "SECOND"]);
}

#[tokio::test]
async fn an_application_that_takes_one_connection_at_a_time_is_noticed() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, (Protocol::Close, Connections::PerRequest), PATIENCE);
    app.reset(1).await;
    app.execute(1, 1, &["first", "second", "third"]).await;
    let one = accept(&listener).await;
    // It is busy: the others are closed without a look at them.
    drop((accept(&listener).await, accept(&listener).await));
    assert_eq!(shout(one).await, "first");
    for expected in ["second", "third"] {
        let next = accept(&listener).await;
        assert!(tokio::time::timeout(Duration::from_millis(100), listener.accept()).await.is_err(), "one at a time");
        assert_eq!(shout(next).await, expected);
    }
    assert_eq!(app.replies(1, 1).await, ["FIRST", "SECOND", "THIRD"]);
}

#[tokio::test]
async fn sessions_have_connections_of_their_own_until_they_end() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, (Protocol::Line, Connections::PerSession), PATIENCE);
    app.reset(1).await;
    app.execute_as(1, 1, &[(1, "a\n"), (2, "b\n"), (1, "c\n")]).await;
    let mut one = accept(&listener).await;
    read_until(&mut one, "a\n").await;
    one.write_all(b"A\n").await.expect("write");
    let mut two = accept(&listener).await;
    read_until(&mut two, "b\n").await;
    two.write_all(b"B\n").await.expect("write");
    read_until(&mut one, "c\n").await;
    one.write_all(b"C\n").await.expect("write");
    assert_eq!(app.replies(1, 1).await, ["A\n", "B\n", "C\n"]);
    let operations = vec![Operation::End { session: (ClientId(1), mesh::ids::Generation::FIRST.at(Slot(1))) }];
    app.send(Command::Execute { run: Run(1), slot: Slot(2), operations, patient: 0 }).await;
    assert!(app.replies(1, 2).await.is_empty());
    assert_eq!(one.read(&mut [0; 1]).await.expect("an orderly close"), 0);
}

#[tokio::test]
async fn what_the_driver_does_not_hold_any_more_ends_the_worker() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, SHARED, PATIENCE);
    app.reset(1).await;
    let (commands, _) = mpsc::channel(1);
    app.handle.commands = commands;
    app.task.await.expect("an orderly end");
}

/// A request of HTTP in its normal form, and a reply.
fn get(path: &str, alone: bool) -> String {
    let close = if alone { "Connection: close\r\n" } else { "" };
    format!("GET /{path} HTTP/1.1\r\nHost: h\r\n{close}\r\n")
}

fn sized(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn what_is_behind_the_last_reply_of_a_connection_is_sent_again_on_the_next_one() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, (Protocol::Http, Connections::Shared), PATIENCE);
    app.reset(1).await;
    let (a, b, c) = (get("a", false), get("b", false), get("c", false));
    let mut stream = accept(&listener).await;
    app.execute(1, 1, &[&a, &b]).await;
    app.execute(1, 2, &[&c]).await;
    read_until(&mut stream, &[a.as_str(), &b, &c].concat()).await;
    stream.write_all(sized("Connection: close\r\n", "A").as_bytes()).await.expect("write");
    drop(stream);
    let mut stream = accept(&listener).await;
    read_until(&mut stream, &[b.as_str(), &c].concat()).await;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nB\r\n0\r\n\r\n";
    stream.write_all((chunked.to_owned() + &sized("", "C")).as_bytes()).await.expect("write");
    assert_eq!(app.replies(1, 1).await, [sized("", "A"), sized("", "B")]);
    assert_eq!(app.replies(1, 2).await, [sized("", "C")]);
}

#[tokio::test]
async fn on_a_lasting_connection_a_reply_without_a_length_is_none() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, (Protocol::Http, Connections::Shared), PATIENCE);
    app.reset(1).await;
    let mut stream = accept(&listener).await;
    app.execute(1, 1, &[&get("a", false)]).await;
    stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhalf of").await.expect("write");
    drop(stream);
    assert_eq!(app.next().await, Event::Silent { run: Run(1), slot: Slot(1), answered: 0 });
}

#[tokio::test]
async fn on_a_connection_of_its_own_the_close_ends_a_reply_without_a_length() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, (Protocol::Http, Connections::PerRequest), PATIENCE);
    app.reset(1).await;
    app.execute(1, 1, &[&get("a", true)]).await;
    let mut stream = accept(&listener).await;
    read_until(&mut stream, &get("a", true)).await;
    stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nall").await.expect("write");
    drop(stream);
    assert_eq!(app.replies(1, 1).await, [sized("", "all")]);
}
