//! The hashmap, with clients as the paper has them.

use super::up::Up;
use super::wait;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What `printf … | nc` does: sends, half-closes, reads to the end.
pub(crate) fn netcat(address: &str, text: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn it_answers_clients_that_half_close_and_all_replicas_are_the_same() {
    let up = Up::start(&[]);
    assert_eq!(netcat(up.listen(), "PUT a 1\nPUT b two words\nGET a\n").unwrap(), "OK\nOK\nVALUE 1\n");
    assert_eq!(netcat(up.listen(), "GET b\nGET c\nSIZE\n").unwrap(), "VALUE two words\nNIL\n2\n");
    let digests: Vec<_> = up.settled().into_iter().map(|status| status["digest_now"].clone()).collect();
    assert!(digests[0].is_object() && digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    for sidecar in up.role("sidecar") {
        let (_, application) = sidecar.app.expect("a sidecar of up has an application");
        assert_eq!(netcat(&application, "SIZE\n").unwrap(), "2\n", "{application}");
    }
}

#[test]
fn pipelined_requests_of_many_clients_are_answered_in_each_ones_order() {
    let up = Up::start(&[]);
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let address = up.listen().to_owned();
            std::thread::spawn(move || {
                let requests: String = (0..200).map(|n| format!("PUT k{client} {n}\nGET k{client}\n")).collect();
                let replies: String = (0..200).map(|n| format!("OK\nVALUE {n}\n")).collect();
                assert_eq!(netcat(&address, &requests).unwrap(), replies);
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(netcat(up.listen(), "SIZE\n").unwrap(), "8\n");
}

#[test]
fn with_the_papers_protocol_a_connection_is_a_request() {
    let binary = super::binary::lockstep().to_str().unwrap();
    let up = Up::start(&["--protocol", "close", "--", binary, "hashmap", "--listen", "127.0.0.1:{port}", "--close"]);
    assert_eq!(netcat(up.listen(), "PUT a 1\n").unwrap(), "OK\n");
    assert_eq!(netcat(up.listen(), "GET a\n").unwrap(), "VALUE 1\n");
}

#[test]
fn a_thousand_idle_connections_cost_little() {
    let up = Up::start(&[]);
    assert_eq!(netcat(up.listen(), "PUT a 1\n").unwrap(), "OK\n");
    let ingress = up.role("ingress").remove(0);
    let before = resident_kib(ingress.pid);
    let count = 900;
    let idle: Vec<_> = (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect(up.listen()).unwrap();
            stream.write_all(b"GET a\n").unwrap();
            stream
        })
        .collect();
    for mut stream in &idle {
        let mut reply = [0; 8];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"VALUE 1\n");
    }
    wait::until("seen in the status", || {
        let status = ingress.status()?;
        if status["tcp_connections"].as_u64() >= Some(count) { Ok(()) } else { Err(status.to_string()) }
    });
    let each = resident_kib(ingress.pid).saturating_sub(before) * 1024 / count;
    assert!(each < 16 << 10, "each idle connection costs {each} bytes");
    assert_eq!(netcat(up.listen(), "GET a\n").unwrap(), "VALUE 1\n");
}

fn resident_kib(pid: u64) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn the_native_client_gets_the_reply_and_an_exit_code() {
    let up = Up::start(&[]);
    let call = |request: &str| {
        let mut command = Command::new(super::binary::lockstep());
        command.arg("call").arg("--data-dir").arg(up.data_dir()).arg(request);
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), output.stderr)
    };
    let (code, reply, error) = call("PUT a 1");
    assert_eq!((code, reply.as_str()), (Some(0), "OK\n"), "{}", String::from_utf8_lossy(&error));
    assert_eq!(netcat(up.listen(), "GET a\n").unwrap(), "VALUE 1\n");
}
