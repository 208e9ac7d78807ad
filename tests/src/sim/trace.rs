//! What happened, for people (`--trace`) and as one number (the same seed gives the same number).

use super::clock::Time;
use std::fmt::Arguments;
use std::hash::{Hash, Hasher};

/// A hasher without a seed: the same on every machine and in every run.
#[derive(Clone, Debug, Default)]
pub struct TraceHasher(u64);

impl TraceHasher {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for TraceHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
        self.mix(bytes.len() as u64);
    }
    fn write_u8(&mut self, n: u8) {
        self.mix(u64::from(n));
    }
    fn write_u32(&mut self, n: u32) {
        self.mix(u64::from(n));
    }
    fn write_u64(&mut self, n: u64) {
        self.mix(n);
    }
    fn write_usize(&mut self, n: usize) {
        self.mix(n as u64);
    }
}

/// The trace of a run.
#[derive(Debug, Default)]
pub struct Trace {
    hasher: TraceHasher,
    printing: bool,
}

impl Trace {
    /// A trace that prints every step, or not.
    #[must_use]
    pub fn new(printing: bool) -> Self {
        Self { hasher: TraceHasher::default(), printing }
    }

    /// Takes something into the number.
    pub fn note(&mut self, what: &impl Hash) {
        what.hash(&mut self.hasher);
    }

    /// A line for people.
    pub fn line(&self, now: Time, line: Arguments<'_>) {
        if self.printing {
            println!("{now} {line}");
        }
    }

    /// The number of the run so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hasher.finish()
    }
}
