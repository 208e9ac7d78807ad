//! Who waits for the outcome of which request.
//!
//! Knows nothing of sockets: what is said goes into a bounded queue for each link, all of a turn in one message, and what a
//! full queue drops is asked again. A request that came by a leader's proposal is waited for by whoever asked the leader. With
//! signatures the answers of a turn wait for its end, where one signature is made for all of them.

use super::LinkId;
use super::outbox::Outbox;
use super::signatory::{Saying, Signatory, Voice};
use crate::metrics::Metrics;
use bytes::Bytes;
use mesh::ids::{Ballot, Digest, Slot};
use mesh::net::Signer;
use mesh::time::{Duration, Instant};
use mesh::wire::peer::Desk;
use mesh::wire::submit::{Answer, FromServer, Said, Signed, Steer, Vote};
use mesh::wire::{Outcome, Request, Tag, encode};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Requests of one link that wait at most; further ones are told to come back.
const WAITERS_MAX: usize = 16_384;
/// How long a request waits here at most: whoever asked gave up long before.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);
/// Votes in one message, at most.
const VOTES_MAX: usize = 4096;
/// Bytes of whole replies in one message beside others. A larger one has a message of its own, behind which nothing waits.
const ANSWERS_BYTES: usize = 32 << 10;

#[derive(Clone, Copy, Debug)]
struct Waiter {
    link: LinkId,
    /// Whether the whole reply is wanted, or only the vote.
    whole: bool,
    until: Instant,
}

#[derive(Debug)]
struct Link {
    out: Outbox,
    /// Whose votes are sent over it.
    desk: Desk,
    waiting: usize,
    said: Said,
    /// Bytes of the outcomes in it.
    bytes: usize,
}

/// An outcome and who waited for it.
#[derive(Debug)]
struct Reached {
    said: Saying,
    outcome: Option<Outcome>,
    waiters: Vec<Waiter>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Waiters {
    links: BTreeMap<LinkId, Link>,
    waiting: HashMap<Tag, Vec<Waiter>>,
    /// The ballot in which this member leads, if it does.
    leads: Option<Ballot>,
    /// Signs what is answered, if that is to be signed.
    signatory: Option<Signatory>,
    /// This turn's outcomes that are to be signed.
    unsigned: Vec<Reached>,
    metrics: Metrics,
}

impl Waiters {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            links: BTreeMap::new(),
            waiting: HashMap::new(),
            leads: None,
            signatory: None,
            unsigned: Vec::new(),
            metrics,
        }
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

    /// Whether this member leads, and in which ballot: that goes with whatever is said.
    pub(crate) const fn set_leads(&mut self, leads: Option<Ballot>) {
        self.leads = leads;
    }

    /// A link is up.
    pub(crate) fn link_up(&mut self, link: LinkId, out: Outbox) {
        let entry = Link { out, desk: Desk::default(), waiting: 0, said: Said::default(), bytes: 0 };
        for signer in self.signatory.iter().flat_map(Signatory::signers) {
            introduce(&self.metrics, &entry, signer);
        }
        self.links.insert(link, entry);
    }

    /// The votes of this desk go over that link, too.
    pub(crate) fn set_desk(&mut self, link: LinkId, desk: Desk) {
        if let Some(entry) = self.links.get_mut(&link) {
            entry.desk = desk;
        }
    }

    /// A link is gone, and everybody who waited on it.
    pub(crate) fn link_down(&mut self, link: LinkId) {
        if self.links.remove(&link).is_some() {
            self.retain(|waiter| waiter.link != link);
        }
    }

    /// Takes the wish for a request's outcome. False if it was turned away: then the request must not be taken either.
    pub(crate) fn register(&mut self, link: LinkId, tag: Tag, whole: bool, until: Instant) -> bool {
        // The link went down meanwhile.
        let Some(entry) = self.links.get_mut(&link) else { return false };
        let waiters = self.waiting.entry(tag).or_default();
        if let Some(waiter) = waiters.iter_mut().find(|waiter| waiter.link == link) {
            // Streams may overtake each other: of two wishes both count.
            (waiter.whole, waiter.until) = (waiter.whole || whole, waiter.until.max(until));
            return true;
        }
        if entry.waiting >= WAITERS_MAX {
            if waiters.is_empty() {
                self.waiting.remove(&tag);
            }
            self.metrics.reject(Steer::Busy);
            entry.said.steers.push((tag, Steer::Busy));
            return false;
        }
        entry.waiting += 1;
        waiters.push(Waiter { link, whole, until });
        true
    }

    /// Who waits here for the outcomes of these, for the others to send it their votes; empty: nobody.
    pub(crate) fn desks(&self, requests: &[Request]) -> Vec<Desk> {
        let desk = |request: &Request| {
            let waiter = self.waiting.get(&request.tag())?.first()?;
            Some(self.links.get(&waiter.link)?.desk)
        };
        let desks: Vec<Desk> = requests.iter().map(|request| desk(request).unwrap_or_default()).collect();
        if desks.iter().all(|desk| *desk == Desk::default()) { Vec::new() } else { desks }
    }

    /// These came by a proposal, and so many wait for votes on them.
    pub(crate) fn expect(&mut self, until: Instant, requests: &[Request], desks: &[Desk]) {
        for (request, desk) in requests.iter().zip(desks).filter(|(_, desk)| **desk != Desk::default()) {
            let at = self.links.iter().rfind(|(_, link)| link.desk == *desk).map(|(id, _)| *id);
            let Some((id, link)) = at.and_then(|id| Some((id, self.links.get_mut(&id)?))) else { continue };
            let waiters = self.waiting.entry(request.tag()).or_default();
            // Who asked here itself said what it wants.
            if link.waiting < WAITERS_MAX && waiters.iter().all(|waiter| waiter.link != id) {
                link.waiting += 1;
                waiters.push(Waiter { link: id, whole: false, until });
            } else if waiters.is_empty() {
                self.waiting.remove(&request.tag());
            }
        }
    }

    /// Says something of a request that was not registered.
    pub(crate) fn refuse(&mut self, link: LinkId, tag: Tag, steer: Steer) {
        self.metrics.reject(steer);
        self.steer(link, tag, steer);
    }

    /// The same, uncounted.
    pub(crate) fn steer(&mut self, link: LinkId, tag: Tag, steer: Steer) {
        if let Some(entry) = self.links.get_mut(&link) {
            entry.said.steers.push((tag, steer));
        }
    }

    /// Answers one that was not registered.
    pub(crate) fn answer(&mut self, link: LinkId, answer: Answer) {
        if let Some(entry) = self.links.get_mut(&link) {
            entry.answer(&self.metrics, self.leads, answer);
        }
    }

    /// The ordered outcome of a request.
    pub(crate) fn on_reply(&mut self, tag: Tag, slot: Slot, form: Digest, outcome: Option<Outcome>) {
        let Some(waiters) = self.waiting.remove(&tag) else { return };
        for waiter in &waiters {
            if let Some(entry) = self.links.get_mut(&waiter.link) {
                entry.waiting -= 1;
            }
        }
        let reached = Reached { said: Saying { tag, slot, form }, outcome, waiters };
        match self.signatory {
            None => self.give(reached, None),
            Some(_) => self.unsigned.push(reached),
        }
    }

    /// Answers everybody who waited for an outcome.
    fn give(&mut self, reached: Reached, signed: Option<&Signed>) {
        let Reached { said: Saying { tag, slot, form }, outcome, waiters } = reached;
        for waiter in waiters {
            let Some(entry) = self.links.get_mut(&waiter.link) else { continue };
            let signed = signed.cloned();
            match &outcome {
                Some(outcome) if waiter.whole => {
                    let answer = Answer { tag, slot, form, outcome: outcome.clone(), signed };
                    entry.answer(&self.metrics, self.leads, answer);
                }
                None if waiter.whole => entry.said.steers.push((tag, Steer::TooOld)),
                _ => entry.said.votes.push(Vote { tag, slot, form, signed }),
            }
        }
    }

    /// This replica's own word on a request that it did not take.
    pub(crate) fn on_steer(&mut self, tag: Tag, steer: Steer) {
        let Some(waiters) = self.waiting.remove(&tag) else { return };
        self.metrics.reject(steer);
        for waiter in waiters {
            let Some(entry) = self.links.get_mut(&waiter.link) else { continue };
            entry.waiting -= 1;
            entry.said.steers.push((tag, steer));
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

    /// Sends what there was to say in this turn.
    pub(crate) fn finish_turn(&mut self) {
        self.sign();
        for link in self.links.values_mut() {
            while link.said.votes.len() > VOTES_MAX {
                let votes = link.said.votes.split_off(link.said.votes.len() - VOTES_MAX);
                link.deliver(&self.metrics, Said { leads: self.leads, votes, ..Said::default() });
            }
            link.flush(&self.metrics, self.leads);
        }
    }

    /// Forgets who waits for too long. To be called about once a second.
    pub(crate) fn sweep(&mut self, now: Instant) {
        if let Some(signatory) = &mut self.signatory {
            signatory.look_at_the_time(now);
        }
        self.retain(|waiter| waiter.until > now);
    }

    fn retain(&mut self, waits: impl Fn(&Waiter) -> bool) {
        let links = &mut self.links;
        self.waiting.retain(|_, waiters| {
            waiters.retain(|waiter| {
                let waits = waits(waiter);
                if !waits && let Some(entry) = links.get_mut(&waiter.link) {
                    entry.waiting -= 1;
                }
                waits
            });
            !waiters.is_empty()
        });
    }

    /// Whether anybody waits for a whole reply.
    pub(crate) fn anybody_waits(&self) -> bool {
        self.waiting.values().flatten().any(|waiter| waiter.whole)
    }
}

impl Link {
    /// Adds a whole answer to what is said; a large one goes by itself, and small ones in messages that are not large.
    fn answer(&mut self, metrics: &Metrics, leads: Option<Ballot>, answer: Answer) {
        let bytes = answer.outcome.bytes();
        if bytes > ANSWERS_BYTES {
            return self.deliver(metrics, Said { leads, answers: vec![answer], ..Said::default() });
        }
        if self.bytes + bytes > ANSWERS_BYTES {
            self.flush(metrics, leads);
        }
        self.bytes += bytes;
        self.said.answers.push(answer);
    }

    /// Sends what was gathered, if anything was.
    fn flush(&mut self, metrics: &Metrics, leads: Option<Ballot>) {
        self.bytes = 0;
        if !(self.said.answers.is_empty() && self.said.votes.is_empty() && self.said.steers.is_empty()) {
            let said = std::mem::take(&mut self.said);
            self.deliver(metrics, Said { leads, ..said });
        }
    }

    fn deliver(&self, metrics: &Metrics, said: Said) {
        self.put(metrics, encode(&FromServer::Said(said)));
    }

    fn put(&self, metrics: &Metrics, message: Bytes) {
        if !self.out.put(message) {
            metrics.rejected.get_or_create(&crate::metrics::Reason { reason: "reply_queue_full" }).inc();
        }
    }
}

/// Shows a link the certificate of what signs, or will.
fn introduce(metrics: &Metrics, link: &Link, signer: &Signer) {
    link.put(metrics, encode(&FromServer::Signer(signer.certificate().clone())));
}

#[cfg(test)]
mod tests {
    use super::super::outbox::{Messages, outbox};
    use super::*;
    use mesh::auth::{self, Asked, SecretKey, Verifier};
    use mesh::ids::{ClientId, Generation, Incarnation, ReplicaId, Seq};
    use mesh::wire::{Body, Kind, decode};

    const T0: Instant = Instant::ZERO;
    const LATER: Instant = Instant::from_nanos(10_000_000_000);
    const A: LinkId = LinkId(1);
    const B: LinkId = LinkId(2);

    fn waiters() -> (Waiters, Messages, Messages) {
        let mut waiters = Waiters::new(Metrics::new(&mut mesh::node::Registry::default()));
        let ((out_a, a), (out_b, b)) = (outbox(), outbox());
        waiters.link_up(A, out_a);
        waiters.link_up(B, out_b);
        (waiters, a, b)
    }

    fn request(seq: u64) -> Request {
        let body = Body::Call(Bytes::from_static(b"a\n"));
        Request { client: ClientId(1), opened: Generation::FIRST.at(Slot(1)), seq: Seq(seq), body, proof: None }
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

    fn answer(seq: u64) -> Answer {
        Answer { tag: tag(seq), slot: Slot(seq), form: form(), outcome: outcome().expect("one"), signed: None }
    }

    fn vote(seq: u64) -> Vote {
        Vote { tag: tag(seq), slot: Slot(seq), form: form(), signed: None }
    }

    fn messages(out: &mut Messages) -> Vec<FromServer> {
        std::iter::from_fn(|| out.try_next()).map(|bytes| decode(&bytes).expect("a message")).collect()
    }

    /// What a link was told, all messages together.
    fn said(out: &mut Messages) -> Said {
        let mut all = Said::default();
        for message in messages(out) {
            let FromServer::Said(said) = message else { continue };
            all.leads = said.leads;
            all.answers.extend(said.answers);
            all.votes.extend(said.votes);
            all.steers.extend(said.steers);
        }
        all
    }

    #[test]
    fn one_gets_the_whole_reply_and_the_other_a_vote() {
        let (mut waiters, mut a, mut b) = waiters();
        assert!(waiters.register(A, tag(1), true, LATER) && waiters.register(B, tag(1), false, LATER));
        waiters.finish_turn();
        assert_eq!((said(&mut a), said(&mut b)), (Said::default(), Said::default()));
        assert!(waiters.anybody_waits());
        waiters.on_reply(tag(1), Slot(1), form(), outcome());
        waiters.finish_turn();
        assert_eq!(said(&mut a), Said { answers: vec![answer(1)], ..Said::default() });
        assert_eq!(said(&mut b), Said { votes: vec![vote(1)], ..Said::default() });
        assert!(!waiters.anybody_waits());
        waiters.on_reply(tag(1), Slot(1), form(), outcome());
        waiters.finish_turn();
        assert_eq!((said(&mut a), said(&mut b)), (Said::default(), Said::default()), "nobody waits any more");
    }

    #[test]
    fn what_a_turn_brings_goes_in_one_message_and_a_large_reply_by_itself() {
        let (mut waiters, mut a, _b) = waiters();
        let leads = Some(Ballot { round: 3, replica: ReplicaId(1), incarnation: Incarnation(1) });
        waiters.set_leads(leads);
        for seq in 1..=102 {
            assert!(waiters.register(A, tag(seq), seq % 2 == 0, LATER));
        }
        for seq in 1..=100 {
            waiters.on_reply(tag(seq), Slot(seq), form(), outcome());
        }
        waiters.on_steer(tag(101), Steer::NoSession);
        waiters.finish_turn();
        let together = messages(&mut a);
        let [FromServer::Said(said)] = &together[..] else { panic!("{together:?}") };
        assert_eq!((said.leads, said.answers.len(), said.votes.len()), (leads, 50, 50));
        assert_eq!(said.steers, [(tag(101), Steer::NoSession)]);
        let large = Outcome::Executed(Bytes::from(vec![0; ANSWERS_BYTES + 1]));
        waiters.on_reply(tag(102), Slot(102), form(), Some(large));
        assert_eq!(messages(&mut a).len(), 1, "it does not wait for the end of the turn");
        waiters.finish_turn();
        assert_eq!(messages(&mut a).len(), 0);
    }

    /// Mutants: a follower that votes for nobody on what only the leader was sent; one that does so for whoever says any number;
    /// one that tells a SMaRtClient twice that asked it, too.
    #[test]
    fn votes_on_what_a_proposal_brought_go_to_whoever_asked_the_leader() {
        let (mut leader, mut at_leader, _) = waiters();
        let (mut follower, mut a, mut b) = waiters();
        let desks = [Desk::of("0", 7), Desk::of("1", 7)];
        assert_ne!(desks[0], desks[1], "the same number under another certificate is another desk");
        for waiters in [&mut leader, &mut follower] {
            waiters.set_desk(A, desks[0]);
            waiters.set_desk(B, desks[1]);
        }
        let requests: Vec<Request> = (1..=3).map(request).collect();
        assert_eq!(leader.desks(&requests), []);
        assert!(leader.register(A, tag(1), true, LATER) && leader.register(B, tag(3), true, LATER));
        let proposed = leader.desks(&requests);
        assert_eq!(proposed, [desks[0], Desk::default(), desks[1]]);
        assert!(follower.register(B, tag(3), true, LATER), "it was asked itself");
        for _ in 0..2 {
            follower.expect(LATER, &requests, &proposed);
        }
        for waiters in [&mut leader, &mut follower] {
            (1..=3).for_each(|seq| waiters.on_reply(tag(seq), Slot(seq), form(), outcome()));
            waiters.finish_turn();
        }
        assert_eq!(said(&mut at_leader), Said { answers: vec![answer(1)], ..Said::default() });
        assert_eq!(said(&mut a), Said { votes: vec![vote(1)], ..Said::default() });
        assert_eq!(said(&mut b), Said { answers: vec![answer(3)], ..Said::default() });
        follower.expect(LATER, &requests, &[Desk::of("0", 8); 3]);
        assert!(follower.waiting.is_empty(), "nobody with a link has that number");
        follower.expect(LATER, &requests, &proposed);
        follower.link_down(A);
        follower.sweep(LATER);
        assert!(follower.waiting.is_empty() && follower.links[&B].waiting == 0);
    }

    #[test]
    fn where_only_the_hash_was_kept_the_whole_is_too_old_and_the_vote_counts() {
        let (mut waiters, mut a, mut b) = waiters();
        assert!(waiters.register(A, tag(1), true, LATER) && waiters.register(B, tag(1), false, LATER));
        waiters.on_reply(tag(1), Slot(1), form(), None);
        waiters.finish_turn();
        assert_eq!(said(&mut a), Said { steers: vec![(tag(1), Steer::TooOld)], ..Said::default() });
        assert_eq!(said(&mut b), Said { votes: vec![vote(1)], ..Said::default() });
    }

    #[test]
    fn who_asks_twice_is_answered_once_and_with_the_whole_whichever_came_first() {
        let (mut waiters, mut a, _b) = waiters();
        for first in [false, true] {
            assert!(waiters.register(A, tag(1), first, LATER) && waiters.register(A, tag(1), !first, LATER));
            waiters.on_reply(tag(1), Slot(1), form(), outcome());
            waiters.finish_turn();
            assert_eq!(said(&mut a), Said { answers: vec![answer(1)], ..Said::default() });
            assert_eq!(waiters.links[&A].waiting, 0);
        }
    }

    #[test]
    fn a_link_that_is_gone_is_forgotten_and_a_full_one_turned_away() {
        let (mut waiters, mut a, mut b) = waiters();
        for seq in 1..=WAITERS_MAX as u64 {
            assert!(waiters.register(A, tag(seq), true, LATER));
        }
        assert!(!waiters.register(A, tag(0), true, LATER), "one too many");
        waiters.finish_turn();
        assert_eq!(said(&mut a).steers, [(tag(0), Steer::Busy)]);
        assert!(waiters.register(A, tag(1), true, LATER), "not one more");
        assert!(waiters.register(B, tag(1), true, LATER), "another link is not held up");
        waiters.link_down(A);
        assert!(!waiters.register(A, tag(1), true, LATER), "the link is gone");
        waiters.on_reply(tag(1), Slot(1), form(), outcome());
        waiters.finish_turn();
        assert_eq!(said(&mut b).answers.len(), 1);
        assert!(waiters.waiting.is_empty());
    }

    #[test]
    fn who_waits_for_too_long_is_forgotten() {
        let (mut waiters, _a, _b) = waiters();
        assert!(waiters.register(A, tag(1), true, T0 + Duration::from_secs(1)));
        assert!(waiters.register(B, tag(1), true, LATER) && waiters.register(B, tag(2), false, LATER));
        waiters.sweep(T0 + Duration::from_secs(1));
        assert_eq!((waiters.waiting[&tag(1)].len(), waiters.links[&A].waiting), (1, 0));
        waiters.sweep(LATER);
        assert!(waiters.waiting.is_empty() && waiters.links[&B].waiting == 0);
    }

    /// Has `waiters` sign with the key of that seed.
    fn sign_with(waiters: &mut Waiters, now: Instant, seed: u8) -> SecretKey {
        let key = || SecretKey::from_seed(&[seed; 32]).expect("a seed is a key");
        let signer = Arc::new(Signer::unchecked(key(), Bytes::copy_from_slice(&[seed])));
        waiters.sign_with(now, Voice { cluster: "c".to_owned(), replica: ReplicaId(2), electorate: 3 }, signer);
        key()
    }

    /// What a link was given, with the certificates that it was shown first.
    fn given_signed(out: &mut Messages) -> (Vec<u8>, Vec<Vote>) {
        let (mut certificates, mut given) = (Vec::new(), Vec::new());
        for message in messages(out) {
            match message {
                FromServer::Said(Said { answers, votes, .. }) => {
                    for Answer { tag, slot, form, outcome, signed } in answers {
                        let content = signed.as_ref().map(|signed| signed.content);
                        assert_eq!(content, Some(outcome.content()), "the bytes are vouched for");
                        given.push(Vote { tag, slot, form, signed });
                    }
                    given.extend(votes);
                }
                FromServer::Signer(certificate) => certificates.push(certificate[0]),
                other => panic!("{other:?}"),
            }
        }
        (certificates, given)
    }

    fn holds(vote: &Vote, key: &SecretKey, verifier: &mut Verifier) -> bool {
        vote.vouched(ReplicaId(2)).is_some_and(|word| word.holds("c", &vote.tag, &key.public(), verifier))
    }

    #[test]
    fn everything_that_a_turn_answers_has_one_signature_and_each_its_own_proof() {
        let (mut waiters, mut a, mut b) = waiters();
        let key = sign_with(&mut waiters, T0, 7);
        for seq in 1..=100 {
            assert!(waiters.register(A, tag(seq), true, LATER));
            assert!(waiters.register(B, tag(seq), false, LATER));
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
        assert!(waiters.register(A, tag(1), false, LATER));
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
        let mut said = |waiters: &mut Waiters, now: Instant, seq| {
            waiters.sweep(now);
            assert!(waiters.register(A, tag(seq), false, LATER));
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
