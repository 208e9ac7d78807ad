//! Divergence (rule 31): who is called diverged did answer otherwise than the majority, so that a majority is never
//! quarantined; and at the end nobody is left with a state of wrong answers.

use super::membership::{Configuration, Membership};
use super::{Verdict, Violation};
use mesh::ids::Slot;

const NAME: &str = "divergence";

/// Whose application answered otherwise than it should.
#[derive(Debug)]
pub struct Divergence {
    // Since it began from a clean state.
    tainted: Vec<bool>,
    // Since it began last: an application that dies takes its state along, and not what it had answered before.
    answered: Vec<bool>,
}

impl Divergence {
    /// For `n` replicas.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self { tainted: vec![false; n], answered: vec![false; n] }
    }

    /// Whether replica `who`'s application holds anything of a wrong answer.
    pub fn on_state(&mut self, who: usize, tainted: bool) {
        self.tainted[who] = tainted;
        self.answered[who] |= tainted;
    }

    /// Replica `who`'s application begins with a state: what it answered before counts no more.
    pub fn on_restored(&mut self, who: usize, tainted: bool) {
        self.answered[who] = tainted;
    }

    /// Replica `who` finds that its application differs from the majority.
    ///
    /// # Errors
    /// If it does not.
    pub fn on_diverged(&self, who: usize) -> Verdict {
        if self.answered[who] {
            return Ok(());
        }
        Violation::raise(NAME, format!("replica {who} calls its application diverged: it answered as the model does"))
    }

    /// A replica that has decided up to a slot finds no majority that agrees.
    ///
    /// # Errors
    /// If there is one in each configuration that it may count in: the newest may be decided without its knowledge.
    pub fn on_no_agreement(&self, (who, decided): (usize, Slot), membership: &Membership) -> Verdict {
        let clean = |configuration: &Configuration| {
            let applications: Vec<usize> = configuration.applications().collect();
            let agree = applications.iter().filter(|who| !self.tainted[**who]).count();
            agree >= mesh::quorum::majority(applications.len())
        };
        if !membership.from(decided).all(clean) {
            return Ok(());
        }
        Violation::raise(
            NAME,
            format!("replica {who} finds no majority that agrees: there is one that answers as the model"),
        )
    }

    /// After healing.
    ///
    /// # Errors
    /// If somebody was not rebuilt.
    pub fn at_end(&self, membership: &Membership) -> Verdict {
        match membership.current().applications().find(|who| self.tainted[*who]) {
            Some(who) => Violation::raise(NAME, format!("replica {who}'s application diverged and was not rebuilt")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::config::{ClusterConfig, Durability};
    use mesh::ids::{Epoch, ReplicaId};
    use mesh::wire::peer::Change;

    #[test]
    fn wrong_verdicts_are_caught_in_either_direction() {
        let mut check = Divergence::new(3);
        let mut members = Membership::new(3, &ClusterConfig::of(3, "line", Durability::Sync));
        let none =
            |check: &Divergence, decided, members: &Membership| check.on_no_agreement((0, Slot(decided)), members);
        check.at_end(&members).unwrap();
        assert!(check.on_diverged(1).is_err());
        assert!(none(&check, 0, &members).is_err());
        check.on_state(1, true);
        check.on_diverged(1).unwrap();
        assert!(none(&check, 0, &members).is_err());
        assert!(check.at_end(&members).is_err());
        check.on_state(2, true);
        none(&check, 0, &members).unwrap();
        check.on_state(2, false);
        check.on_diverged(2).unwrap();
        check.on_restored(2, false);
        assert!(check.on_diverged(2).is_err(), "it began anew since");
        assert!(none(&check, 0, &members).is_err());
        assert!(members.on_change(Slot(4), Epoch(0), &Change::Remove { member: ReplicaId(2) }));
        none(&check, 4, &members).unwrap();
        none(&check, 3, &members).unwrap();
    }
}
