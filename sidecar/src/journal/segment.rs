//! One segment that is written to.

use super::error::is_full;
use super::format::{self, HEADER_BYTES, Header, Key};
use super::scan::segment_name;
use mesh::ids::Slot;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How a journal writes.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Whether appended bytes are synced.
    pub(crate) synced: bool,
    /// A frame that would end beyond so many bytes of a segment begins the next one.
    pub(super) segment_bytes: u64,
    /// A segment is grown by this much at a time, zeroed and synced: a sync within it then writes no metadata, which
    /// halves its price.
    pub(super) chunk_bytes: u64,
    /// A disk that has so many bytes for this folder.
    #[cfg(test)]
    pub(super) disk: Option<(std::path::PathBuf, u64)>,
}

impl Options {
    /// As it is outside of tests.
    pub(crate) const fn new(synced: bool) -> Self {
        Self {
            synced,
            segment_bytes: 64 << 20,
            chunk_bytes: 8 << 20,
            #[cfg(test)]
            disk: None,
        }
    }

    /// How many of `bytes` the disk has room for: it alone knows, but in tests.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests ask themselves")]
    const fn room(&self, bytes: usize) -> usize {
        bytes
    }

    #[cfg(test)]
    fn room(&self, bytes: usize) -> usize {
        fn used(folder: &Path) -> u64 {
            let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
            entries
                .map(|entry| {
                    if entry.path().is_dir() {
                        used(&entry.path())
                    } else {
                        entry.metadata().map_or(0, |file| file.len())
                    }
                })
                .sum()
        }
        self.disk.as_ref().map_or(bytes, |(folder, size)| bytes.min(size.saturating_sub(used(folder)) as usize))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: File,
    pub(super) number: u64,
    pub(super) key: Key,
    /// Where the next frame goes.
    pub(super) end: u64,
    /// Bytes of the file; zero from `end` on.
    pub(super) allocated: u64,
    /// The highest slot with a vote in it.
    pub(super) highest: Slot,
}

impl Segment {
    /// Makes a segment without any frame, which appears under its name whole or not at all; the folder is to be synced.
    ///
    /// # Errors
    /// The system's. If the disk is full, nothing is left of it.
    pub(super) fn create(folder: &Path, header: &Header, allocated: u64, options: &Options) -> io::Result<Self> {
        let temporary = folder.join(format!("{}.new", segment_name(header.number)));
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&temporary)?;
        let make = || -> io::Result<()> {
            extend(&file, &format::encode_header(header), 0, options)?;
            zero(&file, HEADER_BYTES, allocated, options)
        };
        make().inspect_err(|_| {
            // The error that counts is the first one; the next start removes what is left.
            let _ = std::fs::remove_file(&temporary);
        })?;
        file.sync_all()?;
        std::fs::rename(&temporary, folder.join(segment_name(header.number)))?;
        let allocated = allocated.max(HEADER_BYTES);
        Ok(Self {
            file,
            number: header.number,
            key: header.key.clone(),
            end: HEADER_BYTES,
            allocated,
            highest: Slot(0),
        })
    }

    /// Bytes of its frames.
    pub(super) const fn bytes(&self) -> u64 {
        self.end - HEADER_BYTES
    }

    /// Makes room up to `needed`, and up to a whole chunk if the disk has that much.
    ///
    /// # Errors
    /// The system's: no room for `needed`, or the segment must not be used any more.
    pub(super) fn grow(&mut self, needed: u64, options: &Options) -> io::Result<()> {
        let most = needed.max(options.segment_bytes);
        let chunk = needed.next_multiple_of(options.chunk_bytes).min(most);
        match self.grow_to(chunk, options) {
            Err(error) if is_full(&error) && self.allocated < needed => self.grow_to(needed, options),
            // So much was there.
            Err(error) if is_full(&error) => Ok(()),
            result => result,
        }
    }

    /// Makes room up to `target`; what the disk had room for is kept in any case.
    ///
    /// # Errors
    /// As [`Self::grow`].
    pub(super) fn grow_to(&mut self, target: u64, options: &Options) -> io::Result<()> {
        let grown = match zero(&self.file, self.allocated, target, options) {
            Err(error) if !is_full(&error) => return Err(error),
            grown => grown,
        };
        self.file.sync_all()?;
        self.allocated = self.file.metadata()?.len();
        grown
    }

    /// Writes over everything from the end of the last frame up to `until`.
    ///
    /// # Errors
    /// The system's: the segment must not be used any more.
    pub(super) fn cut_tail(&self, until: u64) -> io::Result<()> {
        pieces(self.end, until, |at, zeros| self.file.write_all_at(zeros, at))?;
        self.file.sync_all()
    }
}

/// Writes zeros that make the file longer.
fn zero(file: &File, from: u64, to: u64, options: &Options) -> io::Result<()> {
    pieces(from, to, |at, zeros| extend(file, zeros, at, options))
}

fn pieces(mut from: u64, to: u64, mut write: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let zeros = vec![0; usize::try_from(to.saturating_sub(from).min(1 << 20)).unwrap_or(1 << 20)];
    while from < to {
        let take = usize::try_from(to - from).map_or(zeros.len(), |left| left.min(zeros.len()));
        write(from, &zeros[..take])?;
        from += take as u64;
    }
    Ok(())
}

/// Writes what makes the file longer.
fn extend(file: &File, bytes: &[u8], at: u64, options: &Options) -> io::Result<()> {
    let room = options.room(bytes.len());
    file.write_all_at(&bytes[..room], at)?;
    if room < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}
