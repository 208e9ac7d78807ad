//! A replica's process: what the sidecar's driver does, with the simulator's network, disk and application.

use super::app::App;
use super::clock::{Clock, Time};
use super::disk::Disk;
use super::event::{Epoch, Event, Life, Served};
use super::options::Options;
use super::reads::Reads;
use super::snapshots::Snapshot;
use super::transfer::{Fetch, Serving};
use super::{Process, World};
use crate::check::{Verdict, Violation, bounds};
use bytes::Bytes;
use mesh::auth::Verified;
use mesh::config::Configuration;
use mesh::ids::{Digest, Lsn, ReadId, ReplicaId, Slot};
use mesh::order::{Event as Told, Input, Output, Replica, Role, To};
use mesh::time::Duration;
use mesh::wire::submit::{Answer, Steer, Vote};
use mesh::wire::{Message, Outcome, Request, Tag};
use std::collections::BTreeMap;

/// Who waits at a server for a request's outcome.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    smart: usize,
    epoch: Epoch,
    whole: bool,
}

/// One replica's process, disk, snapshots and application.
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
    /// What other servers send it arrives late until then.
    pub lags_until: Time,
    /// Its disk stands still until then.
    pub stalled_until: Time,
    /// It ends after so many outputs, with the power or without.
    pub dies_after: Option<(u32, bool)>,
    /// It was told to drain.
    pub draining: bool,
    /// Which life of the member this is.
    pub member_life: mesh::ids::Life,
    /// It has no application.
    pub witness: bool,
    /// The configuration that it begins with, as its journal has it; without one it is not part of the cluster.
    pub history: Option<Configuration>,
    /// It runs and waits to be.
    pub waiting: bool,
    /// It does not run, and is not started.
    pub retired: bool,
    /// The members, as the replica said last.
    pub members: Vec<ReplicaId>,
    /// This life has no vote yet.
    pub learner: bool,
    /// It voted from then on: once so many records are durable, it has again what it lost.
    pub granted_at: usize,
    /// Its disk.
    pub disk: Disk,
    /// Its disk is full until then.
    pub full_until: Time,
    /// Its snapshots.
    pub snapshots: BTreeMap<Slot, Snapshot>,
    /// Slots up to here are nowhere but in a snapshot.
    pub needs: Slot,
    /// The newest snapshot that took the place of what its journal does not have.
    pub fetched: Slot,
    /// The snapshot that it fetches.
    pub fetch: Option<Fetch>,
    /// What it serves, by who fetches it.
    pub serving: BTreeMap<usize, Serving>,
    /// Its application.
    pub app: App,
    /// Every slot up to here may have been answered, as the execution marker says.
    pub answered: Slot,
    /// The process before left an application that can be used on.
    pub orphan: bool,
    /// The call on which the application hangs or dies again and again.
    pub stuck: Option<(Slot, Bytes)>,
    /// How often poisonous calls struck here.
    pub poisoned: BTreeMap<Bytes, u32>,
    /// The first slot of which a call was aborted.
    pub undone: Option<Slot>,
    /// Its application answered wrongly at some time, or its state came from one that did.
    pub differed: bool,
    waiters: BTreeMap<Tag, Vec<Waiter>>,
    inbox: Vec<Verified>,
    turn_planned: bool,
    votes: BTreeMap<(usize, Epoch), Vec<Vote>>,
    /// Reads past the log.
    pub(super) reads: Reads,
}

impl Server {
    /// A process that was never started.
    #[must_use]
    pub fn new(clock: Clock, disk: Disk, index: usize, options: &Options) -> Self {
        let first = options.cluster.member(ReplicaId(index as u32));
        Self {
            witness: options.witnesses[index],
            history: first.map(|_| Configuration::first(options.cluster.clone())),
            waiting: false,
            retired: first.is_none(),
            members: Vec::new(),
            replica: None,
            life: 0,
            clock,
            wake_at: None,
            paused_until: Time::ZERO,
            lags_until: Time::ZERO,
            stalled_until: Time::ZERO,
            dies_after: None,
            draining: false,
            member_life: mesh::ids::Life(0),
            learner: false,
            reads: Reads::default(),
            granted_at: 0,
            disk,
            full_until: Time::ZERO,
            snapshots: BTreeMap::new(),
            needs: Slot(0),
            fetched: Slot(0),
            fetch: None,
            serving: BTreeMap::new(),
            app: App::default(),
            answered: Slot(0),
            orphan: false,
            stuck: None,
            poisoned: BTreeMap::new(),
            undone: None,
            differed: false,
            waiters: BTreeMap::new(),
            inbox: Vec::new(),
            turn_planned: false,
            votes: BTreeMap::new(),
        }
    }

    /// It lost something that it held, and has not got it back.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.learner || self.granted_at > self.disk.durable() || self.is_unsound()
    }

    /// What it has on its disk, or in its application, is not what it was.
    #[must_use]
    pub fn is_unsound(&self) -> bool {
        let rotten = self.snapshots.last_key_value().is_some_and(|(_, newest)| newest.rotten);
        self.disk.is_spoiled() || rotten || self.whole_snapshot() < self.needs || self.is_tainted()
    }

    /// Wrong answers are in its application's state, or in a snapshot of it.
    #[must_use]
    pub fn is_tainted(&self) -> bool {
        self.app.wrong || self.app.tainted || self.snapshots.values().any(|snapshot| snapshot.tainted)
    }

    /// The newest snapshot that is not rotten; 0 without one.
    #[must_use]
    pub fn whole_snapshot(&self) -> Slot {
        let whole = self.snapshots.iter().rev().find(|(_, snapshot)| !snapshot.rotten);
        whole.map_or(Slot(0), |(slot, _)| *slot)
    }

    /// What ends with the process.
    pub fn end(&mut self) {
        self.replica = None;
        self.waiting = false;
        self.life += 1;
        self.wake_at = None;
        self.dies_after = None;
        self.draining = false;
        self.paused_until = Time::ZERO;
        self.waiters.clear();
        self.inbox.clear();
        self.votes.clear();
        self.reads = Reads::default();
        self.turn_planned = false;
        self.fetch = None;
        self.serving.clear();
        self.stuck = None;
    }

    /// The link of a SMaRtClient broke.
    pub fn forget(&mut self, smart: usize) {
        for waiters in self.waiters.values_mut() {
            waiters.retain(|waiter| waiter.smart != smart);
        }
        self.waiters.retain(|_, waiters| !waiters.is_empty());
        self.reads.forget(smart);
    }
}

impl World {
    /// The only caller of [`Replica::step`].
    pub(super) fn step_server(&mut self, index: usize, input: Input) -> Verdict {
        if self.servers[index].replica.is_none() {
            return Ok(());
        }
        self.report_health(index);
        let server = &mut self.servers[index];
        self.counters.steps += 1;
        self.trace.note(&(self.now, index));
        self.trace.line(self.now, format_args!("server {index} < {input:?}"));
        let mut out = std::mem::take(&mut self.outputs);
        let Some(replica) = server.replica.as_mut() else { return Ok(()) };
        replica.step(server.clock.local(self.now), input, &mut out);
        let mut verdict = Ok(());
        for output in out.drain(..) {
            self.trace.note(&std::mem::discriminant(&output));
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
        self.note_vote(index);
        Ok(())
    }

    /// The checkers hear what a replica has, in truth.
    pub(super) fn report_health(&mut self, index: usize) {
        let server = &self.servers[index];
        let known = server.snapshots.last_key_value().map_or(Slot(0), |(slot, _)| *slot);
        let snapshots = (known, server.whole_snapshot());
        self.checks.on_health(index, snapshots, server.is_damaged(), server.is_tainted());
    }

    /// A new life may have got its vote.
    fn note_vote(&mut self, index: usize) {
        let server = &mut self.servers[index];
        let Some(replica) = server.replica.as_ref().filter(|_| server.learner) else { return };
        let own = replica.configuration().cluster.member(ReplicaId(index as u32));
        // A learner that has the incarnation has nothing to prove.
        let learns = own.is_some_and(|own| own.life == server.member_life && !own.votes);
        if learns || !matches!(replica.status().role, Role::Learner | Role::Removed) {
            server.learner = false;
            server.granted_at = server.disk.asked();
        }
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
                if self.servers[index].full_until > self.now && self.may_crash(index, false) {
                    self.counters.full_disks += 1;
                    self.servers[index].dies_after = Some((0, false));
                    return Ok(());
                }
                self.checks.on_persist(index, lsn, &record)?;
                if self.servers[index].disk.append(lsn, record) {
                    self.sync(index);
                }
            }
            Output::Reset { run, snapshot } => return self.reset_app(index, run, snapshot),
            Output::Resume { run } => return self.resume_app(index, run),
            Output::Execute { run, slot, time, operations, patient } => {
                for operation in &operations {
                    if let mesh::order::Operation::Call { bytes, .. } = operation {
                        self.forger.on_call(bytes)?;
                    }
                }
                return self.hand_over(
                    index,
                    (slot, time),
                    super::app::Waiting { run, slot, read: None, operations, patient },
                );
            }
            Output::Read { run, read } => self.read(index, run, read),
            Output::ReadAnswer { read, slot } => return self.answer_read(index, read, slot),
            Output::ReadVoid { read, .. } => self.void_read(index, read),
            Output::Dump { run, image } => return self.dump(index, run, image),
            Output::Cut { through } => return self.cut(index, through),
            Output::Transfer { from, least } => self.transfer(index, from, least),
            Output::Discard { after } => {
                self.servers[index].snapshots.retain(|slot, _| *slot <= after);
                self.servers[index].app.dumping = false;
            }
            Output::Reply { tag, slot, form, outcome } => self.serve(index, tag, slot, form, outcome.as_ref()),
            Output::Steer { tag, steer } => {
                for waiter in self.servers[index].waiters.remove(&tag).unwrap_or_default() {
                    self.send_served(index, waiter.smart, waiter.epoch, Served::Steer(tag, steer));
                }
            }
            Output::Changed { token, result } => return self.on_changed(token, result),
            Output::Reconfigured(configuration) => self.on_reconfigured(index, &configuration),
            Output::Event(event) => return self.on_event(index, &event),
        }
        Ok(())
    }

    /// The members are others; what those are served that are none any more is not kept for them.
    fn on_reconfigured(&mut self, index: usize, configuration: &Configuration) {
        let server = &mut self.servers[index];
        server.members = configuration.cluster.members.iter().map(|member| member.id).collect();
        for (by, serving) in &mut server.serving {
            if !server.members.contains(&ReplicaId(*by as u32)) {
                serving.forget();
                let event = Event::ServingDue { server: index, life: server.life, by: *by };
                self.queue.push(self.now + super::TICK, event);
            }
        }
    }

    fn on_event(&mut self, index: usize, event: &Told) -> Verdict {
        let counters = &mut self.counters;
        match event {
            Told::Leading { .. } => counters.elections += 1,
            Told::Suspected { .. } => counters.suspicions += 1,
            Told::Silent { .. } => counters.silences += 1,
            Told::Aborted { at, tag } => {
                counters.aborts += 1;
                self.aborted.insert(*tag);
                let undone = &mut self.servers[index].undone;
                *undone = Some(undone.map_or(at.slot, |first| first.min(at.slot)));
            }
            Told::Rejoined { own, .. } => counters.rejoins += u64::from(*own),
            Told::Rebuilt { .. } => counters.rebuilds += 1,
            Told::Diverged { .. } => {
                counters.divergences += 1;
                return self.checks.on_diverged(index);
            }
            Told::NoAgreement { .. } => return self.checks.on_no_agreement(index),
            Told::Superseded => return self.checks.on_superseded(index),
            // Who answered wrongly once says something else the second time; so does who executed what was then aborted.
            Told::ReplayDiffers { tag, slot, .. }
                if !self.servers[index].differed && self.servers[index].undone.is_none_or(|first| *slot < first) =>
            {
                let what = format!("replica {index}: a replay of {tag:?} in slot {slot} gave another reply");
                return Violation::raise("execution", what);
            }
            Told::OtherBody { tag } => {
                let what = format!("replica {index}: {tag:?} came with two bodies");
                return Violation::raise("exactly-once", what);
            }
            Told::Nonsense { from, what } => {
                let what = format!("replica {index} calls a message of replica {from} nonsense: {what}");
                return Violation::raise("nonsense", what);
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn send_peer(&mut self, from: usize, to: To, message: &Message) {
        let waits = |request: &Request| Some(self.servers[from].waiters.get(&request.tag())?.first()?.smart);
        let desks: Vec<Option<usize>> = match message {
            Message::Accept { batch, .. } => batch.requests.iter().map(waits).collect(),
            _ => Vec::new(),
        };
        for other in 0..self.servers.len() {
            let meant = match to {
                To::One(one) => one.0 as usize == other,
                To::Others => other != from && self.servers[from].members.contains(&ReplicaId(other as u32)),
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
                let mut at = self.now + self.network.delay();
                if self.servers[other].lags_until > self.now {
                    at = at + self.chance.duration(Duration::from_millis(500));
                }
                let (member_life, life) = (self.servers[from].member_life, self.servers[other].life);
                let from = ReplicaId(from as u32);
                let desks = desks.clone();
                self.queue.push(at, Event::Peer { from, member_life, to: other, life, message, desks });
            }
        }
    }

    /// Who waits at a leader for the outcomes of what it proposes gets the votes of whoever is sent that.
    pub(super) fn expect(&mut self, index: usize, message: &Message, desks: &[Option<usize>]) {
        let Message::Accept { slot, batch, .. } = message else { return };
        let server = &mut self.servers[index];
        if server.replica.as_ref().is_none_or(|replica| *slot <= replica.executed()) {
            return;
        }
        for (request, smart) in batch.requests.iter().zip(desks) {
            let Some(smart) = *smart else { continue };
            let Some(epoch) = self.network.epoch(Process::Smart(smart), Process::Server(index)) else { continue };
            let waiters = server.waiters.entry(request.tag()).or_default();
            if waiters.iter().all(|waiter| waiter.smart != smart) {
                waiters.push(Waiter { smart, epoch, whole: false });
            }
        }
    }

    fn sync(&mut self, index: usize) {
        let server = &mut self.servers[index];
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
        // A failed sync is never tried again: the process ends, and what it wrote may be there or not.
        if self.disk_chance.chance(self.options.disk.failing) && self.may_crash(index, false) {
            self.counters.failed_syncs += 1;
            return self.crash_server(index, false);
        }
        if self.servers[index].disk.synced() {
            self.sync(index);
        }
        self.counters.records += 1;
        self.checks.on_persisted(index, upto)?;
        self.step_server(index, Input::Persisted { lsn: upto })
    }

    /// A SMaRtClient's request came.
    pub(super) fn on_submit(&mut self, index: usize, smart: usize, epoch: Epoch, (request, whole): (Request, bool)) {
        let tag = request.tag();
        if let mesh::wire::Body::Read(requests) = request.body {
            self.on_submit_read(index, (smart, epoch), tag, requests);
            return self.plan_turn(index);
        }
        let forged = self.forge(&request).and_then(|forged| self.believe(index, forged).ok());
        let verified = self.believe(index, request);
        let server = &mut self.servers[index];
        server.inbox.extend(forged);
        match verified {
            Ok(verified) => {
                server.waiters.entry(tag).or_default().push(Waiter { smart, epoch, whole });
                server.inbox.push(verified);
            }
            Err(why) => self.send_served(index, smart, epoch, Served::Steer(tag, Steer::Rejected(why))),
        }
        self.plan_turn(index);
    }

    fn plan_turn(&mut self, index: usize) {
        let server = &mut self.servers[index];
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
        let reads: Vec<ReadId> = server.reads.take_fresh();
        self.step_server(index, Input::Requests(requests))?;
        if !reads.is_empty() {
            self.step_server(index, Input::Reads(reads))?;
        }
        match &self.servers[index].replica {
            Some(replica) => bounds::on_status(index, &replica.status(), &self.options.limits),
            None => Ok(()),
        }
    }

    fn serve(&mut self, index: usize, tag: Tag, slot: Slot, form: Digest, outcome: Option<&Outcome>) {
        for waiter in self.servers[index].waiters.remove(&tag).unwrap_or_default() {
            match (outcome, waiter.whole) {
                (Some(outcome), true) => {
                    let answer = Answer { tag, slot, form, outcome: outcome.clone(), signed: None };
                    self.send_served(index, waiter.smart, waiter.epoch, Served::Answer(answer));
                }
                _ => {
                    let votes = self.servers[index].votes.entry((waiter.smart, waiter.epoch)).or_default();
                    votes.push(Vote { tag, slot, form, signed: None });
                }
            }
        }
    }

    fn send_votes(&mut self, index: usize) {
        for ((smart, epoch), votes) in std::mem::take(&mut self.servers[index].votes) {
            self.send_served(index, smart, epoch, Served::Votes(votes));
        }
    }

    pub(super) fn send_served(&mut self, server: usize, smart: usize, epoch: Epoch, served: Served) {
        let blocked = self.network.blocked(Process::Server(server), Process::Smart(smart));
        if blocked || self.network.loses_stream() {
            return;
        }
        let at = self.now + self.network.delay();
        let leads = self.servers[server].replica.as_ref().and_then(Replica::reign);
        self.queue.push(at, Event::Served { smart, server, epoch, leads, served });
    }
}
