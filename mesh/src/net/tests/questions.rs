//! Questions over a kept link: what goes out at once and what has to wait for credit or room are the same to whoever asks.

use super::super::kept::{self, Line, Question, Standing, Target};
use super::*;
use crate::ids::{ClientId, Opening, Seq};
use crate::wire::{Kind, Tag};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
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

impl Question for Asking {
    fn tag(&self) -> Tag {
        Tag { client: ClientId(1), opened: Opening::NONE, seq: Seq(self.seq), kind: Kind::Call }
    }
    fn encode(&self) -> Bytes {
        let mut message = BytesMut::zeroed(self.bytes.max(8));
        message[..8].copy_from_slice(&self.seq.to_le_bytes());
        message.freeze()
    }
    fn until(&self) -> Instant {
        self.until
    }
    fn is_answered(&self) -> bool {
        self.answered
    }
}

#[derive(Debug)]
enum Event {
    Up(mpsc::Sender<Asking>),
    Down,
    Answered(u64, Bytes),
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
    fn answered(&self, tag: Tag, answer: Bytes) -> Option<Event> {
        Some(Event::Answered(tag.seq.0, answer))
    }
    fn received(&self, _message: Bytes) -> Option<Event> {
        None
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

/// Mutants: a question that is dropped where there is no credit, or asked twice; an answer that goes to another question.
#[tokio::test]
async fn each_question_is_asked_once_whatever_has_to_wait_and_gets_its_own_answer() {
    let pki = Pki::new();
    let (_server, _client, queue, mut events, other) = kept_link(&pki).await;
    let serving = tokio::spawn(async move {
        let (mut asked, mut told) = (BTreeMap::new(), BTreeMap::new());
        while asked.len() + told.len() < QUESTIONS as usize {
            tokio::select! {
                asking = other.accept_ask() => {
                    let (question, responder) = asking.unwrap();
                    *asked.entry(seq_of(&question)).or_insert(0) += 1;
                    // What cannot go at once goes later.
                    if let Err((responder, rest)) = responder.answer_now(question) {
                        responder.answer(rest).await.unwrap();
                    }
                }
                message = other.receive() => *told.entry(seq_of(&message.unwrap())).or_insert(0) += 1,
            }
        }
        (asked, told, other)
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
            Some(Event::Answered(seq, answer)) => {
                assert_eq!(seq_of(&answer), seq);
                assert!(answers.insert(seq, answer.len()).is_none(), "answered twice");
            }
            event => panic!("{event:?}"),
        }
    }
    let (asked, told, _other) = serving.await.unwrap();
    assert!(asked.values().chain(told.values()).all(|times| *times == 1), "asked more than once");
    assert!(asked.keys().all(|seq| seq % 3 == 0) && told.keys().all(|seq| seq % 3 != 0));
    drop(asking.await.unwrap());
}

/// Mutant: a question that nobody waits for keeps its stream, until there is no credit for others.
#[tokio::test]
async fn what_is_not_answered_in_time_gives_its_stream_back() {
    let pki = Pki::new();
    let (_server, _client, queue, mut events, other) = kept_link(&pki).await;
    let soon = Instant::now() + Duration::from_millis(200);
    for seq in 0..u64::from(STREAMS) {
        queue.send(Asking { seq, bytes: 8, until: soon, answered: true }).await.unwrap();
    }
    let mut held = Vec::new();
    while held.len() < STREAMS as usize {
        held.push(other.accept_ask().await.unwrap());
    }
    let late = Instant::now() + Duration::from_secs(60);
    queue.send(Asking { seq: 99, bytes: 8, until: late, answered: true }).await.unwrap();
    for (_, responder) in &mut held {
        tokio::time::timeout(Duration::from_secs(30), responder.gone()).await.expect("the asker gave up");
    }
    drop(held);
    let (question, responder) =
        tokio::time::timeout(Duration::from_secs(30), other.accept_ask()).await.unwrap().unwrap();
    responder.answer_now(question).expect("a small one");
    let event = tokio::time::timeout(Duration::from_secs(30), events.recv()).await.unwrap();
    assert!(matches!(event, Some(Event::Answered(99, _))), "{event:?}");
}
