//! Tokio for quinn, with fewer wakes and system calls than quinn's own binding to it.
//!
//! - Writability is asked about only after a send that found no room. Who asks from the start is told after every send,
//!   as soon as the system has passed the packet on.
//! - A receive that fills less than it was given has emptied the socket: what comes later is news, and need not be
//!   asked about.
//! - What quinn wants to be woken for much later is put on the process' [`grid`].

use crate::node::descriptor::watch;
use crate::node::grid;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller};
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Sleep, sleep_until};

/// See the module.
#[derive(Debug)]
pub(super) struct Frugal;

impl Runtime for Frugal {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Timer::new(at))
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let state = UdpSocketState::new((&socket).into())?;
        socket.set_nonblocking(true)?;
        Ok(Arc::new(Socket { state, readable: watch(socket, Interest::READABLE)?, full: AtomicBool::new(false) }))
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

/// A timer that is moved ahead stays where it was in tokio's wheel, and wakes the process there too. Beyond this it is
/// worth being taken out; busy links move theirs with every packet, by less.
const MOVED: Duration = Duration::from_millis(2);

#[derive(Debug)]
struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// Where the wheel has it.
    kept: tokio::time::Instant,
}

impl Timer {
    fn new(at: Instant) -> Self {
        let due = grid::later(at.into());
        Self { sleep: Box::pin(sleep_until(due)), kept: due }
    }
}

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        let due = grid::later(at.into());
        if due >= self.kept && due < self.kept + MOVED {
            return self.sleep.as_mut().reset(due);
        }
        if due < self.kept {
            self.sleep.as_mut().reset(due);
        } else {
            self.sleep.set(sleep_until(due));
        }
        self.kept = due;
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Future::poll(self.sleep.as_mut(), context)
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
            None => watch(self.socket.readable.get_ref().try_clone()?, Interest::WRITABLE)?,
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
        let readable = watch(UdpSocket::bind("127.0.0.1:0").expect("a port"), Interest::READABLE).expect("a socket");
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

    /// Mutants: a timer that goes off at a former time; one that is taken out of the wheel each time that it is moved.
    #[tokio::test]
    async fn a_timer_goes_off_where_it_was_moved_last_and_moves_in_the_wheel_by_steps() {
        let (start, millis) = (Instant::now(), Duration::from_millis);
        let mut timer = Box::pin(Timer::new(start + millis(25)));
        for (to, kept) in [(26, 25), (28, 28), (29, 28), (20, 20), (21, 20), (40, 40)] {
            timer.as_mut().reset(start + millis(to));
            assert_eq!(timer.kept.into_std(), start + millis(kept), "moved to {to} ms");
            assert_eq!(timer.sleep.deadline().into_std(), start + millis(to));
            // The wheel takes it when it is asked first.
            let _ = timer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        poll_fn(|context| timer.as_mut().poll(context)).await;
        assert!(Instant::now() >= start + millis(40));
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
