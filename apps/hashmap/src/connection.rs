//! One connection: cuts the bytes into lines and answers them in order, many with one write where they come together.

use crate::{Map, Options};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Replies that are written together at most, beside a single longer one.
const WRITE_BYTES: usize = 64 << 10;
/// Bytes of one read at most.
const READ_BYTES: usize = 64 << 10;
/// Before a close with unread bytes: how long, and how many, are read so that the reply is not lost with them.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 << 20;

/// The next whole line in a connection's bytes.
#[derive(Debug, PartialEq, Eq)]
enum Cut {
    /// It ends here, the line end included.
    Line(usize),
    /// It needs more bytes.
    More,
    /// It is longer than allowed.
    TooLong,
}

/// Answers a connection until the client has closed its half or an option says that it ends.
pub(crate) async fn serve(mut stream: TcpStream, map: &Mutex<Map>, options: &Options) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut bytes, mut replies) = (Vec::new(), Vec::new());
    // How far the front of `bytes` was searched for a line end already.
    let mut searched = 0;
    loop {
        let open = read(&mut stream, &mut bytes).await?;
        let mut used = 0;
        loop {
            let front = &bytes[used..];
            let end = match cut(front, searched, options.line_bytes) {
                Cut::Line(end) => end,
                Cut::More if !open && !front.is_empty() => front.len(),
                Cut::More => {
                    searched = front.len();
                    break;
                }
                Cut::TooLong => {
                    replies
                        .extend_from_slice(format!("ERR a line has {} bytes at most\n", options.line_bytes).as_bytes());
                    return finish(stream, &replies, true).await;
                }
            };
            searched = 0;
            let line = without_end(&front[..end]);
            map.lock().unwrap_or_else(PoisonError::into_inner).execute(line, &mut replies);
            used += end;
            if options.close {
                return finish(stream, &replies, used < bytes.len()).await;
            }
            if replies.len() >= WRITE_BYTES {
                flush(&mut stream, &mut replies).await?;
            }
        }
        bytes.drain(..used);
        // One long line is no reason to keep its memory.
        bytes.shrink_to(2 * READ_BYTES);
        flush(&mut stream, &mut replies).await?;
        if !open {
            return stream.shutdown().await;
        }
    }
}

/// False at the end of the client's bytes.
async fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> std::io::Result<bool> {
    bytes.reserve(if bytes.is_empty() { 4096 } else { READ_BYTES });
    Ok(stream.read_buf(bytes).await? > 0)
}

async fn flush(stream: &mut TcpStream, replies: &mut Vec<u8>) -> std::io::Result<()> {
    stream.write_all(replies).await?;
    replies.clear();
    // A large dump is no reason to keep its memory.
    replies.shrink_to(WRITE_BYTES);
    Ok(())
}

/// Last words. A close with unread bytes would reset the connection and take the words with it.
async fn finish(mut stream: TcpStream, replies: &[u8], unread: bool) -> std::io::Result<()> {
    stream.write_all(replies).await?;
    stream.shutdown().await?;
    if unread {
        let rest = async {
            let (mut waste, mut total) = (vec![0; READ_BYTES], 0);
            while total < LINGER_BYTES {
                match stream.read(&mut waste).await {
                    Ok(0) | Err(_) => return,
                    Ok(count) => total += count,
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, rest).await;
    }
    Ok(())
}

fn cut(front: &[u8], searched: usize, limit: usize) -> Cut {
    let searched = searched.min(front.len());
    match front[searched..].iter().position(|byte| *byte == b'\n') {
        Some(offset) if searched + offset <= limit => Cut::Line(searched + offset + 1),
        Some(_) => Cut::TooLong,
        None if front.len() > limit => Cut::TooLong,
        None => Cut::More,
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_at_its_end_however_it_arrives() {
        assert_eq!(cut(b"GET a\nSIZE\n", 0, 100), Cut::Line(6));
        assert_eq!(cut(b"GET a", 0, 100), Cut::More);
        assert_eq!(cut(b"GET a\n", 5, 100), Cut::Line(6));
        assert_eq!(cut(b"", 0, 100), Cut::More);
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() {
        assert_eq!(cut(b"12345\n", 0, 5), Cut::Line(6));
        assert_eq!(cut(b"123456\n", 0, 5), Cut::TooLong);
        assert_eq!(cut(b"123456", 0, 5), Cut::TooLong);
    }

    #[test]
    fn one_line_end_is_taken_off() {
        assert_eq!(without_end(b"a\r\n"), b"a");
        assert_eq!(without_end(b"a\r\r\n"), b"a\r");
        assert_eq!(without_end(b"a"), b"a");
    }
}
