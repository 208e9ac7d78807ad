//! What the application is asked and what comes of it, against small servers in the test and real processes.

use super::exchange::Loss;
use super::{Command, Event, Handle, Settings, State, spawn};
use crate::App;
use crate::metrics::Metrics;
use crate::testing::{PATIENCE, TempDir, eventually_async};
use bytes::Bytes;
use mesh::framing::{Adapter, Connections, Protocol};
use mesh::ids::{ClientId, Run, Slot};
use mesh::order::Operation;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

fn adapter(protocol: Protocol, connections: Connections) -> Adapter {
    Adapter { protocol, connections, request_bytes: 1 << 20, reply_bytes: 1 << 20 }
}

const SHARED: (Protocol, Connections) = (Protocol::Line, Connections::Shared);

/// A worker on an application.
struct Fixture {
    handle: Handle,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    _dir: TempDir,
}

impl Fixture {
    fn on(app: impl FnOnce(&Path) -> App, adapter: Adapter, timeout: Duration) -> Self {
        let dir = TempDir::new();
        let settings = Settings {
            app: app(dir.path()),
            id: 0,
            data_dir: Some(dir.path().to_owned()),
            adapter,
            timeout,
            sessions: 4,
            metrics: Metrics::new(&mut mesh::node::Registry::default()),
        };
        let (stop, stopped) = watch::channel(false);
        let (handle, task) = spawn(settings, stopped);
        Self { handle, stop, task, _dir: dir }
    }

    fn found(listener: &TcpListener, (protocol, connections): (Protocol, Connections), timeout: Duration) -> Self {
        let address = listener.local_addr().expect("address");
        Self::on(|_| App::Address(address), adapter(protocol, connections), timeout)
    }

    async fn send(&self, command: Command) {
        self.handle.commands.send(command).await.expect("the worker runs");
    }

    async fn next(&mut self) -> Event {
        let event = tokio::time::timeout(PATIENCE, self.handle.events.recv()).await.expect("an event in time");
        event.expect("the worker runs")
    }

    async fn reset(&mut self, run: u64) {
        self.send(Command::Reset { run: Run(run) }).await;
        assert_eq!(self.next().await, Event::Restored { run: Run(run) });
    }

    async fn execute(&self, run: u64, slot: u64, requests: &[&str]) {
        self.execute_as(run, slot, &requests.iter().map(|request| (1, *request)).collect::<Vec<_>>()).await;
    }

    async fn execute_as(&self, run: u64, slot: u64, requests: &[(u128, &str)]) {
        let call = |(client, request): &(u128, &str)| Operation::Call {
            session: (ClientId(*client), Slot(1)),
            bytes: Bytes::copy_from_slice(request.as_bytes()),
        };
        let operations = requests.iter().map(call).collect();
        self.send(Command::Execute { run: Run(run), slot: Slot(slot), operations }).await;
    }

    /// The replies of the next slot, which must be this one.
    async fn replies(&mut self, run: u64, slot: u64) -> Vec<String> {
        match self.next().await {
            Event::Executed { run: of, slot: at, replies } if (of, at) == (Run(run), Slot(slot)) => {
                replies.iter().map(|reply| String::from_utf8_lossy(&reply.bytes).into_owned()).collect()
            }
            other => panic!("not the replies of run {run}, slot {slot}: {other:?}"),
        }
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

async fn accept(listener: &TcpListener) -> TcpStream {
    let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("a connection in time");
    accepted.expect("accept").0
}

async fn read_until(stream: &mut TcpStream, expected: &str) {
    let mut read = vec![0; expected.len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut read)).await.expect("in time").expect("read");
    assert_eq!(String::from_utf8_lossy(&read), expected);
}

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
    let operations = vec![Operation::End { session: (ClientId(1), Slot(1)) }];
    app.send(Command::Execute { run: Run(1), slot: Slot(2), operations }).await;
    read_until(&mut stream, "a\n").await;
    stream.write_all(b"A\n").await.expect("write");
    assert_eq!(app.replies(1, 1).await, ["A\n"]);
    assert!(app.replies(1, 2).await.is_empty());
}

#[tokio::test]
async fn an_application_that_closes_with_calls_unanswered_is_lost_and_its_run_with_it() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, SHARED, PATIENCE);
    app.reset(1).await;
    let mut stream = accept(&listener).await;
    app.execute(1, 1, &["a\n", "b\n"]).await;
    read_until(&mut stream, "a\nb\n").await;
    stream.write_all(b"A\n").await.expect("write");
    drop(stream);
    assert_eq!(app.next().await, Event::Lost { run: Run(1) });
    assert_eq!(app.handle.view.borrow().state, State::Down);
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
async fn a_silent_application_is_lost() {
    for connections in [Connections::Shared, Connections::PerRequest, Connections::PerSession] {
        let listener = listen().await;
        let mut app = Fixture::found(&listener, (Protocol::Line, connections), Duration::from_millis(50));
        app.reset(1).await;
        app.execute(1, 1, &["a\n"]).await;
        let _silent = accept(&listener).await;
        assert_eq!(app.next().await, Event::Lost { run: Run(1) }, "{connections:?}");
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
async fn somebody_elses_application_is_waited_for_until_it_was_restarted() {
    let listener = listen().await;
    let address = listener.local_addr().expect("address");
    let mut app = Fixture::found(&listener, SHARED, PATIENCE);
    app.reset(1).await;
    let mut stream = accept(&listener).await;
    app.execute(1, 1, &["a\n"]).await;
    read_until(&mut stream, "a\n").await;
    drop(stream);
    assert_eq!(app.next().await, Event::Lost { run: Run(1) });
    app.send(Command::Reset { run: Run(2) }).await;
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
        let mut stream = accept(&listener).await;
        let mut request = String::new();
        stream.read_to_string(&mut request).await.expect("until the half-close");
        stream.write_all(request.to_uppercase().as_bytes()).await.expect("write");
    }
    assert_eq!(app.replies(1, 1).await, ["FIRST", "SECOND"]);
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
    let operations = vec![Operation::End { session: (ClientId(1), Slot(1)) }];
    app.send(Command::Execute { run: Run(1), slot: Slot(2), operations }).await;
    assert!(app.replies(1, 2).await.is_empty());
    assert_eq!(one.read(&mut [0; 1]).await.expect("an orderly close"), 0);
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

#[tokio::test]
async fn a_resp_application_must_be_empty_before_it_is_replayed() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, (Protocol::Resp, Connections::Shared), PATIENCE);
    app.send(Command::Reset { run: Run(1) }).await;
    for answer in [":3\r\n", "-LOADING Redis is loading the dataset in memory\r\n", ":0\r\n"] {
        let mut stream = accept(&listener).await;
        read_until(&mut stream, "*1\r\n$6\r\nDBSIZE\r\n").await;
        assert!(app.handle.events.try_recv().is_err(), "not before it is empty");
        stream.write_all(answer.as_bytes()).await.expect("write");
    }
    assert_eq!(app.next().await, Event::Restored { run: Run(1) });
}

/// This test program as an application: a line server that counts its lines, so that old state shows.
fn counting_server() -> Vec<String> {
    let program = std::env::current_exe().expect("this program").display().to_string();
    [&program, "--ignored", "--exact", "app::tests::serve_as_the_application"].map(str::to_owned).to_vec()
}

#[test]
#[ignore = "the other tests run it as the application"]
fn serve_as_the_application() {
    use std::io::{BufRead, BufReader, Write};
    let Some(port) = std::env::var("PORT").ok().and_then(|port| port.parse::<u16>().ok()) else { return };
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port");
    let mut count = 0;
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection");
        for line in BufReader::new(stream.try_clone().expect("a handle")).lines() {
            match line.expect("a line").as_str() {
                "die" => std::process::exit(3),
                _ => count += 1,
            }
            writeln!(stream, "{count}").expect("write");
        }
    }
}

/// A port that was free a moment ago.
async fn free_port() -> u16 {
    listen().await.local_addr().expect("address").port()
}

fn child(dir: &Path, port: u16) -> App {
    App::Command { argv: counting_server(), port, dir: dir.join("app") }
}

#[tokio::test]
async fn a_child_is_started_reset_after_its_death_and_ended() {
    let port = free_port().await;
    let mut app = Fixture::on(|dir| child(dir, port), adapter(SHARED.0, SHARED.1), PATIENCE);
    app.reset(1).await;
    app.execute(1, 1, &["x\n", "x\n"]).await;
    assert_eq!(app.replies(1, 1).await, ["1\n", "2\n"]);
    let first = app.handle.view.borrow().pid.expect("a child has a pid");
    app.execute(1, 2, &["die\n"]).await;
    assert_eq!(app.next().await, Event::Lost { run: Run(1) });
    app.reset(2).await;
    app.execute(2, 1, &["x\n"]).await;
    assert_eq!(app.replies(2, 1).await, ["1\n"], "in its initial state");
    let second = app.handle.view.borrow().pid.expect("a child has a pid");
    assert_ne!(first, second);
    app.stop.send(true).expect("the worker runs");
    app.task.await.expect("an orderly end");
    assert_eq!(super::process::start_time(second), None, "the child is ended");
}

#[tokio::test]
async fn the_child_of_a_killed_sidecar_is_found_and_killed_and_nothing_else() {
    let port = free_port().await;
    let dir = TempDir::new();
    let mut first = Fixture::on(|_| child(dir.path(), port), adapter(SHARED.0, SHARED.1), PATIENCE);
    first.reset(1).await;
    first.execute(1, 1, &["x\n"]).await;
    assert_eq!(first.replies(1, 1).await, ["1\n"]);
    let orphan = first.handle.view.borrow().pid.expect("a child has a pid");
    // As if the sidecar was killed: nothing of it runs any more, its child does.
    first.task.abort();
    let mut second = Fixture::on(|_| child(dir.path(), port), adapter(SHARED.0, SHARED.1), PATIENCE);
    assert!(super::process::start_time(orphan).is_some());
    second.reset(1).await;
    assert_eq!(super::process::start_time(orphan), None);
    second.execute(1, 1, &["x\n"]).await;
    assert_eq!(second.replies(1, 1).await, ["1\n"]);
    // A record of a pid that belongs to somebody else by now.
    let record = dir.path().join("app/application.pid");
    let text = std::fs::read_to_string(&record).expect("a record");
    let mut identity: serde_json::Value = serde_json::from_str(&text).expect("json");
    second.stop.send(true).expect("the worker runs");
    second.task.await.expect("an orderly end");
    let mut other = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
    identity["pid"] = other.id().into();
    identity["start_time"] = 1.into();
    std::fs::write(&record, identity.to_string()).expect("write");
    let mut third = Fixture::on(|_| child(dir.path(), port), adapter(SHARED.0, SHARED.1), PATIENCE);
    third.reset(1).await;
    assert!(matches!(other.try_wait(), Ok(None)), "only what is provably ours is killed");
    other.kill().expect("kill");
    other.wait().expect("wait");
    third.stop.send(true).expect("the worker runs");
    third.task.await.expect("an orderly end");
}

#[tokio::test]
async fn a_port_that_somebody_else_has_is_not_taken_for_the_child() {
    let listener = listen().await;
    let port = listener.local_addr().expect("address").port();
    let mut app = Fixture::on(|dir| child(dir, port), adapter(SHARED.0, SHARED.1), PATIENCE);
    app.send(Command::Reset { run: Run(1) }).await;
    let resetting = || app.handle.view.borrow().state == State::Resetting;
    eventually_async("the reset is tried", resetting).await;
    assert!(app.handle.events.try_recv().is_err());
    drop(listener);
    assert_eq!(app.next().await, Event::Restored { run: Run(1) });
    app.stop.send(true).expect("the worker runs");
    app.task.await.expect("an orderly end");
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

#[test]
fn losses_tell_people_what_happened() {
    let told = Loss::Silent(Duration::from_secs(30)).to_string();
    assert_eq!(told, "the application did not answer within 30s");
}
