//! TLS of both directions: 1.3 only, both ends authenticated by the standard webpki verifiers, no resumption (so that
//! every link is checked against today's authorities and revocations) and no 0-RTT. The verifiers here only wrap
//! those of webpki: they may refuse more, never accept more, and keep the reason.

use super::LinkKind;
use super::error::{NetError, RefusalReason};
use super::explain::clearer;
use super::identity::{Credentials, Named, read_names};
use super::link::Side;
use super::refusal::Verdict;
use crate::names::{Identity, Role};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};
use std::fmt;
use std::sync::Arc;

/// Whom we dial.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) cluster: String,
    pub(super) trust_domain: String,
    pub(super) role: Role,
    /// The only acceptable id; any if none.
    pub(super) id: Option<String>,
}

/// Names that are well-formed and verified, but not those of whom we want. Its `Debug` form is what the other end
/// gets to read, and starts with the reason's label.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) reason: RefusalReason,
    pub(super) detail: String,
}

impl Mismatch {
    pub(super) const fn new(reason: RefusalReason, detail: String) -> Self {
        Self { reason, detail }
    }
}

impl fmt::Debug for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Mismatch {}

impl Expected {
    /// Whether this is whom we dialled.
    pub(super) fn check(&self, named: &Named) -> Result<(), Mismatch> {
        let who = &named.identity;
        let reason = if who.cluster != self.cluster || named.trust_domain != self.trust_domain {
            RefusalReason::WrongCluster
        } else if who.role != self.role {
            RefusalReason::WrongRole
        } else if self.id.as_ref().is_some_and(|id| *id != who.id) {
            RefusalReason::WrongId
        } else {
            return Ok(());
        };
        Err(Mismatch::new(reason, format!("{who} answers instead of {self}")))
    }

    /// The DNS name that webpki verifies: the expected one or, when any id will do, the certificate's own if it is
    /// of the expected role and cluster. Otherwise one that nobody has, so that webpki says what else is wrong first.
    fn server_name(&self, certificate: &CertificateDer<'_>) -> Result<ServerName<'static>, Error> {
        let name = match &self.id {
            Some(id) => Identity::new(&self.cluster, self.role, id).map(|who| who.dns_name()).ok(),
            None => read_names(certificate)
                .ok()
                .filter(|named| self.check(named).is_ok())
                .map(|named| named.identity.dns_name()),
        };
        ServerName::try_from(name.unwrap_or_else(|| self.any_name())).map_err(|_| Error::UnsupportedNameType)
    }

    /// `<role>.<cluster>.lockstep`: what the ClientHello asks for when any id will do. No certificate has it.
    fn any_name(&self) -> String {
        format!("{}.{}.lockstep", self.role, self.cluster)
    }

    /// What the ClientHello asks for.
    pub(super) fn asked_name(&self) -> Result<String, NetError> {
        match &self.id {
            Some(id) => Ok(Identity::new(&self.cluster, self.role, id)?.dns_name()),
            None => Ok(self.any_name()),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}.{}.lockstep", self.role, self.id.as_deref().unwrap_or("*"), self.cluster)
    }
}

/// The verifier of one dialled link.
#[derive(Debug)]
struct AcceptorVerifier {
    webpki: Arc<WebPkiServerVerifier>,
    expected: Expected,
    verdict: Arc<Verdict>,
}

impl ServerCertVerifier for AcceptorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let named = read_names(end_entity);
        self.verdict.claims(named.as_ref().ok().map(|named| named.identity.clone()));
        let name = self.expected.server_name(end_entity)?;
        let verified = self.webpki.verify_server_cert(end_entity, intermediates, &name, ocsp_response, now);
        let verified = verified.map_err(|error| clearer(error, end_entity));
        let mismatch = match (&verified, named) {
            (Ok(_) | Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })), Ok(named)) => {
                self.expected.check(&named).err()
            }
            (Ok(_), Err(problem)) => Some(Mismatch::new(RefusalReason::WrongId, problem.to_owned())),
            _ => None,
        };
        let verified = match mismatch {
            Some(mismatch) => Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch))))),
            None => verified,
        };
        verified.inspect_err(|error| self.verdict.refuse(error))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// The verifier of one accepted link. Who may dial which kind of link is decided after the handshake, when it can be
/// said with a readable reason.
#[derive(Debug)]
struct DiallerVerifier {
    webpki: Arc<dyn ClientCertVerifier>,
    verdict: Arc<Verdict>,
}

impl ClientCertVerifier for DiallerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verdict.claims(read_names(end_entity).ok().map(|named| named.identity));
        let verified = self.webpki.verify_client_cert(end_entity, intermediates, now);
        let verified = verified.map_err(|error| clearer(error, end_entity));
        verified.inspect_err(|error| self.verdict.refuse(error))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Shows our certificate, and keeps what kinds and versions of links the dialler speaks: if none of them is ours, TLS says
/// only that.
#[derive(Debug)]
struct Overhearing {
    certified: Arc<SingleCertAndKey>,
    verdict: Arc<Verdict>,
}

impl ResolvesServerCert for Overhearing {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.verdict.offers(hello.alpn().into_iter().flatten());
        self.certified.resolve(hello)
    }
}

/// Makes the TLS configuration of each handshake from one set of credentials.
pub(super) struct Tls {
    pub(super) credentials: Credentials,
    acceptors: Arc<WebPkiServerVerifier>,
    diallers: Arc<dyn ClientCertVerifier>,
}

impl Tls {
    pub(super) fn new(credentials: Credentials) -> Result<Self, NetError> {
        let acceptors = credentials.acceptors_verifier()?;
        let diallers = credentials.diallers_verifier()?;
        Ok(Self { credentials, acceptors, diallers })
    }

    /// Whether the certificate at the other end of a live link would be accepted today.
    pub(super) fn judge(&self, side: Side, who: &Identity, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        let (leaf, rest) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        let now = UnixTime::now();
        let verified = match side {
            Side::Dialled => {
                let name = ServerName::try_from(who.dns_name()).map_err(|_| Error::UnsupportedNameType)?;
                self.acceptors.verify_server_cert(leaf, rest, &name, &[], now).map(drop)
            }
            Side::Accepted => self.diallers.verify_client_cert(leaf, rest, now).map(drop),
        };
        verified.map_err(|error| clearer(error, leaf))
    }

    /// For one link that we dial.
    pub(super) fn dialling(
        &self,
        kind: LinkKind,
        expected: Expected,
        verdict: Arc<Verdict>,
    ) -> Result<QuicClientConfig, NetError> {
        let alpns = (self.credentials.speaks)(kind);
        verdict.speaks(&alpns);
        let verifier = AcceptorVerifier { webpki: self.acceptors.clone(), expected, verdict };
        let mut config = rustls::ClientConfig::builder_with_provider(self.credentials.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            // What is called dangerous is to replace the verifier; ours only wraps webpki's.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(self.credentials.certified.clone());
        config.alpn_protocols = alpns;
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        QuicClientConfig::try_from(config).map_err(unusable)
    }

    /// For one link that somebody else dials.
    pub(super) fn accepting(&self, kinds: &[LinkKind], verdict: Arc<Verdict>) -> Result<QuicServerConfig, NetError> {
        let alpns: Vec<Vec<u8>> = kinds.iter().flat_map(|kind| (self.credentials.speaks)(*kind)).collect();
        verdict.speaks(&alpns);
        let resolver = Overhearing { certified: self.credentials.certified.clone(), verdict: verdict.clone() };
        let verifier = DiallerVerifier { webpki: self.diallers.clone(), verdict };
        let mut config = rustls::ServerConfig::builder_with_provider(self.credentials.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = alpns;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        QuicServerConfig::try_from(config).map_err(unusable)
    }
}

pub(super) fn unusable(problem: impl fmt::Display) -> NetError {
    NetError::Tls(problem.to_string())
}
