//! Programs of others, started for a comparison, with their output in files; and the ports that they get.

use crate::cluster;
use crate::stop;
use anyhow::{Context, bail};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A program must be ready within this.
const STARTING: Duration = Duration::from_secs(60);
/// Ports that are given out.
const LOWEST: u16 = 10_240;
const HIGHEST: u16 = 32_000;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Running programs; dropping them ends them, the last one first.
#[derive(Debug, Default)]
pub(crate) struct Children(Vec<(String, Child, PathBuf)>);

impl Children {
    /// Starts one; what it prints goes to NAME.log in `dir`.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(&mut self, name: &str, dir: &Path, mut command: Command) -> anyhow::Result<()> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        self.0.push((name.to_owned(), child, log));
        Ok(())
    }

    /// Waits until `ready`.
    ///
    /// # Errors
    /// It takes too long, or one of the programs ended; with the end of its log.
    pub(crate) fn wait(&mut self, what: &str, ready: impl Fn() -> bool) -> anyhow::Result<()> {
        let until = Instant::now() + STARTING;
        while !ready() {
            for (name, child, log) in &mut self.0 {
                if let Some(status) = child.try_wait()? {
                    bail!("{name} ended with {status}: {}", words(log));
                }
            }
            if Instant::now() > until {
                let logs: Vec<String> = self.0.iter().map(|(name, _, log)| format!("{name}: {}", words(log))).collect();
                bail!("{what} in {} s:\n{}", STARTING.as_secs(), logs.join("\n"));
            }
            stop::sleep(LOOK)?;
        }
        Ok(())
    }

    /// Their processes, with those that they started.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.0.iter().flat_map(|(_, child, _)| crate::procfs::family(child.id())).collect()
    }
}

fn words(log: &Path) -> String {
    File::open(log).map(cluster::last_words).unwrap_or_default()
}

impl Drop for Children {
    fn drop(&mut self) {
        while let Some((_, mut child, _)) = self.0.pop() {
            cluster::end(&mut child);
        }
    }
}

/// Ports on loopback that nobody listens on, all different; from below the range that the kernel gives to outgoing
/// connections, of which a load generator makes many.
///
/// # Errors
/// There are none.
pub(crate) fn ports<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    // Two that run at the same time seldom meet.
    let offset = u16::try_from(std::process::id().wrapping_mul(7919) % u32::from(HIGHEST - LOWEST)).unwrap_or(0);
    let candidates = (LOWEST + offset..HIGHEST).chain(LOWEST..LOWEST + offset);
    // All are held until all are found, so that none comes twice.
    let listeners: Vec<TcpListener> =
        candidates.filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()).take(N).collect();
    anyhow::ensure!(listeners.len() == N, "no free port between {LOWEST} and {HIGHEST} on 127.0.0.1");
    let mut ports = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?;
    }
    Ok(ports)
}

/// A program in PATH, or where only administrators look.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    dirs.map(|dir| dir.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::Dir;

    #[test]
    fn ports_are_different_and_free() {
        let [one, other] = ports().expect("there are free ports");
        assert_ne!(one, other);
        // A child of another test has all files of this process until it is the other program.
        let until = Instant::now() + Duration::from_secs(10);
        while let Err(error) = TcpListener::bind(one) {
            assert!(Instant::now() < until, "{error}: nobody listens there");
        }
    }

    #[test]
    fn programs_are_found_where_they_are() {
        assert!(find("sh").is_some() && find("no-such-program-anywhere").is_none());
    }

    #[test]
    fn a_program_that_ends_early_is_said_with_its_last_words() {
        let dir = Dir::new("children");
        let mut children = Children::default();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such option; exit 3"]);
        children.start("peer", &dir.0, command).expect("there is a shell");
        let error = children.wait("the peer does not listen", || false).expect_err("it ended").to_string();
        assert!(error.contains("peer ended with exit status: 3: no such option"), "{error}");
    }

    #[test]
    fn what_was_started_is_ended() {
        let dir = Dir::new("ended");
        let mut children = Children::default();
        let mut command = Command::new("sleep");
        command.arg("60");
        children.start("sleeper", &dir.0, command).expect("there is a sleep");
        let pids = children.pids();
        assert!(pids.len() == 1 && Path::new(&format!("/proc/{}", pids[0])).exists());
        drop(children);
        assert!(!Path::new(&format!("/proc/{}", pids[0])).exists());
    }
}
