//! The parts, one process each, as containers and `up` run them: settings to the libraries' configuration, and their life.

pub(crate) mod adapter;
pub(crate) mod addresses;
pub(crate) mod common;
pub(crate) mod exec;
pub(crate) mod ingress;
pub(crate) mod reads;
pub(crate) mod recovery;
pub(crate) mod sidecar;
pub(crate) mod signatures;
pub(crate) mod smart_client;
