//! The log: for each slot the value accepted last, whether it is decided, and what its admission said.

use crate::ids::{Ballot, ClientId, Lsn, Slot};
use crate::wire::peer::Batch;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A slot's value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The highest ballot that the value was accepted in here (or in which a peer had the decided value).
    pub ballot: Ballot,
    /// The value.
    pub batch: Arc<Batch>,
    /// Its record in the journal.
    pub lsn: Lsn,
    /// Whether the value is known to be chosen.
    pub decided: bool,
    /// What the sessions said of it, once every slot before it was decided too.
    pub admission: Admission,
}

/// What of a slot is executed: a function of the log up to it, kept so that a replay needs no old session table.
#[derive(Clone, Debug, Default)]
pub(super) struct Admission {
    /// The effective time, Unix time in ns (rule 7).
    pub time: u64,
    /// The calls of the batch that are not executed, by their place in it, ascending: doubles and gaps.
    pub skipped: Box<[u32]>,
    /// Sessions that ended in this slot.
    pub ended: Box<[(ClientId, Slot)]>,
}

/// All entries, and the decided mark.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    entries: BTreeMap<Slot, Entry>,
    decided: Slot,
}

impl Log {
    /// Every slot up to here is decided and here.
    pub(super) fn decided(&self) -> Slot {
        self.decided
    }

    /// The first slot kept. The log is whole: nothing is cut yet.
    pub(super) fn first(&self) -> Slot {
        Slot(1)
    }

    /// The last slot with a value.
    pub(super) fn last(&self) -> Slot {
        self.entries.last_key_value().map_or(self.decided, |(slot, _)| *slot)
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(&slot)
    }

    /// Takes a value for a slot above the decided mark; a decided slot stays decided.
    pub(super) fn put(&mut self, slot: Slot, ballot: Ballot, batch: Arc<Batch>, lsn: Lsn) {
        assert!(slot > self.decided, "a decided slot is never written again");
        let decided = self.entries.get(&slot).is_some_and(|entry| entry.decided);
        let entry = Entry { ballot, batch, lsn, decided, admission: Admission::default() };
        self.entries.insert(slot, entry);
    }

    /// Marks a slot's value as chosen.
    pub(super) fn decide(&mut self, slot: Slot) {
        if let Some(entry) = self.entries.get_mut(&slot) {
            entry.decided = true;
        }
    }

    /// The slots above the decided mark up to `through`, mutably.
    pub(super) fn undecided_mut(&mut self, through: Slot) -> impl Iterator<Item = (Slot, &mut Entry)> {
        let range = self.decided.next()..=through.max(self.decided.next());
        self.entries.range_mut(range).map(|(slot, entry)| (*slot, entry))
    }

    /// The entries above the decided mark.
    pub(super) fn above_decided(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        self.entries.range(self.decided.next()..).map(|(slot, entry)| (*slot, entry))
    }

    /// The entries from `from` up to the decided mark.
    pub(super) fn decided_from(&self, from: Slot) -> impl Iterator<Item = &Entry> {
        let from = from.min(self.decided.next());
        self.entries.range(from..self.decided.next()).map(|(_, entry)| entry)
    }

    /// Moves the decided mark over the next slot if its value is chosen.
    pub(super) fn advance(&mut self) -> Option<(Slot, Arc<Batch>)> {
        let next = self.decided.next();
        let entry = self.entries.get(&next).filter(|entry| entry.decided)?;
        self.decided = next;
        Some((next, Arc::clone(&entry.batch)))
    }

    /// Keeps what the sessions said of a decided slot.
    pub(super) fn admit(&mut self, slot: Slot, admission: Admission) {
        if let Some(entry) = self.entries.get_mut(&slot) {
            entry.admission = admission;
        }
    }
}
