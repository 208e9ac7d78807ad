//! TLS with outside clients.

use super::*;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig as TlsConfig, RootCertStore, SupportedProtocolVersion};

/// An ingress that speaks TLS.
struct Outside {
    cluster: Cluster,
    dir: PathBuf,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Outside {
    async fn start() -> Self {
        let mut cluster = Cluster::start(3);
        let dir = cluster.pki.issue(Role::Client, "outside");
        let files = OutsideFiles { certificate: dir.join("tls.crt"), key: dir.join("tls.key") };
        let admin = free_tcp();
        let listen = cluster.ingress_with(admin, Some(files)).await;
        Self { cluster, dir, listen, admin }
    }

    async fn connect(&self, version: &'static SupportedProtocolVersion) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.dir.join("ca.crt")).unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = TlsConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("client-outside.test.lockstep").unwrap();
        let stream = TcpStream::connect(self.listen).await.unwrap();
        in_time(TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap()
    }

    async fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        in_time(stream.read_to_string(&mut text)).await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse::<f64>().unwrap() as u64
    }
}

#[tokio::test]
async fn clients_speak_both_versions_of_tls_and_a_half_close_is_answered_to_its_end() {
    let outside = Outside::start().await;
    for version in [&TLS12, &TLS13] {
        let mut client = outside.connect(version).await;
        client.write_all(b"one\ntwo\n").await.unwrap();
        // Its close_notify ends its side only.
        client.shutdown().await.unwrap();
        let mut answers = String::new();
        // An end without the other's close_notify would be an error.
        in_time(client.read_to_string(&mut answers)).await.unwrap();
        assert_eq!(answers, "ONE\nTWO\n", "{version:?}");
    }
    assert_eq!(outside.metric("lockstep_refused_total{reason=\"tls\"}").await, 0);
}

#[tokio::test]
async fn long_answers_leave_the_tls_layer_whole() {
    let outside = Outside::start().await;
    let mut client = outside.connect(&TLS13).await;
    let mut request = vec![b'a'; 900_000];
    request.push(b'\n');
    for _ in 0..4 {
        client.write_all(&request).await.unwrap();
        let mut answer = vec![0; request.len()];
        in_time(client.read_exact(&mut answer)).await.unwrap();
        assert_eq!(answer, request.to_ascii_uppercase());
    }
}

#[tokio::test]
async fn a_client_without_tls_is_ended_cleanly_and_counted() {
    let outside = Outside::start().await;
    let mut client = TcpStream::connect(outside.listen).await.unwrap();
    client.write_all(b"GET a\nGET b\n").await.unwrap();
    let mut told = Vec::new();
    // No reset: an alert, and the end.
    in_time(client.read_to_end(&mut told)).await.unwrap();
    assert!(told.len() < 16 && !told.starts_with(b"GET"), "{told:?}");
    assert_eq!(outside.metric("lockstep_refused_total{reason=\"tls\"}").await, 1);
    // Others are served.
    let mut client = outside.connect(&TLS13).await;
    client.write_all(b"one\n").await.unwrap();
    let mut answer = [0; 4];
    in_time(client.read_exact(&mut answer)).await.unwrap();
}

/// The certificate that new connections are shown.
async fn shown(outside: &Outside) -> Vec<u8> {
    let client = outside.connect(&TLS13).await;
    client.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn replace(dir: &Path, file: &str, text: &str) {
    std::fs::write(dir.join("next"), text).unwrap();
    std::fs::set_permissions(dir.join("next"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(dir.join("next"), dir.join(file)).unwrap();
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_clients_and_a_bad_one_is_not() {
    let outside = Outside::start().await;
    let before = shown(&outside).await;
    let mut old = outside.connect(&TLS13).await;
    let good = std::fs::read_to_string(outside.dir.join("tls.crt")).unwrap();
    replace(&outside.dir, "tls.crt", "rubbish");
    in_time(async {
        while outside.metric("lockstep_tls_reloads_total{result=\"failed\"}").await == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(shown(&outside).await, before);
    replace(&outside.dir, "tls.crt", &good);
    // The same name again, with a new key.
    outside.cluster.pki.issue(Role::Client, "outside");
    in_time(async {
        while shown(&outside).await == before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    old.write_all(b"one\n").await.unwrap();
    let mut answer = [0; 4];
    in_time(old.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"ONE\n");
}
