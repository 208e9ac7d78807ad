//! Doors for the fuzzer: what is private here and reads what somebody else wrote.

use super::error::RefusalReason;
use super::identity::read_names;
use super::refusal::{close_code, printable, reason_of_alert, reason_of_code};
use crate::names::Identity;
use quinn::VarInt;
use rustls::pki_types::CertificateDer;

/// Who a certificate claims to be, its trust domain, and when it expires.
///
/// # Errors
/// What is wrong with it.
pub fn names(certificate: &[u8]) -> Result<(Identity, String, i64), &'static str> {
    let named = read_names(&CertificateDer::from_slice(certificate))?;
    Ok((named.identity, named.trust_domain, named.not_after))
}

/// The reason that a TLS alert and its text stand for.
#[must_use]
pub fn alert(code: u64, text: &str) -> Option<RefusalReason> {
    reason_of_alert(code, text)
}

/// The reason that an application's close code stands for.
///
/// # Panics
/// If the reason has another code.
#[must_use]
pub fn close(code: u64) -> Option<RefusalReason> {
    let code = VarInt::from_u64(code).ok()?;
    let reason = reason_of_code(code)?;
    assert_eq!(close_code(reason), code);
    Some(reason)
}

/// Foreign text as it is logged.
#[must_use]
pub fn logged(text: &[u8]) -> String {
    printable(text)
}
