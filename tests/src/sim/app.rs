//! The application beside each replica: a map that executes one slot after another, slowly at times, hangs, dies with
//! all it holds, answers late or wrongly.

use crate::check::model::Store;
use bytes::Bytes;
use mesh::ids::{Digest, ReadId, Run, Slot};
use mesh::order::{AppReply, Operation};
use mesh::time::Duration;
use std::collections::VecDeque;

/// How slow and how unsound applications are.
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
    /// A dump, at most.
    pub dump_max: Duration,
    /// How long a call may take until its application is called silent; without it none ever is.
    pub patience: Option<Duration>,
    /// Of 1,000 applications beside a process that ends, so many live on.
    pub outlives: u32,
}

impl AppFaults {
    /// An application that works, and those who wait for it as patient as before.
    #[must_use]
    pub fn healed(self) -> Self {
        Self {
            execute_max: Duration::from_micros(200),
            slow: 0,
            slow_max: Duration::ZERO,
            reset_max: Duration::from_millis(50),
            dump_max: Duration::from_millis(20),
            ..self
        }
    }
}

/// A slot that waits for its execution; or a read past the log, for its answer.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The run.
    pub run: Run,
    /// The slot; none of a read.
    pub slot: Slot,
    /// The read.
    pub read: Option<ReadId>,
    /// What to execute.
    pub operations: Vec<Operation>,
    /// So many calls have no time limit.
    pub patient: usize,
}

impl Waiting {
    /// The calls in it.
    pub fn calls(&self) -> impl Iterator<Item = &Bytes> {
        self.operations.iter().filter_map(|operation| match operation {
            Operation::Call { bytes, .. } => Some(bytes),
            Operation::End { .. } => None,
        })
    }
}

/// What was executed.
#[derive(Clone, Debug)]
pub struct Done {
    /// The run.
    pub run: Run,
    /// The slot.
    pub slot: Slot,
    /// Or the read.
    pub read: Option<ReadId>,
    /// One for each call.
    pub replies: Vec<AppReply>,
    /// Sessions that ended.
    pub ends: u64,
}

/// What an application executed, as its execution marker has it.
#[derive(Clone, Debug, Default)]
pub struct Marker {
    /// It began with the state after this slot.
    pub base: Slot,
    /// Every slot since, and its replies.
    pub outcomes: Vec<(Slot, Vec<AppReply>)>,
}

impl Marker {
    /// The last slot that was executed.
    #[must_use]
    pub fn executed(&self) -> Slot {
        self.outcomes.last().map_or(self.base, |(slot, _)| *slot)
    }
}

/// One application.
#[derive(Debug, Default)]
pub struct App {
    store: Store,
    queue: VecDeque<Waiting>,
    /// The run that the server asked for last.
    pub run: Run,
    /// Whether that run has begun and goes on.
    pub running: bool,
    /// The process is there, with its state.
    pub alive: bool,
    /// It is being dumped.
    pub dumping: bool,
    /// Counts what was begun and is no longer valid.
    pub life: u32,
    /// What it executed.
    pub marker: Marker,
    /// It answers wrongly from now on, until its next reset.
    pub wrong: bool,
    /// It did, and its state went wrong with that, or it began with a state of one that did.
    pub tainted: bool,
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
        self.queue.iter().filter(|waiting| waiting.read.is_none()).count()
    }

    /// Whether there is anything to do.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The server asks for a new run: nothing of the old one counts any more.
    pub fn reset(&mut self, run: Run) {
        self.die();
        self.run = run;
    }

    /// The reset is done: it begins with this state, after `slot`.
    pub fn restored(&mut self, slot: Slot, store: Store, tainted: bool) {
        self.store = store;
        self.marker = Marker { base: slot, outcomes: Vec::new() };
        (self.running, self.alive, self.wrong, self.tainted) = (true, true, false, tainted);
    }

    /// It is used on as it is.
    pub fn resumed(&mut self, run: Run) {
        (self.run, self.running) = (run, true);
    }

    /// The server's process ended, and it is left alone. True if it can be used on.
    pub fn is_left(&mut self) -> bool {
        let idle = self.alive && self.running && self.outstanding() == 0 && !self.dumping;
        self.queue.clear();
        self.running = false;
        self.life += 1;
        idle
    }

    /// It dies: its state is gone.
    pub fn die(&mut self) {
        let (run, life) = (self.run, self.life + 1);
        *self = Self { run, life, ..Self::default() };
    }

    /// Takes a slot. True if nothing is being executed, so that this one begins.
    pub fn take(&mut self, waiting: Waiting) -> bool {
        if !self.running || waiting.run != self.run {
            return false;
        }
        self.queue.push_back(waiting);
        self.queue.len() == 1
    }

    /// Executes the first slot. `None` if there is none.
    pub fn execute(&mut self) -> Option<Done> {
        let first = self.queue.pop_front()?;
        let mut replies = Vec::new();
        for bytes in first.calls() {
            let mut reply = self.store.execute(bytes);
            if self.wrong {
                reply = Bytes::from([b"WRONG ", reply.as_ref()].concat());
                // Its state goes wrong too. By a read it does not: then there is nothing that anybody could find.
                if first.read.is_none() {
                    self.store.0.insert(u64::MAX, first.slot.0);
                    self.tainted = true;
                }
            }
            replies.push(AppReply { form: Digest::of(&reply), bytes: reply });
        }
        if first.read.is_none() {
            self.marker.outcomes.push((first.slot, replies.clone()));
        }
        let ends = (first.operations.len() - replies.len()) as u64;
        let Waiting { run, slot, read, .. } = first;
        Some(Done { run, slot, read, replies, ends })
    }

    /// The first slot that waits.
    #[must_use]
    pub fn first(&self) -> Option<&Waiting> {
        self.queue.front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::model::{CallId, MapOp};

    fn put(slot: u64) -> Waiting {
        let bytes = MapOp::Put(slot, 1).encode(CallId(slot), 0);
        let operations = vec![Operation::Call { session: (mesh::ids::ClientId(1), mesh::ids::Opening::NONE), bytes }];
        Waiting { run: Run(1), slot: Slot(slot), read: None, operations, patient: 0 }
    }

    fn app() -> App {
        let mut app = App::default();
        app.reset(Run(1));
        assert!(!app.take(put(1)), "it is not up");
        app.restored(Slot(0), Store::default(), false);
        app
    }

    #[test]
    fn wrong_answers_taint_until_the_next_clean_state() {
        let mut app = app();
        app.wrong = true;
        assert!(!app.tainted && app.take(put(1)));
        app.execute();
        assert!(app.tainted);
        app.reset(Run(2));
        app.restored(Slot(0), Store::default(), false);
        assert!(!app.tainted && !app.wrong);
    }

    #[test]
    fn a_wrong_answer_to_a_read_leaves_the_state_right() {
        let mut app = app();
        app.wrong = true;
        assert!(app.take(Waiting { read: Some(ReadId(1)), ..put(1) }));
        let done = app.execute().expect("it was given");
        assert!(done.replies[0].bytes.starts_with(b"WRONG"));
        assert!(!app.tainted && !app.store().0.contains_key(&u64::MAX));
    }

    #[test]
    fn only_an_idle_application_is_used_on() {
        let mut idle = app();
        idle.take(put(3));
        idle.execute();
        assert_eq!(idle.marker.executed(), Slot(3));
        assert!(idle.is_left() && idle.store().0.len() == 1);
        let mut busy = app();
        busy.take(put(3));
        assert!(!busy.is_left());
    }
}
