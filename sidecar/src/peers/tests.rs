//! Servers with real links that come, go, and are elsewhere than others believe.

use super::*;
use crate::run::link_limits;
use crate::testing::{PATIENCE, TempDir, eventually_async};
use mesh::net::{Credentials, LINK_MAX_AGE, LinkKind};
use mesh::wire::peer::PeerFrame;
use std::path::Path;
use tokio::task::JoinHandle;

/// Where nobody answers.
const DEAD: &str = "127.0.0.1:1";

struct Member {
    endpoint: Endpoint,
    peers: Peers,
    incoming: mpsc::Receiver<Incoming>,
    accepting: JoinHandle<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn pki(servers: u32) -> TempDir {
    let dir = TempDir::new();
    let pki = certs::Pki::init(&dir.path().join("pki"), "kv.test").expect("an authority");
    for id in 0..servers {
        pki.issue("server", &id.to_string()).expect("a leaf");
    }
    dir
}

impl Member {
    /// A server with these seeds; it advertises where it is if it is told to.
    fn new(dir: &Path, id: u32, seeds: &[(u32, &str)], advertises: bool) -> Self {
        let mut registry = mesh::node::registry();
        let metrics = Metrics::new(&mut registry);
        let credentials = Credentials::load(&dir.join(format!("pki/server/{id}")), None).expect("credentials");
        let any = ([127, 0, 0, 1], 0).into();
        let endpoint = Endpoint::bind(any, credentials, &[LinkKind::Peer], link_limits(LINK_MAX_AGE), &mut registry)
            .expect("a socket");
        let at = endpoint.local_addr().to_string();
        let seeds: Vec<(u32, String)> = seeds.iter().map(|(id, at)| (*id, (*at).to_owned())).collect();
        let setup = Setup {
            own: ReplicaId(id),
            seeds: &seeds,
            advertise: advertises.then_some(at.as_str()),
            server: &Server::new(None),
            metrics: &metrics,
        };
        let (peers, incoming) = Peers::start(&endpoint, &setup).expect("randomness");
        let (acceptor, accepts) = (peers.acceptor(), endpoint.clone());
        let accepting = tokio::spawn(async move {
            while let Some(link) = accepts.accept().await {
                acceptor.accept(link);
            }
        });
        Self { endpoint, peers, incoming, accepting }
    }

    fn at(&self) -> String {
        self.endpoint.local_addr().to_string()
    }

    async fn linked(&self, id: u32) {
        eventually_async("linked", || self.peers.links().get(ReplicaId(id)).is_some()).await;
    }

    async fn next(&mut self) -> (ReplicaId, Option<PeerFrame>) {
        let incoming = tokio::time::timeout(PATIENCE, self.incoming.recv()).await.expect("in time");
        incoming.map(|incoming| (incoming.from, incoming.frame)).expect("open")
    }
}

fn seats(members: &[u32]) -> Vec<Seat> {
    members.iter().map(|id| Seat { id: ReplicaId(*id), answers: true }).collect()
}

#[tokio::test]
async fn a_member_that_moved_finds_those_who_stayed_and_is_found_by_them() {
    let dir = pki(3);
    let stayed = Member::new(dir.path(), 0, &[(0, DEAD), (1, DEAD), (2, DEAD)], false);
    let at = stayed.at();
    let moved = Member::new(dir.path(), 1, &[(0, at.as_str()), (1, DEAD), (2, DEAD)], true);
    stayed.linked(1).await;
    eventually_async("told", || stayed.peers.shared.addresses(ReplicaId(1)) == [moved.at(), DEAD.to_owned()]).await;
    // A third one, whose seeds know nothing of that, hears it from the one who stayed.
    let third = Member::new(dir.path(), 2, &[(0, at.as_str()), (1, DEAD), (2, DEAD)], true);
    third.linked(1).await;
    moved.linked(2).await;
}

#[tokio::test]
async fn a_server_that_nobody_named_is_let_in_finds_the_others_and_is_sent_what_goes_to_members_when_it_is_one() {
    let dir = pki(3);
    let mut first = Member::new(dir.path(), 0, &[(0, DEAD), (1, DEAD)], true);
    let at = first.at();
    let mut second = Member::new(dir.path(), 1, &[(0, at.as_str())], true);
    first.peers.set_members((Generation::FIRST, Epoch(0)), seats(&[0, 1]));
    second.peers.set_members((Generation::FIRST, Epoch(0)), seats(&[0, 1]));
    let mut stranger = Member::new(dir.path(), 2, &[(0, at.as_str())], true);
    // At both ends: what cannot go at once is given up.
    for (member, peer) in [(&first, 1), (&first, 2), (&second, 0), (&stranger, 0)] {
        member.linked(peer).await;
    }
    let ask = |to, member: &Member| member.peers.send_frame(to, "test", &PeerFrame::WhichCluster);
    ask(To::One(ReplicaId(0)), &stranger);
    assert_eq!(first.next().await, (ReplicaId(2), Some(PeerFrame::WhichCluster)));
    // It is answered, and hears nothing of what goes to all.
    ask(To::Others, &first);
    ask(To::One(ReplicaId(2)), &first);
    assert_eq!(second.next().await.0, ReplicaId(0));
    assert_eq!(stranger.next().await.0, ReplicaId(0));
    tokio::task::yield_now().await;
    assert!(stranger.incoming.try_recv().is_err(), "one message, of the two");

    for member in [&first, &second, &stranger] {
        member.peers.set_members((Generation::FIRST, Epoch(1)), seats(&[0, 1, 2]));
    }
    stranger.linked(1).await;
    ask(To::Others, &first);
    assert_eq!(stranger.next().await.0, ReplicaId(0));
    assert_eq!(first.peers.roster().borrow().members, seats(&[0, 1, 2]));

    // Removed again, it has its link, and nobody dials it.
    first.peers.set_members((Generation::FIRST, Epoch(2)), seats(&[0, 1]));
    assert_eq!(first.peers.shared.addresses(ReplicaId(2)), [""; 0]);
    ask(To::One(ReplicaId(2)), &first);
    assert_eq!(stranger.next().await.0, ReplicaId(0));
}

#[tokio::test]
async fn who_said_goodbye_and_is_gone_is_reported_and_counts_as_leaving_until_it_is_back() {
    let dir = pki(2);
    let mut stays = Member::new(dir.path(), 0, &[(0, DEAD), (1, DEAD)], true);
    let at = stays.at();
    let leaves = Member::new(dir.path(), 1, &[(0, at.as_str()), (1, DEAD)], true);
    stays.linked(1).await;
    eventually_async("staying", || stays.peers.company() == (vec![], vec![ReplicaId(1)])).await;
    leaves.peers.set_leaving(true);
    eventually_async("leaving", || stays.peers.company() == (vec![ReplicaId(1)], vec![])).await;
    leaves.endpoint.close().await;
    assert_eq!(stays.next().await, (ReplicaId(1), None));
    drop(leaves);
    assert_eq!(stays.peers.company(), (vec![ReplicaId(1)], vec![]));
    let _back = Member::new(dir.path(), 1, &[(0, at.as_str()), (1, DEAD)], true);
    eventually_async("back", || stays.peers.company() == (vec![], vec![ReplicaId(1)])).await;
}
