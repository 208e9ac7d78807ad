//! The protocol `http`: a web server, and clients that notice everything.

use super::up::{Up, signal};
use super::wait;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A reply as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reply {
    code: u16,
    closes: bool,
    length: Option<usize>,
    body: String,
}

/// A client that keeps its connection.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    fn send(&mut self, text: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(text.as_bytes())
    }

    /// One request with one reply.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> io::Result<Reply> {
        self.send(&request(method, path, body))?;
        self.reply(method == "HEAD")
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// The next reply; `head`: it has no body.
    fn reply(&mut self, head: bool) -> io::Result<Reply> {
        let status = self.line()?;
        let code = status.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let code = code.ok_or_else(|| io::Error::other(format!("not a status line: {status:?}")))?;
        let mut reply = Reply { code, closes: false, length: None, body: String::new() };
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(": ") {
                None => break,
                Some(("content-length", value)) => reply.length = value.parse().ok(),
                Some(("connection", value)) => reply.closes = value == "close",
                Some(("transfer-encoding", _)) => return Err(io::Error::other("a reply in chunks")),
                Some(_) => {}
            }
        }
        let mut body = vec![0; if head { 0 } else { reply.length.unwrap_or(0) }];
        self.stream.read_exact(&mut body)?;
        reply.body = String::from_utf8_lossy(&body).into_owned();
        Ok(reply)
    }

    /// Whether nothing more comes.
    fn is_over(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0))
    }
}

fn request(method: &str, path: &str, body: &str) -> String {
    let length = if method == "PUT" { format!("Content-Length: {}\r\n", body.len()) } else { String::new() };
    format!("{method} {path} HTTP/1.1\r\nHost: h\r\n{length}\r\n{body}")
}

fn reply(code: u16, body: &str) -> Reply {
    Reply { code, closes: false, length: Some(body.len()), body: body.to_owned() }
}

fn start(more: &[&str]) -> Up {
    let mut arguments = vec!["--protocol", "http", "--app-timeout", "2s"];
    arguments.extend(["--snapshot-dump-request", "GET /dump", "--snapshot-load-request", "PUT /load"]);
    arguments.extend(["--app-reset-request", "POST /reset", "--app-empty-request", "GET /size"]);
    arguments.extend(["--app-empty-reply", "0"]);
    arguments.extend(more);
    arguments.extend(["--", env!("CARGO_BIN_EXE_web"), "{port}"]);
    Up::start(&arguments)
}

/// Waits until every copy holds the same, and returns it.
fn dump(up: &Up) -> String {
    wait::until("the same on all replicas", || {
        let mut dumps = Vec::new();
        for sidecar in up.role("sidecar") {
            let (_, address) = sidecar.app.ok_or("a sidecar has no application")?;
            let dump = Client::connect(&address).and_then(|mut client| client.ask("GET", "/dump", ""));
            dumps.push(dump.map_err(|error| format!("{address}: {error}"))?.body);
        }
        if dumps.iter().all(|dump| *dump == dumps[0]) { Ok(dumps.remove(0)) } else { Err(format!("{dumps:?}")) }
    })
}

/// What every client may rely on, however the application's connections are used.
fn is_spoken(more: &[&str]) {
    let up = start(more);
    let mut client = Client::connect(up.listen()).unwrap();
    assert_eq!(client.ask("PUT", "/a", "one").unwrap(), reply(201, ""));
    assert_eq!(client.ask("GET", "/a", "").unwrap(), reply(200, "one"));
    let head = Reply { length: Some(3), ..reply(200, "") };
    assert_eq!(client.ask("HEAD", "/a", "").unwrap(), head);
    assert_eq!(client.ask("DELETE", "/a", "").unwrap(), Reply { length: None, ..reply(204, "") });
    assert_eq!(client.ask("GET", "/a", "").unwrap(), reply(404, "no such key\n"));
    // The application closes after each of these, and behind none of ours.
    let all: String = (0..20).map(|_| request("POST", "/n", "") + &request("GET", "/n", "")).collect();
    client.send(&all).unwrap();
    for count in 1..=20 {
        assert_eq!(client.reply(false).unwrap(), reply(200, &count.to_string()));
        assert_eq!(client.reply(false).unwrap(), reply(200, &count.to_string()));
    }
    let fields = "Transfer-Encoding: chunked\r\nTrailer: T\r\n\r\n4;x=y\r\nlong\r\n1\r\n.\r\n0\r\nT: v\r\n\r\n";
    client.send(&format!("PUT /c HTTP/1.1\r\nHost: h\r\n{fields}")).unwrap();
    assert_eq!(client.reply(false).unwrap(), reply(201, ""));
    client.send("PUT /e HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert_eq!(client.reply(false).unwrap().code, 100);
    client.send("ok").unwrap();
    assert_eq!(client.reply(false).unwrap(), reply(201, ""));
    client.send("GET /c HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(client.reply(false).unwrap(), Reply { closes: true, ..reply(200, "long.") });
    assert!(client.is_over());
    assert_eq!(dump(&up), "/c=long.\n/e=ok\n/n=20\n");
    let statuses = up.settled();
    for status in &statuses {
        assert_eq!(status["digest_now"], statuses[0]["digest_now"]);
        assert_eq!((&status["divergences"], &status["app_resets"]), (&0.into(), &0.into()), "{status}");
    }
}

#[test]
fn a_web_server_is_replicated_with_a_connection_for_each_request() {
    is_spoken(&[]);
}

#[test]
fn a_web_server_is_replicated_with_one_connection_that_it_closes_now_and_then() {
    is_spoken(&["--app-connections", "shared"]);
}

#[test]
fn what_is_no_request_is_told_so_and_nothing_of_it_runs() {
    let up = start(&[]);
    for (bytes, code) in [
        ("PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        ("PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n", 413),
        ("CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n", 501),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ] {
        let mut client = Client::connect(up.listen()).unwrap();
        client.send(&(request("PUT", "/before", "it") + bytes)).unwrap();
        assert_eq!(client.reply(false).unwrap(), reply(201, ""));
        let told = client.reply(false).unwrap();
        assert_eq!((told.code, told.closes), (code, true), "{bytes}: {told:?}");
        assert!(client.is_over(), "{bytes}");
    }
    // Half a request is none.
    let mut client = Client::connect(up.listen()).unwrap();
    client.send("PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab").unwrap();
    client.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    assert!(client.is_over());
    assert_eq!(dump(&up), "/before=it\n");
}

#[test]
fn what_all_applications_hang_on_is_undone_and_refused_and_the_connection_goes_on() {
    let up = start(&["--deadline", "60s"]);
    let mut client = Client::connect(up.listen()).unwrap();
    assert_eq!(client.ask("PUT", "/a", "1").unwrap(), reply(201, ""));
    let told = client.ask("GET", "/hang", "").unwrap();
    assert_eq!((told.code, told.closes), (503, false), "{told:?}");
    assert!(told.body.contains("will not be run"), "{told:?}");
    assert_eq!(client.ask("GET", "/a", "").unwrap(), reply(200, "1"));
}

#[test]
fn without_a_quorum_what_was_sent_is_unknown_and_what_was_not_is_refused() {
    let up = start(&["--no-restart", "--deadline", "5s"]);
    let mut client = Client::connect(up.listen()).unwrap();
    assert_eq!(client.ask("PUT", "/a", "1").unwrap(), reply(201, ""));
    for follower in up.leader().1 {
        signal("KILL", follower.pid);
    }
    // Its session is open: the leader was given the request.
    let told = client.ask("HEAD", "/a", "").unwrap();
    assert_eq!((told.code, told.closes), (504, true), "{told:?}");
    assert!(client.is_over());
    // No SMaRtClient is left to be given another one.
    for part in up.role("smart-client") {
        signal("KILL", part.pid);
    }
    wait::until("refused", || {
        let mut client = Client::connect(up.listen()).map_err(|error| error.to_string())?;
        let told = client.ask("PUT", "/a", "2").map_err(|error| error.to_string())?;
        let refused = told.code == 503 && !told.closes && told.body.contains("not run");
        if refused { Ok(()) } else { Err(format!("{told:?}")) }
    });
}

/// Counts up; an unknown outcome may have counted, and nothing else.
fn count_up(address: &str, path: &str, progress: &AtomicU64, stop: &AtomicBool) -> Result<(), String> {
    let (mut low, mut high) = (0, 0);
    let mut client = None;
    while !stop.load(Ordering::Relaxed) {
        let mut open = match client.take() {
            Some(open) => open,
            None => Client::connect(address).map_err(|error| error.to_string())?,
        };
        match open.ask("POST", path, "") {
            Ok(Reply { code: 200, body, .. }) => {
                let count = body.parse::<u64>().map_err(|_| format!("no number: {body}"))?;
                if !(low + 1..=high + 1).contains(&count) {
                    return Err(format!("{count} is not between {} and {}", low + 1, high + 1));
                }
                (low, high) = (count, count);
                progress.fetch_add(1, Ordering::Relaxed);
                client = Some(open);
            }
            Ok(Reply { code: 503, .. }) => client = Some(open),
            Ok(Reply { code: 504, closes: true, .. }) => high += 1,
            other => return Err(format!("{other:?}")),
        }
    }
    Ok(())
}

#[test]
fn no_answer_is_wrong_while_leaders_and_applications_are_killed() {
    let up = start(&["--deadline", "30s"]);
    let (stop, progress) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let (address, stop, progress) = (up.listen().to_owned(), stop.clone(), progress.clone());
            std::thread::spawn(move || count_up(&address, &format!("/{number}"), &progress, &stop))
        })
        .collect();
    let goes_on = |when: &str| {
        let from = progress.load(Ordering::Relaxed);
        wait::until(when, || match progress.load(Ordering::Relaxed) {
            now if now >= from + 40 || clients.iter().any(std::thread::JoinHandle::is_finished) => Ok(()),
            now => Err(format!("at {now}")),
        });
    };
    goes_on("before the faults");
    let leader = up.leader().0;
    signal("KILL", leader.pid);
    goes_on("after the leader's end");
    up.restarted("sidecar", leader.id, leader.pid);
    let (pid, _) = up.leader().1.remove(0).app.expect("a sidecar of up has an application");
    signal("KILL", pid);
    goes_on("after an application's end");
    stop.store(true, Ordering::Relaxed);
    let faults: Vec<_> = clients.into_iter().filter_map(|client| client.join().unwrap().err()).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    dump(&up);
}

#[test]
fn its_state_comes_back_by_the_requests_that_the_user_names() {
    let up = start(&["--snapshot-every-requests", "20"]);
    let mut client = Client::connect(up.listen()).unwrap();
    for number in 0..100 {
        assert_eq!(client.ask("PUT", &format!("/k{}", number % 7), &number.to_string()).unwrap(), reply(201, ""));
    }
    let before = dump(&up);
    wait::until("snapshots", || {
        let taken: Result<Vec<_>, _> = up.role("sidecar").iter().map(super::up::Process::status).collect();
        let taken = taken?;
        let all = taken.iter().all(|status| status["snapshot_slot"].as_u64() > Some(0));
        if all { Ok(()) } else { Err(format!("{taken:?}")) }
    });
    for sidecar in up.role("sidecar") {
        let (pid, _) = sidecar.app.clone().expect("a sidecar of up has an application");
        signal("KILL", pid);
        wait::until("rebuilt", || {
            let now = up.role("sidecar").into_iter().find(|part| part.id == sidecar.id).expect("it is there");
            match &now.app {
                Some((other, _)) if *other != pid => now.ready(),
                _ => Err(up.log()),
            }
        });
    }
    assert_eq!(dump(&up), before);
    assert!((0..3).any(|id| up.log_of(&format!("sidecar-{id}")).contains("the snapshot is loaded")));
}
