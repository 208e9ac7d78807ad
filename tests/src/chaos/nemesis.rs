//! Harms the cluster, and never more of it than it is promised to survive.
//!
//! A server counts as harmed from the fault on its process, its application or its links to other servers until it says
//! that it votes, has its application and is near the others; at most f are. A SMaRtClient counts from the fault until it
//! says that it is ready; one is always left alone.

use super::cluster::{Cluster, Health, is_ready};
use super::network::{Cut, Harm, Node};
use crate::driver::{Process, Signal, lives, signal};
use mesh::rng::Rng;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Slots that a server may be behind the others and is near them.
const NEAR: u64 = 64;
/// How long a process stands still.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(4));
/// How long a link is harmed.
const CUT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(6));

/// Who is harmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Server(u64),
    SmartClient(u64),
}

/// Which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Sidecar,
    Application,
    SmartClient,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Kill,
    Restart,
    Pause,
}

/// A fault that could be made now.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Process(Who, Target),
    /// The link between two, of whom the first counts as harmed.
    Link(Who, Who),
}

/// A harm that has not been got over.
#[derive(Debug)]
struct Harmed {
    /// A process that stands still, and until when; its start time tells it from a later one with its pid.
    paused: Option<(u64, String, Instant)>,
    /// A link that is cut, and until when.
    cut: Option<(Cut, Instant)>,
    /// The part's process that has to be gone.
    old_part: Option<u64>,
    /// The application's process that has to be gone.
    old_app: Option<u64>,
}

/// See the module.
pub(super) struct Nemesis {
    rng: Rng,
    f: usize,
    smart_clients: usize,
    harmed: BTreeMap<Who, Harmed>,
    /// Faults made, by kind.
    pub(super) made: BTreeMap<String, u64>,
    /// Times at which nothing could be harmed.
    pub(super) passed: u64,
}

impl Nemesis {
    pub(super) fn new(rng: Rng, replicas: u64, smart_clients: u64) -> Self {
        Self {
            rng,
            f: usize::try_from(replicas.saturating_sub(1) / 2).unwrap_or_default(),
            smart_clients: usize::try_from(smart_clients).unwrap_or_default(),
            harmed: BTreeMap::new(),
            made: BTreeMap::new(),
            passed: 0,
        }
    }

    /// Faults made so far.
    pub(super) fn count(&self) -> u64 {
        self.made.values().sum()
    }

    /// Makes one fault, if one may be made; says which.
    pub(super) fn strike(&mut self, cluster: &dyn Cluster) -> Option<String> {
        let parts = cluster.parts();
        let mut faults = self.possible(&parts, cluster.network().is_some());
        while !faults.is_empty() {
            let index = usize::try_from(self.rng.below(faults.len() as u64)).unwrap_or_default();
            let done = match faults.swap_remove(index) {
                Fault::Process(who, target) => self.harm_process(&parts, who, target),
                Fault::Link(who, other) => self.harm_link(cluster, who, other),
            };
            if let Some((kind, what)) = done {
                *self.made.entry(kind).or_default() += 1;
                return Some(what);
            }
        }
        self.passed += 1;
        None
    }

    fn may_harm(&self, who: Who) -> bool {
        let of_its_kind = |other: &&Who| {
            matches!((who, other), (Who::Server(_), Who::Server(_)) | (Who::SmartClient(_), Who::SmartClient(_)))
        };
        let harmed = self.harmed.keys().filter(of_its_kind).count();
        let most = match who {
            Who::Server(_) => self.f,
            Who::SmartClient(_) => self.smart_clients.saturating_sub(1),
        };
        !self.harmed.contains_key(&who) && harmed < most
    }

    fn possible(&self, parts: &[Process], links: bool) -> Vec<Fault> {
        let mut faults = Vec::new();
        let all: Vec<Who> = parts.iter().filter_map(Who::of).collect();
        for who in all.iter().copied().filter(|who| self.may_harm(*who)) {
            match who {
                Who::Server(_) => {
                    faults.extend([Target::Sidecar, Target::Application].map(|target| Fault::Process(who, target)));
                }
                Who::SmartClient(_) => faults.push(Fault::Process(who, Target::SmartClient)),
            }
            if links {
                // A server that is harmed already says nothing of whether this link is.
                let servers = all.iter().filter(|other| matches!(other, Who::Server(_)) && **other != who);
                faults.extend(
                    servers.filter(|other| !self.harmed.contains_key(other)).map(|other| Fault::Link(who, *other)),
                );
            }
        }
        faults
    }

    /// The kind, for the table, and the whole story.
    fn harm_process(&mut self, parts: &[Process], who: Who, target: Target) -> Option<(String, String)> {
        let part = parts.iter().find(|part| Who::of(part) == Some(who))?;
        let app = match target {
            Target::Application => Some(Health::ask(&part.admin).ok()?.app_pid?),
            _ => None,
        };
        let pid = app.unwrap_or(part.pid);
        let started = start_time(pid)?;
        let deed = *self.rng.choose(&[Deed::Kill, Deed::Restart, Deed::Pause])?;
        let mut harmed = Harmed { paused: None, cut: None, old_part: None, old_app: None };
        let (kind, sent) = match deed {
            Deed::Kill => ("kill", Signal::KILL),
            Deed::Restart => ("restart", Signal::TERM),
            Deed::Pause => ("pause", Signal::STOP),
        };
        let mut story = format!("{kind} {} {}", target.name(), who.id());
        if deed == Deed::Pause {
            let time = self.between(PAUSE);
            harmed.paused = Some((pid, started, Instant::now() + time));
            story += &format!(" for {:.1} s", time.as_secs_f64());
        } else if target == Target::Application {
            harmed.old_app = Some(pid);
        } else {
            harmed.old_part = Some(pid);
        }
        signal(sent, pid).ok()?;
        self.harmed.insert(who, harmed);
        Some((format!("{kind} {}", target.name()), story))
    }

    fn harm_link(&mut self, cluster: &dyn Cluster, who: Who, other: Who) -> Option<(String, String)> {
        let network = cluster.network()?;
        let harm = match self.rng.below(4) {
            0 => Harm::Cut,
            1 => Harm::OneWay,
            2 => Harm::OtherWay,
            _ => Harm::Lossy(self.rng.between(10, 30)),
        };
        let time = self.between(CUT);
        let cut = network.harm(who.node(), other.node(), harm).inspect_err(|error| eprintln!("{error:#}")).ok()?;
        let story = format!("{harm:?} {}–{} for {:.1} s", who.node(), other.node(), time.as_secs_f64());
        let between = if matches!(who, Who::Server(_)) { "servers" } else { "smart-client–server" };
        self.harmed.insert(
            who,
            Harmed { paused: None, cut: Some((cut, Instant::now() + time)), old_part: None, old_app: None },
        );
        Some((format!("{} {between}", harm.name()), story))
    }

    fn between(&mut self, (least, most): (Duration, Duration)) -> Duration {
        let nanos = u64::try_from((most - least).as_nanos()).unwrap_or(u64::MAX);
        least + Duration::from_nanos(self.rng.below(nanos))
    }

    /// Ends what has lasted long enough, and sees who has got over it.
    pub(super) fn tend(&mut self, cluster: &dyn Cluster) {
        self.end(cluster, |until| until <= Instant::now());
        if self.harmed.is_empty() {
            return;
        }
        let parts = cluster.parts();
        let mut health = BTreeMap::new();
        for part in &parts {
            let Some(who @ Who::Server(_)) = Who::of(part) else { continue };
            let still = |(pid, ..): &(u64, String, Instant)| *pid == part.pid;
            if !self.harmed.get(&who).is_some_and(|harmed| harmed.paused.as_ref().is_some_and(still))
                && let Ok(seen) = Health::ask(&part.admin)
            {
                health.insert(who, seen);
            }
        }
        let newest = health.values().map(|health: &Health| health.executed).max().unwrap_or_default();
        self.harmed.retain(|who, harmed| {
            if harmed.paused.is_some() || harmed.cut.is_some() {
                return true;
            }
            let Some(part) = parts.iter().find(|part| Who::of(part) == Some(*who)) else { return true };
            if harmed.old_part == Some(part.pid) || !lives(part.pid) {
                return true;
            }
            let well = match who {
                Who::SmartClient(_) => is_ready(&part.admin),
                Who::Server(_) => health.get(who).is_some_and(|health| {
                    let new_app = harmed.old_app.is_none() || harmed.old_app != health.app_pid;
                    health.serves() && new_app && health.executed + NEAR >= newest
                }),
            };
            !well
        });
    }

    /// Ends every fault.
    pub(super) fn heal(&mut self, cluster: &dyn Cluster) {
        self.end(cluster, |_| true);
    }

    fn end(&mut self, cluster: &dyn Cluster, due: impl Fn(Instant) -> bool) {
        for harmed in self.harmed.values_mut() {
            if let Some((pid, started, _)) = harmed.paused.take_if(|(.., until)| due(*until))
                && start_time(pid).is_some_and(|now| now == started)
            {
                // It may have been killed meanwhile, by whoever had enough of waiting for it.
                let _ = signal(Signal::CONT, pid);
            }
            if let Some((cut, _)) = harmed.cut.take_if(|(_, until)| due(*until))
                && let Some(network) = cluster.network()
                && let Err(error) = network.mend(&cut)
            {
                eprintln!("{error:#}");
            }
        }
    }
}

impl Who {
    fn of(part: &Process) -> Option<Self> {
        match part.role.as_str() {
            "sidecar" => Some(Self::Server(part.id)),
            "smart-client" => Some(Self::SmartClient(part.id)),
            _ => None,
        }
    }

    const fn id(self) -> u64 {
        match self {
            Self::Server(id) | Self::SmartClient(id) => id,
        }
    }

    const fn node(self) -> Node {
        match self {
            Self::Server(id) => Node::Server(id),
            Self::SmartClient(id) => Node::SmartClient(id),
        }
    }
}

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Application => "application",
            Self::SmartClient => "smart-client",
        }
    }
}

/// When a living process was started, in ticks since the boot.
fn start_time(pid: u64) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    // Field 22; the first of the rest is field 3.
    lives(pid).then(|| rest.split_whitespace().nth(19).map(str::to_owned))?
}
