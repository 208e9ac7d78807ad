//! Three etcd on this machine, with syncs, as it comes.

use super::subject::{Started, local_data};
use crate::children::{Children, ports};
use crate::http;
use crate::wire::Protocol;
use anyhow::Context;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// Starts them; clients go to the leader.
pub(super) fn start(program: &Path, dir: &Path) -> anyhow::Result<Started> {
    let all: [SocketAddr; 6] = ports()?;
    let (clients, peers) = all.split_at(3);
    let initial: Vec<String> = peers.iter().enumerate().map(|(id, peer)| format!("m{id}=http://{peer}")).collect();
    let mut children = Children::default();
    for (id, (client, peer)) in clients.iter().zip(peers).enumerate() {
        let name = format!("m{id}");
        let mut command = Command::new(program);
        command.args(["--name", &name, "--initial-cluster-state", "new", "--initial-cluster", &initial.join(",")]);
        command.arg("--data-dir").arg(local_data(dir, &name)?);
        for (flag, address) in [("client", client), ("peer", peer)] {
            let url = format!("http://{address}");
            command.args([format!("--listen-{flag}-urls"), url.clone()]);
            let advertised = if flag == "peer" { "--initial-advertise-peer-urls" } else { "--advertise-client-urls" };
            command.args([advertised, &url]);
        }
        // What it logs by the way costs time.
        command.args(["--logger", "zap", "--log-level", "error"]);
        children.start(&format!("etcd-{id}"), dir, command)?;
    }
    let leader = || clients.iter().find(|client| leads(**client)).copied();
    let healthy = || clients.iter().all(|client| http::get(*client, "/health").is_ok_and(|text| text.contains("true")));
    children.wait("no leader of etcd", || leader().is_some() && healthy())?;
    let to = leader().context("the leader of etcd went away")?;
    Ok(Started { to: vec![to], protocol: Protocol::Etcd, children, cluster: None })
}

fn leads(client: SocketAddr) -> bool {
    http::get(client, "/metrics").is_ok_and(|text| text.lines().any(|line| line == "etcd_server_is_leader 1"))
}
