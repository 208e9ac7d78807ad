//! What one client may take, in connections and in time.

use anyhow::ensure;
use mesh::framing::{Adapter, Protocol};
use serde_json::{Value, json};
use std::time::Duration;

/// Settings against clients that come in crowds, or that send or read slowly.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at most.
    pub connections_max: usize,
    /// Connections from one address at most.
    pub connections_per_address: Option<usize>,
    /// A connection on which nothing happens for this long is closed.
    pub idle_timeout: Option<Duration>,
    /// How long a request may take from its first byte to its last.
    pub request_timeout: Duration,
    /// In this time a client must take 64 KiB of the answers that wait for it, or all of them.
    pub reply_timeout: Duration,
    /// With the protocol `close`: this much silence ends a request as a half-close does.
    pub quiet_period: Option<Duration>,
}

impl Limits {
    pub(super) fn check(&self, adapter: &Adapter) -> anyhow::Result<()> {
        ensure!(self.connections_max > 0, "the greatest number of connections must be at least 1");
        ensure!(self.connections_per_address != Some(0), "--connections-per-address must be at least 1");
        for (name, time) in [
            ("idle-timeout", self.idle_timeout),
            ("request-timeout", Some(self.request_timeout)),
            ("reply-timeout", Some(self.reply_timeout)),
            ("quiet-period", self.quiet_period),
        ] {
            ensure!(time.is_none_or(|time| !time.is_zero()), "--{name} must be longer than zero");
        }
        if let Some(quiet) = self.quiet_period {
            ensure!(
                adapter.protocol == Protocol::Close,
                "--quiet-period is for the protocol close: requests of {} end by themselves",
                adapter.protocol
            );
            ensure!(quiet < self.request_timeout, "--quiet-period must be shorter than --request-timeout");
        }
        Ok(())
    }

    /// For `/config`.
    pub(super) fn show(&self) -> Value {
        json!({
            "connections_max": self.connections_max,
            "connections_per_address": self.connections_per_address,
            "idle_timeout_seconds": self.idle_timeout.map(|time| time.as_secs_f64()),
            "request_timeout_seconds": self.request_timeout.as_secs_f64(),
            "reply_timeout_seconds": self.reply_timeout.as_secs_f64(),
            "quiet_period_seconds": self.quiet_period.map(|time| time.as_secs_f64()),
        })
    }
}
