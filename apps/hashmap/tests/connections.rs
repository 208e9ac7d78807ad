//! The application as its clients see it, over TCP.

use hashmap::{Options, serve};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn start(options: Options) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(serve(listener, options));
    address
}

/// Sends all, reads until `until` replies came or the server closed.
async fn talk(stream: &mut TcpStream, request: &[u8], until: usize) -> String {
    stream.write_all(request).await.expect("the server reads");
    let mut replies = Vec::new();
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    let read = async {
        while lines(&replies) < until && stream.read_buf(&mut replies).await.expect("the server answers") > 0 {}
    };
    tokio::time::timeout(Duration::from_secs(20), read).await.expect("the server answers in time");
    String::from_utf8(replies).expect("replies are UTF-8")
}

async fn closed(stream: &mut TcpStream) -> bool {
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut [0; 1])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn several_requests_of_one_connection_are_answered_in_order() {
    let address = start(Options::default()).await;
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let replies = talk(&mut stream, b"PUT a 1\r\nGET a\nSIZE\nNONSENSE\nREMOVE a\n", 5).await;
    assert!(replies.starts_with("OK\nVALUE 1\n1\nERR ") && replies.ends_with("\nOK\n"), "{replies}");
    assert_eq!(talk(&mut stream, b"SIZE\n", 1).await, "0\n");
}

#[tokio::test]
async fn many_pipelined_requests_lose_no_reply() {
    let address = start(Options::default()).await;
    let (mut reader, mut writer) = TcpStream::connect(address).await.expect("it listens").into_split();
    let requests: String = (0..50_000).map(|i| format!("PUT key{i} value{i}\n")).collect();
    let write = tokio::spawn(async move {
        writer.write_all(requests.as_bytes()).await.expect("the server reads");
        writer.write_all(b"SIZE\n").await.expect("the server reads");
        writer.shutdown().await.expect("half of it closes");
    });
    let mut replies = String::new();
    reader.read_to_string(&mut replies).await.expect("the server answers, then closes");
    write.await.expect("all was written");
    assert_eq!(replies.lines().filter(|line| *line == "OK").count(), 50_000);
    assert!(replies.ends_with("\n50000\n"));
}

#[tokio::test]
async fn a_client_that_half_closes_is_answered_and_then_closed() {
    let address = start(Options::default()).await;
    for request in [&b"SIZE\n"[..], b"SIZE"] {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(request).await.expect("the server reads");
        stream.shutdown().await.expect("half of it closes");
        assert_eq!(talk(&mut stream, b"", 1).await, "0\n");
        assert!(closed(&mut stream).await);
    }
}

#[tokio::test]
async fn the_papers_mode_closes_after_every_reply() {
    let address = start(Options { close: true, ..Options::default() }).await;
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    assert_eq!(talk(&mut stream, b"PUT a 1\nPUT b 2\n", 1).await, "OK\n");
    assert!(closed(&mut stream).await);
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    assert_eq!(talk(&mut stream, b"SIZE\n", 1).await, "1\n");
}

#[tokio::test]
async fn an_endless_line_is_refused_and_the_connection_closed() {
    let address = start(Options { line_bytes: 1 << 20, ..Options::default() }).await;
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let reply = talk(&mut stream, &vec![b'x'; (1 << 20) + 10], 1).await;
    assert!(reply.starts_with("ERR a line has 1048576 bytes"), "{reply}");
    stream.shutdown().await.ok();
    assert!(closed(&mut stream).await);
}

#[tokio::test]
async fn a_request_cut_into_bytes_is_one_request() {
    let address = start(Options::default()).await;
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket option");
    for byte in b"PUT key a valu" {
        stream.write_all(&[*byte]).await.expect("the server reads");
        tokio::task::yield_now().await;
    }
    assert_eq!(talk(&mut stream, b"e\nGET key\n", 2).await, "OK\nVALUE a value\n");
}
