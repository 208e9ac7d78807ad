//! Signing certificates: our own with its key, and the judgement of those of others.
//!
//! A signing leaf is one of its own: an ed25519 key, the same names as the TLS leaf beside it, and the extended key usage
//! for signing documents (RFC 9336) alone, so that no TLS verifier takes it for a leaf of its own.

use super::error::NetError;
use super::files::{Files, fault, fingerprint, read};
use super::identity::{Named, read_names, serial};
use super::live::unix_now;
use super::reload::{Changes, POLL};
use super::{Endpoint, Identity, Role};
use crate::auth::{BadKey, CERTIFICATE_BYTES_MAX, PublicKey, SecretKey};
use crate::client::sender::Card;
use crate::node::grid;
use bytes::Bytes;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use webpki::{CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationOptionsBuilder};
use x509_parser::prelude::{FromDer, X509Certificate};

/// id-kp-documentSigning, 1.3.6.1.5.5.7.3.36, in DER without tag and length.
const DOCUMENT_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x24];

/// The certificate (DER) that this process signs with now, for `/status`.
#[derive(Clone, Debug, Default)]
pub(super) struct InUse(Arc<Mutex<Option<Bytes>>>);

impl InUse {
    /// Its serial number.
    pub(super) fn serial(&self) -> Option<String> {
        let certificate = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        X509Certificate::from_der(&certificate).ok().map(|(_, parsed)| serial(&parsed))
    }
}

/// What signs for this process.
#[derive(Debug)]
pub struct Signer {
    key: SecretKey,
    certificate: Bytes,
    in_use: InUse,
}

impl Signer {
    /// Reads `signing.crt` and `signing.key` in the directory of `files`, which must be those of the part at `endpoint`.
    ///
    /// # Errors
    /// A file that is missing, cannot be used, is somebody else's, or a key that others may read.
    pub fn load(files: &Files, endpoint: &Endpoint) -> Result<Self, NetError> {
        Self::parse(files, endpoint, &Contents::read(files)?)
    }

    /// The same, of files that were read.
    fn parse(files: &Files, endpoint: &Endpoint, contents: &Contents) -> Result<Self, NetError> {
        let who = endpoint.identity();
        let (path, key_path) = (certificate(files), key(files));
        let issue = format!("issue it with `lockstep certs issue {} {} --signing`", who.role, who.id);
        let certificate = CertificateDer::from_pem_slice(&contents.certificate)
            .map_err(|_| fault(&path, &format!("no certificate in PEM: {issue}")))?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|_| fault(&key_path, &format!("no private key in PEM: {issue}")))?;
        let key = SecretKey::from_pkcs8(key.secret_der())
            .map_err(|BadKey| fault(&key_path, &format!("{BadKey}: {issue}")))?;
        let (Named { identity, .. }, public) = read_signer(&certificate).map_err(|problem| fault(&path, problem))?;
        if public != key.public() {
            return Err(fault(&key_path, &format!("not the key of {}: {issue}", path.display())));
        }
        if identity != *who {
            return Err(fault(&path, &format!("it is of {identity}, and this is {who}: {issue}")));
        }
        Ok(Self { key, certificate: Bytes::copy_from_slice(&certificate), in_use: endpoint.signing().clone() })
    }

    /// Of a key and a certificate that are taken to belong together: for tests.
    #[must_use]
    pub fn unchecked(key: SecretKey, certificate: Bytes) -> Self {
        Self { key, certificate, in_use: InUse::default() }
    }

    /// Says in `/status` that this is what signs from now on.
    pub fn is_in_use(&self) {
        *self.in_use.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.certificate.clone());
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// The certificate (DER).
    #[must_use]
    pub fn certificate(&self) -> &Bytes {
        &self.certificate
    }

    /// What it shows of itself.
    #[must_use]
    pub fn card(&self) -> Card {
        Card { key: self.key.public(), certificate: self.certificate.clone() }
    }
}

/// Whose signing certificates are trusted: those that an authority of ours signed, of our cluster, valid now, not
/// revoked, of a role that may sign what is asked about.
pub struct SignerTrust {
    cluster: String,
    trust_domain: String,
    roots: Arc<RootCertStore>,
    revoked: Vec<CertRevocationList<'static>>,
}

impl fmt::Debug for SignerTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignerTrust").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// A signer that is trusted until its certificate ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// Who.
    pub identity: Identity,
    /// Its key.
    pub key: PublicKey,
    /// When its certificate ends, Unix time in seconds.
    pub not_after: i64,
}

impl SignerTrust {
    /// Trusts the authorities among `roots`, minus what these lists of theirs name.
    pub(crate) fn new(
        (cluster, trust_domain): (&str, &str),
        roots: Arc<RootCertStore>,
        lists: &[CertificateRevocationListDer<'_>],
    ) -> Result<Self, webpki::Error> {
        let list = |der: &CertificateRevocationListDer<'_>| OwnedCertRevocationList::from_der(der).map(Into::into);
        let revoked = lists.iter().map(list).collect::<Result<_, _>>()?;
        Ok(Self { cluster: cluster.to_owned(), trust_domain: trust_domain.to_owned(), roots, revoked })
    }

    /// Who a signing certificate (DER) is of, if it is to be trusted at the Unix time `now` (seconds) to sign as one of
    /// `roles`.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn judge(&self, certificate: &[u8], roles: &[Role], now: i64) -> Result<Trusted, String> {
        if certificate.len() > CERTIFICATE_BYTES_MAX {
            return Err(format!("a signing certificate may have {CERTIFICATE_BYTES_MAX} bytes"));
        }
        let der = CertificateDer::from(certificate);
        let (Named { identity, trust_domain, not_after }, key) = read_signer(&der)?;
        let ours = identity.cluster == self.cluster && trust_domain == self.trust_domain;
        if !ours || !roles.contains(&identity.role) {
            return Err(format!("it is of {identity}, who may not sign here"));
        }
        let leaf = EndEntityCert::try_from(&der).map_err(|problem| problem.to_string())?;
        let lists: Vec<_> = self.revoked.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(webpki::RevocationCheckDepth::EndEntity)
                .with_status_policy(webpki::UnknownStatusPolicy::Allow)
                .build()
        });
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &self.roots.roots,
            &[],
            UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or_default())),
            KeyUsage::required(DOCUMENT_SIGNING),
            revocation,
            None,
        )
        .map_err(|problem| problem.to_string())?;
        Ok(Trusted { identity, key, not_after })
    }
}

/// The signing certificate and its key, followed.
#[derive(Debug)]
pub struct Followed {
    files: Files,
    used: Changes,
}

impl Followed {
    /// To be made before the files are read, so that no change is missed.
    #[must_use]
    pub fn new(files: &Files) -> Self {
        Self { files: files.clone(), used: Changes::new(found(files).0) }
    }

    /// Follows the files until nobody listens: looks at them every two seconds, and tells of a new key that others will
    /// trust, as far as the endpoint's own authorities tell. One that is not good is said and counted once, and the old
    /// one stays.
    pub async fn follow<E>(mut self, endpoint: Endpoint, out: mpsc::Sender<E>, event: impl Fn(Arc<Signer>) -> E) {
        loop {
            grid::sleep(POLL).await;
            let files = self.files.clone();
            // A file system that hangs must not hang this process.
            let Ok((content, read)) = tokio::task::spawn_blocking(move || found(&files)).await else { continue };
            match self.used.look(content, || successor(&self.files, &endpoint, read)) {
                None => {}
                Some(Ok(new)) => {
                    endpoint.reloads().ok.inc();
                    tracing::info!(key = %new.key().public(), "a new signing certificate is used");
                    if out.send(event(Arc::new(new))).await.is_err() {
                        return;
                    }
                }
                Some(Err(error)) => {
                    endpoint.reloads().failed.inc();
                    tracing::error!("a new signing certificate is not used, the old one stays: {error}");
                }
            }
        }
    }
}

/// The key that was found, if others will trust it.
fn successor(files: &Files, endpoint: &Endpoint, found: Result<Contents, NetError>) -> Result<Signer, NetError> {
    let who = endpoint.identity();
    let signer = Signer::parse(files, endpoint, &found?)?;
    let judged = endpoint.signer_trust().borrow().judge(signer.certificate(), &[who.role], unix_now());
    judged.map(|_| signer).map_err(|why| fault(&certificate(files), &why))
}

/// What was in the files.
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Contents {
    fn read(files: &Files) -> Result<Self, NetError> {
        Ok(Self { certificate: read(&certificate(files), false)?, key: read(&key(files), true)? })
    }
}

/// What the files hold now, and what tells it from other contents.
fn found(files: &Files) -> (blake3::Hash, Result<Contents, NetError>) {
    match Contents::read(files) {
        Ok(contents) => (fingerprint([&contents.certificate, &contents.key]), Ok(contents)),
        Err(error) => (blake3::hash(error.to_string().as_bytes()), Err(error)),
    }
}

fn certificate(files: &Files) -> PathBuf {
    files.dir.join("signing.crt")
}

fn key(files: &Files) -> PathBuf {
    files.dir.join("signing.key")
}

/// The names and the key in a signing certificate. Says nothing of whether it is to be trusted.
fn read_signer(certificate: &CertificateDer<'_>) -> Result<(Named, PublicKey), &'static str> {
    let named = read_names(certificate)?;
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "the certificate is malformed")?;
    let info = parsed.public_key();
    if info.algorithm.algorithm != x509_parser::oid_registry::OID_SIG_ED25519 {
        return Err("its key is no ed25519 key");
    }
    let key = info.subject_public_key.data.as_ref().try_into().map_err(|_| "its key has another length")?;
    Ok((named, PublicKey(key)))
}
