//! What the kernel knows of processes and listening sockets, read from /proc.

use std::collections::BTreeSet;
use std::io;

/// The machine's boot: pids, start times and inodes mean nothing across it.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// When a process was started, in clock ticks since boot; with its pid its identity. `None` if it is gone, or dead and
/// only not yet waited for, or ending: its sockets close before it counts as dead.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 3 (state), 9 (flags) and 22 (start time) of proc_pid_stat(5). The name in field 2 may hold spaces and brackets.
fn parse_stat(stat: &str) -> Option<u64> {
    const PF_EXITING: u64 = 0x4;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let flags: u64 = fields.nth(5)?.parse().ok()?;
    let start_time = fields.nth(12)?.parse().ok()?;
    (!matches!(state, "Z" | "X") && flags & PF_EXITING == 0).then_some(start_time)
}

/// The inodes of the sockets that listen on a port in this network namespace.
///
/// # Errors
/// /proc cannot be read.
pub(super) fn listening_inodes(port: u16) -> io::Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    collect_listening(&std::fs::read_to_string("/proc/net/tcp")?, port, &mut inodes);
    match std::fs::read_to_string("/proc/net/tcp6") {
        Ok(table) => collect_listening(&table, port, &mut inodes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(inodes)
}

/// Lines of /proc/net/tcp (proc_net(5)): number, local address:port, remote one, state, …, inode as the tenth field.
fn collect_listening(table: &str, port: u16, inodes: &mut BTreeSet<u64>) {
    const LISTEN: &str = "0A";
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
        let [_, local, _, LISTEN, _, _, _, _, _, inode] = fields[..] else { continue };
        let listens = local.rsplit_once(':').is_some_and(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port));
        if listens && let Ok(inode) = inode.parse() {
            inodes.insert(inode);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_start_time_whatever_its_name() {
        let stat = "41 (a ) 7 (b) S 1 41 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        assert_eq!(parse_stat(stat), Some(987_654));
        assert_eq!(parse_stat(&stat.replace(" S ", " Z ")), None, "a zombie runs no more");
        assert_eq!(parse_stat(&stat.replace("4194560", "4194564")), None, "it is ending");
        assert_eq!(parse_stat("rubbish"), None);
        assert!(start_time(std::process::id()).is_some());
        assert_eq!(start_time(u32::MAX), None);
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
               0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 111 1 0 100 0\n\
               1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 222 1 0 100 0\n\
               2: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 333 1 0 100 0\n";
        let mut inodes = BTreeSet::new();
        collect_listening(table, 8080, &mut inodes);
        assert_eq!(inodes, BTreeSet::from([111]));
    }

    #[test]
    fn a_new_listener_on_the_same_port_is_another_one() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let first = listening_inodes(port).expect("read");
        assert_eq!(first.len(), 1);
        drop(listener);
        assert!(listening_inodes(port).expect("read").is_empty());
        let _listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("bind again");
        assert_ne!(listening_inodes(port).expect("read"), first);
    }
}
