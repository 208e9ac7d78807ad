//! What a journal gives back after it was closed, torn, damaged, cut or given to somebody else.

mod aside;
mod damage;
mod full;
mod segments;
mod tool;
mod writer;

use super::file::JournalFile;
use super::format::{self, HEADER_BYTES};
use super::scan::{self, segment_name};
use super::segment::Options;
use super::start::{FOLDER, Looked};
use super::{Entry, History, Identity, JournalError, Recovery};
use crate::testing::TempDir;
use mesh::config::{ClusterConfig, Configuration, Durability};
use mesh::ids::{Ballot, Generation, Incarnation, Life, Position, ReplicaId, Slot};
use mesh::order::{Fault, Record, Verdict};
use mesh::wire::peer::Batch;
use mesh::wire::{Body, Request};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn identity() -> Identity {
    Identity { cluster: "kv.test".to_owned(), id: ReplicaId(1) }
}

/// Segments of a few frames.
fn tiny() -> Options {
    Options { segment_bytes: HEADER_BYTES + 512, chunk_bytes: 256, ..Options::new(true) }
}

fn look(dir: &Path) -> Result<Looked, JournalError> {
    Looked::at(dir, &identity(), &tiny(), "this boot")
}

fn verdict(dir: &Path) -> Verdict {
    look(dir).expect("it can be looked at").judge(true)
}

/// Opens a journal that is whole but for a torn tail.
fn open_with(dir: &Path, options: &Options) -> (JournalFile, Recovery) {
    let looked = Looked::at(dir, &identity(), options, "this boot").expect("it can be looked at");
    let verdict = looked.judge(true);
    assert!(matches!(verdict, Verdict::Whole | Verdict::Torn { .. }), "{verdict:?}");
    looked.resume().expect("it can be gone on with")
}

fn open(dir: &Path) -> (JournalFile, Recovery) {
    open_with(dir, &tiny())
}

const fn damaged(segment: u64, fault: Fault) -> Verdict {
    Verdict::Damaged { segment, fault }
}

fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(FOLDER).join(segment_name(number))
}

/// The numbers of all segments.
fn numbers(dir: &Path) -> Vec<u64> {
    let segments = scan::segments(&dir.join(FOLDER)).expect("a journal");
    segments.into_iter().map(|(number, _)| number).collect()
}

const fn ballot(round: u64) -> Ballot {
    Ballot { round, replica: ReplicaId(2), incarnation: Incarnation(1) }
}

fn accepted(slot: u64, body: &[u8]) -> Entry {
    let request = Request {
        client: mesh::ids::ClientId(7),
        opened: Generation::FIRST.at(Slot(1)),
        seq: mesh::ids::Seq(slot),
        body: Body::Call(bytes::Bytes::copy_from_slice(body)),
        proof: None,
    };
    let batch = Batch { time: slot, settled: Slot(0), agreed: None, command: None, requests: vec![request] };
    Entry::Core(Record::Accepted { slot: Slot(slot), ballot: ballot(1), batch: Arc::new(batch) })
}

fn decided(slot: u64) -> Entry {
    Entry::Core(Record::Decided { slot: Slot(slot) })
}

/// One frame each, with a vote for the slot and a decided mark.
fn append(journal: &mut JournalFile, slots: impl IntoIterator<Item = u64>) {
    for slot in slots {
        journal.append([&accepted(slot, &[b'x'; 100]), &decided(slot)]).expect("append");
        journal.sync().expect("sync");
    }
}

/// The slots of the votes, in order, and each only once in a row.
fn voted(recovery: &Recovery) -> Vec<u64> {
    let slots = recovery.records.iter().filter_map(|record| match record {
        Record::Accepted { slot, .. } => Some(slot.0),
        _ => None,
    });
    slots.collect()
}

/// A started member's journal of several segments, with votes for the slots 1 to `last`.
fn journal_to(dir: &Path, last: u64) -> ClusterConfig {
    let cluster = ClusterConfig::of(3, "line/shared", Durability::Sync);
    let (mut journal, _) = open(dir);
    journal.append([&Entry::Proposed { token: 1, cluster: cluster.clone() }, &Entry::Started]).expect("append");
    append(&mut journal, 1..=last);
    cluster
}

fn read(file: &Path, at: u64, bytes: u64) -> Vec<u8> {
    let mut buffer = vec![0; bytes as usize];
    std::fs::File::open(file).expect("a segment").read_exact_at(&mut buffer, at).expect("read");
    buffer
}

fn overwrite(file: &Path, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(file).expect("a segment");
    file.write_all_at(bytes, at).expect("write");
}

/// Flips bits of one byte, whatever it is: keys, and so checks, are drawn anew for every segment.
fn flip(file: &Path, at: u64) {
    overwrite(file, at, &[read(file, at, 1)[0] ^ 0xa5]);
}

/// Where each frame of a segment begins, and where the last one ends.
fn frames(dir: &Path, number: u64) -> Vec<u64> {
    let path = segment(dir, number);
    let file = std::fs::File::open(&path).expect("a segment");
    let mut at = Vec::new();
    let found = scan::read_segment(&file, &path, number, &mut |frame| {
        at.push(frame.offset);
        Ok(())
    });
    at.push(found.expect("readable").seen.end);
    at
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copy");
    }
}

#[test]
fn what_was_appended_comes_back_in_order() {
    let dir = TempDir::new();
    let all: Vec<Entry> = (1..=3).flat_map(|slot| [accepted(slot, b"PUT a 1\n"), decided(slot)]).collect();
    {
        let (mut journal, recovery) = open_with(dir.path(), &Options::new(true));
        assert_eq!(recovery.history, History::Blank);
        for group in all.chunks(2) {
            journal.append(group).expect("append");
            journal.sync().expect("sync");
        }
    }
    let (journal, recovery) = open_with(dir.path(), &Options::new(true));
    let expected: Vec<Record> = all
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Core(record) => Some(record),
            _ => None,
        })
        .collect();
    // Before them is what the head says, which is nothing.
    assert_eq!(recovery.records[2..], expected);
    assert_eq!(numbers(dir.path()), [1]);
    assert!(journal.bytes() > 0);
}

#[test]
fn the_journal_tells_how_far_the_members_history_is() {
    let cluster = ClusterConfig::of(3, "line/shared", Durability::Sync);
    let other = ClusterConfig::of(1, "line/shared", Durability::Sync);
    let history = |entries: &[Entry]| entries.iter().fold(History::Blank, History::after);
    let proposed = Entry::Proposed { token: 1, cluster: other };
    let again = Entry::Proposed { token: 2, cluster: cluster.clone() };
    let learner = Entry::Learner { configuration: Configuration::first(cluster.clone()), life: Life(9) };
    assert_eq!(history(&[]), History::Blank);
    assert_eq!(history(&[Entry::Started]), History::Blank, "nothing was proposed");
    let both = [proposed, again];
    assert_eq!(history(&both), History::Proposed { token: 2, cluster: cluster.clone() });
    let started = [&both[..], &[Entry::Started]].concat();
    assert_eq!(
        history(&started),
        History::Started { configuration: Configuration::first(cluster.clone()), life: Life(0) }
    );
    let late = [&started[..], &both[..1]].concat();
    assert_eq!(history(&late), history(&started), "history is not proposed over");
    assert_eq!(
        history(&[learner, Entry::Started]),
        History::Started { configuration: Configuration::first(cluster.clone()), life: Life(9) },
        "a learner stays one"
    );
    let lost = History::Lost;
    assert_eq!(lost.clone().after(&both[0]).after(&Entry::Started), lost, "it is no new cluster's");
    let generation = Generation::FIRST.next(4);
    let configuration = Configuration { generation, ..Configuration::first(cluster) };
    let found = lost.after(&Entry::Learner { configuration: configuration.clone(), life: Life(3) });
    assert_eq!(found, History::Started { configuration, life: Life(3) });
}

#[test]
fn a_journal_of_another_cluster_or_member_is_refused() {
    let dir = TempDir::new();
    journal_to(dir.path(), 6);
    for other in [Identity { cluster: "other".to_owned(), ..identity() }, Identity { id: ReplicaId(2), ..identity() }] {
        let error = Looked::at(dir.path(), &other, &tiny(), "this boot").expect_err("foreign");
        assert!(matches!(error, JournalError::Foreign { .. }), "{error}");
    }
    assert_eq!(voted(&open(dir.path()).1), [1, 2, 3, 4, 5, 6], "nothing was changed");
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = TempDir::new();
    let held = open(dir.path());
    assert!(matches!(look(dir.path()), Err(JournalError::Locked(_))));
    assert!(matches!(super::lock(dir.path()), Err(JournalError::Locked(_))));
    drop(held);
    assert!(look(dir.path()).is_ok());
}

#[test]
fn another_version_is_refused_and_nothing_is_set_aside() {
    let dir = TempDir::new();
    let file = dir.path().join(FOLDER);
    std::fs::write(&file, [&format::MAGIC[..], &1_u32.to_le_bytes(), &[0; 100]].concat()).expect("write");
    assert!(matches!(look(dir.path()), Err(JournalError::Version { version: 1, .. })));
    std::fs::write(&file, b"#!/bin/sh\n").expect("write");
    assert!(matches!(look(dir.path()), Err(JournalError::NotAJournal(_))));
    std::fs::remove_file(&file).expect("remove");

    journal_to(dir.path(), 1);
    let path = segment(dir.path(), 1);
    let (version, mut header) = (9_u32, read(&path, 0, HEADER_BYTES));
    let length = u32::from_le_bytes(header[12..16].try_into().expect("four bytes"));
    header[8..12].copy_from_slice(&version.to_le_bytes());
    let covered = [&version.to_le_bytes()[..], &length.to_le_bytes(), &header[48..48 + length as usize]].concat();
    header[16..48].copy_from_slice(blake3::hash(&covered).as_bytes());
    overwrite(&path, 0, &header);
    assert!(matches!(look(dir.path()), Err(JournalError::Version { version: 9, .. })));
}
