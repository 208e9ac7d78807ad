//! Subcommands that do one thing and end.

pub(crate) mod abort;
pub(crate) mod backup;
pub(crate) mod bootstrap;
pub(crate) mod call;
pub(crate) mod certs;
pub(crate) mod check;
mod confirm;
pub(crate) mod diff;
pub(crate) mod journal;
pub(crate) mod members;
mod place;
mod progress;
mod reach;
pub(crate) mod snapshot;
pub(crate) mod status;
mod status_table;
