//! Links that no honest SMaRtClient would ask for, made without the library that would refuse to.

use super::behaviour::Behaviour;
use super::malice::Malice;
use anyhow::Context;
use mesh::names::{Identity, Role};
use mesh::net::LinkKind;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, TransportConfig};
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// For one handshake, and for the word of the other end after it.
const PATIENCE: Duration = Duration::from_secs(3);
/// Before lost links are made again.
const PAUSE: Duration = Duration::from_millis(500);

/// What is claimed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Claim {
    /// To speak this, with the SMaRtClient's own certificate.
    Kind(&'static [u8]),
    /// To be a server, with a certificate that nobody else signed.
    Server,
}

impl Claim {
    pub(super) const fn kind(kind: LinkKind) -> Self {
        Self::Kind(kind.alpn())
    }
}

/// See the module.
pub(super) struct Stranger {
    malice: Arc<Malice>,
    endpoint: Endpoint,
    provider: Arc<CryptoProvider>,
    own: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
    made: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
}

impl Stranger {
    /// Loads the SMaRtClient's certificate, and makes one that says more.
    pub(super) fn new(malice: &Arc<Malice>) -> anyhow::Result<Self> {
        let pki = &malice.options.pki;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(pki.join("tls.crt"))?.collect();
        let key = PrivateKeyDer::from_pem_file(pki.join("tls.key")).context("tls.key")?;
        let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let (own, made) = ((chain?, key), pretend(&malice.options.cluster)?);
        Ok(Self { malice: malice.clone(), endpoint, provider: Arc::new(aws_lc_rs::default_provider()), own, made })
    }

    /// Asks every server to be let in, and says something before the answer is there.
    pub(super) async fn knock(&self, behaviour: Behaviour, claim: Claim) {
        for (id, address) in &self.malice.options.servers {
            self.malice.tally.did(behaviour);
            let word = match self.dial(claim, *id, address).await {
                Err(error) => refusal(&error.to_string()),
                Ok(connection) => {
                    // The other end's checks come after the handshake: whoever is quick can say something meanwhile.
                    if let Ok(mut stream) = connection.open_uni().await {
                        let _ = stream.write_all(&self.malice.noise(300)).await;
                        let _ = stream.finish();
                    }
                    match timeout(PATIENCE, connection.accept_uni()).await {
                        Ok(Ok(_)) => "let in".to_owned(),
                        Ok(Err(error)) => refusal(&closed(&error)),
                        Err(_) => "silence".to_owned(),
                    }
                }
            };
            self.malice.tally.heard(behaviour, &word);
        }
    }

    /// Keeps so many links to each server, each with so many streams that are begun and never ended.
    pub(super) async fn hold(&self, behaviour: Behaviour, links: usize, streams: usize) {
        loop {
            let mut held = Vec::new();
            for (id, address) in
                self.malice.options.servers.iter().cycle().take(links * self.malice.options.servers.len())
            {
                match self.dial(Claim::kind(LinkKind::Submit), *id, address).await {
                    Ok(connection) => held.push(connection),
                    Err(error) => self.malice.tally.heard(behaviour, &refusal(&error.to_string())),
                }
            }
            let mut open = Vec::new();
            for connection in &held {
                for _ in 0..streams {
                    let Ok(Ok((mut send, receive))) = timeout(PATIENCE, connection.open_bi()).await else { break };
                    if send.write_all(b"half a request").await.is_ok() {
                        self.malice.tally.did(behaviour);
                        open.push((send, receive));
                    }
                }
            }
            // Until the other end has enough of one of them.
            if let Some(first) = held.first() {
                let word = refusal(&closed(&first.closed().await));
                self.malice.tally.heard(behaviour, &word);
            }
            sleep(PAUSE).await;
        }
    }

    async fn dial(&self, claim: Claim, id: u32, address: &str) -> anyhow::Result<Connection> {
        let (alpn, (chain, key)) = match claim {
            Claim::Kind(alpn) => (alpn, &self.own),
            Claim::Server => (LinkKind::Peer.alpn(), &self.made),
        };
        let mut tls = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(self.provider.clone())))
            .with_client_auth_cert(chain.clone(), key.clone_key())?;
        tls.alpn_protocols = vec![alpn.to_vec()];
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        let mut transport = TransportConfig::default();
        transport.keep_alive_interval(Some(PAUSE));
        config.transport_config(Arc::new(transport));
        let name = Identity::new(&self.malice.options.cluster, Role::Server, &id.to_string())?.dns_name();
        let connecting = self.endpoint.connect_with(config, address.parse()?, &name)?;
        match timeout(PATIENCE, connecting).await.context("silence")? {
            Ok(connection) => Ok(connection),
            Err(error) => anyhow::bail!(closed(&error)),
        }
    }
}

/// A certificate of its own making with the names of a server.
fn pretend(cluster: &str) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let who = Identity::new(cluster, Role::Server, "0")?;
    let mut params = CertificateParams::new(vec![who.dns_name()])?;
    let uri = format!("spiffe://{}/cluster/{cluster}/server/0", mesh::names::DEFAULT_TRUST_DOMAIN);
    params.subject_alt_names.push(SanType::URI(uri.try_into()?));
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
}

fn closed(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(theirs) => String::from_utf8_lossy(&theirs.reason).into_owned(),
        ConnectionError::ConnectionClosed(theirs) => {
            format!("{} {}", theirs.error_code, String::from_utf8_lossy(&theirs.reason))
        }
        other => other.to_string(),
    }
}

/// The label of the reason why a link was refused, or as much of it as says something.
fn refusal(reason: &str) -> String {
    let labels = mesh::net::RefusalReason::ALL.map(mesh::net::RefusalReason::as_str);
    let label = labels.into_iter().find(|label| reason.contains(label));
    label.map_or_else(|| reason.chars().take(60).collect(), str::to_owned)
}

/// Whoever answers will do.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
