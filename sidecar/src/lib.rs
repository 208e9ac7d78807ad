//! sidecar

#![allow(dead_code)]
mod entropy;
mod journal;
#[cfg(test)]
mod testing;
mod app;
mod config;
mod metrics;
pub use config::{App, Config};
