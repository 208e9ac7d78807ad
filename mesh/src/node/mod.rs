//! What every process shares: logging, metrics, the admin HTTP port, draining.

use std::net::SocketAddr;
use std::sync::Arc;

/// The registry of metrics, prefix `lockstep_`.
pub type Registry = prometheus_client::registry::Registry;

/// What a part shows on its admin port. Called from the admin tasks; must answer at once.
pub trait Admin: Send + Sync + 'static {
    /// `/readyz`: every check by name, true when it holds. Ready when all hold.
    fn ready(&self) -> Vec<(&'static str, bool)>;
    /// `/startupz`.
    fn started(&self) -> bool;
    /// `/app/livez`; true where there is no application.
    fn app_live(&self) -> bool;
    /// `/status`.
    fn status(&self) -> serde_json::Value;
    /// `/config`: the effective configuration without secrets.
    fn config(&self) -> serde_json::Value;
    /// `/drain`: begins draining; true when done within `wait`.
    fn drain(&self, wait: std::time::Duration) -> std::pin::Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}

/// The admin HTTP server of a process.
pub struct AdminServer {}
impl AdminServer {
    /// Binds at once, so that the address is known; serves until dropped.
    pub async fn bind(_addr: SocketAddr, _registry: Arc<Registry>, _admin: Arc<dyn Admin>) -> std::io::Result<Self> {
        unreachable!()
    }
    pub fn local_addr(&self) -> SocketAddr {
        unreachable!()
    }
}

/// Resolves on SIGTERM or SIGINT (a second one ends the process at once).
pub async fn stop_signal() {
    unreachable!()
}

/// The registry with what all processes have (build_info, process_…).
#[must_use]
pub fn registry() -> Registry {
    unreachable!()
}
