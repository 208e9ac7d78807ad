//! Descriptors that the runtime watches.

use std::io;
use std::os::fd::AsRawFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the runtime watch what owns its one descriptor as long as it lives, as sockets and the like do. Call it inside one.
///
/// # Errors
/// The system cannot watch it.
#[expect(deprecated, reason = "its successor is unsafe; what it demands of the descriptor is said above")]
pub fn watch<T: AsRawFd>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owner, interest)
}
