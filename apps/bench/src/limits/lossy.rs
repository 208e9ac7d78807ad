//! A socket that loses some of the packets to some addresses, so that links can be made bad without a kernel's help.

use mesh::rng::Rng;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

/// So many of a thousand packets are lost.
const PER_MILLE: u32 = 10;

/// See the module. It loses nothing until it is told to whom.
#[derive(Debug)]
pub(super) struct Lossy {
    inner: Arc<dyn AsyncUdpSocket>,
    to: OnceLock<Vec<SocketAddr>>,
    rng: Mutex<Rng>,
}

impl Lossy {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Arc<Self>> {
        let inner = TokioRuntime.wrap_udp_socket(socket)?;
        Ok(Arc::new(Self { inner, to: OnceLock::new(), rng: Mutex::new(Rng::from_seed(1)) }))
    }

    /// From now on packets to these are lost.
    pub(super) fn lose(&self, to: Vec<SocketAddr>) {
        // Told once.
        let _ = self.to.set(to);
    }

    fn loses(&self, to: SocketAddr) -> bool {
        self.to.get().is_some_and(|lossy| lossy.contains(&to))
            && self.rng.lock().unwrap_or_else(PoisonError::into_inner).chance(PER_MILLE)
    }
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

    // Where packets are lost, one a call, so that each is lost by itself.
    fn max_transmit_segments(&self) -> usize {
        if self.to.get().is_some() { 1 } else { self.inner.max_transmit_segments() }
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _entered = runtime.enter();
        let [to, other] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let socket = Lossy::new(UdpSocket::bind("127.0.0.1:0").expect("a port")).expect("a socket");
        assert!((0..1000).all(|_| !socket.loses(to)), "not told yet");
        socket.lose(vec![to]);
        assert!((0..1000).all(|_| !socket.loses(other)));
        let lost: Vec<u64> = (0..100_000).filter(|_| socket.loses(to)).collect();
        assert!((900..1100).contains(&lost.len()), "{}", lost.len());
        let close = lost.windows(2).filter(|pair| pair[1] - pair[0] < 50).count();
        assert!((300..500).contains(&close), "a gap below 50 should be two of five: {close}");
    }
}
