//! The journal's segments as they are written: appended to, rolled, cut.
//!
//! A failed write or sync is reported and never retried: after it nobody knows what the disk holds. That there is no room
//! to grow ahead of need is no failure yet.

use super::entry::{Entry, Summary};
use super::error::is_full;
use super::format::{self, FRAME_HEAD, FRAME_MAX, Header, Identity, Key};
use super::scan::{highest, segment_name};
use super::segment::{Options, Segment};
use mesh::ids::Slot;
use mesh::limits::Limits;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A group takes no further record above this many bytes.
pub(super) const GROUP_BYTES: usize = 8 << 20;

const _: () = assert!(
    GROUP_BYTES + 3 * Limits::DEFAULT.message_bytes <= FRAME_MAX,
    "a full group still takes one more record, and the head of a segment"
);

/// An open journal: the data directory is locked as long as this lives.
#[derive(Debug)]
pub(crate) struct JournalFile {
    pub(super) folder: PathBuf,
    /// The same, to be synced.
    pub(super) folder_file: File,
    pub(super) _lock: File,
    pub(super) identity: Identity,
    pub(super) journal: u128,
    pub(super) options: Options,
    /// The segments before the current one, oldest first.
    pub(super) full: VecDeque<Full>,
    /// The one that is written to; it has a head.
    pub(super) current: Segment,
    /// The next one, made ahead of need; it has no frame.
    pub(super) spare: Option<Segment>,
    /// What every entry so far said.
    pub(super) summary: Summary,
    pub(super) buffer: Vec<u8>,
}

/// A segment that nothing is written to any more.
#[derive(Debug)]
pub(super) struct Full {
    pub(super) number: u64,
    /// Bytes of its frames.
    pub(super) bytes: u64,
    /// The highest slot with a vote in it.
    pub(super) highest: Slot,
}

impl JournalFile {
    /// Writes one frame with these entries; durable after [`Self::sync`].
    ///
    /// # Errors
    /// The system's: the journal must not be used any more.
    pub(crate) fn append<'a>(&mut self, entries: impl IntoIterator<Item = &'a Entry> + Clone) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.resize(FRAME_HEAD, 0);
        for entry in entries.clone() {
            self.buffer.extend_from_slice(&mesh::wire::encode(entry));
        }
        if self.buffer.len() == FRAME_HEAD {
            return Ok(());
        }
        if self.current.end + self.frame_bytes() > self.options.segment_bytes && self.roll()? {
            let head = Entry::Head {
                previous_end: self.full.back().map_or(0, |full| format::HEADER_BYTES + full.bytes),
                summary: Box::new(self.summary.clone()),
            };
            self.buffer.splice(FRAME_HEAD..FRAME_HEAD, mesh::wire::encode(&head));
        }
        self.write_frame()?;
        self.current.highest = self.current.highest.max(highest(entries.clone()));
        entries.into_iter().for_each(|entry| self.summary.note(entry));
        // One huge group must not pin its memory for ever.
        self.buffer.shrink_to(GROUP_BYTES);
        Ok(())
    }

    fn frame_bytes(&self) -> u64 {
        format::frame_bytes(self.buffer.len() - FRAME_HEAD)
    }

    fn write_frame(&mut self) -> io::Result<()> {
        let end = self.current.end + self.frame_bytes();
        if end > self.current.allocated {
            self.current.grow(end, &self.options)?;
        }
        self.current.key.seal(self.current.end, &mut self.buffer);
        self.current.file.write_all_at(&self.buffer, self.current.end)?;
        self.current.end = end;
        Ok(())
    }

    /// Goes on to the next segment, whose first frame must be a head; false if the disk has no room for one, then this
    /// one goes on. The last frame of this one must be durable before, as it is: every append is followed by a sync.
    fn roll(&mut self) -> io::Result<bool> {
        let next = match self.spare.take() {
            Some(spare) => spare,
            None => match self.create_next() {
                Ok(next) => next,
                Err(error) if is_full(&error) => return Ok(false),
                Err(error) => return Err(error),
            },
        };
        let before = std::mem::replace(&mut self.current, next);
        self.full.push_back(Full { number: before.number, bytes: before.bytes(), highest: before.highest });
        Ok(true)
    }

    fn create_next(&self) -> io::Result<Segment> {
        let number = self.current.number + 1;
        let (identity, key) = (self.identity.clone(), Key(crate::entropy::bytes()?));
        let header = Header { identity, journal: self.journal, number, key };
        let allocated = self.options.chunk_bytes.min(self.options.segment_bytes);
        let next = Segment::create(&self.folder, &header, allocated, &self.options)?;
        self.folder_file.sync_all()?;
        Ok(next)
    }

    /// Makes what was appended durable, as far as the mode asks.
    ///
    /// # Errors
    /// The system's: never to be retried.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.options.synced { self.current.file.sync_data() } else { Ok(()) }
    }

    /// Makes what was appended durable in every mode.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub(crate) fn persist(&self) -> io::Result<()> {
        self.current.file.sync_data()
    }

    /// Grows the segment, or makes the next one, while there is nothing to do, so that no group has to wait for it. False
    /// if there is no room for that; what is there may still do for a while.
    ///
    /// # Errors
    /// The system's: the journal must not be used any more.
    pub(super) fn prepare(&mut self) -> io::Result<bool> {
        if self.is_prepared() {
            return Ok(true);
        }
        let Options { chunk_bytes, segment_bytes, .. } = self.options;
        let current = &mut self.current;
        let prepared = if current.allocated < segment_bytes {
            let target = (current.allocated + 1).next_multiple_of(chunk_bytes).min(segment_bytes);
            current.grow_to(target, &self.options)
        } else if self.spare.is_none() {
            self.create_next().map(|next| self.spare = Some(next))
        } else {
            Ok(())
        };
        match prepared {
            Err(error) if is_full(&error) => Ok(false),
            prepared => prepared.map(|()| true),
        }
    }

    /// Whether there is room for a while without [`Self::prepare`].
    pub(super) fn is_prepared(&self) -> bool {
        self.current.allocated.saturating_sub(self.current.end) >= self.options.chunk_bytes / 2
    }

    /// Whether [`Self::cut`] has a segment to delete.
    pub(super) fn can_cut(&self, through: Slot) -> bool {
        self.full.front().is_some_and(|full| full.highest <= through)
    }

    /// Deletes the oldest segment if it has votes of slots up to `through` only.
    ///
    /// The others never have a gap: the deletion is durable before the next one begins. The last one stays.
    ///
    /// # Errors
    /// The system's: the journal must not be used any more.
    pub(super) fn cut(&mut self, through: Slot) -> io::Result<()> {
        let Some(oldest) = self.full.front().filter(|full| full.highest <= through) else { return Ok(()) };
        // From here on the heads behind it say alone what it said.
        self.persist()?;
        match std::fs::remove_file(self.folder.join(segment_name(oldest.number))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.folder_file.sync_all()?;
        self.full.pop_front();
        Ok(())
    }

    /// Bytes of all frames.
    pub(crate) fn bytes(&self) -> u64 {
        self.full.iter().map(|full| full.bytes).sum::<u64>() + self.current.bytes()
    }

    /// Where it is.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The same journal, opened so that every write fails.
    #[cfg(test)]
    pub(super) fn read_only_for_test(mut self) -> Self {
        self.current.file = File::open(self.folder.join(segment_name(self.current.number))).expect("journal");
        self
    }
}
