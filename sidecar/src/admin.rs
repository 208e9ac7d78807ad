//! What the admin port shows of a sidecar. Reads snapshots only: it never holds up the driver.

use crate::app;
use crate::hints::hints;
use crate::inputs::Control;
use crate::metrics::Metrics;
use crate::peers::PeerLinks;
use crate::publish::{Phase, Snapshot};
use crate::{App, Config, SnapshotMode, transfer};
use mesh::config::{Divergence, Durability};
use mesh::ids::ReplicaId;
use mesh::net::Endpoint;
use mesh::node::{Admin, hide};
use mesh::order::{Role, Status};
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// A leader that was known within this time makes a replica ready.
const LEADER_WITHIN: Duration = Duration::from_secs(3);
/// Decided slots that wait for the application longer than this, with none executed, are overdue.
const OVERDUE: Duration = Duration::from_secs(5);
/// A snapshot that is taken keeps the application busy for this long without being overdue.
const DUMPING: Duration = Duration::from_secs(60);
/// Slots that a replica may be behind its peers and still count as caught up.
const BEHIND_MAX: u64 = 64;
/// Decided slots that may wait for the application in a replica that is caught up.
const UNEXECUTED_MAX: u64 = 1024;

/// See the module.
pub(crate) struct AdminState {
    pub(crate) config: Config,
    /// Where QUIC links come in.
    pub(crate) endpoint: Endpoint,
    pub(crate) snapshots: watch::Receiver<Snapshot>,
    pub(crate) transfers: watch::Receiver<Option<transfer::View>>,
    pub(crate) app: watch::Receiver<app::View>,
    pub(crate) app_awaits_restart: Arc<AtomicBool>,
    pub(crate) control: mpsc::Sender<Control>,
    pub(crate) metrics: Metrics,
    /// Once they are kept.
    pub(crate) links: Arc<OnceLock<PeerLinks>>,
}

impl Admin for AdminState {
    fn ready(&self) -> Vec<(&'static str, bool)> {
        // A witness needs none.
        let app = self.config.app.is_none() || self.app.borrow().state == app::State::Running;
        let snapshot = self.snapshots.borrow();
        let Phase::Running { status, leader_seen, stuck_since, dumping_since, .. } = &snapshot.phase else {
            return vec![("member", false), ("caught_up", false), ("application", app), ("leader", false)];
        };
        let within = |since: &Option<Instant>, time| since.is_some_and(|since| since.elapsed() <= time);
        let unexecuted = status.decided.0.saturating_sub(status.executed.0);
        let overdue = match dumping_since {
            Some(_) => !within(dumping_since, DUMPING),
            None => stuck_since.is_some() && !within(stuck_since, OVERDUE),
        };
        let waits = overdue || status.silent.is_some() || status.quarantined;
        vec![
            ("member", !matches!(status.role, Role::Learner | Role::Removed)),
            ("caught_up", status.behind <= BEHIND_MAX && unexecuted <= UNEXECUTED_MAX),
            ("application", app && !waits),
            ("leader", status.leader.is_some() || within(leader_seen, LEADER_WITHIN)),
            ("not draining", self.metrics.drain_state.get() == 0),
        ]
    }

    fn started(&self) -> bool {
        !matches!(self.snapshots.borrow().phase, Phase::Starting)
    }

    fn app_live(&self) -> bool {
        !self.app_awaits_restart.load(Ordering::Relaxed)
    }

    fn status(&self) -> Value {
        let snapshot = self.snapshots.borrow().clone();
        let app = self.app.borrow().clone();
        let mut value = self.surroundings(&app, &snapshot);
        let fields = match &snapshot.phase {
            Phase::Starting | Phase::Waiting => blank(self.config.seeds.len()),
            Phase::Running { membership, status, newer, .. } => {
                let mut fields = running(status);
                fields["life"] = json!(format!("{:016x}", membership.life.0));
                fields["hints"] = json!(hints(&self.config, status, *newer));
                fields["generation"] = json!(membership.configuration.generation.to_string());
                fields
            }
        };
        if let (Value::Object(value), Value::Object(fields)) = (&mut value, fields) {
            value.extend(fields);
        }
        value
    }

    fn config(&self) -> Value {
        let config = &self.config;
        let app = match &config.app {
            None => Value::Null,
            Some(App::Address(address)) => json!({ "address": address.to_string() }),
            Some(App::Command { argv, port, dir }) => {
                json!({ "command": hide::secrets(argv), "port": port, "dir": dir })
            }
        };
        json!({
            "cluster": config.cluster,
            "id": config.id,
            "pki": config.pki,
            "trust_bundle": config.trust_bundle,
            "crl": config.crl,
            "link_max_age_seconds": config.link_max_age.as_secs_f64(),
            "quic": config.quic.to_string(),
            "admin": config.admin.to_string(),
            "seeds": config.seeds.iter().map(|(id, address)| (id.to_string(), json!(address))).collect::<serde_json::Map<_, _>>(),
            "advertise": config.advertise,
            "data_dir": config.data_dir,
            "app": app,
            "adapter": config.adapter.name(),
            "request_bytes": config.adapter.request_bytes,
            "reply_bytes": config.adapter.reply_bytes,
            "durability": durability(config.durability),
            "drain_timeout_seconds": config.drain_timeout.as_secs_f64(),
            "transfer_rate": config.transfer_rate,
            "app_timeout_seconds": config.app_timeout.as_secs_f64(),
            "app_supervisor": config.app_supervisor,
            "app_reset_request": config.app_reset_request.as_deref().map(hide::request),
            "snapshot": snapshot_mode(&config.app_snapshot),
            "snapshot_every_requests": config.snapshots.map(|snapshots| snapshots.every_requests),
            "snapshot_every_bytes": config.snapshots.map(|snapshots| snapshots.every_bytes),
            "snapshot_timeout_seconds": config.app_snapshot_timeout.as_secs_f64(),
            "log_max_bytes": config.limits.log_bytes,
            "log_tail_slots": config.limits.log_tail_slots,
            "divergence": divergence(config.divergence),
            "election_timeout_seconds": config.timing.election_timeout.as_secs_f64(),
            "heartbeat_seconds": config.timing.heartbeat.as_secs_f64(),
            "request_timeout_seconds": config.timing.request_timeout.as_secs_f64(),
        })
    }

    fn drain(&self, wait: Duration) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async move {
            if self.app_awaits_restart.load(Ordering::Relaxed) {
                // It is the application that ends, as this sidecar wished; the sidecar itself stays.
                return true;
            }
            let (done, drained) = oneshot::channel();
            if self.control.try_send(Control::Drain(done)).is_err() {
                return false;
            }
            matches!(tokio::time::timeout(wait, drained).await, Ok(Ok(())))
        })
    }
}

impl AdminState {
    fn peers(&self) -> Value {
        let seeds = &self.config.seeds;
        let ids: Vec<ReplicaId> = match &self.snapshots.borrow().phase {
            Phase::Running { status, .. } => status.members.iter().map(|member| member.id).collect(),
            Phase::Starting | Phase::Waiting => seeds.iter().map(|(id, _)| ReplicaId(*id)).collect(),
        };
        let others = ids.into_iter().filter(|id| id.0 != self.config.id);
        let seed = |id: ReplicaId| seeds.iter().find(|(seed, _)| *seed == id.0).map(|(_, address)| address.as_str());
        self.links.get().map_or_else(|| json!([]), |links| links.status(others.map(|id| (id, seed(id)))))
    }

    /// What does not come from the ordering core.
    fn surroundings(&self, app: &app::View, snapshot: &Snapshot) -> Value {
        json!({
            "kind": "sidecar",
            "draining": self.metrics.drain_state.get() != 0,
            "id": self.config.id,
            "cluster": self.config.cluster,
            "journal_bytes": snapshot.journal_bytes,
            "disk": snapshot.disk.map(|disk| json!({ "free_bytes": disk.free, "total_bytes": disk.total })),
            "sync_seconds": self.metrics.sync_pace(),
            "log_max_bytes": self.config.limits.log_bytes,
            "snapshot_mode": snapshot_mode(&self.config.app_snapshot),
            "app": self.config.app.as_ref().map_or("none", |_| app.state.name()),
            "app_pid": app.pid,
            "app_addr": self.config.app.as_ref().map(|app| app.address().to_string()),
            "app_incarnation": app.incarnation,
            "divergences": self.metrics.divergences.get(),
            "state_transfer": self.transfers.borrow().as_ref().map(transferring),
            "aborted_requests": self.metrics.aborted_requests.get(),
            "durability": durability(self.config.durability),
            "version": mesh::node::version().to_string(),
            "tls": self.endpoint.tls_status(),
            "udp": self.endpoint.udp_status(),
            "quic": self.endpoint.local_addr().to_string(),
            "peers": self.peers(),
        })
    }
}

/// A snapshot that is being fetched.
fn transferring(view: &transfer::View) -> Value {
    json!({
        "from": view.from.0,
        "slot": view.slot.0,
        "done_bytes": view.done_bytes,
        "total_bytes": view.total_bytes,
        "bytes_per_second": view.rate.round(),
        "seconds": view.started.elapsed().unwrap_or_default().as_secs_f64(),
    })
}

/// The fields of a member that is not part of a cluster yet.
fn blank(target: usize) -> Value {
    let nothing = mesh::ids::Digest::default().to_string();
    json!({
        "role": "waiting",
        "ballot": "0.0.0",
        "leader": null,
        "epoch": 0,
        "incarnation": 0,
        "life": null,
        "generation": null,
        "members": [],
        "voters": [],
        "witnesses": [],
        "target_members": target,
        "changing": false,
        "decided": 0,
        "executed": 0,
        "settled": 0,
        "behind": 0,
        "held": 0,
        "log_first": 0,
        "log_last": 0,
        "log_bytes": 0,
        "snapshot_slot": 0,
        "silent": null,
        "hints": [],
        "app_resets": 0,
        "sessions": 0,
        "digest": { "slot": 0, "blake3": nothing },
        "digest_now": { "slot": 0, "blake3": nothing },
    })
}

fn running(status: &Status) -> Value {
    let members: Vec<u32> = status.members.iter().map(|member| member.id.0).collect();
    let digest = |slot: u64, digest: &mesh::ids::Digest| json!({ "slot": slot, "blake3": digest.to_string() });
    json!({
        "role": if status.quarantined { "quarantined" } else { role(status.role) },
        "ballot": status.ballot.to_string(),
        "leader": status.leader.map(|leader| leader.0),
        "epoch": status.epoch.0,
        "incarnation": status.incarnation.0,
        "members": members,
        "voters": status.members.iter().filter(|member| member.votes).map(|member| member.id.0).collect::<Vec<_>>(),
        "witnesses": status.members.iter().filter(|member| !member.application).map(|member| member.id.0).collect::<Vec<_>>(),
        "target_members": status.target_members,
        "changing": status.changing,
        "decided": status.decided.0,
        "executed": status.executed.0,
        "settled": status.settled.0,
        "behind": status.behind,
        "log_first": status.log_first.0,
        "log_last": status.log_last.0,
        "log_bytes": status.log_bytes,
        "snapshot_slot": status.snapshot.0,
        "silent": status.silent.map(|at| at.to_string()),
        "app_resets": status.app_resets,
        "sessions": status.sessions,
        "held": status.held,
        "digest": digest(status.digest.0.0, &status.digest.1),
        "digest_now": digest(status.executed.0, &status.digest_now),
    })
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Witness => "witness",
        Role::Removed => "removed",
    }
}

const fn snapshot_mode(mode: &SnapshotMode) -> &'static str {
    match mode {
        SnapshotMode::None => "none",
        SnapshotMode::Request(_) => "request",
        SnapshotMode::Command { .. } => "command",
        SnapshotMode::Directory => "directory",
    }
}

const fn divergence(policy: Divergence) -> &'static str {
    match policy {
        Divergence::Rebuild => "rebuild",
        Divergence::Alarm => "alarm",
        Divergence::Stop => "stop",
    }
}

const fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::Sync => "sync",
        Durability::Async => "async",
        Durability::Memory => "memory",
    }
}
