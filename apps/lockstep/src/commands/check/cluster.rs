//! What the statuses of the parts say when they are laid side by side. A pure function of them.

use super::line::{Category, Check};
use crate::commands::status::{Found, plain};
use mesh::node::human::{format_duration, format_size};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Clocks that are further apart, in milliseconds, are wrong: certificates and the log's times depend on them.
const SKEW_MAX: i64 = 1000;
/// The kernel's default receive buffer, as Linux shows it. Less does not take one burst of a busy peer.
pub(super) const BUFFER_BYTES_MIN: u64 = 212_992;
/// Datagrams that a socket may lose in its life: a burst in which the machine stood still.
const DROPPED_MAX: u64 = 1000;
/// Free bytes under which a disk is nearly full.
pub(super) const FREE_BYTES_MIN: u64 = 1 << 30;
/// A sync of the journal that takes longer holds up every write.
pub(super) const SYNC_MAX: Duration = Duration::from_millis(50);
/// Slots that a replica may be behind its peers, and its application behind it, as in `/readyz`.
const BEHIND_MAX: u64 = 64;
const UNEXECUTED_MAX: u64 = 1024;

/// Mends buffers that are too small.
pub(super) const RAISE_BUFFERS: &str = "run `sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304` (and keep it in /etc/sysctl.d), then start the part again";

/// Every check on what was found.
pub(super) fn judge(found: &Found) -> Vec<Check> {
    let mut checks = reach(found);
    checks.extend(service(found));
    checks.extend(answering(found).flat_map(|part| [links(part), socket(part)]).flatten());
    for replica in answering_replicas(found) {
        checks.push(lag(replica));
        checks.push(own_divergence(replica));
        checks.extend(application(replica));
        checks.extend(disk(replica));
        checks.extend(log(replica));
    }
    checks.extend(digests(found));
    checks.extend([clocks(found), versions(found), trust(found)].into_iter().flatten());
    checks
}

fn answering(found: &Found) -> impl Iterator<Item = &Value> {
    found.parts().filter(|part| part["error"].is_null())
}

fn answering_replicas(found: &Found) -> impl Iterator<Item = &Value> {
    found.replicas.iter().filter(|part| part["error"].is_null())
}

/// As a line names a part.
pub(super) fn name(part: &Value) -> String {
    match part["kind"].as_str() {
        Some(kind) => format!("{kind} {}", plain(&part["id"])),
        None => format!("part at {}", plain(&part["admin"])),
    }
}

/// What the part itself says can be done, or else `otherwise`.
fn hint(part: &Value, otherwise: &str) -> String {
    let hints: Vec<&str> = part["hints"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if hints.is_empty() { otherwise.to_owned() } else { hints.join("; ") }
}

fn reach(found: &Found) -> Vec<Check> {
    let lists = [
        ("sidecar", &found.replicas),
        ("smart-client", &found.smart_clients),
        ("ingress", &found.ingresses),
        ("part", &found.unknown),
    ];
    let mut checks = Vec::new();
    for (kind, list) in lists {
        for part in list {
            let name = if part["id"].is_null() { name(part) } else { format!("{kind} {}", plain(&part["id"])) };
            if let Some(error) = part["error"].as_str() {
                let text = format!("cannot be reached at {}: {error}", plain(&part["admin"]));
                let hint = "is it running, and is that its --admin address? Its log says why it ended; `lockstep up` starts \
                            it again by itself, and so does Kubernetes (`kubectl describe pod`)";
                checks.push(Check::bad(Category::Parts, name, "unreachable", text, hint));
            } else if kind == "part" {
                let hint = "correct --admin: what answers there is no part of Lockstep";
                checks.push(Check::bad(Category::Parts, name, "no_part", "answers, and says not what it is", hint));
            }
        }
    }
    checks
}

/// Whether a majority of the members votes and agrees on who leads.
fn service(found: &Found) -> Vec<Check> {
    let replicas: Vec<&Value> = answering_replicas(found).collect();
    let mut checks: Vec<Check> = found
        .smart_clients
        .iter()
        .filter(|part| part["quorum"] == false)
        .map(|part| {
            let hint = "see the lines about links: their addresses are its --servers";
            Check::bad(Category::Quorum, name(part), "no_quorum", "does not reach a majority of the replicas", hint)
        })
        .collect();
    if replicas.is_empty() {
        return checks;
    }
    let members = replicas.iter().filter_map(|part| part["members"].as_array()).map(Vec::len).max().unwrap_or(0);
    let votes = |part: &&&Value| {
        ["leader", "follower", "candidate", "witness", "quarantined"].contains(&part["role"].as_str().unwrap_or(""))
    };
    let voting = replicas.iter().filter(votes).count();
    let leaders: BTreeSet<String> =
        replicas.iter().filter(|part| !part["leader"].is_null()).map(|part| plain(&part["leader"])).collect();
    let lead = match leaders.len() {
        0 => "and know no leader".to_owned(),
        1 => format!("and follow {}", leaders.first().map_or("", String::as_str)),
        _ => format!("and name {} as the leader", leaders.iter().cloned().collect::<Vec<_>>().join(" and ")),
    };
    let text = format!("{voting} of {members} members vote, {lead}");
    let needed = mesh::quorum::majority(members.max(1));
    let waiting = replicas.iter().find(|part| part["role"] == "waiting");
    checks.push(if let Some(waiting) = waiting.filter(|_| members == 0) {
        let hint = hint(waiting, "make the first start: `lockstep bootstrap --expect N` (safe to run at any time)");
        Check::bad(Category::Quorum, "service", "not_started", "the cluster was not started yet", hint)
    } else if voting < needed {
        let text = format!("{text}: {needed} are needed, and nothing is answered until then");
        Check::bad(Category::Quorum, "service", "no_quorum", text, "start the members that are down")
    } else if leaders.len() != 1 {
        let hint = "an election takes about a second; if it goes on, see the lines about links and `lockstep status`";
        Check::bad(Category::Quorum, "service", "no_leader", text, hint)
    } else if voting < members && replicas.len() < members {
        let text = format!("{text}: {} more may be lost", voting - needed);
        let hint = "start the members that are down, or name all of them with --admin";
        Check::bad(Category::Quorum, "service", "reduced", text, hint)
    } else if voting < members {
        let learner = replicas.iter().find(|part| !votes(part)).copied().unwrap_or(&Value::Null);
        let hint = hint(learner, "see `lockstep status`");
        Check::bad(Category::Quorum, "service", "reduced", format!("{text}: {} does not", name(learner)), hint)
    } else {
        Check::good(Category::Quorum, "service", "healthy", format!("{text}; {} may be lost", voting - needed))
    });
    checks
}

/// Every link that a part keeps.
fn links(part: &Value) -> Vec<Check> {
    let Some(peers) = part["peers"].as_array() else { return Vec::new() };
    let down = peers.iter().filter(|peer| peer["up"] != true).map(|peer| {
        let to = if peer["id"].is_null() { String::new() } else { format!("{} at ", plain(&peer["id"])) };
        let error = peer["error"].as_str().unwrap_or("it was not reached yet");
        let text = format!("no link to {to}{}: {error}", plain(&peer["address"]));
        let hint = "is that part running, does the name resolve here, and does UDP pass between the two (firewall, \
                    network policy)? A refusal names the certificate: `lockstep certs inspect ADDR` shows what is presented";
        Check::bad(Category::Links, name(part), "link_down", text, hint)
    });
    let down: Vec<Check> = down.collect();
    if down.is_empty() && !peers.is_empty() {
        let text = format!("all of its links are up ({})", peers.len());
        return vec![Check::good(Category::Links, name(part), "linked", text)];
    }
    down
}

fn lag(replica: &Value) -> Check {
    let number = |field: &str| replica[field].as_u64().unwrap_or(0);
    let behind = number("behind");
    let unexecuted = number("decided").saturating_sub(number("executed"));
    let name = name(replica);
    if !replica["state_transfer"].is_null() {
        let transfer = &replica["state_transfer"];
        let size = |field: &str| format_size(transfer[field].as_u64().unwrap_or(0));
        let text = format!(
            "is being filled from {}: {} of {}",
            plain(&transfer["from"]),
            size("done_bytes"),
            size("total_bytes")
        );
        return Check::bad(
            Category::Lag,
            name,
            "filling",
            text,
            "nothing is to be done; --transfer-rate bounds its speed",
        );
    }
    if behind > BEHIND_MAX {
        let hint = "it catches up by itself; if it does not, see the lines about its links and its disk, and its log";
        return Check::bad(Category::Lag, name, "behind", format!("{behind} slots behind the others"), hint);
    }
    if unexecuted > UNEXECUTED_MAX {
        let hint = "its application is slower than the others or stands still: see its own log, and `lockstep status`";
        let text = format!("its application has {unexecuted} decided slots to execute");
        return Check::bad(Category::Lag, name, "application_behind", text, hint);
    }
    Check::good(Category::Lag, name, "level", format!("level at slot {}", number("executed")))
}

fn application(replica: &Value) -> Vec<Check> {
    let mut checks = Vec::new();
    let app = replica["app"].as_str().unwrap_or("running");
    if !matches!(app, "running" | "none") {
        let hint = hint(replica, "it is started again and replayed by itself; its own log says why it ended");
        checks.push(Check::bad(
            Category::Parts,
            name(replica),
            "application",
            format!("its application is {app}"),
            hint,
        ));
    }
    if let Some(at) = replica["silent"].as_str() {
        let text = format!("waits for the outcome of request {at}, which its application does not answer");
        let hint = hint(replica, &format!("`lockstep abort {at}` gives that request up"));
        checks.push(Check::bad(Category::Parts, name(replica), "silent", text, hint));
    }
    checks
}

fn own_divergence(replica: &Value) -> Check {
    let diff = "is the application deterministic? `lockstep diff` shows the first replies that differed; the count begins \
                anew when the sidecar is started again";
    if replica["role"] == "quarantined" {
        let text = "its application gave other replies than the majority's and answers nobody";
        return Check::bad(Category::Divergence, name(replica), "quarantined", text, hint(replica, diff));
    }
    match replica["divergences"].as_u64() {
        Some(0) | None => Check::good(Category::Divergence, name(replica), "agrees", "its replies are the majority's"),
        Some(count) => {
            let text = format!("{count} times its application gave other replies than before, or than the majority's");
            Check::bad(Category::Divergence, name(replica), "diverged", text, diff)
        }
    }
}

/// Rolling hashes of all replies, where two replicas have one of the same slot.
fn digests(found: &Found) -> Option<Check> {
    let mut by_slot: BTreeMap<u64, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for replica in answering_replicas(found) {
        for field in ["digest", "digest_now"] {
            let digest = &replica[field];
            if let Some(slot) = digest["slot"].as_u64() {
                by_slot
                    .entry(slot)
                    .or_default()
                    .entry(plain(&digest["blake3"]))
                    .or_default()
                    .push(plain(&replica["id"]));
            }
        }
    }
    let compared = by_slot.values().filter(|hashes| hashes.values().map(Vec::len).sum::<usize>() > 1).count();
    let differs = by_slot.iter().rev().find(|(_, hashes)| hashes.len() > 1);
    if let Some((slot, hashes)) = differs {
        let sides: Vec<String> = hashes.values().map(|ids| ids.join(", ")).collect();
        let text = format!("up to slot {slot} the replies of {} differ", sides.join(" from those of "));
        let hint = "it is judged at the next thousand slots, and a minority is rebuilt; `lockstep status` shows how it goes on";
        return Some(Check::bad(Category::Divergence, "replicas", "digests_differ", text, hint));
    }
    (compared > 0)
        .then(|| Check::good(Category::Divergence, "replicas", "digests_equal", "their rolling hashes are equal"))
}

fn disk(replica: &Value) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut shown = Vec::new();
    if let Some(free) = replica["disk"]["free_bytes"].as_u64() {
        let text = format!("{} free", rounded(free));
        if free < FREE_BYTES_MIN {
            let text = format!("{text} where its journal is: when it is full, this member stops");
            let hint = "make room, or lower --log-max-bytes; `lockstep snapshot save` lets the log be cut";
            checks.push(Check::bad(Category::Disk, name(replica), "disk_full", text, hint));
        } else {
            shown.push(text);
        }
    }
    if let Some(seconds) = replica["sync_seconds"].as_f64() {
        let took = format!("a sync takes {}", millis(seconds));
        if seconds > SYNC_MAX.as_secs_f64() {
            let hint = "put --data-dir on a faster or less busy disk; every write waits for a majority of these";
            checks.push(Check::bad(Category::Disk, name(replica), "slow_sync", took, hint));
        } else {
            shown.push(took);
        }
    }
    if !shown.is_empty() {
        checks.push(Check::good(Category::Disk, name(replica), "disk", shown.join(", ")));
    }
    checks
}

fn log(replica: &Value) -> Option<Check> {
    let (bytes, most) = (replica["log_bytes"].as_u64()?, replica["log_max_bytes"].as_u64()?);
    if bytes < most / 2 {
        return None;
    }
    let text = format!(
        "{} of the {} that its log may have are used: at the whole new requests are refused",
        rounded(bytes),
        rounded(most)
    );
    let hint = hint(
        replica,
        "`lockstep snapshot save` makes room; with --snapshot none: another mode, or a higher --log-max-bytes",
    );
    Some(Check::bad(Category::Disk, name(replica), "log_full", text, hint))
}

fn socket(part: &Value) -> Vec<Check> {
    let udp = &part["udp"];
    let Some(bytes) = udp["receive_buffer_bytes"].as_u64() else { return Vec::new() };
    let dropped = udp["dropped"].as_u64().unwrap_or(0);
    let text = format!("its UDP receive buffer has {}, and {dropped} datagrams were dropped", rounded(bytes));
    vec![if bytes < BUFFER_BYTES_MIN {
        Check::bad(Category::System, name(part), "small_buffer", text, RAISE_BUFFERS)
    } else if dropped > DROPPED_MAX {
        Check::bad(Category::System, name(part), "dropped", format!("{text} because it was full"), RAISE_BUFFERS)
    } else {
        Check::good(Category::System, name(part), "buffer", text)
    }]
}

/// The two clocks that are furthest apart, whatever ours says.
fn clocks(found: &Found) -> Option<Check> {
    let ahead = found.clocks.iter().max_by_key(|clock| clock.ahead)?;
    let behind = found.clocks.iter().min_by_key(|clock| clock.ahead)?;
    // What may be the network's fault is not held against them.
    let apart = (ahead.ahead - behind.ahead - ahead.doubt - behind.doubt).max(0);
    let shown = format_duration(Duration::from_millis(apart.unsigned_abs()));
    Some(if apart > SKEW_MAX {
        let text = format!("the clock of {} is {shown} ahead of that of {}", ahead.who, behind.who);
        let hint =
            "run `timedatectl set-ntp true` (or chrony) on both machines: certificates are judged by these clocks";
        Check::bad(Category::Clocks, "clocks", "skew", text, hint)
    } else {
        Check::good(Category::Clocks, "clocks", "together", format!("they are {shown} apart at most"))
    })
}

fn versions(found: &Found) -> Option<Check> {
    let versions = grouped(found, |part| part["version"].as_str().map(str::to_owned));
    match versions.len() {
        0 => None,
        1 => {
            let (version, _) = versions.first_key_value()?;
            Some(Check::good(Category::Versions, "versions", "same", format!("all parts are {version}")))
        }
        _ => {
            let text = sides(&versions, ToOwned::to_owned);
            let hint = "finish the upgrade: start the older parts again with the newer program, one after another";
            Some(Check::bad(Category::Versions, "versions", "mixed", text, hint))
        }
    }
}

/// What the parts trust now: one authority, or, in a rotation, the same two everywhere; and the same revocations.
fn trust(found: &Found) -> Option<Check> {
    let bundle = |part: &Value| {
        let mut bundle: Vec<&str> = part["tls"]["bundle_sha256"].as_array()?.iter().filter_map(Value::as_str).collect();
        bundle.sort_unstable();
        Some(bundle.join(" "))
    };
    let bundles = grouped(found, bundle);
    let lists = grouped(found, |part| part["tls"].get("crl_number").map(plain));
    let short =
        |bundle: &str| bundle.split(' ').map(|hash| &hash[..hash.len().min(8)]).collect::<Vec<_>>().join(" and ");
    let copy =
        "copy the bundle and crl.pem to every part (`lockstep certs rotate-ca status` says who still lacks what)";
    let name = "trust of running parts";
    Some(if bundles.len() > 1 {
        let text = format!("they do not trust the same authorities: {}", sides(&bundles, short));
        Check::bad(Category::Certificates, name, "different_authorities", text, copy)
    } else if lists.len() > 1 {
        let text = format!(
            "they do not have the same revocation list: {}",
            sides(&lists, |number| format!("number {number}"))
        );
        Check::bad(Category::Certificates, name, "different_revocations", text, copy)
    } else {
        let count = bundles.first_key_value()?.0.split(' ').count();
        if count > 1 {
            let text = format!(
                "a rotation is under way, and all trust the same {count} authorities; `lockstep certs rotate-ca finish` ends it"
            );
            Check::good(Category::Certificates, name, "rotation", text)
        } else {
            Check::good(Category::Certificates, name, "one_authority", "all trust the same single authority")
        }
    })
}

/// The parts that answer, by what `of` reads of them.
fn grouped(found: &Found, of: impl Fn(&Value) -> Option<String>) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for part in answering(found) {
        if let Some(key) = of(part) {
            groups.entry(key).or_default().push(name(part));
        }
    }
    groups
}

fn sides(groups: &BTreeMap<String, Vec<String>>, shown: impl Fn(&str) -> String) -> String {
    groups.iter().map(|(key, parts)| format!("{} ({})", shown(key), parts.join(", "))).collect::<Vec<_>>().join("; ")
}

/// To a tenth of the largest unit.
pub(super) fn rounded(bytes: u64) -> String {
    let bytes = bytes as f64;
    for (unit, factor) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let size = f64::from(2_u32).powi(factor);
        if bytes >= size {
            return format!("{:.1} {unit}", bytes / size);
        }
    }
    format!("{bytes} B")
}

pub(super) fn millis(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
