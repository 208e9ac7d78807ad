//! Stateless resets (RFC 9000, section 10.3): a process that was killed and started again ends the links of the one
//! before it with the first packet that comes over them, instead of leaving their other ends to wait out its silence.
//!
//! For that the new process must make the tokens that the old one promised, without having kept anything: they are made
//! of the private key of the TLS certificate, and of the host's name and the address, because one of two processes that
//! share them could be asked for the tokens of the other (section 21.11), and pods of a Deployment share a certificate.

use crate::node::identity::host;
use aws_lc_rs::hmac;
use blake3::Hasher;
use quinn::EndpointConfig;
use quinn_proto::HashedConnectionIdGenerator;
use std::net::SocketAddr;
use std::sync::Arc;

/// Keeps these keys apart from whatever else may be made of the private key.
const CONTEXT: &str = "lockstep 2026-12-01 QUIC stateless resets";

/// What the keys of an endpoint are made of: a secret.
#[derive(Clone)]
pub(super) struct ResetSecret([u8; blake3::KEY_LEN]);

impl ResetSecret {
    /// Of a private key (DER).
    pub(super) fn of(private_key: &[u8]) -> Self {
        Self(blake3::derive_key(CONTEXT, private_key))
    }

    /// The configuration of the endpoint at `addr`, port included, of this host.
    pub(super) fn endpoint_config(&self, addr: SocketAddr) -> EndpointConfig {
        // Where it has no name, hosts are told apart by their addresses alone.
        let (tokens, ids) = self.keys(&host(), addr);
        let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &tokens)));
        // Only packets to what looks like an id of ours are answered with a reset.
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
        config
    }

    /// The key of tokens, and the one that connection ids are told by.
    fn keys(&self, host: &str, addr: SocketAddr) -> ([u8; 64], u64) {
        let mut keys = Hasher::new_keyed(&self.0).update(format!("{addr} {host}").as_bytes()).finalize_xof();
        let (mut tokens, mut ids) = ([0; 64], [0; 8]);
        keys.fill(&mut tokens);
        keys.fill(&mut ids);
        (tokens, u64::from_le_bytes(ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches keys that are the same at every address or host, or the same for everybody.
    #[test]
    fn keys_are_of_one_private_key_at_one_address_of_one_host() {
        let keys =
            |[private, host, addr]: [&str; 3]| ResetSecret::of(private.as_bytes()).keys(host, addr.parse().unwrap());
        let ours = keys(["key", "pod-0", "10.0.0.1:7000"]);
        assert_eq!(keys(["key", "pod-0", "10.0.0.1:7000"]), ours);
        for another in [
            ["other", "pod-0", "10.0.0.1:7000"],
            ["key", "pod-1", "10.0.0.1:7000"],
            ["key", "pod-0", "10.0.0.2:7000"],
            ["key", "pod-0", "10.0.0.1:7001"],
        ] {
            let theirs = keys(another);
            assert!(theirs.0 != ours.0 && theirs.1 != ours.1, "{another:?}");
        }
    }
}
