//! Three ZooKeepers on this machine, with syncs, as they come; sessions are spread over them.

use super::subject::{Started, local_data};
use crate::children::{Children, ports};
use crate::wire::Protocol;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where Debian and Ubuntu put it, and an unpacked release of the project.
const JARS: [&str; 3] = ["/usr/share/java/zookeeper.jar", "/opt/zookeeper/lib/*", "/usr/local/zookeeper/lib/*"];
/// What is started.
const MAIN: &str = "org.apache.zookeeper.server.quorum.QuorumPeerMain";

/// Its class path: the environment's, or where it usually is.
pub(super) fn find() -> Option<String> {
    let given = std::env::var("ZOOKEEPER_CLASSPATH").ok();
    let usual = || {
        let there = |jars: &&&str| PathBuf::from(jars.trim_end_matches("/*")).exists();
        JARS.iter().find(there).map(|jars| (*jars).to_owned())
    };
    given.or_else(usual)
}

/// Starts them.
pub(super) fn start(java: &Path, class_path: &str, dir: &Path) -> anyhow::Result<Started> {
    let all: [SocketAddr; 9] = ports()?;
    let port = |id: usize, which: usize| all[3 * id + which].port();
    let servers: Vec<String> =
        (0..3).map(|id| format!("server.{}=127.0.0.1:{}:{}\n", id + 1, port(id, 1), port(id, 2))).collect();
    let mut children = Children::default();
    for id in 0..3 {
        let data = local_data(dir, &format!("data{id}"))?;
        std::fs::write(data.join("myid"), format!("{}\n", id + 1))?;
        let file = dir.join(format!("zoo{id}.cfg"));
        let text = format!(
            "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\n\
             maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=srvr\n{}",
            data.display(),
            port(id, 0),
            servers.concat()
        );
        std::fs::write(&file, text)?;
        let mut command = Command::new(java);
        command.args(["-Xmx1g", "-cp", class_path, MAIN]).arg(&file);
        children.start(&format!("zookeeper-{id}"), dir, command)?;
    }
    let clients: Vec<SocketAddr> = (0..3).map(|id| all[3 * id]).collect();
    children.wait("ZooKeeper does not serve", || clients.iter().all(|client| serves(*client)))?;
    Ok(Started { to: clients, protocol: Protocol::Zookeeper, children, cluster: None })
}

/// Whether it is part of a quorum.
fn serves(client: SocketAddr) -> bool {
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&client, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"srvr")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    exchange().is_ok_and(|answer| answer.contains("Mode: leader") || answer.contains("Mode: follower"))
}
