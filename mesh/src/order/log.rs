//! The log: for each slot the value accepted last, whether it is decided, and what its admission said.

use super::image::Work;
use crate::ids::{Ballot, ClientId, Digest, Lsn, Opening, Slot};
use crate::limits::REQUEST_ENVELOPE_BYTES;
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
    /// The rolling hash of all replies up to it, as the application's last run that came by gave them.
    pub digest: Digest,
}

/// What of a slot is executed: a function of the log up to it, kept so that a replay needs no old session table.
#[derive(Clone, Debug, Default)]
pub(super) struct Admission {
    /// The effective time, Unix time in ns (rule 7).
    pub time: u64,
    /// What was ordered up to it.
    pub work: Work,
    /// The calls of the batch that are not executed, by their place in it, ascending: doubles, gaps, aborted ones.
    pub skipped: Vec<u32>,
    /// Sessions that ended in this slot.
    pub ended: Box<[(ClientId, Opening)]>,
}

/// The entries that are kept, and the decided mark.
#[derive(Clone, Debug)]
pub(super) struct Log {
    entries: BTreeMap<Slot, Entry>,
    /// Every slot from here to the decided mark is here.
    first: Slot,
    /// Those from here on went through the session table here, so that they can be replayed.
    replayable: Slot,
    decided: Slot,
    /// What the entries take, about.
    bytes: u64,
}

fn size(batch: &Batch) -> u64 {
    (batch.body_bytes() + batch.requests.len() * REQUEST_ENVELOPE_BYTES + 64) as u64
}

impl Log {
    /// An empty log behind a snapshot of `slot`, or a new one with slot 0.
    pub(super) fn after(slot: Slot) -> Self {
        Self { entries: BTreeMap::new(), first: slot.next(), replayable: slot.next(), decided: slot, bytes: 0 }
    }

    /// Every slot up to here is decided, and here or cut.
    pub(super) fn decided(&self) -> Slot {
        self.decided
    }

    /// The first slot kept.
    pub(super) fn first(&self) -> Slot {
        self.first
    }

    /// The first slot that can be replayed: what is kept below it only serves others.
    pub(super) fn replayable(&self) -> Slot {
        self.replayable
    }

    /// The last slot that may be cut so that of the slots up to `limit` as many are kept, and as many bytes, as the tail
    /// may have.
    pub(super) fn cut_below_tail(&self, limit: Slot, slots: u64, bytes: u64) -> Slot {
        let mut left = bytes;
        let tail = self.entries.range(self.first..=limit.max(self.first)).rev().take_while(|(_, entry)| {
            let size = size(&entry.batch);
            let fits = left >= size;
            left = left.saturating_sub(size);
            fits
        });
        let kept = tail.take(usize::try_from(slots).unwrap_or(usize::MAX)).last().map(|(slot, _)| *slot);
        kept.unwrap_or_else(|| limit.next()).previous()
    }

    /// The last slot with a value.
    pub(super) fn last(&self) -> Slot {
        self.entries.last_key_value().map_or(self.decided, |(slot, _)| *slot)
    }

    /// What the entries take, about.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(&slot)
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.entries.get_mut(&slot)
    }

    /// Takes a value for a slot above the decided mark; a decided slot stays decided.
    pub(super) fn put(&mut self, slot: Slot, ballot: Ballot, batch: Arc<Batch>, lsn: Lsn) {
        assert!(slot > self.decided, "a decided slot is never written again");
        let decided = self.entries.get(&slot).is_some_and(|entry| entry.decided);
        self.insert(
            slot,
            Entry { ballot, batch, lsn, decided, admission: Admission::default(), digest: Digest::default() },
        );
    }

    /// Takes decided values at or below the decided mark, for those who are a little late: as far down as they go
    /// without a gap.
    pub(super) fn put_tail(&mut self, mut below: BTreeMap<Slot, (Ballot, Arc<Batch>)>) {
        while let Some((ballot, batch)) = below.remove(&self.first.previous()) {
            self.first = self.first.previous();
            let (admission, digest) = (Admission::default(), Digest::default());
            self.insert(self.first, Entry { ballot, batch, lsn: Lsn(0), decided: true, admission, digest });
        }
    }

    fn insert(&mut self, slot: Slot, entry: Entry) {
        self.bytes += size(&entry.batch);
        if let Some(old) = self.entries.insert(slot, entry) {
            self.bytes -= size(&old.batch);
        }
    }

    /// Lets go of every slot up to `through`, which is decided.
    pub(super) fn cut(&mut self, through: Slot) {
        assert!(through <= self.decided, "what is not decided is not cut");
        let kept = self.entries.split_off(&through.next());
        let gone = std::mem::replace(&mut self.entries, kept);
        self.bytes -= gone.values().map(|entry| size(&entry.batch)).sum::<u64>();
        self.first = self.first.max(through.next());
        self.replayable = self.replayable.max(self.first);
    }

    /// Goes on behind a snapshot of a slot that was not reached here.
    pub(super) fn jump(&mut self, to: Slot) {
        assert!(to > self.decided);
        self.decided = to;
        self.cut(to);
    }

    /// Goes on behind an earlier slot; what is decided stays so.
    pub(super) fn go_back(&mut self, to: Slot) {
        assert!(self.first <= to.next() && to <= self.decided);
        self.decided = to;
        self.replayable = to.next();
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

    /// The entries above `mark`.
    pub(super) fn above(&self, mark: Slot) -> impl Iterator<Item = (Slot, &Entry)> {
        self.entries.range(mark.next()..).map(|(slot, entry)| (*slot, entry))
    }

    /// The entries above the decided mark.
    pub(super) fn above_decided(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        self.above(self.decided)
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
}
