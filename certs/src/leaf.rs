//! One leaf: signed, read back, judged.

use crate::authority::{Authority, BACKDATE, Signer, distinguished_name, first_certificate};
use crate::clock::Moment;
use crate::error::CertsError;
use crate::facts::{Facts, hex};
use crate::files;
use crate::pem::pem;
use mesh::names::Identity;
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    SanType, SerialNumber,
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// How long a leaf lives, unless told otherwise.
pub(crate) const LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);

/// id-kp-documentSigning (RFC 9336).
const DOCUMENT_SIGNING: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 36];
/// The same as text.
pub(crate) const DOCUMENT_SIGNING_TEXT: &str = "1.3.6.1.5.5.7.3.36";

/// What the key of a leaf is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Links: TLS, as a client and, where the role accepts links, as a server.
    Tls,
    /// Signatures under requests and replies. Its one purpose, id-kp-documentSigning (RFC 9336), is none of TLS, so
    /// that no link can be opened with it.
    Signing,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Tls, Self::Signing];

    /// Its name in records and listings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Signing => "signing",
        }
    }

    /// The file names of the certificate and of its key.
    pub(crate) const fn files(self) -> (&'static str, &'static str) {
        match self {
            Self::Tls => ("tls.crt", "tls.key"),
            Self::Signing => ("signing.crt", "signing.key"),
        }
    }

    fn purposes(self, who: &Identity) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Self::Tls if who.role.accepts_links() => {
                vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth]
            }
            Self::Tls => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Self::Signing => vec![ExtendedKeyUsagePurpose::Other(DOCUMENT_SIGNING.to_vec())],
        }
    }

    fn new_key(self) -> Result<KeyPair, CertsError> {
        Ok(KeyPair::generate_for(match self {
            Self::Tls => &PKCS_ECDSA_P256_SHA256,
            Self::Signing => &PKCS_ED25519,
        })?)
    }
}

/// One more name in a certificate, beside the two that every leaf has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum San {
    /// A DNS name.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl FromStr for San {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() > 253 || !text.split('.').all(is_label) {
            return Err(format!("{text} is neither an address nor a DNS name"));
        }
        if Identity::claims_dns_name(&text.to_ascii_lowercase()) {
            return Err(format!("{text} ends in .lockstep: such names come from the role and the id alone"));
        }
        Ok(Self::Dns(text.to_owned()))
    }
}

/// What a leaf is to be.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) kind: Kind,
    pub(crate) lifetime: Duration,
    pub(crate) sans: Vec<San>,
}

/// A new leaf: certificate and key in PEM.
pub(crate) struct Signed {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) facts: Facts,
}

/// Signs a leaf with a fresh key.
pub(crate) fn sign(
    authority: &Authority,
    signer: &Signer,
    who: &Identity,
    wanted: &Wanted,
    now: Moment,
) -> Result<Signed, CertsError> {
    if now >= authority.facts.not_after {
        let problem = "this authority has expired: begin anew with `lockstep certs rotate-ca start`";
        return Err(CertsError::unusable(&authority.dir, problem));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(&format!("{}-{}", who.role, who.id), &who.cluster);
    params.serial_number = Some(SerialNumber::from_slice(&files::random()?));
    params.not_before = now.minus(BACKDATE).date();
    params.not_after = now.plus(wanted.lifetime).min(authority.facts.not_after).date();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = wanted.kind.purposes(who);
    params.subject_alt_names =
        vec![SanType::URI(who.uri(&authority.trust_domain).try_into()?), SanType::DnsName(who.dns_name().try_into()?)];
    for san in &wanted.sans {
        params.subject_alt_names.push(match san {
            San::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
            San::Ip(address) => SanType::IpAddress(*address),
        });
    }
    params.use_authority_key_identifier_extension = true;
    let key = wanted.kind.new_key()?;
    let certificate = params.signed_by(&key, signer)?;
    let facts = Facts::of(certificate.der()).map_err(|problem| CertsError::unusable(&authority.dir, problem))?;
    Ok(Signed { certificate: certificate.pem(), key: private_key_pem(&key), facts })
}

/// A key in PEM. An ed25519 key is rewritten from PKCS#8 version 2, which has the public key as well and which OpenSSL
/// before 3.2 cannot read, to version 1 (RFC 8410, section 7).
fn private_key_pem(key: &KeyPair) -> String {
    const HEAD: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    let der = key.serialized_der();
    match der.get(HEAD.len()..HEAD.len() + 32) {
        Some(seed) if key.is_compatible(&PKCS_ED25519) => pem("PRIVATE KEY", &[&HEAD[..], seed].concat()),
        _ => key.serialize_pem(),
    }
}

/// How a leaf is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is good for at least a third of its life.
    Good,
    /// It has less than a third of its life left, lacks its key, or no authority here knows it.
    Due,
    /// Nobody takes it any more.
    Expired,
    /// It was revoked.
    Revoked,
}

impl State {
    /// Its name in listings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Due => "due",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }

    /// How a certificate with this validity is at `now`, all else being well.
    pub(crate) fn by_age(not_before: Moment, not_after: Moment, now: Moment) -> Self {
        let (life, left) = (not_after.since(not_before), not_after.since(now));
        if now > not_after {
            Self::Expired
        } else if left <= life / 3 {
            Self::Due
        } else {
            Self::Good
        }
    }
}

/// A leaf as it lies on the disk.
pub(crate) struct OnDisk {
    pub(crate) facts: Facts,
    /// Whether the key is there and is that of the certificate.
    pub(crate) has_key: bool,
}

impl OnDisk {
    /// Reads the leaf of `who` in `dir`, if there is one. It must name them.
    pub(crate) fn read(dir: &Path, who: &Identity, kind: Kind) -> Result<Option<Self>, CertsError> {
        let (certificate, key) = (dir.join(kind.files().0), dir.join(kind.files().1));
        if !certificate.exists() {
            return Ok(None);
        }
        let has_key = |facts: &Facts| -> Result<bool, CertsError> {
            if !key.exists() {
                return Ok(false);
            }
            let secret = zeroize::Zeroizing::new(files::read_secret(&key)?);
            Ok(KeyPair::from_pem(&secret).is_ok_and(|key| *key.public_key_raw() == *facts.public_key))
        };
        let facts = first_certificate(&certificate, &files::read(&certificate)?)?;
        let facts = Facts::of(&facts)
            .map_err(|problem| CertsError::unusable(&certificate, format!("{problem}: remove it, issue it again")))?;
        if facts.identity.as_ref() != Some(who) {
            let named = facts.identity.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
            let problem = format!("names {named}, not {who}: it was put here by somebody else, move it away");
            return Err(CertsError::unusable(certificate, problem));
        }
        Ok(Some(Self { has_key: has_key(&facts)?, facts }))
    }

    /// Judges it.
    pub(crate) fn state(&self, authorities: &[Authority], is_revoked: bool, now: Moment) -> State {
        let known = authorities.iter().any(|authority| authority.issued(&self.facts));
        match State::by_age(self.facts.not_before, self.facts.not_after, now) {
            _ if is_revoked => State::Revoked,
            State::Good if !known || !self.has_key => State::Due,
            state => state,
        }
    }

    /// The names that it has beside those of its role and id.
    pub(crate) fn sans(&self) -> Vec<San> {
        let dns = self.facts.dns_names.iter().filter(|name| !Identity::claims_dns_name(name)).cloned().map(San::Dns);
        dns.chain(self.facts.ip_addresses.iter().copied().map(San::Ip)).collect()
    }

    /// How long a successor is to live: as long, unless the end of its authority cut it short.
    pub(crate) fn lifetime(&self, authorities: &[Authority]) -> Duration {
        let cut = authorities.iter().any(|authority| authority.facts.not_after == self.facts.not_after);
        let life = self.facts.not_after.since(self.facts.not_before).saturating_sub(BACKDATE);
        if cut || life.is_zero() { LIFETIME } else { life }
    }
}

/// A serial number as people may write it, made comparable: colons, case and leading zeros do not matter.
pub(crate) fn normal_serial(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | ' ')).collect();
    let digits = if digits.len().is_multiple_of(2) { digits } else { format!("0{digits}") };
    let bytes = crate::facts::unhex(&digits)?;
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    Some(hex(&bytes[first..]))
}
