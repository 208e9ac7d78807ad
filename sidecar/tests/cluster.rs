//! Whole sidecars over real links on loopback: the first start, what a SMaRtClient is answered, a lost disk.
//!
//! Each member is a thread with a runtime of its own; dropping the runtime is its crash.

use mesh::auth::Signatures;
use mesh::config::{Divergence, Durability};
use mesh::framing::{Adapter, Connections, Protocol};
use mesh::ids::{ClientId, Digest, Opening, Seq};
use mesh::limits::{Limits, Timing};
use mesh::net::{Credentials, Endpoint, Link, LinkKind};
use mesh::wire::submit::{FromServer, Said, Steer, Submit, ToServer};
use mesh::wire::{Body, Outcome, Request, decode, encode};
use serde_json::Value;
use sidecar::{App, Config, SnapshotMode, bootstrap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const CLUSTER: &str = "kv.test";
/// How long what must happen may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Certificates, directories and addresses of a cluster of three.
struct Cluster {
    dir: PathBuf,
    seeds: Vec<(u32, String)>,
    admin: Vec<SocketAddr>,
}

/// A running member.
struct Member {
    crash: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<anyhow::Result<()>>>,
}

impl Member {
    /// Waits for its own end.
    fn end(mut self) -> anyhow::Result<()> {
        self.thread.take().expect("once").join().expect("no panic")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        drop(self.crash.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Cluster {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("lockstep-cluster-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        let pki = certs::Pki::init(&dir.join("pki"), CLUSTER).expect("an authority");
        let leaves = [("server", "0"), ("server", "1"), ("server", "2"), ("smart-client", "0"), ("admin", "op")];
        for (role, id) in leaves {
            pki.issue(role, id).expect("a leaf");
        }
        let seeds = (0..3).map(|id| (id, free_address().to_string())).collect();
        Self { dir, seeds, admin: (0..3).map(|_| free_address()).collect() }
    }

    fn config(&self, id: u32) -> Config {
        let (protocol, connections) = (Protocol::Line, Connections::Shared);
        Config {
            request_signatures: Signatures::Off,
            reply_signatures: Signatures::Off,
            cluster: CLUSTER.to_owned(),
            id,
            pki: self.dir.join(format!("pki/server/{id}")),
            trust_bundle: None,
            crl: None,
            link_max_age: mesh::net::LINK_MAX_AGE,
            quic: self.seeds[id as usize].1.parse().expect("an address"),
            admin: self.admin[id as usize],
            seeds: self.seeds.clone(),
            advertise: None,
            data_dir: Some(self.dir.join(format!("data-{id}"))),
            app: Some(App::Address(serve_application())),
            adapter: Adapter { protocol, connections, request_bytes: 1 << 20, reply_bytes: 1 << 20 },
            durability: Durability::Sync,
            drain_timeout: Duration::from_secs(5),
            timing: Timing::DEFAULT,
            limits: Limits::DEFAULT,
            snapshots: None,
            transfer_rate: 0,
            divergence: Divergence::Rebuild,
            app_timeout: PATIENCE,
            app_snapshot: SnapshotMode::None,
            app_snapshot_timeout: PATIENCE,
            app_reset_request: None,
            app_empty_probe: None,
            app_supervisor: None,
            read_only: mesh::framing::ReadOnly::default(),
        }
    }

    fn start(&self, id: u32) -> Member {
        self.start_with(self.config(id))
    }

    fn start_with(&self, config: Config) -> Member {
        let (crash, crashed) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let id = config.id;
            let result = runtime().block_on(async {
                tokio::select! {
                    result = sidecar::run(config) => result,
                    _ = crashed => Ok(()),
                }
            });
            // Whoever waits for it would otherwise only say that nothing answers.
            result.inspect_err(|error| eprintln!("member {id} ended: {error:#}"))
        });
        Member { crash: Some(crash), thread: Some(thread) }
    }

    fn bootstrap(&self, timeout: Option<Duration>) -> anyhow::Result<()> {
        runtime().block_on(bootstrap::run(bootstrap::Config {
            cluster: CLUSTER.to_owned(),
            pki: self.dir.join("pki/admin/op"),
            trust_bundle: None,
            crl: None,
            members: self.seeds.clone(),
            timeout,
        }))
    }

    fn status(&self, id: u32) -> Option<Value> {
        let mut stream = TcpStream::connect(self.admin[id as usize]).ok()?;
        write!(stream, "GET /status HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// Waits until the status of a member is as wished.
    fn until(&self, id: u32, what: &str, wished: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let status = self.status(id);
            match status {
                Some(status) if wished(&status) => return status,
                last => assert!(begun.elapsed() < PATIENCE, "member {id} is not {what} in time: {last:?}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn until_role(&self, id: u32, roles: &[&str]) -> Value {
        self.until(id, &format!("{roles:?}"), |status| {
            roles.iter().any(|role| status["role"] == *role)
                && (status["role"] == "waiting" || !status["leader"].is_null())
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// An address on which nothing listens, each once: below the ports that the kernel gives to outgoing connections, so that
/// none of those is in the way when a member binds it, or binds it again.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let port = 12_000 + (std::process::id() + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).expect("below 32,000")));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// A line server that answers each line with the number of lines so far and the line.
fn serve_application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        let mut count = 0;
        while let Ok((mut stream, _)) = listener.accept() {
            let lines = BufReader::new(stream.try_clone().expect("a handle")).lines();
            for line in lines.map_while(Result::ok) {
                count += 1;
                if writeln!(stream, "{count} {line}").is_err() {
                    break;
                }
            }
        }
    });
    address
}

/// What a SMaRtClient would do by hand: links to all members.
struct SmartClient {
    _endpoint: Endpoint,
    links: Vec<Link>,
}

impl SmartClient {
    async fn dial(cluster: &Cluster) -> Self {
        let credentials = Credentials::load(&cluster.dir.join("pki/smart-client/0"), None).expect("credentials");
        let limits = mesh::net::kept::limits(mesh::net::LINK_MAX_AGE);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let endpoint = Endpoint::bind(any, credentials, &[], limits, &mut mesh::node::registry()).expect("a socket");
        let mut links = Vec::new();
        for (id, address) in &cluster.seeds {
            links.push(endpoint.dial(LinkKind::Submit, address, Some(&id.to_string())).await.expect("a link"));
        }
        Self { _endpoint: endpoint, links }
    }

    /// Asks member `id` for the whole reply and the others for votes: the reply, and the votes' forms.
    async fn submit(&self, id: usize, request: &Request) -> (Outcome, Vec<Digest>) {
        let tag = request.tag();
        for (index, link) in self.links.iter().enumerate() {
            let sent = link.send(submission(request, index == id)).await;
            sent.unwrap_or_else(|error| panic!("member {index} takes nothing: {error}"));
        }
        let whole = said(&self.links[id], |said| said.answers.into_iter().find(|answer| answer.tag == tag)).await;
        let mut forms = vec![whole.form];
        for (_, link) in self.links.iter().enumerate().filter(|(index, _)| *index != id) {
            let vote = said(link, |said| said.votes.into_iter().find(|vote| vote.tag == tag)).await;
            forms.push(vote.form);
        }
        (whole.outcome, forms)
    }
}

fn submission(request: &Request, whole: bool) -> bytes::Bytes {
    encode(&ToServer::Submit(Submit { request: request.clone(), whole, within_ms: 60_000 }))
}

/// The first that `find` finds in what a member says.
async fn said<T>(link: &Link, find: impl Fn(Said) -> Option<T>) -> T {
    loop {
        let message = tokio::time::timeout(PATIENCE, link.receive()).await.expect("in time").expect("a message");
        match decode(&message) {
            Ok(FromServer::Said(said)) => {
                if let Some(found) = find(said) {
                    return found;
                }
            }
            // Who the members are comes over the same link.
            Ok(FromServer::Roster(_)) => {}
            other => panic!("nothing on a request: {other:?}"),
        }
    }
}

fn request(opened: Opening, seq: u64, body: Body) -> Request {
    Request { client: ClientId(77), opened, seq: Seq(seq), body, proof: None }
}

fn call(opened: Opening, seq: u64, line: &'static str) -> Request {
    request(opened, seq, Body::Call(bytes::Bytes::from_static(line.as_bytes())))
}

#[test]
fn nothing_begins_before_every_member_answers_and_then_it_begins_once() {
    let cluster = Cluster::new();
    let _first = [cluster.start(0), cluster.start(1)];
    let error = cluster.bootstrap(Some(Duration::from_secs(6))).expect_err("one is missing").to_string();
    assert!(error.contains("member 2"), "says for whom it waits: {error}");
    for id in [0, 1] {
        assert_eq!(cluster.until_role(id, &["waiting"])["members"], serde_json::json!([]));
    }
    let _last = cluster.start(2);
    cluster.bootstrap(Some(PATIENCE)).expect("all answer");
    for id in 0..3 {
        let status = cluster.until_role(id, &["leader", "follower"]);
        assert_eq!(status["members"], serde_json::json!([0, 1, 2]));
    }
    cluster.bootstrap(Some(PATIENCE)).expect("safe to run again");
}

#[test]
fn members_that_are_set_differently_do_not_begin() {
    let cluster = Cluster::new();
    let mut other = cluster.config(2);
    other.durability = Durability::Async;
    let _members = [cluster.start(0), cluster.start(1), cluster.start_with(other)];
    let error = cluster.bootstrap(Some(PATIENCE)).expect_err("they differ").to_string();
    assert!(error.contains("durability"), "{error}");
    cluster.until_role(0, &["waiting"]);
}

#[test]
fn one_member_answers_whole_and_the_others_vote_and_all_of_it_survives_a_crash_of_all() {
    let cluster = Cluster::new();
    let members: Vec<_> = (0..3).map(|id| cluster.start(id)).collect();
    let runtime = runtime();
    let client = runtime.block_on(SmartClient::dial(&cluster));
    let open = request(Opening::NONE, 0, Body::Open { window: 4, owner: None });
    let early = runtime.block_on(async {
        client.links[0].send(submission(&open, true)).await.expect("it is sent");
        said(&client.links[0], |said| said.steers.first().copied()).await
    });
    assert_eq!(early, (open.tag(), Steer::NotReady), "not before there is a cluster");
    cluster.bootstrap(Some(PATIENCE)).expect("all answer");
    for id in 0..3 {
        cluster.until(id, "running", |status| status["app"] == "running" && !status["leader"].is_null());
    }
    let opened = runtime.block_on(async {
        let (outcome, _) = client.submit(0, &open).await;
        let Outcome::Opened { opened, window: 4 } = outcome else { panic!("not opened: {outcome:?}") };
        for (seq, whole) in [(1, 1), (2, 2)] {
            let (outcome, forms) = client.submit(whole, &call(opened, seq, "hello\n")).await;
            assert_eq!(outcome, Outcome::Executed(format!("{seq} hello\n").into()));
            assert_eq!(forms, [forms[0]; 3], "all vote alike");
        }
        let (again, _) = client.submit(0, &call(opened, 2, "hello\n")).await;
        assert_eq!(again, Outcome::Executed("2 hello\n".into()), "answered from what is kept, not run again");
        client.links[0].send(submission(&call(opened, 3, "two\nlines\n"), true)).await.expect("it is sent");
        let (outcome, _) = client.submit(0, &call(opened, 3, "hello\n")).await;
        let taken = "what is not exactly one request of the protocol is not taken";
        assert_eq!(outcome, Outcome::Executed("3 hello\n".into()), "{taken}");
        opened
    });
    drop((client, members));
    // Every application starts anew, too: its state is rebuilt from the journals.
    let _members: Vec<_> = (0..3).map(|id| cluster.start(id)).collect();
    for id in 0..3 {
        cluster.until(id, "replayed", |status| !status["leader"].is_null() && status["executed"] == status["decided"]);
    }
    runtime.block_on(async {
        let client = SmartClient::dial(&cluster).await;
        let (outcome, _) = client.submit(2, &call(opened, 4, "hello\n")).await;
        assert_eq!(outcome, Outcome::Executed("4 hello\n".into()));
    });
    let digests: Vec<Value> =
        (0..3).map(|id| cluster.until(id, "done", |status| status["executed"] == status["decided"])).collect();
    assert!(digests.iter().all(|status| status["divergences"] == 0));
}

#[test]
fn a_member_whose_disk_is_lost_is_given_its_vote_again_and_keeps_it() {
    let cluster = Cluster::new();
    let mut members: Vec<_> = (0..3).map(|id| cluster.start(id)).collect();
    cluster.bootstrap(Some(PATIENCE)).expect("all answer");
    for id in 0..3 {
        cluster.until_role(id, &["leader", "follower"]);
    }
    drop(members.pop());
    std::fs::remove_dir_all(cluster.dir.join("data-2")).expect("its disk");
    for _ in 0..2 {
        let member = cluster.start(2);
        cluster.until_role(2, &["leader", "follower"]);
        drop(member);
    }
}

#[test]
fn a_member_refuses_a_data_directory_that_its_settings_do_not_fit() {
    let cluster = Cluster::new();
    let mut members: Vec<_> = (0..3).map(|id| cluster.start(id)).collect();
    cluster.bootstrap(Some(PATIENCE)).expect("all answer");
    cluster.until_role(2, &["leader", "follower"]);
    drop(members.pop());
    let mut config = cluster.config(2);
    config.adapter.protocol = Protocol::Length;
    let error = format!("{:#}", cluster.start_with(config).end().expect_err("another protocol"));
    assert!(error.contains("line/shared") && error.contains("length/shared"), "{error}");
    let mut config = cluster.config(2);
    config.data_dir = Some(cluster.dir.join("data-1"));
    let error = format!("{:#}", cluster.start_with(config).end().expect_err("another's directory"));
    assert!(error.contains("in use") || error.contains("belongs to member 1"), "{error}");
}
