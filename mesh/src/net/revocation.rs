//! Revocation lists: read, and taken only from an authority that is trusted.

use super::error::NetError;
use super::files::fault;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use std::collections::BTreeMap;
use std::path::Path;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// The lists in one file.
#[derive(Clone, Default)]
pub(super) struct Revocations {
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    /// The highest number among them.
    pub(super) number: Option<String>,
}

impl Revocations {
    /// The lists in `pem` that one of `authorities` signed. One of an authority that is not trusted (any more) says
    /// nothing about anybody who could get in, and is left out.
    ///
    /// # Errors
    /// There is none, or one that a trusted authority is named in and did not sign.
    pub(super) fn parse(path: &Path, pem: &[u8], authorities: &[CertificateDer<'_>]) -> Result<Self, NetError> {
        let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
        let found = found.map_err(|problem| fault(path, &format!("{problem}: {REMEDY}")))?;
        if found.is_empty() {
            return Err(fault(path, &format!("no revocation list in PEM: {REMEDY}")));
        }
        let authorities: Vec<_> =
            authorities.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1)).collect();
        let (mut newest, mut highest) = (BTreeMap::new(), None);
        for (at, der) in found.iter().enumerate() {
            let (_, list) = CertificateRevocationList::from_der(der)
                .map_err(|_| fault(path, &format!("a malformed revocation list: {REMEDY}")))?;
            let mut issuers = authorities
                .iter()
                .filter(|authority| authority.subject().as_raw() == list.issuer().as_raw())
                .peekable();
            if issuers.peek().is_none() {
                tracing::debug!(path = %path.display(), issuer = %list.issuer(), "the list of an authority that is not trusted is left out");
                continue;
            }
            let Some(issuer) = issuers.find(|authority| list.verify_signature(authority.public_key()).is_ok()) else {
                let problem =
                    format!("a revocation list that its authority, {}, did not sign: {REMEDY}", list.issuer());
                return Err(fault(path, &problem));
            };
            let number = list.crl_number().cloned();
            highest = highest.max(number.clone());
            // Verifiers look at the first list of an authority: that must be its newest.
            let known = newest.entry(issuer.public_key().raw.to_vec()).or_insert((number.clone(), at));
            if known.0 < number {
                *known = (number, at);
            }
        }
        let lists: Vec<_> = newest.values().map(|(_, at)| found[*at].clone()).collect();
        if lists.is_empty() {
            return Err(fault(path, &format!("none of its revocation lists is of a trusted authority: {REMEDY}")));
        }
        Ok(Self { lists, number: highest.map(|number| number.to_string()) })
    }
}

const REMEDY: &str = "make one with `lockstep certs crl`";
