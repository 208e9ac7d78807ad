//! What TCP clients are told by real processes when things go wrong: the table of README.md. The ingress' own tests
//! have all its rows for all protocols.

use super::binary::lockstep;
use super::up::{Up, signal};
use super::wait;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// A connection that was sent this.
fn send(address: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // It may be closed before it has read everything.
    let _ = stream.write_all(bytes);
    stream
}

/// What it says until it closes.
fn rest(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the connection hangs"),
        // A reset is a close.
        _ => String::from_utf8_lossy(&said).into_owned(),
    }
}

fn refused(up: &Up, reason: &str) -> u64 {
    let ingress = up.role("ingress").remove(0);
    let (_, metrics) = lockstep_tests::driver::http::get(&ingress.admin, "/metrics").unwrap();
    let label = format!("lockstep_refused_total{{reason=\"{reason}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&label));
    line.unwrap_or_else(|| panic!("no {label} in {metrics}")).parse().unwrap()
}

/// Waits until so many connections are open.
fn left(up: &Up, connections: u64) {
    wait::until("without the connections that were closed", || {
        let status = up.role("ingress").remove(0).status()?;
        if status["tcp_connections"] == connections { Ok(()) } else { Err(status.to_string()) }
    });
}

/// Stops or continues two of the three servers.
fn majority(up: &Up, word: &str) {
    for sidecar in up.role("sidecar").into_iter().take(2) {
        signal(word, sidecar.pid);
    }
}

/// The same for the protocols that the hashmap speaks.
fn by_protocol(protocol: &str, request: &[u8], half_close: bool) {
    let binary = lockstep().to_str().unwrap();
    let mut arguments = vec!["--protocol", protocol, "--deadline", "2s", "--request-timeout", "1s"];
    arguments.extend(["--connections-max", "5", "--connections-per-address", "3", "--request-bytes", "1KiB"]);
    if protocol == "close" {
        arguments.extend(["--", binary, "hashmap", "--listen", "127.0.0.1:{port}", "--close"]);
    }
    let mut up = Up::start(&arguments);
    let ask = |expected: &str| {
        let stream = send(up.listen(), request);
        if half_close {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let mut said = vec![0; expected.len()];
        let mut stream = stream;
        stream.read_exact(&mut said).unwrap();
        assert_eq!(String::from_utf8_lossy(&said), expected);
        stream
    };
    drop(ask("OK\n"));
    left(&up, 0);

    // Too large: closed.
    assert_eq!(rest(send(up.listen(), &[b'x'; 2000])), "");
    assert_eq!(refused(&up, "too_long"), 1);
    left(&up, 0);
    // Half a request and then nothing: closed.
    assert_eq!(rest(send(up.listen(), &request[..3])), "");
    assert_eq!(refused(&up, "slow_request"), 1);
    // Too many: closed.
    left(&up, 0);
    let open: Vec<_> = (0..3).map(|_| send(up.listen(), b"")).collect();
    assert_eq!(rest(send(up.listen(), b"")), "");
    assert_eq!(refused(&up, "connections_per_address"), 1);
    drop(open);
    left(&up, 0);

    // No majority: closed at the deadline, and as it was when there is one again.
    majority(&up, "STOP");
    let stream = send(up.listen(), request);
    if half_close {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    assert_eq!(rest(stream), "");
    majority(&up, "CONT");
    drop(wait::until("answering again", || {
        let stream = send(up.listen(), request);
        if half_close {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let mut said = [0; 3];
        let mut stream = stream;
        stream.read_exact(&mut said).map_err(|error| error.to_string())?;
        Ok(stream)
    }));

    // The ingress stops: an idle connection is closed, in an orderly way.
    let idle = send(up.listen(), b"");
    let stopped = up.stop();
    assert_eq!(rest(idle), "");
    assert!(stopped.success());
}

#[test]
fn clients_that_speak_by_lines_are_told_by_closing() {
    by_protocol("line", b"PUT a 1\n", false);
}

#[test]
fn clients_of_the_papers_protocol_are_told_by_closing() {
    by_protocol("close", b"PUT a 1\n", true);
}

#[test]
fn with_a_quiet_period_clients_of_the_papers_protocol_need_not_half_close() {
    let binary = lockstep().to_str().unwrap();
    let mut arguments = vec!["--protocol", "close", "--quiet-period", "200ms"];
    arguments.extend(["--", binary, "hashmap", "--listen", "127.0.0.1:{port}", "--close"]);
    let up = Up::start(&arguments);
    assert_eq!(rest(send(up.listen(), b"PUT a 1\n")), "OK\n");
    assert_eq!(rest(send(up.listen(), b"GET a\n")), "VALUE 1\n");
}

#[test]
fn clients_of_redis_are_told_in_its_words_where_it_is_certain_and_else_by_closing() {
    if !super::binary::has_redis("clients_of_redis_are_told_in_its_words_where_it_is_certain_and_else_by_closing") {
        return;
    }
    let mut arguments = vec!["--deadline", "2s", "--request-timeout", "1s", "--idle-timeout", "30s"];
    arguments.extend(["--connections-max", "2"]);
    let up = super::redis::start(&arguments);
    let mut client = super::resp::Client::connect(up.listen()).unwrap();
    let mut ping = || client.command(&["SET", "a", "1"]);
    assert!(matches!(ping(), Ok(super::resp::Reply::Simple(_))));
    assert!(rest(send(up.listen(), b"*1\r\n:1\r\n")).starts_with("-ERR Protocol error"));
    left(&up, 1);
    assert_eq!(rest(send(up.listen(), b"*2\r\n$3\r\nGET\r\n")), "");
    assert_eq!(refused(&up, "slow_request"), 1);
    left(&up, 1);
    let second = super::resp::Client::connect(up.listen()).unwrap();
    wait::until("told that there are too many", || {
        let said = rest(send(up.listen(), b""));
        if said.starts_with("-LOCKSTEP too many connections") { Ok(()) } else { Err(said) }
    });
    drop(second);
    // It was given to the cluster and may run yet: no words.
    majority(&up, "STOP");
    assert!(ping().is_err());
    majority(&up, "CONT");
}
