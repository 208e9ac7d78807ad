//! Who waits for the outcome of which request.
//!
//! Knows nothing of sockets: answers go into a bounded queue for each link, and what a full queue drops is asked again.
//! `R` is what a stream is answered with.

use super::LinkId;
use super::outbox::Outbox;
use crate::metrics::Metrics;
use bytes::Bytes;
use mesh::ids::{Digest, Slot};
use mesh::time::{Duration, Instant};
use mesh::wire::submit::{Answer, FromServer, Reply, Steer, Vote};
use mesh::wire::{Outcome, Tag, encode};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Requests of one link that wait at most; further ones are told to come back.
const WAITERS_MAX: usize = 4096;
/// How long a request waits here at most: whoever asked gave up long before.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Votes in one message, at most.
const VOTES_MAX: usize = 4096;

/// Something for a link's task to send.
#[derive(Debug)]
pub(crate) enum Delivery<R> {
    /// Answer a stream and end it.
    Answer(R, Bytes),
    /// Send a message on a stream of its own.
    Message(Bytes),
}

impl<R> Delivery<R> {
    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Answer(_, bytes) | Self::Message(bytes) => bytes.len(),
        }
    }
}

#[derive(Debug)]
struct Waiter<R> {
    link: LinkId,
    /// Whether the whole reply is wanted, or only a vote.
    whole: bool,
    /// For a vote: only until the end of the turn.
    stream: Option<R>,
    since: Instant,
}

#[derive(Debug)]
struct Link<R> {
    out: Outbox<R>,
    waiting: HashSet<Tag>,
    votes: Vec<Vote>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Waiters<R> {
    links: BTreeMap<LinkId, Link<R>>,
    waiting: HashMap<Tag, Vec<Waiter<R>>>,
    /// Votes asked for in this turn, whose streams are to be ended with it.
    fresh: Vec<(LinkId, Tag)>,
    metrics: Metrics,
}

impl<R> Waiters<R> {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { links: BTreeMap::new(), waiting: HashMap::new(), fresh: Vec::new(), metrics }
    }

    /// A link is up.
    pub(crate) fn link_up(&mut self, link: LinkId, out: Outbox<R>) {
        self.links.insert(link, Link { out, waiting: HashSet::new(), votes: Vec::new() });
    }

    /// A link is gone, and everybody who waited on it.
    pub(crate) fn link_down(&mut self, link: LinkId) {
        let Some(gone) = self.links.remove(&link) else { return };
        for tag in gone.waiting {
            forget(&mut self.waiting, &tag, link);
        }
    }

    /// Takes a request's stream. False if it was turned away: then the request must not be taken either.
    pub(crate) fn register(&mut self, now: Instant, link: LinkId, tag: Tag, whole: bool, stream: R) -> bool {
        // The link went down meanwhile: its streams are gone.
        let Some(entry) = self.links.get_mut(&link) else { return false };
        if entry.waiting.len() >= WAITERS_MAX && !entry.waiting.contains(&tag) {
            self.metrics.reject(Steer::Busy);
            deliver(&self.metrics, entry, Delivery::Answer(stream, steered(Steer::Busy)));
            return false;
        }
        entry.waiting.insert(tag);
        let waiters = self.waiting.entry(tag).or_default();
        // The newest takes the place of the link's older one, whose stream is reset by being dropped.
        waiters.retain(|waiter| waiter.link != link);
        waiters.push(Waiter { link, whole, stream: Some(stream), since: now });
        if !whole {
            self.fresh.push((link, tag));
        }
        true
    }

    /// Turns a request away that was not registered.
    pub(crate) fn refuse(&mut self, link: LinkId, stream: R, steer: Steer) {
        self.metrics.reject(steer);
        if let Some(entry) = self.links.get_mut(&link) {
            deliver(&self.metrics, entry, Delivery::Answer(stream, steered(steer)));
        }
    }

    /// The ordered outcome of a request.
    pub(crate) fn on_reply(&mut self, tag: Tag, slot: Slot, form: Digest, outcome: Option<Outcome>) {
        let Some(waiters) = self.waiting.remove(&tag) else { return };
        // Usually only one link asks for the whole.
        let whole = waiters.iter().any(|waiter| waiter.whole).then(|| match outcome {
            Some(outcome) => encode(&Reply::Whole(Answer { tag, slot, form, outcome, signed: None })),
            None => steered(Steer::TooOld),
        });
        for waiter in waiters {
            let Some(entry) = self.links.get_mut(&waiter.link) else { continue };
            entry.waiting.remove(&tag);
            match (&whole, waiter.whole, waiter.stream) {
                (Some(answer), true, Some(stream)) => {
                    deliver(&self.metrics, entry, Delivery::Answer(stream, answer.clone()));
                }
                (_, false, stream) => {
                    entry.votes.push(Vote { tag, slot, form, signed: None });
                    if let Some(stream) = stream {
                        deliver(&self.metrics, entry, Delivery::Answer(stream, Bytes::new()));
                    }
                }
                (_, true, _) => {}
            }
        }
    }

    /// This replica's own word on a request that it did not take.
    pub(crate) fn on_steer(&mut self, tag: Tag, steer: Steer) {
        let Some(waiters) = self.waiting.remove(&tag) else { return };
        self.metrics.reject(steer);
        for waiter in waiters {
            let Some(entry) = self.links.get_mut(&waiter.link) else { continue };
            entry.waiting.remove(&tag);
            if let Some(stream) = waiter.stream {
                deliver(&self.metrics, entry, Delivery::Answer(stream, steered(steer)));
            }
        }
    }

    /// Ends the streams of this turn's votes and sends the votes that came up.
    pub(crate) fn finish_turn(&mut self) {
        for (link, tag) in self.fresh.drain(..) {
            let waiters = self.waiting.get_mut(&tag).into_iter().flatten();
            for waiter in waiters.filter(|waiter| waiter.link == link && !waiter.whole) {
                if let (Some(stream), Some(entry)) = (waiter.stream.take(), self.links.get_mut(&link)) {
                    deliver(&self.metrics, entry, Delivery::Answer(stream, Bytes::new()));
                }
            }
        }
        for entry in self.links.values_mut() {
            while !entry.votes.is_empty() {
                let rest = entry.votes.split_off(entry.votes.len().min(VOTES_MAX));
                let votes = std::mem::replace(&mut entry.votes, rest);
                deliver(&self.metrics, entry, Delivery::Message(encode(&FromServer::Votes(votes))));
            }
        }
    }

    /// Forgets who gave up or waits for too long. To be called about once a second.
    pub(crate) fn sweep(&mut self, now: Instant, mut gave_up: impl FnMut(&mut R) -> bool) {
        let links = &mut self.links;
        self.waiting.retain(|tag, waiters| {
            waiters.retain_mut(|waiter| {
                let gone = now.since(waiter.since) > WAIT_MAX || waiter.stream.as_mut().is_some_and(&mut gave_up);
                if gone && let Some(entry) = links.get_mut(&waiter.link) {
                    entry.waiting.remove(tag);
                }
                !gone
            });
            !waiters.is_empty()
        });
    }

    /// Whether anybody waits for a whole reply.
    pub(crate) fn anybody_waits(&self) -> bool {
        self.waiting.values().flatten().any(|waiter| waiter.whole)
    }
}

fn forget<R>(waiting: &mut HashMap<Tag, Vec<Waiter<R>>>, tag: &Tag, link: LinkId) {
    if let Some(waiters) = waiting.get_mut(tag) {
        waiters.retain(|waiter| waiter.link != link);
        if waiters.is_empty() {
            waiting.remove(tag);
        }
    }
}

fn deliver<R>(metrics: &Metrics, link: &Link<R>, delivery: Delivery<R>) {
    if !link.out.put(delivery) {
        metrics.rejected.get_or_create(&crate::metrics::Reason { reason: "reply_queue_full" }).inc();
    }
}

fn steered(steer: Steer) -> Bytes {
    encode(&Reply::Steer(steer))
}

#[cfg(test)]
mod tests {
    use super::super::outbox::{Deliveries, outbox};
    use super::*;
    use mesh::ids::{ClientId, Seq};
    use mesh::wire::{Kind, decode};

    const T0: Instant = Instant::ZERO;
    const A: LinkId = LinkId(1);
    const B: LinkId = LinkId(2);

    /// Streams are numbers here.
    type Out = Deliveries<u32>;

    fn waiters() -> (Waiters<u32>, Out, Out) {
        let mut waiters = Waiters::new(Metrics::new(&mut mesh::node::Registry::default()));
        let ((out_a, a), (out_b, b)) = (outbox(), outbox());
        waiters.link_up(A, out_a);
        waiters.link_up(B, out_b);
        (waiters, a, b)
    }

    fn tag(seq: u64) -> Tag {
        Tag { client: ClientId(1), opened: Slot(1), seq: Seq(seq), kind: Kind::Call }
    }

    fn form() -> Digest {
        Digest::of(b"OK\n")
    }

    fn outcome() -> Option<Outcome> {
        Some(Outcome::Executed(Bytes::from_static(b"OK\n")))
    }

    /// What a link was given: streams with their decoded replies (`None`: ended empty), and votes.
    fn given(out: &mut Out) -> (Vec<(u32, Option<Reply>)>, Vec<Vote>) {
        let (mut answers, mut votes) = (Vec::new(), Vec::new());
        while let Some(delivery) = out.try_next() {
            match delivery {
                Delivery::Answer(stream, bytes) if bytes.is_empty() => answers.push((stream, None)),
                Delivery::Answer(stream, bytes) => answers.push((stream, Some(decode(&bytes).expect("a reply")))),
                Delivery::Message(bytes) => match decode(&bytes) {
                    Ok(FromServer::Votes(more)) => votes.extend(more),
                    other => panic!("{other:?} are no votes"),
                },
            }
        }
        (answers, votes)
    }

    #[test]
    fn one_gets_the_whole_reply_and_the_other_a_vote() {
        let (mut waiters, mut a, mut b) = waiters();
        assert!(waiters.register(T0, A, tag(1), true, 10));
        assert!(waiters.register(T0, B, tag(1), false, 20));
        waiters.finish_turn();
        assert_eq!(given(&mut a), (vec![], vec![]));
        assert_eq!(given(&mut b), (vec![(20, None)], vec![]), "a vote's stream ends at once");
        assert!(waiters.anybody_waits());
        waiters.on_reply(tag(1), Slot(5), form(), outcome());
        waiters.finish_turn();
        let answer =
            Answer { tag: tag(1), slot: Slot(5), form: form(), outcome: outcome().expect("one"), signed: None };
        assert_eq!(given(&mut a), (vec![(10, Some(Reply::Whole(answer)))], vec![]));
        assert_eq!(given(&mut b), (vec![], vec![Vote { tag: tag(1), slot: Slot(5), form: form(), signed: None }]));
        assert!(!waiters.anybody_waits());
        waiters.on_reply(tag(1), Slot(5), form(), outcome());
        waiters.finish_turn();
        assert_eq!((given(&mut a), given(&mut b)), ((vec![], vec![]), (vec![], vec![])), "nobody waits any more");
    }

    #[test]
    fn votes_of_one_turn_go_in_one_message() {
        let (mut waiters, mut a, _b) = waiters();
        for seq in 1..=100 {
            assert!(waiters.register(T0, A, tag(seq), false, 0));
        }
        for seq in 1..=100 {
            waiters.on_reply(tag(seq), Slot(seq), form(), outcome());
        }
        waiters.finish_turn();
        let mut messages = 0;
        while let Some(delivery) = a.try_next() {
            messages += u32::from(matches!(delivery, Delivery::Message(_)));
        }
        assert_eq!(messages, 1);
    }

    #[test]
    fn a_steer_reaches_both_kinds_in_the_same_turn_and_later_only_the_whole() {
        let (mut waiters, mut a, mut b) = waiters();
        for late in [false, true] {
            assert!(waiters.register(T0, A, tag(1), true, 10));
            assert!(waiters.register(T0, B, tag(1), false, 20));
            if late {
                waiters.finish_turn();
            }
            waiters.on_steer(tag(1), Steer::NoSession);
            waiters.finish_turn();
            let steer = Some(Reply::Steer(Steer::NoSession));
            assert_eq!(given(&mut a), (vec![(10, steer.clone())], vec![]));
            assert_eq!(given(&mut b), (vec![(20, if late { None } else { steer })], vec![]));
        }
    }

    #[test]
    fn where_only_the_hash_was_kept_the_whole_is_too_old_and_the_vote_counts() {
        let (mut waiters, mut a, mut b) = waiters();
        assert!(waiters.register(T0, A, tag(1), true, 10));
        assert!(waiters.register(T0, B, tag(1), false, 20));
        waiters.on_reply(tag(1), Slot(5), form(), None);
        waiters.finish_turn();
        assert_eq!(given(&mut a), (vec![(10, Some(Reply::Steer(Steer::TooOld)))], vec![]));
        assert_eq!(
            given(&mut b),
            (vec![(20, None)], vec![Vote { tag: tag(1), slot: Slot(5), form: form(), signed: None }])
        );
    }

    #[test]
    fn the_newest_stream_of_a_link_takes_the_place_of_the_older() {
        let (mut waiters, mut a, _b) = waiters();
        assert!(waiters.register(T0, A, tag(1), false, 10));
        assert!(waiters.register(T0, A, tag(1), true, 11));
        waiters.finish_turn();
        waiters.on_reply(tag(1), Slot(5), form(), outcome());
        waiters.finish_turn();
        let (answers, votes) = given(&mut a);
        assert_eq!((answers.len(), answers[0].0, votes.len()), (1, 11, 0));
    }

    #[test]
    fn a_link_that_is_gone_is_forgotten_and_a_full_one_turned_away() {
        let (mut waiters, mut a, mut b) = waiters();
        for seq in 1..=WAITERS_MAX as u64 {
            assert!(waiters.register(T0, A, tag(seq), true, 0));
        }
        assert!(!waiters.register(T0, A, tag(0), true, 9), "one too many");
        assert_eq!(given(&mut a).0, [(9, Some(Reply::Steer(Steer::Busy)))]);
        assert!(waiters.register(T0, A, tag(1), true, 0), "not one more");
        assert!(waiters.register(T0, B, tag(1), true, 20), "another link is not held up");
        waiters.link_down(A);
        assert!(!waiters.register(T0, A, tag(1), true, 0), "the link is gone");
        waiters.on_reply(tag(1), Slot(5), form(), outcome());
        assert_eq!(given(&mut b).0.len(), 1);
        assert!(waiters.waiting.is_empty());
    }

    #[test]
    fn who_gave_up_or_waits_too_long_is_forgotten() {
        let (mut waiters, _a, _b) = waiters();
        assert!(waiters.register(T0, A, tag(1), true, 1));
        assert!(waiters.register(T0, B, tag(1), true, 2));
        assert!(waiters.register(T0, B, tag(2), false, 3));
        waiters.finish_turn();
        waiters.sweep(T0, |stream| *stream == 1);
        assert_eq!(waiters.waiting[&tag(1)].len(), 1);
        assert!(waiters.links[&A].waiting.is_empty());
        waiters.sweep(T0 + WAIT_MAX + Duration::from_secs(1), |_| false);
        assert!(waiters.waiting.is_empty() && waiters.links[&B].waiting.is_empty());
    }
}
