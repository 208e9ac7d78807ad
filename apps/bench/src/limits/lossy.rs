//! A socket that loses some of the packets to some addresses, so that links can be made bad without a kernel's help.

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

/// One packet of so many is lost.
const ONE_OF: u64 = 100;

/// See the module. It loses nothing until it is told to whom.
#[derive(Debug)]
pub(super) struct Lossy {
    inner: Arc<dyn AsyncUdpSocket>,
    to: OnceLock<Vec<SocketAddr>>,
    /// Packets to those addresses, as the place in a fixed sequence of chances.
    sent: AtomicU64,
}

impl Lossy {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Arc<Self>> {
        let inner = TokioRuntime.wrap_udp_socket(socket)?;
        Ok(Arc::new(Self { inner, to: OnceLock::new(), sent: AtomicU64::new(0) }))
    }

    /// From now on packets to these are lost.
    pub(super) fn lose(&self, to: Vec<SocketAddr>) {
        // Told once.
        let _ = self.to.set(to);
    }

    fn loses(&self, to: SocketAddr) -> bool {
        self.to.get().is_some_and(|lossy| lossy.contains(&to)) && is_lost(self.sent.fetch_add(1, Ordering::Relaxed))
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): evenly spread, and the same in every run.
fn is_lost(number: u64) -> bool {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).is_multiple_of(ONE_OF)
}

impl AsyncUdpSocket for Lossy {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.loses(transmit.destination) { Ok(()) } else { self.inner.try_send(transmit) }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    // One packet a call, so that each is lost by itself.
    fn max_transmit_segments(&self) -> usize {
        1
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_one_of_a_hundred_is_lost_and_not_in_a_pattern() {
        let lost: Vec<u64> = (0..100_000).filter(|number| is_lost(*number)).collect();
        assert!((900..1100).contains(&lost.len()), "{}", lost.len());
        let close = lost.windows(2).filter(|pair| pair[1] - pair[0] < 50).count();
        assert!((300..500).contains(&close), "a gap below 50 should be two of five: {close}");
    }
}
