//! The connections that sessions have of their own, and others in their place (rule 27).

use super::*;
use crate::config::Dialect;

const OWN: (Protocol, Connections) = (Protocol::Resp, Connections::PerSession);

/// The state of a connection whose other end is closed, as the kernel writes it.
const CLOSE_WAIT: &str = "08";

/// A Redis with another user beside the default one, and a connection for each session.
fn start(port: u16, more: &[&str]) -> Fixture {
    start_with(port, more, SnapshotMode::Request(Dialect::Resp))
}

fn start_with(port: u16, more: &[&str], snapshot: SnapshotMode) -> Fixture {
    let dir = Arc::new(TempDir::new());
    let App::Command { mut argv, port, dir: app } = redis(dir.path(), port) else { unreachable!("it is a child") };
    argv.extend(["--user", "alice", "on", ">secret", "~*", "+@all"].map(str::to_owned));
    argv.extend(more.iter().copied().map(str::to_owned));
    let app = App::Command { argv, port, dir: app };
    let mut settings = settings(dir.path(), app, adapter(OWN.0, OWN.1), PATIENCE);
    settings.snapshot = snapshot;
    Fixture::with(dir, settings)
}

impl Fixture {
    /// Executes lines of sessions in a slot of their own; the replies.
    async fn ask(&mut self, run: u64, slot: u64, lines: &[(u128, &str)]) -> Vec<String> {
        let lines: Vec<(u128, String)> = lines.iter().map(|(client, line)| (*client, format!("{line}\r\n"))).collect();
        let lines: Vec<(u128, &str)> = lines.iter().map(|(client, line)| (*client, line.as_str())).collect();
        self.execute_as(run, slot, &lines).await;
        self.replies(run, slot).await
    }
}

#[tokio::test]
async fn what_a_connection_remembers_comes_back_with_a_snapshot() {
    if !has_redis() {
        return;
    }
    let mut app = start(free_port().await, &[]);
    app.reset(1).await;
    let before = [
        (1, "SELECT 3"),
        (1, "HELLO 3 AUTH alice secret SETNAME one"),
        (1, "CLIENT NO-EVICT on"),
        (1, "SELECT 16"),
        (2, "SELECT 5"),
        (2, "MULTI"),
        (2, "SET queued 1"),
        (2, "SELECT 6"),
        (3, "SELECT 7"),
        (3, "MULTI"),
        (3, "GET"),
        (4, "SET k 1"),
    ];
    let replies = app.ask(1, 1, &before).await;
    assert!(replies[3].starts_with("-ERR DB index is out of range"), "{replies:?}");
    assert_eq!(app.dump(1, 1).await, Event::Dumped { slot: Slot(1) });
    let after = [
        (1, "SET one 1"),
        (1, "CLIENT GETNAME"),
        (1, "ACL WHOAMI"),
        (1, "HGETALL none"),
        (2, "EXEC"),
        (2, "SET two 2"),
        (2, "DISCARD"),
        (3, "EXEC"),
        (3, "SET three 3"),
        (4, "GET k"),
        (4, "DEBUG DIGEST"),
    ];
    let expected = app.ask(1, 2, &after).await;
    assert_eq!(expected[1..5], ["$3\r\none\r\n", "$5\r\nalice\r\n", "%0\r\n", "*2\r\n+OK\r\n+OK\r\n"]);
    assert!(expected[7].starts_with("-EXECABORT"), "{expected:?}");
    let flags = |info: &str| info.split(' ').find(|field| field.starts_with("flags=")).map(str::to_owned);
    let own = app.ask(1, 3, &[(1, "CLIENT INFO")]).await;
    // Into the running one, then into a new one.
    for run in [2, 3] {
        assert_eq!(app.load(run, 1).await, Event::Restored { run: Run(run) });
        assert_eq!(app.ask(run, 2, &after).await, expected);
        let now = app.ask(run, 3, &[(1, "CLIENT INFO")]).await;
        assert!(flags(&now[0]).is_some() && flags(&now[0]) == flags(&own[0]), "{now:?} and {own:?}");
        if run == 2 {
            let pid = app.handle.view.borrow().pid;
            crate::app::supervisor::signal_group(pid.expect("a child"), rustix::process::Signal::KILL);
            assert_eq!(app.next().await, Event::Lost { run: Run(run) });
        }
    }
    // Without a snapshot nothing is remembered.
    app.reset(4).await;
    assert_eq!(app.ask(4, 1, &[(1, "ACL WHOAMI"), (3, "EXEC")]).await[0], "$7\r\ndefault\r\n");
    app.end().await;
}

#[tokio::test]
async fn a_watched_key_that_changed_before_or_after_the_snapshot_lets_no_transaction_run() {
    if !has_redis() {
        return;
    }
    let mut app = start(free_port().await, &[]);
    app.reset(1).await;
    let before = [
        (1, "WATCH a"),
        (2, "SELECT 2"),
        (2, "WATCH b"),
        (2, "SELECT 0"),
        (3, "WATCH c"),
        (3, "MULTI"),
        (3, "SET three 1"),
        (4, "SET a 1"),
    ];
    app.ask(1, 1, &before).await;
    assert_eq!(app.dump(1, 1).await, Event::Dumped { slot: Slot(1) });
    // The first was changed before, the second is after, the third never.
    let after = [
        (4, "SELECT 2"),
        (4, "SET b 1"),
        (1, "MULTI"),
        (1, "SET one 1"),
        (1, "EXEC"),
        (2, "MULTI"),
        (2, "SET two 1"),
        (2, "EXEC"),
        (3, "EXEC"),
        (1, "MULTI"),
        (1, "SET one 1"),
        (1, "EXEC"),
        (1, "DEBUG DIGEST"),
    ];
    let expected = app.ask(1, 2, &after).await;
    assert_eq!([&expected[4], &expected[7], &expected[8]], ["*-1\r\n", "*-1\r\n", "*1\r\n+OK\r\n"]);
    for run in [2, 3] {
        assert_eq!(app.load(run, 1).await, Event::Restored { run: Run(run) });
        assert_eq!(app.dump(run, 1).await, Event::Dumped { slot: Slot(1) }, "of the new connections");
        assert_eq!(app.ask(run, 2, &after).await, expected);
    }
    app.end().await;
}

#[tokio::test]
async fn an_idle_connection_that_the_application_closed_is_made_anew_unless_it_watches() {
    if !has_redis() {
        return;
    }
    let mut app = start(free_port().await, &[]);
    app.reset(1).await;
    let lines = [(1, "SELECT 3"), (1, "CLIENT SETNAME me"), (2, "MULTI"), (2, "SET a 1"), (3, "ECHO x")];
    app.ask(1, 1, &lines).await;
    // As its time-out for idle clients does it.
    assert_eq!(app.ask(1, 2, &[(4, "CLIENT KILL TYPE normal SKIPME yes")]).await, [":3\r\n"]);
    let again = [(1, "SET b 1"), (1, "CLIENT GETNAME"), (2, "EXEC"), (3, "ECHO x"), (4, "EXISTS a b")];
    let replies = app.ask(1, 3, &again).await;
    assert_eq!(replies, ["+OK\r\n", "$2\r\nme\r\n", "*1\r\n+OK\r\n", "$1\r\nx\r\n", ":1\r\n"]);
    app.ask(1, 4, &[(2, "WATCH a"), (4, "CLIENT KILL TYPE normal SKIPME yes")]).await;
    app.execute_as(1, 5, &[(2, "MULTI\r\n")]).await;
    assert_eq!(app.next().await, Event::Lost { run: Run(1) });
    // Nor is there a snapshot that does not know whether it changed.
    app.reset(2).await;
    app.ask(2, 1, &[(2, "WATCH a"), (4, "CLIENT KILL TYPE normal SKIPME yes")]).await;
    assert_eq!(app.dump(2, 1).await, Event::DumpFailed { slot: Slot(1) });
    assert_eq!(app.next().await, Event::Lost { run: Run(2) });
    app.end().await;
}

#[tokio::test]
async fn a_snapshot_that_ends_the_application_ends_no_state_of_a_connection() {
    if !has_redis() {
        return;
    }
    let mut app = start_with(free_port().await, &["--save", "900 1"], SnapshotMode::Directory);
    app.reset(1).await;
    let before = [
        (1, "SELECT 3"),
        (1, "WATCH a"),
        (2, "WATCH b"),
        (2, "MULTI"),
        (2, "SET two 1"),
        (3, "WATCH c"),
        (4, "SELECT 3"),
        (4, "SET a 1"),
    ];
    app.ask(1, 1, &before).await;
    assert_eq!(app.dump(1, 1).await, Event::Dumped { slot: Slot(1) });
    let after = [
        (4, "SET four 1"),
        (4, "SELECT 0"),
        (4, "SET c 1"),
        (1, "MULTI"),
        (1, "EXEC"),
        (2, "EXEC"),
        (3, "MULTI"),
        (3, "EXEC"),
        (1, "EXISTS four"),
    ];
    let expected =
        ["+OK\r\n", "+OK\r\n", "+OK\r\n", "+OK\r\n", "*-1\r\n", "*1\r\n+OK\r\n", "+OK\r\n", "*-1\r\n", ":1\r\n"];
    assert_eq!(app.ask(1, 2, &after).await, expected, "the run goes on");
    assert_eq!(app.load(2, 1).await, Event::Restored { run: Run(2) });
    assert_eq!(app.ask(2, 2, &after).await, expected);
    app.end().await;
}

#[tokio::test]
async fn where_the_application_does_not_tell_what_changed_there_is_no_snapshot_while_somebody_watches() {
    if !has_redis() {
        return;
    }
    let mut app = start(free_port().await, &["--rename-command", "CLIENT", ""]);
    app.reset(1).await;
    app.ask(1, 1, &[(1, "WATCH a")]).await;
    assert_eq!(app.dump(1, 1).await, Event::DumpFailed { slot: Slot(1) });
    app.ask(1, 2, &[(1, "UNWATCH")]).await;
    assert_eq!(app.dump(1, 2).await, Event::Dumped { slot: Slot(2) });
    app.end().await;
}

#[tokio::test]
async fn a_state_that_cannot_be_brought_back_ends_the_run_and_blames_no_call() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, OWN, PATIENCE);
    app.send(Command::Reset { run: Run(1), snapshot: None }).await;
    for answer in [":0\r\n", "-ERR unknown command\r\n"] {
        let mut stream = accept(&listener).await;
        let mut read = [0; 64];
        assert!(stream.read(&mut read).await.expect("a question") > 0);
        stream.write_all(answer.as_bytes()).await.expect("write");
    }
    assert_eq!(app.next().await, Event::Restored { run: Run(1) });
    app.execute_as(1, 1, &[(1, "AUTH secret\r\n")]).await;
    let mut stream = accept(&listener).await;
    read_until(&mut stream, "AUTH secret\r\n").await;
    stream.write_all(b"+OK\r\n").await.expect("write");
    assert_eq!(app.replies(1, 1).await, ["+OK\r\n"]);
    drop(stream);
    let port = format!(":{:04X}", listener.local_addr().expect("address").port());
    eventually_async("its end has arrived", || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
        let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines.any(|fields| fields[2].ends_with(&port) && fields[3] == CLOSE_WAIT)
    })
    .await;
    app.execute_as(1, 2, &[(1, "GET a\r\n")]).await;
    let mut stream = accept(&listener).await;
    read_until(&mut stream, "AUTH secret\r\n").await;
    stream.write_all(b"-WRONGPASS no\r\n").await.expect("write");
    assert_eq!(app.next().await, Event::Lost { run: Run(1) });
}
