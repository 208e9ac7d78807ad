//! What all parts of Lockstep share.
//!
//! The *pure half* (everything but [`net`] and [`node`]) holds the protocol: no sockets, no clock, no chance, no
//! threads. Time and a seed are inputs, so that production, the simulator and the fuzzer run the same code. It builds
//! alone with `--no-default-features`, and `clippy.toml` beside this crate bans what it must not touch.
//!
//! The *IO half* (feature `net`) adds QUIC links and what every process has: configuration, admin HTTP, metrics.

pub mod auth;
pub mod client;
pub mod config;
pub mod directory;
pub mod framing;
pub mod ids;
pub mod limits;
pub mod names;
pub mod order;
pub mod quorum;
pub mod rng;
pub mod time;
pub mod transfer;
pub mod wire;

#[cfg(feature = "net")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod net;
#[cfg(feature = "net")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod node;
