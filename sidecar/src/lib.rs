//! The SMaRtServer: one per replica, beside its copy of the application. It orders requests with its peers, journals
//! them, has the application execute them in that order, and answers.
//!
//! The decisions are in [`mesh::order::Replica`], which is pure; here is everything that it is told and that it asks
//! for: the driver, the journal, the application, the links.

mod admin;
mod app;
mod backup;
pub mod bootstrap;
mod budget;
mod clock;
mod config;
mod drain;
mod driver;
mod entropy;
mod hints;
mod inputs;
mod intake;
mod journal;
mod metrics;
pub mod operator;
mod peers;
mod publish;
mod reads;
mod report;
pub mod restart;
mod run;
mod snapshot;
mod store;
#[cfg(test)]
mod testing;
mod transfer;
mod waiting;

#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    //! Doors for the fuzzer: what is private here and reads what a disk or a peer gives.
    pub use crate::app::fuzzing as marker;
    pub use crate::journal::fuzzing as journal;
    pub use crate::snapshot::fuzzing as snapshot;
}
pub use app::restarter::{RESTART, RESTARTED};
pub use config::{App, Config, Dialect, Probe, SnapshotMode};
pub use journal::tool as journal_tool;
pub use run::run;
pub use snapshot::offline as snapshots;
