//! The reading half: every segment of a journal is read once, frame by frame, and what was seen is stated. Nothing is
//! changed.

use super::entry::Entry;
use super::error::JournalError;
use super::format::{self, BadHeader, FRAME_HEAD, FRAME_MAX, HEADER_BYTES, Header, Key};
use mesh::ids::Slot;
use mesh::order::{Behind, Record, Segment as Seen};
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Digits of a segment's file name.
const DIGITS: usize = 20;

/// The file name of a segment.
pub(super) fn segment_name(number: u64) -> String {
    format!("{number:0DIGITS$}")
}

/// The number of the segment with this file name, if it is one's.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.len() == DIGITS && name.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| name.parse().ok()).flatten()
}

/// The segments of the journal in `folder`, by their numbers.
///
/// # Errors
/// The system's.
pub(super) fn segments(folder: &Path) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let failed = |error| JournalError::io("cannot read", folder)(error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if let Some(number) = name.to_str().and_then(number) {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// One frame that checks out.
#[derive(Debug)]
pub(super) struct Frame {
    /// The segment's number.
    pub(super) segment: u64,
    /// Where it begins.
    pub(super) offset: u64,
    /// Bytes that it takes.
    pub(super) bytes: u64,
    /// What it holds.
    pub(super) entries: Vec<Entry>,
}

/// What was found in one segment.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// What judges it.
    pub(super) seen: Seen,
    /// Its header, if it checks out.
    pub(super) header: Option<Header>,
    /// Bytes of the file.
    pub(super) length: u64,
    /// Everything from here to the end of the file is zero.
    pub(super) until: u64,
    /// Where a frame begins that checks out behind one that does not.
    pub(super) valid: Option<u64>,
    /// Frames that check out, from the first on.
    pub(super) frames: u64,
    /// The highest slot with a vote in these.
    pub(super) highest: Slot,
}

/// Reads a segment; `visit` gets each frame that checks out, up to the first that does not.
///
/// # Errors
/// The system's, `visit`'s, or the segment was written by another version of this program.
pub(super) fn read_segment(
    file: &File,
    path: &Path,
    number: u64,
    visit: &mut dyn FnMut(Frame) -> Result<(), JournalError>,
) -> Result<Found, JournalError> {
    let failed = |error| JournalError::io("cannot read", path)(error);
    let length = file.metadata().map_err(failed)?.len();
    let seen = Seen { number, header: false, head: None, end: HEADER_BYTES, behind: Behind::Nothing };
    let mut found = Found {
        path: path.to_owned(),
        seen,
        header: None,
        length,
        until: HEADER_BYTES,
        valid: None,
        frames: 0,
        highest: Slot(0),
    };
    let mut bytes = vec![0; HEADER_BYTES as usize];
    let filled = read_at_most(file, &mut bytes, 0).map_err(failed)?;
    let header = match format::decode_header(&bytes[..filled]) {
        Ok(header) if header.number == number => header,
        Ok(_) | Err(BadHeader::Damaged) => return Ok(found),
        Err(BadHeader::Version(version)) => return Err(JournalError::Version { path: path.to_owned(), version }),
    };
    found.seen.header = true;
    read_frames(file, &header.key, &mut found, visit)?;
    judge_end(file, &header.key, &mut found).map_err(failed)?;
    found.header = Some(header);
    Ok(found)
}

/// Visits all frames up to the first that does not check out.
fn read_frames(
    file: &File,
    key: &Key,
    found: &mut Found,
    visit: &mut dyn FnMut(Frame) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    let path = found.path.clone();
    let failed = |error| JournalError::io("cannot read", &path)(error);
    let mut reader = BufReader::with_capacity(buffer_bytes(found.length), file);
    let mut offset = reader.seek(SeekFrom::Start(HEADER_BYTES)).map_err(failed)?;
    let mut payload = Vec::new();
    loop {
        found.seen.end = offset;
        let mut head = [0; FRAME_HEAD];
        if offset + FRAME_HEAD as u64 > found.length {
            return Ok(());
        }
        reader.read_exact(&mut head).map_err(failed)?;
        let Some(length) = key.read_head(offset, &head) else { return Ok(()) };
        let bytes = format::frame_bytes(length);
        if offset + bytes > found.length {
            return Ok(());
        }
        payload.resize(bytes as usize - FRAME_HEAD, 0);
        reader.read_exact(&mut payload).map_err(failed)?;
        let (payload, padding) = payload.split_at(length);
        if !key.payload_matches(offset, &head, payload) || padding.iter().any(|byte| *byte != 0) {
            return Ok(());
        }
        // It is what was written: that it means nothing here is not the disk's fault.
        let Some(entries) = decode_entries(payload) else {
            return Err(JournalError::Unknown { path, at: offset });
        };
        found.note(&entries);
        visit(Frame { segment: found.seen.number, offset, bytes, entries })?;
        offset += bytes;
    }
}

impl Found {
    fn note(&mut self, entries: &[Entry]) {
        if self.frames == 0
            && let Some(Entry::Head { previous_end, .. }) = entries.first()
        {
            self.seen.head = Some(*previous_end);
        }
        self.frames += 1;
        self.highest = self.highest.max(highest(entries));
    }
}

/// A segment whose header is of another journal than those before it is none of this one.
pub(super) fn refuse_strangers(before: &[Found], found: &mut Found) {
    let known = before.iter().find_map(|found| found.header.as_ref()).map(|header| header.journal);
    if let (Some(known), Some(header)) = (known, &found.header)
        && header.journal != known
    {
        found.header = None;
        found.seen.header = false;
    }
}

/// The highest slot that these vote for.
pub(super) fn highest<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Slot {
    let slots = entries.into_iter().filter_map(|entry| match entry {
        Entry::Core(Record::Accepted { slot, .. }) => Some(*slot),
        _ => None,
    });
    slots.max().unwrap_or(Slot(0))
}

fn decode_entries(mut payload: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    while !payload.is_empty() {
        let (entry, rest) = postcard::take_from_bytes(payload).ok()?;
        entries.push(entry);
        payload = rest;
    }
    Some(entries)
}

/// States what is behind the last frame that checks out.
fn judge_end(file: &File, key: &Key, found: &mut Found) -> io::Result<()> {
    let (end, length) = (found.seen.end, found.length);
    let most = buffer_bytes(length.saturating_sub(end)).next_multiple_of(format::ALIGN as usize);
    let mut window = vec![0; most + FRAME_HEAD];
    let mut base = end;
    found.until = end;
    while base < length {
        let filled = read_at_most(file, &mut window, base)?;
        for start in (0..filled.min(most)).step_by(format::ALIGN as usize) {
            let bytes = &window[start..filled];
            if bytes.iter().take(format::ALIGN as usize).all(|byte| *byte == 0) {
                continue;
            }
            let at = base + start as u64;
            found.until = (at + format::ALIGN).min(length);
            if at > end && found.valid.is_none() && valid_frame(file, key, at, bytes, length)? {
                found.valid = Some(at);
            }
        }
        base += most as u64;
    }
    found.seen.behind = if found.until == end {
        Behind::Nothing
    } else if found.valid.is_none() && found.until <= end + extent(file, key, end)? {
        Behind::Remains
    } else {
        Behind::More
    };
    Ok(())
}

/// Bytes that the frame at `at`, which does not check out, may have had.
fn extent(file: &File, key: &Key, at: u64) -> io::Result<u64> {
    let mut head = [0; FRAME_HEAD];
    let filled = read_at_most(file, &mut head, at)?;
    Ok(format::frame_bytes(key.read_head(at, &head[..filled]).unwrap_or(FRAME_MAX)))
}

fn valid_frame(file: &File, key: &Key, at: u64, bytes: &[u8], length: u64) -> io::Result<bool> {
    let Some(head) = bytes.first_chunk::<FRAME_HEAD>() else { return Ok(false) };
    let Some(payload) = key.read_head(at, head) else { return Ok(false) };
    if at + format::frame_bytes(payload) > length {
        return Ok(false);
    }
    let mut bytes = vec![0; payload];
    file.read_exact_at(&mut bytes, at + FRAME_HEAD as u64)?;
    Ok(key.payload_matches(at, head, &bytes))
}

/// What is read at a time of so many bytes.
fn buffer_bytes(bytes: u64) -> usize {
    const MOST: usize = 1 << 20;
    usize::try_from(bytes).map_or(MOST, |bytes| bytes.min(MOST))
}

fn read_at_most(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
