//! What the driver wants of the current run, in its order; a new beginning overtakes everything.

use super::Command;
use super::worker::End;
use bytes::Bytes;
use mesh::ids::{ReadId, Run, Slot};
use mesh::order::{Image, Operation};
use std::collections::VecDeque;
use tokio::sync::mpsc;

/// What to do in a run.
#[derive(Debug)]
pub(super) enum Task {
    /// Execute a slot; the first `patient` calls without a time limit.
    Execute { slot: Slot, operations: Vec<Operation>, patient: usize },
    /// Answer reads.
    Read { read: ReadId, requests: Vec<Bytes> },
    /// Take a snapshot.
    Dump(Box<Image>),
}

/// How a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// In the initial state, with a snapshot loaded.
    Reset { run: Run, snapshot: Option<Slot> },
    /// With the application as it was found.
    Resume { run: Run },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Orders {
    commands: mpsc::Receiver<Command>,
    /// Taken while the application was busy. The core has few slots outstanding, so these are few.
    held: VecDeque<Task>,
    /// What an earlier process may have answered, if it was told.
    pub(super) answered: Option<Slot>,
}

/// A command, understood.
enum Taken {
    Begin(Begin),
    Task(Task),
    /// Of a run that is over, or nothing to do for one.
    Stale,
}

impl Orders {
    pub(super) const fn new(commands: mpsc::Receiver<Command>) -> Self {
        Self { commands, held: VecDeque::new(), answered: None }
    }

    /// Forgets the tasks of a run that is over.
    pub(super) fn forget(&mut self) {
        self.held.clear();
    }

    /// The next beginning; whatever else comes is of a run that is over. `None`: the driver is gone. Cancel safe.
    pub(super) async fn begin(&mut self) -> Option<Begin> {
        loop {
            let command = self.commands.recv().await?;
            if let Taken::Begin(begin) = self.take(command, None) {
                return Some(begin);
            }
        }
    }

    /// The next task. Cancel safe.
    pub(super) async fn next(&mut self, run: Run) -> Result<Task, End> {
        if let Some(task) = self.held.pop_front() {
            return Ok(task);
        }
        loop {
            let command = self.commands.recv().await.ok_or(End::Stopped)?;
            match self.take(command, Some(run)) {
                Taken::Begin(begin) => return Err(End::Begin(begin)),
                Taken::Task(task) => return Ok(task),
                Taken::Stale => {}
            }
        }
    }

    /// The next task if there is one.
    pub(super) fn try_next(&mut self, run: Run) -> Result<Option<Task>, End> {
        if let Some(task) = self.held.pop_front() {
            return Ok(Some(task));
        }
        while let Ok(command) = self.commands.try_recv() {
            match self.take(command, Some(run)) {
                Taken::Begin(begin) => return Err(End::Begin(begin)),
                Taken::Task(task) => return Ok(Some(task)),
                Taken::Stale => {}
            }
        }
        Ok(None)
    }

    /// Keeps the tasks that come, until the run is over by order. Cancel safe.
    pub(super) async fn watch(&mut self, run: Run) -> End {
        loop {
            let Some(command) = self.commands.recv().await else { return End::Stopped };
            match self.take(command, Some(run)) {
                Taken::Begin(begin) => return End::Begin(begin),
                Taken::Task(task) => self.held.push_back(task),
                Taken::Stale => {}
            }
        }
    }

    fn take(&mut self, command: Command, current: Option<Run>) -> Taken {
        match command {
            Command::Reset { run, snapshot } => Taken::Begin(Begin::Reset { run, snapshot }),
            Command::Resume { run } => Taken::Begin(Begin::Resume { run }),
            Command::Execute { run, slot, operations, patient } if Some(run) == current => {
                Taken::Task(Task::Execute { slot, operations, patient })
            }
            Command::Read { run, read, requests } if Some(run) == current => Taken::Task(Task::Read { read, requests }),
            Command::Dump { run, image } if Some(run) == current => Taken::Task(Task::Dump(image)),
            Command::Execute { .. } | Command::Read { .. } | Command::Dump { .. } => Taken::Stale,
            Command::Answered { through } => {
                self.answered = Some(through);
                Taken::Stale
            }
        }
    }
}
