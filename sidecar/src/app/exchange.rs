//! One request and its reply on one connection.

use bytes::{Buf, Bytes, BytesMut};
use mesh::framing::{Adapter, Reply, Scan};
use mesh::order::AppReply;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;
use tokio::time::timeout;

/// Why the application counts as lost; a sentence for people.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Loss {
    #[error("cannot connect to the application: {0}")]
    Connect(String),
    #[error("the connection to the application failed: {0}")]
    Link(String),
    #[error(
        "the application closed the connection with {0} requests unanswered (one that closes after each reply needs --app-connections per-request)"
    )]
    Closed(usize),
    #[error("the application's reply is not of the protocol: {0}")]
    Reply(#[from] mesh::framing::FramingError),
    #[error("the application sent bytes that no request asked for")]
    Unasked,
    #[error("the application did not answer within {0:?}")]
    Silent(Duration),
    #[error("{0}")]
    Ended(String),
    #[error("the application ended, or was restarted by somebody else")]
    Restarted,
    #[error("more than {0} sessions have connections of their own")]
    Sessions(usize),
    #[error("a new connection could not be brought to where a session's was: {0}")]
    State(String),
    #[error("the application closed the connection of a session that watches keys: whether they changed is not known")]
    Watching,
    #[error("{0}")]
    Local(String),
}

impl Loss {
    /// Whether a call that was under way may be to blame: the application was asked, and fell silent or misbehaved.
    pub(super) const fn blames_call(&self) -> bool {
        match self {
            Self::Link(_) | Self::Closed(_) | Self::Reply(_) | Self::Unasked | Self::Silent(_) | Self::Ended(_) => true,
            Self::Connect(_)
            | Self::Restarted
            | Self::Sessions(_)
            | Self::State(_)
            | Self::Watching
            | Self::Local(_) => false,
        }
    }
}

/// How long to wait for one reply; `None`: for ever (a majority executed the call already, rule 23).
pub(super) type Patience = Option<Duration>;

/// Bytes that are read at once, at least.
pub(super) const READ_BYTES: usize = 64 << 10;
/// A reply up to this size is copied out of the buffer that it was read into.
const SMALL: usize = 16 << 10;
/// How long the rest of a broken connection is read.
const DRAIN_PATIENCE: Duration = Duration::from_millis(500);

pub(super) async fn connect(address: SocketAddr, patience: Duration) -> Result<TcpStream, Loss> {
    let stream = match timeout(patience, TcpStream::connect(address)).await {
        Ok(connected) => connected.map_err(|error| Loss::Connect(error.to_string()))?,
        Err(_) => return Err(Loss::Connect(format!("nothing answers within {patience:?}"))),
    };
    stream.set_nodelay(true).map_err(|error| Loss::Connect(error.to_string()))?;
    Ok(stream)
}

/// Whether the application closed a connection while nothing was asked over it.
///
/// # Errors
/// It said something unasked.
pub(super) fn is_closed(stream: &TcpStream) -> Result<bool, Loss> {
    // The kernel is asked: the runtime may not have looked since.
    match recv(stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((0, _)) => Ok(true),
        Ok(_) => Err(Loss::Unasked),
        Err(error) => Ok(error != Errno::AGAIN),
    }
}

/// The reply at the front of `input`, taken out, as it is kept.
pub(super) fn take_reply(
    adapter: &Adapter,
    scan: &mut Scan,
    request: &[u8],
    input: &mut BytesMut,
    closed: bool,
) -> Result<Option<Reply>, Loss> {
    let Some(length) = adapter.next_reply(scan, request, input, closed)? else { return Ok(None) };
    *scan = Scan::default();
    // A small reply that is kept must not hold on to the buffer of all, which is used again.
    let bytes = if length <= SMALL {
        let reply = Bytes::copy_from_slice(&input[..length]);
        input.advance(length);
        reply
    } else {
        input.split_to(length).freeze()
    };
    Ok(Some(adapter.reply(request, bytes)))
}

/// What the core is told of a reply.
pub(super) fn told(Reply { bytes, form, .. }: Reply) -> AppReply {
    AppReply { bytes, form }
}

/// A reply, and how it ended.
pub(super) struct Answer {
    pub(super) reply: AppReply,
    /// The connection's end was seen with it. An application that died closes too: only its incarnation tells.
    pub(super) closed: bool,
}

/// Sends one request and reads its whole reply. What was read beyond it stays in `input`.
pub(super) async fn exchange(
    stream: &mut TcpStream,
    adapter: &Adapter,
    request: &Bytes,
    input: &mut BytesMut,
    patience: Patience,
) -> Result<Answer, Loss> {
    let reply = send_and_read(stream, adapter, request, input);
    let Some(patience) = patience else { return reply.await };
    timeout(patience, reply).await.unwrap_or(Err(Loss::Silent(patience)))
}

async fn send_and_read(
    stream: &mut TcpStream,
    adapter: &Adapter,
    request: &Bytes,
    input: &mut BytesMut,
) -> Result<Answer, Loss> {
    let (mut reader, mut writer) = stream.split();
    let mut output = request.clone();
    let mut half_close = adapter.half_closes_after_request();
    let mut scan = Scan::default();
    let failed = |error: std::io::Error| Loss::Link(error.to_string());
    loop {
        if !output.has_remaining() && half_close {
            writer.shutdown().await.map_err(failed)?;
            half_close = false;
        }
        input.reserve(READ_BYTES);
        tokio::select! {
            biased;
            read = reader.read_buf(input) => {
                let closed = read.map_err(failed)? == 0;
                if let Some(reply) = take_reply(adapter, &mut scan, request, input, closed)? {
                    return Ok(Answer { reply: told(reply), closed });
                }
                if closed {
                    return Err(Loss::Closed(1));
                }
            }
            written = writer.write_buf(&mut output), if output.has_remaining() => {
                if let Err(error) = written {
                    // Whoever does not read on may have answered before.
                    return rest(&mut reader, adapter, request, input, failed(error)).await;
                }
            }
        }
    }
}

/// The reply that came before the connection broke, or why there is none.
async fn rest(
    reader: &mut ReadHalf<'_>,
    adapter: &Adapter,
    request: &Bytes,
    input: &mut BytesMut,
    loss: Loss,
) -> Result<Answer, Loss> {
    drain(reader, input).await;
    match take_reply(adapter, &mut Scan::default(), request, input, true) {
        // A close that ends a reply is worth nothing on a broken connection.
        Ok(Some(reply)) if !reply.bytes.is_empty() => Ok(Answer { reply: told(reply), closed: true }),
        _ => Err(loss),
    }
}

/// Reads what a broken connection still has.
pub(super) async fn drain(reader: &mut ReadHalf<'_>, input: &mut BytesMut) {
    let all = async {
        loop {
            input.reserve(READ_BYTES);
            if !reader.read_buf(input).await.is_ok_and(|count| count > 0) {
                return;
            }
        }
    };
    let _ = timeout(DRAIN_PATIENCE, all).await;
}
