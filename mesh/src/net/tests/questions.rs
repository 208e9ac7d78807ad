//! Questions over a kept link: what goes out at once and what has to wait for credit or room are the same to whoever asks.

use super::super::kept::{self, Line, Question, Standing, Target};
use super::*;
use crate::ids::{ClientId, Opening, Seq};
use crate::wire::{Kind, Tag};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Many times what a link has credit for.
const QUESTIONS: u64 = 3_000;

struct Asking {
    seq: u64,
    bytes: usize,
    until: Instant,
    answered: bool,
}

fn tag(seq: u64) -> Tag {
    Tag { client: ClientId(1), opened: Opening::NONE, seq: Seq(seq), kind: Kind::Call }
}

impl Question for Asking {
    fn tag(&self) -> Option<Tag> {
        self.answered.then(|| tag(self.seq))
    }
    fn encode(&self) -> Bytes {
        let mut message = BytesMut::zeroed(self.bytes.max(8));
        message[..8].copy_from_slice(&self.seq.to_le_bytes());
        message.freeze()
    }
    fn until(&self) -> Instant {
        self.until
    }
}

#[derive(Debug)]
enum Event {
    Up(mpsc::Sender<Asking>),
    Down,
    Answered(Vec<u64>),
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Asking").field(&self.seq).finish()
    }
}

struct ToOther;

impl Line for ToOther {
    type Question = Asking;
    type Event = Event;
    fn up(&self, queue: mpsc::Sender<Asking>) -> Event {
        Event::Up(queue)
    }
    fn down(&self) -> Event {
        Event::Down
    }
    fn received(&self, message: Bytes, answered: &mut dyn FnMut(&Tag)) -> Option<Event> {
        let seqs: Vec<u64> = message.chunks(8).map(|seq| u64::from_le_bytes(seq.try_into().unwrap())).collect();
        seqs.iter().for_each(|seq| answered(&tag(*seq)));
        Some(Event::Answered(seqs))
    }
}

fn seq_of(message: &Bytes) -> u64 {
    u64::from_le_bytes(message[..8].try_into().unwrap())
}

/// A kept link, its queue, its events and its other end.
async fn kept_link(pki: &Pki) -> (Part, Part, mpsc::Sender<Asking>, mpsc::Receiver<Event>, Link) {
    let server = Part::new(pki.issue(Role::Server, "0").load());
    let client = Part::new(pki.issue(Role::SmartClient, "a").load());
    let target = Target { kind: LinkKind::Submit, address: server.address(), id: None };
    let (events_in, mut events) = mpsc::channel(64);
    let keeping = kept::keep(ToOther, client.endpoint.clone(), Standing::new(target), events_in, Backoff::new(1));
    tokio::spawn(keeping);
    let other = server.endpoint.accept().await.unwrap();
    let Some(Event::Up(queue)) = events.recv().await else { panic!("not up") };
    (server, client, queue, events, other)
}

/// Mutants: a question that is dropped where there is no credit, or asked twice; one that waits for ever beside those that
/// were answered; an answer that makes no room.
#[tokio::test]
async fn each_question_is_asked_once_whatever_has_to_wait() {
    let pki = Pki::new();
    let (_server, _client, queue, mut events, other) = kept_link(&pki).await;
    let serving = tokio::spawn(async move {
        let mut asked = BTreeMap::new();
        let mut answers = BytesMut::new();
        while asked.len() < QUESTIONS as usize {
            let seq = seq_of(&other.receive().await.unwrap());
            *asked.entry(seq).or_insert(0) += 1;
            if seq.is_multiple_of(3) {
                answers.extend_from_slice(&seq.to_le_bytes());
            }
            // Several at once, and what cannot go at once goes later.
            if seq.is_multiple_of(60) {
                let together = answers.split().freeze();
                if let Err(together) = other.send_now(together) {
                    other.send(together).await.unwrap();
                }
            }
        }
        other.send(answers.freeze()).await.unwrap();
        (asked, other)
    });
    let until = Instant::now() + Duration::from_secs(60);
    let asking = tokio::spawn(async move {
        for seq in 0..QUESTIONS {
            let bytes = if seq % 17 == 0 { MESSAGE_BYTES } else { 100 };
            queue.send(Asking { seq, bytes, until, answered: seq % 3 == 0 }).await.unwrap();
        }
        queue
    });
    let mut answers = BTreeMap::new();
    while answers.len() < QUESTIONS.div_ceil(3) as usize {
        match tokio::time::timeout(Duration::from_secs(60), events.recv()).await.expect("in time") {
            Some(Event::Answered(seqs)) => {
                seqs.into_iter().for_each(|seq| assert!(answers.insert(seq, ()).is_none(), "answered twice"));
            }
            event => panic!("{event:?}"),
        }
    }
    let (asked, _other) = serving.await.unwrap();
    assert!(asked.values().all(|times| *times == 1), "asked more than once");
    drop(asking.await.unwrap());
}

/// Mutants: a link that is asked for more than it answers; a question that nobody waits for any more and that keeps its place.
#[tokio::test]
async fn so_many_are_asked_at_a_time_and_what_is_not_answered_in_time_makes_room() {
    let pki = Pki::new();
    let (_server, _client, queue, _events, other) = kept_link(&pki).await;
    let soon = Instant::now() + Duration::from_secs(2);
    let late = Instant::now() + Duration::from_secs(60);
    let asked = kept::ASKED as u64;
    for seq in 0..asked {
        queue.send(Asking { seq, bytes: 8, until: soon, answered: true }).await.unwrap();
    }
    queue.send(Asking { seq: asked, bytes: 8, until: late, answered: true }).await.unwrap();
    let mut first = BTreeSet::new();
    while first.len() < asked as usize {
        first.insert(seq_of(&other.receive().await.unwrap()));
    }
    assert!(first.into_iter().eq(0..asked));
    let next = tokio::time::timeout(Duration::from_secs(30), other.receive()).await.unwrap().unwrap();
    assert_eq!(seq_of(&next), asked);
    assert!(Instant::now() >= soon, "there was no room before");
}
