//! Faults of processes and their disks: they end (between any two outputs), lose power together, stand still, are
//! drained, lose their application, a link, or what they had stored; and start again.
//!
//! Faults have a budget (rule 34): at no time may more than a tolerated minority have lost what it held.

use super::clock::Time;
use super::event::Event;
use super::{Process, World};
use crate::check::Verdict;
use crate::check::enough::Counters;
use crate::check::model::{MapOp, Poison};
use mesh::ids::Position;
use mesh::limits::{Limits, Timing};
use mesh::order::Input;
use mesh::quorum::ELECTORATE_MIN;
use mesh::rng::Rng;
use mesh::time::Duration;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A replica's process ends.
    Crash,
    /// A replica's machine loses power.
    Power,
    /// All of them do.
    PowerAll,
    /// A SMaRtClient ends.
    SmartCrash,
    /// A sender ends, and its clients' connections with it.
    SenderCrash,
    /// The network parts.
    Partition,
    /// One link of a client breaks.
    LinkCut,
    /// A process stands still.
    Pause,
    /// An application dies.
    AppLost,
    /// A process is drained and stops.
    Drain,
    /// A disk stands still.
    DiskStall,
    /// A disk is full for a while.
    DiskFull,
    /// A disk is replaced by an empty one.
    DiskLost,
    /// A sector of a journal rots.
    Rot,
    /// A snapshot rots.
    SnapshotRot,
    /// An application answers wrongly from now on.
    Differ,
    /// An operator wants a snapshot.
    Save,
    /// An operator changes the configuration.
    Reconfigure,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 18] = [
        Self::Crash,
        Self::Power,
        Self::PowerAll,
        Self::SmartCrash,
        Self::SenderCrash,
        Self::Partition,
        Self::LinkCut,
        Self::Pause,
        Self::AppLost,
        Self::Drain,
        Self::DiskStall,
        Self::DiskFull,
        Self::DiskLost,
        Self::Rot,
        Self::SnapshotRot,
        Self::Differ,
        Self::Save,
        Self::Reconfigure,
    ];
}

/// Between two looks of an operator.
const OPERATOR: Duration = Duration::from_secs(1);

fn about(mean: Duration, rng: &mut Rng) -> Duration {
    mean / 4 + rng.duration(mean * 3 / 2)
}

impl World {
    /// Plans the first fault of each kind, early enough that it strikes.
    pub(super) fn plan_faults(&mut self) {
        for index in 0..self.options.faults.len() {
            let (fault, _) = self.options.faults[index];
            let at = Time::ZERO + self.options.trouble / 20 + self.chance.duration(self.options.trouble / 2);
            self.queue.push(at, Event::Fault(fault));
        }
    }

    pub(super) fn strike(&mut self, fault: Fault) -> Verdict {
        if self.healed {
            return Ok(());
        }
        let mean =
            self.options.faults.iter().find(|(kind, _)| *kind == fault).map_or(self.options.trouble, |(_, m)| *m);
        let next = self.now + about(mean, &mut self.chance);
        self.queue.push(next, Event::Fault(fault));
        match fault {
            Fault::Crash | Fault::Power => {
                let victim = self.chance.below(self.servers.len() as u64) as usize;
                let victim = self.other_if_down(victim, fault == Fault::Power);
                self.doom(victim, fault == Fault::Power)?;
            }
            Fault::PowerAll => {
                for victim in 0..self.servers.len() {
                    self.crash_server(victim, true)?;
                }
            }
            Fault::SmartCrash => {
                let victim = self.chance.below(self.smarts.len() as u64) as usize;
                self.counters.smart_crashes += 1;
                self.crash_smart(victim);
            }
            Fault::SenderCrash => {
                let victim = self.chance.below(self.senders.len() as u64) as usize;
                self.counters.sender_crashes += 1;
                self.crash_sender(victim);
            }
            Fault::Partition => match self.rather_the_leader() {
                Some(leader) => self.oust(leader)?,
                None => self.partition(),
            },
            Fault::LinkCut => self.cut_link(),
            Fault::Pause => self.pause(),
            Fault::AppLost => self.lose_app()?,
            Fault::Drain => self.drain()?,
            Fault::Reconfigure => self.reconfigure()?,
            Fault::DiskStall => {
                let victim = self.chance.below(self.servers.len() as u64) as usize;
                let until = self.now + self.chance.duration(Duration::from_secs(2));
                self.servers[victim].stalled_until = until;
                self.counters.stalls += 1;
            }
            Fault::DiskFull | Fault::DiskLost | Fault::Rot | Fault::SnapshotRot | Fault::Differ | Fault::Save => {
                let victim = self.chance.below(self.servers.len() as u64) as usize;
                self.strike_storage(victim, fault)?;
            }
        }
        Ok(())
    }

    fn strike_storage(&mut self, victim: usize, fault: Fault) -> Verdict {
        match fault {
            Fault::DiskFull => {
                self.servers[victim].full_until = self.now + self.chance.duration(Duration::from_secs(3));
                Ok(())
            }
            Fault::DiskLost | Fault::Rot if self.may_damage(victim) => self.damage(victim, fault == Fault::DiskLost),
            Fault::SnapshotRot if self.may_damage(victim) => {
                self.rot_snapshot(victim);
                Ok(())
            }
            // Once, and a tolerated minority in all: wrong answers outlive the application that gave them, at clients.
            Fault::Differ if self.may_damage(victim) && self.may_differ(victim) => {
                let server = &mut self.servers[victim];
                server.app.wrong |= server.app.alive;
                server.differed |= server.app.wrong;
                self.counters.differing += u64::from(server.app.wrong);
                Ok(())
            }
            Fault::Save => self.step_server(victim, Input::Save),
            _ => Ok(()),
        }
    }

    // A process that is down cannot crash: then another one does.
    fn other_if_down(&self, victim: usize, power: bool) -> usize {
        let n = self.servers.len();
        let up = (0..n).map(|step| (victim + step) % n).find(|index| {
            let server = &self.servers[*index];
            (server.replica.is_some() || server.waiting) && self.may_crash(*index, power)
        });
        up.unwrap_or(victim)
    }

    /// Whether the budget lets this replica's process end.
    pub(super) fn may_crash(&self, victim: usize, power: bool) -> bool {
        !self.servers[victim].disk.forgets(power) || self.may_damage(victim)
    }

    // Ends a replica now, or in the middle of what it does next.
    fn doom(&mut self, victim: usize, power: bool) -> Verdict {
        if !self.may_crash(victim, power) {
            return Ok(());
        }
        if self.counters.crashes == 0 || self.chance.chance(500) {
            return self.crash_server(victim, power);
        }
        let outputs = self.chance.below(6) as u32;
        self.servers[victim].dies_after = Some((outputs, power));
        Ok(())
    }

    pub(super) fn down_time(&mut self) -> Duration {
        Duration::from_millis(1) + self.chance.duration(self.options.down_max)
    }

    fn processes(&self) -> Vec<Process> {
        let servers = (0..self.servers.len()).map(Process::Server);
        let smarts = (0..self.smarts.len()).map(Process::Smart);
        servers.chain(smarts).chain((0..self.senders.len()).map(Process::Sender)).collect()
    }

    /// A leader lets another one lead, and hears nothing of it for a while, or late: clients still reach it.
    fn oust(&mut self, leader: usize) -> Verdict {
        if self.chance.chance(500) {
            self.servers[leader].lags_until = self.now + Duration::from_millis(800);
            self.counters.partitions += 1;
            return self.step_server(leader, Input::Drain);
        }
        let servers: Vec<Process> = (0..self.servers.len()).map(Process::Server).collect();
        let partition = self.network.deafen(Process::Server(leader), &servers);
        let until = self.now + Duration::from_millis(100) + self.chance.duration(Duration::from_millis(900));
        self.counters.partitions += 1;
        self.trace.line(self.now, format_args!("partition {partition} until {until}: server {leader} hears no server"));
        self.queue.push(until, Event::Mend { partition });
        self.check_links();
        self.step_server(leader, Input::Drain)
    }

    fn partition(&mut self) {
        let processes = self.processes();
        let partition = self.network.part(&processes);
        let longest = if self.chance.chance(500) { Duration::from_millis(400) } else { Duration::from_secs(5) };
        let until = self.now + self.chance.duration(longest);
        self.counters.partitions += 1;
        self.trace.line(self.now, format_args!("partition {partition} until {until}"));
        self.queue.push(until, Event::Mend { partition });
        self.check_links();
    }

    fn cut_link(&mut self) {
        let links = self.all_links();
        let Some((client, server)) = self.chance.choose(&links).copied() else { return };
        let until = self.now + self.chance.duration(Duration::from_secs(1));
        self.network.link(client, server).cut_until = until;
        self.counters.link_cuts += 1;
        self.check_link(client, server);
        let back = until + self.network.detection();
        self.queue.push(back, Event::LinkCheck { client, server });
    }

    /// Who leads, where that is to be struck.
    fn rather_the_leader(&mut self) -> Option<usize> {
        if !self.options.reading || self.chance.chance(400) {
            return None;
        }
        let now = self.now;
        let leads = |server: &super::server::Server| {
            server.paused_until <= now && server.replica.as_ref().is_some_and(|replica| replica.status().ready)
        };
        self.servers.iter().position(leads)
    }

    fn pause(&mut self) {
        let processes = self.processes();
        let Some(victim) = self.chance.choose(&processes).copied() else { return };
        let victim = self.rather_the_leader().map_or(victim, Process::Server);
        let until = self.now + self.chance.duration(Duration::from_millis(2500));
        let paused = self.paused_until_mut(victim);
        *paused = (*paused).max(until);
        self.counters.pauses += 1;
        self.trace.line(self.now, format_args!("{victim} stands still until {until}"));
    }

    fn drain(&mut self) -> Verdict {
        self.counters.drains += 1;
        let stop = self.now + self.chance.duration(Duration::from_millis(800));
        if self.chance.chance(700) {
            let victim = self.chance.below(self.servers.len() as u64) as usize;
            let victim = self.rather_the_leader().unwrap_or(victim);
            let server = &self.servers[victim];
            if !self.may_crash(victim, false) || server.replica.is_none() || server.paused_until > self.now {
                return Ok(());
            }
            // Sometimes the stop never follows, and the drain is over by itself.
            let undone = self.options.timing.drain < Timing::DEFAULT.drain && self.chance.chance(400);
            if !undone {
                self.queue.push(stop, Event::Stop(Process::Server(victim), self.servers[victim].life));
                self.servers[victim].draining = true;
            }
            self.step_server(victim, Input::Drain)
        } else {
            let victim = self.chance.below(self.smarts.len() as u64) as usize;
            if self.smarts[victim].paused_until > self.now {
                return Ok(());
            }
            self.queue.push(stop, Event::Stop(Process::Smart(victim), self.smarts[victim].life));
            self.smarts[victim].draining = true;
            self.step_smart(victim, mesh::client::smart_client::Input::Drain)
        }
    }

    pub(super) fn stop(&mut self, process: Process) -> Verdict {
        match process {
            Process::Server(victim) if self.may_crash(victim, false) => self.crash_server(victim, false),
            Process::Smart(victim) => {
                self.crash_smart(victim);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Everything works from now on, and what is down comes back; what stands still does so for its time.
    pub(super) fn heal(&mut self) -> Verdict {
        self.trace.line(self.now, format_args!("everything heals"));
        self.healed = true;
        self.network.heal();
        self.options.disk = super::disk::DiskFaults::healed();
        self.options.app = self.options.app.healed();
        self.options.timer_faults = 0;
        self.options.down_max = Duration::from_millis(50);
        for index in 0..self.servers.len() {
            self.servers[index].dies_after = None;
            self.servers[index].stalled_until = self.now;
            self.servers[index].full_until = self.now;
            self.servers[index].app.wrong = false;
            if self.servers[index].draining && self.may_crash(index, false) {
                self.crash_server(index, false)?;
            }
        }
        for index in 0..self.smarts.len() {
            if self.smarts[index].draining {
                self.crash_smart(index);
            }
        }
        for process in self.processes() {
            let at = self.now + Duration::from_millis(1) + self.chance.duration(Duration::from_millis(50));
            self.queue.push(at, Event::Start(process));
        }
        self.check_links();
        self.queue.push(self.now + OPERATOR, Event::Operator);
        Ok(())
    }

    /// An operator clears what the cluster cannot settle alone: a full log, and a call that every application hangs on
    /// where nobody may call it silent any more.
    pub(super) fn operate(&mut self) -> Verdict {
        self.queue.push(self.now + OPERATOR, Event::Operator);
        let poison =
            |bytes: &[u8]| matches!(MapOp::decode(bytes), Some((MapOp::Poison(Poison { victim: None, .. }), _)));
        self.operate_members()?;
        let mut stuck = Vec::new();
        // What every application fell silent on was answered by none of them. What half of an even number did has no majority
        // either way: the others are too few to vote a reply, and these to order an abort.
        let applications = self.checks.membership().current().applications();
        let silent = |index: usize| self.servers[index].replica.as_ref().and_then(|replica| replica.status().silent);
        let silent: Vec<Option<Position>> = applications.map(silent).collect();
        for at in silent.iter().flatten() {
            let count = silent.iter().filter(|other| **other == Some(*at)).count();
            if count == silent.len() || (silent.len() >= ELECTORATE_MIN && count * 2 == silent.len()) {
                stuck.push(*at);
            }
        }
        for server in &self.servers {
            let call = server.stuck.as_ref().filter(|(_, bytes)| poison(bytes));
            stuck.extend(call.and_then(|(slot, bytes)| self.checks.position_of(*slot, bytes)));
        }
        stuck.sort_unstable();
        stuck.dedup();
        for index in 0..self.servers.len() {
            if self.options.limits.log_bytes < Limits::DEFAULT.log_bytes {
                self.step_server(index, Input::Save)?;
            }
            for at in &stuck {
                self.step_server(index, Input::Abort { at: *at })?;
            }
        }
        Ok(())
    }

    /// What must have happened at least, given which faults could strike.
    pub(super) fn demand(&self) -> Counters {
        let demanded = u64::from(self.options.workload.demanded);
        // What is demanded may be read past the log.
        let slots = if self.options.sender.reads { 0 } else { demanded.min(1) };
        let mut least = Counters { slots, elections: 1, ..Counters::default() };
        let clients: u64 = self.senders.iter().map(|sender| sender.clients.len() as u64).sum();
        least.replies = clients * demanded;
        for (fault, _) in &self.options.faults {
            match fault {
                // Where members come and go, nobody may be able to bear a loss for a while.
                Fault::Crash | Fault::Power | Fault::PowerAll => {
                    let forgets = self.servers[0].disk.forgets(*fault != Fault::Crash);
                    least.crashes = least.crashes.max(u64::from(!forgets || self.options.replicas == self.options.n()));
                }
                Fault::SmartCrash => least.smart_crashes = 1,
                Fault::SenderCrash => least.sender_crashes = 1,
                Fault::Partition => least.partitions = 1,
                Fault::LinkCut => least.link_cuts = 1,
                Fault::Pause => least.pauses = 1,
                Fault::AppLost => least.app_losses = 1,
                Fault::Drain => least.drains = 1,
                Fault::DiskStall => least.stalls = 1,
                // These need room in the budget, something stored, or luck.
                Fault::DiskFull | Fault::DiskLost | Fault::Rot | Fault::SnapshotRot | Fault::Differ | Fault::Save => {}
                Fault::Reconfigure => {}
            }
        }
        let expected = |per_mille: u32| u64::from(self.lossy_messages > u64::from(20_000 / per_mille.max(1)));
        if self.loss > 0 {
            least.drops = expected(self.loss);
        }
        if self.duplication > 0 {
            least.doubles = expected(self.duplication);
        }
        least
    }
}
