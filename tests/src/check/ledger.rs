//! What is known of each replica's journal from outside: every record it asked to persist, and how many are durable.
//!
//! It judges nothing; the checkers read it.

use mesh::ids::{Ballot, Lsn, Position, Slot};
use mesh::order::Record;
use mesh::wire::peer::Batch;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A batch by its content: equal batches have equal ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u32);

/// All batches seen in a run.
#[derive(Debug, Default)]
pub struct Values {
    by_pointer: BTreeMap<usize, ValueId>,
    by_hash: BTreeMap<u64, Vec<ValueId>>,
    batches: Vec<Arc<Batch>>,
    // Keeps the allocations behind `by_pointer` alive, so that no address is used twice.
    aliases: Vec<Arc<Batch>>,
}

impl Values {
    /// The id of a batch.
    pub fn id(&mut self, batch: &Arc<Batch>) -> ValueId {
        let pointer = Arc::as_ptr(batch) as usize;
        if let Some(id) = self.by_pointer.get(&pointer) {
            return *id;
        }
        let mut hasher = crate::sim::trace::TraceHasher::default();
        batch.hash(&mut hasher);
        let same = self.by_hash.entry(hasher.finish()).or_default();
        let known = same.iter().copied().find(|id| self.batches[id.0 as usize] == *batch);
        let id = known.unwrap_or_else(|| {
            let id = ValueId(u32::try_from(self.batches.len()).expect("fewer batches than 2^32 in a run"));
            self.batches.push(Arc::clone(batch));
            same.push(id);
            id
        });
        self.aliases.push(Arc::clone(batch));
        self.by_pointer.insert(pointer, id);
        id
    }

    /// The batch of an id.
    #[must_use]
    pub fn batch(&self, id: ValueId) -> &Arc<Batch> {
        &self.batches[id.0 as usize]
    }
}

/// A vote in a journal, or a fetched value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// The slot.
    pub slot: Slot,
    /// The ballot.
    pub ballot: Ballot,
    /// The value.
    pub value: ValueId,
    /// Where it stands in the journal: the first record is 1.
    pub place: usize,
    /// The highest promise that stands before it.
    pub promised_before: Ballot,
}

#[derive(Clone, Copy, Debug)]
enum Entry {
    Promised,
    Accepted(Vote),
    Decided(Slot),
    Silent(Position),
    Superseded,
}

/// One replica's journal.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Vec<Entry>,
    durable: usize,
    // Places of the votes of each slot, ascending.
    slots: BTreeMap<Slot, Vec<usize>>,
    promises: Vec<(usize, Ballot)>,
    decided: Slot,
    // So many of the first records were let go.
    cut: usize,
    // Lsn of the record before the first of this life.
    base: Option<u64>,
    base_place: usize,
}

/// The record did not carry the next number.
#[derive(Debug)]
pub struct NotConsecutive;

impl Ledger {
    /// A record that the replica asked to persist.
    ///
    /// # Errors
    /// If its number is not the next one.
    pub fn append(&mut self, lsn: Lsn, record: &Record, values: &mut Values) -> Result<(), NotConsecutive> {
        let base = *self.base.get_or_insert(lsn.0 - 1);
        if lsn.0 != base + (self.entries.len() - self.base_place) as u64 + 1 {
            return Err(NotConsecutive);
        }
        let place = self.entries.len() + 1;
        let entry = match record {
            Record::Promised { ballot } => {
                self.promises.push((place, (*ballot).max(self.promised())));
                Entry::Promised
            }
            Record::Accepted { slot, ballot, batch } => {
                self.slots.entry(*slot).or_default().push(place);
                let (value, promised_before) = (values.id(batch), self.promised());
                Entry::Accepted(Vote { slot: *slot, ballot: *ballot, value, place, promised_before })
            }
            Record::Decided { slot } | Record::Jumped { slot } => {
                self.decided = self.decided.max(*slot);
                Entry::Decided(*slot)
            }
            Record::Silent { at } => Entry::Silent(*at),
            // The latter is an operator's, who is not simulated.
            Record::Superseded | Record::Restarted { .. } => Entry::Superseded,
        };
        self.entries.push(entry);
        Ok(())
    }

    /// Everything up to `lsn` is durable. Returns the votes that became so.
    pub fn persisted(&mut self, lsn: Lsn) -> Vec<Vote> {
        let Some(base) = self.base else { return Vec::new() };
        let upto = (self.base_place + lsn.0.saturating_sub(base) as usize).min(self.entries.len());
        let from = self.durable.min(upto);
        self.durable = upto.max(self.durable);
        let votes = self.entries[from..upto].iter();
        votes.filter_map(|entry| if let Entry::Accepted(vote) = entry { Some(*vote) } else { None }).collect()
    }

    /// The process ended and `keep` records are left; a new life begins. Returns the votes that survived although
    /// they were not known to be durable.
    pub fn restart(&mut self, keep: usize) -> Vec<Vote> {
        let keep = keep.max(self.cut);
        self.entries.truncate(keep);
        self.promises.retain(|(place, _)| *place <= keep);
        for places in self.slots.values_mut() {
            places.retain(|place| *place <= keep);
        }
        self.slots.retain(|_, places| !places.is_empty());
        let marks = self.entries.iter().filter_map(|e| if let Entry::Decided(slot) = e { Some(*slot) } else { None });
        self.decided = marks.max().unwrap_or_default();
        let from = self.durable.min(keep);
        self.durable = keep;
        self.base = None;
        self.base_place = keep;
        let votes = self.entries[from..].iter();
        votes.filter_map(|entry| if let Entry::Accepted(vote) = entry { Some(*vote) } else { None }).collect()
    }

    /// The first `records` of all were let go: what they say of slots is no longer there. Promises and marks are restated
    /// in what is left.
    pub fn cut(&mut self, records: usize) {
        self.cut = self.cut.max(records);
        for places in self.slots.values_mut() {
            places.retain(|place| *place > records);
        }
        self.slots.retain(|_, places| !places.is_empty());
    }

    /// Whether a statement of silence on this request is durable.
    #[must_use]
    pub fn silent_durably(&self, at: Position) -> bool {
        self.entries[..self.durable].iter().any(|entry| matches!(entry, Entry::Silent(stated) if *stated == at))
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The highest promise, durable or not.
    #[must_use]
    pub fn promised(&self) -> Ballot {
        self.promises.last().map_or(Ballot::NONE, |(_, ballot)| *ballot)
    }

    /// The highest durable promise.
    #[must_use]
    pub fn promised_durably(&self) -> Ballot {
        let durable = self.promises.partition_point(|(place, _)| *place <= self.durable);
        durable.checked_sub(1).map_or(Ballot::NONE, |index| self.promises[index].1)
    }

    /// The decided mark.
    #[must_use]
    pub fn decided(&self) -> Slot {
        self.decided
    }

    fn vote_at(&self, place: usize) -> Option<Vote> {
        match self.entries.get(place.checked_sub(1)?) {
            Some(Entry::Accepted(vote)) => Some(*vote),
            _ => None,
        }
    }

    /// The last value of a slot, durable or not.
    #[must_use]
    pub fn last(&self, slot: Slot) -> Option<Vote> {
        self.slots.get(&slot)?.last().and_then(|place| self.vote_at(*place))
    }

    /// The last durable value of a slot.
    #[must_use]
    pub fn last_durable(&self, slot: Slot) -> Option<Vote> {
        self.slots.get(&slot)?.iter().rev().find(|place| **place <= self.durable).and_then(|place| self.vote_at(*place))
    }

    /// The durable record of a slot in exactly this ballot, the newest one.
    #[must_use]
    pub fn durable_in(&self, slot: Slot, ballot: Ballot) -> Option<Vote> {
        let places = self.slots.get(&slot)?;
        let durable = places.iter().rev().filter(|place| **place <= self.durable);
        durable.filter_map(|place| self.vote_at(*place)).find(|vote| vote.ballot == ballot)
    }

    /// The last durable value of every slot above `slot`.
    pub fn durable_above(&self, slot: Slot) -> impl Iterator<Item = Vote> + '_ {
        self.slots.range(slot.next()..).filter_map(|(slot, _)| self.last_durable(*slot))
    }
}
