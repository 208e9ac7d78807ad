//! Log lines that somebody outside can provoke at will: one a second at most, and how many were left out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Between two lines.
const EVERY: Duration = Duration::from_secs(1);

/// Lets one line a second through. One for each place that logs, as a `static`.
#[derive(Debug)]
pub struct Quiet(Mutex<State>);

#[derive(Debug)]
struct State {
    next: Option<Instant>,
    suppressed: u64,
}

impl Quiet {
    /// Nothing was said yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(State { next: None, suppressed: 0 }))
    }

    /// How many lines were left out since the last one, if it is time for one.
    pub fn may_speak(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.next.is_some_and(|next| now < next) {
            state.suppressed += 1;
            return None;
        }
        state.next = Some(now + EVERY);
        Some(std::mem::take(&mut state.suppressed))
    }
}

impl Default for Quiet {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_second_says_how_many_were_left_out() {
        let quiet = Quiet::new();
        assert_eq!(quiet.may_speak(), Some(0));
        for _ in 0..7 {
            assert_eq!(quiet.may_speak(), None);
        }
        tokio::time::advance(EVERY).await;
        assert_eq!(quiet.may_speak(), Some(7));
        tokio::time::advance(EVERY).await;
        assert_eq!(quiet.may_speak(), Some(0));
    }
}
