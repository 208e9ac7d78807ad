//! Files in PEM shown and verified.

use crate::clock::Moment;
use crate::error::CertsError;
use crate::facts::Facts;
use crate::files;
use crate::leaf::State;
use crate::revocation::CrlFacts;
use mesh::names::Identity;
use pki_types::{CertificateDer, UnixTime};
use rcgen::KeyPair;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, Error, KeyUsage, anchor_from_trusted_cert};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::pem::Pem;

/// id-kp-documentSigning in DER, without tag and length.
const DOCUMENT_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 36];

/// A block of a PEM file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Block {
    /// A certificate.
    Certificate(Box<Facts>),
    /// A revocation list.
    Crl(CrlFacts),
    /// A private key, of which nothing is shown.
    PrivateKey {
        /// Whether it is under a passphrase.
        encrypted: bool,
    },
    /// Something else.
    Other {
        /// Its label.
        label: String,
    },
}

/// What is in a PEM file, in order.
///
/// # Errors
/// A file that cannot be read, has nothing in PEM, or a certificate that is malformed.
pub fn inspect(path: &Path) -> Result<Vec<Block>, CertsError> {
    let text = files::read(path)?;
    let blocks: Result<Vec<_>, &str> = Pem::iter_from_buffer(text.as_bytes())
        .map(|block| {
            let block = block.map_err(|_| "a malformed PEM block")?;
            Ok(match block.label.as_str() {
                "CERTIFICATE" => Block::Certificate(Box::new(Facts::of(&block.contents)?)),
                "X509 CRL" => Block::Crl(CrlFacts::of(&block.contents)?),
                label if label.ends_with("PRIVATE KEY") => {
                    Block::PrivateKey { encrypted: label.starts_with("ENCRYPTED") }
                }
                label => Block::Other { label: label.to_owned() },
            })
        })
        .collect();
    match blocks {
        Ok(blocks) if blocks.is_empty() => Err(CertsError::unusable(path, "nothing in PEM")),
        Ok(blocks) => Ok(blocks),
        Err(problem) => Err(CertsError::unusable(path, problem)),
    }
}

/// Whom and what to believe.
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    authorities: Vec<CertificateDer<'static>>,
    lists: Vec<(Vec<u8>, CrlFacts)>,
}

/// How a certificate fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The file.
    pub file: PathBuf,
    /// How it is; absent if it is not valid at all.
    pub state: Option<State>,
    /// What is wrong, and what to do.
    pub problems: Vec<String>,
    /// What it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Box<Facts>>,
}

impl Verifier {
    /// Trusts the authorities in file `bundle`, and heeds the revocation lists in file `crl`.
    ///
    /// # Errors
    /// A file that cannot be read, or has no authority or list in it.
    pub fn new(bundle: &Path, crl: Option<&Path>) -> Result<Self, CertsError> {
        let authorities = blocks(bundle, "CERTIFICATE")?.into_iter().map(CertificateDer::from).collect();
        let mut lists = Vec::new();
        if let Some(crl) = crl {
            for der in blocks(crl, "X509 CRL")? {
                let facts = CrlFacts::of(&der).map_err(|problem| CertsError::unusable(crl, problem))?;
                lists.push((der, facts));
            }
        }
        Ok(Self { authorities, lists })
    }

    /// Verifies the first certificate of a file: chain, validity, purpose, names, revocation, and that the key beside
    /// it (`x.key` for `x.crt`), if there is one, is its own.
    pub fn verify(&self, path: &Path, now: Moment) -> Verdict {
        let mut verdict = Verdict { file: path.to_owned(), state: None, problems: Vec::new(), certificate: None };
        let read = blocks(path, "CERTIFICATE").and_then(|chain| {
            let facts = Facts::of(&chain[0]).map_err(|problem| CertsError::unusable(path, problem))?;
            Ok((chain, facts))
        });
        let (chain, facts) = match read {
            Ok(read) => read,
            Err(problem) => {
                verdict.problems.push(problem.to_string());
                return verdict;
            }
        };
        verdict.problems.extend(names(&facts).err());
        verdict.problems.extend(self.chain(chain, &facts, now).err());
        verdict.problems.extend(key(path, &facts).err());
        if verdict.problems.is_empty() {
            verdict.state = Some(State::by_age(facts.not_before, facts.not_after, now));
        }
        verdict.certificate = Some(Box::new(facts));
        verdict
    }

    fn chain(&self, chain: Vec<Vec<u8>>, facts: &Facts, now: Moment) -> Result<(), String> {
        let mut chain = chain.into_iter().map(CertificateDer::from);
        let leaf = chain.next().ok_or("no certificate")?;
        let between: Vec<_> = chain.collect();
        let (purposes, usages): (&str, Vec<KeyUsage>) = match (facts.kind, &facts.identity) {
            ("tls", Some(who)) if who.role.accepts_links() => {
                ("both sides of TLS", vec![KeyUsage::client_auth(), KeyUsage::server_auth()])
            }
            ("tls", _) => ("the client's side of TLS", vec![KeyUsage::client_auth()]),
            ("signing", _) => ("signatures", vec![KeyUsage::required(DOCUMENT_SIGNING)]),
            ("ca", _) => return self.authority(&leaf, facts, now),
            _ => return Err(format!("it is for {:?}, neither for TLS nor for signatures", facts.extended_key_usage)),
        };
        let shown = |problem: Error| explain(&problem, facts, purposes);
        let leaf = EndEntityCert::try_from(&leaf).map_err(shown)?;
        let anchors: Result<Vec<_>, _> = self.authorities.iter().map(anchor_from_trusted_cert).collect();
        let anchors =
            anchors.map_err(|problem| format!("the bundle has a certificate that is no authority: {problem}"))?;
        let lists: Result<Vec<CertRevocationList<'_>>, _> =
            self.lists.iter().map(|(der, _)| BorrowedCertRevocationList::from_der(der).map(Into::into)).collect();
        let lists = lists.map_err(|problem| format!("the revocation list cannot be used: {problem}"))?;
        let lists: Vec<&CertRevocationList<'_>> = lists.iter().collect();
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.0).unwrap_or(0)));
        for usage in usages {
            let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
                let options = options.with_depth(RevocationCheckDepth::EndEntity);
                options.with_status_policy(UnknownStatusPolicy::Allow).build()
            });
            leaf.verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, &between, time, usage, revocation, None)
                .map_err(shown)?;
        }
        Ok(())
    }

    /// An authority is trusted when it is in the bundle, not because somebody signed it.
    fn authority(&self, der: &CertificateDer<'_>, facts: &Facts, now: Moment) -> Result<(), String> {
        if !self.authorities.iter().any(|authority| authority == der) {
            return Err("this authority is not in the bundle".to_owned());
        }
        if now > facts.not_after {
            return Err(format!("it expired on {}: `lockstep certs rotate-ca start`", facts.not_after));
        }
        if now < facts.not_before {
            return Err(format!("it is valid from {} only: compare the clocks", facts.not_before));
        }
        Ok(())
    }
}

/// Its two names must be there, once each, and agree.
fn names(facts: &Facts) -> Result<(), String> {
    if facts.kind == "ca" {
        return Ok(());
    }
    let who = facts.identity.as_ref().ok_or("it has no SPIFFE name of Lockstep")?;
    let ours: Vec<_> = facts.dns_names.iter().filter(|name| Identity::claims_dns_name(name)).collect();
    match &ours[..] {
        [name] if **name == who.dns_name() => Ok(()),
        [] => Err("it has no .lockstep name".to_owned()),
        _ => Err(format!("its .lockstep names {ours:?} contradict its SPIFFE name {who}")),
    }
}

/// The key beside it must be its own.
fn key(path: &Path, facts: &Facts) -> Result<(), String> {
    let key = path.with_extension("key");
    if key == path || !key.exists() {
        return Ok(());
    }
    let text = files::read_secret(&key).map_err(|problem| problem.to_string())?;
    if crate::passphrase::is_encrypted(&text) {
        return Ok(());
    }
    match KeyPair::from_pem(&text) {
        Ok(pair) if *pair.public_key_raw() == *facts.public_key => Ok(()),
        Ok(_) => Err(format!("{} is not its key", key.display())),
        Err(_) => Err(format!("{} has no private key in PEM", key.display())),
    }
}

fn explain(problem: &Error, facts: &Facts, purposes: &str) -> String {
    let part = facts.identity.as_ref().map(|who| format!("{}/{}", who.role, who.id)).unwrap_or_default();
    match problem {
        Error::CertExpired { .. } => {
            format!("it expired on {}: `lockstep certs renew {part}`", facts.not_after)
        }
        Error::CertNotValidYet { .. } => format!("it is valid from {} only: compare the clocks", facts.not_before),
        Error::CertRevoked => format!("it is revoked: `lockstep certs renew {part}` makes a new one"),
        Error::UnknownIssuer => format!("no trusted authority signed it (it says: {})", facts.issuer),
        Error::InvalidSignatureForPublicKey => "its signature is wrong: it was altered".to_owned(),
        Error::RequiredEkuNotFoundContext(_) => {
            format!("it is not for {purposes}, as its role asks, but for {:?}", facts.extended_key_usage)
        }
        other => other.to_string(),
    }
}

fn blocks(path: &Path, label: &str) -> Result<Vec<Vec<u8>>, CertsError> {
    let text = files::read(path)?;
    let blocks = Pem::iter_from_buffer(text.as_bytes()).filter_map(Result::ok);
    let found: Vec<_> = blocks.filter(|block| block.label == label).map(|block| block.contents).collect();
    if found.is_empty() { Err(CertsError::unusable(path, format!("no {label} in PEM"))) } else { Ok(found) }
}
