//! The application beside each replica: a map that executes one slot after another, slowly at times, dies with all it
//! holds, and answers late.

use crate::check::model::Store;
use mesh::ids::{Digest, Run, Slot};
use mesh::order::{AppReply, Operation};
use mesh::rng::Rng;
use mesh::time::Duration;
use std::collections::VecDeque;

/// How slow applications are.
#[derive(Clone, Copy, Debug)]
pub struct AppFaults {
    /// One operation, at most.
    pub execute_max: Duration,
    /// Of 1,000 slots, so many take up to `slow_max`.
    pub slow: u32,
    /// One slow slot, at most.
    pub slow_max: Duration,
    /// A reset, at most.
    pub reset_max: Duration,
}

impl AppFaults {
    /// An application that works.
    #[must_use]
    pub fn healed() -> Self {
        Self {
            execute_max: Duration::from_micros(200),
            slow: 0,
            slow_max: Duration::ZERO,
            reset_max: Duration::from_millis(50),
        }
    }
}

/// A slot that waits for its execution.
#[derive(Debug)]
struct Waiting {
    run: Run,
    slot: Slot,
    operations: Vec<Operation>,
}

/// One application.
#[derive(Debug, Default)]
pub struct App {
    store: Store,
    queue: VecDeque<Waiting>,
    /// The run that the server asked for last.
    pub run: Run,
    /// Whether the reset that began it is done.
    pub running: bool,
    /// Counts what was begun and is no longer valid.
    pub life: u32,
}

impl App {
    /// The state.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Slots that wait.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.queue.len()
    }

    /// The server asks for a new run: nothing of the old one counts any more.
    pub fn reset(&mut self, run: Run) {
        self.life += 1;
        self.queue.clear();
        self.run = run;
        self.running = false;
    }

    /// The reset is done.
    pub fn restored(&mut self) {
        self.store = Store::default();
        self.running = true;
    }

    /// It dies: its state is gone.
    pub fn die(&mut self) -> Run {
        self.life += 1;
        self.queue.clear();
        self.running = false;
        self.store = Store::default();
        self.run
    }

    /// Takes a slot. True if nothing is being executed, so that this one begins.
    pub fn take(&mut self, run: Run, slot: Slot, operations: Vec<Operation>) -> bool {
        self.queue.push_back(Waiting { run, slot, operations });
        self.queue.len() == 1
    }

    /// How long the first slot takes.
    pub fn duration(&self, faults: &AppFaults, rng: &mut Rng) -> Option<Duration> {
        let first = self.queue.front()?;
        if rng.chance(faults.slow) {
            return Some(rng.duration(faults.slow_max));
        }
        Some(rng.duration(faults.execute_max) * u32::try_from(first.operations.len()).unwrap_or(u32::MAX))
    }

    /// Executes the first slot. `None` if there is none.
    pub fn execute(&mut self) -> Option<(Run, Slot, Vec<AppReply>, u64)> {
        let first = self.queue.pop_front()?;
        let (mut replies, mut ends) = (Vec::new(), 0);
        for operation in &first.operations {
            match operation {
                Operation::Call { bytes, .. } => {
                    let bytes = self.store.execute(bytes);
                    replies.push(AppReply { form: Digest::of(&bytes), bytes });
                }
                Operation::End { .. } => ends += 1,
            }
        }
        Some((first.run, first.slot, replies, ends))
    }

    /// The first slot that waits, which an old run may still answer.
    #[must_use]
    pub fn first(&self) -> Option<Slot> {
        self.queue.front().map(|waiting| waiting.slot)
    }
}
