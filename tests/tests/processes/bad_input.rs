//! Bytes that make no sense, at every port.

use super::binary::has_redis;
use super::hashmap::netcat;
use super::redis;
use super::resp::{Client, Reply};
use super::up::{Up, lives};
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

/// What is said to bytes that may be anything; the connection must end.
fn shout(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // The other end may close before it has read everything: that is its right.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the connection hangs"),
        _ => String::from_utf8_lossy(&said).into_owned(),
    }
}

#[test]
fn clients_that_send_rubbish_are_told_and_closed_and_harm_nobody() {
    if !has_redis("clients_that_send_rubbish_are_told_and_closed_and_harm_nobody") {
        return;
    }
    let up = redis::start(&[]);
    let mut bystander = Client::connect(up.listen()).unwrap();
    let long = [b"*1\r\n$".as_slice(), b"9".repeat(100).as_slice()].concat();
    let rubbish: [&[u8]; 6] = [
        b"*1\r\n:1\r\n",
        b"*1\r\n$1073741824\r\nx",
        b"*1000000000\r\n",
        b"*2\r\n$3\r\nGET\r\n$-5\r\n",
        b"*1\r\n$3\r\nGETxx",
        &long,
    ];
    for bytes in rubbish {
        let said = shout(up.listen(), bytes);
        assert!(said.starts_with("-ERR"), "{:?} was answered with {said:?}", String::from_utf8_lossy(bytes));
    }
    // Half a request: nothing to answer.
    assert!(!shout(up.listen(), b"*2\r\n$3\r\nGET\r\n").starts_with('+'));
    for seed in 0..50_u64 {
        let noise: Vec<u8> =
            (0..4000_u64).map(|n| (n.wrapping_mul(seed.wrapping_mul(6_364_136_223)) >> 7) as u8).collect();
        shout(up.listen(), &noise);
    }
    assert_eq!(bystander.command(&["INCR", "x"]).unwrap(), Reply::Integer(1));
    assert!(up.pids().into_iter().all(lives), "something died");
}

#[test]
fn rubbish_at_the_inner_ports_harms_nobody() {
    let up = Up::start(&[]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for process in up.processes() {
        for length in [0, 1, 20, 1200, 1472] {
            let noise: Vec<u8> = (0..length).map(|n: usize| (n.wrapping_mul(167) ^ 0xc3) as u8).collect();
            if let Some(quic) = &process.quic {
                socket.send_to(&noise, quic).unwrap();
            }
        }
        shout(&process.admin, b"\0\xff\r\n\r\n");
        shout(&process.admin, b"GET /status HTTP/9.9\r\n\r\n");
        shout(&process.admin, &b"x".repeat(100_000));
        if let Some((_, application)) = &process.app {
            drop(TcpStream::connect(application).unwrap());
        }
    }
    assert_eq!(netcat(up.listen(), "PUT a 1\nGET a\n").unwrap(), "OK\nVALUE 1\n");
    assert!(up.pids().into_iter().all(lives), "something died");
}

#[test]
fn connections_that_are_dropped_at_any_point_harm_nobody() {
    let up = Up::start(&[]);
    let request = b"PUT key value\n";
    for length in (0..=request.len()).cycle().take(300) {
        let mut stream = TcpStream::connect(up.listen()).unwrap();
        stream.write_all(&request[..length]).unwrap();
        drop(stream);
    }
    assert_eq!(netcat(up.listen(), "PUT a 1\nGET a\n").unwrap(), "OK\nVALUE 1\n");
    assert!(up.pids().into_iter().all(lives), "something died");
}
