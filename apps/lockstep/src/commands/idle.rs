//! `lockstep idle`: keeps a container alive, for commands that are run in it.

use mesh::node::stop_signal;

/// Until SIGTERM.
pub(crate) async fn run() {
    stop_signal().await;
}
