//! A replica's disk: records are written in order and synced in groups; a crash takes what was not synced, or a part
//! of it.

use mesh::config::Durability;
use mesh::ids::Lsn;
use mesh::order::Record;
use mesh::rng::Rng;
use mesh::time::Duration;

/// How slow disks are.
#[derive(Clone, Copy, Debug)]
pub struct DiskFaults {
    /// One sync, at most.
    pub sync_max: Duration,
    /// Of 1,000 syncs, so many take up to `slow_max`.
    pub slow: u32,
    /// One slow sync, at most.
    pub slow_max: Duration,
}

impl DiskFaults {
    /// A disk that works.
    #[must_use]
    pub fn healed() -> Self {
        Self { sync_max: Duration::from_millis(1), slow: 0, slow_max: Duration::ZERO }
    }
}

/// One journal.
#[derive(Debug)]
pub struct Disk {
    durability: Durability,
    records: Vec<Record>,
    synced: usize,
    syncing: bool,
    // The number of the record before `records[base]`, in this life of the process.
    before: Option<u64>,
    base: usize,
}

impl Disk {
    /// An empty journal.
    #[must_use]
    pub fn new(durability: Durability) -> Self {
        Self { durability, records: Vec::new(), synced: 0, syncing: false, before: None, base: 0 }
    }

    /// Writes a record. True if a sync must be started.
    pub fn append(&mut self, lsn: Lsn, record: Record) -> bool {
        self.before.get_or_insert(lsn.0 - 1);
        self.records.push(record);
        !std::mem::replace(&mut self.syncing, true)
    }

    /// How far a sync that starts now reaches, and how long it takes.
    pub fn sync(&self, faults: &DiskFaults, rng: &mut Rng) -> (Lsn, Duration) {
        let upto = Lsn(self.before.unwrap_or(0) + (self.records.len() - self.base) as u64);
        let duration = match self.durability {
            Durability::Sync if rng.chance(faults.slow) => rng.duration(faults.slow_max),
            Durability::Sync => rng.duration(faults.sync_max),
            Durability::Async | Durability::Memory => Duration::ZERO,
        };
        (upto, duration)
    }

    /// A sync has reached `upto`. True if another one must be started for what came meanwhile.
    pub fn synced(&mut self, upto: Lsn) -> bool {
        let records = upto.0.saturating_sub(self.before.unwrap_or(0)) as usize;
        self.synced = self.synced.max(self.base + records);
        self.syncing = self.synced < self.records.len();
        self.syncing
    }

    /// The process ends; `power` takes the machine's memory with it. Returns how many records are left and how many
    /// are lost.
    pub fn crash(&mut self, power: bool, rng: &mut Rng) -> (usize, usize) {
        let all = self.records.len();
        let left = match (self.durability, power) {
            // Written and not synced: any part of it may have reached the disk; of the record where it ends a torn
            // piece, which is no record.
            (Durability::Sync, _) => self.synced + rng.below((all - self.synced) as u64 + 1) as usize,
            (Durability::Async, false) => all,
            (Durability::Async, true) | (Durability::Memory, _) => 0,
        };
        self.records.truncate(left);
        self.synced = left;
        self.syncing = false;
        self.before = None;
        self.base = left;
        (left, all - left)
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

    /// What a start finds.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::ids::Slot;

    fn record(slot: u64) -> Record {
        Record::Decided { slot: Slot(slot) }
    }

    #[test]
    fn a_crash_takes_only_what_was_not_synced() {
        let mut rng = Rng::from_seed(1);
        for _ in 0..100 {
            let mut disk = Disk::new(Durability::Sync);
            assert!(disk.append(Lsn(1), record(1)));
            let (upto, _) = disk.sync(&DiskFaults::healed(), &mut rng);
            assert!(!disk.append(Lsn(2), record(2)));
            assert_eq!(upto, Lsn(1));
            assert!(disk.synced(upto), "the second record waits for another sync");
            let (left, lost) = disk.crash(true, &mut rng);
            assert!(left >= 1 && left + lost == 2);
            assert_eq!(disk.records().len(), left);
            assert!(disk.append(Lsn(1), record(3)), "the next life numbers from its own beginning");
            assert_eq!(disk.sync(&DiskFaults::healed(), &mut rng).0, Lsn(1));
        }
    }

    #[test]
    fn what_is_not_synced_in_memory_or_async_mode_is_gone_with_the_power() {
        let mut rng = Rng::from_seed(1);
        for (durability, power, left) in
            [(Durability::Memory, false, 0), (Durability::Async, false, 1), (Durability::Async, true, 0)]
        {
            let mut disk = Disk::new(durability);
            disk.append(Lsn(1), record(1));
            disk.synced(Lsn(1));
            assert_eq!(disk.forgets(power), left == 0);
            assert_eq!(disk.crash(power, &mut rng).0, left);
        }
    }
}
