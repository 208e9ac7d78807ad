//! One certificate authority: made, written, read back, used.

use crate::error::CertsError;
use crate::files;
use mesh::names::{cluster_uri, parse_cluster_uri};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use std::path::Path;
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::X509Certificate;

/// How long an authority lives.
const LIFETIME: Duration = Duration::days(3650);

/// Certificates are valid from a little before they are made: clocks differ.
pub(crate) const BACKDATE: Duration = Duration::minutes(5);

/// The longest text of an organization name (RFC 5280, ub-organization-name).
const ORGANIZATION_MAX: usize = 64;

/// The file names in `ca/<n>`.
pub(crate) const CERTIFICATE: &str = "ca.crt";
pub(crate) const KEY: &str = "ca.key";

/// An authority that can sign.
pub(crate) struct Authority {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) cluster: String,
    pub(crate) trust_domain: String,
    pub(crate) not_after: OffsetDateTime,
}

impl Authority {
    /// Makes one in the directory `dir`, which is empty.
    pub(crate) fn create(dir: &Path, cluster: &str, trust_domain: &str) -> Result<(), CertsError> {
        let serial = files::random()?;
        let mut params = CertificateParams::default();
        // A name of its own: two authorities of one cluster must not look alike to who builds a chain.
        let name = format!("Lockstep CA {:08x}", u32::from_be_bytes([serial[0], serial[1], serial[2], serial[3]]));
        params.distinguished_name = distinguished_name(&name, cluster);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = OffsetDateTime::now_utc() - BACKDATE;
        params.not_after = OffsetDateTime::now_utc() + LIFETIME;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![SanType::URI(cluster_uri(trust_domain, cluster).try_into()?)];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.self_signed(&key)?;
        files::create(&dir.join(KEY), key.serialize_pem().as_bytes(), files::SECRET)?;
        files::create(&dir.join(CERTIFICATE), certificate.pem().as_bytes(), files::PUBLIC)
    }

    /// Reads the one in the directory `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Self, CertsError> {
        let (path, key_path) = (dir.join(CERTIFICATE), dir.join(KEY));
        let text = files::read(&path)?;
        let key = KeyPair::from_pem(&files::read_secret(&key_path)?)
            .map_err(|_| CertsError::unusable(&key_path, "no private key in PEM: restore it from a backup"))?;
        let malformed = |problem: &str| CertsError::unusable(&path, problem);
        let pem = parse_pem(&path, &text)?;
        let certificate = parse(&path, &pem)?;
        if *certificate.public_key().subject_public_key.data != *key.public_key_raw() {
            return Err(CertsError::unusable(&key_path, format!("not the key of {}: restore it", path.display())));
        }
        let (trust_domain, cluster) = uri_of(&certificate)
            .and_then(|uri| parse_cluster_uri(uri).ok())
            .ok_or_else(|| malformed("not an authority of Lockstep: it does not name its cluster"))?;
        let not_after = certificate.validity().not_after.to_datetime();
        let issuer = Issuer::from_ca_cert_der(&pem.contents.as_slice().into(), key)?;
        Ok(Self { issuer, cluster, trust_domain, not_after })
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

/// The first PEM block of a file.
pub(crate) fn parse_pem(path: &Path, text: &str) -> Result<Pem, CertsError> {
    let block = Pem::iter_from_buffer(text.as_bytes()).next().and_then(Result::ok);
    let block = block.filter(|block| block.label == "CERTIFICATE");
    block.ok_or_else(|| CertsError::unusable(path, "no certificate in PEM: remove it and issue it again"))
}

/// The certificate in a PEM block.
pub(crate) fn parse<'a>(path: &Path, pem: &'a Pem) -> Result<X509Certificate<'a>, CertsError> {
    pem.parse_x509().map_err(|_| CertsError::unusable(path, "a malformed certificate: remove it and issue it again"))
}

/// The first URI among the alternative names.
pub(crate) fn uri_of<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let sans = certificate.subject_alternative_name().ok()??;
    sans.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    })
}

/// The identifier of the key that a certificate has.
pub(crate) fn subject_key_id<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    })
}

/// The identifier of the key that signed a certificate.
pub(crate) fn authority_key_id<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    })
}
