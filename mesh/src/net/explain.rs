//! Webpki's verdicts in words that an operator can act on, where its own are the same for different mistakes.

use super::error::RefusalReason;
use super::identity::read_names;
use super::tls::Mismatch;
use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, Error, OtherError};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The same refusal of `leaf`, for the same reason, in clearer words.
pub(super) fn clearer(error: Error, leaf: &CertificateDer<'_>) -> Error {
    let Error::InvalidCertificate(problem) = &error else { return error };
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else { return error };
    let who = read_names(leaf).map_or_else(ToOwned::to_owned, |named| named.identity.to_string());
    let detail = match problem {
        CertificateError::UnknownIssuer | CertificateError::BadSignature | CertificateError::Other(_)
            if parsed.verify_signature(None).is_ok() =>
        {
            format!("the certificate of {who} is self-signed: no authority vouches for it")
        }
        CertificateError::UnknownIssuer => {
            format!("the certificate of {who} is signed by an authority that is not trusted here ({})", parsed.issuer())
        }
        CertificateError::BadSignature => format!(
            "the certificate of {who} is not what {} signed: it was altered, or another authority has that name",
            parsed.issuer()
        ),
        _ => return error,
    };
    let mismatch = Mismatch::new(RefusalReason::UnknownCa, detail);
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch))))
}
