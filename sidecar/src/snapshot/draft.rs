//! A snapshot that is not whole yet: a file of another name, which goes with its value unless it is published.

use super::file::SnapshotFile;
use super::{RESERVE, format};
use anyhow::{Context, ensure};
use mesh::transfer::Manifest;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Written bytes are synced this often, so that no sync of the journal has to wait for a gigabyte of them.
const SYNC_EVERY: u64 = 32 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Draft {
    file: File,
    path: PathBuf,
    unsynced: u64,
}

impl Draft {
    /// Makes the file, empty.
    pub(super) fn create(path: PathBuf) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { file, path, unsynced: 0 })
    }

    /// Writes a piece of the content.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        self.file.write_all_at(bytes, offset).with_context(|| self.failed())?;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            self.file.sync_data().with_context(|| self.failed())?;
            let free = rustix::fs::fstatvfs(&self.file).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
            ensure!(
                free.is_ok_and(|free| free >= RESERVE),
                "{} is given up, so that the journal has room: make room on the disk",
                self.path.display()
            );
        }
        Ok(())
    }

    /// Ends the file, makes it durable, reads it back from the disk and checks every chunk. It has its own name still.
    pub(super) fn seal(&mut self, manifest: &Manifest) -> anyhow::Result<SnapshotFile> {
        self.file.write_all_at(&format::encode_end(manifest), manifest.total_len).with_context(|| self.failed())?;
        self.file.sync_all().with_context(|| self.failed())?;
        let file = SnapshotFile::open(&self.path)?;
        file.verify(&mut |_| {}).context("it was not read back as it was written: the disk is failing")?;
        Ok(file)
    }

    /// Gives the sealed file its name in `dir`, durably.
    pub(super) fn rename(mut self, file: SnapshotFile, dir: &Path) -> anyhow::Result<SnapshotFile> {
        let path = dir.join(format::name(file.manifest().slot));
        std::fs::rename(&self.path, &path).with_context(|| format!("cannot make {}", path.display()))?;
        // Nothing is left to remove.
        self.path.clear();
        sync_dir(dir)?;
        Ok(file.renamed(path))
    }

    fn failed(&self) -> String {
        format!("cannot write {}: make room or mend the disk", self.path.display())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // What stays is removed at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes names in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> anyhow::Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("cannot sync {}", dir.display()))
}
