//! Redis: alone, behind a proxy, and with two replicas.

use super::subject::{Started, local_data};
use crate::children::{Children, ports};
use crate::wire::Protocol;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The application that Lockstep replicates, as `lockstep up` is told to start it.
pub(super) const APPLICATION: [&str; 7] = ["redis-server", "--port", "{port}", "--save", "", "--appendonly", "no"];

/// The application, and nothing else.
pub(super) fn alone(program: &Path, dir: &Path) -> anyhow::Result<Started> {
    let [to] = ports()?;
    let mut children = Children::default();
    server(&mut children, program, dir, "redis", to, &["--appendonly", "no"])?;
    Ok(Started { to: vec![to], protocol: Protocol::Resp, children, cluster: None })
}

/// The application behind haproxy, which only passes bytes on.
pub(super) fn proxied(program: &Path, haproxy: &Path, dir: &Path) -> anyhow::Result<Started> {
    let [to, behind] = ports()?;
    let mut children = Children::default();
    server(&mut children, program, dir, "redis", behind, &["--appendonly", "no"])?;
    let file = dir.join("haproxy.cfg");
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         listen all\n  bind {to}\n  server redis {behind}\n"
    );
    std::fs::write(&file, text)?;
    let mut command = Command::new(haproxy);
    command.arg("-db").arg("-f").arg(&file);
    children.start("haproxy", dir, command)?;
    children.wait("haproxy does not answer", || ask(to, "PING").contains("PONG"))?;
    Ok(Started { to: vec![to], protocol: Protocol::Resp, children, cluster: None })
}

/// Every server syncs every write; clients wait for one replica besides.
pub(super) fn replicated(program: &Path, dir: &Path) -> anyhow::Result<Started> {
    let [to, one, other] = ports()?;
    let mut children = Children::default();
    let synced = ["--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"];
    server(&mut children, program, dir, "master", to, &synced)?;
    let port = to.port().to_string();
    for (name, address) in [("replica-1", one), ("replica-2", other)] {
        let follows = [&synced[..], &["--replicaof", "127.0.0.1", &port]].concat();
        server(&mut children, program, dir, name, address, &follows)?;
    }
    let online = || ask(to, "INFO replication").matches("state=online").count() == 2;
    children.wait("the replicas do not follow", online)?;
    Ok(Started { to: vec![to], protocol: Protocol::RespWait, children, cluster: None })
}

fn server(
    children: &mut Children,
    program: &Path,
    dir: &Path,
    name: &str,
    address: SocketAddr,
    more: &[&str],
) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--save", "", "--loglevel", "warning"]);
    command.arg("--dir").arg(local_data(dir, name)?).args(more);
    children.start(name, dir, command)?;
    children.wait("redis does not answer", || ask(address, "PING").contains("PONG"))
}

/// The beginning of what is answered to a line; nothing where nobody is.
fn ask(address: SocketAddr, line: &str) -> String {
    const PATIENCE: Duration = Duration::from_secs(2);
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{line}\r\n").as_bytes())?;
        let mut answer = [0; 4096];
        let read = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    };
    exchange().unwrap_or_default()
}
