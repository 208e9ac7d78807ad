//! Snapshots looked at by a command, beside a member that runs or not; and put into an empty data directory.

use super::draft::{Draft, sync_dir};
use super::{SnapshotFile, Snapshots, directory, format, names};
use crate::metrics::Metrics;
use anyhow::{Context, ensure};
use mesh::ids::{Generation, ReplicaId, Slot};
use mesh::transfer::Manifest;
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
    /// The generation that the log was in.
    pub generation: Generation,
    /// Who took it.
    pub member: u32,
    /// Bytes of the core's image and the application's dump.
    pub bytes: u64,
    /// When the file was written.
    pub taken: SystemTime,
}

impl Info {
    pub(crate) fn of(file: &SnapshotFile) -> Self {
        let manifest = file.manifest();
        Self {
            path: file.path().to_owned(),
            slot: manifest.slot,
            cluster: manifest.cluster.clone(),
            generation: manifest.generation,
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

/// The snapshots of a data directory, which may have none.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn list_if_any(data_dir: &Path) -> anyhow::Result<Vec<(PathBuf, anyhow::Result<Info>)>> {
    if directory(data_dir).exists() { list(data_dir) } else { Ok(Vec::new()) }
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
    let snapshots = here(data_dir, &manifest.cluster)?;
    ensure!(
        snapshots.newest().is_none(),
        "{} has snapshots already: give an empty directory",
        directory(data_dir).display()
    );
    copy(&file, &snapshots, progress)
}

/// The snapshots of a data directory that this process has locked.
pub(crate) fn here(data_dir: &Path, cluster: &str) -> anyhow::Result<Snapshots> {
    let metrics = Metrics::new(&mut mesh::node::registry());
    Snapshots::open(data_dir, cluster, ReplicaId(0), &metrics)
}

/// Puts a copy among the snapshots, verified.
pub(crate) fn copy(
    file: &SnapshotFile,
    snapshots: &Snapshots,
    progress: &mut dyn FnMut(u64, u64),
) -> anyhow::Result<Info> {
    let manifest = file.manifest().clone();
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

/// A copy of a snapshot that is being written anywhere; unfinished, nothing of it stays.
#[derive(Debug)]
pub(crate) struct Copying {
    draft: Draft,
    path: PathBuf,
    manifest: Manifest,
}

impl Copying {
    /// Begins the file that will be `path`. Blocks.
    ///
    /// # Errors
    /// The manifest cannot be used, or the file cannot be made.
    pub(crate) fn begin(path: &Path, cluster: &str, manifest: Manifest) -> anyhow::Result<Self> {
        manifest.validate(cluster)?;
        let mut name = path.file_name().with_context(|| format!("{} names no file", path.display()))?.to_owned();
        name.push(format!(".{}{}", std::process::id(), format::PART));
        let draft = Draft::create(path.with_file_name(&name))?;
        // It holds everything in the clear.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path.with_file_name(&name), private)
            .with_context(|| format!("cannot keep others out of {}", path.display()))?;
        Ok(Self { draft, path: path.to_owned(), manifest })
    }

    /// Stores chunk `index`. Blocks.
    ///
    /// # Errors
    /// It is not what the manifest says, or the disk's.
    pub(crate) fn chunk(&mut self, index: usize, bytes: &[u8]) -> anyhow::Result<()> {
        ensure!(self.manifest.matches(index, bytes), "chunk {index} came damaged");
        self.draft.write(self.manifest.offset(index), bytes)
    }

    /// Makes it durable, reads it back, and gives it its name. Blocks.
    ///
    /// # Errors
    /// The disk's; or there is a file of that name, and it is not to be replaced.
    pub(crate) fn finish(mut self, replace: bool) -> anyhow::Result<Info> {
        let file = self.draft.seal(&self.manifest)?;
        ensure!(!file.image()?.hollow, "it is a witness's, without the application's state");
        let failed = || format!("cannot make {}", self.path.display());
        if replace {
            std::fs::rename(file.path(), &self.path).with_context(failed)?;
        } else {
            // Unlike a rename it replaces nothing; the first name goes with the draft.
            std::fs::hard_link(file.path(), &self.path).with_context(failed)?;
        }
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_dir(parent.unwrap_or(Path::new(".")))?;
        Ok(Info::of(&file.renamed(self.path.clone())))
    }
}
