//! Subcommands that do one thing and end.

pub(crate) mod abort;
pub(crate) mod backup;
pub(crate) mod bootstrap;
pub(crate) mod call;
pub(crate) mod certs;
pub(crate) mod check;
pub(crate) mod config;
mod confirm;
pub(crate) mod debug;
pub(crate) mod diff;
pub(crate) mod generate;
pub(crate) mod idle;
pub(crate) mod inject;
pub(crate) mod journal;
pub(crate) mod members;
mod place;
mod progress;
mod reach;
pub(crate) mod smoke;
pub(crate) mod snapshot;
pub(crate) mod status;
mod status_table;
pub(crate) mod top;
