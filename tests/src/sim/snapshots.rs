//! A replica's snapshots: taken, stored, rotten, cut; and the start from what a disk has.

use super::clock::{Clock, Time};
use super::disk::Found;
use super::event::Event;
use super::{Process, World};
use crate::check::Verdict;
use crate::check::model::Store;
use bytes::Bytes;
use mesh::config::Durability;
use mesh::ids::{Life, ReplicaId, Run, Slot};
use mesh::order::{Image, Input, Recovered, Replica, Resumed, Role};
use std::fmt::Write;

/// One snapshot on a disk.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What of it is the core's.
    pub image: Image,
    /// The application's state.
    pub store: Store,
    /// Wrong answers are in it.
    pub tainted: bool,
    /// It does not check out any more.
    pub rotten: bool,
}

impl Snapshot {
    /// The application's part, as it is stored and sent. Its first byte is the simulator's own mark.
    #[must_use]
    pub fn dump(&self) -> Bytes {
        let mut dump = String::from(if self.tainted { "T" } else { "C" });
        for (key, value) in &self.store.0 {
            let _ = write!(dump, "\n{key} {value}");
        }
        dump.into()
    }

    /// What [`Snapshot::dump`] made.
    #[must_use]
    pub fn parse(image: Image, dump: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(dump).ok()?.lines();
        let tainted = lines.next()? == "T";
        let entry = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.parse().ok()?, value.parse().ok()?))
        };
        let store = Store(lines.filter(|line| !line.is_empty()).map(entry).collect::<Option<_>>()?);
        Some(Self { image, store, tainted, rotten: false })
    }
}

impl World {
    /// Starts a replica that is down.
    pub(super) fn start_server(&mut self, index: usize) -> Verdict {
        let server = &self.servers[index];
        if server.replica.is_some() || server.waiting || server.retired {
            return Ok(());
        }
        let full_until = self.servers[index].full_until;
        if full_until > self.now {
            self.queue.push(full_until, Event::Start(Process::Server(index)));
            return Ok(());
        }
        let clock = Clock::start(self.now, &self.options.clock, &mut self.clock_chance);
        let server = &mut self.servers[index];
        server.life += 1;
        server.clock = clock;
        server.draining = false;
        if server.disk.judge_is_unusable() {
            let durability = self.options.cluster.durability;
            // What the journal began with can be read, or not.
            if durability == Durability::Memory || self.disk_chance.chance(300) {
                self.servers[index].history = None;
            }
        }
        if self.servers[index].history.is_none() {
            // Whatever it was before, it does not know.
            self.begin_life(index);
            self.begin_waiting(index);
            return Ok(());
        }
        self.start_replica(index)
    }

    /// A replica begins in the configuration that its journal has.
    pub(super) fn start_replica(&mut self, index: usize) -> Verdict {
        let Some(configuration) = self.servers[index].history.clone() else { return Ok(()) };
        let recovered = self.recover(index)?;
        if let Some(image) = recovered.image.as_ref().filter(|image| image.slot > recovered.decided) {
            // It takes the place of what the journal does not have.
            let server = &mut self.servers[index];
            server.fetched = server.fetched.max(image.slot);
        }
        let server = &mut self.servers[index];
        let config = mesh::config::Config {
            name: super::forger::CLUSTER.to_owned(),
            id: ReplicaId(index as u32),
            life: server.member_life,
            configuration,
            timing: self.options.timing.clone(),
            limits: self.options.limits.clone(),
            snapshots: self.options.snapshots,
            divergence: mesh::config::Divergence::Rebuild,
            wall_base: server.clock.wall_base,
        };
        self.trace.line(
            self.now,
            format_args!(
                "server {index} starts {} of life {:x}: {} records, snapshot {:?}, answered {}, resumed {:?}",
                server.life,
                server.member_life.0,
                recovered.entries.len(),
                recovered.image.as_ref().map(|image| image.slot),
                recovered.answered,
                recovered.resumed.as_ref().map(|resumed| resumed.executed)
            ),
        );
        let seed = self.chance.next_u64();
        let replica = Replica::new(config, seed, recovered, server.clock.local(self.now));
        server.members = replica.configuration().cluster.members.iter().map(|member| member.id).collect();
        server.replica = Some(replica);
        self.check_links();
        self.rearm(Process::Server(index));
        Ok(())
    }

    /// What a start finds: the journal's verdict decides which life this is.
    fn recover(&mut self, index: usize) -> Result<Recovered, crate::check::Violation> {
        // The newest snapshot that checks out; those that do not are dropped.
        let server = &mut self.servers[index];
        while server.snapshots.last_key_value().is_some_and(|(_, snapshot)| snapshot.rotten) {
            server.snapshots.pop_last();
            self.counters.lost_snapshots += 1;
        }
        let image = server.snapshots.last_key_value().map(|(_, snapshot)| Box::new(snapshot.image.clone()));
        let slot = image.as_ref().map_or(Slot(0), |image| image.slot);
        let found = server.disk.judge();
        if found == Found::Torn {
            self.counters.torn += 1;
            self.checks.on_torn(index, server.disk.durable())?;
        }
        if found == Found::Unusable {
            self.begin_life(index);
            let server = &mut self.servers[index];
            server.app.die();
            server.orphan = false;
            self.checks.on_image(index, slot);
            return Ok(Recovered { image, ..Recovered::default() });
        }
        self.checks.on_image(index, slot);
        let mut recovered = Recovered::from_records(server.disk.records());
        if server.answered > Slot(0) {
            recovered.answered = server.answered;
        }
        // The marker is told what the journal says.
        server.answered = recovered.answered;
        let marker = &server.app.marker;
        if server.orphan && marker.base <= slot && slot <= marker.executed() {
            let replies = marker.outcomes.iter().filter(|(executed, _)| *executed > slot).cloned().collect();
            recovered.resumed = Some(Resumed { executed: marker.executed(), replies });
        }
        recovered.image = image;
        Ok(recovered)
    }

    /// An empty journal, and another life.
    fn begin_life(&mut self, index: usize) {
        let snapshot = self.servers[index].snapshots.last_key_value().map_or(Slot(0), |(slot, _)| *slot);
        let life = Life(self.disk_chance.next_u64());
        let server = &mut self.servers[index];
        server.disk = server.disk.anew();
        server.member_life = life;
        server.learner = true;
        server.granted_at = 0;
        server.needs = snapshot;
        server.answered = Slot(0);
        self.counters.amnesia += 1;
        self.checks.on_new_life(index, life);
        self.trace.line(self.now, format_args!("server {index} begins the life {:x}", life.0));
    }

    /// Ends a replica's process.
    pub(super) fn crash_server(&mut self, index: usize, power: bool) -> Verdict {
        let runs = self.servers[index].replica.is_some() || self.servers[index].waiting;
        if !runs || !self.may_crash(index, power) {
            return Ok(());
        }
        let learns = |replica: &Replica| replica.status().role == Role::Learner;
        self.counters.joiner_crashes += u64::from(self.servers[index].replica.as_ref().is_none_or(learns));
        let server = &mut self.servers[index];
        server.end();
        let left_alone = !power && self.app_chance.chance(self.options.app.outlives);
        server.orphan = left_alone && server.app.is_left();
        if !server.orphan {
            server.app.die();
        }
        if power {
            // The marker is not synced.
            server.answered = Slot(0);
        }
        let (left, lost) = server.disk.crash(power, &mut self.disk_chance);
        if server.granted_at > server.disk.durable() {
            (server.learner, server.granted_at) = (true, 0);
        }
        self.counters.crashes += 1;
        self.counters.lost_records += lost as u64;
        self.trace
            .line(self.now, format_args!("server {index} ends (power {power}), {left} records left, {lost} lost"));
        self.checks.on_crash(index, left)?;
        self.report_health(index);
        let back = self.now + self.down_time();
        self.queue.push(back, Event::Start(Process::Server(index)));
        self.check_links();
        Ok(())
    }

    /// Ends a process that is not needed any more.
    pub(super) fn end_process(&mut self, index: usize) -> Verdict {
        let server = &mut self.servers[index];
        server.end();
        server.app.die();
        server.orphan = false;
        server.full_until = Time::ZERO;
        let (left, _) = server.disk.crash(true, &mut self.disk_chance);
        self.checks.on_crash(index, left)?;
        self.check_links();
        Ok(())
    }

    pub(super) fn dump(&mut self, index: usize, run: Run, image: Box<Image>) -> Verdict {
        self.checks.on_dump(index, &image)?;
        let server = &mut self.servers[index];
        if !server.witness && (server.app.run != run || !server.app.running) {
            return Ok(());
        }
        server.app.dumping = true;
        let at = self.now + self.app_chance.duration(self.options.app.dump_max);
        let image = if self.chance.chance(100) {
            let bytes = mesh::wire::encode(&*image);
            Box::new(mesh::wire::decode(&bytes).expect("an image survives its encoding"))
        } else {
            image
        };
        self.queue.push(at, Event::Dumped { server: index, life: server.app.life, image });
        Ok(())
    }

    pub(super) fn on_dumped(&mut self, index: usize, image: Box<Image>) -> Verdict {
        let server = &mut self.servers[index];
        let slot = image.slot;
        if !std::mem::take(&mut server.app.dumping) {
            // It was given up.
            return Ok(());
        }
        let full = server.full_until > self.now;
        if full || self.disk_chance.chance(self.options.disk.failing_snapshots) {
            self.counters.failed_snapshots += 1;
            return self.step_server(index, Input::DumpFailed { slot });
        }
        let (store, tainted) = (server.app.store().clone(), server.app.tainted);
        self.keep(index, Snapshot { image: *image, store, tainted, rotten: false })?;
        self.step_server(index, Input::Dumped { slot })
    }

    /// A snapshot is on the disk, and was verified.
    pub(super) fn keep(&mut self, index: usize, snapshot: Snapshot) -> Verdict {
        self.counters.snapshots += 1;
        let slot = snapshot.image.slot;
        if !snapshot.image.hollow {
            self.checks.on_snapshot(index, slot, &snapshot.store, snapshot.tainted)?;
        }
        self.servers[index].differed |= snapshot.tainted;
        self.servers[index].snapshots.insert(slot, snapshot);
        Ok(())
    }

    pub(super) fn cut(&mut self, index: usize, through: Slot) -> Verdict {
        self.counters.cuts += 1;
        self.checks.on_cut(index, through, self.servers[index].fetched >= through)?;
        let server = &mut self.servers[index];
        let gone = server.disk.cut(through);
        // The journal may have more; the replica that runs has not.
        server.needs = server.needs.max(through);
        self.checks.on_journal_cut(index, gone);
        if let Some((newest, _)) = server.snapshots.last_key_value().filter(|(newest, _)| **newest >= through) {
            let newest = *newest;
            server.snapshots.retain(|slot, _| *slot >= newest);
        }
        Ok(())
    }

    /// A snapshot rots where it lies; nobody notices before it is read.
    pub(super) fn rot_snapshot(&mut self, index: usize) {
        let slots: Vec<Slot> = self.servers[index].snapshots.keys().copied().collect();
        let Some(slot) = self.disk_chance.choose(&slots) else { return };
        if let Some(snapshot) = self.servers[index].snapshots.get_mut(slot) {
            snapshot.rotten = true;
            self.report_health(index);
            self.counters.rotten_snapshots += 1;
            self.trace.line(self.now, format_args!("server {index}'s snapshot of slot {slot} rots"));
        }
    }

    /// The disk is replaced by an empty one, or a sector of the journal rots; either while the process is down.
    pub(super) fn damage(&mut self, index: usize, all: bool) -> Verdict {
        self.crash_server(index, true)?;
        let server = &mut self.servers[index];
        if server.replica.is_some() || server.waiting || server.retired {
            return Ok(());
        }
        if all {
            self.counters.lost_disks += 1;
            server.snapshots.clear();
            server.full_until = Time::ZERO;
            server.history = None;
            server.disk = server.disk.anew();
            self.begin_life(index);
        } else if server.disk.rot(&mut self.disk_chance) {
            self.counters.damages += 1;
        }
        self.report_health(index);
        self.trace.line(self.now, format_args!("server {index}'s disk is damaged (all of it: {all})"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::config::ClusterConfig;

    #[test]
    fn a_dump_is_read_as_it_was_written() {
        let image = Image::genesis(ClusterConfig::of(3, "line", Durability::Sync));
        for (store, tainted) in [(Store::default(), false), (Store([(1, 2), (u64::MAX, 4)].into()), true)] {
            let snapshot = Snapshot { image: image.clone(), store: store.clone(), tainted, rotten: false };
            let read = Snapshot::parse(image.clone(), &snapshot.dump()).unwrap();
            assert_eq!((read.store, read.tainted), (store, tainted));
        }
        assert!(Snapshot::parse(image, b"C\nx").is_none());
    }
}
