//! Signing certificates: our own with its key, and the judgement of those of others.
//!
//! A signing leaf is one of its own: an ed25519 key, the same names as the TLS leaf beside it, and the extended key usage
//! for signing documents (RFC 9336) alone, so that no TLS verifier takes it for a leaf of its own.

use crate::auth::{BadKey, CERTIFICATE_BYTES_MAX, PublicKey, SecretKey};
use crate::client::sender::Card;
use crate::names::{Identity, Role};
use crate::net::{Changes, Files, POLL, Reloads, read_identity};
use bytes::Bytes;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::mpsc;
use webpki::{EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationOptionsBuilder, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, X509Certificate};

/// id-kp-documentSigning, 1.3.6.1.5.5.7.3.36, in DER without tag and length.
const DOCUMENT_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x24];

/// Bytes of a file that are read at most.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why a signing certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct SigningError {
    path: PathBuf,
    problem: String,
}

fn fault(path: &Path, problem: impl std::fmt::Display) -> SigningError {
    SigningError { path: path.to_owned(), problem: problem.to_string() }
}

/// What signs for this process.
#[derive(Debug)]
pub struct Signer {
    key: SecretKey,
    certificate: Bytes,
}

impl Signer {
    /// Reads `signing.crt` and `signing.key` of `dir`, which must be those of `who`.
    ///
    /// # Errors
    /// A file that is missing, cannot be used, is somebody else's, or a key that others may read.
    pub fn load(dir: &Path, who: &Identity) -> Result<Self, SigningError> {
        let (path, key_path) = (dir.join("signing.crt"), dir.join("signing.key"));
        let issue = format!("issue it with `lockstep certs issue {} {} --signing`", who.role, who.id);
        let certificate = CertificateDer::from_pem_slice(&read(&path, false)?)
            .map_err(|_| fault(&path, format!("no certificate in PEM: {issue}")))?;
        let key = PrivateKeyDer::from_pem_slice(&read(&key_path, true)?)
            .map_err(|_| fault(&key_path, format!("no private key in PEM: {issue}")))?;
        let key =
            SecretKey::from_pkcs8(key.secret_der()).map_err(|BadKey| fault(&key_path, format!("{BadKey}: {issue}")))?;
        let (named, public) = read_signer(&certificate).map_err(|problem| fault(&path, problem))?;
        if public != key.public() {
            return Err(fault(&key_path, format!("not the key of {}: {issue}", path.display())));
        }
        if named != *who {
            return Err(fault(&path, format!("it is of {named}, and this is {who}: {issue}")));
        }
        Ok(Self { key, certificate: Bytes::copy_from_slice(&certificate) })
    }

    /// Of a key and a certificate that are taken to belong together: for tests.
    #[must_use]
    pub fn unchecked(key: SecretKey, certificate: Bytes) -> Self {
        Self { key, certificate }
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
#[derive(Debug)]
pub struct SignerTrust {
    cluster: String,
    authorities: Vec<CertificateDer<'static>>,
    revoked: Vec<OwnedCertRevocationList>,
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
    /// Trusts the authorities of the files' bundle, minus what their revocation lists name, if there are any.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn load(cluster: &str, files: &Files) -> Result<Self, SigningError> {
        let bundle = files.bundle();
        let authorities: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(&bundle, false)?).collect();
        let authorities = authorities.map_err(|problem| fault(&bundle, problem))?;
        if authorities.is_empty() {
            return Err(fault(&bundle, "no certificate in PEM: issue it again"));
        }
        let mut revoked = Vec::new();
        if let Some(crl) = files.crl.as_deref().filter(|crl| crl.exists()) {
            for list in CertificateRevocationListDer::pem_slice_iter(&read(crl, false)?) {
                let list = list.map_err(|problem| fault(crl, problem))?;
                revoked.push(OwnedCertRevocationList::from_der(&list).map_err(|problem| fault(crl, problem))?);
            }
        }
        Ok(Self { cluster: cluster.to_owned(), authorities, revoked })
    }

    /// Who a signing certificate (DER) is of, if it is to be trusted at the Unix time `now` (seconds) to sign as one of
    /// `roles`.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn judge(&self, certificate: &[u8], roles: &[Role], now: u64) -> Result<Trusted, String> {
        if certificate.len() > CERTIFICATE_BYTES_MAX {
            return Err(format!("a signing certificate may have {CERTIFICATE_BYTES_MAX} bytes"));
        }
        let (identity, key) = read_signer(certificate)?;
        if identity.cluster != self.cluster || !roles.contains(&identity.role) {
            return Err(format!("it is of {identity}, who may not sign here"));
        }
        let der = CertificateDer::from(certificate);
        let leaf = EndEntityCert::try_from(&der).map_err(|problem| problem.to_string())?;
        let anchors: Result<Vec<_>, _> = self.authorities.iter().map(anchor_from_trusted_cert).collect();
        let anchors = anchors.map_err(|problem| problem.to_string())?;
        let lists: Vec<_> = self.revoked.iter().cloned().map(Into::into).collect();
        let lists: Vec<_> = lists.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(webpki::RevocationCheckDepth::EndEntity)
                .with_status_policy(webpki::UnknownStatusPolicy::Allow)
                .build()
        });
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &[],
            UnixTime::since_unix_epoch(std::time::Duration::from_secs(now)),
            KeyUsage::required(DOCUMENT_SIGNING),
            revocation,
            None,
        )
        .map_err(|problem| problem.to_string())?;
        let not_after = not_after(certificate)?;
        Ok(Trusted { identity, key, not_after })
    }
}

/// What changed in the files.
#[derive(Clone, Debug)]
pub enum News {
    /// Another key signs from now on.
    Signer(Arc<Signer>),
    /// Others are trusted from now on.
    Trust(Arc<SignerTrust>),
}

/// The files of a part, as they were when somebody first looked.
#[derive(Debug)]
pub struct Followed {
    files: Files,
    who: Identity,
    keys: Option<Changes>,
    authorities: Option<Changes>,
}

impl Followed {
    /// The files of `who`: those that it signs with, if it does, and those that tell whom it trusts. To be made before they
    /// are read, so that no change is missed.
    #[must_use]
    pub fn new(files: &Files, who: &Identity, (signs, trusts): (bool, bool)) -> Self {
        Self {
            files: files.clone(),
            who: who.clone(),
            keys: signs.then(|| Changes::new(content(&keys(files)))),
            authorities: trusts.then(|| Changes::new(content(&authorities(files)))),
        }
    }

    /// Follows the files until nobody listens: looks at them every two seconds, and tells what is new and good. What is
    /// not good is said and counted once, and the old stays.
    pub async fn follow<E>(mut self, reloads: Reloads, out: mpsc::Sender<E>, event: impl Fn(News) -> E) {
        while self.keys.is_some() || self.authorities.is_some() {
            tokio::time::sleep(POLL).await;
            // A file system that hangs must not hang this process.
            let Ok((back, news)) = tokio::task::spawn_blocking(move || self.look()).await else { return };
            self = back;
            for new in news {
                match new {
                    Ok(new) => {
                        reloads.ok.inc();
                        tracing::info!("new files for signatures are used");
                        if out.send(event(new)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        reloads.failed.inc();
                        tracing::error!("new files for signatures are not used, the old ones stay: {error}");
                    }
                }
            }
        }
    }

    fn look(mut self) -> (Self, Vec<Result<News, SigningError>>) {
        let Self { files, who, keys: signs, authorities: trusts } = &mut self;
        let (files, who) = (&*files, &*who);
        let mut news = Vec::new();
        if let Some(changes) = signs {
            let found = changes.look(content(&keys(files)), || successor(files, who));
            news.extend(found.map(|new| new.map(|new| News::Signer(Arc::new(new)))));
        }
        if let Some(changes) = trusts {
            let load = || SignerTrust::load(&who.cluster, files);
            let found = changes.look(content(&authorities(files)), load);
            news.extend(found.map(|new| new.map(|new| News::Trust(Arc::new(new)))));
        }
        (self, news)
    }
}

/// The key that the files hold now, if others will trust it.
fn successor(files: &Files, who: &Identity) -> Result<Signer, SigningError> {
    let signer = Signer::load(&files.dir, who)?;
    let trust = SignerTrust::load(&who.cluster, files)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let judged = trust.judge(signer.certificate(), &[who.role], now);
    judged.map_err(|why| fault(&files.dir.join("signing.crt"), why))?;
    Ok(signer)
}

fn keys(files: &Files) -> Vec<PathBuf> {
    vec![files.dir.join("signing.crt"), files.dir.join("signing.key")]
}

fn authorities(files: &Files) -> Vec<PathBuf> {
    std::iter::once(files.bundle()).chain(files.crl.clone()).collect()
}

/// What tells the content of files from another.
fn content(paths: &[PathBuf]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for path in paths {
        let bytes = read(path, false).unwrap_or_default();
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
    }
    hasher.finalize()
}

/// The name and the key in a signing certificate (DER). Says nothing of whether it is to be trusted.
fn read_signer(certificate: &[u8]) -> Result<(Identity, PublicKey), String> {
    let identity = read_identity(certificate)?;
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "the certificate is malformed")?;
    let info = parsed.public_key();
    if info.algorithm.algorithm != x509_parser::oid_registry::OID_SIG_ED25519 {
        return Err("its key is no ed25519 key".to_owned());
    }
    let key = info.subject_public_key.data.as_ref().try_into().map_err(|_| "its key has another length")?;
    Ok((identity, PublicKey(key)))
}

fn not_after(certificate: &[u8]) -> Result<i64, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "the certificate is malformed")?;
    Ok(parsed.validity().not_after.timestamp())
}

fn read(path: &Path, secret: bool) -> Result<Vec<u8>, SigningError> {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;
    let failed = |problem: std::io::Error| fault(path, format!("cannot be read: {problem}"));
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode();
    if secret && mode & 0o027 != 0 {
        let mode = mode & 0o7777;
        return Err(fault(path, format!("mode {mode:04o} lets others read or the group write it: chmod 0600 it")));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
