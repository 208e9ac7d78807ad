//! The receiver against a peer that is played by hand: every kind of answer, none, and wrong ones.

use super::receiver::{ASK_TIMEOUT, ASKS_MAX, DAMAGED_MAX, RETRY, SILENCE};
use super::*;
use crate::ids::{Digest, Generation, ReplicaId, Slot};
use crate::time::{Duration, Instant};
use crate::wire::transfer::{TransferAnswer, TransferAsk};
use bytes::Bytes;

const PEER: ReplicaId = ReplicaId(2);
const MOMENT: Duration = Duration::from_millis(10);

/// A peer's snapshot.
struct Source {
    content: Vec<u8>,
    manifest: Manifest,
}

impl Source {
    fn of(chunks: usize) -> Self {
        let content: Vec<u8> = (0..chunks * CHUNK_BYTES - 5).map(|at| (at / 999) as u8).collect();
        let manifest = Manifest {
            generation: Generation::FIRST,
            cluster: "kv".to_owned(),
            member: PEER,
            slot: Slot(9),
            image_len: 3,
            total_len: content.len() as u64,
            chunks: content.chunks(CHUNK_BYTES).map(Digest::of).collect(),
        };
        Self { content, manifest }
    }

    fn answer(&self, ask: &TransferAsk) -> TransferAnswer {
        match ask {
            TransferAsk::Manifest { .. } => TransferAnswer::Manifest(Box::new(self.manifest.clone())),
            TransferAsk::Chunk { slot, manifest, index } => {
                assert_eq!((*slot, *manifest), (self.manifest.slot, self.manifest.digest()));
                let chunk = self.content.chunks(CHUNK_BYTES).nth(*index as usize).expect("there is such a chunk");
                TransferAnswer::Chunk(Bytes::copy_from_slice(chunk))
            }
        }
    }
}

fn receiver() -> Receiver {
    Receiver::new("kv", Generation::FIRST, PEER, Slot(5))
}

fn asks(receiver: &mut Receiver, now: Instant) -> Vec<TransferAsk> {
    std::iter::from_fn(|| receiver.poll(now).expect("not given up")).collect()
}

/// Past the manifest.
fn begun(source: &Source, now: Instant) -> Receiver {
    let mut receiver = receiver();
    let asked = asks(&mut receiver, now);
    assert_eq!(asked, [TransferAsk::Manifest { least: Slot(5), generation: Generation::FIRST }]);
    let taken = receiver.on_answer(now, &asked[0], source.answer(&asked[0]));
    assert_eq!(taken, Ok(Taken::Begin(source.manifest.clone())));
    receiver
}

/// Answers everything; the chunks that came, in order.
fn finish(receiver: &mut Receiver, source: &Source, mut now: Instant) -> Vec<usize> {
    let mut stored = Vec::new();
    while !receiver.is_complete() {
        now += MOMENT;
        for ask in asks(receiver, now) {
            match receiver.on_answer(now, &ask, source.answer(&ask)) {
                Ok(Taken::Chunk { index, .. }) => stored.push(index),
                Ok(Taken::Resume) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(receiver.poll(now), Ok(None), "nothing more is asked");
    stored
}

#[test]
fn every_chunk_is_fetched_once_and_only_a_few_are_under_way() {
    let source = Source::of(10);
    let now = Instant::ZERO;
    let mut receiver = begun(&source, now);
    let first = asks(&mut receiver, now);
    assert_eq!(first.len(), ASKS_MAX);
    assert_eq!(receiver.weight(&first[0]), CHUNK_BYTES);
    for ask in &first {
        receiver.on_answer(now, ask, source.answer(ask)).expect("taken");
        let again = receiver.on_answer(now, ask, source.answer(ask));
        assert_eq!(again, Ok(Taken::Nothing), "the same answer twice");
    }
    assert_eq!(receiver.progress(), (4 * CHUNK_BYTES as u64, source.manifest.total_len));
    assert_eq!(finish(&mut receiver, &source, now), [4, 5, 6, 7, 8, 9]);
    assert_eq!(receiver.progress(), (source.manifest.total_len, source.manifest.total_len));
}

#[test]
fn a_damaged_chunk_is_asked_for_again_and_a_peer_that_only_has_such_is_given_up() {
    let source = Source::of(2);
    let mut now = Instant::ZERO;
    let mut receiver = begun(&source, now);
    let asked = asks(&mut receiver, now);
    let mut flipped = source.content[..CHUNK_BYTES].to_vec();
    flipped[77] ^= 1;
    let flipped = TransferAnswer::Chunk(flipped.into());
    for _ in 1..DAMAGED_MAX {
        assert_eq!(receiver.on_answer(now, &asked[0], flipped.clone()), Ok(Taken::Nothing));
        assert_eq!(receiver.progress().0, 0);
        assert_eq!(asks(&mut receiver, now), [], "not at once");
        now += RETRY;
        assert_eq!(asks(&mut receiver, now), [asked[0].clone()]);
    }
    let mut patient = receiver.clone();
    assert_eq!(finish(&mut patient.clone().again(PEER, Slot(5)), &source, now), [0, 1]);
    assert!(matches!(patient.on_answer(now, &asked[0], source.answer(&asked[0])), Ok(Taken::Chunk { index: 0, .. })));
    assert_eq!(receiver.on_answer(now, &asked[0], flipped), Err(GiveUp::Damaged(0)));
}

#[test]
fn what_is_lost_is_asked_for_again_and_a_silent_peer_is_given_up() {
    let source = Source::of(3);
    let now = Instant::ZERO;
    let mut receiver = begun(&source, now);
    let asked = asks(&mut receiver, now);
    receiver.on_failure(now, &asked[1]);
    assert_eq!(receiver.deadline(), Some(now + RETRY));
    assert_eq!(asks(&mut receiver, now + RETRY), [asked[1].clone()]);
    // Anything that comes shows that the others are only late.
    let later = now + (ASK_TIMEOUT - MOMENT);
    receiver.on_answer(later, &asked[0], source.answer(&asked[0])).expect("taken");
    assert_eq!(asks(&mut receiver, now + ASK_TIMEOUT), []);
    assert_eq!(asks(&mut receiver, later + ASK_TIMEOUT), asked[1..]);
    assert_eq!(receiver.poll(later + SILENCE), Err(GiveUp::Silent));
    // Another attempt with the same snapshot goes on where this one ended.
    let again = &mut receiver.again(PEER, Slot(5));
    assert_eq!(again.progress(), (0, 0), "not before the peer has confirmed it");
    assert_eq!(finish(again, &source, later + SILENCE), [1, 2]);
}

#[test]
fn silence_counts_only_while_something_is_asked() {
    let source = Source::of(3);
    let mut receiver = begun(&source, Instant::ZERO);
    let late = Instant::ZERO + SILENCE + SILENCE;
    assert_eq!(asks(&mut receiver, late).len(), 3, "whoever asks late has not waited");
}

#[test]
fn another_snapshot_than_before_is_fetched_from_its_beginning() {
    let (first, mut second) = (Source::of(2), Source::of(2));
    let now = Instant::ZERO;
    let mut receiver = begun(&first, now);
    let asked = asks(&mut receiver, now);
    receiver.on_answer(now, &asked[0], first.answer(&asked[0])).expect("taken");
    second.manifest.slot = Slot(12);
    let mut again = receiver.again(ReplicaId(0), Slot(5));
    assert_eq!(again.from(), ReplicaId(0));
    let ask = asks(&mut again, now).remove(0);
    assert_eq!(again.on_answer(now, &ask, second.answer(&ask)), Ok(Taken::Begin(second.manifest.clone())));
    assert_eq!(again.on_answer(now, &asked[1], first.answer(&asked[1])), Ok(Taken::Nothing), "late, of the first");
    assert_eq!(finish(&mut again, &second, now), [0, 1]);
}

#[test]
fn a_peer_without_a_use_is_given_up_at_once() {
    let source = Source::of(1);
    let now = Instant::ZERO;
    let ask = TransferAsk::Manifest { least: Slot(5), generation: Generation::FIRST };
    let given_up = |answer| {
        let mut receiver = receiver();
        assert_eq!(asks(&mut receiver, now), std::slice::from_ref(&ask));
        receiver.on_answer(now, &ask, answer).expect_err("no use")
    };
    let with = |change: fn(&mut Manifest)| {
        let mut manifest = source.manifest.clone();
        change(&mut manifest);
        TransferAnswer::Manifest(Box::new(manifest))
    };
    assert_eq!(given_up(TransferAnswer::Nothing), GiveUp::Nothing(Slot(5)));
    assert_eq!(given_up(TransferAnswer::Gone), GiveUp::Gone);
    assert_eq!(given_up(TransferAnswer::Chunk(Bytes::new())), GiveUp::Nonsense);
    assert_eq!(given_up(with(|manifest| manifest.slot = Slot(4))), GiveUp::Nonsense, "older than what is of use");
    assert!(matches!(given_up(with(|manifest| manifest.cluster.push('x'))), GiveUp::Manifest(_)));
}
