//! Taking a snapshot: pieces of the application's dump go in, chunks go to the disk from a thread of their own.

use super::Snapshots;
use super::draft::Draft;
use super::format::NEW;
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use mesh::ids::Digest;
use mesh::order::Image;
use mesh::transfer::{CHUNK_BYTES, CHUNKS_MAX, Manifest};
use tokio::sync::{mpsc, oneshot};

/// Pieces that wait for the disk; the giver bounds their bytes.
const PIECES: usize = 4;

/// What the thread is told.
enum Step {
    Piece(Bytes),
    Finish,
}

/// See the module. Dropped unfinished, nothing of it stays.
#[derive(Debug)]
pub(crate) struct Writer {
    steps: mpsc::Sender<Step>,
    result: oneshot::Receiver<anyhow::Result<()>>,
}

impl Writer {
    pub(super) fn start(snapshots: Snapshots, image: Box<Image>) -> Self {
        let (steps, taken) = mpsc::channel(PIECES);
        let (told, result) = oneshot::channel();
        let discards = snapshots.discards();
        let thread = std::thread::Builder::new().name("snapshot".to_owned());
        let spawned = thread.spawn(move || {
            let result = write(&snapshots, discards, &image, taken);
            snapshots.set_writing(None);
            if let Err(error) = &result {
                tracing::warn!(slot = %image.slot, error = format!("{error:#}"), "no snapshot was taken");
            }
            // Whoever dropped the writer does not ask.
            let _ = told.send(result);
        });
        if let Err(error) = spawned {
            // Seen as the end of the thread by the writer.
            tracing::error!(%error, "the snapshot's thread cannot be started");
        }
        Self { steps, result }
    }

    /// The next piece of the application's dump. Waits for the disk.
    ///
    /// # Errors
    /// The snapshot failed; nothing of it stays.
    pub(crate) async fn write(&mut self, piece: Bytes) -> anyhow::Result<()> {
        if self.steps.send(Step::Piece(piece)).await.is_ok() {
            return Ok(());
        }
        self.outcome().await?;
        bail!("the snapshot ended early")
    }

    /// Ends the dump. When this returns, the snapshot is durable under its name, and was read back and verified.
    ///
    /// # Errors
    /// The snapshot failed; nothing of it stays.
    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        // A thread that ended already says why.
        let _ = self.steps.send(Step::Finish).await;
        self.outcome().await
    }

    async fn outcome(&mut self) -> anyhow::Result<()> {
        (&mut self.result).await.context("the snapshot's thread ended")?
    }
}

fn write(snapshots: &Snapshots, discards: u64, image: &Image, mut steps: mpsc::Receiver<Step>) -> anyhow::Result<()> {
    let begun = std::time::Instant::now();
    let mut content = Content {
        draft: Draft::create(snapshots.draft_path(image.slot, NEW))?,
        chunk: Vec::with_capacity(CHUNK_BYTES),
        hashes: Vec::new(),
        written: 0,
    };
    let encoded = mesh::wire::encode(image);
    content.take(&encoded)?;
    loop {
        match steps.blocking_recv() {
            Some(Step::Piece(piece)) => {
                content.take(&piece)?;
                snapshots.set_writing(Some(content.written));
            }
            Some(Step::Finish) => break,
            None => bail!("it was given up"),
        }
    }
    content.flush()?;
    let manifest = Manifest {
        cluster: snapshots.cluster().to_owned(),
        generation: image.generation,
        member: snapshots.member(),
        slot: image.slot,
        image_len: encoded.len() as u64,
        total_len: content.written,
        chunks: content.hashes,
    };
    manifest.validate(snapshots.cluster()).context("it is larger than a snapshot may be")?;
    snapshots.publish(content.draft, discards, &manifest)?;
    snapshots.observe(begun.elapsed());
    tracing::info!(
        slot = %image.slot, bytes = manifest.total_len, seconds = begun.elapsed().as_secs_f64(),
        "snapshot taken, read back and verified"
    );
    Ok(())
}

/// Cuts what comes into chunks.
struct Content {
    draft: Draft,
    chunk: Vec<u8>,
    hashes: Vec<Digest>,
    written: u64,
}

impl Content {
    fn take(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            let (fits, rest) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.chunk.len()));
            self.chunk.extend_from_slice(fits);
            bytes = rest;
            if self.chunk.len() == CHUNK_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        ensure!(self.hashes.len() < CHUNKS_MAX, "it is larger than the {CHUNKS_MAX} MiB that a snapshot may have");
        self.draft.write(self.written, &self.chunk)?;
        self.hashes.push(Digest::of(&self.chunk));
        self.written += self.chunk.len() as u64;
        self.chunk.clear();
        Ok(())
    }
}
