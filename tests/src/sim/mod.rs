//! The simulator: a whole cluster (replicas with disks and applications, SMaRtClients, senders with clients) in one
//! thread, under one seed. A first phase breaks things and checks safety after every step; a second one heals
//! everything and demands that the cluster comes to one state and answers every call.
//!
//! It never reads a clock, draws no chance but the seed's and keeps no map in random order: a seed is a run.

pub mod app;
pub mod application;
pub mod clock;
pub mod crash;
pub mod disk;
pub mod event;
pub mod forger;
pub mod links;
pub mod native;
pub mod network;
pub mod operator;
pub mod options;
pub mod reads;
pub mod sender;
pub mod server;
pub mod smart;
pub mod snapshots;
pub mod trace;
pub mod transfer;
pub mod workload;

use crate::check::convergence::{self, Final};
use crate::check::enough::{Counters, Demand};
use crate::check::{Checks, Verdict, Violation};
use clock::{Clock, Time};
use event::{Event, Queue};
use mesh::client::{sender as sender_core, smart_client};
use mesh::config::Durability;
use mesh::ids::{Ballot, ReplicaId};
use mesh::order::{Input, Output, Role, Status};
use mesh::rng::Rng;
use mesh::time::Duration;
use mesh::wire::Tag;
use network::Network;
use options::Options;
use sender::SenderProcess;
use server::Server;
use smart::Smart;
use std::collections::BTreeSet;
use std::fmt;
use trace::Trace;

/// A process of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Process {
    /// A replica.
    Server(usize),
    /// A SMaRtClient.
    Smart(usize),
    /// A sender.
    Sender(usize),
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(index) => write!(f, "server {index}"),
            Self::Smart(index) => write!(f, "SMaRtClient {index}"),
            Self::Sender(index) => write!(f, "sender {index}"),
        }
    }
}

/// What a run that passed was like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What happened.
    pub counters: Counters,
    /// The number of its trace: the same seed gives the same number.
    pub trace: u64,
    /// How long it was, in simulated time.
    pub simulated: Duration,
    /// Events.
    pub events: u64,
}

/// A run that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed} at {at}: {violation}")]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// When.
    pub at: Time,
    /// What did not hold.
    pub violation: Violation,
}

/// After healing, so long until clients demand that every call succeeds.
const RECOVERY: Duration = Duration::from_secs(6);
/// After healing, so long until everything must be at rest.
const CONVERGENCE: Duration = Duration::from_secs(90);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(200);
/// A deadline that has passed is met after that.
const TICK: Duration = Duration::from_micros(1);
/// Events of a run: more means that something spins.
const EVENTS_MAX: u64 = 1_500_000;

/// A cluster and everything around it.
#[derive(Debug)]
pub struct World {
    options: Options,
    now: Time,
    queue: Queue,
    network: Network,
    servers: Vec<Server>,
    smarts: Vec<Smart>,
    senders: Vec<SenderProcess>,
    checks: Checks,
    counters: Counters,
    trace: Trace,
    outputs: Vec<Output>,
    disagreements: Vec<(ReplicaId, Tag)>,
    forger: forger::Forger,
    aborted: BTreeSet<Tag>,
    operator: operator::Operator,
    // What each source of chance draws is its own, so that more of one does not shift the others.
    chance: Rng,
    clock_chance: Rng,
    disk_chance: Rng,
    app_chance: Rng,
    workload_chance: Rng,
    native_chance: Rng,
    connections: u64,
    values: u64,
    calls_left: u64,
    lossy_messages: u64,
    loss: u32,
    duplication: u32,
    healed: bool,
    demanding: bool,
    events: u64,
}

/// Runs one seed.
///
/// # Errors
/// The first property that did not hold.
pub fn run(seed: u64, printing: bool) -> Result<Report, Failure> {
    let mut world = World::new(seed, printing);
    match world.live() {
        Ok(()) => Ok(Report {
            counters: world.counters,
            trace: world.trace.hash(),
            simulated: world.now.since(Time::ZERO),
            events: world.events,
        }),
        Err(violation) => Err(Failure { seed, at: world.now, violation }),
    }
}

impl World {
    fn new(seed: u64, printing: bool) -> Self {
        let mut rng = Rng::from_seed(seed);
        let options = Options::swarm(&mut rng.fork());
        let network = Network::new(options.network, rng.fork());
        let durability = options.cluster.durability;
        let mut clock_chance = rng.fork();
        let mut clock = || Clock::start(Time::ZERO, &options.clock, &mut clock_chance);
        let servers = (0..options.replicas)
            .map(|index| Server::new(clock(), disk::Disk::new(durability, options.segment_records), index, &options))
            .collect();
        let smarts = (0..options.smart_clients).map(|_| Smart::new(clock())).collect();
        let senders = (0..options.senders).map(|_| SenderProcess::new(clock())).collect();
        let checks =
            Checks::new(options.replicas, &options.cluster, options.limits.clone(), durability == Durability::Memory);
        let trace = Trace::new(printing);
        trace.line(Time::ZERO, format_args!("{options:#?}"));
        Self {
            now: Time::ZERO,
            queue: Queue::default(),
            network,
            servers,
            smarts,
            senders,
            checks,
            counters: Counters::default(),
            trace,
            outputs: Vec::new(),
            disagreements: Vec::new(),
            aborted: BTreeSet::new(),
            operator: operator::Operator::default(),
            chance: rng.fork(),
            clock_chance,
            disk_chance: rng.fork(),
            app_chance: rng.fork(),
            workload_chance: rng.fork(),
            native_chance: rng.fork(),
            forger: forger::Forger::default(),
            connections: 0,
            values: 0,
            calls_left: options.workload.calls,
            lossy_messages: 0,
            loss: options.network.loss,
            duplication: options.network.duplication,
            healed: false,
            demanding: false,
            events: 0,
            options,
        }
    }

    fn live(&mut self) -> Verdict {
        for index in 0..self.options.n() {
            self.start_server(index)?;
        }
        (0..self.smarts.len()).for_each(|index| self.start_smart(index));
        (0..self.senders.len()).for_each(|index| self.start_sender(index));
        self.plan_faults();
        self.run_until(Time::ZERO + self.options.trouble)?;
        self.heal()?;
        let healed_at = self.now;
        self.run_until(healed_at + RECOVERY)?;
        self.demanding = true;
        // Bounds can be so tight that a leader looks idle to a follower although it is full.
        let led = if self.options.tight { None } else { Some(self.settled_leader(healed_at)?) };
        let ordered = self.checks.membership().ordered();
        while !self.is_at_rest() {
            if self.now.since(healed_at) > CONVERGENCE {
                let what = format!("not at rest {CONVERGENCE:?} after healing; {}", self.what_is_stuck());
                return Violation::raise("liveness", what);
            }
            self.run_until(self.now + LOOK)?;
        }
        if led.is_some() && ordered == self.checks.membership().ordered() && Some(self.leading()?) != led {
            return Violation::raise(
                "stability",
                format!("the leader changed with nothing broken; {}", self.what_is_stuck()),
            );
        }
        self.judge()
    }

    /// The leader, once changes of the members that were under way are done: behind each it prepares anew.
    fn settled_leader(&mut self, healed_at: Time) -> Result<(ReplicaId, Ballot), Violation> {
        loop {
            let led = self.leading();
            if led.is_ok() || self.is_settled() || self.now.since(healed_at) > CONVERGENCE {
                return led;
            }
            self.run_until(self.now + LOOK)?;
        }
    }

    /// Who leads, ready to propose, and is followed by everybody.
    fn leading(&self) -> Result<(ReplicaId, Ballot), Violation> {
        let statuses = self.statuses();
        let leader = statuses.iter().find(|status| status.ready).and_then(|s| Some((s.leader?, s.ballot)));
        match leader {
            Some((leader, ballot))
                if statuses
                    .iter()
                    .all(|s| s.role == Role::Learner || (s.leader == Some(leader) && s.ballot == ballot)) =>
            {
                Ok((leader, ballot))
            }
            _ => {
                let what = format!("no leader {RECOVERY:?} after healing; {}", self.what_is_stuck());
                Err(Violation { check: "stability", what })
            }
        }
    }

    fn run_until(&mut self, until: Time) -> Verdict {
        while self.queue.next_at().is_some_and(|at| at <= until) {
            let Some((at, event)) = self.queue.pop() else { break };
            self.now = at;
            self.events += 1;
            if self.events > EVENTS_MAX {
                return Violation::raise("liveness", format!("more than {EVENTS_MAX} events: something spins"));
            }
            self.dispatch(event)?;
            self.look_at_membership();
        }
        self.now = until;
        Ok(())
    }

    fn dispatch(&mut self, event: Event) -> Verdict {
        if let Some((process, life)) = target(&event) {
            if life.is_some_and(|life| life != self.life(process)) {
                return Ok(());
            }
            let paused = *self.paused_until_mut(process);
            if paused > self.now {
                // Links do not wait for each other: what came first over one may be looked at after what came over another.
                let late = self.options.reading && matches!(event, Event::Peer { .. });
                let late = if late { self.chance.duration(Duration::from_millis(30)) } else { Duration::ZERO };
                self.queue.push(paused + late, event);
                return Ok(());
            }
        }
        match event {
            Event::Peer { from, member_life: life, to, message, desks, .. } => {
                self.expect(to, &message, &desks);
                self.step_server(to, Input::Message { from, life, message })
            }
            Event::Submit { smart, server, epoch, request, whole } => {
                if self.holds(Process::Smart(smart), Process::Server(server), epoch) {
                    self.on_submit(server, smart, epoch, (request, whole));
                }
                Ok(())
            }
            Event::Served { smart, server, epoch, leads, served } => {
                if !self.holds(Process::Smart(smart), Process::Server(server), epoch) {
                    return Ok(());
                }
                self.on_served(smart, server, leads, served)
            }
            Event::Ask { sender, smart, epoch, ask } => {
                if !self.holds(Process::Sender(sender), Process::Smart(smart), epoch) {
                    return Ok(());
                }
                self.on_ask(smart, sender, epoch, ask)
            }
            Event::Told { sender, smart, epoch, tag, told } => {
                if !self.holds(Process::Sender(sender), Process::Smart(smart), epoch) {
                    return Ok(());
                }
                let endpoint = sender_core::Endpoint(smart as u64);
                self.step_sender(sender, sender_core::Input::Told { endpoint, tag, told })
            }
            Event::StreamGone { smart, ticket, .. } => self.on_stream_gone(smart, ticket),
            Event::LinkCheck { client, server } => self.on_link_check(client, server),
            Event::Synced { server, upto, .. } => self.on_synced(server, upto),
            Event::Turn { server, .. } => self.on_turn(server),
            Event::AppDone { .. }
            | Event::AppRestored { .. }
            | Event::AppResumed { .. }
            | Event::AppSilent { .. }
            | Event::AppStale { .. }
            | Event::Dumped { .. } => self.dispatch_app(event),
            Event::TransferAsk { server, by, by_life, ask, .. } => self.on_transfer_ask(server, by, by_life, ask),
            Event::TransferAnswer { server, from, ask, answer, .. } => {
                self.on_transfer_answer(server, from, &ask, answer)
            }
            Event::TransferDue { server, .. } => self.on_transfer_due(server),
            Event::Received { server, image, dump, .. } => self.on_received(server, image, &dump),
            Event::ServingDue { server, by, .. } => self.on_serving_due(server, by),
            Event::Operator => self.operate(),
            Event::Waits { .. } | Event::WhichCluster { .. } | Event::Cluster { .. } => self.dispatch_waiting(event),
            Event::Retire { server, replace } => self.on_retire(server, replace),
            Event::Wake { process, .. } => self.on_wake(process),
            Event::Client { sender, client, .. } => self.on_client(sender, client),
            Event::Native { sender, native, .. } => self.on_native(sender, native),
            Event::Overdue { sender, life, connection, call } if self.senders[sender].life == life => {
                self.on_overdue(sender, connection, call)
            }
            Event::Overdue { .. } => Ok(()),
            Event::Fault(fault) => self.strike(fault),
            Event::Start(process) => self.start(process),
            Event::Stop(process, _) => self.stop(process),
            Event::Mend { partition } => {
                self.network.mend(partition);
                self.check_links();
                Ok(())
            }
        }
    }

    /// What a server without history says, and hears.
    fn dispatch_waiting(&mut self, event: Event) -> Verdict {
        match event {
            Event::Waits { server, .. } => self.on_waits(server),
            Event::WhichCluster { server, by, by_life, .. } => self.on_which_cluster(server, by, by_life),
            Event::Cluster { server, from, configuration, .. } => {
                return self.on_cluster(server, from, *configuration);
            }
            _ => {}
        }
        Ok(())
    }

    /// What comes of the applications.
    fn dispatch_app(&mut self, event: Event) -> Verdict {
        match event {
            Event::AppDone { server, life } if self.servers[server].app.life == life => self.on_app_done(server),
            Event::AppRestored { server, run, snapshot, .. } => self.on_app_restored(server, run, snapshot),
            Event::AppResumed { server, run, .. } => self.on_app_resumed(server, run),
            Event::AppSilent { server, life, answered } if self.servers[server].app.life == life => {
                self.on_app_silent(server, answered)
            }
            Event::Dumped { server, life, image } if self.servers[server].app.life == life => {
                self.on_dumped(server, image)
            }
            Event::AppStale { server, run, slot, .. } => self.on_app_stale(server, run, slot),
            // Of a life that is over.
            _ => Ok(()),
        }
    }

    fn start(&mut self, process: Process) -> Verdict {
        match process {
            Process::Server(index) => return self.start_server(index),
            Process::Smart(index) => self.start_smart(index),
            Process::Sender(index) => self.start_sender(index),
        }
        Ok(())
    }

    fn life(&self, process: Process) -> event::Life {
        match process {
            Process::Server(index) => self.servers[index].life,
            Process::Smart(index) => self.smarts[index].life,
            Process::Sender(index) => self.senders[index].life,
        }
    }

    fn runs(&self, process: Process) -> bool {
        match process {
            Process::Server(index) => self.servers[index].replica.is_some(),
            Process::Smart(index) => self.smarts[index].core.is_some(),
            Process::Sender(index) => self.senders[index].core.is_some(),
        }
    }

    fn paused_until_mut(&mut self, process: Process) -> &mut Time {
        match process {
            Process::Server(index) => &mut self.servers[index].paused_until,
            Process::Smart(index) => &mut self.smarts[index].paused_until,
            Process::Sender(index) => &mut self.senders[index].paused_until,
        }
    }

    /// Plans a process's next wake-up.
    fn rearm(&mut self, process: Process) {
        let (deadline, clock, wake_at, life) = match process {
            Process::Server(index) => {
                let server = &mut self.servers[index];
                let Some(replica) = &server.replica else { return };
                (replica.deadline(), server.clock, &mut server.wake_at, server.life)
            }
            Process::Smart(index) => {
                let smart = &mut self.smarts[index];
                let Some(core) = &smart.core else { return };
                (core.deadline(), smart.clock, &mut smart.wake_at, smart.life)
            }
            Process::Sender(index) => {
                let sender = &mut self.senders[index];
                let Some(core) = &sender.core else { return };
                (core.deadline(), sender.clock, &mut sender.wake_at, sender.life)
            }
        };
        let Some(deadline) = deadline else { return };
        let mut due = clock.due(deadline).max(self.now + TICK);
        if self.chance.chance(self.options.timer_faults) {
            let late = self.chance.duration(Duration::from_millis(30));
            due = if self.chance.chance(500) { due + late } else { self.now + due.since(self.now) / 2 };
        }
        if wake_at.is_none_or(|at| due < at || at < self.now) {
            *wake_at = Some(due);
            self.queue.push(due, Event::Wake { process, life });
        }
    }

    fn on_wake(&mut self, process: Process) -> Verdict {
        let wake_at = match process {
            Process::Server(index) => &mut self.servers[index].wake_at,
            Process::Smart(index) => &mut self.smarts[index].wake_at,
            Process::Sender(index) => &mut self.senders[index].wake_at,
        };
        if wake_at.is_none_or(|at| at > self.now) {
            return Ok(());
        }
        *wake_at = None;
        match process {
            Process::Server(index) => self.step_server(index, Input::Timeout),
            Process::Smart(index) => self.step_smart(index, smart_client::Input::Timeout),
            Process::Sender(index) => self.step_sender(index, sender_core::Input::Timeout),
        }
    }

    fn statuses(&self) -> Vec<Status> {
        let members = self.checks.membership().current().members.keys();
        members.filter_map(|index| self.servers[*index].replica.as_ref()).map(mesh::order::Replica::status).collect()
    }

    fn is_at_rest(&self) -> bool {
        let satisfied = self.senders.iter().all(|sender| {
            let quiet = sender.core.as_ref().is_some_and(|core| core.outstanding() == 0);
            let settled = sender.natives.iter().all(native::Native::is_at_rest);
            quiet && settled && sender.clients.iter().all(|client| client.satisfied >= self.options.workload.demanded)
        });
        let statuses = self.statuses();
        let Some(decided) = statuses.first().map(|status| status.decided) else { return false };
        let same = statuses.iter().all(|s| {
            let whole = s.role != Role::Learner && s.silent.is_none() && !s.quarantined && !s.changing;
            s.decided == decided && s.executed == decided && s.app_running && whole
        });
        let members = &self.checks.membership().current().members;
        let clean = !members.keys().any(|index| self.servers[*index].is_tainted());
        satisfied && same && clean && self.is_settled() && statuses.len() == members.len()
    }

    fn what_is_stuck(&self) -> String {
        let mut lines = Vec::new();
        for (index, sender) in self.senders.iter().enumerate() {
            let outstanding = sender.core.as_ref().map_or(0, mesh::client::Sender::outstanding);
            let missing = sender.clients.iter().filter(|c| c.satisfied < self.options.workload.demanded).count();
            let doubts = sender.natives.iter().filter(|native| native.is_in_doubt()).count();
            lines.push(format!(
                "sender {index}: {outstanding} outstanding, {missing} clients without their replies, {doubts} native \
                 clients in doubt"
            ));
        }
        let running = self.servers.iter().enumerate();
        let running = running.filter_map(|(index, server)| Some((index, server.replica.as_ref()?.status())));
        for (index, status) in running {
            lines.push(format!(
                "server {index}: {:?} epoch {} changing {} {} leader {:?} ready {} decided {} executed {} settled {} last {} held {} app {} \
                 first {} snapshot {} silent {:?} quarantined {} tainted {}",
                status.role,
                status.epoch,
                status.changing,
                status.ballot,
                status.leader,
                status.ready,
                status.decided,
                status.executed,
                status.settled,
                status.log_last,
                status.held,
                status.app_running,
                status.log_first,
                status.snapshot,
                status.silent,
                status.quarantined,
                self.servers[index].is_tainted()
            ));
        }
        let waiting = (0..self.servers.len()).filter(|index| self.servers[*index].waiting).collect::<Vec<_>>();
        let current = self.checks.membership().current();
        lines.push(format!("waiting {waiting:?}, operator {:?}, members {current:?}", self.operator));
        format!("state:\n  {}", lines.join("\n  "))
    }

    fn judge(&mut self) -> Verdict {
        self.counters.slots = self.checks.slots() as u64;
        (0..self.servers.len()).for_each(|index| self.report_health(index));
        self.checks.at_end()?;
        let of_member = |index: &usize| {
            let server = &self.servers[*index];
            let state = (!server.witness).then(|| server.app.store());
            Some(Final { status: server.replica.as_ref()?.status(), state })
        };
        let members = self.checks.membership().current().members.keys();
        let finals: Vec<Final<'_>> = members.filter_map(of_member).collect();
        convergence::check(&finals, self.checks.model())?;
        // What is no call may be ordered twice, with another outcome the second time.
        // What an abort takes back is executed anew, with all that comes after it; and a wrong answer is meant to be found.
        let meant = |(replica, tag): &&(ReplicaId, Tag)| {
            let server = &self.servers[replica.0 as usize];
            let excused = server.differed || server.undone.is_some() || self.aborted.contains(tag);
            tag.kind == mesh::wire::Kind::Call && !excused
        };
        if let Some((replica, tag)) = self.disagreements.iter().find(meant) {
            let what = format!("a SMaRtClient found replica {replica} to disagree on {tag:?}");
            return Violation::raise("disagreement", what);
        }
        Demand { least: self.demand() }.check(&self.counters)
    }
}

/// Which process an event is for, and in which life; what it stands still for waits.
fn target(event: &Event) -> Option<(Process, Option<event::Life>)> {
    Some(match event {
        Event::Peer { to, life, .. } => (Process::Server(*to), Some(*life)),
        Event::Submit { server, .. } => (Process::Server(*server), None),
        Event::Served { smart, .. } | Event::Ask { smart, .. } => (Process::Smart(*smart), None),
        Event::Told { sender, .. } => (Process::Sender(*sender), None),
        Event::StreamGone { smart, life, .. } => (Process::Smart(*smart), Some(*life)),
        Event::Synced { server, life, .. }
        | Event::Turn { server, life }
        | Event::AppRestored { server, life, .. }
        | Event::AppResumed { server, life, .. }
        | Event::TransferAsk { server, life, .. }
        | Event::TransferAnswer { server, life, .. }
        | Event::TransferDue { server, life }
        | Event::Received { server, life, .. }
        | Event::ServingDue { server, life, .. }
        | Event::Waits { server, life }
        | Event::WhichCluster { server, life, .. }
        | Event::Cluster { server, life, .. }
        | Event::AppStale { server, life, .. } => (Process::Server(*server), Some(*life)),
        Event::AppDone { server, .. } | Event::AppSilent { server, .. } | Event::Dumped { server, .. } => {
            (Process::Server(*server), None)
        }
        Event::Wake { process, life } | Event::Stop(process, life) => (*process, Some(*life)),
        Event::Client { sender, life, .. } | Event::Native { sender, life, .. } => {
            (Process::Sender(*sender), Some(*life))
        }
        // The simulator's own look: a sender that stands still does not delay it.
        Event::LinkCheck { .. }
        | Event::Overdue { .. }
        | Event::Fault(_)
        | Event::Operator
        | Event::Retire { .. }
        | Event::Start(_)
        | Event::Mend { .. } => {
            return None;
        }
    })
}
