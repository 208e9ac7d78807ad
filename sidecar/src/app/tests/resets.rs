//! The initial state: reached in the application's own protocol or by a restart, and checked (rule 26).

use super::*;
use crate::config::Probe;

#[tokio::test]
async fn somebody_elses_application_is_waited_for_until_it_was_restarted() {
    let listener = listen().await;
    let address = listener.local_addr().expect("address");
    let mut app = Fixture::found(&listener, SHARED, PATIENCE);
    app.reset(1).await;
    let mut stream = accept(&listener).await;
    app.execute(1, 1, &["a\n"]).await;
    read_until(&mut stream, "a\n").await;
    drop(stream);
    assert_eq!(app.next().await, Event::Silent { run: Run(1), slot: Slot(1), answered: 0 });
    app.send(Command::Reset { run: Run(2), snapshot: None }).await;
    let awaits_restart = app.handle.awaits_restart.clone();
    let awaited = || awaits_restart.load(std::sync::atomic::Ordering::Relaxed);
    eventually_async("a restart is asked for", awaited).await;
    assert!(app.handle.events.try_recv().is_err(), "the state is not the initial one");
    drop(listener);
    let listener = TcpListener::bind(address).await.expect("the same port again");
    assert_eq!(app.next().await, Event::Restored { run: Run(2) });
    assert!(!awaited());
    let mut stream = accept(&listener).await;
    app.execute(2, 1, &["a\n"]).await;
    read_until(&mut stream, "a\n").await;
    stream.write_all(b"A\n").await.expect("write");
    assert_eq!(app.replies(2, 1).await, ["A\n"]);
}

#[tokio::test]
async fn an_application_that_was_sent_nothing_needs_no_restart() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, SHARED, PATIENCE);
    app.reset(1).await;
    let _stream = accept(&listener).await;
    app.reset(2).await;
}

#[tokio::test]
async fn a_resp_application_must_be_empty_before_it_is_replayed() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, (Protocol::Resp, Connections::Shared), PATIENCE);
    app.send(Command::Reset { run: Run(1), snapshot: None }).await;
    for answer in [":3\r\n", "-LOADING Redis is loading the dataset in memory\r\n", ":0\r\n"] {
        let mut stream = accept(&listener).await;
        read_until(&mut stream, "*1\r\n$6\r\nDBSIZE\r\n").await;
        assert!(app.handle.events.try_recv().is_err(), "not before it is empty");
        stream.write_all(answer.as_bytes()).await.expect("write");
    }
    let mut stream = accept(&listener).await;
    read_until(&mut stream, "*2\r\n$4\r\nINFO\r\n$8\r\nkeyspace\r\n").await;
    stream.write_all(b"-ERR unknown command\r\n").await.expect("write");
    assert_eq!(app.next().await, Event::Restored { run: Run(1) });
}

#[tokio::test]
async fn a_redis_is_reset_in_its_own_protocol_and_keeps_running() {
    if !has_redis() {
        return;
    }
    let port = free_port().await;
    let mut app = Fixture::on(|dir| redis(dir, port), adapter(RESP.0, RESP.1), PATIENCE);
    app.reset(1).await;
    let pid = app.handle.view.borrow().pid;
    app.execute(1, 1, &["SET a 1\r\n", "SELECT 3\r\n", "SET b 1\r\n"]).await;
    assert_eq!(app.replies(1, 1).await, ["+OK\r\n"; 3]);
    app.reset(2).await;
    assert_eq!(app.handle.view.borrow().pid, pid, "no restart was needed");
    app.execute(2, 1, &["EXISTS a\r\n", "SELECT 3\r\n", "EXISTS b\r\n"]).await;
    assert_eq!(app.replies(2, 1).await, [":0\r\n", "+OK\r\n", ":0\r\n"]);
    // A call under way goes with its connection.
    app.execute_patiently(2, 2, &["BLPOP list 0\r\n"], usize::MAX).await;
    app.reset(3).await;
    app.execute(3, 1, &["LPUSH list v\r\n", "LLEN list\r\n"]).await;
    assert_eq!(app.replies(3, 1).await, [":1\r\n", ":1\r\n"]);
    assert_eq!(app.handle.view.borrow().pid, pid);
    app.end().await;
}

#[tokio::test]
async fn a_redis_that_hangs_is_restarted() {
    if !has_redis() {
        return;
    }
    let port = free_port().await;
    let mut app = Fixture::on(|dir| redis(dir, port), adapter(RESP.0, RESP.1), Duration::from_millis(500));
    app.reset(1).await;
    let pid = app.handle.view.borrow().pid;
    app.execute(1, 1, &["SET a 1\r\n", "DEBUG SLEEP 60\r\n"]).await;
    // Redis writes its replies when it comes to rest.
    assert!(matches!(app.next().await, Event::Silent { run: Run(1), slot: Slot(1), .. }));
    app.reset(2).await;
    assert_ne!(app.handle.view.borrow().pid, pid);
    app.end().await;
}

/// Somebody else's application with a configured reset.
fn configured(listener: &TcpListener) -> Fixture {
    let dir = Arc::new(TempDir::new());
    let app = App::Address(listener.local_addr().expect("address"));
    let mut settings = settings(dir.path(), app, adapter(SHARED.0, SHARED.1), PATIENCE);
    settings.reset_request = Some("CLEAR".into());
    settings.empty_probe = Some(Probe { request: "COUNT".into(), reply: "none".into() });
    Fixture::with(dir, settings)
}

async fn answer(listener: &TcpListener, request: &str, reply: &str) {
    let mut stream = accept(listener).await;
    read_until(&mut stream, request).await;
    stream.write_all(reply.as_bytes()).await.expect("write");
}

#[tokio::test]
async fn a_configured_reset_spares_the_restart_and_is_checked() {
    let listener = listen().await;
    let mut app = configured(&listener);
    app.send(Command::Reset { run: Run(1), snapshot: None }).await;
    answer(&listener, "COUNT\n", "none\n").await;
    assert_eq!(app.next().await, Event::Restored { run: Run(1) });
    let mut stream = accept(&listener).await;
    app.execute(1, 1, &["a\n"]).await;
    read_until(&mut stream, "a\n").await;
    stream.write_all(b"A\n").await.expect("write");
    assert_eq!(app.replies(1, 1).await, ["A\n"]);
    app.send(Command::Reset { run: Run(2), snapshot: None }).await;
    answer(&listener, "CLEAR\n", "done\n").await;
    answer(&listener, "COUNT\n", "none\n").await;
    assert_eq!(app.next().await, Event::Restored { run: Run(2) });
    // It says that it is not empty: then only a restart helps.
    drop(accept(&listener).await);
    app.send(Command::Reset { run: Run(3), snapshot: None }).await;
    let awaits_restart = app.handle.awaits_restart.clone();
    loop {
        let mut stream = accept(&listener).await;
        let mut request = [0; 6];
        match stream.read_exact(&mut request).await {
            Ok(_) if request == *b"CLEAR\n" => stream.write_all(b"done\n").await.expect("write"),
            Ok(_) => {
                stream.write_all(b"some\n").await.expect("write");
                break;
            }
            // The connection for calls, made again and left.
            Err(_) => {}
        }
    }
    let awaited = || awaits_restart.load(std::sync::atomic::Ordering::Relaxed);
    eventually_async("a restart is asked for", awaited).await;
    assert!(app.handle.events.try_recv().is_err(), "nothing is replayed on old state");
}

#[tokio::test]
async fn a_configured_reset_is_not_tried_with_calls_under_way() {
    let listener = listen().await;
    let mut app = configured(&listener);
    app.send(Command::Reset { run: Run(1), snapshot: None }).await;
    answer(&listener, "COUNT\n", "none\n").await;
    assert_eq!(app.next().await, Event::Restored { run: Run(1) });
    let mut stream = accept(&listener).await;
    app.execute(1, 1, &["a\n"]).await;
    read_until(&mut stream, "a\n").await;
    // The application may execute it whenever it likes.
    app.send(Command::Reset { run: Run(2), snapshot: None }).await;
    let awaits_restart = app.handle.awaits_restart.clone();
    let awaited = || awaits_restart.load(std::sync::atomic::Ordering::Relaxed);
    eventually_async("a restart is asked for", awaited).await;
    assert!(app.handle.events.try_recv().is_err());
}

/// Somebody else's application, and whoever supervises it in its container.
fn supervised(listener: &TcpListener) -> (Fixture, tokio::net::UnixListener) {
    let dir = Arc::new(TempDir::new());
    let app = App::Address(listener.local_addr().expect("address"));
    let mut settings = settings(dir.path(), app, adapter(SHARED.0, SHARED.1), PATIENCE);
    let socket = dir.path().join("app.sock");
    let supervisor = tokio::net::UnixListener::bind(&socket).expect("bind");
    settings.supervisor = Some(socket);
    (Fixture::with(dir, settings), supervisor)
}

/// A question to the supervisor.
async fn asked(supervisor: &tokio::net::UnixListener) -> tokio::net::UnixStream {
    let (mut stream, _) = supervisor.accept().await.expect("accept");
    let mut question = Vec::new();
    stream.read_to_end(&mut question).await.expect("read");
    assert_eq!(question, crate::RESTART);
    stream
}

#[tokio::test]
async fn a_supervised_application_is_restarted_at_once() {
    let listener = listen().await;
    let address = listener.local_addr().expect("address");
    let (mut app, supervisor) = supervised(&listener);
    app.reset(1).await;
    let mut stream = accept(&listener).await;
    app.execute(1, 1, &["a\n"]).await;
    read_until(&mut stream, "a\n").await;
    stream.write_all(b"A\n").await.expect("write");
    assert_eq!(app.replies(1, 1).await, ["A\n"]);
    app.send(Command::Reset { run: Run(2), snapshot: None }).await;
    let mut question = asked(&supervisor).await;
    // The old process is dead before the answer: nobody listens any more.
    drop((stream, listener));
    let _next = TcpListener::bind(address).await.expect("bind");
    question.write_all(format!("{}\n", crate::RESTARTED).as_bytes()).await.expect("write");
    drop(question);
    assert_eq!(app.next().await, Event::Restored { run: Run(2) });
    assert!(!app.handle.awaits_restart.load(std::sync::atomic::Ordering::Relaxed), "the kubelet is not asked as well");
}

#[tokio::test]
async fn where_the_supervisor_cannot_help_the_probe_fails() {
    let listener = listen().await;
    let (mut app, supervisor) = supervised(&listener);
    app.reset(1).await;
    let mut stream = accept(&listener).await;
    app.execute(1, 1, &["a\n"]).await;
    read_until(&mut stream, "a\n").await;
    stream.write_all(b"A\n").await.expect("write");
    assert_eq!(app.replies(1, 1).await, ["A\n"]);
    app.send(Command::Reset { run: Run(2), snapshot: None }).await;
    asked(&supervisor).await.write_all(b"error: no\n").await.expect("write");
    let awaits_restart = app.handle.awaits_restart.clone();
    let awaited = || awaits_restart.load(std::sync::atomic::Ordering::Relaxed);
    eventually_async("a restart is asked for", awaited).await;
    assert!(app.handle.events.try_recv().is_err(), "nothing is replayed on old state");
}
