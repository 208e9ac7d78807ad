//! The retry budget: resends are a bounded share of the requests, so that a slow cluster is not drowned by its own
//! clients' retries (the idea is Finagle's `RetryBudget`).

use crate::time::Instant;

/// What one resend costs.
const COST: u64 = 1000;
/// What each first attempt earns: one resend for five requests.
const EARNED: u64 = 200;
/// Resends of each second that need not be earned, so that a quiet client can resend at all.
const FREE: u64 = 10;
/// Resends that are usually saved up at most: those of everything that waits for one SMaRtClient.
pub const SAVED: u32 = 1000;

/// A bucket of resends.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    tokens: u64,
    most: u64,
    filled: Instant,
}

impl Budget {
    /// A full one: whoever begins beside a SMaRtClient that does not answer may resend everything once.
    pub(super) fn new(saved: u32) -> Self {
        let most = u64::from(saved.max(1)) * COST;
        Self { tokens: most, most, filled: Instant::ZERO }
    }

    /// A request was sent for the first time.
    pub(super) fn earn(&mut self) {
        self.tokens = (self.tokens + EARNED).min(self.most);
    }

    /// Whether a resend may be made now.
    pub(super) fn spend(&mut self, now: Instant) -> bool {
        let nanos = u64::try_from(now.since(self.filled).as_nanos()).unwrap_or(u64::MAX);
        let free = nanos.saturating_mul(FREE) / (1_000_000_000 / COST);
        if free > 0 {
            self.filled = now;
            self.tokens = self.tokens.saturating_add(free).min(self.most);
        }
        let may = self.tokens >= COST;
        if may {
            self.tokens -= COST;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn spent(budget: &mut Budget, now: Instant) -> u64 {
        (0..u64::from(SAVED) * 2).filter(|_| budget.spend(now)).count() as u64
    }

    #[test]
    fn what_is_saved_is_spent_and_then_a_fifth_of_the_requests_may_be_resent() {
        let mut budget = Budget::new(SAVED);
        assert_eq!(spent(&mut budget, at(0)), u64::from(SAVED));
        for _ in 0..100 {
            budget.earn();
        }
        assert_eq!(spent(&mut budget, at(0)), 20);
    }

    #[test]
    fn a_quiet_client_gets_a_few_each_second_and_saves_no_more_than_the_bound() {
        let mut budget = Budget::new(SAVED);
        spent(&mut budget, at(0));
        assert_eq!(spent(&mut budget, at(1000)), FREE);
        assert_eq!(spent(&mut budget, at(1000 + 1000 / FREE)), 1);
        assert_eq!(spent(&mut budget, at(100_000_000)), u64::from(SAVED));
    }
}
