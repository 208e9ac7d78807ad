//! The ordering core. From outside anything may come, and no assertion may fire, no two replicas differ, no bound be passed.
//! Servers are believed to be correct; what another one could send is fed to it nevertheless.

use super::wire;
use crate::fuzz::{Bound, Seen, Target};
use mesh::auth::by_transport;
use mesh::config::{ClusterConfig, Config, Configuration, Divergence, Durability, SessionLimits, Snapshots};
use mesh::ids::{Digest, Life, Position, ReplicaId, Slot};
use mesh::limits::{Limits, Timing};
use mesh::order::{AppReply, Input, Operation, Output, Recovered, Replica, To};
use mesh::time::{Duration, Instant};
use mesh::wire::peer::Change;
use mesh::wire::{Message, Outcome, Refusal, Request, decode, encode};
use std::collections::VecDeque;

/// Some hundred requests and their slots, on three replicas.
const BOUND: Bound = Bound { per_byte: 4096, base: 8 << 20 };

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "order-requests",
        about: "three replicas, any requests from outside and of operators, losses",
        seeds: request_seeds,
        words: &[],
        longest: 2048,
        bound: BOUND,
        run: from_outside,
    },
    Target {
        name: "order-peers",
        about: "one replica, any messages of its peers",
        seeds: peer_seeds,
        words: &[],
        longest: 2048,
        bound: BOUND,
        run: from_peers,
    },
];

/// Messages that are delivered after one step at most: a storm is a finding.
const DELIVERIES: usize = 20_000;
/// Sessions, and requests held.
const SESSIONS: u32 = 3;
const HELD: usize = 16;

fn config(id: u32) -> Config {
    let cluster = ClusterConfig {
        sessions: SessionLimits { sessions: SESSIONS, window: 4, retention_slots: 4 },
        request_bytes: 64,
        ..ClusterConfig::of(3, "line/shared", Durability::Sync)
    };
    let limits = Limits {
        batch_requests: 4,
        window: 8,
        unsettled_slots: 16,
        held_requests: HELD,
        held_bytes: 256,
        replies_kept: 8,
        log_tail_slots: 8,
        ..Limits::DEFAULT
    };
    Config {
        name: "fuzz".to_owned(),
        id: ReplicaId(id),
        life: Life(0),
        configuration: Configuration::first(cluster),
        timing: Timing::DEFAULT,
        limits,
        snapshots: Some(Snapshots { every_requests: 16, every_bytes: 1 << 20 }),
        divergence: Divergence::Rebuild,
        wall_base: 1_000_000,
    }
}

/// One replica and the parts around it, which do at once what they are asked to.
struct Member {
    replica: Replica,
    out: Vec<Output>,
    /// What it sent.
    sent: Vec<(To, Message)>,
    /// The disk is slow: nothing is durable until it is not.
    stalled: bool,
    owed: Option<mesh::ids::Lsn>,
}

impl Member {
    fn new(id: u32, now: Instant) -> Self {
        let replica = Replica::new(config(id), u64::from(id), Recovered::default(), now);
        Self { replica, out: Vec::new(), sent: Vec::new(), stalled: false, owed: None }
    }

    fn step(&mut self, now: Instant, input: Input) {
        let mut inputs = VecDeque::from([input]);
        let mut steps = 0;
        while let Some(input) = inputs.pop_front() {
            steps += 1;
            assert!(steps < DELIVERIES, "the replica and its parts keep each other busy for ever");
            self.replica.step(now, input, &mut self.out);
            for output in std::mem::take(&mut self.out) {
                self.perform(output, &mut inputs);
            }
        }
    }

    fn perform(&mut self, output: Output, inputs: &mut VecDeque<Input>) {
        match output {
            Output::Send { to, message } => self.sent.push((to, message)),
            Output::Persist { lsn, .. } if self.stalled => self.owed = Some(lsn),
            Output::Persist { lsn, .. } => inputs.push_back(Input::Persisted { lsn }),
            Output::Reset { run, snapshot: _ } | Output::Resume { run } => inputs.push_back(Input::Restored { run }),
            Output::Execute { run, slot, operations, .. } => {
                let calls = operations.iter().filter_map(|operation| match operation {
                    Operation::Call { bytes, .. } => Some(bytes.clone()),
                    Operation::End { .. } => None,
                });
                let replies = calls.map(|bytes| AppReply { form: Digest::of(&bytes), bytes }).collect();
                inputs.push_back(Input::Executed { run, slot, replies });
            }
            Output::Dump { image, .. } => inputs.push_back(Input::Dumped { slot: image.slot }),
            Output::Transfer { from, .. } => inputs.push_back(Input::TransferFailed { from }),
            Output::Reply { outcome, .. } => {
                let full = outcome == Some(Outcome::Refused(Refusal::LogFull));
                assert!(!full, "the log is far from full: a refusal that no leader made was ordered");
            }
            Output::Changed { .. } | Output::Reconfigured(_) => {}
            Output::Read { run, read } => inputs.push_back(Input::ReadDone { run, read }),
            Output::ReadAnswer { .. } | Output::ReadVoid { .. } => {}
            Output::Cut { .. } | Output::Discard { .. } | Output::Steer { .. } | Output::Event(_) => {}
        }
    }

    /// The disk is as fast as it was.
    fn go_on(&mut self, now: Instant) {
        self.stalled = false;
        if let Some(lsn) = self.owed.take() {
            self.step(now, Input::Persisted { lsn });
        }
    }
}

/// Commands of a script: what, and so many bytes for it.
fn commands(mut script: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[what, length], rest) = script.split_first_chunk::<2>()?;
        let (bytes, rest) = rest.split_at(usize::from(length).min(rest.len()));
        script = rest;
        Some((what, bytes))
    })
}

fn command(what: u8, bytes: &[u8]) -> Vec<u8> {
    [&[what, bytes.len() as u8][..], bytes].concat()
}

const REQUEST: u8 = 0;
const WAIT: u8 = 1;
const LOSE: u8 = 2;
const ABORT: u8 = 3;
const SAVE: u8 = 4;
const DRAIN: u8 = 5;
const STALL: u8 = 6;
const SAME: u8 = 7;
const CHANGE: u8 = 8;
const KINDS: u8 = 9;

fn request_seeds() -> Vec<Vec<u8>> {
    let ask = |member: u8, request: &Request| command(REQUEST + KINDS * member, &encode(request));
    let all = wire::requests();
    let wait = command(WAIT, &[20]);
    let mut seeds: Vec<Vec<u8>> = all.iter().map(|request| [ask(0, &all[0]), ask(1, request)].concat()).collect();
    seeds.push([all.iter().map(|request| ask(0, request)).collect::<Vec<_>>().concat(), wait.clone()].concat());
    let busy = all[..4]
        .iter()
        .map(|request| [ask(0, request), ask(1, request), ask(2, request)].concat())
        .collect::<Vec<_>>()
        .concat();
    seeds.push(
        [
            busy.clone(),
            command(LOSE + KINDS, &[]),
            wait.clone(),
            busy.clone(),
            wait.clone(),
            command(LOSE + KINDS, &[]),
        ]
        .concat(),
    );
    seeds.push(
        [
            busy.clone(),
            command(STALL, &[]),
            busy.clone(),
            command(STALL, &[]),
            command(DRAIN, &[]),
            wait.clone(),
            busy.clone(),
        ]
        .concat(),
    );
    let member = ReplicaId(2);
    let changes = [
        Change::Remove { member },
        Change::SetTarget { members: 5 },
        Change::Add { member: ReplicaId(4), life: Life(3), application: true },
        Change::Promote { member, life: Life(0) },
    ];
    let changes = (0..3).flat_map(|at| changes.map(|change| command(CHANGE + KINDS * at, &encode(&change))));
    let changes: Vec<u8> = changes.flat_map(|change| [change, wait.clone()].concat()).collect();
    seeds.push([busy.clone(), changes, busy.clone(), wait.clone()].concat());
    seeds.push([busy.clone(), command(ABORT, &[1, 1]), command(SAVE, &[]), wait, busy].concat());
    seeds
}

/// Three replicas and the network between them.
struct Cluster {
    members: Vec<Member>,
    /// What they send and are sent is lost.
    cut: [bool; 3],
    now: Instant,
}

impl Cluster {
    fn new() -> Self {
        let now = Instant::from_nanos(1_000_000);
        let mut cluster = Self { members: (0..3).map(|id| Member::new(id, now)).collect(), cut: [false; 3], now };
        for at in 0..3 {
            cluster.step(at, Input::Timeout);
        }
        cluster.wait(Duration::from_millis(2500));
        cluster
    }

    /// One input, and everything that follows from it.
    fn step(&mut self, at: usize, input: Input) {
        self.members[at].step(self.now, input);
        let mut deliveries = 0;
        while let Some(from) = (0..3).find(|at| !self.members[*at].sent.is_empty()) {
            for (to, message) in std::mem::take(&mut self.members[from].sent) {
                for other in (0..3).filter(|other| *other != from) {
                    let meant = matches!(to, To::Others) || to == To::One(ReplicaId(other as u32));
                    if meant && !self.cut[from] && !self.cut[other] {
                        deliveries += 1;
                        let (from, message) = (ReplicaId(from as u32), message.clone());
                        self.members[other].step(self.now, Input::Message { from, life: Life(0), message });
                    }
                }
            }
            assert!(deliveries < DELIVERIES, "the replicas keep each other busy for ever");
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(20);
            for at in 0..3 {
                if self.members[at].replica.deadline().is_some_and(|due| due <= self.now) {
                    self.step(at, Input::Timeout);
                }
            }
        }
    }

    /// What must hold whatever was asked.
    fn check(&self, seen: &mut Seen) {
        let all: Vec<_> = self.members.iter().map(|member| member.replica.status()).collect();
        for one in &all {
            assert!(one.sessions <= SESSIONS as usize && one.held <= HELD, "{one:?}");
            assert!(one.executed <= one.decided && one.divergences == 0, "{one:?}");
            for other in all.iter().filter(|other| other.executed == one.executed) {
                assert_eq!(one.digest_now, other.digest_now, "two replicas executed something else");
            }
            seen.note((one.role as u8, one.sessions, one.decided.0.min(40), one.held.min(4), one.snapshot > Slot(0)));
        }
    }
}

fn from_outside(script: &[u8], seen: &mut Seen) {
    let mut cluster = Cluster::new();
    let mut last: Option<Request> = None;
    for (what, bytes) in commands(script).take(64) {
        let at = usize::from(what / KINDS) % 3;
        match what % KINDS {
            REQUEST => {
                let Ok(request) = decode::<Request>(bytes) else { continue };
                seen.note((std::mem::discriminant(&request.body), request.seq.0.min(8), request.opened.slot.0.min(8)));
                last = Some(request.clone());
                cluster.step(at, Input::Requests(vec![by_transport(request)]));
            }
            SAME => {
                // The same to everybody, as a SMaRtClient does.
                for (at, request) in last.iter().flat_map(|request| [(0, request), (1, request), (2, request)]) {
                    cluster.step(at, Input::Requests(vec![by_transport(request.clone())]));
                }
            }
            WAIT => cluster.wait(Duration::from_millis(20 * u64::from(bytes.first().copied().unwrap_or(1)))),
            LOSE => cluster.cut[at] ^= true,
            ABORT => {
                let (slot, call) = (bytes.first().copied().unwrap_or(1), bytes.get(1).copied().unwrap_or(0));
                let at_position = Position { slot: Slot(u64::from(slot)), call: u32::from(call) };
                cluster.step(at, Input::Abort { at: at_position });
            }
            SAVE => cluster.step(at, Input::Save),
            DRAIN => cluster.step(at, Input::Drain),
            CHANGE => {
                let Ok(change) = decode(bytes) else { continue };
                cluster.step(at, Input::Change { token: 1, change });
            }
            _ => {
                let now = cluster.now;
                let member = &mut cluster.members[at];
                if member.stalled {
                    member.go_on(now);
                } else {
                    member.stalled = true;
                }
                cluster.step(at, Input::Timeout);
            }
        }
        cluster.check(seen);
    }
    // Everything is as it should be: then the cluster must go on.
    cluster.cut = [false; 3];
    for at in 0..3 {
        let now = cluster.now;
        cluster.members[at].go_on(now);
    }
    cluster.wait(Duration::from_secs(3));
    cluster.check(seen);
}

const MESSAGE: u8 = 0;
const LATER: u8 = 1;
const ASK: u8 = 2;
const DISK: u8 = 3;

fn peer_seeds() -> Vec<Vec<u8>> {
    let tell = |from: u8, message: &Message| command(MESSAGE + 4 * from, &encode(message));
    let all = wire::messages();
    let mut seeds: Vec<Vec<u8>> = all.iter().map(|message| tell(0, message)).collect();
    seeds.push(all.iter().map(|message| tell(0, message)).collect::<Vec<_>>().concat());
    // It stands, and leads.
    let requests = wire::requests().iter().map(|request| command(ASK, &encode(request))).collect::<Vec<_>>().concat();
    let granted = tell(1, &Message::PreVoteGranted { round: 1 });
    let ballot = mesh::ids::Ballot { round: 1, ..wire::ballot() };
    let (decided, first_kept, settled) = (Slot(0), Slot(1), Slot(0));
    let promise = tell(1, &Message::Promise { ballot, decided, first_kept, settled, accepted: Vec::new() });
    let voted = tell(1, &Message::Accepted { ballot, slots: vec![Slot(1), Slot(2)], marks: wire::marks() });
    let following = tell(1, &Message::Following { ballot, marks: wire::marks() });
    seeds.push([command(LATER, &[100]), granted, promise, requests, voted, following, command(LATER, &[10])].concat());
    seeds
}

fn from_peers(script: &[u8], seen: &mut Seen) {
    let mut now = Instant::from_nanos(1_000_000);
    let mut member = Member::new(1, now);
    member.step(now, Input::Timeout);
    for (what, bytes) in commands(script).take(64) {
        match what % 4 {
            MESSAGE => {
                let Ok(message) = decode::<Message>(bytes) else { continue };
                seen.note(message.kind());
                let from = ReplicaId(if what & 4 == 0 { 0 } else { 2 });
                let life = Life(u64::from(what & 8 == 8));
                member.step(now, Input::Message { from, life, message });
            }
            LATER => {
                now += Duration::from_millis(20 * u64::from(bytes.first().copied().unwrap_or(1)));
                member.step(now, Input::Timeout);
            }
            ASK => {
                let Ok(request) = decode::<Request>(bytes) else { continue };
                member.step(now, Input::Requests(vec![by_transport(request)]));
            }
            DISK if member.stalled => member.go_on(now),
            _ => member.stalled = true,
        }
        member.sent.clear();
        let status = member.replica.status();
        seen.note((status.role as u8, status.decided.0.min(12), status.executed.0.min(12), status.settled.0.min(12)));
        seen.note((status.sessions, status.held, status.epoch, status.silent.is_some(), status.snapshot > Slot(0)));
    }
    member.go_on(now);
    member.step(now + Duration::from_secs(1), Input::Timeout);
}
