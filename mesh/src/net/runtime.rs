//! Tokio for quinn, with fewer wakes and system calls than quinn's own binding to it.
//!
//! - Writability is asked about only after a send that found no room. Who asks from the start is told after every send,
//!   as soon as the system has passed the packet on.
//! - A receive that fills less than it was given has emptied the socket: what comes later is news, and need not be
//!   asked about.
//! - What quinn wants to be woken for much later is put on the process' [`grid`].

use crate::node::grid;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller};
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Sleep, sleep_until};

/// See the module.
#[derive(Debug)]
pub(super) struct Frugal;

impl Runtime for Frugal {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Timer(Box::pin(sleep_until(grid::later(at.into())))))
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let state = UdpSocketState::new((&socket).into())?;
        socket.set_nonblocking(true)?;
        Ok(Arc::new(Socket { state, readable: asking(socket, Interest::READABLE)?, full: AtomicBool::new(false) }))
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

/// Registers a socket for what is to be asked of it.
#[expect(deprecated, reason = "what its unsafe successor demands, one descriptor as long as it lives, a UdpSocket is")]
fn asking(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket, interest)
}

#[derive(Debug)]
struct Timer(Pin<Box<Sleep>>);

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        let due = grid::later(at.into());
        if grid::is_far(self.0.deadline(), due) {
            // Moved, it would go off at its former time too.
            self.0.set(sleep_until(due));
        } else {
            self.0.as_mut().reset(due);
        }
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Future::poll(self.0.as_mut(), context)
    }
}

#[derive(Debug)]
struct Socket {
    readable: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    /// There was no room when something was sent last.
    full: AtomicBool,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { socket: self, asking: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send(self.readable.get_ref().into(), transmit);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.full.store(true, Ordering::Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.readable.poll_read_ready(context))?;
            match self.state.recv(self.readable.get_ref().into(), buffers, meta) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return Poll::Ready(Err(error)),
                Ok(count) => {
                    if count < buffers.len() {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.readable.get_ref().local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

/// Waits for room to send, for one connection.
#[derive(Debug)]
struct Writable {
    socket: Arc<Socket>,
    /// The same socket under another number, since one number has one interest.
    asking: Option<AsyncFd<UdpSocket>>,
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Quinn asks before it sends, too.
        if !self.socket.full.load(Ordering::Relaxed) {
            self.asking = None;
            return Poll::Ready(Ok(()));
        }
        let asking = match self.asking.take() {
            Some(asking) => asking,
            None => asking(self.socket.readable.get_ref().try_clone()?, Interest::WRITABLE)?,
        };
        let ready = asking.poll_write_ready(context).map_ok(drop);
        if ready.is_pending() {
            self.asking = Some(asking);
        } else {
            self.socket.full.store(false, Ordering::Relaxed);
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Waker;

    #[tokio::test]
    async fn room_to_send_is_asked_about_after_there_was_none() {
        let readable = asking(UdpSocket::bind("127.0.0.1:0").expect("a port"), Interest::READABLE).expect("a socket");
        let state = UdpSocketState::new(readable.get_ref().into()).expect("its state");
        let socket = Arc::new(Socket { readable, state, full: AtomicBool::new(false) });
        let mut poller = socket.clone().create_io_poller();
        let mut context = Context::from_waker(Waker::noop());
        assert!(poller.as_mut().poll_writable(&mut context).is_ready());
        for _ in 0..2 {
            socket.full.store(true, Ordering::Relaxed);
            assert!(poller.as_mut().poll_writable(&mut context).is_pending(), "the system was not asked yet");
            poll_fn(|context| poller.as_mut().poll_writable(context)).await.expect("there is room");
        }
    }

    /// Mutant: one that takes a socket for empty although it got all it had room for.
    #[tokio::test]
    async fn what_did_not_fit_into_one_receive_and_what_comes_later_are_received() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let (sender, to) = (UdpSocket::bind("127.0.0.1:0").expect("a port"), receiver.local_addr().expect("its own"));
        let socket = Frugal.wrap_udp_socket(receiver).expect("a socket");
        let (mut got, mut byte) = (Vec::new(), [0; 8]);
        for bytes in [&[1_u8, 2, 3][..], &[4]] {
            for byte in bytes {
                sender.send_to(&[*byte], to).expect("sent");
            }
            for _ in bytes {
                let (mut meta, mut buffers) = ([RecvMeta::default()], [IoSliceMut::new(&mut byte)]);
                let count = poll_fn(|context| socket.poll_recv(context, &mut buffers, &mut meta)).await;
                assert_eq!(count.expect("received"), 1);
                got.push(byte[0]);
            }
        }
        assert_eq!(got, [1, 2, 3, 4]);
    }
}
