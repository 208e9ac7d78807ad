//! The servers' keys: those of certificates that SMaRtClients showed and that are trusted.
//!
//! Certificates come from those who are not believed. What is kept of each is bounded, and so is the work: they are
//! looked at a few times a second for each SMaRtClient, whatever it sends.

use crate::auth::{CERTIFICATE_BYTES_MAX, PublicKey};
use crate::client::sender::Endpoint;
use crate::ids::ReplicaId;
use crate::limits::MEMBERS_MAX;
use crate::names::Role;
use crate::net::{SignerTrust, Trusted, unix_now};
use crate::time::{Duration, Instant};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Keys of one server that are kept: those whose certificates end last.
const KEPT: usize = 4;
/// Certificates of one message that are looked at.
const SHOWN_MAX: usize = 4 * MEMBERS_MAX;
/// Between two looks at what one SMaRtClient shows.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What one SMaRtClient shows.
#[derive(Debug, Default)]
struct Shown {
    certificates: Vec<(ReplicaId, Bytes)>,
    looked: Option<Instant>,
    /// There are others than when it was looked at.
    news: bool,
}

/// A key of a server.
#[derive(Debug)]
struct Known {
    certificate: Bytes,
    key: PublicKey,
    /// Unix time, seconds.
    not_after: i64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Keys {
    trust: Arc<SignerTrust>,
    shown: HashMap<Endpoint, Shown>,
    /// The one that ends last is the first.
    known: BTreeMap<ReplicaId, Vec<Known>>,
    /// Of the system's clock: Unix time, seconds.
    clock: fn() -> i64,
}

impl Keys {
    /// None yet.
    pub(super) fn new(trust: Arc<SignerTrust>) -> Self {
        Self { trust, shown: HashMap::new(), known: BTreeMap::new(), clock: unix_now }
    }

    /// A SMaRtClient shows these, and not any more what it showed before.
    pub(super) fn shown(&mut self, now: Instant, endpoint: Endpoint, mut certificates: Vec<(ReplicaId, Bytes)>) {
        certificates.truncate(SHOWN_MAX);
        certificates.retain(|(_, certificate)| certificate.len() <= CERTIFICATE_BYTES_MAX);
        // Not slices of a large message.
        let certificates = certificates.iter().map(|(server, one)| (*server, Bytes::copy_from_slice(one))).collect();
        let shown = self.shown.entry(endpoint).or_default();
        (shown.certificates, shown.news) = (certificates, true);
        self.look_again(now, endpoint);
    }

    /// Trusts others from now on: what is known is judged again.
    pub(super) fn trust(&mut self, now: Instant, trust: Arc<SignerTrust>) {
        let wall = (self.clock)();
        for known in self.known.values_mut() {
            known.retain(|known| trust.judge(&known.certificate, &[Role::Server], wall).is_ok());
        }
        self.known.retain(|_, known| !known.is_empty());
        self.trust = trust;
        self.shown.values_mut().for_each(|shown| shown.looked = None);
        let endpoints: Vec<Endpoint> = self.shown.keys().copied().collect();
        for endpoint in endpoints {
            self.look_again(now, endpoint);
        }
    }

    /// A SMaRtClient is gone. What was learned from it stays true.
    pub(super) fn down(&mut self, endpoint: Endpoint) {
        self.shown.remove(&endpoint);
    }

    /// Looks at what a SMaRtClient shows, unless that was done just now.
    pub(super) fn look_again(&mut self, now: Instant, endpoint: Endpoint) {
        let Some(shown) = self.shown.get_mut(&endpoint) else { return };
        if shown.looked.is_some_and(|looked| now.since(looked) < LOOK_EVERY) {
            return;
        }
        (shown.looked, shown.news) = (Some(now), false);
        let wall = (self.clock)();
        let known = |server: &ReplicaId, one: &Bytes| {
            self.known.get(server).is_some_and(|known| known.iter().any(|known| known.certificate == *one))
        };
        let news: Vec<_> = shown.certificates.iter().filter(|(server, one)| !known(server, one)).cloned().collect();
        for (server, certificate) in news {
            match self.trust.judge(&certificate, &[Role::Server], wall) {
                Ok(trusted) if trusted.identity.id == server.to_string() => self.learn(server, certificate, &trusted),
                Ok(trusted) => {
                    tracing::debug!(%server, identity = %trusted.identity, "another server's signing certificate");
                }
                Err(why) => tracing::debug!(%server, why, "a signing certificate is not trusted"),
            }
        }
    }

    /// Takes the key of a certificate that is trusted.
    pub(super) fn learn(&mut self, server: ReplicaId, certificate: Bytes, trusted: &Trusted) {
        if self.known.len() >= MEMBERS_MAX && !self.known.contains_key(&server) {
            return;
        }
        let known = self.known.entry(server).or_default();
        known.retain(|known| known.key != trusted.key);
        known.push(Known { certificate, key: trusted.key, not_after: trusted.not_after });
        // One who shows old ones again does not push the newest out.
        known.sort_by_key(|known| std::cmp::Reverse(known.not_after));
        known.truncate(KEPT);
    }

    /// Whether a SMaRtClient shows certificates that were not looked at yet.
    pub(super) fn has_news(&self, endpoint: Endpoint) -> bool {
        self.shown.get(&endpoint).is_some_and(|shown| shown.news)
    }

    /// Whether any key of a server is known.
    pub(super) fn knows(&self, server: ReplicaId) -> bool {
        self.known.contains_key(&server)
    }

    /// A server's keys whose certificates have not ended.
    pub(super) fn of(&self, server: ReplicaId) -> Vec<PublicKey> {
        let Some(known) = self.known.get(&server) else { return Vec::new() };
        let wall = (self.clock)();
        known.iter().filter(|known| wall <= known.not_after).map(|known| known.key).collect()
    }

    /// Lives at that time, in tests.
    #[cfg(test)]
    pub(super) fn at(&mut self, clock: fn() -> i64) {
        self.clock = clock;
    }
}
