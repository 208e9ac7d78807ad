//! What a certificate says, as plain data. Read without verifying anything.

use crate::clock::Moment;
use crate::leaf::Kind;
use aws_lc_rs::digest;
use mesh::names::{Identity, parse_cluster_uri};
use serde::Serialize;
use std::net::IpAddr;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// What it is for: `ca`, `tls`, `signing` or `other`.
    pub kind: &'static str,
    /// The cluster that its SPIFFE name names.
    pub cluster: Option<String>,
    /// The role that its SPIFFE name names.
    pub role: Option<String>,
    /// The id that its SPIFFE name names.
    pub id: Option<String>,
    /// Subject, as a distinguished name.
    pub subject: String,
    /// Issuer, as a distinguished name.
    pub issuer: String,
    /// Serial number, hexadecimal without separators and leading zeros.
    pub serial: String,
    /// Valid from.
    pub not_before: Moment,
    /// Valid until.
    pub not_after: Moment,
    /// Algorithm of its key.
    pub key: String,
    /// URIs among the alternative names.
    pub uris: Vec<String>,
    /// DNS names among the alternative names.
    pub dns_names: Vec<String>,
    /// Addresses among the alternative names.
    pub ip_addresses: Vec<IpAddr>,
    /// Whether it may issue certificates.
    pub ca: bool,
    /// How many authorities may be below it.
    pub path_len: Option<u32>,
    /// What its key may do.
    pub key_usage: Vec<&'static str>,
    /// What it may be used for: short names as OpenSSL has them, otherwise the object identifier.
    pub extended_key_usage: Vec<String>,
    /// Identifier of its key, hexadecimal.
    pub subject_key_id: Option<String>,
    /// Identifier of the key that signed it, hexadecimal.
    pub authority_key_id: Option<String>,
    /// SHA-256 of the certificate, hexadecimal.
    pub sha256: String,
    /// Who it names, if it names a part of a cluster.
    #[serde(skip)]
    pub(crate) identity: Option<Identity>,
    /// The trust domain of its SPIFFE name.
    #[serde(skip)]
    pub(crate) trust_domain: Option<String>,
    /// The bits of its public key.
    #[serde(skip)]
    pub(crate) public_key: Vec<u8>,
}

impl Facts {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(der: &[u8]) -> Result<Self, &'static str> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| "a malformed certificate")?;
        if !rest.is_empty() {
            return Err("a malformed certificate: something follows it");
        }
        let mut facts = Self {
            kind: "other",
            cluster: None,
            role: None,
            id: None,
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: crate::leaf::normal_serial(&hex(certificate.raw_serial())).unwrap_or_default(),
            not_before: Moment(certificate.validity().not_before.timestamp()),
            not_after: Moment(certificate.validity().not_after.timestamp()),
            key: key_name(&certificate),
            uris: Vec::new(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            ca: false,
            path_len: None,
            key_usage: Vec::new(),
            extended_key_usage: Vec::new(),
            subject_key_id: None,
            authority_key_id: None,
            sha256: hex(digest::digest(&digest::SHA256, der).as_ref()),
            identity: None,
            trust_domain: None,
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
        };
        for extension in certificate.extensions() {
            facts.take(extension.parsed_extension());
        }
        facts.name();
        Ok(facts)
    }

    fn take(&mut self, extension: &ParsedExtension<'_>) {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => {
                names.general_names.iter().for_each(|name| self.take_name(name));
            }
            ParsedExtension::BasicConstraints(constraints) => {
                (self.ca, self.path_len) = (constraints.ca, constraints.path_len_constraint);
            }
            ParsedExtension::KeyUsage(usage) => {
                let names = [
                    (usage.digital_signature(), "digitalSignature"),
                    (usage.non_repudiation(), "nonRepudiation"),
                    (usage.key_encipherment(), "keyEncipherment"),
                    (usage.data_encipherment(), "dataEncipherment"),
                    (usage.key_agreement(), "keyAgreement"),
                    (usage.key_cert_sign(), "keyCertSign"),
                    (usage.crl_sign(), "cRLSign"),
                ];
                self.key_usage = names.into_iter().filter_map(|(is_set, name)| is_set.then_some(name)).collect();
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                let names = [
                    (usage.any, "anyExtendedKeyUsage"),
                    (usage.client_auth, "clientAuth"),
                    (usage.server_auth, "serverAuth"),
                    (usage.code_signing, "codeSigning"),
                    (usage.email_protection, "emailProtection"),
                    (usage.time_stamping, "timeStamping"),
                    (usage.ocsp_signing, "OCSPSigning"),
                ];
                let known = names.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name.to_owned());
                self.extended_key_usage =
                    known.chain(usage.other.iter().map(x509_parser::oid_registry::Oid::to_id_string)).collect();
            }
            ParsedExtension::SubjectKeyIdentifier(id) => self.subject_key_id = Some(hex(id.0)),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.authority_key_id = id.key_identifier.as_ref().map(|id| hex(id.0));
            }
            _ => {}
        }
    }

    fn take_name(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                self.ip_addresses.extend(four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok());
            }
            _ => {}
        }
    }

    /// Finds out what it is from its names and purposes.
    fn name(&mut self) {
        let spiffe = self.uris.iter().find(|uri| uri.starts_with("spiffe://"));
        if self.ca {
            self.kind = "ca";
            if let Some((trust_domain, cluster)) = spiffe.and_then(|uri| parse_cluster_uri(uri).ok()) {
                (self.trust_domain, self.cluster) = (Some(trust_domain), Some(cluster));
            }
        } else if let Some((trust_domain, who)) = spiffe.and_then(|uri| Identity::from_uri(uri).ok()) {
            self.cluster = Some(who.cluster.clone());
            (self.role, self.id) = (Some(who.role.to_string()), Some(who.id.clone()));
            (self.trust_domain, self.identity) = (Some(trust_domain), Some(who));
            let is_for = |purpose: &str| self.extended_key_usage.iter().any(|usage| usage == purpose);
            if is_for("clientAuth") {
                self.kind = Kind::Tls.as_str();
            } else if is_for(crate::leaf::DOCUMENT_SIGNING_TEXT) {
                self.kind = Kind::Signing.as_str();
            }
        }
    }
}

fn key_name(certificate: &X509Certificate<'_>) -> String {
    let key = certificate.public_key();
    match (key.algorithm.algorithm.to_id_string().as_str(), key.parsed()) {
        ("1.3.101.112", _) => "Ed25519".to_owned(),
        (_, Ok(PublicKey::EC(point))) => format!("ECDSA P-{}", point.key_size()),
        (_, Ok(PublicKey::RSA(rsa))) => format!("RSA {}", rsa.key_size()),
        (algorithm, _) => algorithm.to_owned(),
    }
}

/// Hexadecimal in lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes that hexadecimal digits stand for; colons and spaces between them do not matter.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|c| !matches!(c, ':' | ' '))
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits?;
    (!digits.is_empty() && digits.len() % 2 == 0).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
