//! Fuzzing on stable Rust: every decoder of bytes that somebody else wrote, and the cores that are fed with them.
//!
//! A [`Target`] is a function of bytes that panics when a property does not hold. The [`engine`] mutates inputs that were
//! valid, or reached something new before; what is new is told by the target itself ([`Seen`]: kinds of outcomes, lengths,
//! shapes), since there is no instrumentation. Everything follows from the seed. Each input is run under an allocator that
//! keeps the peak, because a decoder must not be made to allocate more than a multiple of what it was given.
//!
//! [`parent`] runs each target in a process of its own, so that an abort, a stack overflow or a hang is a finding too:
//! the input is in a file before it is run.

pub mod engine;
pub mod mutate;
pub mod parent;
pub mod targets;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;

/// Something to fuzz.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line, and the folder of its corpus.
    pub name: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    /// Inputs to begin with, made by the code itself where it can.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words that mean something to it.
    pub words: &'static [&'static [u8]],
    /// Bytes of one input at most.
    pub longest: usize,
    /// What it may allocate at one time.
    pub bound: Bound,
    /// Runs one input; panics when a property does not hold.
    pub run: fn(&[u8], &mut Seen),
}

/// Bytes that one input may have allocated at its peak.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// For each byte of the input.
    pub per_byte: usize,
    /// And whatever its length.
    pub base: usize,
}

impl Bound {
    /// The bound for an input of that length.
    #[must_use]
    pub const fn of(&self, length: usize) -> usize {
        self.base.saturating_add(self.per_byte.saturating_mul(length))
    }
}

/// What an input reached: the engine keeps inputs that reach what none did before.
#[derive(Debug, Default)]
pub struct Seen(Vec<u64>);

impl Seen {
    /// Notes something that tells inputs apart. Of few values, or everything is new for ever.
    pub fn note(&mut self, what: impl Hash) {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        self.0.push(hasher.finish());
    }

    /// Notes a length by its order of magnitude.
    pub fn length(&mut self, what: &str, length: usize) {
        self.note((what, length.checked_ilog2()));
    }

    /// Notes the shape of a value: its text without digits.
    pub fn shape(&mut self, what: &str, value: &dyn std::fmt::Debug) {
        let text = format!("{value:.0?}");
        let mut shape: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_digit()).take(160).collect();
        shape.dedup();
        self.note((what, shape));
    }

    /// Takes what was noted, and leaves nothing.
    pub fn take(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.0)
    }
}

/// A way to know what is allocated. Who runs the engine gives it, because only a whole program has an allocator.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    /// Sets the peak to what is allocated now, and returns that.
    pub reset: fn() -> usize,
    /// The peak since then.
    pub peak: fn() -> usize,
}

/// The folder with the corpora of all targets.
#[must_use]
pub fn corpus() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus"))
}

/// The directory for what targets write; whoever runs them removes it with [`remove_scratch`].
#[must_use]
pub fn scratch() -> PathBuf {
    scratch_of(std::process::id())
}

fn scratch_of(process: u32) -> PathBuf {
    // In memory, where there is such a place: what is synced there costs nothing.
    let memory = PathBuf::from("/dev/shm");
    let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
    place.join(format!("lockstep-fuzz-{process}"))
}

/// Removes what the targets of a process wrote.
pub fn remove_scratch(process: u32) {
    // There may be nothing.
    let _ = std::fs::remove_dir_all(scratch_of(process));
}
