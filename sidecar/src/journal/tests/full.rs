//! A disk without room.

use super::super::writer::Journal;
use super::*;
use mesh::ids::Lsn;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};

/// A disk of so many bytes.
fn options(dir: &Path, bytes: u64) -> Options {
    Options { disk: Some((dir.to_owned(), bytes)), ..tiny() }
}

#[test]
fn room_that_is_there_is_used_to_the_end_and_then_the_append_fails() {
    let dir = TempDir::new();
    let options = options(dir.path(), 3 * HEADER_BYTES);
    let (mut journal, _) = open_with(dir.path(), &options);
    let mut stored = 0;
    let mut ahead = true;
    let error = loop {
        ahead = ahead && journal.prepare().expect("no room ahead of need is no failure");
        let slot = stored + 1;
        match journal.append([&accepted(slot, &[b'x'; 100])]).and_then(|()| journal.sync()) {
            Ok(()) => stored = slot,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(!ahead, "there was none ahead of need before");
    drop(journal);
    assert!(stored >= 6, "{stored}");
    // The next start finds all that was acknowledged.
    let (_, recovery) = open(dir.path());
    assert_eq!(voted(&recovery), (1..=stored).collect::<Vec<_>>());
}

#[test]
fn a_group_that_was_written_in_part_is_cut_at_the_next_start() {
    let dir = TempDir::new();
    journal_to(dir.path(), 3);
    let last = *numbers(dir.path()).last().expect("segments");
    let (path, at) = (segment(dir.path(), last), frames(dir.path(), last));
    let (begin, end) = (at[0], *at.last().expect("frames"));
    // As a file system that copies on writing leaves it.
    let part = read(&path, begin, 60);
    overwrite(&path, end, &part);
    assert_eq!(verdict(dir.path()), Verdict::Torn { segment: last });
    assert_eq!(voted(&open(dir.path()).1), [1, 2, 3]);
}

#[test]
fn without_room_for_another_segment_the_one_there_is_goes_on_until_there_is() {
    let dir = TempDir::new();
    let options = options(dir.path(), HEADER_BYTES + 2048);
    let (mut journal, _) = open_with(dir.path(), &options);
    append(&mut journal, 1..=5);
    assert_eq!(numbers(dir.path()), [1], "there is no room for a second header");
    assert!(journal.current.end > options.segment_bytes);
    journal.options.disk = None;
    append(&mut journal, 6..=7);
    assert_eq!(numbers(dir.path()), [1, 2]);
    drop(journal);
    assert_eq!(voted(&open(dir.path()).1), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn cutting_needs_no_room_and_makes_some() {
    let dir = TempDir::new();
    let options = options(dir.path(), 4 * HEADER_BYTES);
    let (mut journal, _) = open_with(dir.path(), &options);
    let mut last = 0;
    while journal.append([&accepted(last + 1, &[b'x'; 100])]).is_ok() {
        last += 1;
    }
    // The failed append was not written: in a process the next start would judge that.
    drop(journal);
    let (mut journal, _) = open_with(dir.path(), &options);
    while journal.can_cut(Slot(last)) {
        journal.cut(Slot(last)).expect("a deletion needs no room");
    }
    assert_eq!(numbers(dir.path()).len(), 1);
    append(&mut journal, last + 1..=last + 3);
}

#[test]
fn a_start_on_a_full_disk_says_what_to_do() {
    let dir = TempDir::new();
    let options = options(dir.path(), 100);
    let error = Looked::at(dir.path(), &identity(), &options, "this boot").expect_err("no room");
    assert!(error.to_string().contains("make room"), "{error}");
    assert_eq!(open(dir.path()).1.history, History::Blank, "the next start begins anew");
}

#[test]
fn the_writer_ends_without_acknowledging_what_found_no_room() {
    static FAILED: AtomicBool = AtomicBool::new(false);
    let dir = TempDir::new();
    let options = options(dir.path(), 2 * HEADER_BYTES);
    let (file, _) = open_with(dir.path(), &options);
    let mut journal =
        Journal::start_with(file, Box::new(|_| {}), |_| FAILED.store(true, Ordering::SeqCst)).expect("thread");
    let mut appended = 0;
    let mut durable = Lsn(0);
    while !FAILED.load(Ordering::SeqCst) {
        appended += 1;
        journal.append(Lsn(appended), Record::Decided { slot: Slot(appended) });
        journal.flush(true);
        durable = journal.take_completed().unwrap_or(durable);
        std::thread::yield_now();
    }
    durable = journal.take_completed().unwrap_or(durable);
    assert!(durable < Lsn(appended));
    drop(journal);
    let decided = open(dir.path()).1.records.iter().filter(|record| matches!(record, Record::Decided { .. })).count();
    assert!(decided as u64 >= durable.0, "{decided} of {durable} acknowledged ones are there");
}
