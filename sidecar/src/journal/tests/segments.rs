//! Rolling and cutting, and a crash at every point of them.

use super::*;
use mesh::order::Recovered;

#[test]
fn a_journal_rolls_and_everything_comes_back() {
    let dir = TempDir::new();
    journal_to(dir.path(), 20);
    assert!(numbers(dir.path()).len() > 5, "{:?}", numbers(dir.path()));
    let (journal, recovery) = open(dir.path());
    assert_eq!(voted(&recovery), (1..=20).collect::<Vec<_>>());
    let frames: u64 = numbers(dir.path())
        .into_iter()
        .map(|number| frames(dir.path(), number).last().expect("frames") - HEADER_BYTES)
        .sum();
    assert_eq!(journal.bytes(), frames);
}

#[test]
fn a_frame_larger_than_a_segment_has_one_for_itself() {
    let dir = TempDir::new();
    let (mut journal, _) = open(dir.path());
    let body = vec![b'x'; 100_000];
    for slot in 1..=3 {
        journal.append([&accepted(slot, &body)]).expect("append");
    }
    drop(journal);
    let (_, recovery) = open(dir.path());
    assert_eq!(voted(&recovery), [1, 2, 3]);
    assert_eq!(numbers(dir.path()), [1, 2, 3, 4]);
}

#[test]
fn segments_are_cut_from_the_oldest_on_and_a_later_vote_keeps_all_behind_it() {
    let dir = TempDir::new();
    journal_to(dir.path(), 8);
    let (mut journal, _) = open(dir.path());
    append(&mut journal, [100]);
    append(&mut journal, 9..=16);
    drop(journal);
    let (mut journal, _) = open(dir.path());
    let before = (numbers(dir.path()), journal.bytes());
    assert!(!journal.can_cut(Slot(0)) || journal.full[0].highest == Slot(0));
    let mut seen = journal.full.iter().map(|full| (full.number, full.highest)).collect::<Vec<_>>();
    while journal.can_cut(Slot(16)) {
        journal.cut(Slot(16)).expect("cut");
        let (number, highest) = seen.remove(0);
        assert!(highest <= Slot(16), "segment {number} was needed");
        assert_eq!(numbers(dir.path()).first(), Some(&(number + 1)));
    }
    assert_eq!(seen.first().map(|(_, highest)| *highest), Some(Slot(100)), "that one stays, and all behind it");
    assert!(journal.bytes() < before.1);
    drop(journal);
    let (mut journal, recovery) = open(dir.path());
    let voted = voted(&recovery);
    assert!(voted.contains(&100) && voted.ends_with(&[16]) && !voted.contains(&1), "{voted:?}");
    // The last one is never cut.
    while journal.can_cut(Slot(1000)) {
        journal.cut(Slot(1000)).expect("cut");
    }
    assert_eq!(numbers(dir.path()), [*before.0.last().expect("segments")]);
}

#[test]
fn a_head_restates_all_that_the_segments_before_said() {
    let dir = TempDir::new();
    let cluster = journal_to(dir.path(), 1);
    let at = Position { slot: Slot(3), call: 4 };
    let (mut journal, _) = open(dir.path());
    let said = [Record::Promised { ballot: ballot(9) }, Record::Silent { at }, Record::Decided { slot: Slot(77) }];
    journal.append(&said.map(Entry::Core)).expect("append");
    // Another life, as if it had been taught.
    journal
        .append([&Entry::Learner { configuration: Configuration::first(cluster.clone()), life: Life(5) }])
        .expect("append");
    append(&mut journal, 2..=12);
    while journal.can_cut(Slot(12)) {
        journal.cut(Slot(12)).expect("cut");
    }
    drop(journal);
    assert_eq!(numbers(dir.path()).len(), 1);
    let looked = Looked::at(dir.path(), &identity(), &tiny(), "this boot").expect("whole");
    let (journal, recovery) = looked.resume().expect("whole");
    assert_eq!(recovery.history, History::Started { configuration: Configuration::first(cluster), life: Life(5) });
    assert_eq!(journal.summary.boot, "this boot");
    let recovered = Recovered::from_records(recovery.records);
    assert_eq!((recovered.promised, recovered.decided, recovered.silent), (ballot(9), Slot(77), Some(at)));
}

#[test]
fn the_next_segment_is_made_ahead_and_a_commit_only_writes_into_it() {
    let dir = TempDir::new();
    let (mut journal, _) = open(dir.path());
    let mut rolled = 0;
    for slot in 1..=12 {
        while journal.current.allocated - journal.current.end < tiny().chunk_bytes / 2 && journal.spare.is_none() {
            assert!(journal.prepare().expect("prepare"));
        }
        let (current, spare) = (journal.current.number, journal.spare.as_ref().map(|spare| spare.number));
        append(&mut journal, [slot]);
        if journal.current.number != current {
            rolled += usize::from(Some(journal.current.number) == spare);
        }
    }
    assert!(rolled >= 2, "{rolled} segments were there when they were needed");
    // One that was made ahead, and not needed before the end, is taken up again.
    while journal.spare.is_none() {
        assert!(journal.prepare().expect("prepare"));
        if journal.spare.is_none() && journal.current.allocated >= tiny().segment_bytes {
            append(&mut journal, [13]);
        }
    }
    let spare = journal.current.number + 1;
    drop(journal);
    let (mut journal, recovery) = open(dir.path());
    assert_eq!(journal.spare.as_ref().map(|spare| spare.number), Some(spare));
    assert_eq!(numbers(dir.path()).last(), Some(&spare));
    let last = *voted(&recovery).last().expect("votes");
    append(&mut journal, last + 1..=last + 6);
    drop(journal);
    assert_eq!(voted(&open(dir.path()).1).last(), Some(&(last + 6)));
}

/// Before and after the append that rolls: the folder of each, the number of the new segment, its first frame's bytes.
fn around_a_roll() -> (TempDir, TempDir, u64, u64) {
    let (dir, before) = (TempDir::new(), TempDir::new());
    journal_to(dir.path(), 0);
    for slot in 1.. {
        let count = numbers(dir.path()).len();
        let _ = std::fs::remove_dir_all(before.path().join(FOLDER));
        copy(&dir.path().join(FOLDER), &before.path().join(FOLDER));
        append(&mut open(dir.path()).0, [slot]);
        if count >= 2 && numbers(dir.path()).len() > count {
            break;
        }
    }
    let new = *numbers(dir.path()).last().expect("segments");
    let end = *frames(dir.path(), new).last().expect("frames");
    (before, dir, new, end)
}

#[test]
fn a_crash_while_a_segment_is_begun_loses_nothing() {
    let (before, after, new, end) = around_a_roll();
    let slots = voted(&open(before.path()).1);
    let goes_on = |dir: &Path, what: &str| {
        let (mut journal, recovery) = open(dir);
        assert_eq!(voted(&recovery), slots, "{what}");
        append(&mut journal, 50..=52);
        drop(journal);
        assert_eq!(verdict(dir), Verdict::Whole, "{what}");
        let all = voted(&open(dir).1);
        assert_eq!(all, [&slots[..], &[50, 51, 52]].concat(), "{what}");
    };
    let from = |what: &str, change: &dyn Fn(&Path)| {
        let dir = TempDir::new();
        copy(&before.path().join(FOLDER), &dir.path().join(FOLDER));
        change(dir.path());
        goes_on(dir.path(), what);
    };
    from("before it", &|_| ());
    let made = read(&segment(after.path(), new), 0, end);
    for bytes in [0, 1, 100, HEADER_BYTES as usize, made.len()] {
        from("while it was made", &|dir| {
            let name = format!("{}.new", segment_name(new));
            std::fs::write(dir.join(FOLDER).join(name), &made[..bytes]).expect("write");
        });
    }
    for cut in HEADER_BYTES as usize..made.len() {
        from(&format!("when its head was written up to byte {cut}"), &|dir| {
            let mut torn = made.clone();
            torn[cut..].fill(0);
            let torn_at_all = torn[HEADER_BYTES as usize..].iter().any(|byte| *byte != 0);
            if torn == made {
                return;
            }
            std::fs::write(segment(dir, new), &torn).expect("write");
            let expected = if torn_at_all { Verdict::Torn { segment: new } } else { Verdict::Whole };
            assert_eq!(verdict(dir), expected, "cut at {cut}");
        });
    }
}

#[test]
fn a_torn_frame_before_a_segment_made_ahead_is_torn_and_before_a_begun_one_is_damage() {
    let (before, after, new, _) = around_a_roll();
    let previous = segment(before.path(), new - 1);
    let [.., last, end] = frames(before.path(), new - 1)[..] else { panic!("a segment has frames") };
    let spare = read(&segment(after.path(), new), 0, HEADER_BYTES);
    std::fs::write(segment(before.path(), new), &spare).expect("write");
    overwrite(&previous, last + 30, &vec![0; (end - last - 30) as usize]);
    assert_eq!(verdict(before.path()), Verdict::Torn { segment: new - 1 });
    overwrite(&segment(after.path(), new - 1), last + 30, &vec![0; (end - last - 30) as usize]);
    assert_eq!(verdict(after.path()), damaged(new - 1, Fault::Frame));
    overwrite(&segment(after.path(), new - 1), last, &vec![0; (end - last) as usize]);
    assert_eq!(verdict(after.path()), damaged(new - 1, Fault::Short), "the next head tells where it ended");
}

#[test]
fn a_crash_between_two_deletions_leaves_a_journal() {
    let dir = TempDir::new();
    journal_to(dir.path(), 12);
    let all = numbers(dir.path());
    for number in &all[..all.len() - 1] {
        std::fs::remove_file(segment(dir.path(), *number)).expect("remove");
        assert_eq!(verdict(dir.path()), Verdict::Whole, "without {number}");
    }
    let (_, recovery) = open(dir.path());
    assert!(matches!(recovery.history, History::Started { .. }));
    assert_eq!(Recovered::from_records(recovery.records).decided, Slot(12));
}
