//! The log is cut no further than verified snapshots of a majority reach (rule 10), and behind an own one.

use super::membership::Membership;
use super::{Verdict, Violation};
use mesh::ids::Slot;

const NAME: &str = "cut";

/// The newest snapshot that each replica has, as far as it knows and in truth, and the newest it ever verified.
#[derive(Debug)]
pub struct Cut {
    known: Vec<Slot>,
    whole: Vec<Slot>,
    verified: Vec<Slot>,
    // The highest mark that held.
    covered: Slot,
}

impl Cut {
    /// For `n` replicas.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self { known: vec![Slot(0); n], whole: vec![Slot(0); n], verified: vec![Slot(0); n], covered: Slot(0) }
    }

    /// The newest snapshot of replica `who` as it knows, and that which is whole; 0 without one.
    pub fn on_snapshots(&mut self, who: usize, known: Slot, whole: Slot) {
        (self.known[who], self.whole[who]) = (known, whole);
        self.verified[who] = self.verified[who].max(whole);
    }

    /// The newest whole snapshot of each.
    #[must_use]
    pub fn whole(&self) -> &[Slot] {
        &self.whole
    }

    /// Replica `who` states its newest verified snapshot.
    ///
    /// # Errors
    /// If it never had it.
    pub fn on_mark(&self, who: usize, snapshot: Slot) -> Verdict {
        if snapshot <= self.verified[who] {
            return Ok(());
        }
        Violation::raise(NAME, format!("replica {who} states a snapshot of slot {snapshot}, which it never stored"))
    }

    /// The leader `who` states up to where verified snapshots of enough applications reach.
    ///
    /// # Errors
    /// If they do not, in any configuration that can have said so.
    pub fn on_covered(&mut self, who: usize, covered: Slot, membership: &Membership) -> Verdict {
        if covered <= self.covered {
            return Ok(());
        }
        let reaches = |who: &usize| self.verified[*who] >= covered;
        let mut all = membership.from(self.covered);
        if all.any(|configuration| configuration.applications().filter(reaches).count() >= configuration.covering()) {
            self.covered = covered;
            return Ok(());
        }
        let reach = (0..self.verified.len()).filter(reaches).collect::<Vec<_>>();
        Violation::raise(NAME, format!("replica {who} goes by snapshots up to slot {covered}, which {reach:?} have"))
    }

    /// Replica `who` cuts its log.
    ///
    /// # Errors
    /// If its own newest snapshot does not reach that far.
    pub fn on_cut(&self, who: usize, through: Slot) -> Verdict {
        if self.known[who] < through {
            let what = format!("replica {who} cuts through slot {through}, its snapshot is of {}", self.known[who]);
            return Violation::raise(NAME, what);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::config::{ClusterConfig, Durability};

    #[test]
    fn a_cut_beyond_what_a_majority_covers_is_caught() {
        let mut check = Cut::new(3);
        let members = Membership::new(3, &ClusterConfig::of(3, "line", Durability::Sync));
        check.on_snapshots(0, Slot(9), Slot(9));
        assert!(check.on_covered(0, Slot(5), &members).is_err(), "nobody else has one");
        check.on_snapshots(1, Slot(5), Slot(5));
        check.on_covered(0, Slot(5), &members).unwrap();
        assert!(check.on_covered(0, Slot(6), &members).is_err());
        check.on_cut(0, Slot(9)).unwrap();
        assert!(check.on_cut(2, Slot(5)).is_err(), "it has none itself");
        assert!(check.on_mark(2, Slot(1)).is_err());
        check.on_mark(1, Slot(5)).unwrap();
    }
}
