//! Reading the application's dump from a snapshot, chunk by verified chunk, on a thread of its own.

use super::Snapshots;
use anyhow::{Context, bail};
use bytes::Bytes;
use mesh::ids::Slot;
use tokio::sync::mpsc;

/// Chunks that are read ahead.
const AHEAD: usize = 2;

/// See the module. Dropped early, the thread ends.
#[derive(Debug)]
pub(crate) struct Reader {
    chunks: mpsc::Receiver<anyhow::Result<Option<Bytes>>>,
}

impl Reader {
    pub(super) fn start(snapshots: Snapshots, slot: Slot) -> anyhow::Result<Self> {
        let (given, chunks) = mpsc::channel(AHEAD);
        let thread = std::thread::Builder::new().name("snapshot-reader".to_owned());
        let spawned = thread.spawn(move || {
            let result = read(&snapshots, slot, &given);
            // Whoever dropped the reader does not ask.
            let _ = given.blocking_send(result.map(|()| None));
        });
        spawned.context("the snapshot's reader cannot be started")?;
        Ok(Self { chunks })
    }

    /// The next piece of the dump, or its end.
    ///
    /// # Errors
    /// The snapshot is gone or damaged (it is then set aside): what was given so far must not be used.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        match self.chunks.recv().await {
            Some(given) => given,
            None => bail!("the snapshot's reader ended early"),
        }
    }
}

fn read(snapshots: &Snapshots, slot: Slot, given: &mpsc::Sender<anyhow::Result<Option<Bytes>>>) -> anyhow::Result<()> {
    let file = snapshots.file(slot).with_context(|| format!("there is no snapshot of slot {slot}"))?;
    let result = file.dump(|chunk| given.blocking_send(Ok(Some(chunk))).is_ok());
    snapshots.judge(&file, result)
}
