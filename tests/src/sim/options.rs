//! What a run is like: everything follows from the seed. Swarm testing (Groce et al., "Swarm Testing", ISSTA 2012): each
//! seed switches some kinds of fault off entirely and makes some limits tiny.

use super::app::AppFaults;
use super::clock::ClockFaults;
use super::crash::Fault;
use super::disk::DiskFaults;
use super::network::NetworkFaults;
use super::workload::Workload;
use mesh::auth::Signatures;
use mesh::client::sender::Lending;
use mesh::client::{ReplyVote, sender, smart_client};
use mesh::config::{ClusterConfig, Durability, SessionLimits, Snapshots};
use mesh::limits::{Limits, Timing};
use mesh::rng::Rng;
use mesh::time::Duration;

/// Everything that a run is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the replicas agree on at first.
    pub cluster: ClusterConfig,
    /// Replicas that there can be: the first members, and others that may be added.
    pub replicas: usize,
    /// Which of them have no application.
    pub witnesses: Vec<bool>,
    /// Their time-outs.
    pub timing: Timing,
    /// Their bounds.
    pub limits: Limits,
    /// SMaRtClients.
    pub smart_clients: usize,
    /// Their settings.
    pub smart_client: smart_client::Config,
    /// Senders.
    pub senders: usize,
    /// Their settings.
    pub sender: sender::Config,
    /// What the clients do.
    pub workload: Workload,
    /// Native clients of each sender, with sessions of their own.
    pub natives: usize,
    /// How bad the network is.
    pub network: NetworkFaults,
    /// When replicas take snapshots.
    pub snapshots: Option<Snapshots>,
    /// Bytes that a snapshot is longer by when it is sent: more than one chunk takes more than a megabyte.
    pub padding: usize,
    /// How slow disks are.
    pub disk: DiskFaults,
    /// Records of one segment of a journal.
    pub segment_records: usize,
    /// How slow applications are.
    pub app: AppFaults,
    /// How wrong clocks are.
    pub clock: ClockFaults,
    /// Which faults strike, and how long apart on the average.
    pub faults: Vec<(Fault, Duration)>,
    /// A process that ended starts again after that, at most.
    pub down_max: Duration,
    /// Of 1,000 messages between replicas, so many go through their encoding.
    pub encoded: u32,
    /// Of 1,000 deadlines, so many are met early, and late.
    pub timer_faults: u32,
    /// Of 1,000 lost applications, so many answer later.
    pub late_answers: u32,
    /// How long faults strike.
    pub trouble: Duration,
    /// Whether the run is about reads past the log, and whoever leads is what faults strike most.
    pub reading: bool,
    /// Whether bounds are so tight that a call may be refused, or its outcome unknown, although nothing is broken.
    pub tight: bool,
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Options {
    /// The options of a seed.
    #[must_use]
    pub fn swarm(rng: &mut Rng) -> Self {
        let n = *rng.choose(&[3, 3, 3, 3, 3, 3, 5, 5, 1]).unwrap_or(&3);
        let durability = match rng.below(8) {
            0 | 1 => Durability::Memory,
            2 => Durability::Async,
            _ => Durability::Sync,
        };
        let mut cluster = ClusterConfig::of(n, "line", durability);
        let reconfigures = rng.chance(400);
        let witnesses = witnesses(rng, &mut cluster, reconfigures);
        let mut limits = Limits::DEFAULT;
        let mut tight = false;
        sessions(rng, &mut cluster.sessions, &mut tight);
        bounds(rng, &mut limits, &mut tight);
        if rng.chance(200) {
            cluster.request_bytes = 200;
        }
        let snapshots = snapshots(rng, &mut limits, &mut tight);
        let smart_client = smart_client(rng, &cluster, &mut tight);
        // Where one reply is enough, an execution may be shown that an abort takes back (rule 29).
        let silences = smart_client.vote != ReplyVote::First || (n == 1 && !reconfigures);
        let k = cluster.sessions.window;
        let (long, timing) = (rng.chance(20), timing(rng));
        let trouble = if long { ms(rng.between(20_000, 60_000)) } else { ms(rng.between(2_000, 8_000)) };
        let mut workload = Workload::swarm(rng, cluster.request_bytes as usize, silences);
        if long {
            workload.calls = 3_000;
        }
        // So few sessions, and evicted so soon, that clients who want more take them from each other for ever.
        if cluster.sessions.sessions < 8 && cluster.sessions.retention_slots < 12 {
            workload.demanded = 0;
        }
        let mut options = Self {
            natives: 0,
            smart_clients: rng.between(1, 3) as usize,
            smart_client,
            senders: rng.between(1, 3) as usize,
            sender: sender(rng, k, workload.clients, &mut tight),
            workload,
            snapshots,
            padding: if rng.chance(10) { 2 << 20 } else { 0 },
            network: network(rng),
            disk: disk(rng),
            segment_records: rng.between(1, 30) as usize,
            app: app(rng, silences),
            clock: ClockFaults {
                drift_ppm: if rng.chance(500) { rng.below(50_000) } else { 0 },
                wall_off: if rng.chance(500) { Duration::from_secs(rng.below(7200)) } else { Duration::ZERO },
            },
            faults: faults(rng, n as usize, (durability, silences, reconfigures), trouble),
            down_max: ms(if rng.chance(500) { 300 } else { 4_000 }),
            encoded: if rng.chance(60) { 1000 } else { 0 },
            timer_faults: if rng.chance(300) { 100 } else { 0 },
            late_answers: if rng.chance(500) { 500 } else { 0 },
            trouble,
            reading: false,
            tight,
            cluster,
            replicas: witnesses.len(),
            witnesses,
            timing,
            limits,
        };
        if rng.chance(400) {
            options.natives = rng.between(1, 3) as usize;
        }
        if rng.chance(250) {
            options.cluster.request_signatures = Signatures::Required;
        }
        options.sender.reads = rng.chance(700);
        if rng.chance(200) && n > 1 && durability != Durability::Memory {
            options.read_much(rng, silences);
        }
        options
    }

    /// Much is read past the log, of few keys. Either leaders give way to others that they hear of late; or nothing is broken,
    /// and applications are so slow that calls are aborted which one of them has executed.
    fn read_much(&mut self, rng: &mut Rng, silences: bool) {
        (self.sender.reads, self.sender.lending) = (true, Lending::Pooled);
        self.sender.resend = ms(rng.between(300, 1_000));
        self.cluster.request_signatures = Signatures::Off;
        if self.smart_client.vote == ReplyVote::All {
            self.smart_client.vote = ReplyVote::Majority;
        }
        (self.workload.keys, self.workload.calls) = (rng.between(1, 2), 600);
        self.workload.clients = self.workload.clients.max(3);
        (self.workload.think_max, self.workload.pipeline) = (ms(rng.between(2, 20)), 1);
        (self.network.loss, self.network.stream_loss) = (self.network.loss.min(20), 0);
        self.network.delay_max = ms(rng.between(1, 3));
        self.trouble = self.trouble.max(ms(5_000));
        if silences && rng.chance(300) {
            self.faults.clear();
            (self.network.tail, self.workload.poison) = (0, 0);
            self.app.patience = Some(ms(rng.between(50, 200)));
            (self.app.slow, self.app.slow_max) = (rng.between(50, 150) as u32, ms(1_000));
            return;
        }
        self.reading = true;
        // A leader that was told to let another one lead goes on as before soon.
        self.timing.drain = ms(rng.between(200, 800));
        (self.network.tail, self.network.tail_max) = (rng.between(0, 60) as u32, ms(rng.between(100, 1_000)));
        self.faults.retain(|_| rng.chance(300));
        self.faults.retain(|(fault, _)| !matches!(fault, Fault::Drain | Fault::Pause | Fault::Partition));
        let often = self.trouble / 100 * rng.between(10, 25) as u32;
        self.faults.extend([Fault::Pause, Fault::Partition].map(|fault| (fault, often)));
    }

    /// Members of the cluster at first.
    #[must_use]
    pub fn n(&self) -> usize {
        self.cluster.members.len()
    }
}

fn snapshots(rng: &mut Rng, limits: &mut Limits, tight: &mut bool) -> Option<Snapshots> {
    if rng.chance(250) {
        return None;
    }
    limits.log_tail_slots = if rng.chance(700) { rng.below(8) } else { rng.below(100) };
    if rng.chance(80) {
        // The tail alone must not fill it.
        limits.log_tail_slots = rng.below(3);
        limits.log_bytes = rng.between(3_000, 15_000);
        limits.log_tail_bytes = limits.log_bytes / 4;
        *tight = true;
    }
    let every_bytes = if rng.chance(200) { rng.between(10, 500) } else { 1 << 30 };
    Some(Snapshots { every_requests: rng.between(2, 60), every_bytes })
}

fn disk(rng: &mut Rng) -> DiskFaults {
    DiskFaults {
        sync_max: ms(rng.between(0, 10)),
        slow: if rng.chance(300) { rng.below(100) as u32 } else { 0 },
        slow_max: ms(rng.between(10, 1_000)),
        failing: if rng.chance(150) { rng.below(10) as u32 } else { 0 },
        failing_snapshots: if rng.chance(200) { rng.below(500) as u32 } else { 0 },
    }
}

fn app(rng: &mut Rng, silences: bool) -> AppFaults {
    let patience = ms(rng.between(100, 2_500));
    AppFaults {
        execute_max: Duration::from_micros(rng.between(0, 3_000)),
        slow: if rng.chance(300) { rng.below(100) as u32 } else { 0 },
        slow_max: ms(rng.between(10, 3_000)),
        reset_max: ms(rng.between(0, 500)),
        dump_max: ms(if rng.chance(700) { 20 } else { 2_000 }),
        patience: silences.then_some(patience),
        outlives: if rng.chance(600) { rng.below(1_000) as u32 } else { 0 },
    }
}

fn timing(rng: &mut Rng) -> Timing {
    let default = Timing::DEFAULT;
    let drain = if rng.chance(500) { ms(rng.between(100, 2_500)) } else { default.drain };
    if rng.chance(500) {
        return Timing { drain, ..default };
    }
    // All of them shorter, by the same factor.
    let tenths = rng.between(2, 9) as u32;
    Timing {
        election_timeout: default.election_timeout * tenths / 10,
        election_jitter: default.election_jitter * tenths / 10,
        heartbeat: default.heartbeat * tenths / 10,
        repair: default.repair * tenths / 10,
        request_timeout: default.request_timeout * tenths / 10,
        drain,
    }
}

fn sessions(rng: &mut Rng, sessions: &mut SessionLimits, tight: &mut bool) {
    if rng.chance(300) {
        sessions.window = rng.between(1, 3) as u16;
    }
    if rng.chance(250) {
        *sessions = SessionLimits {
            sessions: rng.between(1, 6) as u32,
            retention_slots: rng.below(24),
            window: sessions.window,
        };
        *tight = true;
    }
}

fn bounds(rng: &mut Rng, limits: &mut Limits, tight: &mut bool) {
    if rng.chance(250) {
        limits.window = rng.between(1, 4);
        limits.pipeline_depth = rng.between(1, limits.window);
    }
    if rng.chance(250) {
        limits.pipeline_depth = 1;
    }
    if rng.chance(250) {
        limits.batch_requests = rng.between(1, 3) as usize;
    }
    if rng.chance(250) {
        limits.unsettled_slots = rng.between(1, 8);
        limits.window = limits.window.min(limits.unsettled_slots);
        limits.pipeline_depth = limits.pipeline_depth.min(limits.window);
    }
    if rng.chance(250) {
        limits.executing_slots = rng.between(1, 2) as usize;
    }
    if rng.chance(250) {
        limits.fetch_bytes = 1;
    }
    if rng.chance(150) {
        limits.held_requests = rng.between(1, 8) as usize;
        *tight = true;
    }
    if rng.chance(150) {
        limits.replies_kept = rng.below(4) as usize;
        *tight = true;
    }
}

/// Who of all replicas that there can be has no application. Some of the first members, so that their majority is one of
/// others too, and some that come later.
fn witnesses(rng: &mut Rng, cluster: &mut ClusterConfig, reconfigures: bool) -> Vec<bool> {
    let first = cluster.members.len();
    let without = if rng.chance(150) { first.saturating_sub(1) / 2 } else { 0 };
    let mut witnesses: Vec<bool> = (0..first).map(|index| index >= first - without).collect();
    for (member, witness) in cluster.members.iter_mut().zip(&witnesses) {
        member.application = !witness;
    }
    if reconfigures {
        let more = rng.between(1, 3) as usize;
        witnesses.extend((0..more).map(|_| rng.chance(200)));
        if rng.chance(700) {
            cluster.target_members = witnesses.len() as u32;
        }
    }
    witnesses
}

fn smart_client(rng: &mut Rng, cluster: &ClusterConfig, tight: &mut bool) -> smart_client::Config {
    let few = rng.chance(100);
    *tight |= few;
    smart_client::Config {
        servers: cluster.applications().map(|member| member.id).collect(),
        vote: *rng
            .choose(&[ReplyVote::First, ReplyVote::Majority, ReplyVote::Majority, ReplyVote::All])
            .unwrap_or(&ReplyVote::Majority),
        resend: ms(rng.between(20, 500)),
        margin: ms(rng.between(5, 50)),
        held: if few { rng.between(1, 4) as usize } else { 4096 },
        held_bytes: 64 << 20,
        resends_saved: if rng.chance(200) { rng.between(1, 5) as u32 } else { 1000 },
    }
}

fn sender(rng: &mut Rng, window: u16, clients: usize, tight: &mut bool) -> sender::Config {
    let lending = if rng.chance(300) { Lending::Own } else { Lending::Pooled };
    // Where each connection keeps its session, fewer than connections leave some without for ever.
    let sessions_min = if lending == Lending::Own { clients } else { 1 };
    let few = rng.chance(100);
    *tight |= few;
    sender::Config {
        lending,
        window: if rng.chance(300) { 1 } else { rng.between(1, 8.min(u64::from(window)).max(2)) as u16 },
        sessions: sessions_min + rng.below(5) as usize,
        held: if few { rng.between(1, 4) as usize } else { 4096 },
        in_flight: if rng.chance(300) { rng.between(1, 4) as usize } else { 64 },
        within: ms(rng.between(10, 2_500)),
        turn: if rng.chance(300) { rng.between(1, 3) as u32 } else { 256 },
        resend: ms(rng.between(50, 1_000)),
        resends_saved: if rng.chance(200) { rng.between(1, 5) as u32 } else { 1000 },
        doubts: false,
        reads: false,
    }
}

fn network(rng: &mut Rng) -> NetworkFaults {
    let delay_max = ms(*rng.choose(&[1, 2, 5, 20, 60]).unwrap_or(&5));
    let loss_max = *rng.choose(&[20, 100, 400]).unwrap_or(&20);
    NetworkFaults {
        loss: if rng.chance(600) { rng.below(loss_max) as u32 } else { 0 },
        duplication: if rng.chance(500) { rng.below(150) as u32 } else { 0 },
        stream_loss: if rng.chance(400) { rng.below(150) as u32 } else { 0 },
        delay_min: Duration::from_micros(rng.between(10, 500)),
        delay_max,
        tail: if rng.chance(500) { rng.below(60) as u32 } else { 0 },
        tail_max: ms(rng.between(20, 3_000)),
        detect_max: ms(rng.between(1, 1_000)),
    }
}

fn faults(
    rng: &mut Rng,
    n: usize,
    (durability, silences, reconfigures): (Durability, bool, bool),
    trouble: Duration,
) -> Vec<(Fault, Duration)> {
    let may_forget = mesh::quorum::tolerated(n) > 0 || reconfigures;
    let mut faults = Vec::new();
    for fault in Fault::ALL {
        let possible = match (fault, durability) {
            (Fault::Crash | Fault::Drain, Durability::Memory)
            | (Fault::Power, Durability::Memory | Durability::Async) => may_forget,
            (Fault::PowerAll, Durability::Memory | Durability::Async) => false,
            (Fault::Partition, _) => n > 1,
            (Fault::Reconfigure, _) => reconfigures,
            (Fault::DiskFull | Fault::Rot, Durability::Memory) => false,
            (Fault::DiskLost | Fault::Rot | Fault::SnapshotRot, _) => may_forget,
            (Fault::Differ, _) => may_forget && silences,
            _ => true,
        };
        let often = rng.between(4, 40);
        let usual = match fault {
            Fault::DiskFull | Fault::DiskLost | Fault::Rot | Fault::SnapshotRot | Fault::Differ | Fault::Save => 200,
            _ => 450,
        };
        if (rng.chance(usual) || fault == Fault::Reconfigure) && possible {
            faults.push((fault, trouble / 100 * often as u32));
        }
    }
    faults
}
