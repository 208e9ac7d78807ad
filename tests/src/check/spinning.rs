//! Nobody asks the same thing of the same one over and over without a pause.

use super::{Verdict, Violation};
use crate::sim::clock::Time;
use mesh::wire::Tag;
use std::collections::BTreeMap;

/// Asked for one request, from one to another, within a second of simulated time at most: the shortest pause of any
/// run's options is 20 ms, and a broken link or two is repaired at once.
const PER_SECOND: u32 = 150;

/// What one process asked in the current second.
#[derive(Debug, Default)]
pub struct Spinning {
    second: u64,
    asked: BTreeMap<(usize, Tag), u32>,
}

impl Spinning {
    /// It asks `whom` for `tag`.
    ///
    /// # Errors
    /// If it did so too often within a second.
    pub fn on_ask(&mut self, now: Time, whom: usize, tag: Tag) -> Verdict {
        let second = now.as_nanos() / 1_000_000_000;
        if second != self.second {
            self.second = second;
            self.asked.clear();
        }
        let asked = self.asked.entry((whom, tag)).or_default();
        *asked += 1;
        if *asked <= PER_SECOND {
            return Ok(());
        }
        Violation::raise("spinning", format!("{tag:?} is asked of {whom} more than {PER_SECOND} times a second"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::ids::{ClientId, Generation, Seq, Slot};
    use mesh::time::Duration;
    use mesh::wire::Kind;

    #[test]
    fn asking_without_a_pause_is_caught() {
        let tag = Tag { client: ClientId(1), opened: Generation::FIRST.at(Slot(1)), seq: Seq(1), kind: Kind::Call };
        let ask = |pause: Duration| {
            let (mut check, mut now) = (Spinning::default(), Time::ZERO);
            (0..1000).try_for_each(|_| {
                now = now + pause;
                check.on_ask(now, 0, tag)
            })
        };
        assert!(ask(Duration::from_millis(1)).is_err());
        assert!(ask(Duration::from_millis(20)).is_ok());
    }
}
