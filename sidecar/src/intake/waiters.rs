//! Who waits for the outcome of which request.
//!
//! Knows nothing of sockets: answers go into a bounded queue for each link, and what a full queue drops is asked again.
//! `R` is what a stream is answered with. With signatures the answers of a turn wait for its end, where one signature is
//! made for all of them.

use super::LinkId;
use super::outbox::Outbox;
use super::signatory::{Saying, Signatory, Voice};
use crate::metrics::Metrics;
use bytes::Bytes;
use mesh::ids::{Digest, Slot};
use mesh::net::Signer;
use mesh::time::{Duration, Instant};
use mesh::wire::submit::{Answer, FromServer, Reply, Signed, Steer, Vote};
use mesh::wire::{Outcome, Tag, encode};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

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
    /// Where the whole reply goes; none: only the vote is wanted.
    stream: Option<R>,
    since: Instant,
}

#[derive(Debug)]
struct Link<R> {
    out: Outbox<R>,
    waiting: HashSet<Tag>,
    votes: Vec<Vote>,
    steers: Vec<(Tag, Steer)>,
}

/// An outcome and who waited for it.
#[derive(Debug)]
struct Reached<R> {
    said: Saying,
    outcome: Option<Outcome>,
    waiters: Vec<Waiter<R>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Waiters<R> {
    links: BTreeMap<LinkId, Link<R>>,
    waiting: HashMap<Tag, Vec<Waiter<R>>>,
    /// Signs what is answered, if that is to be signed.
    signatory: Option<Signatory>,
    /// This turn's outcomes that are to be signed.
    unsigned: Vec<Reached<R>>,
    metrics: Metrics,
}

impl<R> Waiters<R> {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { links: BTreeMap::new(), waiting: HashMap::new(), signatory: None, unsigned: Vec::new(), metrics }
    }

    /// Signs what is answered from now on; with another key than before as soon as everybody had the time to hear of it.
    /// Links that are up are told of the key here, the others first of all.
    pub(crate) fn sign_with(&mut self, now: Instant, voice: Voice, signer: Arc<Signer>) {
        for link in self.links.values() {
            introduce(&self.metrics, link, &signer);
        }
        match &mut self.signatory {
            Some(signatory) => signatory.succeed(now, signer),
            None => self.signatory = Some(Signatory::new(voice, signer)),
        }
    }

    /// So many members' replies count from now on.
    pub(crate) fn set_electorate(&mut self, electorate: usize) {
        if let Some(signatory) = &mut self.signatory {
            signatory.set_electorate(electorate);
        }
    }

    /// A link is up.
    pub(crate) fn link_up(&mut self, link: LinkId, out: Outbox<R>) {
        let entry = Link { out, waiting: HashSet::new(), votes: Vec::new(), steers: Vec::new() };
        for signer in self.signatory.iter().flat_map(Signatory::signers) {
            introduce(&self.metrics, &entry, signer);
        }
        self.links.insert(link, entry);
    }

    /// A link is gone, and everybody who waited on it.
    pub(crate) fn link_down(&mut self, link: LinkId) {
        let Some(gone) = self.links.remove(&link) else { return };
        for tag in gone.waiting {
            forget(&mut self.waiting, &tag, link);
        }
    }

    /// Takes a request's stream, or the wish for a vote. False if it was turned away: then the request must not be taken
    /// either.
    pub(crate) fn register(&mut self, now: Instant, link: LinkId, tag: Tag, stream: Option<R>) -> bool {
        // The link went down meanwhile: its streams are gone.
        let Some(entry) = self.links.get_mut(&link) else { return false };
        if entry.waiting.len() >= WAITERS_MAX && !entry.waiting.contains(&tag) {
            self.metrics.reject(Steer::Busy);
            steer_one(&self.metrics, entry, tag, stream, Steer::Busy);
            return false;
        }
        entry.waiting.insert(tag);
        let waiters = self.waiting.entry(tag).or_default();
        // The newest takes the place of the link's older one, whose stream is reset by being dropped.
        waiters.retain(|waiter| waiter.link != link);
        waiters.push(Waiter { link, stream, since: now });
        true
    }

    /// Turns a request away that was not registered.
    pub(crate) fn refuse(&mut self, link: LinkId, tag: Tag, stream: Option<R>, steer: Steer) {
        self.metrics.reject(steer);
        if let Some(entry) = self.links.get_mut(&link) {
            steer_one(&self.metrics, entry, tag, stream, steer);
        }
    }

    /// Answers a stream that was not registered.
    pub(crate) fn say(&mut self, link: LinkId, stream: R, bytes: Bytes) {
        if let Some(entry) = self.links.get_mut(&link) {
            deliver(&self.metrics, entry, Delivery::Answer(stream, bytes));
        }
    }

    /// The ordered outcome of a request.
    pub(crate) fn on_reply(&mut self, tag: Tag, slot: Slot, form: Digest, outcome: Option<Outcome>) {
        let Some(waiters) = self.waiting.remove(&tag) else { return };
        for waiter in &waiters {
            if let Some(entry) = self.links.get_mut(&waiter.link) {
                entry.waiting.remove(&tag);
            }
        }
        let reached = Reached { said: Saying { tag, slot, form }, outcome, waiters };
        match self.signatory {
            None => self.give(reached, None),
            Some(_) => self.unsigned.push(reached),
        }
    }

    /// Answers everybody who waited for an outcome.
    fn give(&mut self, reached: Reached<R>, signed: Option<&Signed>) {
        let Reached { said: Saying { tag, slot, form }, outcome, waiters } = reached;
        // Usually only one link asks for the whole.
        let whole = waiters.iter().any(|waiter| waiter.stream.is_some()).then(|| match outcome {
            Some(outcome) => encode(&Reply::Whole(Answer { tag, slot, form, outcome, signed: signed.cloned() })),
            None => steered(Steer::TooOld),
        });
        for waiter in waiters {
            let Some(entry) = self.links.get_mut(&waiter.link) else { continue };
            match (waiter.stream, &whole) {
                (Some(stream), Some(answer)) => {
                    deliver(&self.metrics, entry, Delivery::Answer(stream, answer.clone()));
                }
                _ => entry.votes.push(Vote { tag, slot, form, signed: signed.cloned() }),
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
            steer_one(&self.metrics, entry, tag, waiter.stream, steer);
        }
    }

    /// Signs this turn's outcomes and answers whoever waits for them: one signature, unless they are very many.
    fn sign(&mut self) {
        let Some(signatory) = &self.signatory else { return };
        let reached = std::mem::take(&mut self.unsigned);
        let signed = signatory.sign(reached.iter().map(|reached| (&reached.said, reached.outcome.as_ref())));
        for (reached, signed) in reached.into_iter().zip(signed) {
            self.give(reached, Some(&signed));
        }
    }

    /// Sends the votes and words that came up in this turn.
    pub(crate) fn finish_turn(&mut self) {
        self.sign();
        for entry in self.links.values_mut() {
            while !entry.votes.is_empty() {
                let rest = entry.votes.split_off(entry.votes.len().min(VOTES_MAX));
                let votes = std::mem::replace(&mut entry.votes, rest);
                deliver(&self.metrics, entry, Delivery::Message(encode(&FromServer::Votes(votes))));
            }
            if !entry.steers.is_empty() {
                let steers = std::mem::take(&mut entry.steers);
                deliver(&self.metrics, entry, Delivery::Message(encode(&FromServer::Steers(steers))));
            }
        }
    }

    /// Forgets who gave up or waits for too long. To be called about once a second.
    pub(crate) fn sweep(&mut self, now: Instant, mut gave_up: impl FnMut(&mut R) -> bool) {
        if let Some(signatory) = &mut self.signatory {
            signatory.look_at_the_time(now);
        }
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
        self.waiting.values().flatten().any(|waiter| waiter.stream.is_some())
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

/// This replica's own word for one who waits.
fn steer_one<R>(metrics: &Metrics, link: &mut Link<R>, tag: Tag, stream: Option<R>, steer: Steer) {
    match stream {
        Some(stream) => deliver(metrics, link, Delivery::Answer(stream, steered(steer))),
        None => link.steers.push((tag, steer)),
    }
}

fn deliver<R>(metrics: &Metrics, link: &Link<R>, delivery: Delivery<R>) {
    if !link.out.put(delivery) {
        metrics.rejected.get_or_create(&crate::metrics::Reason { reason: "reply_queue_full" }).inc();
    }
}

/// Shows a link the certificate of what signs, or will.
fn introduce<R>(metrics: &Metrics, link: &Link<R>, signer: &Signer) {
    let certificate = FromServer::Signer(signer.certificate().clone());
    deliver(metrics, link, Delivery::Message(encode(&certificate)));
}

fn steered(steer: Steer) -> Bytes {
    encode(&Reply::Steer(steer))
}

#[cfg(test)]
mod tests {
    use super::super::outbox::{Deliveries, outbox};
    use super::*;
    use mesh::auth::{self, Asked, SecretKey, Verifier};
    use mesh::ids::Generation;
    use mesh::ids::{ClientId, ReplicaId, Seq};
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
        Tag { client: ClientId(1), opened: Generation::FIRST.at(Slot(1)), seq: Seq(seq), kind: Kind::Call }
    }

    fn form() -> Digest {
        Digest::of(b"OK\n")
    }

    fn outcome() -> Option<Outcome> {
        Some(Outcome::Executed(Bytes::from_static(b"OK\n")))
    }

    /// Streams with their decoded replies, votes, and words that came without a stream.
    type Given = (Vec<(u32, Reply)>, Vec<Vote>, Vec<(Tag, Steer)>);

    /// What a link was given.
    fn all_given(out: &mut Out) -> Given {
        let (mut answers, mut votes, mut steers) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(delivery) = out.try_next() {
            match delivery {
                Delivery::Answer(stream, bytes) => answers.push((stream, decode(&bytes).expect("a reply"))),
                Delivery::Message(bytes) => match decode(&bytes) {
                    Ok(FromServer::Votes(more)) => votes.extend(more),
                    Ok(FromServer::Steers(more)) => steers.extend(more),
                    other => panic!("{other:?}"),
                },
            }
        }
        (answers, votes, steers)
    }

    /// The same without such words.
    fn given(out: &mut Out) -> (Vec<(u32, Reply)>, Vec<Vote>) {
        let (answers, votes, steers) = all_given(out);
        assert_eq!(steers, []);
        (answers, votes)
    }

    #[test]
    fn one_gets_the_whole_reply_and_the_other_a_vote() {
        let (mut waiters, mut a, mut b) = waiters();
        assert!(waiters.register(T0, A, tag(1), Some(10)));
        assert!(waiters.register(T0, B, tag(1), None));
        waiters.finish_turn();
        assert_eq!(given(&mut a), (vec![], vec![]));
        assert_eq!(given(&mut b), (vec![], vec![]));
        assert!(waiters.anybody_waits());
        waiters.on_reply(tag(1), Slot(5), form(), outcome());
        waiters.finish_turn();
        let answer =
            Answer { tag: tag(1), slot: Slot(5), form: form(), outcome: outcome().expect("one"), signed: None };
        assert_eq!(given(&mut a), (vec![(10, Reply::Whole(answer))], vec![]));
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
            assert!(waiters.register(T0, A, tag(seq), None));
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
    fn a_steer_reaches_both_kinds_in_the_same_turn_and_later() {
        let (mut waiters, mut a, mut b) = waiters();
        for late in [false, true] {
            assert!(waiters.register(T0, A, tag(1), Some(10)));
            assert!(waiters.register(T0, B, tag(1), None));
            if late {
                waiters.finish_turn();
            }
            waiters.on_steer(tag(1), Steer::NoSession);
            waiters.finish_turn();
            assert_eq!(given(&mut a), (vec![(10, Reply::Steer(Steer::NoSession))], vec![]));
            assert_eq!(all_given(&mut b), (vec![], vec![], vec![(tag(1), Steer::NoSession)]));
        }
    }

    #[test]
    fn where_only_the_hash_was_kept_the_whole_is_too_old_and_the_vote_counts() {
        let (mut waiters, mut a, mut b) = waiters();
        assert!(waiters.register(T0, A, tag(1), Some(10)));
        assert!(waiters.register(T0, B, tag(1), None));
        waiters.on_reply(tag(1), Slot(5), form(), None);
        waiters.finish_turn();
        assert_eq!(given(&mut a), (vec![(10, Reply::Steer(Steer::TooOld))], vec![]));
        assert_eq!(given(&mut b), (vec![], vec![Vote { tag: tag(1), slot: Slot(5), form: form(), signed: None }]));
    }

    #[test]
    fn the_newest_stream_of_a_link_takes_the_place_of_the_older() {
        let (mut waiters, mut a, _b) = waiters();
        assert!(waiters.register(T0, A, tag(1), None));
        assert!(waiters.register(T0, A, tag(1), Some(11)));
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
            assert!(waiters.register(T0, A, tag(seq), Some(0)));
        }
        assert!(!waiters.register(T0, A, tag(0), Some(9)), "one too many");
        assert_eq!(given(&mut a).0, [(9, Reply::Steer(Steer::Busy))]);
        assert!(waiters.register(T0, A, tag(1), Some(0)), "not one more");
        assert!(waiters.register(T0, B, tag(1), Some(20)), "another link is not held up");
        waiters.link_down(A);
        assert!(!waiters.register(T0, A, tag(1), Some(0)), "the link is gone");
        waiters.on_reply(tag(1), Slot(5), form(), outcome());
        assert_eq!(given(&mut b).0.len(), 1);
        assert!(waiters.waiting.is_empty());
    }

    #[test]
    fn who_gave_up_or_waits_too_long_is_forgotten() {
        let (mut waiters, _a, _b) = waiters();
        assert!(waiters.register(T0, A, tag(1), Some(1)));
        assert!(waiters.register(T0, B, tag(1), Some(2)));
        assert!(waiters.register(T0, B, tag(2), None));
        waiters.finish_turn();
        waiters.sweep(T0, |stream| *stream == 1);
        assert_eq!(waiters.waiting[&tag(1)].len(), 1);
        assert!(waiters.links[&A].waiting.is_empty());
        waiters.sweep(T0 + WAIT_MAX + Duration::from_secs(1), |_| false);
        assert!(waiters.waiting.is_empty() && waiters.links[&B].waiting.is_empty());
    }

    /// Has `waiters` sign with the key of that seed.
    fn sign_with(waiters: &mut Waiters<u32>, now: Instant, seed: u8) -> SecretKey {
        let key = || SecretKey::from_seed(&[seed; 32]).expect("a seed is a key");
        let signer = Arc::new(Signer::unchecked(key(), Bytes::copy_from_slice(&[seed])));
        waiters.sign_with(now, Voice { cluster: "c".to_owned(), replica: ReplicaId(2), electorate: 3 }, signer);
        key()
    }

    /// What a link was given, with the certificates that it was shown first.
    fn given_signed(out: &mut Out) -> (Vec<u8>, Vec<Vote>) {
        let (mut certificates, mut votes) = (Vec::new(), Vec::new());
        while let Some(delivery) = out.try_next() {
            match delivery {
                Delivery::Answer(_, bytes) => match decode(&bytes) {
                    Ok(Reply::Whole(Answer { tag, slot, form, outcome, signed })) => {
                        let content = signed.as_ref().map(|signed| signed.content);
                        assert_eq!(content, Some(outcome.content()), "the bytes are vouched for");
                        votes.push(Vote { tag, slot, form, signed });
                    }
                    other => panic!("{other:?} is no outcome"),
                },
                Delivery::Message(bytes) => match decode(&bytes) {
                    Ok(FromServer::Votes(more)) => votes.extend(more),
                    Ok(FromServer::Signer(certificate)) => certificates.push(certificate[0]),
                    other => panic!("{other:?}"),
                },
            }
        }
        (certificates, votes)
    }

    fn holds(vote: &Vote, key: &SecretKey, verifier: &mut Verifier) -> bool {
        vote.vouched(ReplicaId(2)).is_some_and(|word| word.holds("c", &vote.tag, &key.public(), verifier))
    }

    #[test]
    fn everything_that_a_turn_answers_has_one_signature_and_each_its_own_proof() {
        let (mut waiters, mut a, mut b) = waiters();
        let key = sign_with(&mut waiters, T0, 7);
        for seq in 1..=100 {
            assert!(waiters.register(T0, A, tag(seq), Some(10)));
            assert!(waiters.register(T0, B, tag(seq), None));
        }
        for seq in 1..=100 {
            waiters.on_reply(tag(seq), Slot(seq), form(), outcome());
            assert!(!waiters.anybody_waits() || seq < 100);
        }
        waiters.finish_turn();
        let ((shown, whole), (_, votes)) = (given_signed(&mut a), given_signed(&mut b));
        assert_eq!((shown, whole.len(), votes.len()), (vec![7], 100, 100));
        assert_eq!(whole, votes, "both links have the same words");
        let (mut verifier, mut asked) = (Verifier::default(), 0);
        for (seq, vote) in (1..).zip(&votes) {
            assert_eq!((vote.tag, vote.slot), (tag(seq), Slot(seq)));
            let word = vote.vouched(ReplicaId(2)).expect("signed");
            assert_eq!(word.electorate, 3);
            let said = auth::reply_statement("c", ReplicaId(2), &tag(seq), Slot(seq), 3, &form(), &word.content);
            if let Asked::Sought(question) = verifier.question(&word.proof, &said, &key.public()) {
                asked += 1;
                verifier.remember(&question.answer().expect("it was signed"));
            }
            assert!(holds(vote, &key, &mut verifier));
        }
        assert_eq!(asked, 1, "one signature for the turn");
    }

    #[test]
    fn a_word_on_a_hash_counts_for_the_form_and_vouches_for_no_bytes() {
        let (mut waiters, mut a, _b) = waiters();
        let key = sign_with(&mut waiters, T0, 7);
        assert!(waiters.register(T0, A, tag(1), None));
        waiters.on_reply(tag(1), Slot(5), form(), None);
        waiters.finish_turn();
        let (_, votes) = given_signed(&mut a);
        assert!(holds(&votes[0], &key, &mut Verifier::default()));
        assert_ne!(votes[0].signed.as_ref().expect("signed").content, outcome().expect("one").content());
    }

    #[test]
    fn another_key_is_announced_before_it_signs() {
        let (mut waiters, mut a, mut b) = waiters();
        let old = sign_with(&mut waiters, T0, 7);
        let new = sign_with(&mut waiters, T0, 8);
        let mut said = |waiters: &mut Waiters<u32>, now: Instant, seq| {
            waiters.sweep(now, |_| false);
            assert!(waiters.register(now, A, tag(seq), None));
            waiters.on_reply(tag(seq), Slot(seq), form(), outcome());
            waiters.finish_turn();
            given_signed(&mut a)
        };
        let (shown, votes) = said(&mut waiters, T0 + Duration::from_secs(1), 1);
        assert_eq!(shown, [7, 8]);
        assert!(holds(&votes[0], &old, &mut Verifier::default()), "too early for the new one");
        let (out, mut late) = outbox();
        waiters.link_up(LinkId(3), out);
        assert_eq!(given_signed(&mut late).0, [7, 8], "a new link is shown both");
        let (_, votes) = said(&mut waiters, T0 + Duration::from_secs(3), 2);
        assert!(holds(&votes[0], &new, &mut Verifier::default()));
        assert_eq!(given_signed(&mut b).0, [7, 8]);
    }
}
