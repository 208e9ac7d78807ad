//! Would a request succeed? The verdict over all looks.

use super::observe::Look;
use super::plan::PartPlan;
use super::state::Role;
use mesh::quorum::majority;
use std::time::Duration;
use tokio::time::Instant;

/// When only a majority is ready, this long is waited for the others.
const STRAGGLERS: Duration = Duration::from_secs(10);

/// What was seen so far.
#[derive(Debug)]
pub(crate) struct Readiness {
    parts: Vec<(Role, String, bool)>,
    enough_since: Option<Instant>,
}

impl Readiness {
    /// Nothing was seen yet.
    pub(crate) fn new(parts: &[PartPlan]) -> Self {
        Self { parts: parts.iter().map(|part| (part.role, part.name(), false)).collect(), enough_since: None }
    }

    /// Takes a look into account.
    pub(crate) fn note(&mut self, look: &Look) {
        self.parts[look.index].2 = look.ready;
        let now = self.is_enough();
        self.enough_since = if now { self.enough_since.or_else(|| Some(Instant::now())) } else { None };
    }

    /// Whether a request would succeed now, with everybody there or having been waited for.
    pub(crate) fn verdict(&self) -> bool {
        self.missing().is_empty() || self.enough_since.is_some_and(|since| since.elapsed() >= STRAGGLERS)
    }

    /// Names of the parts that are not ready.
    pub(crate) fn missing(&self) -> Vec<&str> {
        self.parts.iter().filter(|(_, _, ready)| !ready).map(|(_, name, _)| name.as_str()).collect()
    }

    fn is_enough(&self) -> bool {
        let count = |wanted: Role| self.parts.iter().filter(|(role, _, ready)| *role == wanted && *ready).count();
        let replicas = self.parts.iter().filter(|(role, _, _)| *role == Role::Sidecar).count();
        let between = self.parts.iter().any(|(role, _, _)| *role == Role::SmartClient);
        let asked = !between || count(Role::SmartClient) > 0;
        count(Role::Sidecar) >= majority(replicas) && asked && count(Role::Ingress) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readiness(ready: [bool; 5]) -> Readiness {
        use Role::{Ingress, Sidecar, SmartClient};
        let roles = [Sidecar, Sidecar, Sidecar, SmartClient, Ingress];
        let mut readiness = Readiness {
            parts: roles
                .iter()
                .enumerate()
                .map(|(id, role)| (*role, format!("{}-{id}", role.as_str()), false))
                .collect(),
            enough_since: None,
        };
        for (index, ready) in ready.into_iter().enumerate() {
            readiness.note(&Look { index, ready, app_pid: None });
        }
        readiness
    }

    #[test]
    fn when_all_are_ready_it_is_ready_at_once() {
        assert!(readiness([true; 5]).verdict());
    }

    #[tokio::test(start_paused = true)]
    async fn a_majority_is_enough_after_the_others_were_waited_for() {
        let readiness = readiness([true, false, true, true, true]);
        assert!(!readiness.verdict());
        assert_eq!(readiness.missing(), ["sidecar-1"]);
        tokio::time::advance(STRAGGLERS).await;
        assert!(readiness.verdict());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_majority_or_a_way_in_it_is_never_ready() {
        for ready in
            [[true, false, false, true, true], [true, true, true, false, true], [true, true, true, true, false]]
        {
            let readiness = readiness(ready);
            tokio::time::advance(10 * STRAGGLERS).await;
            assert!(!readiness.verdict(), "{ready:?}");
        }
    }
}
