//! A start: the journal is locked, looked at and judged; then it is gone on with, or set aside for a new one.

use super::entry::{Entry, History, Recovery, Summary};
use super::error::JournalError;
use super::file::{Full, JournalFile};
use super::format::{self, HEADER_BYTES, Header, Identity, Key};
use super::scan::{self, Found};
use super::segment::{Options, Segment};
use mesh::order::{Record, Scan, Verdict, judge};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The journal's folder in a data directory.
pub(super) const FOLDER: &str = "journal";
/// A journal that is being made.
const NEW: &str = "journal.new";
/// Why a journal is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aside {
    /// It must not be voted with.
    Damaged,
    /// It is of a life that was removed from the cluster.
    Removed,
}

impl Aside {
    /// How the folders begin of journals that were set aside; a number follows.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Damaged => "journal.damaged-",
            Self::Removed => "journal.removed-",
        }
    }
}

/// So many of those are kept: the newest.
const ASIDE_KEPT: usize = 3;

/// A journal that was looked at, and nothing changed yet. The data directory is locked.
#[derive(Debug)]
pub(crate) struct Looked {
    dir: PathBuf,
    lock: File,
    identity: Identity,
    options: Options,
    boot: String,
    found: Vec<Found>,
    summary: Summary,
    records: Vec<Record>,
}

impl Looked {
    /// The same where the data directory is locked already.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub(crate) fn with(
        lock: File,
        dir: &Path,
        identity: &Identity,
        options: &Options,
        boot: &str,
    ) -> Result<Self, JournalError> {
        Self::locked(dir, lock, identity, options, boot)
    }

    /// Locks the data directory and reads the journal in it; makes an empty one if there is none.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub(crate) fn at(dir: &Path, identity: &Identity, options: &Options, boot: &str) -> Result<Self, JournalError> {
        std::fs::create_dir_all(dir).map_err(JournalError::io("cannot create", dir))?;
        Self::locked(dir, lock(dir)?, identity, options, boot)
    }

    fn locked(
        dir: &Path,
        lock: File,
        identity: &Identity,
        options: &Options,
        boot: &str,
    ) -> Result<Self, JournalError> {
        let folder = dir.join(FOLDER);
        let blank = Summary::new(History::Blank, boot);
        match std::fs::symlink_metadata(&folder) {
            Ok(file) if file.is_file() => return Err(not_a_folder(folder)),
            Ok(_) => remove(&dir.join(NEW))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A member that was cut off while it set a damaged journal aside must not be taken for a blank one.
                if is_complete(&dir.join(NEW)) {
                    rename(dir, NEW, FOLDER)?;
                } else {
                    make(dir, identity, options, &blank)?;
                    rename(dir, NEW, FOLDER)?;
                }
            }
            Err(error) => return Err(JournalError::io("cannot look at", &folder)(error)),
        }
        remove_unfinished(&folder)?;
        let (dir, identity, options) = (dir.to_owned(), identity.clone(), options.clone());
        let (found, records) = (Vec::new(), Vec::new());
        let boot = boot.to_owned();
        let mut looked = Self { dir, lock, identity, options, boot, found, summary: blank, records };
        for (number, path) in scan::segments(&folder)? {
            looked.read(number, &path)?;
        }
        Ok(looked)
    }

    fn read(&mut self, number: u64, path: &Path) -> Result<(), JournalError> {
        let file = open(path)?;
        // What a killed process wrote may be in the page cache only; it counts as durable from now on, so it must be.
        // Then the cache is dropped: after a failed write-back it holds pages that the disk does not.
        file.sync_all().map_err(JournalError::io("cannot sync", path))?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
            .map_err(|error| JournalError::io("cannot drop the cache of", path)(error.into()))?;
        let (summary, records) = (&mut self.summary, &mut self.records);
        let mut found = scan::read_segment(&file, path, number, &mut |frame| {
            for entry in frame.entries {
                summary.note(&entry);
                match entry {
                    Entry::Head { summary, .. } => records.extend(summary.records()),
                    Entry::Core(record) => records.push(record),
                    Entry::Proposed { .. } | Entry::Started | Entry::Learner { .. } | Entry::Booted { .. } => {}
                }
            }
            Ok(())
        })?;
        if let Some(header) = &found.header {
            if header.identity != self.identity {
                let (cluster, id) = (self.identity.cluster.clone(), self.identity.id);
                let found = header.identity.clone();
                return Err(JournalError::Foreign { path: path.to_owned(), found, cluster, id });
            }
            scan::refuse_strangers(&self.found, &mut found);
        }
        self.found.push(found);
        Ok(())
    }

    /// How far the member's history is, as far as it can be read.
    pub(crate) const fn history(&self) -> &History {
        &self.summary.history
    }

    /// What the journal's state means. `synced`: its cluster writes so that a power cut loses nothing.
    pub(crate) fn judge(&self, synced: bool) -> Verdict {
        // Until a member takes part, every entry is synced in every mode.
        let takes_part = matches!(self.summary.history, History::Started { .. });
        let forgotten = takes_part && !synced && self.summary.boot != self.boot;
        judge(&Scan { segments: self.found.iter().map(|found| found.seen).collect(), forgotten })
    }

    /// The segment of that number, for people: its file, and where what checks out ends.
    pub(crate) fn place(&self, segment: u64) -> (PathBuf, u64) {
        let found = self.found.iter().find(|found| found.seen.number == segment);
        let path = self.dir.join(FOLDER).join(scan::segment_name(segment));
        (path, found.filter(|found| found.header.is_some()).map_or(0, |found| found.seen.end))
    }

    /// Goes on with a journal that is whole, or whole once its torn tail is cut; that is cut.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub(crate) fn resume(self) -> Result<(JournalFile, Recovery), JournalError> {
        let Self { dir, lock, identity, options, boot, found, summary, records } = self;
        let folder = dir.join(FOLDER);
        let history = summary.history.clone();
        let mut full = std::collections::VecDeque::new();
        let (mut current, mut spare, mut journal) = (None, None, 0);
        for found in found {
            let Some(header) = &found.header else { continue };
            journal = header.journal;
            let next = writable(&found, header.key.clone())?;
            if found.seen.head.is_none() {
                // A torn head was cut, so the segment is as it was made.
                spare = Some(next);
                continue;
            }
            if let Some(Segment { number, end, highest, .. }) = current.replace(next) {
                full.push_back(Full { number, bytes: end - HEADER_BYTES, highest });
            }
        }
        // It was judged to have one.
        let Some(current) = current else { return Err(JournalError::NotAJournal(folder)) };
        let folder_file = File::open(&folder).map_err(JournalError::io("cannot open", &folder))?;
        let buffer = Vec::new();
        let mut file = JournalFile {
            folder,
            folder_file,
            _lock: lock,
            identity,
            journal,
            options,
            full,
            current,
            spare,
            summary,
            buffer,
        };
        if file.summary.boot != boot {
            let stored = file.append([&Entry::Booted { boot }]).and_then(|()| file.persist());
            stored.map_err(JournalError::io("cannot write to", file.folder()))?;
        }
        Ok((file, Recovery { history, records }))
    }

    /// Sets the journal aside and begins a new one with this history; where the old one is now.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub(crate) fn replace(
        self,
        history: History,
        why: Aside,
    ) -> Result<(JournalFile, Recovery, PathBuf), JournalError> {
        let Self { dir, lock, identity, options, boot, .. } = self;
        make(&dir, &identity, &options, &Summary::new(history, &boot))?;
        let prefix = why.prefix();
        let mut aside = set_aside(&dir, prefix)?;
        let next = aside.last().map_or(1, |last| last.saturating_add(1));
        let name = format!("{prefix}{next}");
        rename(&dir, FOLDER, &name)?;
        rename(&dir, NEW, FOLDER)?;
        aside.push(next);
        for old in aside.iter().rev().skip(ASIDE_KEPT) {
            remove(&dir.join(format!("{prefix}{old}")))?;
        }
        // The new one is read as every other: what counts is what is there.
        let looked = Self::locked(&dir, lock, &identity, &options, &boot)?;
        let path = dir.join(name);
        looked.resume().map(|(file, recovery)| (file, recovery, path))
    }
}

/// Whose journal there is in a data directory, as the first header says that checks out; `None` where there is no journal.
///
/// # Errors
/// There is one that nothing can be read of.
pub(crate) fn owner(dir: &Path) -> Result<Option<Identity>, JournalError> {
    let folder = dir.join(FOLDER);
    if !folder.is_dir() {
        return if folder.exists() { Err(not_a_folder(folder)) } else { Ok(None) };
    }
    for (number, path) in scan::segments(&folder)? {
        let file = File::open(&path).map_err(JournalError::io("cannot open", &path))?;
        let found = scan::read_segment(&file, &path, number, &mut |_| Ok(()))?;
        if let Some(header) = found.header {
            return Ok(Some(header.identity));
        }
    }
    Err(JournalError::NotAJournal(folder))
}

/// A segment to write to, its tail cut if it is torn.
fn writable(found: &Found, key: Key) -> Result<Segment, JournalError> {
    let file = open(&found.path)?;
    let (number, end, highest) = (found.seen.number, found.seen.end, found.highest);
    let segment = Segment { file, number, key, end, allocated: found.length, highest };
    if found.until > end {
        segment.cut_tail(found.until).map_err(JournalError::io("cannot cut the torn tail of", &found.path))?;
    }
    Ok(segment)
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

fn open(path: &Path) -> Result<File, JournalError> {
    OpenOptions::new().read(true).write(true).open(path).map_err(JournalError::io("cannot open", path))
}

/// Makes a journal of one segment beside the place where it belongs; durable.
fn make(dir: &Path, identity: &Identity, options: &Options, summary: &Summary) -> Result<(), JournalError> {
    let new = dir.join(NEW);
    remove(&new)?;
    let make = || -> io::Result<()> {
        std::fs::create_dir(&new)?;
        let key = Key(crate::entropy::bytes()?);
        let journal = u128::from_le_bytes(crate::entropy::bytes()?);
        let header = Header { identity: identity.clone(), journal, number: 1, key: key.clone() };
        let head = Entry::Head { previous_end: 0, summary: Box::new(summary.clone()) };
        let mut frame = vec![0; format::FRAME_HEAD];
        frame.extend_from_slice(&mesh::wire::encode(&head));
        key.seal(HEADER_BYTES, &mut frame);
        let segment = Segment::create(&new, &header, HEADER_BYTES + frame.len() as u64, options)?;
        segment.file.write_all_at(&frame, HEADER_BYTES)?;
        segment.file.sync_all()?;
        File::open(&new)?.sync_all()?;
        File::open(dir)?.sync_all()
    };
    make().map_err(JournalError::io("cannot create", &new))
}

/// Whether `make` came to its end there.
fn is_complete(new: &Path) -> bool {
    let path = new.join(scan::segment_name(1));
    let Ok(file) = File::open(&path) else { return false };
    scan::read_segment(&file, &path, 1, &mut |_| Ok(())).is_ok_and(|found| found.seen.head.is_some())
}

fn rename(dir: &Path, from: &str, to: &str) -> Result<(), JournalError> {
    let from = dir.join(from);
    let rename = || -> io::Result<()> {
        std::fs::rename(&from, dir.join(to))?;
        File::open(dir)?.sync_all()
    };
    rename().map_err(JournalError::io("cannot rename", &from))
}

/// Removes a folder, if it is there.
fn remove(folder: &Path) -> Result<(), JournalError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(JournalError::io("cannot remove", folder)(error)),
        _ => Ok(()),
    }
}

/// Removes segments that were not made to the end.
fn remove_unfinished(folder: &Path) -> Result<(), JournalError> {
    let failed = |error| JournalError::io("cannot clean", folder)(error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            std::fs::remove_file(path).map_err(failed)?;
        }
    }
    Ok(())
}

/// The numbers of the journals that were set aside, ascending.
fn set_aside(dir: &Path, prefix: &str) -> Result<Vec<u64>, JournalError> {
    let failed = |error| JournalError::io("cannot read", dir)(error);
    let mut numbers: Vec<u64> = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_prefix(prefix)?.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn not_a_folder(path: PathBuf) -> JournalError {
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(16).read_to_end(&mut bytes));
    match (read, format::version_of(&bytes)) {
        (Err(error), _) => JournalError::io("cannot read", &path)(error),
        (Ok(_), Some(version)) => JournalError::Version { path, version },
        (Ok(_), None) => JournalError::NotAJournal(path),
    }
}
