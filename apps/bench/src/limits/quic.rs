//! QUIC endpoints with mutual TLS, as bare as they can be: what `mesh` adds is not in them.

use super::lossy::Lossy;
use anyhow::Context;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// The name in the certificate.
const NAME: &str = "localhost";
/// Streams at the same time: just above what is in flight, since quinn keeps state for each that is allowed.
const STREAMS: u32 = 256;

/// One certificate, which everybody has and trusts.
#[derive(Debug)]
pub(super) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Identity {
    /// A new one.
    pub(super) fn new() -> anyhow::Result<Self> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([NAME.to_owned()])?;
        Ok(Self { certificate: cert.der().clone(), key: signing_key.serialize_der().into() })
    }

    /// An endpoint that dials and listens, on a port of its own.
    pub(super) fn endpoint(&self) -> anyhow::Result<Endpoint> {
        Ok(self.lossy_endpoint()?.0)
    }

    /// The same, and its socket, which can be told to lose packets.
    pub(super) fn lossy_endpoint(&self) -> anyhow::Result<(Endpoint, Arc<Lossy>)> {
        let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).context("no free port")?;
        let (config, server, socket) = (EndpointConfig::default(), Some(self.server()?), Lossy::new(socket)?);
        let runtime = Arc::new(TokioRuntime);
        let mut endpoint = Endpoint::new_with_abstract_socket(config, server, socket.clone(), runtime)?;
        endpoint.set_default_client_config(self.client()?);
        Ok((endpoint, socket))
    }

    fn roots(&self) -> anyhow::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        Ok(roots)
    }

    fn own(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (vec![self.certificate.clone()], PrivateKeyDer::Pkcs8(self.key.clone_key()))
    }

    fn server(&self) -> anyhow::Result<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), provider.clone())
                .build()?;
        let (chain, key) = self.own();
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        config.transport_config(Arc::new(transport()));
        Ok(config)
    }

    fn client(&self) -> anyhow::Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (chain, key) = self.own();
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain, key)?;
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(Arc::new(transport()));
        Ok(config)
    }
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS))
        .keep_alive_interval(Some(Duration::from_secs(1)));
    config
}

/// Dials.
pub(super) async fn dial(endpoint: &Endpoint, to: SocketAddr) -> anyhow::Result<Connection> {
    Ok(endpoint.connect(to, NAME)?.await?)
}
