//! Connections for the calls that come next, where each has one of its own: opened together, before they are needed, and used
//! in the order in which they were opened, so that an application that serves one at a time comes to each in its turn.

use super::exchange::{Loss, connect};
use futures_util::future::{join, join_all};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Connections that are open at one time, at most: one that is served, and the usual least queue of five.
const OPEN: usize = 6;
/// One that was opened longer ago is not used: the application may be about to close it as idle.
const FRESH: Duration = Duration::from_millis(100);
/// Where the application has no room for another one, the kernel is silent for a second.
const PATIENCE: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Default)]
pub(super) struct Ahead {
    open: VecDeque<(TcpStream, Instant)>,
    /// The application takes one connection at a time.
    refused: bool,
}

impl Ahead {
    /// A new connection for one call, which `more` calls follow at once.
    pub(super) async fn take(
        &mut self,
        address: SocketAddr,
        patience: Duration,
        more: usize,
    ) -> Result<TcpStream, Loss> {
        if let Some((stream, opened)) = self.open.pop_front() {
            let fresh = opened.elapsed() < FRESH;
            if fresh && is_untouched(&stream) {
                return Ok(stream);
            }
            self.refused |= fresh;
            self.open.clear();
        }
        let others = if self.refused { 0 } else { more.min(OPEN - 1) };
        let others = (0..others).map(|_| timeout(PATIENCE, connect(address, PATIENCE)));
        let (stream, others) = join(connect(address, patience), join_all(others)).await;
        let now = Instant::now();
        for other in others {
            match other {
                Ok(Ok(other)) => self.open.push_back((other, now)),
                Ok(Err(_)) | Err(_) => self.refused = true,
            }
        }
        stream
    }
}

/// Whether nothing came on it, an end neither. The kernel is asked: the runtime may not have looked since.
fn is_untouched(stream: &TcpStream) -> bool {
    matches!(recv(stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT), Err(Errno::AGAIN))
}
