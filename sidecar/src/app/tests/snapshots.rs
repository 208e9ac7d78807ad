//! The application's state in snapshots: saved, brought back, refused when damaged.

use super::*;
use crate::config::Dialect;
use tokio::io::AsyncBufReadExt;

/// A worker whose application is a child.
fn with_child(app: impl FnOnce(&Path) -> App, adapter: Adapter, mode: SnapshotMode) -> Fixture {
    let dir = Arc::new(TempDir::new());
    let mut settings = settings(dir.path(), app(dir.path()), adapter, PATIENCE);
    settings.snapshot = mode;
    Fixture::with(dir, settings)
}

fn snapshot_file(app: &Fixture, slot: u64) -> std::path::PathBuf {
    app.dir.path().join(format!("snapshots/{slot:020}.snapshot"))
}

#[tokio::test]
async fn a_redis_comes_back_with_every_kind_of_key_and_expiry() {
    if !has_redis() {
        return;
    }
    let port = free_port().await;
    let mode = SnapshotMode::Request(Dialect::Resp);
    let mut app = with_child(|dir| redis(dir, port), adapter(RESP.0, RESP.1), mode);
    app.reset(1).await;
    let many = "DEBUG POPULATE 5000 key 200\r\n";
    let binary = "*3\r\n$3\r\nSET\r\n$6\r\n\r\n \0\x01x\r\n$0\r\n\r\n";
    let long = format!("*3\r\n$3\r\nSET\r\n$4\r\nlong\r\n$20000000\r\n{}\r\n", "x".repeat(20_000_000));
    let requests = [
        many,
        binary,
        &long,
        "HSET h f v g w\r\n",
        "RPUSH l 1 2 3\r\n",
        "ZADD z 1 a\r\n",
        "SADD s a b\r\n",
        "XADD x 1-1 f v\r\n",
        "SET e 1 PX 100000000\r\n",
        "SELECT 5\r\n",
        "SET other 1\r\n",
        "SET e 1 PXAT 99999999999999\r\n",
    ];
    app.execute(1, 1, &requests).await;
    assert_eq!(app.replies(1, 1).await.len(), requests.len());
    app.execute(1, 2, &["DEBUG DIGEST\r\n"]).await;
    let digest = app.replies(1, 2).await;
    assert_eq!(app.dump(1, 2).await, Event::Dumped { slot: Slot(2) });
    let pid = app.handle.view.borrow().pid;
    app.execute(1, 3, &["SET late 1\r\n", "DEBUG DIGEST\r\n"]).await;
    assert_ne!(app.replies(1, 3).await[1], digest[0]);
    // Into the running one, then into a new one.
    for run in [2, 3] {
        assert_eq!(app.load(run, 2).await, Event::Restored { run: Run(run) });
        let (expiry, other) = ("PEXPIRETIME e\r\n", "EXISTS late\r\n");
        app.execute(run, 3, &["DEBUG DIGEST\r\n", other, "DBSIZE\r\n", "SELECT 5\r\n", expiry]).await;
        let replies = app.replies(run, 3).await;
        assert_eq!(replies[0], digest[0]);
        assert_eq!(replies[1..], [":0\r\n", ":5008\r\n", "+OK\r\n", ":99999999999999\r\n"]);
        if run == 2 {
            assert_eq!(app.handle.view.borrow().pid, pid);
            crate::app::supervisor::signal_group(pid.expect("a child"), rustix::process::Signal::KILL);
            assert_eq!(app.next().await, Event::Lost { run: Run(run) });
        }
    }
    assert_ne!(app.handle.view.borrow().pid, pid);
    app.end().await;
}

/// A hashmap in this process.
async fn hashmap() -> (App, JoinHandle<()>) {
    let listener = listen().await;
    let app = App::Address(listener.local_addr().expect("address"));
    (app, tokio::spawn(hashmap::serve(listener, hashmap::Options::default())))
}

#[tokio::test]
async fn a_hashmap_comes_back_in_pages() {
    let dir = Arc::new(TempDir::new());
    let mode = SnapshotMode::Request(Dialect::Hashmap);
    let entries: Vec<String> = (0..2000)
        .map(|number| format!("PUT key{number} {}\n", "\"value\" ".repeat(number / 10)))
        // Written as JSON it is longer than a line may be.
        .chain([format!("PUT long {}\r\r\n", "\u{1}".repeat(3 << 20))])
        .collect();
    let mut dumps = Vec::new();
    for (run, slot) in [(1, 0), (2, 1)] {
        let (app, _server) = hashmap().await;
        let large = Adapter { reply_bytes: 64 << 20, ..adapter(SHARED.0, SHARED.1) };
        let mut settings = settings(dir.path(), app, large, PATIENCE);
        settings.snapshot = mode.clone();
        let mut app = Fixture::with(Arc::clone(&dir), settings);
        if slot == 0 {
            app.reset(run).await;
            app.execute(run, 1, &entries.iter().map(String::as_str).collect::<Vec<_>>()).await;
            assert_eq!(app.replies(run, 1).await, vec!["OK\n"; entries.len()]);
            assert_eq!(app.dump(run, 1).await, Event::Dumped { slot: Slot(1) });
        } else {
            assert_eq!(app.load(run, slot).await, Event::Restored { run: Run(run) });
        }
        app.execute(run, 2, &["SIZE\n", "DUMP\n"]).await;
        dumps.push(app.replies(run, 2).await);
        app.end().await;
    }
    assert_eq!(dumps[0][0], "2001\n");
    assert!(dumps[0] == dumps[1], "the loaded map is another one");
}

/// The next request on the next connection; those that end without one are connections for calls.
async fn answer_next(listener: &TcpListener, reply: &str) -> String {
    loop {
        let mut stream = accept(listener).await;
        let mut request = String::new();
        let read = tokio::io::BufReader::new(&mut stream).read_line(&mut request).await;
        if read.is_ok_and(|count| count > 0) {
            stream.write_all(reply.as_bytes()).await.expect("write");
            return request;
        }
    }
}

#[tokio::test]
async fn configured_requests_save_and_load() {
    let listener = listen().await;
    let dir = Arc::new(TempDir::new());
    let app = App::Address(listener.local_addr().expect("address"));
    let mut settings = settings(dir.path(), app, adapter(Protocol::Line, Connections::PerRequest), PATIENCE);
    settings.reset_request = Some("CLEAR".into());
    let (dump, load) = ("EXPORT all".to_owned(), "IMPORT".to_owned());
    settings.snapshot = SnapshotMode::Request(Dialect::Configured { dump, load });
    let mut app = Fixture::with(dir, settings);
    app.reset(1).await;
    let (dumped, request) = tokio::join!(app.dump(1, 1), answer_next(&listener, "a=1 b=2\n"));
    assert_eq!((dumped, request.as_str()), (Event::Dumped { slot: Slot(1) }, "EXPORT all\n"));
    let (loaded, request) = tokio::join!(app.load(2, 1), answer_next(&listener, "done\n"));
    assert_eq!((loaded, request.as_str()), (Event::Restored { run: Run(2) }, "IMPORT a=1 b=2\n"));
    // It was sent something by now, and is left clean: the reset is asked for.
    let (loaded, cleared) = tokio::join!(app.load(3, 1), async {
        let cleared = answer_next(&listener, "done\n").await;
        answer_next(&listener, "done\n").await;
        cleared
    });
    assert_eq!((loaded, cleared.as_str()), (Event::Restored { run: Run(3) }, "CLEAR\n"));
}

/// The next request of HTTP on the next connection, of so many bytes, is answered.
async fn answer_http(listener: &TcpListener, request: &str, reply: &str) {
    let mut stream = accept(listener).await;
    read_until(&mut stream, request).await;
    stream.write_all(reply.as_bytes()).await.expect("write");
}

#[tokio::test]
async fn in_http_the_dump_is_a_body_and_another_status_is_a_failure() {
    let listener = listen().await;
    let dir = Arc::new(TempDir::new());
    let app = App::Address(listener.local_addr().expect("address"));
    let mut settings = settings(dir.path(), app, adapter(Protocol::Http, Connections::PerRequest), PATIENCE);
    let (dump, load) = ("GET /dump".to_owned(), "PUT /load".to_owned());
    settings.snapshot = SnapshotMode::Request(Dialect::Configured { dump, load });
    settings.empty_probe = Some(crate::config::Probe { request: "GET /size".into(), reply: "0".into() });
    let mut app = Fixture::with(dir, settings);
    let of = |method: &str, length: &str| {
        format!("{method} HTTP/1.1\r\nHost: localhost\r\n{length}Connection: close\r\n\r\n")
    };
    let (size, dump) = (of("GET /size", ""), of("GET /dump", ""));
    let empty = "HTTP/1.0 200 OK\r\n\r\n0\n";
    tokio::join!(app.reset(1), answer_http(&listener, &size, empty));
    let failed = "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n";
    let (dumped, ()) = tokio::join!(app.dump(1, 1), answer_http(&listener, &dump, failed));
    assert_eq!(dumped, Event::DumpFailed { slot: Slot(1) });
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na\n\r\n1\r\nb\r\n0\r\n\r\n";
    let (dumped, ()) = tokio::join!(app.dump(1, 1), answer_http(&listener, &dump, chunked));
    assert_eq!(dumped, Event::Dumped { slot: Slot(1) });
    let load = of("PUT /load", "Content-Length: 3\r\n") + "a\nb";
    let (loaded, ()) = tokio::join!(app.load(2, 1), async {
        answer_http(&listener, &size, empty).await;
        answer_http(&listener, &load, "HTTP/1.1 204 No Content\r\n\r\n").await;
    });
    assert_eq!(loaded, Event::Restored { run: Run(2) });
}

#[tokio::test]
async fn a_damaged_or_missing_snapshot_is_not_loaded() {
    let port = free_port().await;
    let print = |text: &str| vec!["sh".to_owned(), "-c".to_owned(), text.to_owned()];
    let mode = SnapshotMode::Command { dump: print("head -c 3000000 /dev/zero"), load: print("cat > loaded") };
    let mut app = with_child(|dir| child(dir, port), adapter(SHARED.0, SHARED.1), mode);
    app.reset(1).await;
    assert_eq!(app.dump(1, 1).await, Event::Dumped { slot: Slot(1) });
    let file = snapshot_file(&app, 1);
    let mut bytes = std::fs::read(&file).expect("a snapshot");
    bytes[2_500_000] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    assert_eq!(app.load(2, 1).await, Event::SnapshotLost { slot: Slot(1) });
    assert_eq!(app.load(3, 7).await, Event::SnapshotLost { slot: Slot(7) });
    app.reset(4).await;
    app.end().await;
}

#[tokio::test]
async fn programs_of_the_user_save_and_load() {
    let port = free_port().await;
    let print = |text: &str| vec!["sh".to_owned(), "-c".to_owned(), text.to_owned(), "{port}".to_owned()];
    let mode = SnapshotMode::Command {
        dump: print("test $LOCKSTEP_SLOT != 9 || { echo no disk >&2; exit 3; }; echo $LOCKSTEP_SLOT $HOST $PORT $0"),
        load: print("cat > loaded"),
    };
    let mut app = with_child(|dir| child(dir, port), adapter(SHARED.0, SHARED.1), mode);
    app.reset(1).await;
    app.execute(1, 1, &["x\n"]).await;
    assert_eq!(app.replies(1, 1).await, ["1\n"]);
    assert_eq!(app.dump(1, 9).await, Event::DumpFailed { slot: Slot(9) });
    assert_eq!(app.dump(1, 1).await, Event::Dumped { slot: Slot(1) });
    app.execute(1, 2, &["x\n"]).await;
    assert_eq!(app.replies(1, 2).await, ["2\n"], "the run goes on");
    assert_eq!(app.load(2, 1).await, Event::Restored { run: Run(2) });
    let loaded = std::fs::read_to_string(app.dir.path().join("app/loaded")).expect("what was loaded");
    assert_eq!(loaded, format!("1 127.0.0.1 {port} {port}\n"));
    app.end().await;
}

#[tokio::test]
async fn a_dump_is_given_up_for_another_beginning_and_for_a_death() {
    let port = free_port().await;
    let forever = ["sh", "-c", "touch begun; exec sleep 1000"].map(str::to_owned).to_vec();
    let mode = SnapshotMode::Command { dump: forever.clone(), load: forever };
    let mut app = with_child(|dir| child(dir, port), adapter(SHARED.0, SHARED.1), mode);
    app.reset(1).await;
    let image = || Box::new(Image::genesis(ClusterConfig::of(3, "line/shared", Durability::Sync)));
    let file = app.dir.path().join("app/begun");
    app.send(Command::Dump { run: Run(1), image: image() }).await;
    eventually_async("the dump is begun", || file.exists()).await;
    app.send(Command::Reset { run: Run(2), snapshot: None }).await;
    assert_eq!(app.next().await, Event::DumpFailed { slot: Slot(0) });
    assert_eq!(app.next().await, Event::Restored { run: Run(2) });
    std::fs::remove_file(&file).expect("the program ran there");
    app.send(Command::Dump { run: Run(2), image: image() }).await;
    eventually_async("the dump is begun", || file.exists()).await;
    let pid = app.handle.view.borrow().pid.expect("a child has a pid");
    crate::app::supervisor::signal_group(pid, rustix::process::Signal::KILL);
    assert_eq!(app.next().await, Event::DumpFailed { slot: Slot(0) });
    assert_eq!(app.next().await, Event::Lost { run: Run(2) });
    assert_eq!(app.snapshots.newest(), None);
    app.end().await;
}

#[tokio::test]
async fn a_directory_is_archived_between_two_incarnations_and_emptied_by_a_reset() {
    let port = free_port().await;
    let mut app = with_child(|dir| child(dir, port), adapter(SHARED.0, SHARED.1), SnapshotMode::Directory);
    app.reset(1).await;
    let dir = app.dir.path().join("app");
    std::fs::create_dir(dir.join("folder")).expect("made");
    std::fs::write(dir.join("folder/file"), vec![7; 600_000]).expect("written");
    std::os::unix::fs::symlink("folder/file", dir.join("link")).expect("linked");
    app.execute(1, 1, &["x\n", "x\n", "keep\n"]).await;
    assert_eq!(app.replies(1, 1).await, ["1\n", "2\n", "2\n"]);
    let pid = app.handle.view.borrow().pid;
    assert_eq!(app.dump(1, 1).await, Event::Dumped { slot: Slot(1) });
    assert_ne!(app.handle.view.borrow().pid, pid);
    app.execute(1, 2, &["x\n", "keep\n"]).await;
    assert_eq!(app.replies(1, 2).await, ["3\n", "3\n"], "the run goes on");
    std::fs::remove_dir_all(dir.join("folder")).expect("removed");
    assert_eq!(app.load(2, 1).await, Event::Restored { run: Run(2) });
    assert_eq!(std::fs::read(dir.join("link")).expect("a link to a file"), vec![7; 600_000]);
    app.execute(2, 2, &["x\n"]).await;
    assert_eq!(app.replies(2, 2).await, ["3\n"]);
    app.reset(3).await;
    assert!(!dir.join("link").is_symlink() && !dir.join("folder").exists());
    app.execute(3, 1, &["x\n"]).await;
    assert_eq!(app.replies(3, 1).await, ["1\n"]);
    app.end().await;
}

#[tokio::test]
async fn without_a_way_no_snapshot_is_taken_and_the_run_goes_on() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, SHARED, PATIENCE);
    app.reset(1).await;
    let _first = accept(&listener).await;
    assert_eq!(app.dump(1, 1).await, Event::DumpFailed { slot: Slot(1) });
    let mut stream = accept(&listener).await;
    app.execute(1, 2, &["a\n"]).await;
    read_until(&mut stream, "a\n").await;
    stream.write_all(b"A\n").await.expect("write");
    assert_eq!(app.replies(1, 2).await, ["A\n"]);
}
