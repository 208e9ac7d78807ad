//! A replica's disk: records are written in groups, each synced before the next is begun, into segments. A crash takes
//! what was not synced, or leaves a torn piece of it; rot damages what was.

use mesh::config::Durability;
use mesh::ids::{Ballot, Lsn, Position, Slot};
use mesh::order::{self, Record};
use mesh::rng::Rng;
use mesh::time::Duration;
use std::collections::VecDeque;

/// How slow disks are, and how often they fail.
#[derive(Clone, Copy, Debug)]
pub struct DiskFaults {
    /// One sync, at most.
    pub sync_max: Duration,
    /// Of 1,000 syncs, so many take up to `slow_max`.
    pub slow: u32,
    /// One slow sync, at most.
    pub slow_max: Duration,
    /// Of 1,000 syncs, so many fail.
    pub failing: u32,
    /// Of 1,000 snapshots, so many cannot be stored.
    pub failing_snapshots: u32,
}

impl DiskFaults {
    /// A disk that works.
    #[must_use]
    pub fn healed() -> Self {
        Self { sync_max: Duration::from_millis(1), slow: 0, slow_max: Duration::ZERO, failing: 0, failing_snapshots: 0 }
    }
}

/// What a start finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Every promise and vote that was ever sent.
    Whole,
    /// So it is, now that the torn end was cut.
    Torn,
    /// It must not be voted with.
    Unusable,
}

/// What one sync made durable.
#[derive(Debug)]
struct Group {
    records: Vec<Record>,
    rotten: bool,
}

#[derive(Debug, Default)]
struct Segment {
    number: u64,
    groups: Vec<Group>,
}

impl Segment {
    fn records(&self) -> usize {
        self.groups.iter().map(|group| group.records.len()).sum()
    }

    /// Groups before the first one that does not check out.
    fn sound(&self) -> usize {
        self.groups.iter().position(|group| group.rotten).unwrap_or(self.groups.len())
    }
}

/// What of the segments that were let go is restated.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    promised: Ballot,
    decided: Slot,
    silent: Position,
    jumped: Slot,
    superseded: bool,
}

/// One journal.
#[derive(Debug)]
pub struct Disk {
    durability: Durability,
    segment_records: usize,
    head: Head,
    segments: VecDeque<Segment>,
    // Under way to the disk, and behind that.
    writing: Vec<Record>,
    waiting: Vec<Record>,
    syncing: bool,
    // A piece of a group that did not get there whole.
    torn: bool,
    // Nobody knows what of it was written.
    forgotten: bool,
    // Records that ever were durable here, those that were let go included; and only those.
    durable: usize,
    let_go: usize,
    // The number of the record before the first, and how many were durable, in this life of the process.
    before: Option<u64>,
    base: usize,
}

impl Disk {
    /// An empty journal with segments of so many records.
    #[must_use]
    pub fn new(durability: Durability, segment_records: usize) -> Self {
        Self {
            durability,
            segment_records,
            head: Head::default(),
            segments: VecDeque::new(),
            writing: Vec::new(),
            waiting: Vec::new(),
            syncing: false,
            torn: false,
            forgotten: false,
            durable: 0,
            let_go: 0,
            before: None,
            base: 0,
        }
    }

    /// An empty journal like this one.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self::new(self.durability, self.segment_records)
    }

    /// Writes a record. True if a sync must be started.
    pub fn append(&mut self, lsn: Lsn, record: Record) -> bool {
        self.before.get_or_insert(lsn.0 - 1);
        self.waiting.push(record);
        !std::mem::replace(&mut self.syncing, true)
    }

    /// Starts a sync: how far it reaches, and how long it takes.
    pub fn sync(&mut self, faults: &DiskFaults, rng: &mut Rng) -> (Lsn, Duration) {
        self.writing = std::mem::take(&mut self.waiting);
        let upto = Lsn(self.before.unwrap_or(0) + (self.durable - self.base + self.writing.len()) as u64);
        let duration = match self.durability {
            Durability::Sync if rng.chance(faults.slow) => rng.duration(faults.slow_max),
            Durability::Sync => rng.duration(faults.sync_max),
            Durability::Async | Durability::Memory => Duration::ZERO,
        };
        (upto, duration)
    }

    /// The sync is done. True if another one must be started for what came meanwhile.
    pub fn synced(&mut self) -> bool {
        let records = std::mem::take(&mut self.writing);
        self.store(records);
        self.syncing = !self.waiting.is_empty();
        self.syncing
    }

    fn store(&mut self, records: Vec<Record>) {
        let full = self.segments.back().is_none_or(|segment| segment.records() >= self.segment_records);
        if full {
            let number = self.segments.back().map_or(1, |segment| segment.number + 1);
            self.segments.push_back(Segment { number, groups: Vec::new() });
        }
        self.durable += records.len();
        if let Some(segment) = self.segments.back_mut() {
            segment.groups.push(Group { records, rotten: false });
        }
    }

    /// Records that were ever asked for.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.durable + self.writing.len() + self.waiting.len()
    }

    /// Of those durable, those that were let go included.
    #[must_use]
    pub fn durable(&self) -> usize {
        self.durable
    }

    /// The process ends; `power` takes the machine's memory with it. Returns how many records are left, of all there ever
    /// were, and how many are lost.
    pub fn crash(&mut self, power: bool, rng: &mut Rng) -> (usize, usize) {
        let asked = self.asked();
        let writing = std::mem::take(&mut self.writing);
        // Written and not synced: it is there, or not, or a piece of it, which is nothing.
        match rng.below(3) {
            0 if !writing.is_empty() => self.store(writing),
            1 => self.torn = !writing.is_empty(),
            _ => {}
        }
        self.waiting.clear();
        self.forgotten |= self.forgets(power);
        self.syncing = false;
        self.before = None;
        self.base = self.durable;
        (self.durable, asked - self.durable)
    }

    /// Whether a crash of this kind makes the member forget its votes.
    #[must_use]
    pub fn forgets(&self, power: bool) -> bool {
        match self.durability {
            Durability::Sync => false,
            Durability::Async => power,
            Durability::Memory => true,
        }
    }

    /// A sector rots that the last sync did not write. False if there is none.
    pub fn rot(&mut self, rng: &mut Rng) -> bool {
        let mut groups: Vec<&mut Group> = self.segments.iter_mut().flat_map(|segment| &mut segment.groups).collect();
        groups.pop();
        let index = rng.below(groups.len() as u64) as usize;
        match groups.get_mut(index) {
            Some(group) => {
                group.rotten = true;
                true
            }
            None => false,
        }
    }

    /// Whether the next start finds that it must not be voted with.
    #[must_use]
    pub fn is_spoiled(&self) -> bool {
        self.forgotten || self.segments.iter().any(|segment| segment.sound() < segment.groups.len())
    }

    /// Lets segments go whose votes are all of slots up to `through`; never the last. Returns how many records are gone.
    pub fn cut(&mut self, through: Slot) -> usize {
        let covered = |record: &Record| !matches!(record, Record::Accepted { slot, .. } if *slot > through);
        while self.segments.len() > 1
            && self.segments[0].groups.iter().all(|group| !group.rotten && group.records.iter().all(covered))
        {
            let Some(segment) = self.segments.pop_front() else { break };
            self.let_go += segment.records();
            for record in segment.groups.into_iter().flat_map(|group| group.records) {
                self.restate(&record);
            }
        }
        self.let_go
    }

    fn restate(&mut self, record: &Record) {
        let head = &mut self.head;
        match record {
            Record::Promised { ballot } => head.promised = head.promised.max(*ballot),
            Record::Accepted { ballot, .. } => head.promised = head.promised.max(*ballot),
            Record::Decided { slot } => head.decided = head.decided.max(*slot),
            Record::Silent { at } => head.silent = *at,
            Record::Jumped { slot } => head.jumped = head.jumped.max(*slot),
            Record::Superseded => head.superseded = true,
            // An operator's, who is not simulated.
            Record::Restarted { .. } => {}
        }
    }

    /// What a start finds; a torn end is cut.
    pub fn judge(&mut self) -> Found {
        // A journal is made before its member takes part: without a record it is one that is whole.
        if self.segments.is_empty() && !self.forgotten {
            self.torn = false;
            return Found::Whole;
        }
        match order::judge(&self.scan()) {
            order::Verdict::Whole => Found::Whole,
            order::Verdict::Torn { segment } => {
                self.cut_torn(segment);
                Found::Torn
            }
            order::Verdict::Forgotten | order::Verdict::Damaged { .. } => Found::Unusable,
        }
    }

    /// Whether the next start finds that it must not be voted with. Changes nothing.
    #[must_use]
    pub fn judge_is_unusable(&self) -> bool {
        let empty = self.segments.is_empty() && !self.forgotten;
        !empty && matches!(order::judge(&self.scan()), order::Verdict::Forgotten | order::Verdict::Damaged { .. })
    }

    fn scan(&self) -> order::Scan {
        let mut before = self.let_go as u64;
        let mut segments = Vec::new();
        for (at, segment) in (1..).zip(&self.segments) {
            let (groups, sound) = (segment.groups.len(), segment.sound());
            let behind = match groups - sound {
                0 if at == self.segments.len() && self.torn => order::Behind::Remains,
                0 => order::Behind::Nothing,
                1 => order::Behind::Remains,
                _ => order::Behind::More,
            };
            let end = segment.number * 1000 + sound as u64;
            let head = (sound > 0).then_some(before);
            segments.push(order::Segment { number: segment.number, header: true, head, end, behind });
            before = segment.number * 1000 + groups as u64;
        }
        order::Scan { segments, forgotten: self.forgotten }
    }

    fn cut_torn(&mut self, number: u64) {
        self.torn = false;
        self.segments.retain(|segment| segment.number <= number);
        if let Some(last) = self.segments.back_mut() {
            last.groups.truncate(last.sound());
        }
        self.durable = self.let_go + self.segments.iter().map(Segment::records).sum::<usize>();
        self.base = self.durable;
    }

    /// Every record, as a start reads them.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let Head { promised, decided, silent, jumped, superseded } = self.head;
        let head = [
            Record::Promised { ballot: promised },
            Record::Decided { slot: decided },
            Record::Silent { at: silent },
            Record::Jumped { slot: jumped },
        ];
        let head = head.into_iter().chain(superseded.then_some(Record::Superseded));
        let head = head.take(if self.let_go > 0 { usize::MAX } else { 0 });
        let groups = self.segments.iter().flat_map(|segment| &segment.groups);
        head.chain(groups.flat_map(|group| group.records.iter().cloned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(slot: u64) -> Record {
        Record::Accepted { slot: Slot(slot), ballot: Ballot::NONE, batch: std::sync::Arc::default() }
    }

    fn filled(groups: u64) -> Disk {
        let mut disk = Disk::new(Durability::Sync, 2);
        for slot in 1..=groups {
            assert!(disk.append(Lsn(slot), record(slot)));
            disk.sync(&DiskFaults::healed(), &mut Rng::from_seed(1));
            disk.synced();
        }
        disk
    }

    #[test]
    fn a_crash_takes_only_what_was_not_synced() {
        let mut rng = Rng::from_seed(1);
        let mut torn = 0;
        for _ in 0..100 {
            let mut disk = filled(1);
            assert!(disk.append(Lsn(2), record(2)));
            assert_eq!(disk.sync(&DiskFaults::healed(), &mut rng).0, Lsn(2));
            assert!(!disk.append(Lsn(3), record(3)), "it waits for another sync");
            let (left, lost) = disk.crash(true, &mut rng);
            assert!((1..=2).contains(&left) && left + lost == 3);
            torn += u32::from(disk.judge() == Found::Torn);
            assert_eq!(disk.judge(), Found::Whole);
            assert_eq!(disk.records().count(), left);
            assert!(disk.append(Lsn(1), record(3)), "the next life numbers from its own beginning");
            assert_eq!(disk.sync(&DiskFaults::healed(), &mut rng).0, Lsn(1));
        }
        assert!(torn > 0);
    }

    #[test]
    fn what_is_not_synced_in_memory_or_async_mode_must_not_be_voted_with_after_a_power_cut() {
        let found = |durability, power| {
            let mut disk = Disk::new(durability, 2);
            disk.append(Lsn(1), record(1));
            disk.sync(&DiskFaults::healed(), &mut Rng::from_seed(1));
            disk.synced();
            disk.crash(power, &mut Rng::from_seed(1));
            disk.judge()
        };
        assert_eq!(found(Durability::Memory, false), Found::Unusable);
        assert_eq!(found(Durability::Async, false), Found::Whole);
        assert_eq!(found(Durability::Async, true), Found::Unusable);
    }

    #[test]
    fn rot_hits_anything_but_the_last_group_and_is_found() {
        assert!(!filled(1).rot(&mut Rng::from_seed(1)));
        for seed in 0..20 {
            let mut disk = filled(3);
            assert!(disk.rot(&mut Rng::from_seed(seed)));
            assert_eq!(disk.judge(), Found::Unusable);
        }
    }

    #[test]
    fn covered_segments_go_and_what_they_said_is_restated() {
        let mut disk = filled(5);
        assert_eq!(disk.cut(Slot(3)), 2, "the second segment has slot 4");
        assert_eq!(disk.cut(Slot(9)), 4, "the last segment stays");
        assert_eq!(disk.records().count(), 5, "four records restate, one is left");
        assert_eq!(disk.durable(), 5);
    }
}
