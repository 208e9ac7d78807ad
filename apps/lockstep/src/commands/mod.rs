//! Subcommands that do one thing and end.

pub(crate) mod bootstrap;
pub(crate) mod call;
pub(crate) mod certs;
pub(crate) mod journal;
pub(crate) mod status;
mod status_table;
