//! The loop: take an input that was of use, change it, run it, keep it if it reached something new.

use super::{Meter, Seen, Target, corpus, mutate};
use mesh::rng::Rng;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Inputs that are kept at most; beyond, a new one takes the place of one drawn by chance.
const KEPT: usize = 4096;
/// Bytes that the process may have leaked before it is to be started anew.
const LEAKED: usize = 512 << 20;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct Until {
    /// After so many inputs.
    pub inputs: u64,
    /// After this time.
    pub time: Duration,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Inputs that were run.
    pub inputs: u64,
    /// Different things that they reached.
    pub reached: usize,
    /// Inputs that were kept.
    pub kept: usize,
    /// The most that one input allocated, in bytes.
    pub peak: usize,
    /// The slowest one.
    pub slowest: Duration,
    /// An input that allocated more than it may, and how much.
    pub greedy: Option<(Vec<u8>, usize)>,
    /// The process has grown so much that it is to be started anew.
    pub leaked: bool,
}

/// Whoever wants to know of each input before it is run, and of the progress after it.
pub trait Watch {
    /// It is run next.
    fn before(&mut self, input: &[u8]);
    /// So far.
    fn after(&mut self, run: &Run);
}

/// Nobody.
impl Watch for () {
    fn before(&mut self, _: &[u8]) {}
    fn after(&mut self, _: &Run) {}
}

struct Engine<'a> {
    target: &'a Target,
    meter: Meter,
    seen: Seen,
    reached: HashSet<u64>,
    pool: Vec<Vec<u8>>,
    run: Run,
}

/// Fuzzes a target. The same seed runs the same inputs.
///
/// # Panics
/// If a property of the target does not hold.
pub fn fuzz(target: &Target, seed: u64, until: Until, meter: Meter, watch: &mut dyn Watch) -> Run {
    let began = Instant::now();
    let mut rng = Rng::from_seed(seed ^ name_seed(target.name));
    let mut engine =
        Engine { target, meter, seen: Seen::default(), reached: HashSet::new(), pool: Vec::new(), run: Run::default() };
    let first = (engine.meter.reset)();
    for input in beginning(target) {
        engine.run_one(input, &mut rng, watch);
        if engine.run.greedy.is_some() {
            return engine.run;
        }
    }
    while engine.run.inputs < until.inputs && engine.run.greedy.is_none() {
        // Looking at the clock costs as much as a small input.
        if engine.run.inputs.is_multiple_of(16) && began.elapsed() >= until.time {
            break;
        }
        let mut input = engine.pick(&mut rng);
        let other = engine.pick(&mut rng);
        mutate::mutate(&mut rng, &mut input, &other, target.words, target.longest);
        engine.run_one(input, &mut rng, watch);
        if engine.run.inputs.is_multiple_of(1024) && (engine.meter.reset)().saturating_sub(first) > LEAKED {
            engine.run.leaked = true;
            break;
        }
    }
    engine.run
}

/// Runs one input, as the engine would. The bytes that it allocated at its peak.
pub fn replay(target: &Target, input: &[u8], meter: Meter) -> usize {
    let before = (meter.reset)();
    (target.run)(input, &mut Seen::default());
    (meter.peak)().saturating_sub(before)
}

/// The inputs to begin with: what the code makes, and what is in the corpus.
#[must_use]
pub fn beginning(target: &Target) -> Vec<Vec<u8>> {
    let mut inputs = (target.seeds)();
    inputs.push(Vec::new());
    let folder = corpus().join(target.name);
    let mut files: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    inputs.extend(files.into_iter().filter_map(|file| std::fs::read(file).ok()));
    inputs
}

impl Engine<'_> {
    fn pick(&self, rng: &mut Rng) -> Vec<u8> {
        // What was found last is looked at more closely.
        let late = self.pool.len().saturating_sub(64);
        let from = if rng.chance(400) { late } else { 0 };
        rng.choose(&self.pool[from..]).cloned().unwrap_or_default()
    }

    fn run_one(&mut self, input: Vec<u8>, rng: &mut Rng, watch: &mut dyn Watch) {
        watch.before(&input);
        let began = Instant::now();
        let before = (self.meter.reset)();
        (self.target.run)(&input, &mut self.seen);
        let peak = (self.meter.peak)().saturating_sub(before);
        self.run.slowest = self.run.slowest.max(began.elapsed());
        self.run.inputs += 1;
        self.run.peak = self.run.peak.max(peak);
        if peak > self.target.bound.of(input.len()) {
            self.run.greedy = Some((input, peak));
            return watch.after(&self.run);
        }
        let reached = &mut self.reached;
        let new = self.seen.take().into_iter().filter(|what| reached.insert(*what)).count() > 0;
        if new || self.pool.is_empty() {
            self.keep(input, rng);
        }
        self.run.reached = self.reached.len();
        self.run.kept = self.pool.len();
        watch.after(&self.run);
    }

    fn keep(&mut self, input: Vec<u8>, rng: &mut Rng) {
        if self.pool.len() < KEPT {
            self.pool.push(input);
        } else {
            let at = rng.below(self.pool.len() as u64) as usize;
            self.pool[at] = input;
        }
    }
}

/// So that targets do not run the same mutations.
fn name_seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
