//! What every process shares: settings, logging, metrics, the admin HTTP port, the stop signal.
//!
//! Nothing here knows what a part does: a part hands in an [`Admin`] and a [`Registry`], and is told when to stop.

mod admin;
mod clock;
pub mod config;
pub mod counts;
pub mod descriptor;
pub mod drive;
pub mod failpoint;
pub mod grid;
pub mod hide;
pub mod human;
pub mod identity;
pub mod logging;
mod metrics;
mod quiet;
mod router;
mod signals;
pub mod spin;
mod version;

pub use admin::AdminServer;
pub use clock::Clock;
pub use identity::seed;
pub use metrics::{Registry, registry};
pub use quiet::Quiet;
pub use signals::stop_signal;
pub use version::{Version, set_version, version};

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
