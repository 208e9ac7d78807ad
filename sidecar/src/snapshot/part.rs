//! A peer's snapshot while it is received: chunks are written at their places, in any order.

use super::Snapshots;
use super::draft::Draft;
use super::format::PART;
use mesh::order::Image;
use mesh::transfer::Manifest;

/// See the module. Dropped unfinished, nothing of it stays.
#[derive(Debug)]
pub(crate) struct Part {
    snapshots: Snapshots,
    manifest: Manifest,
    draft: Draft,
    discards: u64,
}

impl Part {
    pub(super) fn create(snapshots: Snapshots, manifest: Manifest) -> anyhow::Result<Self> {
        let draft = Draft::create(snapshots.draft_path(manifest.slot, PART))?;
        let discards = snapshots.discards();
        Ok(Self { snapshots, manifest, draft, discards })
    }

    /// What it will be.
    pub(crate) const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Stores chunk `index`, whose hash was checked. Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn write(&mut self, index: usize, chunk: &[u8]) -> anyhow::Result<()> {
        self.draft.write(self.manifest.offset(index), chunk)
    }

    /// All chunks are stored: makes them durable, reads them back, verifies them, and keeps the snapshot. Blocks.
    ///
    /// # Errors
    /// The disk's; or the image is none that this program can read.
    pub(crate) fn finish(self) -> anyhow::Result<Box<Image>> {
        self.snapshots.publish(self.draft, self.discards, &self.manifest)?;
        self.snapshots.image(self.manifest.slot)
    }
}
