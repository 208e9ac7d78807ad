//! Divergence (rule 31): who is called diverged did answer otherwise than the majority, so that a majority is never
//! quarantined; and at the end nobody is left with a state of wrong answers.

use super::membership::Membership;
use super::{Verdict, Violation};

const NAME: &str = "divergence";

/// Whose application answered otherwise than it should, since it began from a clean state.
#[derive(Debug)]
pub struct Divergence {
    tainted: Vec<bool>,
}

impl Divergence {
    /// For `n` replicas.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self { tainted: vec![false; n] }
    }

    /// Whether replica `who`'s application holds anything of a wrong answer.
    pub fn on_state(&mut self, who: usize, tainted: bool) {
        self.tainted[who] = tainted;
    }

    /// Replica `who` finds that its application differs from the majority.
    ///
    /// # Errors
    /// If it does not.
    pub fn on_diverged(&self, who: usize) -> Verdict {
        if self.tainted[who] {
            return Ok(());
        }
        Violation::raise(NAME, format!("replica {who} calls its application diverged: it answered as the model does"))
    }

    /// A replica finds no majority that agrees.
    ///
    /// # Errors
    /// If there is one.
    pub fn on_no_agreement(&self, who: usize, membership: &Membership) -> Verdict {
        let all = membership.current().applications().count();
        let agree = membership.current().applications().filter(|who| !self.tainted[*who]).count();
        if agree < mesh::quorum::majority(all) {
            return Ok(());
        }
        Violation::raise(NAME, format!("replica {who} finds no majority that agrees; {agree} answered as the model"))
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

    #[test]
    fn wrong_verdicts_are_caught_in_either_direction() {
        let mut check = Divergence::new(3);
        let members = Membership::new(3, &ClusterConfig::of(3, "line", Durability::Sync));
        check.at_end(&members).unwrap();
        assert!(check.on_diverged(1).is_err());
        assert!(check.on_no_agreement(0, &members).is_err());
        check.on_state(1, true);
        check.on_diverged(1).unwrap();
        assert!(check.on_no_agreement(0, &members).is_err());
        assert!(check.at_end(&members).is_err());
        check.on_state(2, true);
        check.on_no_agreement(0, &members).unwrap();
    }
}
