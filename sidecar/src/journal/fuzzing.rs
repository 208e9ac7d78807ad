//! Doors for the fuzzer: segments with any content behind checks that are right, and what a start makes of them.

use super::entry::{Entry, History, Summary};
use super::format::{self, FRAME_HEAD, HEADER_BYTES, Header, Identity, Key};
use super::scan::segment_name;
use super::segment::Options;
use super::start::{FOLDER, Looked};
use bytes::Bytes;
use mesh::config::{ClusterConfig, Configuration, Durability};
use mesh::ids::{Ballot, ClientId, Generation, Incarnation, Life, Position, ReplicaId, Seq, Slot};
use mesh::order::{Record, Recovered, Verdict};
use mesh::wire::peer::Batch;
use mesh::wire::{Body, Request};
use std::path::Path;
use std::sync::Arc;

fn identity() -> Identity {
    Identity { cluster: "fuzz".to_owned(), id: ReplicaId(1) }
}

fn header(number: u64) -> Header {
    Header { identity: identity(), journal: 7, number, key: Key([number as u8; 32]) }
}

/// Options under which files stay small.
fn options() -> Options {
    Options { segment_bytes: 64 << 10, chunk_bytes: 4096, ..Options::new(false) }
}

/// The bytes of one entry of each kind, a head first.
#[must_use]
pub fn entries() -> Vec<Vec<u8>> {
    let cluster = ClusterConfig::of(3, "line/shared", Durability::Sync);
    let ballot = Ballot { round: 2, replica: ReplicaId(1), incarnation: Incarnation(1) };
    let body = Body::Call(Bytes::from_static(b"PUT a 1\n"));
    let request =
        Request { client: ClientId(7), opened: Generation::FIRST.at(Slot(1)), seq: Seq(1), body, proof: None };
    let batch = Arc::new(Batch { time: 5, requests: vec![request], ..Batch::default() });
    let history = History::Started { configuration: Configuration::first(cluster.clone()), life: Life(0) };
    let head = |history| Entry::Head { previous_end: 0, summary: Box::new(Summary::new(history, "boot")) };
    let entries = [
        head(History::Blank),
        head(history),
        Entry::Proposed { token: 9, cluster: cluster.clone() },
        Entry::Started,
        Entry::Learner { configuration: Configuration::first(cluster), life: Life(4) },
        Entry::Booted { boot: "boot".to_owned() },
        Entry::Core(Record::Promised { ballot }),
        Entry::Core(Record::Accepted { slot: Slot(3), ballot, batch }),
        Entry::Core(Record::Decided { slot: Slot(3) }),
        Entry::Core(Record::Silent { at: Position { slot: Slot(3), call: 0 } }),
        Entry::Core(Record::Jumped { slot: Slot(9) }),
        Entry::Core(Record::Superseded),
        Entry::Core(Record::Restarted { slot: Slot(9) }),
    ];
    entries.iter().map(|entry| mesh::wire::encode(entry).to_vec()).collect()
}

/// The head of a segment behind one whose frames end there.
#[must_use]
pub fn head(previous_end: u64) -> Vec<u8> {
    let cluster = ClusterConfig::of(3, "line/shared", Durability::Sync);
    let history = History::Started { configuration: Configuration::first(cluster), life: Life(0) };
    mesh::wire::encode(&Entry::Head { previous_end, summary: Box::new(Summary::new(history, "boot")) }).to_vec()
}

/// A segment's file with these payloads, each in a frame that checks out.
#[must_use]
pub fn segment(number: u64, payloads: &[&[u8]]) -> Vec<u8> {
    let header = header(number);
    let mut bytes = format::encode_header(&header);
    for payload in payloads.iter().filter(|payload| !payload.is_empty()) {
        let mut frame = vec![0; FRAME_HEAD];
        frame.extend_from_slice(payload);
        header.key.seal(bytes.len() as u64, &mut frame);
        bytes.extend_from_slice(&frame);
    }
    bytes
}

/// Bytes before the first frame of a segment.
pub const FRAMES_AT: usize = HEADER_BYTES as usize;

/// The file of a segment in a data directory.
#[must_use]
pub fn file(dir: &Path, number: u64) -> std::path::PathBuf {
    dir.join(FOLDER).join(segment_name(number))
}

/// Starts with the journal in `dir`: what it is judged to be, and, where it is gone on with, how many slots it gives.
///
/// # Errors
/// It cannot be read, in words.
///
/// # Panics
/// If a journal that was judged whole, or was cut, is not whole at the next start.
pub fn start(dir: &Path) -> Result<(Verdict, usize), String> {
    let words = |error: super::JournalError| error.to_string();
    let look = || Looked::at(dir, &identity(), &options(), "boot");
    let looked = look().map_err(words)?;
    let verdict = looked.judge(true);
    if !matches!(verdict, Verdict::Whole | Verdict::Torn { .. }) {
        return Ok((verdict, 0));
    }
    let Ok((file, recovery)) = looked.resume() else { return Ok((verdict, 0)) };
    drop(file);
    let again = look().map_err(words)?;
    assert_eq!(again.judge(true), Verdict::Whole, "a journal that was gone on with is whole");
    let (_, second) = again.resume().map_err(words)?;
    assert_eq!(second.records, recovery.records, "a start changes nothing that counts");
    let recovered = Recovered::from_records(recovery.records);
    Ok((verdict, recovered.entries.len()))
}
