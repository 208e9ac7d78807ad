//! The processes of this crate and native clients together, over real links, against servers that the test plays.

mod outside;

use crate::{ingress, smart_client};
use bytes::Bytes;
use mesh::client::own::Unknown;
use mesh::client::sender::Refused;
use mesh::client::{Client, ClientConfig, ConnectError, InvokeError, NotRun, ReplyVote};
use mesh::framing::{Adapter, Connections, Protocol};
use mesh::ids::{Digest, Generation, Seq, Slot};
use mesh::names::{DEFAULT_TRUST_DOMAIN, Identity};
use mesh::net::{Credentials, Endpoint, Files, LINK_MAX_AGE, Link, LinkKind, OutsideFiles, Role};
use mesh::wire::submit::{Answer, FromServer, Said, ToServer, Vote};
use mesh::wire::{Body, Outcome, Request};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const CLUSTER: &str = "test";
const DEADLINE: Duration = Duration::from_secs(10);
const WAIT: Duration = Duration::from_secs(30);

/// Certificates in a directory that goes away.
struct Pki {
    dir: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("lockstep-proxy-{}-{number}", std::process::id()));
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { dir, authority }
    }

    fn issue(&self, role: Role, id: &str) -> PathBuf {
        let who = Identity::new(CLUSTER, role, id).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![
            SanType::DnsName(who.dns_name().try_into().unwrap()),
            SanType::URI(who.uri(DEFAULT_TRUST_DOMAIN).try_into().unwrap()),
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.authority).unwrap();
        let dir = self.dir.join(who.dns_name());
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("tls.crt"), leaf.pem()).unwrap();
        std::fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
        std::fs::write(dir.join("ca.crt"), self.authority.pem()).unwrap();
        std::fs::set_permissions(dir.join("tls.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
        dir
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// A UDP port that was free a moment ago.
fn free_udp() -> SocketAddr {
    UdpSocket::bind(local(0)).unwrap().local_addr().unwrap()
}

fn free_tcp() -> SocketAddr {
    TcpListener::bind(local(0)).unwrap().local_addr().unwrap()
}

/// What the played servers do with a call's bytes: an application that shouts.
fn shout(request: &[u8]) -> Bytes {
    request.to_ascii_uppercase().into()
}

/// One server: it agrees with the others without asking them.
async fn server(id: u32, endpoint: Endpoint) {
    while let Some(link) = endpoint.accept().await {
        tokio::spawn(serve(id, link));
    }
}

async fn serve(id: u32, link: Link) {
    while let Ok(bytes) = link.receive().await {
        let ToServer::Submit(submit) = mesh::wire::decode(&bytes).unwrap() else { continue };
        let answer = execute(&submit.request);
        let mut said = Said::default();
        if submit.whole {
            said.answers.push(answer);
        } else {
            said.votes.push(Vote { tag: answer.tag, slot: answer.slot, form: answer.form, signed: None });
        }
        let sent = link.send(mesh::wire::encode(&FromServer::Said(said))).await;
        sent.unwrap_or_else(|error| panic!("server {id}: {error}"));
    }
}

fn execute(request: &Request) -> Answer {
    let outcome = match &request.body {
        Body::Open { window, .. } => Outcome::Opened { opened: Generation::FIRST.at(Slot(1)), window: *window },
        Body::Call(bytes) => Outcome::Executed(shout(bytes)),
        Body::Cancel => Outcome::Settled,
        Body::Close => Outcome::Closed,
        Body::Refused(refusal) => Outcome::Refused(*refusal),
        Body::Read(requests) => Outcome::Read(requests.iter().map(|bytes| shout(bytes)).collect()),
    };
    let form = match &outcome {
        Outcome::Executed(bytes) => Digest::of(bytes),
        other => other.form(),
    };
    Answer { tag: request.tag(), slot: Slot(1), form, outcome, signed: None }
}

/// A cluster of played servers with one real SMaRtClient.
struct Cluster {
    pki: Pki,
    smart_client: SocketAddr,
    tasks: JoinSet<()>,
}

impl Cluster {
    /// `running` of three servers answer.
    fn start(running: u32) -> Self {
        let pki = Pki::new();
        let mut tasks = JoinSet::new();
        let mut servers = Vec::new();
        for id in 0..3 {
            let dir = pki.issue(Role::Server, &id.to_string());
            if id >= running {
                servers.push((id, free_udp().to_string()));
                continue;
            }
            let credentials = Credentials::load(&dir, None).unwrap();
            let mut registry = mesh::node::registry();
            let kinds = [LinkKind::Submit];
            let endpoint =
                Endpoint::bind(local(0), credentials, &kinds, mesh::net::kept::limits(LINK_MAX_AGE), &mut registry)
                    .unwrap();
            servers.push((id, endpoint.local_addr().to_string()));
            tasks.spawn(server(id, endpoint));
        }
        let smart_client = free_udp();
        let config = smart_client::Config {
            cluster: CLUSTER.to_owned(),
            id: "0".to_owned(),
            files: Files::of(&pki.issue(Role::SmartClient, "0")),
            link_max_age: LINK_MAX_AGE,
            quic: smart_client,
            admin: local(0),
            servers,
            vote: ReplyVote::Majority,
            drain_timeout: DEADLINE,
        };
        tasks.spawn(async move { smart_client::run(config).await.unwrap() });
        Self { pki, smart_client, tasks }
    }

    fn smart_clients(&self) -> Vec<(Option<String>, String)> {
        vec![(Some("0".to_owned()), self.smart_client.to_string())]
    }

    async fn client(&self, deadline: Duration) -> Client {
        self.client_over(self.smart_clients(), deadline).await
    }

    async fn client_over(&self, smart_clients: Vec<(Option<String>, String)>, deadline: Duration) -> Client {
        let config = ClientConfig::new(CLUSTER, "me", self.pki.issue(Role::Client, "me"), [""; 0]);
        Client::connect(ClientConfig { smart_clients, deadline, ..config }).await.unwrap()
    }

    /// Starts an ingress for the line protocol and waits until it listens.
    async fn ingress(&mut self) -> SocketAddr {
        self.ingress_with(local(0), None).await
    }

    /// The same, with an admin port and a certificate for clients.
    async fn ingress_with(&mut self, admin: SocketAddr, tls: Option<OutsideFiles>) -> SocketAddr {
        let listen = free_tcp();
        let config = ingress::Config {
            request_signatures: mesh::auth::Signatures::Off,
            reply_signatures: mesh::auth::Signatures::Off,
            reply_vote: mesh::client::ReplyVote::Majority,
            cluster: CLUSTER.to_owned(),
            id: "0".to_owned(),
            files: Files::of(&self.pki.issue(Role::Ingress, "0")),
            link_max_age: LINK_MAX_AGE,
            tls,
            admin,
            listen,
            smart_clients: self.smart_clients(),
            inside: None,
            adapter: Adapter {
                protocol: Protocol::Line,
                connections: Connections::Shared,
                request_bytes: 1 << 20,
                reply_bytes: 1 << 20,
            },
            deadline: DEADLINE,
            read_only: None,
            drain_timeout: DEADLINE,
            drain_delay: Duration::ZERO,
            limits: ingress::Limits {
                connections_max: 10,
                connections_per_address: None,
                idle_timeout: None,
                request_timeout: Duration::from_secs(60),
                reply_timeout: Duration::from_secs(60),
                quiet_period: None,
            },
        };
        self.tasks.spawn(async move { ingress::run(config).await.unwrap() });
        tokio::time::timeout(WAIT, async {
            while TcpStream::connect(listen).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the ingress listens");
        listen
    }
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT, what).await.expect("a request ends by its deadline")
}

#[tokio::test]
async fn a_native_client_is_answered_by_a_majority() {
    let cluster = Cluster::start(2);
    let client = cluster.client(DEADLINE).await;
    assert_eq!(in_time(client.invoke("hello\n")).await.unwrap(), "HELLO\n");
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    let cluster = Cluster::start(3);
    let name = format!("localhost:{}", cluster.smart_client.port());
    let client = cluster.client_over(vec![(None, name)], DEADLINE).await;
    assert_eq!(in_time(client.invoke("hello\n")).await.unwrap(), "HELLO\n");
}

#[tokio::test]
async fn a_native_client_is_definitely_refused_without_a_quorum() {
    let cluster = Cluster::start(1);
    let client = cluster.client(Duration::from_secs(1)).await;
    match in_time(client.invoke("hello\n")).await {
        Err(InvokeError::NotRun(why)) => assert!(why.to_string().contains("not run"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(in_time(client.open_session()).await, Err(InvokeError::NotRun(_))));
}

#[tokio::test]
async fn concurrent_calls_are_answered_each_with_its_own_reply_also_beside_dropped_ones() {
    let cluster = Cluster::start(3);
    let client = cluster.client(DEADLINE).await;
    let mut calls = JoinSet::new();
    for number in 0..500 {
        let client = client.clone();
        calls.spawn(async move {
            let call = client.invoke(format!("call {number}\n"));
            if number % 5 == 0 {
                // Dropped before, while or after it is sent.
                let _ = tokio::time::timeout(Duration::from_micros(number * 20), call).await;
            } else {
                assert_eq!(call.await.unwrap(), format!("CALL {number}\n"));
            }
        });
    }
    in_time(async {
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
    })
    .await;
    assert_eq!(in_time(client.invoke("after\n")).await.unwrap(), "AFTER\n");
}

#[tokio::test]
async fn a_session_of_ones_own_counts_its_requests_keeps_a_dropped_one_in_doubt_and_is_resumed_by_name() {
    let cluster = Cluster::start(3);
    let client = cluster.client(DEADLINE).await;
    let mut session = in_time(client.open_session()).await.unwrap();
    assert_eq!(in_time(session.invoke("one\n")).await.unwrap(), "ONE\n");
    drop(session.invoke("never polled\n"));
    let name = session.name();
    assert_eq!((session.next(), session.in_doubt()), (Seq(2), None));
    // Dropped at the first thing that it waits for.
    tokio::select! {
        biased;
        _ = session.invoke("two\n") => panic!("answered at once"),
        () = std::future::ready(()) => {}
    }
    let in_doubt = NotRun::InDoubt { seq: Seq(2) };
    assert_eq!(session.invoke("three\n").await, Err(InvokeError::NotRun(in_doubt.clone())));
    let failed = session.close().await.unwrap_err();
    assert_eq!(failed.error, InvokeError::NotRun(in_doubt));
    let mut session = failed.session;
    assert_eq!(in_time(session.invoke("two\n")).await.unwrap(), "TWO\n");
    drop(session);
    let mut session = client.resume(name, Seq(3));
    assert_eq!(in_time(session.invoke("three\n")).await.unwrap(), "THREE\n");
    in_time(session.close()).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_asked_is_definite_for_a_number_that_was_never_sent_only() {
    let cluster = Cluster::start(1);
    let client = cluster.client(Duration::from_millis(500)).await;
    let name = "2a@7@1-0000000000000009".parse().unwrap();
    let end = in_time(client.resume(name, Seq(5)).invoke("a\n")).await;
    assert!(matches!(end, Err(InvokeError::Unknown(Unknown::NotReached(_)))), "{end:?}");
    let end = in_time(client.resume_settled(name, Seq(5)).invoke("a\n")).await;
    let not_run = |end: &InvokeError| matches!(end, InvokeError::NotRun(NotRun::Refused(Refused::NothingSent(_))));
    assert!(end.as_ref().is_err_and(not_run), "{end:?}");
    let end = in_time(client.resume_in_doubt(name, Seq(5), "a\n").settle()).await;
    assert!(matches!(end, Err(Unknown::NotReached(_))), "{end:?}");
}

#[tokio::test]
async fn clients_of_an_ingress_are_answered_in_order_over_many_pipelined_requests() {
    let mut cluster = Cluster::start(3);
    let listen = cluster.ingress().await;
    let mut clients = JoinSet::new();
    for client in 0..8 {
        clients.spawn(async move {
            let mut stream = TcpStream::connect(listen).await.unwrap();
            let requests: String = (0..500).map(|n| format!("client {client} says {n}\n")).collect();
            let (mut read, mut write) = stream.split();
            let mut replies = String::new();
            let sending = async {
                write.write_all(requests.as_bytes()).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let reading = async { read.read_to_string(&mut replies).await.unwrap() };
            tokio::join!(sending, reading);
            assert_eq!(replies, requests.to_uppercase());
        });
    }
    tokio::time::timeout(WAIT, async {
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
    })
    .await
    .expect("every client is answered");
}

#[tokio::test]
async fn a_client_with_the_wrong_certificate_says_so() {
    let pki = Pki::new();
    let config = ClientConfig::new("another", "me", pki.issue(Role::Client, "me"), [free_udp().to_string()]);
    let Err(error @ ConnectError::Identity(_)) = Client::connect(config).await else { panic!("it must not start") };
    assert!(error.to_string().contains("--cluster"), "{error}");
}

#[tokio::test]
async fn a_client_without_smart_clients_is_none() {
    let config = ClientConfig::new(CLUSTER, "me", "nowhere", [""; 0]);
    assert!(matches!(Client::connect(config).await, Err(ConnectError::NoSmartClients)));
}
