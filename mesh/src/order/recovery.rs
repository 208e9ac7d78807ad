//! What the journal that a start finds means: whole, torn, forgotten or damaged (rules 12 and 13). No input or output here:
//! whoever reads the journal states what it saw.

use super::{Mutant, mutant};

/// What was seen of a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Its segments, by their numbers.
    pub segments: Vec<Segment>,
    /// It was written without waiting for the disk, its member took part in a cluster, and the machine was started anew
    /// since.
    pub forgotten: bool,
}

/// What was seen of one segment of a journal. Each begins with a header, made before the segment has its name; then
/// come frames, each written after the one before was durable. The first is the head, which restates what the
/// segments before said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its number; the next segment has the next one.
    pub number: u64,
    /// Whether its header checks out.
    pub header: bool,
    /// Where the frames of the segment before end, as the head says; `None` if the head does not check out.
    pub head: Option<u64>,
    /// Where the frames that check out end: behind the last one before any that does not.
    pub end: u64,
    /// What is there.
    pub behind: Behind,
}

/// What is behind the last frame that checks out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// Nothing was ever written there.
    Nothing,
    /// What may be the remains of one frame.
    Remains,
    /// More than one frame, whether or not any of the later ones checks out.
    More,
}

/// What a journal's state means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every promise and vote that was ever sent is in it.
    Whole,
    /// So it is once the remains of the last frame, which nothing rests on, are cut off this segment.
    Torn {
        /// The segment's number.
        segment: u64,
    },
    /// Nobody knows what of it never reached the disk: it must not be voted with.
    Forgotten,
    /// The disk lost what it had stored: it must not be voted with.
    Damaged {
        /// The number of the first segment that is not as it was.
        segment: u64,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// What is wrong with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is not there, and a later one is.
    #[error("it is missing")]
    Missing,
    /// Its header does not check out.
    #[error("its header does not check out")]
    Header,
    /// Its first frame does not check out, and must.
    #[error("its first frame does not check out")]
    Head,
    /// A frame does not check out, and was followed by another.
    #[error("a frame that was followed by another does not check out")]
    Frame,
    /// It ends elsewhere than the next one says.
    #[error("its last frames are gone")]
    Short,
}

/// Judges a journal.
///
/// Only the last frame of all may not check out: every other one was durable before the next was begun. The next segment
/// is made ahead of need, so the last one may have no frame yet.
#[must_use]
pub fn judge(scan: &Scan) -> Verdict {
    if scan.forgotten {
        return Verdict::Forgotten;
    }
    let damaged = |segment, fault| Verdict::Damaged { segment, fault };
    let Some(first) = scan.segments.first() else { return damaged(1, Fault::Missing) };
    for (expected, segment) in (first.number..).zip(&scan.segments) {
        if segment.number != expected {
            return damaged(expected, Fault::Missing);
        }
        if !segment.header {
            return damaged(expected, Fault::Header);
        }
    }
    let written = match scan.segments.as_slice() {
        [written @ .., last] if !written.is_empty() && last.head.is_none() && last.behind == Behind::Nothing => written,
        all => all,
    };
    let mut before: Option<&Segment> = None;
    for (at, segment) in (1..).zip(written) {
        let last = at == written.len();
        let Some(previous_end) = segment.head else {
            // The first one is not without its head: the segments before it go only when that is durable.
            let torn = last && before.is_some() && segment.behind == Behind::Remains;
            return if torn { Verdict::Torn { segment: segment.number } } else { damaged(segment.number, Fault::Head) };
        };
        if let Some(before) = before.filter(|before| before.end != previous_end) {
            return damaged(before.number, Fault::Short);
        }
        match segment.behind {
            Behind::Nothing => {}
            Behind::Remains if last => return Verdict::Torn { segment: segment.number },
            _ if mutant::on(Mutant::SkipTailCheck) => return Verdict::Torn { segment: segment.number },
            Behind::Remains | Behind::More => return damaged(segment.number, Fault::Frame),
        }
        before = Some(segment);
    }
    Verdict::Whole
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments 3, 4 and 5, whole.
    fn whole() -> Scan {
        let segment =
            |number, head, end| Segment { number, header: true, head: Some(head), end, behind: Behind::Nothing };
        Scan { segments: vec![segment(3, 900, 1000), segment(4, 1000, 1100), segment(5, 1100, 300)], forgotten: false }
    }

    fn spare(number: u64) -> Segment {
        Segment { number, header: true, head: None, end: 64, behind: Behind::Nothing }
    }

    fn verdict(change: impl FnOnce(&mut Vec<Segment>)) -> Verdict {
        let mut scan = whole();
        change(&mut scan.segments);
        judge(&scan)
    }

    const fn damaged(segment: u64, fault: Fault) -> Verdict {
        Verdict::Damaged { segment, fault }
    }

    #[test]
    fn what_checks_out_is_whole_with_and_without_the_next_segment() {
        assert_eq!(verdict(|_| ()), Verdict::Whole);
        assert_eq!(verdict(|segments| segments.push(spare(6))), Verdict::Whole);
        assert_eq!(verdict(|segments| segments.truncate(1)), Verdict::Whole);
    }

    #[test]
    fn only_the_last_frame_of_all_is_torn() {
        assert_eq!(verdict(|segments| segments[2].behind = Behind::Remains), Verdict::Torn { segment: 5 });
        assert_eq!(verdict(|segments| segments[1].behind = Behind::Remains), damaged(4, Fault::Frame));
        assert_eq!(verdict(|segments| segments[2].behind = Behind::More), damaged(5, Fault::Frame));
        let with_spare = verdict(|segments| {
            segments[2].behind = Behind::Remains;
            segments.push(spare(6));
        });
        assert_eq!(with_spare, Verdict::Torn { segment: 5 });
    }

    #[test]
    fn a_head_is_torn_only_in_the_last_segment_of_several() {
        let torn = |number| Segment { behind: Behind::Remains, ..spare(number) };
        assert_eq!(verdict(|segments| segments.push(torn(6))), Verdict::Torn { segment: 6 });
        assert_eq!(verdict(|segments| *segments = vec![torn(1)]), damaged(1, Fault::Head));
        assert_eq!(verdict(|segments| *segments = vec![spare(2)]), damaged(2, Fault::Head));
        assert_eq!(verdict(|segments| segments[1].head = None), damaged(4, Fault::Head));
        assert_eq!(verdict(|segments| segments.extend([spare(6), spare(7)])), damaged(6, Fault::Head));
        let behind_a_torn_one = verdict(|segments| {
            segments[2].behind = Behind::Remains;
            segments.push(torn(6));
        });
        assert_eq!(behind_a_torn_one, damaged(5, Fault::Frame), "its head was begun, so the frame before was durable");
    }

    #[test]
    fn missing_and_shortened_segments_and_headers_are_damage() {
        assert_eq!(verdict(Vec::clear), damaged(1, Fault::Missing));
        assert_eq!(verdict(|segments| segments.retain(|segment| segment.number != 4)), damaged(4, Fault::Missing));
        assert_eq!(verdict(|segments| segments[1].end -= 8), damaged(4, Fault::Short));
        assert_eq!(verdict(|segments| segments[2].header = false), damaged(5, Fault::Header));
        let spare = |segments: &mut Vec<Segment>| segments.push(Segment { header: false, ..spare(6) });
        assert_eq!(verdict(spare), damaged(6, Fault::Header));
    }

    #[test]
    fn what_the_disk_may_never_have_had_is_forgotten() {
        assert_eq!(judge(&Scan { forgotten: true, ..whole() }), Verdict::Forgotten);
    }
}
