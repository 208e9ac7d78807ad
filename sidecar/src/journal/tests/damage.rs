//! Torn tails are cut; everything else that does not check out is damage.

use super::*;

/// Three segments of two or more frames each, and the last slot voted for.
fn journal() -> (TempDir, u64) {
    let dir = TempDir::new();
    journal_to(dir.path(), 0);
    for last in 1.. {
        append(&mut open(dir.path()).0, [last]);
        if numbers(dir.path()).contains(&3) && frames(dir.path(), 3).len() > 2 {
            return (dir, last);
        }
    }
    unreachable!("segments are small")
}

#[test]
fn the_last_frame_torn_at_any_byte_is_cut_and_the_journal_goes_on_before_it() {
    let (dir, last) = journal();
    let (path, at) = (segment(dir.path(), 3), frames(dir.path(), 3));
    let [.., begin, end] = at[..] else { panic!("a segment has frames") };
    let whole = read(&path, begin, end - begin);
    let kept: Vec<u64> = (1..last).collect();
    for cut in 0..whole.len() {
        // Either only the beginning reached the disk, or only what is behind it.
        for from_end in [false, true] {
            let mut torn = whole.clone();
            if from_end { &mut torn[..=cut] } else { &mut torn[cut..] }.fill(0);
            overwrite(&path, begin, &torn);
            let verdict = verdict(dir.path());
            let blank = torn.iter().all(|byte| *byte == 0);
            if torn == whole {
                // The bytes that fill a frame up are zero anyway.
                assert_eq!(verdict, Verdict::Whole, "at {cut}");
                continue;
            }
            assert_eq!(verdict, if blank { Verdict::Whole } else { Verdict::Torn { segment: 3 } }, "at {cut}");
            let (journal, recovery) = open(dir.path());
            assert_eq!(voted(&recovery), kept, "cut at {cut}");
            drop(journal);
            assert!(read(&path, begin, end - begin).iter().all(|byte| *byte == 0), "cut at {cut}");
        }
    }
    append(&mut open(dir.path()).0, [last + 1]);
    assert_eq!(verdict(dir.path()), Verdict::Whole);
    assert_eq!(voted(&open(dir.path()).1).last(), Some(&(last + 1)));
}

#[test]
fn a_flipped_byte_anywhere_is_damage_but_in_the_last_frame() {
    let (dir, _) = journal();
    let header_end =
        48 + u64::from(u32::from_le_bytes(read(&segment(dir.path(), 1), 12, 4).try_into().expect("four bytes")));
    for number in 1..=3 {
        let (path, at) = (segment(dir.path(), number), frames(dir.path(), number));
        let (first, second, last, end) = (at[0], at[1], at[at.len() - 2], at[at.len() - 1]);
        for byte in (0..header_end).chain(first..end) {
            flip(&path, byte);
            let expected = match byte {
                _ if byte < HEADER_BYTES => damaged(number, Fault::Header),
                _ if byte < second => damaged(number, Fault::Head),
                _ if number == 3 && byte >= last => Verdict::Torn { segment: 3 },
                _ => damaged(number, Fault::Frame),
            };
            assert_eq!(verdict(dir.path()), expected, "segment {number}, byte {byte}");
            flip(&path, byte);
        }
    }
    assert_eq!(verdict(dir.path()), Verdict::Whole, "every byte is as it was");
}

#[test]
fn zeroed_frames_are_damage_but_at_the_very_end() {
    let (dir, _) = journal();
    for number in 1..=3 {
        let (path, at) = (segment(dir.path(), number), frames(dir.path(), number));
        for pair in at.windows(2) {
            let bytes = read(&path, pair[0], pair[1] - pair[0]);
            overwrite(&path, pair[0], &vec![0; bytes.len()]);
            let found = verdict(dir.path());
            let end = Some(&pair[1]) == at.last();
            assert_eq!(
                found == Verdict::Whole,
                number == 3 && end,
                "segment {number}, frame at {}: {found:?}",
                pair[0]
            );
            overwrite(&path, pair[0], &bytes);
        }
    }
    // Two frames at the end that do not check out are more than one write.
    let (path, at) = (segment(dir.path(), 3), frames(dir.path(), 3));
    let [.., before, last, _] = at[..] else { panic!("a segment has two frames or more") };
    flip(&path, before + 40);
    flip(&path, last + 40);
    assert!(matches!(verdict(dir.path()), Verdict::Damaged { segment: 3, .. }));
}

#[test]
fn missing_and_foreign_segments_are_damage() {
    let (dir, _) = journal();
    let (path, aside) = (segment(dir.path(), 2), dir.path().join("aside"));
    std::fs::rename(&path, &aside).expect("rename");
    assert_eq!(verdict(dir.path()), damaged(2, Fault::Missing));
    let (other, _) = journal();
    std::fs::copy(segment(other.path(), 2), &path).expect("copy");
    assert_eq!(verdict(dir.path()), damaged(2, Fault::Header), "it is of another journal");
    std::fs::copy(segment(dir.path(), 1), &path).expect("copy");
    assert_eq!(verdict(dir.path()), damaged(2, Fault::Header), "it has another number");
    OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(100)).expect("truncate");
    assert_eq!(verdict(dir.path()), damaged(2, Fault::Header));
    std::fs::rename(&aside, &path).expect("rename");
    assert_eq!(verdict(dir.path()), Verdict::Whole);
}

#[test]
fn a_request_that_looks_like_a_frame_is_not_taken_for_one() {
    let dir = TempDir::new();
    let options = Options::new(true);
    let (mut journal, _) = open_with(dir.path(), &options);
    append(&mut journal, 1..=3);
    let at = frames(dir.path(), 1);
    let path = segment(dir.path(), 1);
    let frame = read(&path, at[1], at[2] - at[1]);
    // A body that holds a copy of a real frame, aligned in every way, in the last record, which is then torn.
    let bodies: Vec<_> =
        (0..8).map(|shift| accepted(10 + shift, &[vec![1; shift as usize], frame.repeat(3)].concat())).collect();
    journal.append(&bodies).expect("append");
    drop(journal);
    (0..3).for_each(|offset| flip(&path, at[4] + offset));
    assert_eq!(verdict(dir.path()), Verdict::Torn { segment: 1 });
    assert_eq!(voted(&open_with(dir.path(), &options).1), [1, 2, 3]);
}

#[test]
fn what_checks_out_and_means_nothing_is_neither_cut_nor_set_aside() {
    let dir = TempDir::new();
    journal_to(dir.path(), 1);
    let (path, at) = (segment(dir.path(), 1), frames(dir.path(), 1));
    let header = format::decode_header(&read(&path, 0, HEADER_BYTES)).expect("a header");
    let mut frame = vec![0; format::FRAME_HEAD];
    frame.extend_from_slice(&[0x7f; 5]);
    let end = *at.last().expect("frames");
    header.key.seal(end, &mut frame);
    overwrite(&path, end, &frame);
    assert!(matches!(look(dir.path()), Err(JournalError::Unknown { at, .. }) if at == end));
}
