//! Messages: what decodes is encoded and decodes to the same.

use crate::fuzz::{Bound, Seen, Target};
use bytes::Bytes;
use mesh::auth::{self, Owner, Proof, PublicKey, SecretKey, SharedProof, Vouched};
use mesh::config::{ClusterConfig, Configuration, Durability};
use mesh::ids::{
    Ballot, ClientId, Digest, Epoch, Generation, Incarnation, Life, Opening, Position, ReplicaId, Seq, Slot,
};
use mesh::order::Record;
use mesh::transfer::Manifest;
use mesh::wire::admin::{AdminReply, AdminRequest, History, SnapshotsView};
use mesh::wire::client::{Ask, FromSmartClient, NothingSent, Told, Unknown};
use mesh::wire::peer::{Batch, Change, Command, Desk, Marks, PeerFrame};
use mesh::wire::roster::{Place, Roster, Seat};
use mesh::wire::submit::{Answer, FromServer, Said, Signed, Steer, Submit, ToServer, Vote};
use mesh::wire::transfer::{TransferAnswer, TransferAsk};
use mesh::wire::{Body, Message, Outcome, Refusal, Request, decode, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;

/// A message is decoded once, encoded, and decoded again. The densest one is a list of empty batches: 6 bytes each on the wire, some
/// hundred in memory, twice that while the list grows. A list's announced length makes at most 1 MiB of room ahead.
const BOUND: Bound = Bound { per_byte: 256, base: 4 << 20 };

/// What others than servers send is one request or one outcome, with short lists of proofs: of an announced length room is made
/// ahead, up to 1 MiB for each of two lists within each other.
const BOUND_OF_ONE: Bound = Bound { per_byte: 32, base: 5 << 19 };

const fn target(
    name: &'static str,
    about: &'static str,
    seeds: fn() -> Vec<Vec<u8>>,
    run: fn(&[u8], &mut Seen),
) -> Target {
    Target { name, about, seeds, words: &[], longest: 4096, bound: BOUND, run }
}

pub(super) const TARGETS: &[Target] = &[
    target("wire-peer", "messages between servers", peer_seeds, check::<PeerFrame>),
    Target {
        bound: BOUND_OF_ONE,
        ..target("wire-submit", "a SMaRtClient's request to a server", submit_seeds, |bytes, seen| {
            check::<ToServer>(bytes, seen);
        })
    },
    target("wire-reply", "a server's replies and votes to a SMaRtClient", reply_seeds, check::<FromServer>),
    target("wire-client", "between a client and a SMaRtClient", client_seeds, |bytes, seen| {
        check::<Ask>(bytes, seen);
        check::<FromSmartClient>(bytes, seen);
    }),
    target("wire-admin", "between an operator and a server", admin_seeds, |bytes, seen| {
        check::<AdminRequest>(bytes, seen);
        check::<AdminReply>(bytes, seen);
    }),
    target("wire-transfer", "state transfer between servers", transfer_seeds, |bytes, seen| {
        check::<TransferAsk>(bytes, seen);
        check::<TransferAnswer>(bytes, seen);
        if let Ok(TransferAnswer::Manifest(manifest)) = decode(bytes) {
            manifest_holds(&manifest);
        }
    }),
    target("proof", "proofs and keys: no mutated one holds", proof_seeds, proofs),
    target("wire-record", "the core's records in a journal", record_seeds, check::<Record>),
];

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8], seen: &mut Seen) {
    let kind = std::any::type_name::<T>();
    match decode::<T>(bytes) {
        Ok(message) => {
            let again = encode(&message);
            assert_eq!(decode::<T>(&again).as_ref(), Ok(&message), "what is encoded is decoded to the same");
            assert!(again.len() <= bytes.len(), "an encoding is the shortest one");
            seen.note((kind, again.first(), again.get(1), again.get(2).map(|byte| byte / 4)));
            if bytes.len() < 512 {
                seen.shape(kind, &message);
            }
        }
        Err(_) => seen.note((kind, bytes.first(), bytes.len().checked_ilog2())),
    }
}

/// What a manifest that was checked promises.
fn manifest_holds(manifest: &Manifest) {
    if manifest.validate("fuzz").is_err() {
        return;
    }
    let count = manifest.chunks.len();
    let sum: u64 = (0..count).map(|index| manifest.chunk_len(index) as u64).sum();
    assert_eq!(sum, manifest.total_len, "the chunks are the content");
    assert_eq!(manifest.chunk_len(count), 0);
}

pub(super) fn ballot() -> Ballot {
    Ballot { round: 3, replica: ReplicaId(1), incarnation: Incarnation(1) }
}

/// Requests of every kind, of the session that slot 1 opens.
pub(super) fn requests() -> Vec<Request> {
    let session = |seq, body| Request {
        client: ClientId(7),
        opened: Generation::FIRST.at(Slot(1)),
        seq: Seq(seq),
        body,
        proof: None,
    };
    let open = Body::Open { window: 4, owner: None };
    let owned = Body::Open { window: 4, owner: Some(Box::new(owner())) };
    let mut signed = vec![
        session(1, Body::Call(Bytes::from_static(b"PUT a 1\n"))),
        session(2, Body::Cancel),
        Request { client: owner().client(), opened: Opening::NONE, seq: Seq(0), body: owned, proof: None },
    ];
    let statements: Vec<Digest> = signed.iter().map(|request| auth::request_statement("fuzz", request)).collect();
    for (request, proof) in signed.iter_mut().zip(auth::sign(&key(), &statements)) {
        request.proof = Some(SharedProof::new(proof));
    }
    let mut plain = vec![
        Request { client: ClientId(7), opened: Opening::NONE, seq: Seq(0), body: open, proof: None },
        session(1, Body::Call(Bytes::from_static(b"PUT a 1\n"))),
        session(2, Body::Call(Bytes::new())),
        session(2, Body::Cancel),
        session(3, Body::Close),
        session(3, Body::Refused(Refusal::LogFull)),
        Request {
            client: ClientId(u128::MAX),
            opened: Generation::FIRST.at(Slot(u64::MAX)),
            seq: Seq(u64::MAX),
            body: Body::Cancel,
            proof: None,
        },
    ];
    plain.append(&mut signed);
    plain
}

fn key() -> SecretKey {
    SecretKey::from_seed(&[7; 32]).expect("any seed is one of a key")
}

/// Whose key signs here.
fn owner() -> Owner {
    Owner { key: key().public(), nonce: 9, certificate: Bytes::from_static(b"a certificate") }
}

/// A proof of one of three statements.
fn proof() -> SharedProof {
    let statements = [Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c")];
    auth::sign(&key(), &statements).swap_remove(1).into()
}

pub(super) fn batch() -> Arc<Batch> {
    Arc::new(Batch {
        time: 5,
        settled: Slot(2),
        agreed: Some((Slot(1), Digest::of(b"x"))),
        command: Some(Command::Abort { at: Position { slot: Slot(1), call: 0 } }),
        requests: requests(),
    })
}

pub(super) fn marks() -> Marks {
    let silent = Some(Position { slot: Slot(3), call: 1 });
    let digest = Some((Slot(2), Digest::of(b"y")));
    Marks { decided: Slot(3), executed: Slot(2), silent, snapshot: Slot(1), digest, turn: Some(20) }
}

/// Consensus messages of every kind.
pub(super) fn messages() -> Vec<Message> {
    let (ballot, slot, decided, batch, marks) = (ballot(), Slot(2), Slot(1), batch(), marks());
    let small = Arc::new(Batch { time: 9, requests: requests()[..1].to_vec(), ..Batch::default() });
    let change = |change| {
        let command = Some(Command::Configure { against: Epoch(0), change });
        Arc::new(Batch { command, ..Batch::default() })
    };
    let accept = |batch| Message::Accept { ballot, slot: Slot(3), decided, configured: Slot(0), batch };
    let (member, life) = (ReplicaId(2), Life(5));
    let restart = Command::Restart { generation: Generation::FIRST.next(1), member, life };
    let restart = Arc::new(Batch { command: Some(restart), ..Batch::default() });
    let tag = requests()[1].tag();
    vec![
        Message::PreVote { round: 4, decided, suspects: ballot },
        Message::PreVoteGranted { round: 1 },
        Message::Prepare { ballot, decided },
        Message::Promise { ballot, decided, first_kept: Slot(1), settled: Slot(0), accepted: vec![(slot, ballot)] },
        Message::Promised { ballot, slot, accepted: ballot, batch: Arc::clone(&batch) },
        Message::Outvoted { promised: ballot },
        Message::Accept { ballot, slot: Slot(1), decided: Slot(0), configured: Slot(0), batch: small },
        Message::Accept { ballot, slot, decided, configured: Slot(0), batch: Arc::clone(&batch) },
        accept(change(Change::Rejoin { member, life, over: Life(0) })),
        accept(change(Change::Add { member: ReplicaId(3), life, application: false })),
        accept(change(Change::Promote { member, life: Life(0) })),
        accept(change(Change::Remove { member })),
        accept(change(Change::SetTarget { members: 4 })),
        accept(restart),
        Message::Accepted { ballot, slots: vec![slot], marks },
        Message::Heartbeat {
            ballot,
            decided,
            settled: Slot(1),
            beyond: 1,
            covered: Slot(0),
            turn: Some(ReplicaId(2)),
            answer: true,
        },
        Message::Following { ballot, marks },
        Message::Fetch { from: Slot(1), to: Slot(9) },
        Message::Fetched { from: Slot(1), entries: vec![(ballot, batch)], decided },
        Message::Cut { snapshot: Slot(5) },
        Message::Rejoin { over: Life(0) },
        Message::TakeOver { ballot },
        Message::Forward { request: requests()[1].clone() },
        Message::ForwardRefused { tag },
        Message::Behind { decided: Slot(9) },
        Message::Join { application: true },
        Message::ReadIndex { ballot, question: 7 },
        Message::Confirm { ballot, round: 3 },
        Message::Confirmed { ballot, round: 3, marks },
        Message::ReadIndexed { ballot, question: 7, index: slot, decided, settled: Slot(1), beyond: 1 },
    ]
}

fn all<T: Serialize>(messages: &[T]) -> Vec<Vec<u8>> {
    messages.iter().map(|message| encode(message).to_vec()).collect()
}

fn peer_seeds() -> Vec<Vec<u8>> {
    let mut seeds = all(&messages()
        .into_iter()
        .map(|message| PeerFrame::Core(Generation::FIRST, Life(0), message))
        .collect::<Vec<_>>());
    let cluster = ClusterConfig::of(3, "line/shared", Durability::Sync);
    let cluster = PeerFrame::Cluster(Configuration::first(cluster));
    seeds.extend(all(&[PeerFrame::WhichCluster, cluster, PeerFrame::Roster(roster())]));
    let desks = vec![Desk(0), Desk(u64::MAX)];
    let proposals = messages().into_iter().filter(|message| matches!(message, Message::Accept { .. }));
    let proposal = |message| PeerFrame::Proposal(Generation::FIRST, Life(0), message, desks.clone());
    seeds.extend(all(&proposals.map(proposal).collect::<Vec<_>>()));
    seeds
}

/// What a server says of itself.
pub(super) fn roster() -> Roster {
    let place = Place { id: ReplicaId(1), address: "server-1:7500".to_owned(), advertised: true };
    let members = (0..3).map(|id| Seat { id: ReplicaId(id), answers: id < 2 }).collect();
    Roster {
        process: 9,
        version: 1,
        generation: Generation::FIRST,
        epoch: Epoch(1),
        members,
        places: vec![place; 2],
        leaving: false,
    }
}

fn submit_seeds() -> Vec<Vec<u8>> {
    let submit = |request| ToServer::Submit(Submit { request, whole: true, within_ms: 10_000 });
    let mut seeds = all(&requests().into_iter().map(submit).collect::<Vec<_>>());
    seeds.extend(all(&[ToServer::Desk(u64::MAX)]));
    seeds
}

/// Outcomes of every kind.
pub(super) fn outcomes() -> Vec<Outcome> {
    vec![
        Outcome::Executed(Bytes::from_static(b"OK\n")),
        Outcome::Opened { opened: Generation::FIRST.at(Slot(1)), window: 4 },
        Outcome::Settled,
        Outcome::Cancelled,
        Outcome::Closed,
        Outcome::Refused(Refusal::SessionsFull),
        Outcome::Aborted,
        Outcome::Read(vec![Bytes::from_static(b"OK\n"); 2]),
    ]
}

fn reply_seeds() -> Vec<Vec<u8>> {
    let (tag, slot) = (requests()[1].tag(), Slot(7));
    let answer = |outcome: Outcome| Answer { tag, slot, form: outcome.form(), outcome, signed: None };
    let answers = |outcomes: Vec<Outcome>| outcomes.into_iter().map(answer).collect();
    let vote = Vote { tag, slot, form: Digest::of(b"z"), signed: None };
    let signed = Some(Signed { electorate: 3, content: Digest::of(b"y"), proof: proof() });
    let leads = Some(Ballot { round: 3, replica: ReplicaId(1), incarnation: Incarnation(1) });
    let mut seeds = all(&[
        FromServer::Said(Said { leads, answers: answers(outcomes()), ..Said::default() }),
        FromServer::Said(Said { votes: vec![vote.clone(); 9], ..Said::default() }),
        FromServer::Said(Said { votes: vec![Vote { signed, ..vote }; 2], ..Said::default() }),
        FromServer::Said(Said { steers: vec![(tag, Steer::Busy), (tag, Steer::Unread)], ..Said::default() }),
    ]);
    seeds.extend(all(&[FromServer::Signer(Bytes::from_static(b"a certificate")), FromServer::Roster(roster())]));
    seeds
}

fn client_seeds() -> Vec<Vec<u8>> {
    let mut seeds = all(&requests().into_iter().map(|request| Ask { request, within_ms: 10_000 }).collect::<Vec<_>>());
    let tag = requests()[1].tag();
    let told = |told: Vec<Told>| FromSmartClient::Told(told.into_iter().map(|told| (tag, told)).collect());
    seeds.extend(all(&[told(outcomes().into_iter().map(Told::unsigned).collect())]));
    let word = |replica| Vouched {
        replica: ReplicaId(replica),
        slot: Slot(7),
        electorate: 3,
        form: Digest::of(b"x"),
        content: Digest::of(b"y"),
        proof: proof(),
    };
    let vouched = Told::Outcome { outcome: Outcome::Settled, vouched: (0..3).map(word).collect() };
    seeds.extend(all(&[FromSmartClient::Leaving(true)]));
    seeds.extend(all(&[FromSmartClient::Signers(vec![(ReplicaId(1), Bytes::from_static(b"a certificate")); 3])]));
    let nothing = NothingSent::NoQuorum { reachable: 1, members: 3, needed: 2 };
    seeds.extend(all(&[told(vec![vouched, Told::NothingSent(nothing), Told::Unknown(Unknown::Lost)])]));
    seeds
}

fn admin_seeds() -> Vec<Vec<u8>> {
    let cluster = ClusterConfig::of(3, "resp/per-session", Durability::Async);
    let mut seeds = all(&[
        AdminRequest::Describe,
        AdminRequest::Propose { token: u128::MAX, cluster: cluster.clone() },
        AdminRequest::Commit { token: 9 },
        AdminRequest::Save,
        AdminRequest::Snapshots,
        AdminRequest::Abort { at: Position { slot: Slot(300), call: 2 } },
    ]);
    seeds.extend(all(&[
        AdminReply::Described {
            id: ReplicaId(1),
            history: History::Proposed { token: 9 },
            seed: cluster,
            application: true,
        },
        AdminReply::Done,
        AdminReply::Refused("no".to_owned()),
        AdminReply::Snapshots(SnapshotsView { writing: Some(3), ..SnapshotsView::default() }),
    ]));
    seeds
}

fn transfer_seeds() -> Vec<Vec<u8>> {
    let manifest = Manifest {
        cluster: "fuzz".to_owned(),
        generation: Generation::FIRST,
        member: ReplicaId(1),
        slot: Slot(9),
        image_len: 2,
        total_len: (1 << 20) + 5,
        chunks: vec![Digest::of(b"a"), Digest::of(b"b")],
    };
    let digest = manifest.digest();
    let mut seeds = all(&[
        TransferAsk::Manifest { least: Slot(300), generation: Generation::FIRST },
        TransferAsk::Chunk { slot: Slot(9), manifest: digest, index: 300 },
    ]);
    seeds.extend(all(&[
        TransferAnswer::Manifest(Box::new(manifest)),
        TransferAnswer::Chunk(Bytes::from_static(b"abc")),
        TransferAnswer::Nothing,
        TransferAnswer::Gone,
    ]));
    seeds
}

/// Which statement and which key are asked about, then the proof.
fn proof_seeds() -> Vec<Vec<u8>> {
    let whole = encode(&*proof()).to_vec();
    let alone = auth::sign(&key(), &[Digest::of(b"b")]).swap_remove(0);
    let keys = [key().public().0, [0; 32], [0xff; 32]];
    keys.iter().flat_map(|key| [&whole[..], &encode(&alone)].map(|proof| [&key[..], proof].concat())).collect()
}

fn proofs(input: &[u8], seen: &mut Seen) {
    let Some((public, bytes)) = input.split_first_chunk::<32>() else { return };
    let Ok(proof) = decode::<Proof>(bytes) else { return seen.length("none", bytes.len()) };
    let (public, statement) = (PublicKey(*public), Digest::of(b"b"));
    seen.note((proof.is_bounded(), proof.root(&statement).is_some(), proof.bytes().min(600) / 33));
    let holds = proof.holds(&statement, &public);
    assert!(!holds || public == key().public(), "nobody has another key");
    assert!(!proof.holds(&Digest::of(b"z"), &public), "it was never signed");
    let mut verifier = auth::Verifier::default();
    assert_eq!(verifier.holds(&proof, &statement, &public), holds, "remembering changes nothing");
    assert_eq!(verifier.holds(&proof, &statement, &public), holds);
    seen.note(("holds", holds));
}

fn record_seeds() -> Vec<Vec<u8>> {
    all(&[
        Record::Promised { ballot: ballot() },
        Record::Accepted { slot: Slot(7), ballot: ballot(), batch: batch() },
        Record::Decided { slot: Slot(7) },
        Record::Silent { at: Position { slot: Slot(7), call: 3 } },
        Record::Jumped { slot: Slot(8) },
        Record::Superseded,
        Record::Restarted { slot: Slot(8) },
    ])
}
