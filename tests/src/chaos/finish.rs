//! The end of a run: everything settles, everything is read once more, and the applications themselves are compared.

use super::clients::{Client, Mix, Service, nanos};
use super::cluster::{Cluster, Health};
use super::options::{Options, Setup};
use super::report::Report;
use crate::linear::{Call, Op, Outcome};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Until everything has settled; only a hang takes longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Appends what is there at the end to the history.
pub(super) fn close(
    options: &Options,
    setup: &Setup,
    cluster: &mut dyn Cluster,
    service: &Service,
    stop: &AtomicBool,
    calls: &mut Vec<Call>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    if let Err(why) = settled(options, cluster, stop)? {
        report.findings.push(format!("not settled after {} s: {why}", PATIENCE.as_secs()));
        return Ok(());
    }
    report.settled_after = begun.elapsed();
    let keys: Vec<String> = (0..setup.mix.keys).map(Mix::key).collect();
    let reads = keys.iter().map(|key| Op::Get { key: key.clone() }).chain([Op::Size]);
    let reader = Client::new(options.clients, service).ask(reads);
    if reader.calls.len() <= keys.len() {
        report.findings.push("the final reads were not made".to_owned());
    }
    calls.extend(report.add(vec![reader]));
    let end = Instant::now() + PATIENCE;
    loop {
        anyhow::ensure!(Instant::now() < end, "the applications could not be read while nothing was executed");
        let from = service.begun.elapsed();
        let before = match settled(options, cluster, stop)? {
            Ok(health) => health,
            Err(why) => anyhow::bail!("not settled any more: {why}"),
        };
        let dumps = dumps(cluster, &before);
        let after = settled(options, cluster, stop)?;
        // What they held is what they held at one moment only if nothing was executed and nobody was rebuilt meanwhile.
        let marks =
            |all: &BTreeMap<u64, Health>| -> Vec<_> { all.values().map(|one| (one.executed, one.app_pid)).collect() };
        if let (Ok(after), Ok(dumps)) = (after, dumps)
            && marks(&after) == marks(&before)
        {
            compare(&dumps, report);
            if let Some(dump) = dumps.first() {
                calls.extend(as_reads(options.clients + 1, (from, service.begun.elapsed()), &keys, &dump.1)?);
            }
            return Ok(());
        }
    }
}

/// Waits until all servers vote, have their application and have executed the same.
fn settled(
    options: &Options,
    cluster: &mut dyn Cluster,
    stop: &AtomicBool,
) -> anyhow::Result<Result<BTreeMap<u64, Health>, String>> {
    let end = Instant::now() + PATIENCE;
    loop {
        anyhow::ensure!(!stop.load(Ordering::Relaxed), "interrupted");
        cluster.tend()?;
        let servers = cluster.parts().into_iter().filter(|part| part.role == "sidecar");
        let asked: Result<BTreeMap<u64, Health>, String> =
            servers.map(|part| Health::ask(&part.admin).map(|health| (part.id, health))).collect();
        let why = match asked {
            Ok(all) => {
                let mark = all.values().next().map(|one| one.executed);
                let same = |one: &Health| one.serves() && one.decided == one.executed && Some(one.executed) == mark;
                if all.len() as u64 == options.replicas && all.values().all(same) {
                    return Ok(Ok(all));
                }
                format!("{all:?}")
            }
            Err(error) => error,
        };
        if Instant::now() >= end {
            return Ok(Err(why));
        }
        std::thread::sleep(LOOK);
    }
}

fn dumps(cluster: &dyn Cluster, servers: &BTreeMap<u64, Health>) -> anyhow::Result<Vec<(u64, String)>> {
    let ask = |(id, health): (&u64, &Health)| Ok((*id, cluster.ask_app(*id, &health.app_addr, "DUMP")?));
    servers.iter().map(ask).collect()
}

fn compare(dumps: &[(u64, String)], report: &mut Report) {
    let Some((first, dump)) = dumps.first() else { return };
    for (other, theirs) in dumps.iter().filter(|(_, theirs)| theirs != dump) {
        report.findings.push(format!("servers {first} and {other} differ:\n  {dump}\n  {theirs}"));
    }
}

/// A dump as the reads that it amounts to, of a client of its own.
fn as_reads(client: u32, (from, to): (Duration, Duration), keys: &[String], dump: &str) -> anyhow::Result<Vec<Call>> {
    let json = dump.strip_prefix("ENTRIES ").ok_or_else(|| anyhow::anyhow!("no dump: {dump}"))?;
    let entries: Vec<(String, String)> = serde_json::from_str(json)?;
    let count = entries.len().to_string();
    let entries: BTreeMap<String, String> = entries.into_iter().collect();
    let call =
        |op, reply| Call { client, called: nanos(from), op, outcome: Outcome::Reply { returned: nanos(to), reply } };
    let read = |key: &String| {
        let reply = entries.get(key).map_or("NIL".to_owned(), |value| format!("VALUE {value}"));
        call(Op::Get { key: key.clone() }, reply)
    };
    Ok(keys.iter().map(read).chain([call(Op::Size, count)]).collect())
}
