//! One certificate authority: made, written, read back, used.

use crate::clock::Moment;
use crate::error::CertsError;
use crate::facts::Facts;
use crate::files;
use crate::passphrase::{Passphrase, is_encrypted};
use mesh::names::cluster_uri;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use std::path::{Path, PathBuf};
use std::time::Duration;
use x509_parser::pem::Pem;

/// How long an authority lives, unless told otherwise.
pub(crate) const LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);

/// Certificates are valid from a little before they are made: clocks differ.
pub(crate) const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// The longest text of an organization name (RFC 5280, ub-organization-name).
const ORGANIZATION_MAX: usize = 64;

/// The file names in `ca/<n>`.
const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";

/// Signs.
pub(crate) type Signer = Issuer<'static, KeyPair>;

/// What an authority is to be.
pub(crate) struct Wanted<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) trust_domain: &'a str,
    pub(crate) lifetime: Duration,
    pub(crate) passphrase: Option<&'a Passphrase>,
    pub(crate) now: Moment,
}

/// Makes one in the directory `dir`, which is empty.
pub(crate) fn create(dir: &Path, wanted: &Wanted<'_>) -> Result<(), CertsError> {
    let serial = files::random()?;
    let mut params = CertificateParams::default();
    // A name of its own: two authorities of one cluster must not look alike to who builds a chain.
    let name = format!("Lockstep CA {:08x}", u32::from_be_bytes([serial[0], serial[1], serial[2], serial[3]]));
    params.distinguished_name = distinguished_name(&name, wanted.cluster);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = wanted.now.minus(BACKDATE).date();
    params.not_after = wanted.now.plus(wanted.lifetime).date();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![SanType::URI(cluster_uri(wanted.trust_domain, wanted.cluster).try_into()?)];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    let secret = match wanted.passphrase {
        Some(passphrase) => passphrase.encrypt(key.serialized_der())?,
        None => key.serialize_pem().into(),
    };
    files::create(&dir.join(KEY), secret.as_bytes(), files::SECRET)?;
    files::create(&dir.join(CERTIFICATE), certificate.pem().as_bytes(), files::PUBLIC)
}

/// An authority: what everybody may know of it.
pub(crate) struct Authority {
    /// Its number, the name of its directory; for one that does not issue yet, the number that it will have.
    pub(crate) number: u32,
    pub(crate) dir: PathBuf,
    /// Its certificate.
    pub(crate) pem: String,
    der: Vec<u8>,
    pub(crate) facts: Facts,
    pub(crate) cluster: String,
    pub(crate) trust_domain: String,
}

impl Authority {
    /// Reads the one in the directory `dir`, but for its key.
    pub(crate) fn read(dir: PathBuf, number: u32) -> Result<Self, CertsError> {
        let path = dir.join(CERTIFICATE);
        let pem = files::read(&path)?;
        let der = first_certificate(&path, &pem)?;
        let facts = Facts::of(&der).map_err(|problem| CertsError::unusable(&path, problem))?;
        match (facts.cluster.clone(), facts.trust_domain.clone()) {
            (Some(cluster), Some(trust_domain)) if facts.ca => {
                Ok(Self { number, dir, pem, der, facts, cluster, trust_domain })
            }
            _ => Err(CertsError::unusable(path, "not an authority of Lockstep: it does not name its cluster")),
        }
    }

    /// Whether this one signed it, as its key identifier says.
    pub(crate) fn issued(&self, leaf: &Facts) -> bool {
        leaf.authority_key_id.is_some() && leaf.authority_key_id == self.facts.subject_key_id
    }

    /// Whether its key is encrypted.
    pub(crate) fn is_encrypted(&self) -> Result<bool, CertsError> {
        Ok(is_encrypted(&files::read_secret(&self.dir.join(KEY))?))
    }

    /// Opens its key.
    pub(crate) fn signer(&self, passphrase: Option<&Passphrase>) -> Result<Signer, CertsError> {
        let path = self.dir.join(KEY);
        let unusable = || CertsError::unusable(&path, "no private key in PEM: restore it from a backup");
        let text = zeroize::Zeroizing::new(files::read_secret(&path)?);
        let key = if is_encrypted(&text) {
            let passphrase = passphrase.ok_or_else(|| CertsError::PassphraseMissing(path.clone()))?;
            let der = passphrase.decrypt(&path, &text)?;
            KeyPair::try_from(der.as_slice()).map_err(|_| unusable())?
        } else {
            KeyPair::from_pem(&text).map_err(|_| unusable())?
        };
        if *key.public_key_raw() != *self.facts.public_key {
            let problem = format!("not the key of {}: restore it from a backup", self.dir.join(CERTIFICATE).display());
            return Err(CertsError::unusable(path, problem));
        }
        Ok(Issuer::from_ca_cert_der(&self.der.as_slice().into(), key)?)
    }
}

/// The subject of a certificate.
pub(crate) fn distinguished_name(name: &str, cluster: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    if cluster.len() <= ORGANIZATION_MAX {
        subject.push(DnType::OrganizationName, cluster);
    }
    subject
}

/// The first PEM block of a file, which must be a certificate, in DER.
pub(crate) fn first_certificate(path: &Path, text: &str) -> Result<Vec<u8>, CertsError> {
    let block = Pem::iter_from_buffer(text.as_bytes()).next().and_then(Result::ok);
    let block = block.filter(|block| block.label == "CERTIFICATE");
    let block = block.ok_or_else(|| CertsError::unusable(path, "no certificate in PEM: remove it and issue it again"));
    Ok(block?.contents)
}
