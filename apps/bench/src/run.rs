//! `bench run`: starts a cluster, loads it, and says what a request costs in each part.

use crate::args::{Format, Shape};
use crate::cluster::{Cluster, LEADER, Look, RoleUsage};
use crate::generator::{self, Outcome, Spec};
use crate::load;
use crate::metrics::Metrics;
use crate::procfs::{self, Host, Loopback};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

/// Settings of `bench run`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    shape: Shape,
    /// How often it is measured, one after the other, on the same cluster
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Say what each thread costs
    #[arg(long)]
    threads: bool,
    /// What to print on stdout
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
    /// Settings of `lockstep up`, with its COMMAND behind another --
    #[arg(last = true, value_name = "UP")]
    up: Vec<String>,
}

/// The load generator, as a role.
const GENERATOR: &str = "load generator";

/// Runs it.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let cluster = Cluster::start(&args.up)?;
    let spec = args.shape.spec(vec![cluster.listen()], cluster.protocol());
    if args.output == Format::Text {
        println!("{}; lockstep up {}", load::heading(&spec), args.up.join(" "));
    }
    for round in 1..=args.rounds {
        // What is read was written in the first round.
        let measured = measure(&cluster, Spec { fill: spec.fill && round == 1, ..spec.clone() })?;
        match args.output {
            Format::Json => println!("{}", serde_json::to_string(&measured)?),
            Format::Text => {
                if args.rounds > 1 {
                    println!("\nround {round}");
                }
                print!("{}", measured.text(args.threads));
            }
        }
    }
    Ok(())
}

/// What one role costs a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// How many processes.
    processes: usize,
    /// CPU time, in microseconds.
    pub(crate) cpu_us: f64,
    /// Times that a thread waited.
    voluntary: f64,
    /// Times that a thread had to make room.
    involuntary: f64,
    /// Bytes written to disks.
    written: f64,
}

impl Cost {
    fn of(before: RoleUsage, after: RoleUsage, requests: f64) -> Self {
        let used = after.usage - before.usage;
        Self {
            processes: after.processes,
            cpu_us: used.micros() / requests,
            voluntary: used.voluntary as f64 / requests,
            involuntary: used.involuntary as f64 / requests,
            written: used.written as f64 / requests,
        }
    }
}

/// What clients saw of a cluster, and what it cost. Everything but the outcome is per request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// What clients saw.
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    /// The part of the machine's processors that was busy, with everybody on it.
    pub(crate) host_busy: f64,
    /// CPU time of all processes of the cluster, in microseconds.
    pub(crate) cpu_us: f64,
    /// By role.
    roles: BTreeMap<String, Cost>,
    /// CPU time in microseconds of each thread, by "role: thread".
    threads: BTreeMap<String, f64>,
    /// Messages and QUIC streams, by role and kind.
    messages: BTreeMap<String, f64>,
    /// Of the leader: requests in a batch, syncs a request and what one takes, time of a slot in the application.
    ordering: BTreeMap<String, f64>,
    /// Packets over the loopback interface, of everybody on it.
    packets: f64,
    /// Bytes in them.
    bytes: f64,
    /// Whether another member took the lead meanwhile: then the leader's numbers are of two.
    leader_changed: bool,
}

/// All at one instant.
struct Everything {
    at: Instant,
    look: Look,
    own: RoleUsage,
    host: Host,
    loopback: Loopback,
}

impl Everything {
    fn now(cluster: &Cluster) -> Self {
        let own = RoleUsage { processes: 1, usage: procfs::usage(std::process::id()), resident: 0 };
        let (host, loopback) = (Host::now(), Loopback::now());
        Self { at: Instant::now(), own, host, loopback, look: cluster.look() }
    }
}

/// Loads a cluster.
pub(crate) fn measure(cluster: &Cluster, spec: Spec) -> anyhow::Result<Measured> {
    let (outcome, before, after) = generator::start(spec)?.finish(|| Everything::now(cluster))?;
    let why = outcome.error.as_deref().unwrap_or("no word why");
    anyhow::ensure!(outcome.within > 0, "not one request was answered: {why}");
    after.look.leader.context("nobody leads: see `lockstep status`")?;
    Ok(Measured::new(outcome, &before, &after))
}

impl Measured {
    fn new(outcome: Outcome, before: &Everything, after: &Everything) -> Self {
        // A look takes a while, so that it is not the time that was measured.
        let requests = (outcome.rate * (after.at - before.at).as_secs_f64()).max(1.0);
        let mut roles = BTreeMap::new();
        for (role, usage) in &after.look.roles {
            let before = before.look.roles.get(role).copied().unwrap_or_default();
            roles.insert(role.clone(), Cost::of(before, *usage, requests));
        }
        let cpu_us = roles.values().map(|cost| cost.cpu_us).sum();
        roles.insert(GENERATOR.to_owned(), Cost::of(before.own, after.own, requests));
        let mut threads = BTreeMap::new();
        for (thread, ticks) in &after.look.threads {
            let used = ticks.saturating_sub(before.look.threads.get(thread).copied().unwrap_or(0));
            let micros = used as f64 * 1e6 / procfs::TICKS_PER_SECOND / requests;
            threads.insert(format!("{}: {}", thread.0, thread.1), micros);
        }
        let (mut messages, mut ordering) = (BTreeMap::new(), BTreeMap::new());
        for (role, metrics) in &after.look.metrics {
            let Some(before) = before.look.metrics.get(role) else { continue };
            let added = metrics - before;
            messages.extend(streams(role, &added, requests));
            if role == LEADER {
                ordering = ordered(&added, requests);
            }
        }
        Self {
            host_busy: after.host.busy_since(before.host),
            cpu_us,
            roles,
            threads,
            messages,
            ordering,
            packets: (after.loopback.packets - before.loopback.packets) as f64 / requests,
            bytes: (after.loopback.bytes - before.loopback.bytes) as f64 / requests,
            leader_changed: before.look.leader != after.look.leader,
            outcome,
        }
    }

    /// For people.
    fn text(&self, threads: bool) -> String {
        let mut text = load::seen(&self.outcome);
        let busy = self.host_busy * 100.0;
        let _ = writeln!(
            text,
            "CPU          {:.1} µs a request without the load generator; host busy {busy:.0} %",
            self.cpu_us
        );
        let _ = writeln!(
            text,
            "             {:<20} {:>9} {:>9} {:>12} {:>12} {:>9}",
            "a request costs", "processes", "CPU µs", "waits", "made room", "disk B"
        );
        for (role, cost) in &self.roles {
            let Cost { processes, cpu_us, voluntary, involuntary, written } = cost;
            let _ = writeln!(
                text,
                "             {role:<20} {processes:>9} {cpu_us:>9.2} {voluntary:>12.3} {involuntary:>12.3} {written:>9.0}"
            );
        }
        if threads {
            for (thread, micros) in self.threads.iter().filter(|(_, micros)| **micros >= 0.01) {
                let _ = writeln!(text, "             {thread:<40} {micros:>9.2} µs");
            }
        }
        let _ = writeln!(text, "loopback     {:.2} packets, {:.0} bytes a request", self.packets, self.bytes);
        for (what, map) in [("messages", &self.messages), ("leader", &self.ordering)] {
            let mut name = what;
            for (kind, value) in map.iter().filter(|(_, value)| **value >= 0.0005) {
                let _ = writeln!(text, "{name:<12} {kind:<40} {value:>9.3}");
                name = "";
            }
        }
        if self.leader_changed {
            text.push_str("             another member took the lead meanwhile: measure again\n");
        }
        text
    }
}

/// Streams opened and messages sent, a request.
fn streams(role: &str, added: &Metrics, requests: f64) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for kind in added.labels("lockstep_quic_streams_total", "kind") {
        let labels = [r#"direction="opened""#, &format!("kind=\"{kind}\"")];
        let opened = added.sum("lockstep_quic_streams_total", &labels);
        all.insert(format!("{role}: streams opened, {kind}"), opened / requests);
    }
    for kind in added.labels("lockstep_peer_sent_messages_total", "kind") {
        let sent = added.sum("lockstep_peer_sent_messages_total", &[&format!("kind=\"{kind}\"")]);
        all.insert(format!("{role}: messages, {kind}"), sent / requests);
    }
    all
}

/// How the leader ordered them.
fn ordered(added: &Metrics, requests: f64) -> BTreeMap<String, f64> {
    let mean = |name: &str| {
        let count = added.sum(&format!("lockstep_{name}_count"), &[]);
        if count > 0.0 { added.sum(&format!("lockstep_{name}_sum"), &[]) / count } else { 0.0 }
    };
    BTreeMap::from([
        ("requests a batch".to_owned(), mean("batch_requests")),
        ("slots a request".to_owned(), added.sum("lockstep_slots_decided_total", &[]) / requests),
        ("syncs a request".to_owned(), added.sum("lockstep_journal_sync_seconds_count", &[]) / requests),
        ("a sync, µs".to_owned(), mean("journal_sync_seconds") * 1e6),
        ("a slot in the application, µs".to_owned(), mean("execute_seconds") * 1e6),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procfs::Usage;

    #[test]
    fn a_role_costs_what_its_processes_used_in_between() {
        let used = |ticks, voluntary| RoleUsage {
            processes: 2,
            usage: Usage { ticks, voluntary, ..Usage::default() },
            resident: 0,
        };
        let cost = Cost::of(used(100, 1000), used(150, 5000), 10_000.0);
        // 50 ticks are half a second.
        assert_eq!((cost.processes, cost.cpu_us, cost.voluntary), (2, 50.0, 0.4));
    }

    #[test]
    fn messages_and_batches_are_per_request() {
        let metrics = Metrics::read(
            "lockstep_quic_streams_total{direction=\"opened\",kind=\"peer\"} 200\n\
             lockstep_quic_streams_total{direction=\"accepted\",kind=\"peer\"} 900\n\
             lockstep_peer_sent_messages_total{peer=\"1\",kind=\"accept\"} 30\n\
             lockstep_peer_sent_messages_total{peer=\"2\",kind=\"accept\"} 20\n\
             lockstep_batch_requests_sum 100\nlockstep_batch_requests_count 25\n",
        );
        let all = streams("x", &metrics, 100.0);
        assert_eq!((all["x: streams opened, peer"], all["x: messages, accept"]), (2.0, 0.5));
        assert_eq!(ordered(&metrics, 100.0)["requests a batch"], 4.0);
    }
}
