//! The journal's thread.

use super::super::writer::Journal;
use super::*;
use mesh::ids::Lsn;

#[test]
fn the_writer_says_what_is_durable_and_it_is() {
    let dir = TempDir::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let (file, _) = open(dir.path());
        let mut journal = Journal::start(file, Box::new(|_| {})).expect("thread");
        for lsn in 1..=500 {
            journal.append(Lsn(lsn), Record::Decided { slot: Slot(lsn) });
            if lsn % 7 == 0 {
                journal.flush(false);
            }
        }
        assert!(!journal.behind());
        journal.flush(false);
        let mut durable = Lsn(0);
        // Here and there: here only while the thread has nothing left, so that nothing overtakes.
        for lsn in 501..=560 {
            journal.append(Lsn(lsn), Record::Decided { slot: Slot(lsn) });
            journal.flush(lsn % 3 > 0);
            if lsn % 10 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        while durable < Lsn(560) {
            journal.completed().await;
            let next = journal.take_completed().expect("completed means so");
            assert!(next > durable, "completions only go up");
            durable = next;
        }
        assert_eq!(journal.take_completed(), None);
    });
    let (_, recovery) = open(dir.path());
    // Segments without a vote may be gone: what is left has no gap.
    let mut expected = 0;
    for record in recovery.records {
        match record {
            Record::Decided { slot } if expected == 0 || slot.0 == expected + 1 => expected = slot.0,
            // What heads restate.
            Record::Decided { slot } => assert_eq!(slot.0, expected),
            record => assert_eq!(record, Record::Promised { ballot: Ballot::NONE }),
        }
    }
    assert_eq!(expected, 560);
}

#[test]
fn the_writer_cuts_while_there_is_nothing_to_write() {
    let dir = TempDir::new();
    journal_to(dir.path(), 20);
    let (file, _) = open(dir.path());
    let mut journal = Journal::start(file, Box::new(|_| {})).expect("thread");
    let before = journal.bytes();
    journal.cut(Slot(10));
    let needed = |dir: &Path| {
        voted(&Looked::at(dir, &identity(), &tiny(), "this boot").expect("whole").resume().expect("whole").1)
    };
    crate::testing::eventually("segments are deleted", || journal.bytes() < before / 3 * 2);
    let bytes = journal.bytes();
    // A lower cut brings nothing back and asks for nothing.
    journal.cut(Slot(1));
    journal.append(Lsn(1), Record::Decided { slot: Slot(20) });
    journal.flush(false);
    crate::testing::eventually("it goes on", || journal.take_completed().is_some());
    assert!(journal.bytes() > bytes);
    drop(journal);
    let slots = needed(dir.path());
    assert!((11..=20).all(|slot| slots.contains(&slot)) && !slots.contains(&1), "{slots:?}");
}

#[test]
fn nothing_is_durable_when_the_disk_refuses() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static FAILED: AtomicBool = AtomicBool::new(false);
    let dir = TempDir::new();
    let (mut file, _) = open(dir.path());
    assert!(file.prepare().expect("prepare"));
    let file = file.read_only_for_test();
    let mut journal =
        Journal::start_with(file, Box::new(|_| {}), |_| FAILED.store(true, Ordering::SeqCst)).expect("thread");
    journal.append(Lsn(1), Record::Decided { slot: Slot(1) });
    journal.flush(false);
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
fn without_a_file_the_size_goes_up_and_down_as_with_one() {
    let mut journal = Journal::memory();
    for slot in 1..=20 {
        let Entry::Core(record) = accepted(slot, &vec![0; 1 << 20]) else { panic!("a record") };
        journal.append(Lsn(slot), record);
    }
    let before = journal.bytes();
    assert!(before > 20 << 20);
    journal.cut(Slot(5));
    assert_eq!(journal.bytes(), before, "a segment goes whole or not at all");
    journal.cut(Slot(12));
    let after = journal.bytes();
    assert!(after < before && after >= 8 << 20);
    journal.cut(Slot(100));
    assert!(journal.bytes() > 0, "the last one stays");
}
