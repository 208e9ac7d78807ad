//! The execution marker (rules 24, 25): what the application was given, and what came of it, in a file that need only
//! survive this process. Nothing of it is synced.
//!
//! A front of fixed size, then records. The intent of a slot is written before its first byte is sent, its outcome, with
//! the replies, before anybody is told. A marker whose every intent has its outcome proves what the application of that
//! incarnation executed; one that is spoiled, because the run is over or it grew too long, says only which slots may have
//! been answered.

use super::Settings;
use super::keeper::Keeper;
use super::process::boot_id;
use mesh::ids::Slot;
use mesh::order::{AppReply, Resumed};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A longer marker is spoiled: whoever starts then resets the application, which takes no longer than reading this.
const BYTES_MAX: u64 = 64 << 20;
/// Begins the file; the last byte is the version.
const MAGIC: &[u8; 8] = b"lsmark\0\x01";
/// Where the last slot that may have been answered is, in a spoiled marker.
const ANSWERED_AT: u64 = 8;
/// Stands for "not known".
const UNKNOWN: u64 = u64::MAX;
/// Magic, answered, boot.
const FRONT_BYTES: usize = 8 + 8 + 32;
/// Length and hash before each record.
const HEAD_BYTES: usize = 4 + 8;

/// What follows the front.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Record {
    /// The run: of which incarnation, and from which snapshot on. Only the first record; without it the marker is spoiled.
    Run { incarnation: String, base: Slot },
    /// The slot is about to be sent.
    Intent(Slot),
    /// All of its calls were answered.
    Outcome(Slot, Vec<AppReply>),
}

/// The marker of this process. Whatever fails in writing it removes it: no marker proves nothing.
#[derive(Debug)]
pub(super) struct Marker {
    path: Option<PathBuf>,
    file: Option<File>,
    bytes: u64,
    spoiled: bool,
    /// The last slot that may have been answered, in this boot of the machine, by whatever process; if that is known.
    answered: Option<Slot>,
}

impl Marker {
    pub(super) fn new(data_dir: Option<&Path>) -> Self {
        Self { path: data_dir.map(path), file: None, bytes: 0, spoiled: true, answered: None }
    }

    /// Every slot up to here may have been answered by an earlier process.
    pub(super) fn floor(&mut self, through: Slot) {
        self.answered = Some(self.answered.unwrap_or_default().max(through));
    }

    /// The run is over, or the application is about to change by other means: the marker proves nothing any more.
    pub(super) fn spoil(&mut self) {
        self.spoiled = true;
        self.renew(None);
    }

    /// A run begins with the application in the state after `base`; also when a snapshot was taken there.
    pub(super) fn begin(&mut self, incarnation: Option<String>, base: Slot) {
        self.spoiled = incarnation.is_none();
        let run = incarnation.map(|incarnation| Record::Run { incarnation, base });
        self.renew(run.as_ref());
    }

    /// Goes on with the marker of an earlier process, if it is of this incarnation.
    pub(super) fn resume(&mut self, incarnation: Option<&str>) -> bool {
        let Some(path) = &self.path else { return false };
        let Some(read) = read(path).filter(Read::is_whole) else { return false };
        let opened = File::options().append(true).open(path);
        let Ok(file) = opened.inspect_err(|error| tracing::warn!(%error, "the execution marker cannot be opened"))
        else {
            return false;
        };
        if read.incarnation.as_deref() != incarnation {
            return false;
        }
        self.answered = self.answered.max(read.answered());
        (self.file, self.bytes, self.spoiled) = (Some(file), read.bytes, false);
        true
    }

    /// Before a slot's first byte is sent.
    pub(super) fn intend(&mut self, slot: Slot) {
        if !self.spoiled {
            self.append(&Record::Intent(slot));
        }
    }

    /// Before the driver is told.
    pub(super) fn outcome(&mut self, slot: Slot, replies: &[AppReply]) {
        self.answered = self.answered.map(|answered| answered.max(slot));
        if self.spoiled {
            let answered = self.answered.map_or(UNKNOWN, |slot| slot.0);
            let written = self.file.as_ref().map(|file| file.write_all_at(&answered.to_le_bytes(), ANSWERED_AT));
            self.check(written.unwrap_or(Ok(())));
        } else {
            self.append(&Record::Outcome(slot, replies.to_vec()));
        }
    }

    fn append(&mut self, record: &Record) {
        let Some(file) = &mut self.file else { return };
        let bytes = encode(record);
        self.bytes += bytes.len() as u64;
        if self.bytes > BYTES_MAX {
            tracing::info!(
                "the execution marker is full: until the next snapshot a restart of this process resets the application"
            );
            return self.spoil();
        }
        let written = file.write_all(&bytes);
        self.check(written);
    }

    /// Writes the front, and one record, beside the marker, and puts them in its place.
    fn renew(&mut self, record: Option<&Record>) {
        let Some(path) = &self.path else { return };
        let answered = self.answered.map_or(UNKNOWN, |slot| slot.0);
        let renewed = boot().and_then(|boot| {
            let mut bytes = [&MAGIC[..], &answered.to_le_bytes(), &boot].concat();
            bytes.extend(record.map(encode).unwrap_or_default());
            let temporary = path.with_extension("marker.new");
            let mut file = File::create(&temporary)?;
            file.write_all(&bytes)?;
            std::fs::rename(&temporary, path)?;
            Ok((file, bytes.len() as u64))
        });
        match renewed {
            Ok((file, bytes)) => (self.file, self.bytes) = (Some(file), bytes),
            Err(error) => self.check(Err(error)),
        }
    }

    fn check(&mut self, written: io::Result<()>) {
        let (Err(error), Some(path)) = (written, &self.path) else { return };
        tracing::error!(%error, "the execution marker cannot be written: a restart of this process resets the application");
        self.file = None;
        if let Err(error) = std::fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(%error, file = %path.display(), "the execution marker cannot be removed: remove it before the next start");
        }
    }
}

/// What a marker says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    /// The front's word on what was answered before.
    floor: Option<Slot>,
    /// `None` in a spoiled marker.
    incarnation: Option<String>,
    base: Slot,
    intended: Option<Slot>,
    outcomes: Vec<(Slot, Vec<AppReply>)>,
    /// The last record is cut, or rubbish.
    torn: bool,
    bytes: u64,
}

impl Read {
    /// Whether it proves what the application executed.
    fn is_whole(&self) -> bool {
        let finished = self.outcomes.last().map(|(slot, _)| *slot) == self.intended;
        self.incarnation.is_some() && finished && !self.torn
    }

    /// The last slot that may have been answered; `None`: not known.
    fn answered(&self) -> Option<Slot> {
        let last = self.outcomes.last().map_or(Slot(0), |(slot, _)| *slot);
        if self.torn { None } else { Some(self.floor?.max(last).max(self.base)) }
    }
}

/// What the marker in the data directory proves, before anything is asked of the application: what the one that still
/// runs executed since the newest snapshot, if that is certain; and the last slot that may have been answered since the
/// machine started (rule 23), `None` if that is not known: then it is the journal's last.
pub(crate) fn resumable(settings: &Settings, newest: Option<Slot>) -> (Option<Resumed>, Option<Slot>) {
    // A witness answers nobody.
    let Some(app) = &settings.app else { return (None, None) };
    let Some(read) = settings.data_dir.as_deref().and_then(|dir| read(&path(dir))) else { return (None, None) };
    let answered = read.answered();
    let refused = |why: &str| tracing::info!(why, "the application will be reset");
    if !read.is_whole() {
        refused("what it executed last is not certain");
        return (None, answered);
    }
    if read.base != newest.unwrap_or_default() {
        refused("the execution marker does not begin at the newest snapshot");
        return (None, answered);
    }
    if settings.adapter.connections == mesh::framing::Connections::PerSession {
        refused("its connections of sessions ended with the last process");
        return (None, answered);
    }
    let mut keeper = Keeper::new(app, settings, &std::sync::Arc::default());
    if !keeper.adopt() || keeper.incarnation() != read.incarnation {
        refused("it is not the one that the execution marker is of");
        return (None, answered);
    }
    let executed = read.outcomes.last().map_or(read.base, |(slot, _)| *slot);
    tracing::info!(%executed, "the application still runs, and what it executed is certain");
    (Some(Resumed { executed, replies: read.outcomes }), answered)
}

/// Where the marker of a data directory is.
pub(crate) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("application.marker")
}

/// The machine's boot, at a fixed length.
fn boot() -> io::Result<[u8; 32]> {
    Ok(*blake3::hash(boot_id()?.as_bytes()).as_bytes())
}

fn encode(record: &Record) -> Vec<u8> {
    // Slots, strings and bytes always encode.
    let body = postcard::to_stdvec(record).unwrap_or_default();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes(), hash(&body).as_slice(), &body].concat()
}

fn hash(body: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(body);
    let mut short = [0; 8];
    short.copy_from_slice(&hash.as_bytes()[..8]);
    short
}

/// A marker of this boot of the machine; what is not synced means nothing after another.
fn read(path: &Path) -> Option<Read> {
    parse(&std::fs::read(path).ok()?, &boot().ok()?)
}

fn parse(bytes: &[u8], boot: &[u8; 32]) -> Option<Read> {
    let (front, mut rest) = bytes.split_at_checked(FRONT_BYTES)?;
    if !front.starts_with(MAGIC) || front.get(16..)? != boot {
        return None;
    }
    let floor = u64::from_le_bytes(front.get(8..16)?.try_into().ok()?);
    let mut read =
        Read { floor: (floor != UNKNOWN).then_some(Slot(floor)), bytes: bytes.len() as u64, ..Read::default() };
    while !rest.is_empty() {
        let Some((record, after)) = decode(rest) else {
            read.torn = true;
            break;
        };
        rest = after;
        match record {
            Record::Run { incarnation, base } => (read.incarnation, read.base) = (Some(incarnation), base),
            Record::Intent(slot) => read.intended = Some(slot),
            Record::Outcome(slot, replies) => read.outcomes.push((slot, replies)),
        }
    }
    Some(read)
}

fn decode(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let (length, check) = head.split_at(4);
    let length = u32::from_le_bytes(length.try_into().ok()?);
    let (body, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    if hash(body) != check {
        return None;
    }
    Some((postcard::from_bytes(body).ok()?, rest))
}

#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    //! Doors for the fuzzer.

    use super::{FRONT_BYTES, MAGIC, Record, UNKNOWN, encode, parse};
    use mesh::ids::{Digest, Slot};
    use mesh::order::AppReply;

    /// The front of every marker here.
    fn front() -> Vec<u8> {
        [&MAGIC[..], &UNKNOWN.to_le_bytes(), &[7; 32]].concat()
    }

    /// Markers of one run.
    #[must_use]
    pub fn seeds() -> Vec<Vec<u8>> {
        let reply = AppReply { bytes: bytes::Bytes::from_static(b"OK\n"), form: Digest::of(b"OK\n") };
        let records = [
            Record::Run { incarnation: "1234.5".to_owned(), base: Slot(10) },
            Record::Intent(Slot(11)),
            Record::Outcome(Slot(11), vec![reply.clone(), reply]),
        ];
        (0..=records.len())
            .map(|count| [front(), records[..count].iter().flat_map(encode).collect()].concat())
            .collect()
    }

    /// Bytes as the body of a record whose check is right.
    #[must_use]
    pub fn sealed(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        [front(), length.to_le_bytes().to_vec(), super::hash(body).to_vec(), body.to_vec()].concat()
    }

    /// The body of the record in what [`sealed`] made.
    #[must_use]
    pub fn body(sealed: &[u8]) -> &[u8] {
        sealed.get(FRONT_BYTES + super::HEAD_BYTES..).unwrap_or_default()
    }

    /// Reads a marker: whether it proves what was executed, and how many outcomes and what else it says.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<(bool, usize, Option<Slot>)> {
        let read = parse(bytes, &[7; 32])?;
        Some((read.is_whole(), read.outcomes.len(), read.answered()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;
    use bytes::Bytes;
    use mesh::ids::Digest;

    fn replies(text: &str) -> Vec<AppReply> {
        vec![AppReply { bytes: Bytes::copy_from_slice(text.as_bytes()), form: Digest::of(text.as_bytes()) }]
    }

    fn begun(dir: &TempDir, answered: Option<u64>) -> Marker {
        let mut marker = Marker::new(Some(dir.path()));
        if let Some(answered) = answered {
            marker.floor(Slot(answered));
        }
        marker.begin(Some("7".into()), Slot(10));
        marker
    }

    fn stored(dir: &TempDir) -> Read {
        read(&path(dir.path())).expect("a marker")
    }

    #[test]
    fn it_is_whole_when_every_intent_has_its_outcome() {
        let dir = TempDir::new();
        let mut marker = begun(&dir, Some(4));
        assert!(stored(&dir).is_whole());
        marker.intend(Slot(11));
        marker.intend(Slot(13));
        marker.outcome(Slot(11), &replies("a"));
        assert!(!stored(&dir).is_whole(), "slot 13 is under way");
        assert_eq!(stored(&dir).answered(), Some(Slot(11)));
        marker.outcome(Slot(13), &replies("b"));
        let read = stored(&dir);
        assert!(read.is_whole());
        assert_eq!(read.outcomes, [(Slot(11), replies("a")), (Slot(13), replies("b"))]);
        assert_eq!((read.base, read.incarnation.as_deref()), (Slot(10), Some("7")));
    }

    #[test]
    fn a_cut_or_flipped_record_proves_nothing() {
        let dir = TempDir::new();
        let mut marker = begun(&dir, Some(0));
        marker.intend(Slot(11));
        marker.outcome(Slot(11), &replies("a"));
        let file = path(dir.path());
        let bytes = std::fs::read(&file).expect("a marker");
        std::fs::write(&file, &bytes[..bytes.len() - 1]).expect("written");
        assert!(!stored(&dir).is_whole());
        assert_eq!(stored(&dir).answered(), None);
        let mut flipped = bytes;
        *flipped.last_mut().expect("bytes") ^= 1;
        std::fs::write(&file, flipped).expect("written");
        assert!(!stored(&dir).is_whole());
    }

    #[test]
    fn what_may_have_been_answered_survives_resets_and_is_never_guessed() {
        let dir = TempDir::new();
        let mut marker = begun(&dir, Some(4));
        marker.intend(Slot(30));
        marker.outcome(Slot(30), &replies("a"));
        marker.spoil();
        assert!(!stored(&dir).is_whole());
        assert_eq!(stored(&dir).answered(), Some(Slot(30)));
        marker.outcome(Slot(31), &replies("a"));
        assert_eq!(stored(&dir).answered(), Some(Slot(31)), "also while spoiled");
        marker.begin(Some("8".into()), Slot(0));
        assert_eq!(stored(&dir).answered(), Some(Slot(31)), "the replay is not beyond it");
        let dir = TempDir::new();
        let mut marker = begun(&dir, None);
        marker.outcome(Slot(30), &replies("a"));
        assert_eq!(stored(&dir).answered(), None, "nobody said what was answered before");
    }

    #[test]
    fn one_that_grows_too_long_is_spoiled() {
        let dir = TempDir::new();
        let mut marker = begun(&dir, Some(0));
        let long = "x".repeat(1 << 20);
        for slot in 11..=80 {
            marker.intend(Slot(slot));
            marker.outcome(Slot(slot), &replies(&long));
        }
        assert!(!stored(&dir).is_whole());
        assert!(stored(&dir).bytes < BYTES_MAX);
        assert_eq!(stored(&dir).answered(), Some(Slot(80)));
        marker.begin(Some("7".into()), Slot(80));
        assert!(stored(&dir).is_whole(), "a snapshot makes it new");
    }

    #[test]
    fn the_next_process_goes_on_with_it() {
        let dir = TempDir::new();
        let mut marker = begun(&dir, Some(0));
        marker.intend(Slot(11));
        marker.outcome(Slot(11), &replies("a"));
        let mut next = Marker::new(Some(dir.path()));
        assert!(!next.resume(Some("other")));
        assert!(next.resume(Some("7")));
        next.intend(Slot(12));
        assert!(!Marker::new(Some(dir.path())).resume(Some("7")));
        next.outcome(Slot(12), &replies("b"));
        assert_eq!(stored(&dir).outcomes.len(), 2);
        assert_eq!(stored(&dir).answered(), Some(Slot(12)));
    }
}
