//! Snapshots on disk: taken, received, read and removed. A file that has its final name was made durable, read back from
//! the disk and verified before it got it; what is read of it later is verified again, chunk by chunk.
//!
//! The driver and the application's worker only ask; all reading and writing is done by threads.

mod draft;
mod file;
mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod offline;
mod part;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use file::SnapshotFile;
pub(crate) use part::Part;
pub(crate) use reader::Reader;
pub(crate) use writer::Writer;

use crate::metrics::Metrics;
use anyhow::{Context, bail, ensure};
use draft::{Draft, sync_dir};
use file::FileError;
use format::{NEW, PART};
use mesh::ids::{Generation, ReplicaId, Slot};
use mesh::order::Image;
use mesh::transfer::Manifest;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of the disk that a snapshot leaves if it is a large one for the journal: without room for that a member cannot go on.
const RESERVE: u64 = 64 << 20;
/// Ends the name of a snapshot that was whole once and is not any more.
const DAMAGED: &str = ".damaged";
/// Ends the name of a snapshot of another generation than its member's.
const LEFT_BEHIND: &str = ".superseded";

/// All snapshots of this member; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    cluster: String,
    member: ReplicaId,
    metrics: Metrics,
    /// Files begun by this process.
    drafts: AtomicU64,
    /// Bytes of the snapshot that is being taken, and one; 0: none is.
    writing: AtomicU64,
    /// Held while names in the directory change, by threads only; taken before `state`.
    names: Mutex<()>,
    /// Held for moments.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    kept: BTreeMap<Slot, Kept>,
    /// How often snapshots were discarded: what was begun before is not of use after.
    discards: u64,
}

#[derive(Debug)]
struct Kept {
    file: Arc<SnapshotFile>,
    /// Read back whole by this process.
    verified: bool,
}

impl Snapshots {
    /// Opens the snapshots of a data directory, which this process has locked: removes what was left unfinished, sets
    /// aside what is damaged.
    ///
    /// # Errors
    /// The directory cannot be used, or has snapshots of another cluster or version.
    pub(crate) fn open(data_dir: &Path, cluster: &str, member: ReplicaId, metrics: &Metrics) -> anyhow::Result<Self> {
        let dir = directory(data_dir);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        sync_dir(data_dir)?;
        let mut state = State::default();
        for name in names(&dir)? {
            let path = dir.join(&name);
            if name.ends_with(NEW) || name.ends_with(PART) {
                std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
                tracing::info!(file = %path.display(), "a snapshot that was left unfinished is removed");
            } else if let Some(slot) = format::slot_of(&name) {
                match look_at(&path, slot, cluster)? {
                    Ok(file) => drop(state.kept.insert(slot, Kept { file: Arc::new(file), verified: false })),
                    Err(error) => set_aside(&path, &error),
                }
            }
        }
        Ok(Self(Arc::new(Inner {
            dir,
            cluster: cluster.to_owned(),
            member,
            metrics: metrics.clone(),
            drafts: AtomicU64::new(0),
            writing: AtomicU64::new(0),
            names: Mutex::default(),
            state: Mutex::new(state),
        })))
    }

    /// Begins a snapshot: the image now, then the application's dump.
    pub(crate) fn writer(&self, image: Box<Image>) -> Writer {
        Writer::start(self.clone(), image)
    }

    /// Reads the application's dump of a snapshot.
    ///
    /// # Errors
    /// No thread can be started. That there is no such snapshot is said by the reader.
    pub(crate) fn reader(&self, slot: Slot) -> anyhow::Result<Reader> {
        Reader::start(self.clone(), slot)
    }

    /// A file for a peer's snapshot, to be filled chunk by chunk. Blocks.
    ///
    /// # Errors
    /// The manifest cannot be used, or the file cannot be made.
    pub(crate) fn part(&self, manifest: Manifest) -> anyhow::Result<Part> {
        manifest.validate(&self.0.cluster)?;
        let disk = rustix::fs::statvfs(&self.0.dir).context("cannot ask for the room on the disk")?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needed = manifest.total_len.saturating_add(manifest.total_len.min(RESERVE));
        ensure!(
            free >= needed,
            "there is no room in {} for a snapshot: {needed} bytes are needed, {free} are free. Make room there",
            self.0.dir.display()
        );
        Part::create(self.clone(), manifest)
    }

    /// What of a snapshot is the core's. Blocks.
    ///
    /// # Errors
    /// It is gone or damaged; it is then set aside.
    pub(crate) fn image(&self, slot: Slot) -> anyhow::Result<Box<Image>> {
        let file = self.file(slot).with_context(|| format!("there is no snapshot of slot {slot}"))?;
        self.judge(&file, file.image())
    }

    /// The image of the newest snapshot that has one; damaged ones are set aside. Blocks.
    pub(crate) fn newest_image(&self) -> Option<Box<Image>> {
        while let Some(slot) = self.newest() {
            match self.image(slot) {
                Ok(image) => return Some(image),
                // Said already, and no longer the newest.
                Err(error) => tracing::debug!(error = format!("{error:#}"), "an older snapshot is looked at"),
            }
        }
        None
    }

    /// The slot of the newest.
    pub(crate) fn newest(&self) -> Option<Slot> {
        self.state().kept.last_key_value().map(|(slot, _)| *slot)
    }

    /// All of them, oldest first.
    pub(crate) fn list(&self) -> Vec<Arc<SnapshotFile>> {
        self.state().kept.values().map(|kept| Arc::clone(&kept.file)).collect()
    }

    /// The snapshot of a slot.
    pub(crate) fn file(&self, slot: Slot) -> Option<Arc<SnapshotFile>> {
        self.state().kept.get(&slot).map(|kept| Arc::clone(&kept.file))
    }

    /// Reads a snapshot back from the disk. Blocks.
    ///
    /// # Errors
    /// It is gone or damaged; it is then set aside.
    #[cfg(test)]
    pub(crate) fn verify(&self, slot: Slot, progress: &mut dyn FnMut(u64)) -> anyhow::Result<()> {
        let file = self.file(slot).with_context(|| format!("there is no snapshot of slot {slot}"))?;
        self.judge(&file, file.verify(progress))?;
        if let Some(kept) = self.state().kept.get_mut(&slot).filter(|kept| Arc::ptr_eq(&kept.file, &file)) {
            kept.verified = true;
        }
        Ok(())
    }

    /// Slots up to `through` are covered by verified snapshots: those older than the newest verified one may go.
    pub(crate) fn cut(&self, through: Slot) {
        let mut state = self.state();
        let newest = state.kept.iter().rev().find(|(slot, kept)| **slot >= through && kept.verified);
        let Some(newest) = newest.map(|(slot, _)| *slot) else { return };
        let later = state.kept.split_off(&newest);
        let older = std::mem::replace(&mut state.kept, later);
        drop(state);
        self.remove(older.into_values().map(|kept| kept.file).collect());
    }

    /// Snapshots of slots after this one are of a diverged application: nobody uses or serves them any more.
    pub(crate) fn discard(&self, after: Slot) {
        let mut state = self.state();
        state.discards += 1;
        let diverged = state.kept.split_off(&after.next());
        drop(state);
        let files: Vec<_> = diverged.into_values().map(|kept| kept.file).collect();
        for file in &files {
            file.revoke();
            tracing::warn!(slot = %file.manifest().slot, "a snapshot of the diverged application is discarded");
        }
        self.remove(files);
    }

    /// This member begins in that generation: snapshots of others are set aside. Blocks.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn leave_others(&self, generation: Generation) -> anyhow::Result<()> {
        let _names = self.names();
        let mut state = self.state();
        let others = state.kept.extract_if(.., |_, kept| kept.file.manifest().generation != generation);
        let others: Vec<_> = others.map(|(_, kept)| kept.file).collect();
        drop(state);
        for file in others {
            file.revoke();
            let (path, aside) = (file.path(), file.path().with_extension(&LEFT_BEHIND[1..]));
            std::fs::rename(path, &aside).with_context(|| format!("cannot rename {}", path.display()))?;
            let generation = file.manifest().generation;
            tracing::warn!(%generation, file = %aside.display(), "a snapshot of another generation is set aside");
        }
        sync_dir(&self.0.dir)
    }

    /// Removes files that are not kept any more. Who reads one goes on until it closes it.
    fn remove(&self, files: Vec<Arc<SnapshotFile>>) {
        if files.is_empty() {
            return;
        }
        let snapshots = self.clone();
        let thread = std::thread::Builder::new().name("snapshot-remover".to_owned());
        let spawned = thread.spawn(move || {
            let _names = snapshots.names();
            for file in files {
                // A newer one may have taken the name.
                if snapshots.file(file.manifest().slot).is_some() {
                    continue;
                }
                match std::fs::remove_file(file.path()) {
                    Ok(()) => tracing::info!(slot = %file.manifest().slot, "an older snapshot is removed"),
                    Err(error) => tracing::warn!(file = %file.path().display(), %error, "a snapshot is not removed"),
                }
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "older snapshots stay until the next start");
        }
    }

    /// Seals a draft, and keeps it under its final name.
    fn publish(&self, mut draft: Draft, discards: u64, manifest: &Manifest) -> anyhow::Result<()> {
        let file = draft.seal(manifest)?;
        let _names = self.names();
        ensure!(self.discards() == discards, "the application diverged meanwhile");
        let file = Arc::new(draft.rename(file, &self.0.dir)?);
        self.state().kept.insert(manifest.slot, Kept { file, verified: true });
        Ok(())
    }

    /// Sets a snapshot aside whose reading failed. Blocks then.
    ///
    /// # Errors
    /// It failed, or the snapshot was discarded meanwhile.
    pub(crate) fn judge<T>(&self, file: &Arc<SnapshotFile>, result: Result<T, FileError>) -> anyhow::Result<T> {
        let error = match result {
            Ok(_) if file.is_revoked() => bail!("the snapshot of slot {} is discarded", file.manifest().slot),
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        file.revoke();
        let slot = file.manifest().slot;
        let _names = self.names();
        let mut state = self.state();
        if state.kept.get(&slot).is_some_and(|kept| Arc::ptr_eq(&kept.file, file)) {
            state.kept.remove(&slot);
            drop(state);
            set_aside(file.path(), &error);
        }
        Err(error.into())
    }

    /// Bytes so far of the snapshot that is being taken.
    pub(crate) fn writing(&self) -> Option<u64> {
        self.0.writing.load(Ordering::Relaxed).checked_sub(1)
    }

    fn set_writing(&self, bytes: Option<u64>) {
        self.0.writing.store(bytes.map_or(0, |bytes| bytes.saturating_add(1)), Ordering::Relaxed);
    }

    /// Tells the age of the newest snapshot.
    pub(crate) fn show_age(&self) {
        let taken = self.state().kept.last_key_value().map(|(_, kept)| kept.file.taken());
        if let Some(age) = taken.and_then(|taken| taken.elapsed().ok()) {
            self.0.metrics.snapshot_age.set(age.as_secs_f64());
        }
    }

    fn observe(&self, took: Duration) {
        self.0.metrics.snapshot.observe(took.as_secs_f64());
    }

    /// A name for a file that is not whole yet; one that was given up may still be going.
    fn draft_path(&self, slot: Slot, suffix: &str) -> PathBuf {
        let number = self.0.drafts.fetch_add(1, Ordering::Relaxed);
        self.0.dir.join(format!("{slot:020}.{number}{suffix}"))
    }

    fn cluster(&self) -> &str {
        &self.0.cluster
    }

    fn member(&self) -> ReplicaId {
        self.0.member
    }

    fn discards(&self) -> u64 {
        self.state().discards
    }

    fn names(&self) -> MutexGuard<'_, ()> {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the snapshots of a data directory are.
fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("snapshots")
}

/// The names in a directory, in order.
fn names(dir: &Path) -> anyhow::Result<Vec<String>> {
    let failed = || format!("cannot read {}", dir.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(failed)? {
        // A name that is not UTF-8 is none of ours.
        names.extend(entry.with_context(failed)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// Opens a snapshot; the inner error says that it is damaged, the outer one is for an operator to resolve.
fn look_at(path: &Path, slot: Slot, cluster: &str) -> anyhow::Result<Result<SnapshotFile, FileError>> {
    let file = match SnapshotFile::open(path) {
        Ok(file) => file,
        Err(error) if error.is_version() => return Err(error.into()),
        Err(error) => return Ok(Err(error)),
    };
    let unusable = || format!("snapshot {} cannot be used: move it away and start again", path.display());
    file.manifest().validate(cluster).with_context(unusable)?;
    ensure!(
        file.manifest().slot == slot,
        "snapshot {} is of slot {}: give it its name back, or move it away",
        path.display(),
        file.manifest().slot
    );
    Ok(Ok(file))
}

/// Renames a damaged file, so that it is never used and can be looked at. Only the last one is kept.
fn set_aside(path: &Path, error: &FileError) {
    let aside = path.with_file_name(format!("last{DAMAGED}"));
    let file = aside.display().to_string();
    match std::fs::rename(path, &aside) {
        Ok(()) => tracing::error!(%error, file, "a damaged snapshot is set aside; it is not used any more"),
        Err(rename) => {
            tracing::error!(%error, %rename, "a damaged snapshot cannot be renamed; it is not used any more");
        }
    }
}
