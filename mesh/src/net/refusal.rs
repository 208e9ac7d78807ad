//! Why a handshake failed, in the words of `links_refused_total`: from our own verifier when it was us, from the alert
//! and the close reason when it was the other end. Failures that are no refusals (silence, lost links) have none.

use super::error::{Refusal, RefusalReason, RefusedBy};
use super::tls::Mismatch;
use crate::names::Identity;
use quinn::{ConnectionError, VarInt};
use rustls::{CertificateError, Error};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of a foreign reason that are kept.
const DETAIL_BYTES_MAX: usize = 300;
/// Foreign kinds of links that are named.
const LISTED_MAX: usize = 8;

/// Application close codes: 0 is an orderly end, these and the reason's number a refusal.
const REFUSED_CODE_BASE: u32 = 0x100;

/// What the verifier of one handshake found. Written during the handshake, read when it failed.
#[derive(Debug, Default)]
pub(super) struct Verdict(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    claims: Option<Identity>,
    refused: Option<(RefusalReason, String)>,
    /// The kinds and versions of links that we speak, and those that the other end does, as far as it said so.
    ours: String,
    theirs: Option<String>,
}

impl Verdict {
    /// Who the other end claims to be.
    pub(super) fn claims(&self, claims: Option<Identity>) {
        self.found().claims = claims;
    }

    /// Keeps why the certificate was refused.
    pub(super) fn refuse(&self, error: &Error) {
        self.found().refused = Some((reason_of(error), error.to_string()));
    }

    /// These kinds and versions of links are spoken at this end.
    pub(super) fn speaks(&self, alpns: &[Vec<u8>]) {
        self.found().ours = listed(alpns.iter().map(Vec::as_slice));
    }

    /// And these at the other one.
    pub(super) fn offers<'a>(&self, alpns: impl Iterator<Item = &'a [u8]>) {
        self.found().theirs = Some(listed(alpns));
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The refusal, if it was one, that ended the handshake with `error`.
    pub(super) fn explain(&self, error: &ConnectionError) -> Option<Refusal> {
        let found = self.found();
        let claims = found.claims.clone();
        if let Some((reason, detail)) = &found.refused {
            return Some(Refusal { reason: *reason, by: RefusedBy::Us, claims, detail: printable(detail.as_bytes()) });
        }
        let (reason, by, detail) = match error {
            ConnectionError::VersionMismatch => (RefusalReason::Version, RefusedBy::Us, printable(b"QUIC version")),
            ConnectionError::TransportError(ours) => {
                (reason_of_alert(ours.code.into(), &ours.reason)?, RefusedBy::Us, printable(ours.reason.as_bytes()))
            }
            ConnectionError::ConnectionClosed(theirs) => {
                let detail = printable(&theirs.reason);
                (reason_of_alert(theirs.error_code.into(), &detail)?, RefusedBy::Peer, detail)
            }
            ConnectionError::ApplicationClosed(theirs) => {
                (reason_of_code(theirs.error_code)?, RefusedBy::Peer, printable(&theirs.reason))
            }
            _ => return None,
        };
        let detail = match (reason, &found.theirs) {
            (RefusalReason::Version, Some(theirs)) => {
                format!("the other end speaks {theirs}, and this one {}", found.ours)
            }
            (RefusalReason::Version, None) if !found.ours.is_empty() => {
                format!("the other end does not speak {}, as this one does", found.ours)
            }
            _ => detail,
        };
        Some(Refusal { reason, by, claims, detail })
    }
}

/// Kinds and versions of links as people read them.
fn listed<'a>(alpns: impl Iterator<Item = &'a [u8]>) -> String {
    let all: Vec<String> = alpns.take(LISTED_MAX).map(printable).collect();
    let text = if all.is_empty() { "nothing of ours".to_owned() } else { all.join(", ") };
    printable(text.as_bytes())
}

/// The application close code of a refusal.
pub(super) fn close_code(reason: RefusalReason) -> VarInt {
    let number = RefusalReason::ALL.iter().position(|other| *other == reason).unwrap_or_default();
    VarInt::from_u32(REFUSED_CODE_BASE + u32::try_from(number).unwrap_or_default())
}

pub(super) fn reason_of_code(code: VarInt) -> Option<RefusalReason> {
    let number = code.into_inner().checked_sub(u64::from(REFUSED_CODE_BASE))?;
    RefusalReason::ALL.get(usize::try_from(number).ok()?).copied()
}

/// Why our verifier refused a certificate.
pub(super) fn reason_of(error: &Error) -> RefusalReason {
    let Error::InvalidCertificate(error) = error else { return RefusalReason::UnknownCa };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => RefusalReason::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => RefusalReason::NotYetValid,
        CertificateError::Revoked => RefusalReason::Revoked,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => RefusalReason::WrongId,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => RefusalReason::WrongRole,
        CertificateError::Other(other) => {
            other.0.downcast_ref::<Mismatch>().map_or(RefusalReason::UnknownCa, |mismatch| mismatch.reason)
        }
        _ => RefusalReason::UnknownCa,
    }
}

/// Why TLS failed, from its alert (RFC 8446, section 6.2) and the text that came with it. The other end's text is not
/// authenticated: it only chooses among the known labels.
pub(super) fn reason_of_alert(code: u64, text: &str) -> Option<RefusalReason> {
    // CRYPTO_ERROR codes are 0x100 plus the alert (RFC 9000, section 20.1).
    let alert = code.checked_sub(0x100).filter(|alert| *alert <= 0xff)?;
    Some(match alert {
        // bad_certificate: a name, in the words of another implementation.
        42 => RefusalReason::WrongId,
        43 => RefusalReason::WrongRole,
        44 => RefusalReason::Revoked,
        45 if text.contains("not valid yet") || text.contains("NotValidYet") => RefusalReason::NotYetValid,
        45 => RefusalReason::Expired,
        // certificate_unknown: ours carries a label.
        46 => labelled(text).unwrap_or(RefusalReason::UnknownCa),
        // unknown_ca; decrypt_error is a signature by another authority of the same name; certificate_required.
        48 | 51 | 116 => RefusalReason::UnknownCa,
        // protocol_version, no_application_protocol.
        70 | 120 => RefusalReason::Version,
        _ => return None,
    })
}

/// The first of our labels in `text`.
fn labelled(text: &str) -> Option<RefusalReason> {
    text.split(|c: char| !c.is_ascii_lowercase() && c != '_')
        .find_map(|word| RefusalReason::ALL.into_iter().find(|reason| reason.as_str() == word))
}

/// Foreign text for logs: bounded, no control characters.
pub(super) fn printable(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(DETAIL_BYTES_MAX)];
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// How a link ended, for people.
pub(super) fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(theirs) => format!("closed by the other end: {}", printable(&theirs.reason)),
        ConnectionError::ConnectionClosed(theirs) => format!("aborted by the other end: {}", printable(&theirs.reason)),
        ConnectionError::TimedOut => "the other end fell silent".to_owned(),
        ConnectionError::Reset => "the other end does not know this link: it was restarted".to_owned(),
        ConnectionError::LocallyClosed => "closed by this end".to_owned(),
        other => printable(other.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_its_close_code_and_its_label() {
        for reason in RefusalReason::ALL {
            assert_eq!(reason_of_code(close_code(reason)), Some(reason));
            assert_eq!(labelled(&format!("invalid peer certificate: Other(OtherError({reason}: x))")), Some(reason));
        }
        assert_eq!(reason_of_code(VarInt::from_u32(0)), None);
        assert_eq!(reason_of_code(VarInt::MAX), None);
    }

    #[test]
    fn a_version_that_is_refused_is_named_with_ours() {
        let verdict = Verdict::default();
        verdict.speaks(&[b"lockstep-peer/3".to_vec(), b"lockstep-admin/3".to_vec()]);
        verdict.offers([&b"lockstep-peer/99"[..], b"x\ny"].into_iter());
        let refusal = verdict.explain(&ConnectionError::VersionMismatch).expect("it is a refusal");
        assert_eq!((refusal.reason, refusal.by), (RefusalReason::Version, RefusedBy::Us));
        let words = "the other end speaks lockstep-peer/99, x y, and this one lockstep-peer/3, lockstep-admin/3";
        assert_eq!(refusal.detail, words);
    }

    #[test]
    fn foreign_text_cannot_forge_lines_or_fill_the_log() {
        let text = printable("a\nb\x1b[31m".repeat(1000).as_bytes());
        assert!(text.len() <= DETAIL_BYTES_MAX * 3 && !text.contains(['\n', '\x1b']));
    }

    #[test]
    fn an_alert_that_is_no_refusal_is_none() {
        assert_eq!(reason_of_alert(0x100 + 10, "unexpected message"), None);
        assert_eq!(reason_of_alert(2, "CONNECTION_REFUSED"), None);
        assert_eq!(reason_of_alert(0x100 + 45, "certificate not valid yet"), Some(RefusalReason::NotYetValid));
    }
}
