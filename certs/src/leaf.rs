//! One leaf: signed, read back, judged.

use crate::authority::{Authority, BACKDATE, authority_key_id, distinguished_name, parse, parse_pem, uri_of};
use crate::error::CertsError;
use crate::files;
use crate::pem::pem;
use mesh::names::Identity;
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    SanType, SerialNumber,
};
use std::path::Path;
use time::{Duration, OffsetDateTime};

/// How long a leaf lives.
const LIFETIME: Duration = Duration::days(90);

/// What the key of a leaf is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Links: TLS, as a client and, where the role accepts links, as a server.
    Tls,
    /// Signatures under requests and replies. Its one purpose, id-kp-documentSigning (RFC 9336), is none of TLS, so
    /// that no link can be opened with it.
    Signing,
}

impl Kind {
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

/// id-kp-documentSigning (RFC 9336).
const DOCUMENT_SIGNING: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 36];

/// A new leaf in PEM: certificate and key.
pub(crate) struct Signed {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Signs a leaf with a fresh key.
pub(crate) fn sign(authority: &Authority, who: &Identity, kind: Kind) -> Result<Signed, CertsError> {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(&format!("{}-{}", who.role, who.id), &who.cluster);
    params.serial_number = Some(SerialNumber::from_slice(&files::random()?));
    params.not_before = now - BACKDATE;
    params.not_after = (now + LIFETIME).min(authority.not_after);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = kind.purposes(who);
    params.subject_alt_names =
        vec![SanType::URI(who.uri(&authority.trust_domain).try_into()?), SanType::DnsName(who.dns_name().try_into()?)];
    params.use_authority_key_identifier_extension = true;
    let key = kind.new_key()?;
    let certificate = params.signed_by(&key, &authority.issuer)?;
    Ok(Signed { certificate: certificate.pem(), key: private_key_pem(&key) })
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

/// What is to be done about a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It is good for at least a third of its life.
    Good,
    /// It has less than a third of its life left, lacks its key, or no authority here knows it.
    Due,
}

/// Judges the leaf of `who` in the files `certificate` and `key`. `authorities`: the key identifiers of ours.
pub(crate) fn judge(
    certificate: &Path,
    key: &Path,
    who: &Identity,
    authorities: &[Vec<u8>],
) -> Result<State, CertsError> {
    if !certificate.exists() || !key.exists() {
        return Ok(State::Due);
    }
    let secret = files::read_secret(key)?;
    let text = files::read(certificate)?;
    let pem = parse_pem(certificate, &text)?;
    let leaf = parse(certificate, &pem)?;
    let named = uri_of(&leaf).and_then(|uri| Identity::from_uri(uri).ok());
    if named.as_ref().is_none_or(|(_, named)| named != who) {
        let named = named.map_or_else(|| "nobody".to_owned(), |(_, named)| named.to_string());
        let problem = format!("names {named}, not {who}: it was put here by somebody else, move it away");
        return Err(CertsError::unusable(certificate, problem));
    }
    let fits =
        KeyPair::from_pem(&secret).is_ok_and(|key| *key.public_key_raw() == *leaf.public_key().subject_public_key.data);
    let ours = authority_key_id(&leaf).is_some_and(|id| authorities.iter().any(|other| other == id));
    let (from, until) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    let left = until.saturating_sub(OffsetDateTime::now_utc().unix_timestamp());
    let fresh = left > until.saturating_sub(from) / 3;
    Ok(if fits && ours && fresh { State::Good } else { State::Due })
}
