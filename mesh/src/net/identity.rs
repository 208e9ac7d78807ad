//! Who a certificate names, and our own certificate, key and trusted authorities as read from `pki/<role>/<id>`.

use super::error::NetError;
use crate::names::Identity;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Bytes of a certificate, key, bundle or revocation list that are read at most.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What a certificate says, read without verifying it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) identity: Identity,
    pub(super) trust_domain: String,
    pub(super) not_after: i64,
}

/// Reads the SANs of a certificate: exactly one DNS name and one URI of our scheme, which agree. The caller has
/// verified the chain or only wants to know what is claimed.
pub(super) fn read_names(certificate: &CertificateDer<'_>) -> Result<Named, &'static str> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "the certificate is malformed")?;
    let not_after = parsed.validity().not_after.timestamp();
    let sans = parsed.subject_alternative_name().map_err(|_| "the certificate's names are malformed")?;
    let sans = sans.ok_or("the certificate names nobody (no subject alternative name)")?;
    let (mut dns, mut uri) = (None, None);
    for name in &sans.value.general_names {
        match name {
            GeneralName::DNSName(name) if Identity::claims_dns_name(name) => {
                let identity = Identity::from_dns_name(name).map_err(|_| "a .lockstep name is malformed")?;
                if dns.replace(identity).is_some() {
                    return Err("the certificate has two .lockstep names");
                }
            }
            GeneralName::URI(name) if name.starts_with("spiffe://") => {
                let read = Identity::from_uri(name).map_err(|_| "the SPIFFE name is malformed")?;
                if uri.replace(read).is_some() {
                    return Err("the certificate has two SPIFFE names");
                }
            }
            _ => {}
        }
    }
    match (dns, uri) {
        (Some(dns), Some((trust_domain, uri))) if dns == uri => Ok(Named { identity: dns, trust_domain, not_after }),
        (Some(_), Some(_)) => Err("the certificate's DNS and SPIFFE names contradict each other"),
        _ => Err("the certificate lacks a DNS or SPIFFE name of Lockstep"),
    }
}

/// Whose certificate (DER) this is, as its names say. Says nothing of whether it is to be trusted.
///
/// # Errors
/// It names no part of a cluster, or is malformed.
pub fn read_identity(certificate: &[u8]) -> Result<Identity, &'static str> {
    read_names(&CertificateDer::from(certificate)).map(|named| named.identity)
}

/// Our certificate, its key and whom we trust, read from `pki/<role>/<id>`.
pub struct Credentials {
    pub(super) named: Named,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) certified: Arc<SingleCertAndKey>,
    roots: Arc<RootCertStore>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
    bundle: PathBuf,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.named.identity).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads `tls.crt`, `tls.key` and, unless `trust_bundle` is given, `ca.crt` of `dir`.
    ///
    /// # Errors
    /// A file that cannot be read or used, a key that others may read or the group may write, a certificate whose
    /// names are not those of a part of a cluster.
    pub fn load(dir: &Path, trust_bundle: Option<&Path>) -> Result<Self, NetError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (certificate, key) = (dir.join("tls.crt"), dir.join("tls.key"));
        let bundle = trust_bundle.map_or_else(|| dir.join("ca.crt"), Path::to_owned);
        let chain = read_certificates(&certificate)?;
        let named = read_names(&chain[0]).map_err(|problem| fault(&certificate, problem))?;
        let secret = PrivateKeyDer::from_pem_slice(&read(&key, true)?)
            .map_err(|_| fault(&key, "no private key in PEM: issue the certificate again"))?;
        let certified = CertifiedKey::from_der(chain, secret, &provider)
            .map_err(|problem| fault(&key, &format!("cannot be used with {}: {problem}", certificate.display())))?;
        let mut roots = RootCertStore::empty();
        for authority in read_certificates(&bundle)? {
            roots.add(authority).map_err(|problem| fault(&bundle, &problem.to_string()))?;
        }
        Ok(Self {
            named,
            provider,
            certified: Arc::new(certified.into()),
            roots: Arc::new(roots),
            revoked: Vec::new(),
            bundle,
        })
    }

    /// Refuses from now on what the revocation lists in `file` (PEM, `pki/crl.pem`) name.
    ///
    /// # Errors
    /// A file that cannot be read or has no list.
    pub fn with_revocations(mut self, file: &Path) -> Result<Self, NetError> {
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&read(file, false)?).collect();
        self.revoked = lists.map_err(|problem| fault(file, &problem.to_string()))?;
        if self.revoked.is_empty() {
            return Err(fault(file, "no revocation list in PEM: make one with `lockstep certs crl`"));
        }
        // Found out here rather than at the first link.
        self.acceptors_verifier()?;
        Ok(self)
    }

    /// Who we are.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.named.identity
    }

    /// When our certificate expires, Unix time.
    #[must_use]
    pub const fn expires_at(&self) -> i64 {
        self.named.not_after
    }

    /// What verifies the certificates of those whom we dial.
    pub(super) fn acceptors_verifier(&self) -> Result<Arc<WebPkiServerVerifier>, NetError> {
        WebPkiServerVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
            .with_crls(self.revoked.iter().cloned())
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status()
            .build()
            .map_err(|problem| fault(&self.bundle, &problem.to_string()))
    }

    /// What verifies the certificates of those who dial us.
    pub(super) fn diallers_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, NetError> {
        WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
            .with_crls(self.revoked.iter().cloned())
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status()
            .clear_root_hint_subjects()
            .build()
            .map_err(|problem| fault(&self.bundle, &problem.to_string()))
    }

    /// Warns when our own certificate will be refused by everybody, or soon.
    pub(super) fn warn_if_due(&self, now_unix: i64) {
        let left = self.named.not_after.saturating_sub(now_unix);
        let who = &self.named.identity;
        if left <= 0 {
            tracing::error!(%who, "our certificate has expired: every link will be refused until it is renewed");
        } else if left < 24 * 3600 {
            tracing::warn!(%who, seconds_left = left, "our certificate expires within a day: renew it");
        }
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path, false)?).collect();
    let found = found.map_err(|problem| fault(path, &problem.to_string()))?;
    if found.is_empty() { Err(fault(path, "no certificate in PEM: issue it again")) } else { Ok(found) }
}

/// The bytes of a file. Of a secret one, the mode is checked on what was opened, behind every symlink.
fn read(path: &Path, secret: bool) -> Result<Vec<u8>, NetError> {
    let failed = |problem: std::io::Error| fault(path, &format!("cannot be read: {problem}"));
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode();
    if secret && mode & 0o027 != 0 {
        let problem = format!("mode {:04o} lets others read or the group write it: chmod 0600 it", mode & 0o7777);
        return Err(fault(path, &problem));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fault(path, "too large to be what it should be"));
    }
    Ok(bytes)
}

fn fault(path: &Path, problem: &str) -> NetError {
    NetError::Credentials { path: path.to_owned(), problem: problem.to_owned() }
}
