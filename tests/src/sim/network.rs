//! The network: delay, loss, duplication, reordering, partitions (both ways and one way), and the links of clients.

use super::Process;
use super::clock::Time;
use super::event::{Epoch, Life};
use mesh::rng::Rng;
use mesh::time::Duration;
use std::collections::BTreeMap;

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub struct NetworkFaults {
    /// Of 1,000 messages between replicas, so many are lost.
    pub loss: u32,
    /// Of 1,000, so many arrive twice.
    pub duplication: u32,
    /// Of 1,000 requests and answers of clients, so many are lost without their link.
    pub stream_loss: u32,
    /// The shortest way.
    pub delay_min: Duration,
    /// The usual longest one.
    pub delay_max: Duration,
    /// Of 1,000 messages, so many take up to `tail_max`.
    pub tail: u32,
    /// The longest way.
    pub tail_max: Duration,
    /// Until a broken link is noticed, at most.
    pub detect_max: Duration,
}

impl NetworkFaults {
    /// A network that works.
    #[must_use]
    pub fn healed() -> Self {
        Self {
            loss: 0,
            duplication: 0,
            stream_loss: 0,
            delay_min: Duration::from_micros(100),
            delay_max: Duration::from_millis(2),
            tail: 0,
            tail_max: Duration::ZERO,
            detect_max: Duration::from_millis(20),
        }
    }
}

/// A link that one process opened to another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// Whether it holds.
    pub up: bool,
    /// Which of its lives this is.
    pub epoch: Epoch,
    /// The lives of its ends when it came up.
    pub lives: (Life, Life),
    /// It is cut until then.
    pub cut_until: Time,
}

/// A partition in force: messages from the first to the second of each pair are lost.
#[derive(Clone, Debug)]
pub struct Partition {
    number: u32,
    pairs: Vec<(Process, Process)>,
}

/// The whole network.
#[derive(Debug)]
pub struct Network {
    /// How bad it is.
    pub faults: NetworkFaults,
    links: BTreeMap<(Process, Process), Link>,
    partitions: Vec<Partition>,
    numbers: u32,
    rng: Rng,
}

impl Network {
    /// A network without links.
    #[must_use]
    pub fn new(faults: NetworkFaults, rng: Rng) -> Self {
        Self { faults, links: BTreeMap::new(), partitions: Vec::new(), numbers: 0, rng }
    }

    /// How long one message takes.
    pub fn delay(&mut self) -> Duration {
        let faults = &self.faults;
        if self.rng.chance(faults.tail) {
            return self.rng.duration(faults.tail_max);
        }
        faults.delay_min + self.rng.duration(faults.delay_max.saturating_sub(faults.delay_min))
    }

    /// How many times a message between replicas arrives.
    pub fn copies(&mut self) -> usize {
        if self.rng.chance(self.faults.loss) {
            0
        } else if self.rng.chance(self.faults.duplication) {
            2
        } else {
            1
        }
    }

    /// Whether a request or an answer of a client is lost although its link holds.
    pub fn loses_stream(&mut self) -> bool {
        self.rng.chance(self.faults.stream_loss)
    }

    /// How long until a broken link is noticed, or a new one is made.
    pub fn detection(&mut self) -> Duration {
        self.rng.duration(self.faults.detect_max)
    }

    /// Whether messages from `from` to `to` are lost.
    #[must_use]
    pub fn blocked(&self, from: Process, to: Process) -> bool {
        self.partitions.iter().any(|partition| partition.pairs.contains(&(from, to)))
    }

    /// The link that `client` opened to `server`.
    pub fn link(&mut self, client: Process, server: Process) -> &mut Link {
        self.links.entry((client, server)).or_default()
    }

    /// The life of a link that holds.
    #[must_use]
    pub fn epoch(&self, client: Process, server: Process) -> Option<Epoch> {
        self.links.get(&(client, server)).filter(|link| link.up).map(|link| link.epoch)
    }

    /// Cuts something off and returns its number.
    pub fn part(&mut self, processes: &[Process]) -> u32 {
        self.numbers += 1;
        let pairs = self.draw_pairs(processes);
        self.partitions.push(Partition { number: self.numbers, pairs });
        self.numbers
    }

    /// Lets a server hear none of these any more, and returns the partition's number.
    pub fn deafen(&mut self, server: Process, peers: &[Process]) -> u32 {
        self.numbers += 1;
        let pairs = peers.iter().filter(|peer| **peer != server).map(|peer| (*peer, server)).collect();
        self.partitions.push(Partition { number: self.numbers, pairs });
        self.numbers
    }

    fn draw_pairs(&mut self, processes: &[Process]) -> Vec<(Process, Process)> {
        let servers: Vec<Process> = processes.iter().copied().filter(|p| matches!(p, Process::Server(_))).collect();
        let Some(victim) = self.rng.choose(&servers).copied() else { return Vec::new() };
        let others: Vec<Process> = processes.iter().copied().filter(|p| *p != victim).collect();
        let peers: Vec<Process> = servers.iter().copied().filter(|p| *p != victim).collect();
        let (out, into) = (|p: &Process| (victim, *p), |p: &Process| (*p, victim));
        match self.rng.below(6) {
            // One server alone.
            0 => others.iter().map(out).chain(others.iter().map(into)).collect(),
            // One server alone among its peers; clients reach it.
            1 => peers.iter().map(out).chain(peers.iter().map(into)).collect(),
            // One server that hears nobody, or is heard by nobody.
            2 => peers.iter().map(out).collect(),
            3 => peers.iter().map(into).collect(),
            // One direction between two servers.
            4 => self.rng.choose(&peers).map(|other| (victim, *other)).into_iter().collect(),
            // Two halves.
            _ => {
                let side: Vec<bool> = processes.iter().map(|_| self.rng.chance(500)).collect();
                let all = processes.iter().zip(&side);
                all.clone()
                    .flat_map(|(a, x)| all.clone().filter(move |(_, y)| x != *y).map(move |(b, _)| (*a, *b)))
                    .collect()
            }
        }
    }

    /// Ends a partition.
    pub fn mend(&mut self, number: u32) {
        self.partitions.retain(|partition| partition.number != number);
    }

    /// From now on everything arrives.
    pub fn heal(&mut self) {
        self.faults = NetworkFaults::healed();
        self.partitions.clear();
        for link in self.links.values_mut() {
            link.cut_until = Time::ZERO;
        }
    }
}
