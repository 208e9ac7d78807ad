//! Talking to the application beside the ordered calls: to reset it, to look at it, to save and bring back its state.

use super::Settings;
use super::exchange::{Loss, READ_BYTES, connect, exchange, take_reply};
use super::resp::shorten;
use anyhow::{Context, ensure};
use bytes::{Bytes, BytesMut};
use mesh::framing::{Adapter, Connections, Protocol, Scan};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bytes of one reply at most: a single value of Redis has half a GiB.
const REPLY_BYTES: usize = 1 << 30;

/// See the module. One connection, or one for each request where the protocol wants that.
#[derive(Debug)]
pub(super) struct Conversation {
    address: SocketAddr,
    adapter: Adapter,
    patience: Duration,
    stream: Option<(TcpStream, BytesMut)>,
}

impl Conversation {
    /// `patience`: how long nothing at all may be heard while a reply is waited for.
    pub(super) fn new(address: SocketAddr, settings: &Settings, patience: Duration) -> Self {
        let mut adapter = Adapter { reply_bytes: REPLY_BYTES, ..settings.adapter };
        if adapter.protocol == Protocol::Http {
            // Whether a connection lasts is said in each reply: one for each request needs no look at that.
            adapter.connections = Connections::PerRequest;
        }
        Self { address, adapter, patience, stream: None }
    }

    /// One request, and its whole reply.
    pub(super) async fn ask(&mut self, request: &Bytes) -> Result<Bytes, Loss> {
        let (mut stream, mut input) = self.connection().await?;
        let answer = exchange(&mut stream, &self.adapter, request, &mut input, Some(self.patience)).await?;
        self.keep(stream, input)?;
        Ok(answer.reply.bytes)
    }

    /// One request as people write it, and what is in the reply to it; an error of the protocol is an error here.
    pub(super) async fn ask_for(&mut self, text: &str, carried: Option<&[u8]>) -> anyhow::Result<Bytes> {
        let request = self.adapter.compose(text, carried).with_context(|| format!("\"{text}\" is no request"))?;
        let reply = self.ask(&request).await?;
        let content = self.adapter.content(&reply);
        ensure!(!self.adapter.is_error(&reply), "\"{text}\" was refused: {}", shorten(&reply));
        Ok(content)
    }

    /// Many requests of a protocol that takes them in one go, and the replies to them. Only where connections last.
    pub(super) async fn ask_all(&mut self, requests: &[u8], count: usize) -> Result<Vec<Bytes>, Loss> {
        let (mut stream, mut input) = self.connection().await?;
        let (mut reader, mut writer) = stream.split();
        let failed = |error: std::io::Error| Loss::Link(error.to_string());
        let write = async { writer.write_all(requests).await.map_err(failed) };
        let read = async {
            let (mut replies, mut scan) = (Vec::with_capacity(count), Scan::default());
            while replies.len() < count {
                // No adapter with pipelining looks at the request to find the end of a reply.
                if let Some(reply) = take_reply(&self.adapter, &mut scan, b"", &mut input, false)? {
                    replies.push(reply.bytes);
                    continue;
                }
                input.reserve(READ_BYTES);
                let read = timeout(self.patience, reader.read_buf(&mut input)).await;
                if read.map_err(|_| Loss::Silent(self.patience))?.map_err(failed)? == 0 {
                    return Err(Loss::Closed(count - replies.len()));
                }
            }
            Ok(replies)
        };
        let ((), replies) = tokio::try_join!(write, read)?;
        self.keep(stream, input)?;
        Ok(replies)
    }

    async fn connection(&mut self) -> Result<(TcpStream, BytesMut), Loss> {
        match self.stream.take() {
            Some(connection) => Ok(connection),
            None => Ok((connect(self.address, self.patience).await?, BytesMut::new())),
        }
    }

    /// Keeps the connection for the next request, if there may be one on it.
    fn keep(&mut self, stream: TcpStream, input: BytesMut) -> Result<(), Loss> {
        if self.adapter.connections == Connections::PerRequest {
            return Ok(());
        }
        if !input.is_empty() {
            return Err(Loss::Unasked);
        }
        self.stream = Some((stream, input));
        Ok(())
    }
}
