//! Lives (rule 12): an incarnation is granted by order, to one life at a time; a life without it neither votes nor
//! leads, and its votes count for nothing.

use super::{Verdict, Violation};
use mesh::ids::{Life, Slot};
use mesh::wire::Message;

const NAME: &str = "rejoin";

/// Which life of each member has its vote, and from which slot on.
#[derive(Debug)]
pub struct Rejoin {
    // The life that runs or ran last, and how many there were.
    lives: Vec<Life>,
    // Grants, in order of slots; before the first one the bootstrap's life.
    grants: Vec<Vec<(Slot, Life)>>,
}

impl Rejoin {
    /// For `n` replicas.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self { lives: vec![Life(0); n], grants: vec![vec![(Slot(0), Life(0))]; n] }
    }

    /// Replica `who` begins another life.
    pub fn on_life(&mut self, who: usize, life: Life) {
        self.lives[who] = life;
    }

    /// The order of `slot` gives the member's next incarnation to a life, if `over` has the one before. True if that
    /// changes the configuration.
    pub fn on_grant(&mut self, slot: Slot, who: usize, life: Life, over: Life) -> bool {
        let grants = &mut self.grants[who];
        let changes = grants.last().is_some_and(|(_, holder)| *holder == over && *holder != life);
        if changes {
            grants.push((slot, life));
        }
        changes
    }

    /// Whether a vote of replica `who`, as it runs now, counts in `slot` (rule 11: entries below it decide).
    #[must_use]
    pub fn counts(&self, who: usize, slot: Slot) -> bool {
        let before = self.grants[who].iter().rev().find(|(granted, _)| *granted < slot || slot == Slot(0));
        before.is_some_and(|(_, life)| *life == self.lives[who])
    }

    /// Whether replica `who`, as it runs now, has the member's vote.
    #[must_use]
    pub fn votes(&self, who: usize) -> bool {
        self.grants[who].last().is_some_and(|(_, life)| *life == self.lives[who])
    }

    /// The slot of the last change of the configuration below `slot`.
    #[must_use]
    pub fn configured(&self, slot: Slot) -> Slot {
        let all = self.grants.iter().flatten().map(|(granted, _)| *granted);
        all.filter(|granted| *granted < slot).max().unwrap_or_default()
    }

    /// Replica `who` sends `message`.
    ///
    /// # Errors
    /// If it is a vote, or a leader's, and this life has no vote; or if it claims a configuration that is not ordered.
    pub fn on_send(&self, who: usize, message: &Message) -> Verdict {
        let of_a_voter = matches!(
            message,
            Message::PreVote { .. }
                | Message::Prepare { .. }
                | Message::Accept { .. }
                | Message::Heartbeat { .. }
                | Message::PreVoteGranted { .. }
                | Message::Promise { .. }
                | Message::Promised { .. }
                | Message::Accepted { .. }
        );
        if of_a_voter && !self.votes(who) {
            let what = format!("replica {who} sends {} in a life that has no vote", message.kind());
            return Violation::raise(NAME, what);
        }
        match message {
            Message::Accept { slot, configured, .. } if *configured > self.configured(*slot) => {
                let what = format!("replica {who} calls slot {configured} a change of the configuration: it is none");
                Violation::raise(NAME, what)
            }
            _ => Ok(()),
        }
    }

    /// Replica `who` says that another life has taken its place.
    ///
    /// # Errors
    /// If none has.
    pub fn on_superseded(&self, who: usize) -> Verdict {
        let superseded = self.grants[who].iter().any(|(_, life)| *life == self.lives[who]) && !self.votes(who);
        if superseded {
            return Ok(());
        }
        Violation::raise(NAME, format!("replica {who} calls itself superseded and is not"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::ids::Ballot;

    #[test]
    fn a_life_votes_from_its_grant_on_and_the_one_before_no_more() {
        let mut check = Rejoin::new(3);
        let vote = Message::Prepare { ballot: Ballot::NONE, decided: Slot(0) };
        check.on_send(1, &vote).unwrap();
        check.on_life(1, Life(7));
        assert!(check.on_send(1, &vote).is_err());
        assert!(check.on_superseded(1).is_err(), "it never had the vote");
        assert!(!check.on_grant(Slot(4), 1, Life(7), Life(9)), "another one has the vote");
        assert!(check.on_grant(Slot(5), 1, Life(7), Life(0)));
        assert!(!check.on_grant(Slot(6), 1, Life(7), Life(0)), "it has it already");
        check.on_send(1, &vote).unwrap();
        assert!(!check.counts(1, Slot(5)) && check.counts(1, Slot(6)));
        assert_eq!((check.configured(Slot(5)), check.configured(Slot(6))), (Slot(0), Slot(5)));
        check.on_life(1, Life(0));
        assert!(check.on_send(1, &vote).is_err());
        assert!(check.counts(1, Slot(5)) && !check.counts(1, Slot(6)));
        check.on_superseded(1).unwrap();
    }
}
