//! What runs where: every part with its ports, its directory and its command line. Decided before anything is started.

use super::args::Settings;
use super::data_dir::{Cluster, DataDir};
use super::ports::{Allocator, Ports, check_free};
use super::state::Role;
use crate::exit::Failure;
use crate::parts::adapter;
use crate::parts::adapter::Protocol;
use crate::parts::reads;
use anyhow::Context;
use mesh::node::human;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One part.
#[derive(Clone, Debug)]
pub(crate) struct PartPlan {
    /// What it is.
    pub(crate) role: Role,
    /// Which one.
    pub(crate) id: u32,
    /// Its admin address.
    pub(crate) admin: SocketAddr,
    /// Its QUIC address, where others open links to it.
    pub(crate) quic: Option<SocketAddr>,
    /// An ingress: where clients come in.
    pub(crate) listen: Option<SocketAddr>,
    /// A sidecar: where its application listens.
    pub(crate) app: Option<SocketAddr>,
    /// Arguments of this program.
    pub(crate) arguments: Vec<OsString>,
    /// Where its output goes.
    pub(crate) log: PathBuf,
}

impl PartPlan {
    /// Its name for people and for files.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.role.as_str(), self.id)
    }
}

/// Everything.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// This program.
    pub(crate) program: PathBuf,
    /// The data directory.
    pub(crate) data_dir: PathBuf,
    /// Where the certificates are.
    pub(crate) pki: PathBuf,
    /// Ids and QUIC addresses of the members.
    pub(crate) members: Vec<(u32, String)>,
    /// Where clients come in.
    pub(crate) listen: SocketAddr,
    /// Sidecars, then SMaRtClients, then the ingress.
    pub(crate) parts: Vec<PartPlan>,
}

/// How much of the whole time to end each stage has, one after the other; and what a part may use of it to drain.
pub(crate) const STAGES: [(Role, f64, f64); 3] =
    [(Role::Ingress, 0.50, 0.40), (Role::SmartClient, 0.25, 0.15), (Role::Sidecar, 0.25, 0.15)];

/// Makes the plan, and keeps its ports in the data directory.
pub(crate) fn plan(settings: &Settings, dir: &DataDir) -> Result<Plan, Failure> {
    let found = dir.cluster()?;
    if let Some(found) = &found {
        found.check(&Cluster::of(settings, Ports::new()), dir.path())?;
    }
    let kept = found.map(|cluster| cluster.ports).unwrap_or_default();
    let mut ports = Allocator::new(kept, std::process::id());
    let program = std::env::current_exe().context("this program cannot find itself")?;
    let builder = Builder { settings, dir: dir.path(), program: &program };
    let mut parts = builder.addresses(&mut ports)?;
    let members = targets(&parts, Role::Sidecar);
    let smart_clients = targets(&parts, Role::SmartClient);
    for part in &mut parts {
        part.arguments = builder.arguments(part, &members, &smart_clients);
    }
    dir.keep(&Cluster::of(settings, ports.into_kept()))?;
    let listen = parts.iter().find_map(|part| part.listen).unwrap_or(settings.listen);
    Ok(Plan { data_dir: dir.path().to_owned(), pki: dir.path().join("pki"), program, members, listen, parts })
}

fn targets(parts: &[PartPlan], role: Role) -> Vec<(u32, String)> {
    let of = |part: &PartPlan| Some((part.id, part.quic?.to_string()));
    parts.iter().filter(|part| part.role == role).filter_map(of).collect()
}

struct Builder<'a> {
    settings: &'a Settings,
    dir: &'a Path,
    program: &'a Path,
}

impl Builder<'_> {
    fn addresses(&self, ports: &mut Allocator) -> anyhow::Result<Vec<PartPlan>> {
        let mut parts = Vec::new();
        let roles = [
            (Role::Sidecar, self.settings.members()),
            (Role::SmartClient, self.settings.smart_clients),
            (Role::Ingress, 1),
        ];
        for (role, count) in roles {
            for id in 0..count {
                let name = format!("{}-{id}", role.as_str());
                let mut free = |what: &str| ports.take(&format!("{name}.{what}")).map(local);
                parts.push(PartPlan {
                    role,
                    id,
                    admin: match self.fixed_admin(role, id) {
                        Some(port) => local(port),
                        None => free("admin")?,
                    },
                    quic: if role == Role::Ingress { None } else { Some(free("quic")?) },
                    app: match role {
                        Role::Sidecar if id < self.settings.replicas => Some(free("app")?),
                        // A witness has none.
                        Role::Sidecar | Role::SmartClient | Role::Ingress => None,
                    },
                    listen: match role {
                        Role::Ingress if self.settings.listen.port() == 0 => {
                            Some(SocketAddr::new(self.settings.listen.ip(), free("listen")?.port()))
                        }
                        Role::Ingress => Some(self.settings.listen),
                        Role::Sidecar | Role::SmartClient => None,
                    },
                    arguments: Vec::new(),
                    log: self.dir.join("logs").join(format!("{name}.log")),
                });
            }
        }
        for part in &parts {
            check_free(part.admin, "--admin-base-port")?;
            part.listen.map_or(Ok(()), |listen| check_free(listen, "--listen"))?;
        }
        Ok(parts)
    }

    fn fixed_admin(&self, role: Role, id: u32) -> Option<u16> {
        let offset = match role {
            Role::Sidecar => 0,
            Role::SmartClient => 100,
            Role::Ingress => 300,
        };
        // The settings left room for it.
        self.settings.admin_base_port?.checked_add(offset + u16::try_from(id).ok()?)
    }

    fn arguments(&self, part: &PartPlan, members: &[(u32, String)], smart_clients: &[(u32, String)]) -> Vec<OsString> {
        let mut line = Line::new(part.role.as_str());
        let settings = self.settings;
        let role = if part.role == Role::Sidecar { "server" } else { part.role.as_str() };
        line.flag("cluster", &settings.cluster);
        line.flag("id", part.id.to_string());
        line.flag("pki", self.dir.join("pki").join(role).join(part.id.to_string()));
        line.flag("crl", self.dir.join("pki").join("crl.pem"));
        line.flag("link-max-age", human::format_duration(settings.link_max_age));
        line.flag("admin", part.admin.to_string());
        line.flag("drain-timeout", human::format_duration(self.drain(part.role)));
        line.flag("parent-pid", std::process::id().to_string());
        line.flag("log-format", &settings.log_format);
        line.flag("spin", human::format_duration(settings.spin));
        if let Some(filter) = &settings.log {
            line.flag("log", filter);
        }
        if let Some(quic) = part.quic {
            line.flag("quic", quic.to_string());
        }
        match part.role {
            Role::Sidecar => self.sidecar(part, members, &mut line),
            Role::SmartClient => {
                line.flag("servers", list(members));
                line.flag("reply-vote", adapter::name(&settings.reply_vote));
            }
            Role::Ingress => {
                if smart_clients.is_empty() {
                    line.flag("smart-client-pki", self.dir.join("pki/smart-client").join(part.id.to_string()));
                    line.flag("servers", list(members));
                } else {
                    line.flag("smart-clients", list(smart_clients));
                }
                line.flag("listen", part.listen.unwrap_or(settings.listen).to_string());
                line.flag("deadline", human::format_duration(settings.deadline));
                line.flag("reply-vote", adapter::name(&settings.reply_vote));
                line.flag("reads", adapter::name(&settings.reads));
                for (name, value) in settings.signatures.flags() {
                    line.flag(name, value);
                }
                if let Some(tls) = &settings.tls {
                    line.flag("tls-cert", &tls.certificate);
                    line.flag("tls-key", &tls.key);
                }
                for (name, value) in settings.clients.flags() {
                    line.flag(name, value);
                }
                self.adapter(&mut line);
            }
        }
        line.0
    }

    fn sidecar(&self, part: &PartPlan, members: &[(u32, String)], line: &mut Line) {
        let settings = self.settings;
        line.flag("seeds", list(members));
        line.flag("data-dir", self.dir.join(format!("server-{}", part.id)));
        line.flag("durability", adapter::name(&settings.durability));
        if let Some(app) = part.app {
            line.flag("app-port", app.port().to_string());
            line.flag("app-dir", self.dir.join(format!("app-{}", part.id)));
            line.flag("app-timeout", human::format_duration(settings.app_timeout));
        }
        for (name, value) in settings.recovery.flags(settings.protocol) {
            line.flag(name, value);
        }
        for (name, value) in settings.signatures.flags() {
            line.flag(name, value);
        }
        self.adapter(line);
        if part.app.is_none() {
            line.0.push("--witness".into());
            return;
        }
        line.0.push("--".into());
        if settings.command.is_empty() {
            line.0.push(self.program.into());
            line.0.extend(["hashmap", "--listen", "127.0.0.1:{port}"].map(OsString::from));
            if settings.protocol == Protocol::Close {
                line.0.push("--close".into());
            }
        } else {
            line.0.extend(settings.command.iter().map(OsString::from));
        }
    }

    fn adapter(&self, line: &mut Line) {
        line.flag("protocol", adapter::name(&self.settings.protocol));
        line.flag("app-connections", adapter::name(&self.settings.connections));
        line.flag("request-bytes", human::format_size(self.settings.adapter.request_bytes as u64));
        line.flag("reply-bytes", human::format_size(self.settings.adapter.reply_bytes as u64));
        if let Some((name, words)) = reads::flag(&self.settings.read_only) {
            line.flag(name, words);
        }
    }

    /// What a part may use of the whole time to end.
    fn drain(&self, role: Role) -> Duration {
        let share = STAGES.iter().find(|(stage, _, _)| *stage == role).map_or(0.1, |(_, _, drain)| *drain);
        self.settings.drain_timeout.mul_f64(share)
    }
}

/// A command line of this program.
struct Line(Vec<OsString>);

impl Line {
    fn new(subcommand: &str) -> Self {
        Self(vec![subcommand.into()])
    }

    /// With "=", so that no value is taken for a flag.
    fn flag(&mut self, name: &str, value: impl Into<OsString>) {
        let mut word = OsString::from(format!("--{name}="));
        word.push(value.into());
        self.0.push(word);
    }
}

fn list(targets: &[(u32, String)]) -> String {
    targets.iter().map(|(id, address)| format!("{id}={address}")).collect::<Vec<_>>().join(",")
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
