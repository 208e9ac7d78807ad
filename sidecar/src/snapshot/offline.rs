//! Snapshots looked at by a command, beside a member that runs or not; and put into an empty data directory.

use super::{SnapshotFile, Snapshots, directory, format, names};
use crate::metrics::Metrics;
use anyhow::{Context, ensure};
use mesh::ids::{ReplicaId, Slot};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What a snapshot's file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The file.
    pub path: PathBuf,
    /// The state is that after this slot.
    pub slot: Slot,
    /// The cluster's name.
    pub cluster: String,
    /// Who took it.
    pub member: u32,
    /// Bytes of the core's image and the application's dump.
    pub bytes: u64,
    /// When the file was written.
    pub taken: SystemTime,
}

impl Info {
    fn of(file: &SnapshotFile) -> Self {
        let manifest = file.manifest();
        Self {
            path: file.path().to_owned(),
            slot: manifest.slot,
            cluster: manifest.cluster.clone(),
            member: manifest.member.0,
            bytes: manifest.total_len,
            taken: file.taken(),
        }
    }
}

/// The snapshots of a data directory, oldest first, each with what its manifest says or why it cannot be used. The
/// content is not read.
///
/// # Errors
/// The directory cannot be read.
pub fn list(data_dir: &Path) -> anyhow::Result<Vec<(PathBuf, anyhow::Result<Info>)>> {
    let dir = directory(data_dir);
    let whole = names(&dir)?.into_iter().filter(|name| format::slot_of(name).is_some());
    Ok(whole
        .map(|name| {
            let path = dir.join(name);
            let info = SnapshotFile::open(&path).map(|file| Info::of(&file)).map_err(Into::into);
            (path, info)
        })
        .collect())
}

/// Reads every byte of a snapshot back from the disk. `progress` is told the bytes so far, and of all.
///
/// # Errors
/// What is damaged.
pub fn verify(path: &Path, progress: &mut dyn FnMut(u64, u64)) -> anyhow::Result<Info> {
    let file = SnapshotFile::open(path)?;
    let info = Info::of(&file);
    file.manifest().validate(&info.cluster).with_context(|| format!("{} cannot be used", path.display()))?;
    file.verify(&mut |done| progress(done, info.bytes))?;
    Ok(info)
}

/// Puts a snapshot into an empty data directory, verified: the member then joins its cluster as one that lost its disk,
/// and begins with that snapshot instead of fetching one.
///
/// # Errors
/// The snapshot is damaged, or the directory is in use or has history.
pub fn restore(path: &Path, data_dir: &Path, progress: &mut dyn FnMut(u64, u64)) -> anyhow::Result<Info> {
    let file = SnapshotFile::open(path)?;
    let manifest = file.manifest().clone();
    let _lock = crate::journal::lock(data_dir)?;
    for name in names(data_dir)? {
        ensure!(
            !name.starts_with("journal"),
            "{} has a journal: a member with history is not taken back to a snapshot, it would forget its votes. \
             Give it an empty directory",
            data_dir.display()
        );
    }
    let metrics = Metrics::new(&mut mesh::node::registry());
    let snapshots = Snapshots::open(data_dir, &manifest.cluster, ReplicaId(0), &metrics)?;
    ensure!(
        snapshots.newest().is_none(),
        "{} has snapshots already: give an empty directory",
        directory(data_dir).display()
    );
    let (count, total) = (manifest.chunks.len(), manifest.total_len);
    let mut part = snapshots.part(manifest)?;
    let mut done = 0;
    for index in 0..count {
        let chunk = file.chunk(index)?;
        part.write(index, &chunk)?;
        done += chunk.len() as u64;
        progress(done, total);
    }
    let image = part.finish()?;
    let stored = snapshots.file(image.slot).context("the snapshot is gone")?;
    Ok(Info::of(&stored))
}
