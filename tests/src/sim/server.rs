//! A replica's process: what the sidecar's driver does, with the simulator's network, disk and application.

use super::app::App;
use super::clock::{Clock, Time};
use super::disk::Disk;
use super::event::{Epoch, Event, Life, Served};
use super::{Process, World};
use crate::check::execution::Executed;
use crate::check::{Verdict, bounds};
use mesh::auth::Verified;
use mesh::ids::{Digest, Lsn, ReplicaId, Run, Slot};
use mesh::order::{AppReply, Event as Told, Input, Output, Recovered, Replica, To};
use mesh::time::Duration;
use mesh::wire::submit::{Answer, Submit, Vote};
use mesh::wire::{Message, Outcome, Request, Tag};
use std::collections::BTreeMap;

/// Who waits at a server for a request's outcome.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    smart: usize,
    epoch: Epoch,
    whole: bool,
}

/// One replica's process, disk and application.
#[derive(Debug)]
pub struct Server {
    /// The replica, while the process runs.
    pub replica: Option<Replica>,
    /// Counts its lives.
    pub life: Life,
    /// Its clock.
    pub clock: Clock,
    /// When it wants to be woken.
    pub wake_at: Option<Time>,
    /// It stands still until then.
    pub paused_until: Time,
    /// Its disk stands still until then.
    pub stalled_until: Time,
    /// It ends after so many outputs, with the power or without.
    pub dies_after: Option<(u32, bool)>,
    /// It was told to drain.
    pub draining: bool,
    /// It knows all its votes.
    pub voting: bool,
    /// Its disk.
    pub disk: Disk,
    /// Its application.
    pub app: App,
    waiters: BTreeMap<Tag, Vec<Waiter>>,
    inbox: Vec<Verified<Request>>,
    turn_planned: bool,
    votes: BTreeMap<(usize, Epoch), Vec<Vote>>,
}

impl Server {
    /// A process that was never started.
    #[must_use]
    pub fn new(clock: Clock, disk: Disk) -> Self {
        Self {
            replica: None,
            life: 0,
            clock,
            wake_at: None,
            paused_until: Time::ZERO,
            stalled_until: Time::ZERO,
            dies_after: None,
            draining: false,
            voting: true,
            disk,
            app: App::default(),
            waiters: BTreeMap::new(),
            inbox: Vec::new(),
            turn_planned: false,
            votes: BTreeMap::new(),
        }
    }

    /// The link of a SMaRtClient broke.
    pub fn forget(&mut self, smart: usize) {
        for waiters in self.waiters.values_mut() {
            waiters.retain(|waiter| waiter.smart != smart);
        }
        self.waiters.retain(|_, waiters| !waiters.is_empty());
    }
}

impl World {
    /// Starts a replica that is down.
    pub(super) fn start_server(&mut self, index: usize) -> Verdict {
        if self.servers[index].replica.is_some() {
            return Ok(());
        }
        let clock = Clock::start(self.now, &self.options.clock, &mut self.clock_chance);
        let server = &mut self.servers[index];
        server.life += 1;
        server.clock = clock;
        server.draining = false;
        let recovered = if !server.voting {
            Recovered::amnesiac()
        } else if server.disk.records().is_empty() {
            Recovered::first_start()
        } else {
            Recovered::from_records(server.disk.records().iter().cloned())
        };
        let config = mesh::config::Config {
            id: ReplicaId(index as u32),
            incarnation: mesh::ids::Incarnation(1),
            cluster: self.options.cluster.clone(),
            timing: self.options.timing.clone(),
            limits: self.options.limits.clone(),
            wall_base: server.clock.wall_base,
        };
        let seed = self.chance.next_u64();
        server.replica = Some(Replica::new(config, seed, recovered, server.clock.local(self.now)));
        let (life, records) = (server.life, server.disk.records().len());
        self.trace.line(self.now, format_args!("server {index} starts life {life} with {records} records"));
        self.check_links();
        self.rearm(Process::Server(index));
        Ok(())
    }

    /// Ends a replica's process.
    pub(super) fn crash_server(&mut self, index: usize, power: bool) -> Verdict {
        if self.servers[index].replica.is_none() || !self.may_crash(index, power) {
            return Ok(());
        }
        let server = &mut self.servers[index];
        server.replica = None;
        server.life += 1;
        server.wake_at = None;
        server.dies_after = None;
        server.draining = false;
        server.paused_until = Time::ZERO;
        server.waiters.clear();
        server.inbox.clear();
        server.votes.clear();
        server.turn_planned = false;
        server.app.die();
        let forgets = server.disk.forgets(power);
        let (left, lost) = server.disk.crash(power, &mut self.disk_chance);
        self.counters.crashes += 1;
        self.counters.lost_records += lost as u64;
        self.trace
            .line(self.now, format_args!("server {index} ends (power {power}), {left} records left, {lost} lost"));
        self.checks.on_crash(index, left)?;
        if forgets {
            self.counters.amnesia += u64::from(self.servers[index].voting);
            self.servers[index].voting = false;
            self.checks.on_amnesia(index);
        }
        let back = self.now + self.down_time();
        self.queue.push(back, Event::Start(Process::Server(index)));
        self.check_links();
        Ok(())
    }

    /// The only caller of [`Replica::step`].
    pub(super) fn step_server(&mut self, index: usize, input: Input) -> Verdict {
        let server = &mut self.servers[index];
        let Some(replica) = server.replica.as_mut() else { return Ok(()) };
        self.counters.steps += 1;
        self.trace.note(&(self.now, index));
        self.trace.line(self.now, format_args!("server {index} < {input:?}"));
        let mut out = std::mem::take(&mut self.outputs);
        replica.step(server.clock.local(self.now), input, &mut out);
        let mut verdict = Ok(());
        for output in out.drain(..) {
            self.trace.note(&output);
            self.trace.line(self.now, format_args!("server {index} > {output:?}"));
            verdict = self.server_output(index, output);
            if verdict.is_err() || self.dies_now(index) {
                break;
            }
        }
        out.clear();
        self.outputs = out;
        verdict?;
        if let Some((0, power)) = self.servers[index].dies_after.filter(|(_, power)| self.may_crash(index, *power)) {
            return self.crash_server(index, power);
        }
        self.send_votes(index);
        self.rearm(Process::Server(index));
        Ok(())
    }

    fn dies_now(&mut self, index: usize) -> bool {
        if self.servers[index].dies_after.is_some_and(|(_, power)| !self.may_crash(index, power)) {
            self.servers[index].dies_after = None;
        }
        match &mut self.servers[index].dies_after {
            Some((0, _)) => true,
            Some((outputs, _)) => {
                *outputs -= 1;
                *outputs == 0
            }
            None => false,
        }
    }

    fn server_output(&mut self, index: usize, output: Output) -> Verdict {
        match output {
            Output::Send { to, message } => {
                self.checks.on_send(index, &message)?;
                self.send_peer(index, to, &message);
            }
            Output::Persist { lsn, record } => {
                self.checks.on_persist(index, lsn, &record)?;
                if self.servers[index].disk.append(lsn, record) {
                    self.sync(index);
                }
            }
            Output::Reset { run } => {
                self.checks.on_reset(index, run)?;
                self.counters.resets += 1;
                self.servers[index].app.reset(run);
                let at = self.now + self.app_chance.duration(self.options.app.reset_max);
                let life = self.servers[index].life;
                self.queue.push(at, Event::AppRestored { server: index, life, run });
            }
            Output::Execute { run, slot, time, operations } => {
                let app = &mut self.servers[index].app;
                let begins = app.take(run, slot, operations.clone());
                let outstanding = app.outstanding();
                self.checks.on_execute(index, run, Executed { slot, time, operations }, outstanding)?;
                if begins {
                    self.begin_execution(index);
                }
            }
            Output::Reply { tag, slot, form, outcome } => self.serve(index, tag, slot, form, outcome.as_ref()),
            Output::Steer { tag, steer } => {
                for waiter in self.servers[index].waiters.remove(&tag).unwrap_or_default() {
                    self.send_served(index, waiter.smart, waiter.epoch, Served::Steer(tag, steer));
                }
            }
            Output::Event(event) => return self.on_event(index, &event),
        }
        Ok(())
    }

    fn on_event(&mut self, index: usize, event: &Told) -> Verdict {
        match event {
            Told::Leading { .. } => self.counters.elections += 1,
            Told::Suspected { .. } => self.counters.suspicions += 1,
            Told::ReplayDiffers { tag, slot } => {
                let what = format!("replica {index}: a replay of {tag:?} in slot {slot} gave another reply");
                return crate::check::Violation::raise("execution", what);
            }
            Told::OtherBody { tag } => {
                let what = format!("replica {index}: {tag:?} came with two bodies");
                return crate::check::Violation::raise("exactly-once", what);
            }
            Told::Nonsense { from, what } => {
                let what = format!("replica {index} calls a message of replica {from} nonsense: {what}");
                return crate::check::Violation::raise("nonsense", what);
            }
            _ => {}
        }
        Ok(())
    }

    fn send_peer(&mut self, from: usize, to: To, message: &Message) {
        for other in 0..self.servers.len() {
            let meant = match to {
                To::One(one) => one.0 as usize == other,
                To::Others => other != from,
            };
            if !meant {
                continue;
            }
            self.counters.messages += 1;
            self.lossy_messages += u64::from(!self.healed);
            if self.network.blocked(Process::Server(from), Process::Server(other)) {
                continue;
            }
            let copies = self.network.copies();
            self.counters.drops += u64::from(copies == 0);
            self.counters.doubles += u64::from(copies == 2);
            for _ in 0..copies {
                let message = if self.chance.chance(self.options.encoded) {
                    mesh::wire::decode(&mesh::wire::encode(message)).expect("a message survives its encoding")
                } else {
                    message.clone()
                };
                let at = self.now + self.network.delay();
                let (from, life) = (ReplicaId(from as u32), self.servers[other].life);
                self.queue.push(at, Event::Peer { from, to: other, life, message });
            }
        }
    }

    fn sync(&mut self, index: usize) {
        let server = &self.servers[index];
        let (upto, duration) = server.disk.sync(&self.options.disk, &mut self.disk_chance);
        self.queue.push(self.now + duration, Event::Synced { server: index, life: server.life, upto });
    }

    pub(super) fn on_synced(&mut self, index: usize, upto: Lsn) -> Verdict {
        let stalled = self.servers[index].stalled_until;
        if stalled > self.now {
            let life = self.servers[index].life;
            self.queue.push(stalled, Event::Synced { server: index, life, upto });
            return Ok(());
        }
        if self.servers[index].disk.synced(upto) {
            self.sync(index);
        }
        self.counters.records += 1;
        self.checks.on_persisted(index, upto)?;
        self.step_server(index, Input::Persisted { lsn: upto })
    }

    /// A SMaRtClient's request came.
    pub(super) fn on_submit(&mut self, index: usize, smart: usize, epoch: Epoch, submit: Submit) {
        let Submit { request, whole } = submit;
        let server = &mut self.servers[index];
        server.waiters.entry(request.tag()).or_default().push(Waiter { smart, epoch, whole });
        server.inbox.push(mesh::auth::by_transport(request));
        if !std::mem::replace(&mut server.turn_planned, true) {
            let event = Event::Turn { server: index, life: server.life };
            let at = self.now + self.chance.duration(Duration::from_micros(200));
            self.queue.push(at, event);
        }
    }

    pub(super) fn on_turn(&mut self, index: usize) -> Verdict {
        let server = &mut self.servers[index];
        server.turn_planned = false;
        let requests = std::mem::take(&mut server.inbox);
        self.step_server(index, Input::Requests(requests))?;
        match &self.servers[index].replica {
            Some(replica) => bounds::on_status(index, &replica.status(), &self.options.limits),
            None => Ok(()),
        }
    }

    fn serve(&mut self, index: usize, tag: Tag, slot: Slot, form: Digest, outcome: Option<&Outcome>) {
        for waiter in self.servers[index].waiters.remove(&tag).unwrap_or_default() {
            match (outcome, waiter.whole) {
                (Some(outcome), true) => {
                    let answer = Answer { tag, slot, form, outcome: outcome.clone() };
                    self.send_served(index, waiter.smart, waiter.epoch, Served::Answer(answer));
                }
                _ => {
                    let votes = self.servers[index].votes.entry((waiter.smart, waiter.epoch)).or_default();
                    votes.push(Vote { tag, slot, form });
                }
            }
        }
    }

    fn send_votes(&mut self, index: usize) {
        for ((smart, epoch), votes) in std::mem::take(&mut self.servers[index].votes) {
            self.send_served(index, smart, epoch, Served::Votes(votes));
        }
    }

    fn send_served(&mut self, server: usize, smart: usize, epoch: Epoch, served: Served) {
        let blocked = self.network.blocked(Process::Server(server), Process::Smart(smart));
        if blocked || self.network.loses_stream() {
            return;
        }
        let at = self.now + self.network.delay();
        self.queue.push(at, Event::Served { smart, server, epoch, served });
    }

    fn begin_execution(&mut self, index: usize) {
        let app = &self.servers[index].app;
        if let Some(duration) = app.duration(&self.options.app, &mut self.app_chance) {
            self.queue.push(self.now + duration, Event::AppDone { server: index, life: app.life });
        }
    }

    pub(super) fn on_app_done(&mut self, index: usize) -> Verdict {
        let app = &mut self.servers[index].app;
        let Some((run, slot, replies, ends)) = app.execute() else { return Ok(()) };
        self.counters.ends += ends;
        if app.outstanding() > 0 {
            self.begin_execution(index);
        }
        self.checks.on_executed(index, slot);
        self.step_server(index, Input::Executed { run, slot, replies })
    }

    pub(super) fn on_app_restored(&mut self, index: usize, run: Run) -> Verdict {
        let app = &mut self.servers[index].app;
        if app.run == run {
            app.restored();
        }
        self.step_server(index, Input::Restored { run })
    }

    /// An application dies, and may be heard of later.
    pub(super) fn lose_app(&mut self) -> Verdict {
        let index = self.chance.below(self.servers.len() as u64) as usize;
        self.counters.app_losses += 1;
        let server = &mut self.servers[index];
        if server.paused_until > self.now {
            return Ok(());
        }
        let first = server.app.first();
        let run = server.app.die();
        let life = server.life;
        if self.chance.chance(self.options.late_answers) {
            let at = self.now + self.chance.duration(Duration::from_millis(800));
            self.queue.push(at, Event::AppStale { server: index, life, run, slot: first });
        }
        self.trace.line(self.now, format_args!("server {index} loses its application"));
        self.step_server(index, Input::AppLost { run })
    }

    pub(super) fn on_app_stale(&mut self, index: usize, run: Run, slot: Option<Slot>) -> Verdict {
        self.counters.late_answers += 1;
        let bytes = bytes::Bytes::from_static(b"STALE");
        let reply = AppReply { form: Digest::of(&bytes), bytes };
        let input = match slot {
            Some(slot) => Input::Executed { run, slot, replies: vec![reply] },
            None => Input::AppLost { run },
        };
        self.step_server(index, input)
    }
}
