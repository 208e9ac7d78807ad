//! Golden bytes: what is on the wire and in journals does not change by accident. And: no bytes make a decoder panic.

use super::admin::{AdminReply, AdminRequest, SnapshotsView};
use super::client::{Ask, FromSmartClient, NothingSent, Told, Unknown};
use super::peer::{Batch, Change, Marks, PeerFrame};
use super::roster::{Place, Roster, Seat};
use super::submit::{Answer, FromServer, Said, Steer, Submit, ToServer, Vote};
use super::transfer::{TransferAnswer, TransferAsk};
use super::*;
use crate::ids::{Ballot, ClientId, Digest, Epoch, Generation, Incarnation, Life, Position, ReplicaId, Seq, Slot};
use crate::limits::{Limits, REQUEST_BYTES_MAX, REQUEST_ENVELOPE_BYTES};
use crate::order::Record;
use crate::transfer::Manifest;
use proptest::prelude::*;
use std::sync::Arc;

fn request() -> Request {
    Request {
        client: ClientId(0x0102),
        opened: Generation::FIRST.at(Slot(300)),
        seq: Seq(5),
        body: Body::Call(Bytes::from_static(b"GET a\n")),
        proof: None,
    }
}

fn ballot() -> Ballot {
    Ballot { round: 3, replica: ReplicaId(1), incarnation: Incarnation(1) }
}

fn batch() -> Arc<Batch> {
    Arc::new(Batch { time: 1, settled: Slot(2), requests: vec![request()], ..Batch::default() })
}

fn golden<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T, hex: &str) {
    let bytes = encode(message);
    let seen: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(seen, hex, "{message:?} is encoded otherwise: the ALPN's version has to change with it");
    assert_eq!(decode::<T>(&bytes).as_ref(), Ok(message));
}

#[test]
fn the_bytes_on_the_wire_are_the_agreed_ones() {
    golden(&request(), "82020100ac0205010647455420610a00");
    let prepare = Message::Prepare { ballot: ballot(), decided: Slot(6) };
    golden(&PeerFrame::Core(Generation::FIRST, Life(0), prepare), "000100000203010106");
    let accept =
        Message::Accept { ballot: ballot(), slot: Slot(7), decided: Slot(6), configured: Slot(5), batch: batch() };
    golden(&accept, "06030101070605010200000182020100ac0205010647455420610a00");
    golden(
        &Message::Accepted { ballot: ballot(), slots: vec![Slot(7)], marks: Marks::default() },
        "070301010107000000000000",
    );
    let submit = Submit { request: request(), whole: true, within_ms: 10_000 };
    golden(&ToServer::Submit(submit), "0182020100ac0205010647455420610a0001904e");
    golden(&ToServer::Desk(300), "00ac02");
    let tag = request().tag();
    let (slot, form) = (Slot(7), Digest([7; 32]));
    let outcome = Outcome::Executed(Bytes::from_static(b"NIL\n"));
    let leads = Some(ballot());
    let answers = vec![Answer { tag, slot, form, outcome, signed: None }];
    let votes = vec![Vote { tag, slot, form, signed: None }];
    let (named, form) = ("82020100ac020501", "07".repeat(32));
    golden(
        &FromServer::Said(Said { leads, answers, votes, steers: vec![(tag, Steer::NotReady)] }),
        &format!("000103010101{named}07{form}00044e494c0a0001{named}07{form}0001{named}06"),
    );
    golden(&FromSmartClient::Told(vec![(tag, Told::Unknown(Unknown::Deadline))]), &format!("0001{named}0200"));
    golden(&Ask { request: request(), within_ms: 10_000 }, "82020100ac0205010647455420610a00904e");
    golden(&Told::NothingSent(NothingSent::NoQuorum { reachable: 1, members: 3, needed: 2 }), "0100010302");
    golden(&Told::Unknown(Unknown::Deadline), "0200");
    golden(&Told::Unknown(Unknown::OutOfWindow), "0207");
    golden(&AdminRequest::Commit { token: 9 }, "0209");
    golden(
        &Record::Accepted { slot: Slot(7), ballot: ballot(), batch: batch() },
        "0107030101010200000182020100ac0205010647455420610a00",
    );
    golden(&Record::Decided { slot: Slot(7) }, "0207");
}

#[test]
fn the_bytes_of_a_servers_word_are_the_agreed_ones() {
    let roster = Roster {
        process: 300,
        version: 2,
        generation: Generation::FIRST,
        epoch: Epoch(4),
        members: vec![Seat { id: ReplicaId(0), answers: true }, Seat { id: ReplicaId(7), answers: false }],
        places: vec![Place { id: ReplicaId(7), address: "h:1".to_owned(), advertised: true }],
        leaving: true,
    };
    let hex = "ac02020100040200010700010703683a310101";
    golden(&roster, hex);
    golden(&PeerFrame::Roster(roster.clone()), &format!("03{hex}"));
    golden(&FromServer::Roster(roster), &format!("02{hex}"));
    golden(&FromSmartClient::Leaving(true), "0201");
}

#[test]
fn the_envelope_of_a_request_fits_into_what_is_reckoned_for_it() {
    let generation = Generation { count: u32::MAX, mark: u64::MAX };
    let (client, opened, seq) = (ClientId(u128::MAX), generation.at(Slot(u64::MAX)), Seq(u64::MAX));
    let body = Body::Call(Bytes::from(vec![0; REQUEST_BYTES_MAX]));
    let largest = Request { client, opened, seq, body, proof: None };
    assert!(encode(&largest).len() - REQUEST_BYTES_MAX <= REQUEST_ENVELOPE_BYTES);
    let batch = Batch { time: u64::MAX, settled: opened.slot, requests: vec![largest], ..Batch::default() };
    assert!(encode(&batch).len() < Limits::DEFAULT.message_bytes);
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode::<PeerFrame>(&bytes);
        let _ = decode::<ToServer>(&bytes);
        let _ = decode::<FromServer>(&bytes);
        let _ = decode::<FromSmartClient>(&bytes);
        let _ = decode::<Ask>(&bytes);
        let _ = decode::<AdminRequest>(&bytes);
        let _ = decode::<AdminReply>(&bytes);
        let _ = decode::<Record>(&bytes);
        let _ = decode::<TransferAsk>(&bytes);
        let _ = decode::<TransferAnswer>(&bytes);
    }

    #[test]
    fn cut_or_lengthened_messages_are_refused(cut in 0usize..40, more in 1usize..9) {
        let frame = PeerFrame::Core(Generation::FIRST, Life(0), Message::Accept { ballot: ballot(), slot: Slot(7), decided: Slot(6), configured: Slot(5), batch: batch() });
        let bytes = encode(&frame);
        let cut = cut.min(bytes.len() - 1);
        prop_assert_eq!(decode::<PeerFrame>(&bytes[..cut]), Err(Malformed));
        let longer = [&bytes[..], &vec![0; more][..]].concat();
        prop_assert_eq!(decode::<PeerFrame>(&longer), Err(Malformed));
    }
}

#[test]
fn the_bytes_of_a_state_transfer_are_the_agreed_ones() {
    golden(&TransferAsk::Manifest { least: Slot(300), generation: Generation { count: 1, mark: 300 } }, "00ac0201ac02");
    let ask = TransferAsk::Chunk { slot: Slot(9), manifest: Digest([7; 32]), index: 300 };
    golden(&ask, &format!("0109{}ac02", "07".repeat(32)));
    let manifest = Manifest {
        generation: Generation { count: 1, mark: 300 },
        cluster: "kv".to_owned(),
        member: ReplicaId(1),
        slot: Slot(9),
        image_len: 2,
        total_len: 300,
        chunks: vec![Digest([8; 32])],
    };
    let hex = format!("00026b7601ac02010902ac0201{}", "08".repeat(32));
    golden(&TransferAnswer::Manifest(Box::new(manifest)), &hex);
    golden(&TransferAnswer::Chunk(Bytes::from_static(b"abc")), "0103616263");
    golden(&TransferAnswer::Nothing, "02");
    golden(&TransferAnswer::Gone, "03");
}

#[test]
fn the_bytes_of_an_operators_questions_are_the_agreed_ones() {
    golden(&AdminRequest::Save, "03");
    golden(&AdminRequest::Snapshots, "04");
    golden(&AdminRequest::Abort { at: Position { slot: Slot(300), call: 2 } }, "08ac0202");
    golden(&AdminRequest::Members, "05");
    golden(&AdminRequest::Change(Change::Remove { member: ReplicaId(7) }), "060307");
    golden(&AdminRequest::TransferLeader { to: ReplicaId(7) }, "0707");
    let (newest, executed) = (Slot(7), Slot(9));
    golden(&AdminRequest::Fetch(TransferAsk::Manifest { least: newest, generation: Generation::FIRST }), "0900070100");
    golden(&AdminReply::Fetched(TransferAnswer::Gone), "0703");
    let view = SnapshotsView { newest, executed, taken: 1, failed: 2, writing: Some(3) };
    golden(&AdminReply::Snapshots(view), "06070901020103");
}
