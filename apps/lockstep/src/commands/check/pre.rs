//! Before anything is installed: can this machine run a part? Leaves nothing behind.

use super::Args;
use super::cluster::{BUFFER_BYTES_MIN, FREE_BYTES_MIN, RAISE_BUFFERS, SYNC_MAX, millis, rounded};
use super::line::{Category, Check};
use anyhow::Context;
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Syncs that are measured; the median counts.
const SYNCS: usize = 15;
/// Bytes of each.
const SYNC_BYTES: usize = 4096;
/// Open files that a part should be allowed.
const FILES_MIN: u64 = 4096;

/// Every check that needs nobody else.
pub(super) async fn check(args: &Args) -> Vec<Check> {
    let mut checks = vec![port("--quic", args.quic, bind_udp(args.quic))];
    checks.push(port("--listen", args.listen, TcpListener::bind(args.listen).map(drop)));
    checks.push(buffers(args.quic));
    checks.push(files());
    for target in &args.seeds {
        checks.push(resolves(target).await);
    }
    let dir = args.data_dir.clone().unwrap_or_else(|| PathBuf::from("."));
    checks.extend(disk(&dir));
    checks
}

fn bind_udp(address: SocketAddr) -> std::io::Result<()> {
    UdpSocket::bind(address).map(drop)
}

fn port(flag: &str, address: SocketAddr, bound: std::io::Result<()>) -> Check {
    let name = format!("{flag} {address}");
    match bound {
        Ok(()) => Check::good(Category::System, name, "free", "can be had"),
        Err(error) => {
            let hint = format!("end whoever has it (`ss -lnp`), give another {flag}, or an address of this machine");
            Check::bad(Category::System, name, "port", format!("cannot be had: {error}"), hint)
        }
    }
}

fn buffers(address: SocketAddr) -> Check {
    const NAME: &str = "UDP receive buffer";
    let any = SocketAddr::new(address.ip(), 0);
    match UdpSocket::bind(any).and_then(|socket| mesh::net::udp_buffer(&socket)) {
        Ok(bytes) => buffer(bytes),
        Err(error) => {
            Check::bad(Category::System, NAME, "socket", error.to_string(), "give an --quic address of this machine")
        }
    }
}

fn buffer(bytes: u64) -> Check {
    const NAME: &str = "UDP receive buffer";
    let text = format!("{} are granted", rounded(bytes));
    if bytes < BUFFER_BYTES_MIN {
        Check::bad(Category::System, NAME, "small_buffer", text, RAISE_BUFFERS)
    } else {
        Check::good(Category::System, NAME, "buffer", text)
    }
}

fn files() -> Check {
    use rustix::process::{Resource, getrlimit};
    open_files(getrlimit(Resource::Nofile).maximum)
}

fn open_files(most: Option<u64>) -> Check {
    const NAME: &str = "open files";
    match most {
        Some(most) if most < FILES_MIN => {
            let hint = format!(
                "raise the hard limit (`ulimit -Hn {FILES_MIN}`, LimitNOFILE= of a unit): each client takes one"
            );
            Check::bad(Category::System, NAME, "few_files", format!("a process may have {most}"), hint)
        }
        Some(most) => Check::good(Category::System, NAME, "files", format!("a process may have {most}")),
        None => Check::good(Category::System, NAME, "files", "a process may have any number"),
    }
}

async fn resolves(target: &str) -> Check {
    let name = format!("name {target}");
    let hint = "correct --seeds, or the name service of this machine; it needs HOST:PORT";
    match tokio::net::lookup_host(target).await.map(Iterator::collect::<Vec<_>>) {
        Ok(found) if !found.is_empty() => {
            let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
            Check::good(Category::Links, name, "resolves", format!("is {}", shown.join(", ")))
        }
        Ok(_) => Check::bad(Category::Links, name, "no_address", "has no address", hint),
        Err(error) => Check::bad(Category::Links, name, "no_address", error.to_string(), hint),
    }
}

fn disk(dir: &Path) -> Vec<Check> {
    let name = format!("disk of {}", dir.display());
    match measure(dir) {
        Ok((free, sync)) => disk_lines(&name, free, sync),
        Err(error) => {
            let hint = "give the --data-dir that the journal will have, one that this user may write to";
            vec![Check::bad(Category::Disk, name, "disk", format!("{error:#}"), hint)]
        }
    }
}

fn disk_lines(name: &str, free: u64, sync: Duration) -> Vec<Check> {
    let free_text = format!("{} free", rounded(free));
    let room = if free < FREE_BYTES_MIN {
        let hint =
            format!("make room: the log alone may take --log-max-bytes, and {} is little", rounded(FREE_BYTES_MIN));
        Check::bad(Category::Disk, name, "disk_full", free_text, hint)
    } else {
        Check::good(Category::Disk, name, "room", free_text)
    };
    let took = format!("a sync of {SYNC_BYTES} bytes takes {} (median of {SYNCS})", millis(sync.as_secs_f64()));
    let speed = if sync > SYNC_MAX {
        let hint =
            "every write waits for such syncs of a majority: take a faster or less busy disk, or --durability async";
        Check::bad(Category::Disk, name, "slow_sync", took, hint)
    } else {
        Check::good(Category::Disk, name, "sync", took)
    };
    vec![room, speed]
}

/// Free bytes, and how long a sync takes. The file has no name that could be in anybody's way.
fn measure(dir: &Path) -> anyhow::Result<(u64, Duration)> {
    let disk = rustix::fs::statvfs(dir).with_context(|| format!("cannot look at {}", dir.display()))?;
    let path = dir.join(format!(".lockstep-check-{}", std::process::id()));
    let written = sync_times(&path);
    let removed = std::fs::remove_file(&path);
    let mut times = written.with_context(|| format!("cannot write in {}", dir.display()))?;
    removed.with_context(|| format!("cannot remove {}", path.display()))?;
    times.sort_unstable();
    Ok((disk.f_bavail.saturating_mul(disk.f_frsize), times[times.len() / 2]))
}

fn sync_times(path: &Path) -> std::io::Result<Vec<Duration>> {
    let mut file = File::create_new(path)?;
    let one = || {
        let begun = Instant::now();
        file.write_all(&[0x5a; SYNC_BYTES])?;
        file.sync_data()?;
        Ok(begun.elapsed())
    };
    std::iter::repeat_with(one).take(SYNCS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(checks: &[Check]) -> Vec<(&str, bool)> {
        for check in checks {
            assert!(check.is_good() || check.hint.as_ref().is_some_and(|hint| hint.len() > 20), "{check:?}");
        }
        checks.iter().map(|check| (check.label.as_str(), check.is_good())).collect()
    }

    #[test]
    fn a_port_that_somebody_has_is_named() {
        let taken = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("an address");
        assert_eq!(labels(&[port("--quic", address, bind_udp(address))]), [("port", false)]);
        drop(taken);
        assert_eq!(labels(&[port("--quic", address, bind_udp(address))]), [("free", true)]);
    }

    #[test]
    fn small_buffers_few_files_little_room_and_slow_syncs_are_named() {
        assert_eq!(labels(&[buffer(4096), buffer(BUFFER_BYTES_MIN)]), [("small_buffer", false), ("buffer", true)]);
        let files = [open_files(Some(1024)), open_files(Some(FILES_MIN)), open_files(None)];
        assert_eq!(labels(&files), [("few_files", false), ("files", true), ("files", true)]);
        let (little, slow) = (FREE_BYTES_MIN - 1, SYNC_MAX + Duration::from_millis(1));
        assert_eq!(labels(&disk_lines("d", little, slow)), [("disk_full", false), ("slow_sync", false)]);
        assert_eq!(labels(&disk_lines("d", FREE_BYTES_MIN, SYNC_MAX)), [("room", true), ("sync", true)]);
    }

    #[test]
    fn a_directory_is_measured_and_left_as_it_was() {
        let dir = std::env::temp_dir().join(format!("lockstep-check-pre-{}", std::process::id()));
        assert_eq!(labels(&disk(&dir)), [("disk", false)]);
        std::fs::create_dir(&dir).expect("the temporary directory can be written");
        assert_eq!(disk(&dir).len(), 2);
        assert_eq!(std::fs::read_dir(&dir).expect("it is there").count(), 0);
        std::fs::remove_dir(&dir).expect("it is empty");
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_named() {
        let found = [resolves("127.0.0.1:7500").await, resolves("no-such-name.invalid:7500").await];
        assert_eq!(labels(&found), [("resolves", true), ("no_address", false)]);
    }
}
