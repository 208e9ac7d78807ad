//! One whole snapshot, opened for reading. It stays readable as long as this lives, even after its name is gone.

use super::format::{self, BadEnd, TRAILER_BYTES};
use bytes::Bytes;
use mesh::ids::Digest;
use mesh::order::Image;
use mesh::transfer::{CHUNK_BYTES, Manifest};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The system's.
    #[error("{what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// Its end is not that of a snapshot.
    #[error("snapshot {} cannot be used: {source}", path.display())]
    End { path: PathBuf, source: BadEnd },
    /// The file is longer or shorter than its manifest says.
    #[error("snapshot {} is damaged: it has {found} bytes, and its manifest says {expected}", path.display())]
    Length { path: PathBuf, found: u64, expected: u64 },
    /// Bytes that had been read back well do not check out any more.
    #[error("snapshot {} is damaged: chunk {index} of {count} is not what was written", path.display())]
    Chunk { path: PathBuf, index: usize, count: usize },
    /// The image's bytes are those that were written, and no image.
    #[error("the image of snapshot {} does not decode: it was written by another version of this program", .0.display())]
    Image(PathBuf),
}

impl FileError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }

    /// Whether another version of this program could read it.
    pub(crate) const fn is_version(&self) -> bool {
        matches!(self, Self::End { source: BadEnd::Version(_), .. } | Self::Image(_))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    file: File,
    path: PathBuf,
    manifest: Manifest,
    digest: Digest,
    taken: SystemTime,
    /// Nobody may use it any more: it is damaged, or of a diverged application.
    revoked: AtomicBool,
}

impl SnapshotFile {
    /// Opens a file and checks its manifest; the content is checked where it is read.
    ///
    /// # Errors
    /// It is not a whole snapshot.
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let file = File::open(path).map_err(FileError::io("cannot open", path))?;
        let metadata = file.metadata().map_err(FileError::io("cannot look at", path))?;
        let damaged = |source| FileError::End { path: path.to_owned(), source };
        let found = metadata.len();
        let before_trailer = found.checked_sub(TRAILER_BYTES as u64).ok_or_else(|| damaged(BadEnd::Damaged))?;
        let mut trailer = [0; TRAILER_BYTES];
        file.read_exact_at(&mut trailer, before_trailer).map_err(FileError::io("cannot read", path))?;
        let (length, digest) = format::decode_trailer(&trailer).map_err(damaged)?;
        let total = before_trailer.checked_sub(u64::from(length)).ok_or_else(|| damaged(BadEnd::Damaged))?;
        // Bounded by the file's own length.
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, total).map_err(FileError::io("cannot read", path))?;
        let manifest = format::decode_manifest(&bytes, digest).map_err(damaged)?;
        if manifest.total_len != total {
            let expected = manifest.total_len.saturating_add(found - total);
            return Err(FileError::Length { path: path.to_owned(), found, expected });
        }
        let taken = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let revoked = AtomicBool::new(false);
        Ok(Self { file, path: path.to_owned(), manifest, digest, taken, revoked })
    }

    /// The same file, under the name that it was given.
    pub(super) fn renamed(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The hash of the manifest.
    pub(crate) const fn digest(&self) -> Digest {
        self.digest
    }

    /// When it was written.
    pub(crate) const fn taken(&self) -> SystemTime {
        self.taken
    }

    pub(crate) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Relaxed)
    }

    pub(super) fn revoke(&self) {
        self.revoked.store(true, Ordering::Relaxed);
    }

    /// Reads chunk `index` and checks it.
    ///
    /// # Errors
    /// It cannot be read, or is not what was written; or there is none.
    pub(crate) fn chunk(&self, index: usize) -> Result<Bytes, FileError> {
        let mut bytes = vec![0; self.manifest.chunk_len(index)];
        let failed = FileError::io("cannot read", &self.path);
        self.file.read_exact_at(&mut bytes, self.manifest.offset(index)).map_err(failed)?;
        if !self.manifest.matches(index, &bytes) {
            let count = self.manifest.chunks.len();
            return Err(FileError::Chunk { path: self.path.clone(), index, count });
        }
        Ok(bytes.into())
    }

    /// Reads what of it is the core's.
    ///
    /// # Errors
    /// It is damaged, or of another version.
    pub(crate) fn image(&self) -> Result<Box<Image>, FileError> {
        let length = usize::try_from(self.manifest.image_len).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        let mut index = 0;
        while bytes.len() < length {
            let chunk = self.chunk(index)?;
            bytes.extend_from_slice(&chunk[..chunk.len().min(length - bytes.len())]);
            index += 1;
        }
        let image: Image = mesh::wire::decode(&bytes).map_err(|_| FileError::Image(self.path.clone()))?;
        if image.slot != self.manifest.slot {
            return Err(FileError::Image(self.path.clone()));
        }
        Ok(Box::new(image))
    }

    /// Calls `each` with every piece of the application's dump, in order, until it says no.
    ///
    /// # Errors
    /// The snapshot is damaged: what was given so far is right, and not all.
    pub(super) fn dump(&self, mut each: impl FnMut(Bytes) -> bool) -> Result<(), FileError> {
        let image = self.manifest.image_len;
        let first = usize::try_from(image / CHUNK_BYTES as u64).unwrap_or(usize::MAX);
        for index in first..self.manifest.chunks.len() {
            let mut chunk = self.chunk(index)?;
            if index == first {
                // The remainder of a division by the chunk's size, and no longer than the chunk.
                drop(chunk.split_to(((image % CHUNK_BYTES as u64) as usize).min(chunk.len())));
            }
            if !chunk.is_empty() && !each(chunk) {
                break;
            }
        }
        Ok(())
    }

    /// Reads everything back from the disk, not from the cache. `progress` is told the bytes so far.
    ///
    /// # Errors
    /// The first chunk that is not what was written.
    pub(crate) fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<(), FileError> {
        rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed)
            .map_err(|error| FileError::io("cannot drop the cache of", &self.path)(error.into()))?;
        let mut done = 0;
        for index in 0..self.manifest.chunks.len() {
            done += self.chunk(index)?.len() as u64;
            progress(done);
        }
        self.image().map(drop)
    }
}
