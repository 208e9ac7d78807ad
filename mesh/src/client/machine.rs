//! What the protocols of this side have in common, so that one loop can drive each.

use super::{Sender, SmartClient, sender, smart_client};
use crate::time::Instant;

/// A pure protocol state machine.
pub trait Machine {
    /// What happens to it.
    type Input;
    /// What it wants done.
    type Output;
    /// The only door in.
    fn step(&mut self, now: Instant, input: Self::Input, out: &mut Vec<Self::Output>);
    /// When it wants [`Machine::timeout`].
    fn deadline(&self) -> Option<Instant>;
    /// The input for a deadline that passed.
    fn timeout() -> Self::Input;
}

impl Machine for Sender {
    type Input = sender::Input;
    type Output = sender::Output;
    fn step(&mut self, now: Instant, input: Self::Input, out: &mut Vec<Self::Output>) {
        Self::step(self, now, input, out);
    }
    fn deadline(&self) -> Option<Instant> {
        Self::deadline(self)
    }
    fn timeout() -> Self::Input {
        sender::Input::Timeout
    }
}

impl Machine for SmartClient {
    type Input = smart_client::Input;
    type Output = smart_client::Output;
    fn step(&mut self, now: Instant, input: Self::Input, out: &mut Vec<Self::Output>) {
        Self::step(self, now, input, out);
    }
    fn deadline(&self) -> Option<Instant> {
        Self::deadline(self)
    }
    fn timeout() -> Self::Input {
        smart_client::Input::Timeout
    }
}
