//! Connections for the calls that come next, where each has one of its own: opened before they are needed, and used in the
//! order in which they were opened, so that an application that serves one at a time comes to each in its turn.

use super::exchange::{Loss, connect, is_closed};
use rustix::net::sockopt::set_socket_linger;
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
    /// The application takes one connection at a time, or so long for each call that it makes no difference.
    off: bool,
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
            if opened.elapsed() < FRESH && matches!(is_closed(&stream), Ok(false)) {
                return Ok(stream);
            }
            reset(&stream);
            self.give_up();
        }
        let stream = connect(address, patience).await?;
        // One after the other: the application must not meet a later one first.
        while !self.off && self.open.len() < more.min(OPEN - 1) {
            match timeout(PATIENCE, connect(address, PATIENCE)).await {
                Ok(Ok(stream)) => self.open.push_back((stream, Instant::now())),
                Ok(Err(_)) | Err(_) => self.off = true,
            }
        }
        Ok(stream)
    }

    fn give_up(&mut self) {
        self.off = true;
        self.open.drain(..).for_each(|(stream, _)| reset(&stream));
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Its close is to be an error at the other end. An orderly one would be an empty request where requests end so.
fn reset(stream: &TcpStream) {
    // It fails on a socket that is broken already.
    let _ = set_socket_linger(stream, Some(Duration::ZERO));
}
