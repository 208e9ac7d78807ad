//! Final words of single SMaRtClients that no server has signed: they are believed when several say the same.

use crate::client::sender::Endpoint;
use crate::time::{Duration, Instant};
use crate::wire::Tag;
use crate::wire::client::Unknown;
use std::collections::{HashMap, VecDeque};

/// So many must say it, or all that are reachable.
const AGREEING: usize = 3;
/// Requests whose words are remembered.
const DOUBTS_MAX: usize = 4096;
/// SMaRtClients whose words on one request are remembered.
const WORDS_MAX: usize = 16;
/// Words older than this count no more.
const STALE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// The newest word of each.
    words: HashMap<Tag, Vec<(Endpoint, Unknown, Instant)>>,
    /// The oldest first; some are settled.
    order: VecDeque<Tag>,
}

impl Doubts {
    /// A SMaRtClient says this of a request. True if enough of the `reachable` ones did.
    pub(super) fn said(&mut self, now: Instant, endpoint: Endpoint, tag: Tag, word: Unknown, reachable: usize) -> bool {
        let needed = reachable.clamp(1, AGREEING);
        if needed == 1 {
            return true;
        }
        if !self.words.contains_key(&tag) {
            self.make_room();
            self.order.push_back(tag);
        }
        let words = self.words.entry(tag).or_default();
        words.retain(|(other, _, at)| *other != endpoint && now.since(*at) <= STALE);
        if words.len() >= WORDS_MAX {
            words.remove(0);
        }
        words.push((endpoint, word, now));
        words.iter().filter(|(_, other, _)| *other == word).count() >= needed
    }

    /// It is not in doubt any more.
    pub(super) fn settled(&mut self, tag: &Tag) {
        self.words.remove(tag);
    }

    fn make_room(&mut self) {
        while self.order.len() >= DOUBTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.words.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClientId, Generation, Seq, Slot};
    use crate::wire::Kind;

    fn tag(seq: u64) -> Tag {
        Tag { client: ClientId(1), opened: Generation::FIRST.at(Slot(1)), seq: Seq(seq), kind: Kind::Call }
    }

    fn said(doubts: &mut Doubts, endpoint: u64, word: Unknown, reachable: usize) -> bool {
        doubts.said(Instant::ZERO, Endpoint(endpoint), tag(1), word, reachable)
    }

    #[test]
    fn three_must_say_the_same_or_all_that_are_reachable() {
        let mut doubts = Doubts::default();
        assert!(!said(&mut doubts, 1, Unknown::TooOld, 5));
        assert!(!said(&mut doubts, 1, Unknown::TooOld, 5), "it counts once");
        assert!(!said(&mut doubts, 2, Unknown::SessionGone, 5));
        assert!(!said(&mut doubts, 3, Unknown::TooOld, 5));
        assert!(said(&mut doubts, 4, Unknown::TooOld, 5));
        doubts.settled(&tag(1));
        assert!(!said(&mut doubts, 4, Unknown::TooOld, 2));
        assert!(said(&mut doubts, 5, Unknown::TooOld, 2));
        assert!(said(&mut Doubts::default(), 4, Unknown::TooOld, 1), "there is nobody else to ask");
    }

    #[test]
    fn words_grow_stale_and_the_table_is_bounded() {
        let mut doubts = Doubts::default();
        assert!(!said(&mut doubts, 1, Unknown::TooOld, 2));
        let later = Instant::ZERO + STALE + Duration::from_secs(1);
        assert!(!doubts.said(later, Endpoint(2), tag(1), Unknown::TooOld, 2));
        for seq in 0..2 * DOUBTS_MAX as u64 {
            doubts.said(later, Endpoint(2), tag(seq), Unknown::TooOld, 2);
            doubts.settled(&tag(seq / 2));
        }
        assert!(doubts.words.len() <= DOUBTS_MAX && doubts.order.len() <= DOUBTS_MAX);
        for endpoint in 0..100 {
            doubts.said(later, Endpoint(endpoint), tag(9), Unknown::TooOld, 200);
        }
        assert!(doubts.words[&tag(9)].len() <= WORDS_MAX);
    }
}
