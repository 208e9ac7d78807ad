//! Who a certificate names, and our own certificate, key and trusted authorities as read from `pki/<role>/<id>`.

use super::LinkKind;
use super::error::NetError;
use super::files::{Contents, Files, fault};
use super::refusal::reason_of;
use super::reset::ResetSecret;
use super::revocation::Revocations;
use super::signing::SignerTrust;
use super::{RefusalReason, explain};
use crate::names::Identity;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A certificate with less than this left is due: somebody must be told.
const DUE_SECONDS: i64 = 24 * 3600;

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

/// Our certificate, its key and whom we trust, read from `pki/<role>/<id>`.
pub struct Credentials {
    pub(super) named: Named,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) certified: Arc<SingleCertAndKey>,
    pub(super) files: Files,
    /// The versions of a kind of link that are spoken, the newest first.
    pub(super) speaks: fn(LinkKind) -> Vec<Vec<u8>>,
    /// Tells this set from another.
    pub(super) fingerprint: blake3::Hash,
    pub(super) resets: ResetSecret,
    chain: Vec<CertificateDer<'static>>,
    authorities: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    revocations: Revocations,
    /// Whose signatures of requests and replies are believed: the same authorities', minus the same revocations.
    signers: Arc<SignerTrust>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.named.identity).finish_non_exhaustive()
    }
}

impl Credentials {
    /// [`Self::of`] the files in `dir`, and `trust_bundle` instead of `ca.crt` there.
    ///
    /// # Errors
    /// The same.
    pub fn load(dir: &Path, trust_bundle: Option<&Path>) -> Result<Self, NetError> {
        Self::of(&Files::new(dir, trust_bundle, None))
    }

    /// Refuses what the revocation lists in `file` (PEM, `pki/crl.pem`) name; the file may come later.
    ///
    /// # Errors
    /// As for [`Self::of`].
    pub fn with_revocations(self, file: &Path) -> Result<Self, NetError> {
        Self::of(&Files { crl: Some(file.to_owned()), ..self.files })
    }

    /// Reads what `files` name. Whether others will accept the certificate is not asked: they say so.
    ///
    /// # Errors
    /// A file that cannot be read or used, a key that others may read or the group may write, a certificate whose
    /// names are not those of a part of a cluster, a revocation list that no trusted authority signed.
    pub fn of(files: &Files) -> Result<Self, NetError> {
        Self::parse(files, &files.read()?)
    }

    /// The same, of files that were read.
    pub(super) fn parse(files: &Files, contents: &Contents) -> Result<Self, NetError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (certificate, key, bundle) = (files.certificate(), files.key(), files.bundle());
        let fingerprint = contents.fingerprint();
        let chain = certificates(&certificate, &contents.certificate)?;
        let named = read_names(&chain[0]).map_err(|problem| fault(&certificate, problem))?;
        let secret = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|_| fault(&key, "no private key in PEM: issue the certificate again"))?;
        let resets = ResetSecret::of(secret.secret_der());
        let certified = CertifiedKey::from_der(chain.clone(), secret, &provider)
            .map_err(|problem| fault(&key, &format!("cannot be used with {}: {problem}", certificate.display())))?;
        let authorities = certificates(&bundle, &contents.bundle)?;
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots.add(authority.clone()).map_err(|problem| fault(&bundle, &problem.to_string()))?;
        }
        let revocations = match (&files.crl, &contents.crl) {
            (Some(path), Some(pem)) => Revocations::parse(path, pem, &authorities)?,
            _ => Revocations::default(),
        };
        let roots = Arc::new(roots);
        let signers =
            SignerTrust::new((&named.identity.cluster, &named.trust_domain), roots.clone(), &revocations.lists)
                .map_err(|problem| fault(files.crl.as_ref().unwrap_or(&bundle), &problem.to_string()))?;
        Ok(Self {
            named,
            provider,
            certified: Arc::new(certified.into()),
            files: files.clone(),
            speaks: |kind| kind.alpns().map(<[u8]>::to_vec).into(),
            fingerprint,
            resets,
            chain,
            authorities,
            roots,
            revocations,
            signers: Arc::new(signers),
        })
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

    /// Whose signatures are believed by who trusts the same authorities.
    #[must_use]
    pub fn signer_trust(&self) -> Arc<SignerTrust> {
        self.signers.clone()
    }

    /// The `tls` of `/status`.
    pub(super) fn status(&self) -> Value {
        json!({
            "serial": X509Certificate::from_der(&self.chain[0]).ok().map(|(_, parsed)| serial(&parsed)),
            "not_after": rfc3339(self.named.not_after),
            "bundle_sha256": self.authorities.iter().map(|authority| sha256(authority)).collect::<Vec<_>>(),
            "crl_number": self.revocations.number.as_ref().map(|number| match number.parse::<u64>() {
                Ok(number) => json!(number),
                Err(_) => json!(number),
            }),
        })
    }

    /// What verifies the certificates of those whom we dial.
    pub(super) fn acceptors_verifier(&self) -> Result<Arc<WebPkiServerVerifier>, NetError> {
        WebPkiServerVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
            .with_crls(self.revocations.lists.iter().cloned())
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status()
            .build()
            .map_err(|problem| fault(&self.files.bundle(), &problem.to_string()))
    }

    /// What verifies the certificates of those who dial us.
    pub(super) fn diallers_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, NetError> {
        self.diallers_verifier_with(&self.revocations)
    }

    fn diallers_verifier_with(&self, revocations: &Revocations) -> Result<Arc<dyn ClientCertVerifier>, NetError> {
        WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
            .with_crls(revocations.lists.iter().cloned())
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status()
            .clear_root_hint_subjects()
            .build()
            .map_err(|problem| fault(&self.files.bundle(), &problem.to_string()))
    }

    /// Whether this set may take the place of `old`, which is in use. A revocation of our own certificate does not
    /// speak against it: whom else it revokes must be known.
    pub(super) fn check_successor(&self, old: &Self, now: UnixTime) -> Result<(), NetError> {
        let path = self.files.certificate();
        let (we, it) = (&old.named, &self.named);
        if (&it.identity, &it.trust_domain) != (&we.identity, &we.trust_domain) {
            let problem = format!(
                "is for {} ({}), and this process is {} ({}): put the right one there",
                it.identity, it.trust_domain, we.identity, we.trust_domain
            );
            return Err(fault(&path, &problem));
        }
        // A certificate that ran out in use must not keep newer authorities and revocations from being used.
        let now = if self.chain == old.chain { now.min(self.last_moment()) } else { now };
        self.verify(now)
            .map_err(|error| fault(&path, &format!("{error}: {}", reason_of(&error).hint_for(self.identity()))))?;
        if self.revocations.lists.is_empty()
            && !old.revocations.lists.is_empty()
            && let Some(crl) = &self.files.crl
        {
            return Err(fault(crl, "is gone: put it back, or make one with `lockstep certs crl`"));
        }
        Ok(())
    }

    /// Whether those who trust the same authorities would accept our certificate, revocations aside.
    pub(super) fn verify(&self, now: UnixTime) -> Result<(), rustls::Error> {
        let (leaf, rest) = (&self.chain[0], &self.chain[1..]);
        let general = |error: NetError| rustls::Error::General(error.to_string());
        let verifier = self.diallers_verifier_with(&Revocations::default()).map_err(general)?;
        verifier.verify_client_cert(leaf, rest, now).map_err(|error| explain::clearer(error, leaf))?;
        if self.identity().role.accepts_links() {
            let name =
                ServerName::try_from(self.identity().dns_name()).map_err(|_| rustls::Error::UnsupportedNameType)?;
            let verifier = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), self.provider.clone());
            let verifier = verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
            verifier.verify_server_cert(leaf, rest, &name, &[], now).map_err(|error| explain::clearer(error, leaf))?;
        }
        Ok(())
    }

    /// Whether our own revocation lists have our own certificate.
    pub(super) fn is_revoked(&self, now: UnixTime) -> bool {
        let verified = self.diallers_verifier().ok().map(|verifier| {
            let now = now.min(self.last_moment());
            verifier.verify_client_cert(&self.chain[0], &self.chain[1..], now)
        });
        matches!(verified, Some(Err(error)) if reason_of(&error) == RefusalReason::Revoked)
    }

    /// Whether it presents the same certificate.
    pub(super) fn presents_the_same_as(&self, other: &Self) -> bool {
        self.chain == other.chain
    }

    pub(super) fn leaf(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    fn last_moment(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(self.named.not_after).unwrap_or_default()))
    }

    /// Whether our certificate will be refused by everybody, or soon.
    pub(super) fn is_due(&self, now_unix: i64) -> bool {
        self.named.not_after.saturating_sub(now_unix) < DUE_SECONDS
    }

    /// Says so, also if it is revoked.
    pub(super) fn warn_if_due(&self, now_unix: i64) {
        if self.is_revoked(UnixTime::now()) {
            let hint = RefusalReason::Revoked.hint_for(self.identity());
            tracing::error!(who = %self.identity(), "our own certificate is revoked: every link will be refused; {hint}");
        }
        let left = self.named.not_after.saturating_sub(now_unix);
        let who = &self.named.identity;
        if left <= 0 {
            tracing::error!(%who, "our certificate has expired: every link will be refused until it is renewed");
        } else if left < DUE_SECONDS {
            tracing::warn!(%who, seconds_left = left, "our certificate expires within a day: renew it");
        }
    }
}

/// The certificates in a file.
pub(super) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|problem| fault(path, &problem.to_string()))?;
    if found.is_empty() { Err(fault(path, "no certificate in PEM: issue it again")) } else { Ok(found) }
}

/// A serial number as `openssl x509 -serial` prints it.
pub(super) fn serial(certificate: &X509Certificate<'_>) -> String {
    let bytes = certificate.raw_serial();
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len().saturating_sub(1));
    hex(&bytes[start..]).to_ascii_uppercase()
}

/// A time as people read it.
pub(super) fn rfc3339(unix: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(unix).ok()?.format(&Rfc3339).ok()
}

fn sha256(bytes: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
