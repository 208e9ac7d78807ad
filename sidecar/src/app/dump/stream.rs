//! The application's dump on its way into a snapshot, and out of one.

use super::LoadError;
use crate::snapshot::{Reader, Writer};
use anyhow::anyhow;
use bytes::{Buf, Bytes, BytesMut};
use std::time::Duration;
use tokio::time::Instant;

/// Bytes that are handed on together.
const PIECE_BYTES: usize = 256 << 10;
/// What a dump that must be in one piece has at most.
const WHOLE_BYTES: usize = 256 << 20;
/// Between two words on how far it is.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How far it is, told now and then.
#[derive(Debug)]
struct Progress {
    what: &'static str,
    bytes: u64,
    told: Instant,
}

impl Progress {
    fn new(what: &'static str) -> Self {
        Self { what, bytes: 0, told: Instant::now() }
    }

    fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            tracing::info!(mib = self.bytes >> 20, "{}", self.what);
        }
    }
}

/// Takes a dump, piece by piece; waits for the disk.
#[derive(Debug)]
pub(super) struct Sink {
    writer: Writer,
    piece: BytesMut,
    progress: Progress,
}

impl Sink {
    pub(super) fn new(writer: Writer) -> Self {
        Self { writer, piece: BytesMut::new(), progress: Progress::new("the application's state is being saved") }
    }

    pub(super) async fn put(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        for bytes in bytes.chunks(PIECE_BYTES) {
            self.piece.extend_from_slice(bytes);
            if self.piece.len() >= PIECE_BYTES {
                self.hand_on().await?;
            }
        }
        Ok(())
    }

    async fn hand_on(&mut self) -> anyhow::Result<()> {
        let piece = self.piece.split().freeze();
        self.progress.add(piece.len());
        self.writer.write(piece).await
    }

    /// When this returns the snapshot is stored and verified.
    pub(super) async fn finish(mut self) -> anyhow::Result<()> {
        if !self.piece.is_empty() {
            self.hand_on().await?;
        }
        self.writer.finish().await
    }
}

/// Gives a dump, every byte of it verified. Whatever is wrong with it is the snapshot's fault.
#[derive(Debug)]
pub(super) struct Source {
    reader: Reader,
    rest: Bytes,
    progress: Progress,
}

impl Source {
    pub(super) fn new(reader: Reader) -> Self {
        Self { reader, rest: Bytes::new(), progress: Progress::new("the application's state is being loaded") }
    }

    /// Bytes that were given so far.
    pub(super) const fn taken(&self) -> u64 {
        self.progress.bytes
    }

    /// The next piece, of whatever size; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, LoadError> {
        if self.rest.is_empty() {
            match self.reader.next().await.map_err(LoadError::Snapshot)? {
                Some(chunk) => {
                    self.progress.add(chunk.len());
                    self.rest = chunk;
                }
                None => return Ok(None),
            }
        }
        Ok(Some(std::mem::take(&mut self.rest)).filter(|piece| !piece.is_empty()))
    }

    /// Exactly so many.
    pub(super) async fn exactly(&mut self, count: usize) -> Result<Bytes, LoadError> {
        if self.rest.len() >= count {
            return Ok(self.rest.split_to(count));
        }
        let mut bytes = BytesMut::new();
        while bytes.len() < count {
            let mut piece = self.next().await?.ok_or_else(|| other_kind("it ends early"))?;
            let wanted = piece.len().min(count - bytes.len());
            bytes.extend_from_slice(&piece[..wanted]);
            piece.advance(wanted);
            self.rest = piece;
        }
        Ok(bytes.freeze())
    }

    pub(super) async fn u32(&mut self) -> Result<u32, LoadError> {
        Ok(self.exactly(4).await?.get_u32_le())
    }

    pub(super) async fn u64(&mut self) -> Result<u64, LoadError> {
        Ok(self.exactly(8).await?.get_u64_le())
    }

    /// What a dump of one kind begins with.
    pub(super) async fn expect(&mut self, magic: &[u8]) -> Result<(), LoadError> {
        if self.exactly(magic.len()).await? == magic { Ok(()) } else { Err(other_kind("it begins otherwise")) }
    }

    /// All of it, where it must be in one piece.
    pub(super) async fn all(&mut self) -> Result<Bytes, LoadError> {
        let mut all = BytesMut::new();
        while let Some(piece) = self.next().await? {
            all.extend_from_slice(&piece);
            if all.len() > WHOLE_BYTES {
                return Err(other_kind("it is too long to be loaded with one request"));
            }
        }
        Ok(all.freeze())
    }
}

/// The snapshot is whole, but not one that this can load.
pub(super) fn other_kind(why: &str) -> LoadError {
    LoadError::Snapshot(anyhow!(
        "the snapshot was taken in another way than is configured now, or by another version: {why}"
    ))
}
