//! The certificate that outside clients are shown: any authority's, for any names, theirs to judge.

use super::error::NetError;
use super::files::{fault, fingerprint, read};
use super::identity::{certificates, rfc3339, serial};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideFiles {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// It, read.
#[derive(Clone, Debug)]
pub struct Outside {
    /// TLS 1.2 and 1.3, no client certificates.
    pub config: Arc<ServerConfig>,
    /// When it expires, Unix time.
    pub not_after: i64,
    serial: String,
}

impl OutsideFiles {
    /// Reads both, and what tells them from others.
    pub fn read(&self) -> (blake3::Hash, Result<Outside, NetError>) {
        let contents = read(&self.certificate, false).and_then(|certificate| Ok((certificate, read(&self.key, true)?)));
        match contents {
            Err(error) => (blake3::hash(error.to_string().as_bytes()), Err(error)),
            Ok((certificate, key)) => (fingerprint([&certificate, &key]), self.parse(&certificate, &key)),
        }
    }

    fn parse(&self, certificate: &[u8], key: &[u8]) -> Result<Outside, NetError> {
        let chain = certificates(&self.certificate, certificate)?;
        let (_, leaf) = X509Certificate::from_der(&chain[0])
            .map_err(|_| fault(&self.certificate, "a malformed certificate: put a good one there"))?;
        let (not_after, serial) = (leaf.validity().not_after.timestamp(), serial(&leaf));
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| fault(&self.key, "no private key in PEM: put that of the certificate there"))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|problem| NetError::Tls(problem.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|problem| {
                fault(&self.key, &format!("cannot be used with {}: {problem}", self.certificate.display()))
            })?;
        Ok(Outside { config: Arc::new(config), not_after, serial })
    }
}

impl Outside {
    /// For `/status`.
    #[must_use]
    pub fn status(&self) -> Value {
        json!({ "serial": self.serial, "not_after": rfc3339(self.not_after) })
    }
}
