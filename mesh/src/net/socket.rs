//! The UDP socket of an endpoint: room for bursts, and what of them was lost before this process saw it.

use rustix::net::sockopt;
use serde_json::{Value, json};
use std::net::UdpSocket;

/// Bytes that are asked for in each direction. The system grants what net.core.rmem_max and wmem_max allow; Linux shows
/// twice that, its own accounting included.
const BUFFER_BYTES: usize = 2 << 20;
/// The tables of UDP sockets, where Linux counts what it dropped of each because its buffer was full.
const TABLES: [&str; 2] = ["/proc/self/net/udp", "/proc/self/net/udp6"];

/// What is known of the socket without holding it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Socket {
    /// Its name in the tables.
    inode: Option<u64>,
    receive_bytes: Option<usize>,
    send_bytes: Option<usize>,
}

impl Socket {
    /// Asks for room, and notes how much was granted.
    pub(super) fn prepare(socket: &UdpSocket) -> Self {
        // Whatever is granted will do: less room only costs packets that are sent again.
        let _ = sockopt::set_socket_recv_buffer_size(socket, BUFFER_BYTES);
        let _ = sockopt::set_socket_send_buffer_size(socket, BUFFER_BYTES);
        Self {
            inode: rustix::fs::fstat(socket).ok().map(|stat| stat.st_ino),
            receive_bytes: sockopt::socket_recv_buffer_size(socket).ok(),
            send_bytes: sockopt::socket_send_buffer_size(socket).ok(),
        }
    }

    /// The `udp` of `/status`.
    pub(super) fn status(self) -> Value {
        let tables = TABLES.iter().filter_map(|table| std::fs::read_to_string(table).ok());
        let dropped = self.inode.and_then(|inode| tables.into_iter().find_map(|table| dropped(&table, inode)));
        json!({ "receive_buffer_bytes": self.receive_bytes, "send_buffer_bytes": self.send_bytes, "dropped": dropped })
    }
}

/// The receive buffer that is granted to an endpoint on such a socket, as Linux shows it.
///
/// # Errors
/// The system does not tell.
pub fn udp_buffer(socket: &UdpSocket) -> std::io::Result<u64> {
    let _ = sockopt::set_socket_recv_buffer_size(socket, BUFFER_BYTES);
    Ok(sockopt::socket_recv_buffer_size(socket)? as u64)
}

/// The last column of the socket's line (proc(5)); the tenth names it.
fn dropped(table: &str, inode: u64) -> Option<u64> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_it = fields.get(9)?.parse() == Ok(inode);
        if is_it { fields.last()?.parse().ok() } else { None }
    };
    table.lines().find_map(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_knows_its_buffers_and_what_they_lost() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let to = socket.local_addr().expect("an address");
        let known = Socket::prepare(&socket);
        assert_eq!(known.status()["dropped"], 0);
        assert!(known.receive_bytes.is_some_and(|bytes| bytes > 0), "{known:?}");
        // Nobody reads: once the buffer is full, the rest is lost.
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        for _ in 0..20_000 {
            let _ = sender.send_to(&[0; 1400], to);
            if known.status()["dropped"].as_u64().is_some_and(|lost| lost > 0) {
                return;
            }
        }
        panic!("nothing was lost: {}", known.status());
    }

    #[test]
    fn a_table_without_the_socket_says_nothing() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            12: 0100007F:1D4C 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 77 2 0000000000000000 5\n";
        assert_eq!((dropped(table, 77), dropped(table, 7), dropped("", 77)), (Some(5), None, None));
    }
}
