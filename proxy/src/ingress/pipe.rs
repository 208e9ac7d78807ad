//! Bytes between a socket and its connection, without a buffer for each connection that waits.

use super::intake::Intake;
use rustix::net::sockopt;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::tcp::WriteHalf;

/// Bytes taken from a connection at once.
pub(super) const READ: usize = super::room::FREE;
/// After our last word, what the client still sends is read and dropped for this long, and at most this many bytes:
/// closing at once would make the kernel reset the connection and the last words be lost.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// A client's side of a connection that can be given the last bytes and the end of the stream together.
pub(super) trait LastWords {
    /// From now on bytes leave when the packet is full or the stream ends. So a client that has read its last reply knows
    /// that the connection is over, and does not send another request into it.
    fn hold_back(&self);
}

impl LastWords for WriteHalf<'_> {
    fn hold_back(&self) {
        // Without it they leave one after the other.
        let _ = sockopt::set_tcp_cork(self.as_ref(), true);
    }
}

thread_local! {
    /// Where bytes land before they are appended to their connection's buffer, so that a connection that waits for
    /// its next request needs none.
    static LANDING: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// Reads what is there, at least one byte and `most` at most; 0 is the end.
pub(super) async fn read_some<R: AsyncRead + Unpin>(
    reader: &mut R,
    most: usize,
    intake: &mut Intake,
) -> io::Result<usize> {
    poll_fn(|cx| {
        LANDING.with_borrow_mut(|landing| {
            let most = most.clamp(1, landing.len());
            let mut buffer = ReadBuf::new(&mut landing[..most]);
            ready!(Pin::new(&mut *reader).poll_read(cx, &mut buffer))?;
            intake.feed(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    })
    .await
}

/// Writes what the socket takes at once, at least one byte.
pub(super) async fn write_some<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8]) -> io::Result<usize> {
    poll_fn(|cx| Pin::new(&mut *writer).poll_write(cx, bytes)).await
}

/// Ends our side, and lets the client's bytes run out for a moment, unless all were heard.
pub(super) async fn part<R, W>(reader: &mut R, writer: &mut W, heard: bool)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let parting = async {
        if writer.shutdown().await.is_err() || heard {
            return;
        }
        let mut dropped = 0;
        while dropped < LINGER_BYTES {
            let read = poll_fn(|cx| {
                LANDING.with_borrow_mut(|landing| {
                    let mut buffer = ReadBuf::new(landing);
                    ready!(Pin::new(&mut *reader).poll_read(cx, &mut buffer))?;
                    Poll::Ready(io::Result::Ok(buffer.filled().len()))
                })
            });
            match read.await {
                Ok(0) | Err(_) => return,
                Ok(read) => dropped += read,
            }
        }
    };
    // Time-out or not, the connection is closed now.
    let _ = tokio::time::timeout(LINGER, parting).await;
}
