//! Requests that are known here and not decided: the leader's source of batches, the followers' reason to suspect it.

use super::{Event, Known, Message, Output, Replica, Timer, To};
use crate::auth::Rejected;
use crate::ids::{ClientId, Digest, Seq, Slot};
use crate::time::{Duration, Instant};
use crate::wire::submit::Steer;
use crate::wire::{Body, Kind, Outcome, Request, Tag};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A request that is not decided.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub request: Request,
    since: Instant,
    arrived: Instant,
    /// When it was forwarded to the leader last.
    forwarded: Option<Instant>,
}

/// How long a request that cannot be ordered is held, in request time-outs.
const STALE_AFTER: u32 = 32;

/// All held requests, and on the leader the order in which they will be proposed.
#[derive(Clone, Debug, Default)]
pub(super) struct Intake {
    held: BTreeMap<Tag, Held>,
    bytes: usize,
    /// Leader: requests to propose, in order. A tag whose request is no longer held is passed over.
    queue: VecDeque<Tag>,
    /// Leader: for sessions with undecided numbers, the highest one that is proposed or queued.
    proposed: BTreeMap<ClientId, Seq>,
}

impl Intake {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The next request to propose, if its body fits into `bytes`.
    pub(super) fn next(&mut self, bytes: usize) -> Option<Request> {
        loop {
            let tag = self.queue.front()?;
            match self.held.get(tag) {
                Some(held) if held.request.body_bytes() > bytes => return None,
                Some(held) => {
                    let request = held.request.clone();
                    self.queue.pop_front();
                    return Some(request);
                }
                None => {
                    self.queue.pop_front();
                }
            }
        }
    }

    fn hold(&mut self, now: Instant, request: Request) {
        self.bytes += request.body_bytes();
        self.held.insert(request.tag(), Held { request, since: now, arrived: now, forwarded: None });
    }

    pub(super) fn release(&mut self, tag: &Tag) -> bool {
        let Some(held) = self.held.remove(tag) else { return false };
        self.bytes -= held.request.body_bytes();
        true
    }

    /// The held calls of a session up to a number.
    fn calls_through(&self, tag: &Tag, seq: Seq) -> Vec<Tag> {
        let first = Tag { seq: Seq(0), kind: Kind::Call, ..*tag };
        let last = Tag { seq, kind: Kind::Call, ..*tag };
        self.held.range(first..=last).map(|(tag, _)| *tag).filter(|tag| tag.kind == Kind::Call).collect()
    }

    /// No longer the leader: nothing is queued.
    pub(super) fn stop_leading(&mut self) {
        self.queue.clear();
        self.proposed.clear();
    }

    fn note_proposed(&mut self, client: ClientId, seq: Seq) {
        let proposed = self.proposed.entry(client).or_insert(seq);
        *proposed = seq.max(*proposed);
    }
}

impl Replica {
    /// Requests that came over links of SMaRtClients, or forwarded from members.
    pub(super) fn on_request(&mut self, now: Instant, request: Request, out: &mut Vec<Output>) -> Result<(), Steer> {
        let tag = request.tag();
        if request.call_bytes() > self.configuration.cluster.request_bytes as usize || !request.is_bounded() {
            return Err(Steer::TooLarge);
        }
        // Only a leader makes the former, out of a call of that number; the latter are no requests to be ordered.
        if matches!(request.body, Body::Refused(_) | Body::Read(_)) {
            return Err(Steer::Rejected(Rejected::NotForClients));
        }
        // Checked before it came, unless its session was opened meanwhile or a member forwarded it.
        self.authentic(&request).map_err(Steer::Rejected)?;
        if self.own().is_none() {
            return Err(Steer::NotReady);
        }
        match self.sessions.look_up(&request) {
            Known::Outcome { slot, form, outcome } => self.answer(tag, slot, form, outcome, out),
            Known::Running => {}
            Known::New => self.hold(now, request, out)?,
            Known::NoSession => return Err(Steer::NoSession),
            Known::OutOfWindow => return Err(Steer::OutOfWindow),
            Known::TooOld => return Err(Steer::TooOld),
            Known::OtherBody => return Err(self.other_body(tag, out)),
        }
        Ok(())
    }

    fn other_body(&mut self, tag: Tag, out: &mut Vec<Output>) -> Steer {
        out.push(Output::Event(Event::OtherBody { tag }));
        Steer::OtherBody
    }

    fn hold(&mut self, now: Instant, request: Request, out: &mut Vec<Output>) -> Result<(), Steer> {
        let tag = request.tag();
        if let Some(held) = self.intake.held.get(&tag) {
            if held.request.body != request.body && tag.kind == Kind::Call {
                return Err(self.other_body(tag, out));
            }
            return Ok(());
        }
        let limits = &self.config.limits;
        let bytes = self.intake.bytes + request.body_bytes();
        // Refusals take room too: the log is not to grow by them for ever.
        let overfull = self.log.bytes() > limits.log_bytes.saturating_mul(2);
        if overfull || self.intake.held.len() >= limits.held_requests || bytes > limits.held_bytes {
            return Err(Steer::Busy);
        }
        self.intake.hold(now, request);
        self.timers.set_if_stopped(Timer::Waiting, now + self.config.timing.request_timeout / 4);
        if self.leads() {
            self.queue(tag);
        }
        Ok(())
    }

    /// Puts a held request in the queue if it is its turn, and those behind it that waited for it (rule 20).
    fn queue(&mut self, tag: Tag) {
        match tag.kind {
            // The latter are not held.
            Kind::Open | Kind::Close | Kind::Read => self.intake.queue.push_back(tag),
            Kind::Cancel => {
                self.intake.note_proposed(tag.client, tag.seq);
                self.intake.queue.push_back(tag);
                self.queue(Tag { seq: tag.seq.next(), kind: Kind::Call, ..tag });
            }
            Kind::Call if super::mutant::on(super::Mutant::SessionCheckSkipped) => self.intake.queue.push_back(tag),
            Kind::Call => {
                let mut tag = tag;
                let admitted = self.sessions.get(&tag).map_or(Seq(0), |session| session.last);
                let proposed = self.intake.proposed.get(&tag.client).copied().unwrap_or_default().max(admitted);
                let mut next = proposed.next();
                while tag.seq == next && self.intake.held.contains_key(&tag) {
                    self.intake.queue.push_back(tag);
                    self.intake.note_proposed(tag.client, tag.seq);
                    next = next.next();
                    tag.seq = next;
                }
            }
        }
    }

    /// A new leader looks through what is in its window already, and queues what it holds beyond that.
    pub(super) fn start_leading_intake(&mut self) {
        self.intake.stop_leading();
        let mut in_window = BTreeSet::new();
        for (_, entry) in self.log.above_decided() {
            for request in &entry.batch.requests {
                in_window.insert(request.tag());
                if matches!(request.body, Body::Call(_) | Body::Refused(_) | Body::Cancel) {
                    self.intake.note_proposed(request.client, request.seq);
                }
            }
        }
        let held: Vec<Tag> = self.intake.held.keys().copied().filter(|tag| !in_window.contains(tag)).collect();
        for tag in held {
            self.queue(tag);
        }
    }

    /// A request was decided: nothing more is to be done for it here.
    pub(super) fn settle_held(&mut self, request: &Request, out: &mut Vec<Output>) {
        let tag = request.tag();
        self.intake.release(&tag);
        let through = match request.body {
            Body::Call(_) | Body::Open { .. } | Body::Refused(_) | Body::Read(_) => None,
            Body::Cancel => Some(request.seq),
            Body::Close => Some(Seq(u64::MAX)),
        };
        if let Some(through) = through {
            for call in self.intake.calls_through(&tag, through) {
                self.settle_by_table(call, out);
            }
        }
        // A cancel that waits is settled by the execution of its own number.
        let cancel = Tag { kind: Kind::Cancel, ..tag };
        if tag.kind == Kind::Call
            && let Some(held) = self.intake.held.get(&cancel)
            && let Known::Outcome { slot, form, outcome } = self.sessions.look_up(&held.request)
        {
            self.intake.release(&cancel);
            self.answer(cancel, slot, form, outcome, out);
        }
        if let Some(proposed) = self.intake.proposed.get(&tag.client) {
            let last = self.sessions.get(&tag).map(|session| session.last);
            if last.is_none_or(|last| last >= *proposed) {
                self.intake.proposed.remove(&tag.client);
            } else if let Some(last) = last
                && (last.next()..=*proposed).contains(&tag.seq)
                && tag.kind == Kind::Call
            {
                // Behind a gap that an old leader left, and so skipped, as all that was proposed after it: it is their
                // senders' to send them again. What fills the gap may be held here.
                self.intake.proposed.remove(&tag.client);
                if self.leads() {
                    self.queue(Tag { seq: last.next(), ..tag });
                }
            }
        }
    }

    /// What the session table says of a held request.
    fn settle_by_table(&mut self, tag: Tag, out: &mut Vec<Output>) {
        let Some(held) = self.intake.held.get(&tag) else { return };
        match self.sessions.look_up(&held.request) {
            Known::Outcome { slot, form, outcome } => self.answer(tag, slot, form, outcome, out),
            Known::New => return,
            Known::Running => {}
            _ => out.push(Output::Steer { tag, steer: Steer::NoSession }),
        }
        self.intake.release(&tag);
    }

    /// The session table is another one: what of the held requests it knows ends.
    pub(super) fn settle_all_held(&mut self, out: &mut Vec<Output>) {
        let held: Vec<Tag> = self.intake.held.keys().copied().collect();
        for tag in held {
            self.settle_by_table(tag, out);
        }
    }

    /// Whether the request could be ordered next (rule 5): others start no clock.
    fn executable(&self, held: &Held) -> bool {
        let tag = held.request.tag();
        match tag.kind {
            Kind::Call => self.sessions.get(&tag).is_some_and(|session| session.last.next() == tag.seq),
            Kind::Cancel => self.sessions.get(&tag).is_some_and(|session| session.last < tag.seq),
            Kind::Close => self.sessions.get(&tag).is_some(),
            Kind::Open => true,
            Kind::Read => false,
        }
    }

    /// Looks at what waits: forwards at half time, suspects the leader after the whole (rule 5), drops the stale.
    pub(super) fn on_waiting(&mut self, now: Instant, out: &mut Vec<Output>) {
        let timeout = self.config.timing.request_timeout;
        self.drop_stale(now, timeout * STALE_AFTER);
        if self.intake.held.is_empty() {
            return;
        }
        self.timers.set(Timer::Waiting, now + timeout / 4);
        let Some((leader, ballot)) = self.followed() else { return };
        let mut forward = Vec::new();
        let mut suspicious = None;
        // What is proposed already, looked up once if at all.
        let mut proposed = None;
        for (tag, held) in &self.intake.held {
            if now.since(held.since) < timeout / 2 || !self.executable(held) {
                continue;
            }
            let quiet = now.since(held.since.max(self.last_decided)) >= timeout;
            if held.forwarded.is_none_or(|at| now.since(at) >= timeout) && forward.len() < FORWARD_MAX {
                forward.push(*tag);
            }
            if quiet
                && held.forwarded.is_some()
                && suspicious.is_none()
                && !proposed.get_or_insert_with(|| self.proposed_tags()).contains(tag)
            {
                suspicious = Some(*tag);
            }
        }
        for tag in forward {
            if let Some(held) = self.intake.held.get_mut(&tag) {
                held.forwarded = Some(now);
                let request = held.request.clone();
                self.send(To::One(leader), Message::Forward { request }, out);
            }
        }
        if let Some(tag) = suspicious
            && self.voting
        {
            out.push(Output::Event(Event::Suspected { ballot, tag }));
            self.suspects = Some(ballot);
            self.start_pre_vote(now, out);
        }
    }

    fn drop_stale(&mut self, now: Instant, age: Duration) {
        let stale = self.intake.held.iter().filter(|(_, held)| now.since(held.arrived) > age);
        // On the leader a queued request of an executable number is never stale: it is proposed when it may be.
        let stale: Vec<Tag> = stale.filter(|(_, held)| !self.executable(held)).map(|(tag, _)| *tag).collect();
        for tag in stale {
            self.intake.release(&tag);
        }
    }

    /// The requests that undecided slots hold.
    fn proposed_tags(&self) -> BTreeSet<Tag> {
        let entries = self.log.above_decided();
        entries.flat_map(|(_, entry)| entry.batch.requests.iter().map(Request::tag)).collect()
    }

    pub(super) fn on_forward(
        &mut self,
        now: Instant,
        from: crate::ids::ReplicaId,
        request: Request,
        out: &mut Vec<Output>,
    ) {
        let tag = request.tag();
        // Whoever does not lead says nothing: the follower will hear of the leader soon.
        if !self.leads() {
            return;
        }
        let refused = self.on_request(now, request, out).is_err() || !self.may_propose();
        if refused {
            self.send(To::One(from), Message::ForwardRefused { tag }, out);
        }
        self.propose(now, out);
    }

    pub(super) fn on_forward_refused(&mut self, now: Instant, from: crate::ids::ReplicaId, tag: &Tag) {
        // The word of the ballot's leader counts also while this replica asks around whether to replace it.
        if from == self.promised.replica
            && let Some(held) = self.intake.held.get_mut(tag)
        {
            held.since = now;
            held.forwarded = None;
        }
    }

    /// The outcome of a request that the table decided by itself, for whoever waits for it here.
    pub(super) fn reply(&self, tag: Tag, slot: Slot, outcome: Outcome, out: &mut Vec<Output>) {
        self.answer(tag, slot, outcome.form(), Some(outcome), out);
    }

    /// The same, with the form that is voted on; only whoever may answer says it.
    pub(super) fn answer(&self, tag: Tag, slot: Slot, form: Digest, outcome: Option<Outcome>, out: &mut Vec<Output>) {
        if self.answers() {
            out.push(Output::Reply { tag, slot, form, outcome });
        }
    }
}

/// Requests forwarded at one look, at most.
const FORWARD_MAX: usize = 64;
