//! What certificate somebody presents, whoever they are: for operators who look, never for links.

use super::dial::resolve;
use super::error::NetError;
use super::{LinkKind, tls};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, VarInt};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// How long one address is given.
const PATIENCE: Duration = Duration::from_secs(5);

/// The certificates, in DER, the leaf first, that the part at `target` (HOST:PORT) presents in a TLS handshake over QUIC,
/// and the address where it did. Trusts nobody and shows no certificate: the other end then refuses us, after it has
/// shown its own. That it holds the key has been verified.
///
/// # Errors
/// A name that cannot be resolved, and that nobody there shows a certificate.
pub async fn presented_certificates(target: &str) -> Result<(SocketAddr, Vec<CertificateDer<'static>>), NetError> {
    let mut problem = "it has no address".to_owned();
    for address in resolve(target).await? {
        match probe(address).await {
            Ok(chain) => return Ok((address, chain)),
            Err(failure) => problem = format!("{address}: {failure}"),
        }
    }
    Err(NetError::Unreachable { target: target.to_owned(), problem })
}

async fn probe(address: SocketAddr) -> Result<Vec<CertificateDer<'static>>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let recorder = Arc::new(Recorder { provider: provider.clone(), seen: Mutex::default() });
    let shown = |problem: &dyn std::fmt::Display| problem.to_string();
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|problem| shown(&problem))?
        // It believes nobody: it only writes down who is there, and nothing is ever said over the connection.
        .dangerous()
        .with_custom_certificate_verifier(recorder.clone())
        .with_no_client_auth();
    config.alpn_protocols = LinkKind::ALL.map(|kind| kind.alpn().to_vec()).into();
    config.resumption = Resumption::disabled();
    let config = QuicClientConfig::try_from(config).map_err(|problem| shown(&tls::unusable(problem)))?;
    let ours: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint = Endpoint::client(ours).map_err(|problem| shown(&problem))?;
    let connecting = endpoint.connect_with(ClientConfig::new(Arc::new(config)), address, "inspect.lockstep");
    let connecting = connecting.map_err(|problem| shown(&problem))?;
    let outcome = timeout(PATIENCE, connecting).await;
    endpoint.close(VarInt::from_u32(0), b"");
    let chain = std::mem::take(&mut *recorder.seen.lock().unwrap_or_else(PoisonError::into_inner));
    match outcome {
        _ if !chain.is_empty() => Ok(chain),
        Ok(Ok(_)) => Err("it showed no certificate".to_owned()),
        Ok(Err(problem)) => Err(problem.to_string()),
        Err(_) => Err(format!("no handshake within {} s", PATIENCE.as_secs())),
    }
}

/// Writes down what is presented, once the other end has proved to hold its key.
#[derive(Debug)]
struct Recorder {
    provider: Arc<CryptoProvider>,
    seen: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(end_entity).chain(intermediates).map(|der| der.clone().into_owned());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = chain.collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 over QUIC".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms);
        if verified.is_err() {
            // Somebody else's certificate.
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        verified
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
