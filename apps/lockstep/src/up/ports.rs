//! Ports on this machine for the parts: free ones, kept over restarts.
//!
//! They are taken from below the range that the kernel gives to outgoing connections, so that none of those sits on the
//! port of a part that is just being started again.

use anyhow::bail;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// Ports by what they are for, such as "sidecar-0.quic".
pub(crate) type Ports = BTreeMap<String, u16>;

/// The lowest port that is given to a part.
const LOWEST: u16 = 10_240;

/// Gives out ports that nobody listens on, each once.
#[derive(Debug)]
pub(crate) struct Allocator {
    kept: Ports,
    next: u16,
    end: u16,
}

impl Allocator {
    /// Goes on with `kept`. `seed` spreads the first try, so that two clusters seldom meet.
    pub(crate) fn new(kept: Ports, seed: u32) -> Self {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let first: Option<u16> = range.split_ascii_whitespace().next().and_then(|port| port.parse().ok());
        let end = first.filter(|port| *port > LOWEST + 2_000).unwrap_or(32_768);
        let width = u32::from(end - LOWEST);
        // The remainder fits: it is less than a port.
        let offset = u16::try_from(seed.wrapping_mul(2_654_435_761) % width).unwrap_or(0);
        Self { kept, next: LOWEST + offset, end }
    }

    /// The port for `name`: the one it had, if that is free, else a free one.
    pub(crate) fn take(&mut self, name: &str) -> anyhow::Result<u16> {
        if let Some(port) = self.kept.get(name).copied() {
            if is_free(port) {
                return Ok(port);
            }
            tracing::warn!(port, part = name, "the port of the last run is in use now: taking another");
        }
        for _ in LOWEST..self.end {
            let port = self.next;
            self.next = if port + 1 < self.end { port + 1 } else { LOWEST };
            if is_free(port) && !self.kept.values().any(|kept| *kept == port) {
                self.kept.insert(name.to_owned(), port);
                return Ok(port);
            }
        }
        bail!("no free port between {LOWEST} and {} on 127.0.0.1", self.end)
    }

    /// All that were given out, and those kept from before.
    pub(crate) fn into_kept(self) -> Ports {
        self.kept
    }
}

/// Whether neither TCP nor UDP has it on loopback.
fn is_free(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}

/// Fails, and says for what, when nothing can listen on this address.
pub(crate) fn check_free(address: SocketAddr, flag: &str) -> anyhow::Result<()> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) => bail!("{address}: {error}: choose another {flag}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_given_once_and_the_same_again() {
        let mut first = Allocator::new(Ports::new(), std::process::id());
        let ports: Vec<u16> = ["a", "b", "c"].iter().map(|name| first.take(name).expect("a free port")).collect();
        assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2]);
        let mut second = Allocator::new(first.into_kept(), 0);
        assert_eq!(second.take("b").expect("a free port"), ports[1]);
    }

    #[test]
    fn a_port_that_is_in_use_is_not_given() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let taken = listener.local_addr().expect("it is bound").port();
        let mut ports = Allocator::new(Ports::from([("a".to_owned(), taken)]), 1);
        assert_ne!(ports.take("a").expect("a free port"), taken);
        assert!(check_free(listener.local_addr().expect("it is bound"), "--listen").is_err());
    }
}
