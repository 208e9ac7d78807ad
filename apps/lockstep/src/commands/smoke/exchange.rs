//! One request and its reply in each protocol, over a connection of its own.

use crate::parts::adapter::Protocol;
use std::fmt::Write;
use std::io;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Bytes of a reply that are read at most.
const REPLY_BYTES_MAX: u64 = 2 << 20;

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A reply, as text.
    Reply(String),
    /// An error of the application.
    Error(String),
    /// A definite refusal by Lockstep: it did not run.
    Refused(String),
}

/// Why nothing did.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nobody listens there.
    NotThere(String),
    /// It was sent, and closed without a reply.
    NoReply(String),
    /// Bytes that are no reply of the protocol.
    Nonsense(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Nonsense(error.to_string()),
            _ => Self::NoReply(error.to_string()),
        }
    }
}

/// Asks `to` and reads the reply.
pub(super) async fn ask(to: &str, protocol: Protocol, request: &str) -> Result<Answer, Trouble> {
    let stream = TcpStream::connect(to).await.map_err(|error| Trouble::NotThere(error.to_string()))?;
    let (read, mut write) = stream.into_split();
    write.write_all(&bytes(protocol, to, request)).await?;
    if protocol == Protocol::Close {
        write.shutdown().await?;
    }
    let mut read = BufReader::new(read.take(REPLY_BYTES_MAX));
    match protocol {
        Protocol::Resp => resp(&mut read).await,
        Protocol::Http => http(&mut read).await,
        Protocol::Line => Ok(plain(&line(&mut read).await?)),
        Protocol::Length => {
            let length = read.read_u32().await?;
            let mut text = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(REPLY_BYTES_MAX as usize)];
            read.read_exact(&mut text).await?;
            Ok(plain(&lossy(&text)))
        }
        Protocol::Close => match rest(&mut read).await? {
            text if text.is_empty() => Err(Trouble::NoReply("closed".to_owned())),
            text => Ok(plain(&lossy(&text))),
        },
    }
}

/// The request on the wire.
fn bytes(protocol: Protocol, to: &str, request: &str) -> Vec<u8> {
    match protocol {
        Protocol::Line | Protocol::Close => format!("{request}\n").into_bytes(),
        Protocol::Length => {
            let length = u32::try_from(request.len()).unwrap_or(u32::MAX);
            [&length.to_be_bytes(), request.as_bytes()].concat()
        }
        Protocol::Http => {
            let (method, rest) = request.split_once(' ').unwrap_or((request, "/"));
            let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
            let length = body.len();
            format!(
                "{method} {path} HTTP/1.1\r\nHost: {to}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .into_bytes()
        }
        Protocol::Resp => {
            let words: Vec<&str> = request.split_ascii_whitespace().collect();
            let mut text = format!("*{}\r\n", words.len());
            for word in words {
                // Writing to a String cannot fail.
                let _ = write!(text, "${}\r\n{word}\r\n", word.len());
            }
            text.into_bytes()
        }
    }
}

/// The example hashmap has a word for errors.
fn plain(text: &str) -> Answer {
    let text = text.trim_end().to_owned();
    if text.starts_with("ERR ") { Answer::Error(text) } else { Answer::Reply(text) }
}

async fn resp(read: &mut (impl AsyncBufReadExt + Unpin)) -> Result<Answer, Trouble> {
    let head = line(read).await?;
    let text = head.trim_end();
    match text.split_at_checked(1) {
        Some(("-", error)) if error.starts_with("LOCKSTEP") => Ok(Answer::Refused(error.to_owned())),
        Some(("-", error)) => Ok(Answer::Error(error.to_owned())),
        Some(("+" | ":", value)) => Ok(Answer::Reply(value.to_owned())),
        Some(("$", "-1")) | Some(("_", "")) => Ok(Answer::Reply("nil".to_owned())),
        Some(("$", length)) => {
            let length: usize = length.parse().map_err(|_| Trouble::Nonsense(text.to_owned()))?;
            let mut value = vec![0; length.min(REPLY_BYTES_MAX as usize)];
            read.read_exact(&mut value).await?;
            Ok(Answer::Reply(lossy(&value)))
        }
        _ => Err(Trouble::Nonsense(text.chars().take(100).collect())),
    }
}

async fn http(read: &mut (impl AsyncRead + Unpin)) -> Result<Answer, Trouble> {
    let text = lossy(&rest(read).await?);
    if text.is_empty() {
        return Err(Trouble::NoReply("closed".to_owned()));
    }
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| Trouble::Nonsense("no HTTP".to_owned()))?;
    let status = head.lines().next().unwrap_or_default().to_owned();
    let code: u16 = status.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let said = format!("{} {}", status, body.trim_end());
    match code {
        200..=299 => Ok(Answer::Reply(body.to_owned())),
        // What an ingress answers itself: 503 certainly did not run, of 504 nobody knows.
        503 => Ok(Answer::Refused(said)),
        504 => Err(Trouble::NoReply(said)),
        100..=599 => Ok(Answer::Error(said)),
        _ => Err(Trouble::Nonsense(status.chars().take(100).collect())),
    }
}

/// A line, whole or the end of it; an end without one is no reply.
async fn line(read: &mut (impl AsyncBufReadExt + Unpin)) -> Result<String, Trouble> {
    let mut bytes = Vec::new();
    match read.read_until(b'\n', &mut bytes).await? {
        0 => Err(Trouble::NoReply("closed".to_owned())),
        _ => Ok(lossy(&bytes)),
    }
}

async fn rest(read: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// What is made of `reply`, and what was asked.
    async fn exchange(protocol: Protocol, request: &str, reply: &'static str) -> (Result<Answer, Trouble>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let to = listener.local_addr().expect("an address").to_string();
        let wanted = bytes(protocol, &to, request).len();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("somebody dials");
            let mut asked = vec![0; wanted];
            stream.read_exact(&mut asked).await.expect("all of it comes");
            stream.write_all(reply.as_bytes()).await.expect("it is read");
            lossy(&asked)
        });
        let answer = ask(&to, protocol, request).await;
        (answer, server.await.expect("it ends"))
    }

    #[tokio::test]
    async fn each_protocol_is_spoken() {
        let reply = |text: &str| Answer::Reply(text.to_owned());
        let cases = [
            (Protocol::Line, "GET a", "GET a\n", "VALUE x\n", "VALUE x"),
            (Protocol::Close, "GET a", "GET a\n", "VALUE x\n", "VALUE x"),
            (Protocol::Length, "GET a", "\0\0\0\u{5}GET a", "\0\0\0\u{7}VALUE x", "VALUE x"),
            (Protocol::Resp, "GET a", "*2\r\n$3\r\nGET\r\n$1\r\na\r\n", "$1\r\nx\r\n", "x"),
            (Protocol::Resp, "GET a", "*2\r\n$3\r\nGET\r\n$1\r\na\r\n", "$-1\r\n", "nil"),
        ];
        for (protocol, request, asked, answer, expected) in cases {
            let (found, wire) = exchange(protocol, request, answer).await;
            assert_eq!((found.expect("a reply"), wire.as_str()), (reply(expected), asked));
        }
        let (found, wire) = exchange(Protocol::Http, "PUT /a x y", "HTTP/1.1 200 OK\r\n\r\nx y").await;
        assert_eq!(found.expect("a reply"), reply("x y"));
        assert!(
            wire.starts_with("PUT /a HTTP/1.1\r\n")
                && wire.ends_with("Content-Length: 3\r\nConnection: close\r\n\r\nx y"),
            "{wire}"
        );
    }

    #[tokio::test]
    async fn refusals_errors_silence_and_nonsense_are_told_apart() {
        let of = async |protocol, answer| exchange(protocol, "GET a", answer).await.0;
        assert!(matches!(of(Protocol::Resp, "-LOCKSTEP overloaded\r\n").await, Ok(Answer::Refused(_))));
        assert!(matches!(of(Protocol::Resp, "-ERR no\r\n").await, Ok(Answer::Error(_))));
        assert!(matches!(of(Protocol::Resp, "hello\r\n").await, Err(Trouble::Nonsense(_))));
        assert!(matches!(of(Protocol::Resp, "").await, Err(Trouble::NoReply(_))));
        assert!(matches!(of(Protocol::Line, "").await, Err(Trouble::NoReply(_))));
        assert!(matches!(of(Protocol::Line, "ERR no\n").await, Ok(Answer::Error(_))));
        assert!(matches!(of(Protocol::Length, "\0\0").await, Err(Trouble::NoReply(_))));
        assert!(matches!(of(Protocol::Http, "HTTP/1.1 503 No\r\n\r\nbusy").await, Ok(Answer::Refused(_))));
        assert!(matches!(of(Protocol::Http, "HTTP/1.1 504 No\r\n\r\n").await, Err(Trouble::NoReply(_))));
        assert!(matches!(of(Protocol::Http, "HTTP/1.1 404 No\r\n\r\n").await, Ok(Answer::Error(_))));
        assert!(matches!(of(Protocol::Http, "hello").await, Err(Trouble::Nonsense(_))));
        let nobody = ask("127.0.0.1:9", Protocol::Line, "GET a").await;
        assert!(matches!(nobody, Err(Trouble::NotThere(_))), "{nobody:?}");
    }
}
