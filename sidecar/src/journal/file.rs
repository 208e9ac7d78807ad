//! The journal's file: made, read and judged at start, then appended to.
//!
//! A failed write or sync is reported and never retried: after it nobody knows what the disk holds.

use super::entry::Entry;
use super::format::{self, BadHeader, FRAME_HEAD, FRAME_MAX, HEADER_BYTES, Identity, Key};
use mesh::limits::Limits;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The file is grown by this much at a time, zeroed and synced: a sync within it then writes no metadata, which
/// halves its price.
pub(super) const CHUNK: u64 = 8 << 20;
/// A group takes no further record above this many bytes.
pub(super) const GROUP_BYTES: usize = 8 << 20;

const _: () =
    assert!(GROUP_BYTES + 2 * Limits::DEFAULT.message_bytes <= FRAME_MAX, "a full group still takes one more record");

/// Why a journal cannot be used. All but `Io` are for an operator to resolve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// The system's.
    #[error("{what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// Another process has it.
    #[error("data directory {} is in use by another process: end that one first, or give this member its own directory", .0.display())]
    Locked(PathBuf),
    /// Something else.
    #[error("{} is not a journal of Lockstep: move it away, or give this member its own directory", .0.display())]
    NotAJournal(PathBuf),
    /// Of another version.
    #[error("{} has format version {version}, this program writes version {}: use the program that wrote it", path.display(), format::VERSION)]
    Version { path: PathBuf, version: u32 },
    /// Of another cluster or member.
    #[error("{} belongs to member {} of cluster {}, this is member {id} of cluster {cluster}: check --data-dir, --id and --cluster", path.display(), found.id, found.cluster)]
    Foreign { path: PathBuf, found: Identity, cluster: String, id: mesh::ids::ReplicaId },
    /// Bytes that had been synced do not check out.
    #[error(
        "{} is damaged at byte {at} and has valid records behind it (at byte {valid}): the disk lost what it had stored, and this member \
         may have forgotten votes. It must not vote again with it. Move the data directory {} away and start again: the member rejoins \
         as a learner and is taught by its peers", path.display(), path.parent().unwrap_or(path).display()
    )]
    Damaged { path: PathBuf, at: u64, valid: u64 },
    /// The header does not check out.
    #[error(
        "the header of {} is damaged: this member may have forgotten votes and must not vote again with it. Move the data directory {} \
         away and start again: the member rejoins as a learner and is taught by its peers", path.display(), path.parent().unwrap_or(path).display()
    )]
    DamagedHeader { path: PathBuf },
}

impl JournalError {
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

/// An open journal: the data directory is locked as long as this lives.
#[derive(Debug)]
pub(crate) struct JournalFile {
    file: File,
    _lock: File,
    key: Key,
    /// Where the next frame goes.
    end: u64,
    /// Bytes of the file; zero from `end` on.
    allocated: u64,
    /// Whether appended bytes are synced.
    synced: bool,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// What a journal held.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Its entries, in the order in which they were written.
    pub(crate) entries: Vec<Entry>,
    /// Bytes of a torn tail that were cut.
    pub(crate) torn: Option<u64>,
}

impl JournalFile {
    /// Opens the journal of `dir`, or makes an empty one; locks the directory.
    ///
    /// # Errors
    /// See [`JournalError`]; nothing was changed then.
    pub(crate) fn open(dir: &Path, identity: &Identity, synced: bool) -> Result<(Self, Found), JournalError> {
        std::fs::create_dir_all(dir).map_err(JournalError::io("cannot create", dir))?;
        let lock = lock(dir)?;
        let path = dir.join("journal");
        if !path.try_exists().map_err(JournalError::io("cannot look at", &path))? {
            create(dir, &path, identity)?;
        }
        let file =
            OpenOptions::new().read(true).write(true).open(&path).map_err(JournalError::io("cannot open", &path))?;
        // What a killed process wrote may be in the page cache only; it counts as durable from now on, so it must be.
        // Then the cache is dropped: after a failed write-back it holds pages that the disk does not.
        file.sync_all().map_err(JournalError::io("cannot sync", &path))?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
            .map_err(|error| JournalError::io("cannot drop the cache of", &path)(error.into()))?;
        let key = read_header(&file, &path, identity)?;
        let allocated = file.metadata().map_err(JournalError::io("cannot look at", &path))?.len();
        let mut journal = Self { file, _lock: lock, key, end: HEADER_BYTES, allocated, synced, buffer: Vec::new() };
        let found = journal.recover(&path)?;
        Ok((journal, found))
    }

    /// Reads every frame, decides what the end means, cuts a torn tail.
    fn recover(&mut self, path: &Path) -> Result<Found, JournalError> {
        let failed = |error| JournalError::io("cannot read", path)(error);
        let mut entries = Vec::new();
        self.end = read_frames(&self.file, &self.key, self.allocated, &mut entries).map_err(failed)?;
        let torn = match judge_end(&self.file, &self.key, self.end, self.allocated).map_err(failed)? {
            End::Clean => None,
            End::Damaged { valid } => return Err(JournalError::Damaged { path: path.to_owned(), at: self.end, valid }),
            End::Torn { until } => {
                let cut = JournalError::io("cannot cut the torn tail of", path);
                self.zero(self.end, until).and_then(|()| self.file.sync_all()).map_err(cut)?;
                Some(until - self.end)
            }
        };
        Ok(Found { entries, torn })
    }

    /// Writes one frame with these entries; durable after [`Self::sync`].
    ///
    /// # Errors
    /// The system's: the journal must not be used any more.
    pub(crate) fn append<'a>(&mut self, entries: impl IntoIterator<Item = &'a Entry>) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.resize(FRAME_HEAD, 0);
        for entry in entries {
            self.buffer.extend_from_slice(&mesh::wire::encode(entry));
        }
        if self.buffer.len() == FRAME_HEAD {
            return Ok(());
        }
        self.key.seal(self.end, &mut self.buffer);
        let end = self.end + self.buffer.len() as u64;
        if end > self.allocated {
            self.grow(end)?;
        }
        self.file.write_all_at(&self.buffer, self.end)?;
        self.end = end;
        // One huge group must not pin its memory for ever.
        self.buffer.shrink_to(GROUP_BYTES);
        Ok(())
    }

    /// Makes what was appended durable, as far as the mode asks.
    ///
    /// # Errors
    /// The system's: never to be retried.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.synced { self.file.sync_data() } else { Ok(()) }
    }

    /// Grows the file while there is nothing to do, so that no group has to wait for it.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn grow_ahead(&mut self) -> io::Result<()> {
        if self.allocated - self.end < CHUNK / 2 { self.grow(self.allocated + 1) } else { Ok(()) }
    }

    /// Bytes of all frames.
    pub(crate) const fn bytes(&self) -> u64 {
        self.end - HEADER_BYTES
    }

    /// The same journal, opened so that every write fails.
    #[cfg(test)]
    pub(super) fn read_only_for_test(mut self, dir: &Path) -> Self {
        self.file = File::open(dir.join("journal")).expect("journal");
        self
    }

    fn grow(&mut self, needed: u64) -> io::Result<()> {
        let target = needed.next_multiple_of(CHUNK);
        self.zero(self.allocated, target)?;
        self.file.sync_all()?;
        self.allocated = target;
        Ok(())
    }

    fn zero(&self, mut from: u64, to: u64) -> io::Result<()> {
        let zeros = vec![0; usize::try_from((to - from).min(1 << 20)).unwrap_or(1 << 20)];
        while from < to {
            let take = usize::try_from(to - from).map_or(zeros.len(), |left| left.min(zeros.len()));
            self.file.write_all_at(&zeros[..take], from)?;
            from += take as u64;
        }
        Ok(())
    }
}

/// Takes the directory for this process alone.
pub(super) fn lock(dir: &Path) -> Result<File, JournalError> {
    let path = dir.join("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(JournalError::io("cannot open", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(JournalError::Locked(dir.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(JournalError::io("cannot lock", &path)(source)),
    }
}

/// Makes an empty journal that appears under its name whole or not at all.
fn create(dir: &Path, path: &Path, identity: &Identity) -> Result<(), JournalError> {
    let temporary = dir.join("journal.new");
    let make = || -> io::Result<()> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(&temporary)?;
        file.write_all_at(&format::encode_header(identity, &Key(crate::entropy::bytes()?)), 0)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(dir)?.sync_all()
    };
    make().map_err(JournalError::io("cannot create", path))
}

fn read_header(file: &File, path: &Path, identity: &Identity) -> Result<Key, JournalError> {
    let mut bytes = vec![0; HEADER_BYTES as usize];
    file.read_exact_at(&mut bytes, 0).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => JournalError::DamagedHeader { path: path.to_owned() },
        _ => JournalError::io("cannot read", path)(error),
    })?;
    let (found, key) = format::decode_header(&bytes).map_err(|bad| match bad {
        BadHeader::Magic => JournalError::NotAJournal(path.to_owned()),
        BadHeader::Version(version) => JournalError::Version { path: path.to_owned(), version },
        BadHeader::Damaged => JournalError::DamagedHeader { path: path.to_owned() },
    })?;
    if found.cluster != identity.cluster || found.id != identity.id {
        let (cluster, id) = (identity.cluster.clone(), identity.id);
        return Err(JournalError::Foreign { path: path.to_owned(), found, cluster, id });
    }
    Ok(key)
}

/// Collects the entries of all frames up to the first that does not check out; returns where that one begins.
fn read_frames(file: &File, key: &Key, allocated: u64, entries: &mut Vec<Entry>) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut offset = reader.seek(SeekFrom::Start(HEADER_BYTES))?;
    let mut payload = Vec::new();
    loop {
        let mut head = [0; FRAME_HEAD];
        if offset + FRAME_HEAD as u64 > allocated {
            return Ok(offset);
        }
        reader.read_exact(&mut head)?;
        let Some(length) = key.read_head(offset, &head) else { return Ok(offset) };
        let next = offset + format::frame_bytes(length);
        if next > allocated {
            return Ok(offset);
        }
        payload.resize((next - offset) as usize - FRAME_HEAD, 0);
        reader.read_exact(&mut payload)?;
        if !key.payload_matches(offset, &head, &payload[..length]) || !decode_entries(&payload[..length], entries) {
            return Ok(offset);
        }
        offset = next;
    }
}

/// Adds the entries of a frame that checked out; false, and none added, if they do not decode.
fn decode_entries(mut payload: &[u8], entries: &mut Vec<Entry>) -> bool {
    let before = entries.len();
    while !payload.is_empty() {
        match postcard::take_from_bytes(payload) {
            Ok((entry, rest)) => {
                entries.push(entry);
                payload = rest;
            }
            Err(_) => {
                entries.truncate(before);
                return false;
            }
        }
    }
    true
}

enum End {
    /// Nothing but zeros behind the last frame.
    Clean,
    /// Bytes up to `until` that are no frame, and no frame behind them.
    Torn { until: u64 },
    /// A frame behind bytes that are none.
    Damaged { valid: u64 },
}

/// What is at and behind `offset`, where no valid frame begins.
fn judge_end(file: &File, key: &Key, offset: u64, allocated: u64) -> io::Result<End> {
    const WINDOW: usize = 1 << 20;
    let mut window = vec![0; WINDOW + FRAME_HEAD];
    let mut until = offset;
    let mut base = offset;
    while base < allocated {
        let filled = read_at_most(file, &mut window, base)?;
        for start in (0..filled.min(WINDOW)).step_by(format::ALIGN as usize) {
            let bytes = &window[start..filled];
            if bytes.iter().take(format::ALIGN as usize).all(|byte| *byte == 0) {
                continue;
            }
            let at = base + start as u64;
            until = (at + format::ALIGN).min(allocated);
            if at > offset && valid_frame(file, key, at, bytes, allocated)? {
                return Ok(End::Damaged { valid: at });
            }
        }
        base += WINDOW as u64;
    }
    Ok(if until == offset { End::Clean } else { End::Torn { until } })
}

fn valid_frame(file: &File, key: &Key, at: u64, bytes: &[u8], allocated: u64) -> io::Result<bool> {
    let Some(head) = bytes.first_chunk::<FRAME_HEAD>() else { return Ok(false) };
    let Some(length) = key.read_head(at, head) else { return Ok(false) };
    if at + format::frame_bytes(length) > allocated {
        return Ok(false);
    }
    let mut payload = vec![0; length];
    file.read_exact_at(&mut payload, at + FRAME_HEAD as u64)?;
    Ok(key.payload_matches(at, head, &payload))
}

fn read_at_most(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
