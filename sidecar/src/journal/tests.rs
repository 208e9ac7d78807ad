//! What a journal gives back after it was closed, torn, damaged or given to somebody else.

use super::file::{CHUNK, JournalError, JournalFile};
use super::writer::Journal;
use super::{Entry, History, Identity, Recovery};
use crate::testing::TempDir;
use mesh::config::{ClusterConfig, Durability};
use mesh::ids::{Ballot, Incarnation, Lsn, ReplicaId, Slot};
use mesh::order::Record;
use mesh::wire::peer::Batch;
use mesh::wire::{Body, Request};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

fn identity() -> Identity {
    Identity { cluster: "kv.test".to_owned(), id: ReplicaId(1), incarnation: Incarnation(1) }
}

fn open(dir: &Path) -> Result<(JournalFile, super::file::Found), JournalError> {
    JournalFile::open(dir, &identity(), true)
}

fn accepted(slot: u64, body: &[u8]) -> Entry {
    let request = Request {
        client: mesh::ids::ClientId(7),
        opened: Slot(1),
        seq: mesh::ids::Seq(slot),
        body: Body::Call(bytes::Bytes::copy_from_slice(body)),
    };
    let batch = Arc::new(Batch { time: slot, settled: Slot(0), requests: vec![request] });
    Entry::Core(Record::Accepted { slot: Slot(slot), ballot: Ballot::NONE, batch })
}

/// A journal with three frames; where each begins, and where the last ends.
fn three_frames(dir: &Path) -> [u64; 4] {
    let (mut journal, _) = open(dir).expect("a new journal");
    let mut at = [0; 4];
    for slot in 1..=3 {
        at[slot as usize - 1] = super::format::HEADER_BYTES + journal.bytes();
        journal
            .append([&accepted(slot, b"PUT a 1\n"), &Entry::Core(Record::Decided { slot: Slot(slot) })])
            .expect("append");
        journal.sync().expect("sync");
    }
    at[3] = super::format::HEADER_BYTES + journal.bytes();
    at
}

/// Flips bits of one byte, whatever it is: keys, and so checks, are drawn anew for every journal.
fn flip(dir: &Path, at: u64) {
    let mut byte = [0];
    std::fs::File::open(dir.join("journal")).expect("journal").read_exact_at(&mut byte, at).expect("read");
    overwrite(dir, at, &[byte[0] ^ 0xa5]);
}

fn overwrite(dir: &Path, at: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(dir.join("journal")).expect("journal");
    file.write_all_at(bytes, at).expect("write");
}

#[test]
fn what_was_appended_comes_back_in_order() {
    let dir = TempDir::new();
    three_frames(dir.path());
    let (_, found) = open(dir.path()).expect("reopen");
    let expected: Vec<_> = (1..=3)
        .flat_map(|slot| [accepted(slot, b"PUT a 1\n"), Entry::Core(Record::Decided { slot: Slot(slot) })])
        .collect();
    assert_eq!(found.entries, expected);
    assert_eq!(found.torn, None);
}

#[test]
fn a_journal_goes_on_where_it_ended_and_grows_over_chunks() {
    let dir = TempDir::new();
    three_frames(dir.path());
    let body = vec![b'x'; 3 << 20];
    {
        let (mut journal, _) = open(dir.path()).expect("reopen");
        for slot in 4..=9 {
            journal.append([&accepted(slot, &body)]).expect("append");
        }
        assert!(journal.bytes() > 2 * CHUNK);
    }
    let (_, found) = open(dir.path()).expect("reopen");
    assert_eq!(found.entries.len(), 6 + 6);
    assert_eq!(found.entries.last(), Some(&accepted(9, &body)));
}

#[test]
fn a_torn_tail_is_cut_and_the_journal_goes_on_before_it() {
    for cut in [0, 5, 12, 20, 40] {
        let dir = TempDir::new();
        let at = three_frames(dir.path());
        // The last write reached the disk up to `cut` bytes of it only.
        overwrite(dir.path(), at[2] + cut, &vec![0; (at[3] - at[2] - cut) as usize]);
        {
            let (mut journal, found) = open(dir.path()).expect("a torn tail is no damage");
            assert_eq!(found.entries.len(), 4, "cut at {cut}");
            assert_eq!(found.torn.is_some(), cut != 0, "cut at {cut}");
            journal.append([&Entry::Started]).expect("append");
        }
        let (_, found) = open(dir.path()).expect("reopen");
        assert_eq!((found.entries.len(), found.entries.last(), found.torn), (5, Some(&Entry::Started), None));
    }
}

#[test]
fn a_flipped_bit_before_valid_records_is_refused() {
    for offset in [0, 4, 9, 17, 30] {
        let dir = TempDir::new();
        let at = three_frames(dir.path());
        flip(dir.path(), at[1] + offset);
        let error = open(dir.path()).expect_err("damage in the middle");
        let JournalError::Damaged { at: damaged, valid, .. } = error else { panic!("{error}") };
        assert_eq!((damaged, valid), (at[1], at[2]), "flipped at {offset}");
    }
}

#[test]
fn zeroed_records_before_valid_ones_are_refused() {
    let dir = TempDir::new();
    let at = three_frames(dir.path());
    overwrite(dir.path(), at[0], &vec![0; (at[2] - at[0]) as usize]);
    assert!(matches!(open(dir.path()), Err(JournalError::Damaged { .. })));
}

#[test]
fn a_request_that_looks_like_a_frame_is_not_taken_for_one() {
    let dir = TempDir::new();
    let at = three_frames(dir.path());
    let frame = {
        let mut bytes = vec![0; (at[1] - at[0]) as usize];
        std::fs::File::open(dir.path().join("journal"))
            .expect("journal")
            .read_exact_at(&mut bytes, at[0])
            .expect("read");
        bytes
    };
    // A body that holds a copy of a real frame, aligned in every way, in the last record, which is then torn.
    let bodies: Vec<_> =
        (0..8).map(|shift| accepted(10 + shift, &[vec![1; shift as usize], frame.repeat(3)].concat())).collect();
    let (mut journal, _) = open(dir.path()).expect("reopen");
    journal.append(&bodies).expect("append");
    drop(journal);
    (0..3).for_each(|offset| flip(dir.path(), at[3] + offset));
    let (_, found) = open(dir.path()).expect("only torn");
    assert_eq!(found.entries.len(), 6);
    assert!(found.torn.is_some());
}

#[test]
fn a_damaged_header_and_a_foreign_file_are_refused() {
    let dir = TempDir::new();
    three_frames(dir.path());
    flip(dir.path(), 60);
    assert!(matches!(open(dir.path()), Err(JournalError::DamagedHeader { .. })));
    overwrite(dir.path(), 0, b"#!/bin/sh");
    assert!(matches!(open(dir.path()), Err(JournalError::NotAJournal(_))));
}

#[test]
fn a_journal_of_another_cluster_or_member_is_refused() {
    let dir = TempDir::new();
    three_frames(dir.path());
    for other in [Identity { cluster: "other".to_owned(), ..identity() }, Identity { id: ReplicaId(2), ..identity() }] {
        let error = JournalFile::open(dir.path(), &other, true).expect_err("foreign");
        assert!(matches!(error, JournalError::Foreign { .. }), "{error}");
    }
    assert_eq!(open(dir.path()).expect("ours").1.entries.len(), 6, "nothing was changed");
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = TempDir::new();
    let held = open(dir.path()).expect("first");
    assert!(matches!(open(dir.path()), Err(JournalError::Locked(_))));
    assert!(matches!(super::lock(dir.path()), Err(JournalError::Locked(_))));
    drop(held);
    assert!(open(dir.path()).is_ok());
}

#[test]
fn the_writer_says_what_is_durable_and_it_is() {
    let dir = TempDir::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let (file, _) = open(dir.path()).expect("new");
        let mut journal = Journal::start(file, Box::new(|_| {})).expect("thread");
        for lsn in 1..=1000 {
            journal.append(Lsn(lsn), Record::Decided { slot: Slot(lsn) });
            if lsn % 7 == 0 {
                journal.flush();
            }
        }
        assert!(!journal.behind());
        journal.flush();
        let mut durable = Lsn(0);
        while durable < Lsn(1000) {
            journal.completed().await;
            let next = journal.take_completed().expect("completed means so");
            assert!(next > durable, "completions only go up");
            durable = next;
        }
        assert_eq!(journal.take_completed(), None);
    });
    let (_, found) = open(dir.path()).expect("reopen");
    let expected: Vec<_> = (1..=1000).map(|slot| Entry::Core(Record::Decided { slot: Slot(slot) })).collect();
    assert_eq!(found.entries, expected);
}

#[test]
fn nothing_is_durable_when_the_disk_refuses() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static FAILED: AtomicBool = AtomicBool::new(false);
    let dir = TempDir::new();
    let (file, _) = open(dir.path()).expect("new");
    let file = file.read_only_for_test(dir.path());
    let mut journal =
        Journal::start_with(file, Box::new(|_| {}), |_| FAILED.store(true, Ordering::SeqCst)).expect("thread");
    journal.append(Lsn(1), Record::Decided { slot: Slot(1) });
    journal.flush();
    crate::testing::eventually("the failure is reported", || FAILED.load(Ordering::SeqCst));
    assert_eq!(journal.take_completed(), None);
}

#[test]
fn without_a_file_records_are_complete_in_the_same_turn() {
    let mut journal = Journal::memory();
    assert_eq!(journal.take_completed(), None);
    journal.append(Lsn(1), Record::Decided { slot: Slot(1) });
    journal.append(Lsn(2), Record::Decided { slot: Slot(1) });
    assert_eq!(journal.take_completed(), Some(Lsn(2)));
    assert_eq!(journal.take_completed(), None);
}

#[test]
fn the_journal_tells_how_far_the_members_history_is() {
    let cluster = ClusterConfig::of(3, "line/shared", Durability::Sync);
    let other = ClusterConfig::of(1, "line/shared", Durability::Sync);
    let history = |entries: &[Entry]| Recovery::of(entries.to_vec()).history;
    let proposed = Entry::Proposed { token: 1, cluster: other };
    let again = Entry::Proposed { token: 2, cluster: cluster.clone() };
    let learner = Entry::Learner { cluster: cluster.clone() };
    assert_eq!(history(&[]), History::Blank);
    assert_eq!(history(&[Entry::Started]), History::Blank, "nothing was proposed");
    let both = [proposed, again];
    assert_eq!(history(&both), History::Proposed { token: 2, cluster: cluster.clone() });
    let started = [&both[..], &[Entry::Started]].concat();
    assert_eq!(history(&started), History::Started { cluster: cluster.clone(), voting: true });
    let late = [&started[..], &both[..1]].concat();
    assert_eq!(
        history(&late),
        History::Started { cluster: cluster.clone(), voting: true },
        "history is not proposed over"
    );
    assert_eq!(history(std::slice::from_ref(&learner)), History::Started { cluster: cluster.clone(), voting: false });
    let fallen = [&started[..], &[learner, Entry::Started]].concat();
    assert_eq!(history(&fallen), History::Started { cluster, voting: false }, "a learner stays one");
}
