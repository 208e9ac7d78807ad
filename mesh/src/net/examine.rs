//! What is wrong with a certificate on the disk, before anybody refuses it.

use super::error::{NetError, RefusalReason};
use super::files::{Files, read};
use super::identity::{Credentials, certificates, read_names, rfc3339};
use super::refusal::reason_of;
use crate::names::Identity;
use rustls::pki_types::UnixTime;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How a certificate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everybody who trusts the same authorities accepts it.
    Good,
    /// It is accepted, and not for much longer.
    Due,
    /// It is refused, or cannot be used.
    Bad,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub standing: Standing,
    /// One word: `good`, `due`, a reason of `links_refused_total`, or what is wrong with the files.
    pub label: &'static str,
    /// The same for people.
    pub text: String,
    /// Whose certificate it is, as far as it says so.
    pub who: Option<Identity>,
}

impl Finding {
    fn bad(label: &'static str, text: impl Into<String>) -> Self {
        Self { standing: Standing::Bad, label, text: text.into(), who: None }
    }
}

/// Looks at the certificate that `files` name at the time `now` (Unix), as those would to whom it is shown. `expected`:
/// whose it must be; none: anybody's.
#[must_use]
pub fn examine(files: &Files, expected: Option<&Identity>, now: i64) -> Finding {
    let who = read(&files.certificate(), false)
        .and_then(|pem| certificates(&files.certificate(), &pem))
        .ok()
        .and_then(|chain| read_names(&chain[0]).ok())
        .map(|named| named.identity);
    let finding = match Credentials::of(files) {
        Ok(credentials) => judge(&credentials, expected, now),
        Err(error) => Finding::bad(unusable(&error), error.to_string()),
    };
    Finding { who, ..finding }
}

/// In which way files cannot be used.
fn unusable(error: &NetError) -> &'static str {
    let NetError::Credentials { problem, .. } = error else { return "unusable" };
    if problem.contains("chmod") {
        "insecure"
    } else if problem.starts_with("cannot be used with") {
        "key_mismatch"
    } else if problem.starts_with("cannot be read") {
        "unreadable"
    } else {
        "unusable"
    }
}

fn judge(credentials: &Credentials, expected: Option<&Identity>, now: i64) -> Finding {
    let who = credentials.identity();
    if let Some(expected) = expected {
        let mismatch = if who.cluster != expected.cluster {
            Some("wrong_cluster")
        } else if who.role != expected.role {
            Some("wrong_role")
        } else {
            (who.id != expected.id).then_some("wrong_id")
        };
        if let Some(label) = mismatch {
            return Finding::bad(label, format!("it is for {who}, and this is the place of {expected}"));
        }
    }
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or_default()));
    if let Err(error) = credentials.verify(at) {
        return refused(&error);
    }
    if credentials.is_revoked(at) {
        return Finding::bad(RefusalReason::Revoked.as_str(), "it is revoked");
    }
    let until = rfc3339(credentials.expires_at()).unwrap_or_default();
    let begin =
        X509Certificate::from_der(credentials.leaf()).map_or(now, |(_, leaf)| leaf.validity().not_before.timestamp());
    let (left, life) = (credentials.expires_at() - now, credentials.expires_at() - begin);
    let days = left / (24 * 3600);
    let (standing, label, text) = if left < life / 3 {
        (Standing::Due, "due", format!("valid until {until} ({days} days): less than a third of its life is left"))
    } else {
        (Standing::Good, "good", format!("valid until {until} ({days} days)"))
    };
    Finding { standing, label, text, who: None }
}

fn refused(error: &rustls::Error) -> Finding {
    let text = error.to_string();
    let label = match reason_of(error) {
        RefusalReason::UnknownCa if text.contains("is self-signed") => "self_signed",
        RefusalReason::UnknownCa if text.contains("it was altered") => "altered",
        reason => reason.as_str(),
    };
    Finding::bad(label, plain(&text))
}

/// Rustls' wrapping is not for people.
fn plain(text: &str) -> String {
    let text = text.strip_prefix("invalid peer certificate: ").unwrap_or(text);
    let inner = text.strip_prefix("Other(OtherError(").and_then(|text| text.strip_suffix("))"));
    let inner = inner.map(|text| text.split_once(": ").map_or(text, |(_, detail)| detail));
    inner.unwrap_or(text).to_owned()
}
