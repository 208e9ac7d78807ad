//! The SMaRtClient: sends each request to the servers, collects their votes, and answers with the outcome that won.
//!
//! It keeps nothing that matters: whatever it forgets, the sender asks again.

use super::ReplyVote;
use super::budget::Budget;
use super::electorate::Electorate;
use super::read_desk::ReadDesk;
use super::tally::Tally;
use crate::ids::{Ballot, Epoch, Generation, ReplicaId};
use crate::quorum::majority;
use crate::time::{Duration, Instant};
use crate::wire::client::{NothingSent, Told, Unknown, Unread};
use crate::wire::roster::{Roster, Seat};
use crate::wire::submit::{Answer, Steer, Vote};
use crate::wire::{Kind, Outcome, Request, Tag};
use std::collections::{BTreeMap, BTreeSet};

/// Names one waiting stream of the driver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The servers with an application, in order of their ids: the electorate (rule 29), until they say otherwise.
    pub servers: Vec<ReplicaId>,
    /// How many equal replies make an answer.
    pub vote: ReplyVote,
    /// When servers that have not answered are asked again; doubles up to eight times that.
    pub resend: Duration,
    /// How long before the sender's deadline an unsent request is given back, so that the sender still hears of it.
    pub margin: Duration,
    /// Requests held at most.
    pub held: usize,
    /// Bytes of their bodies. A request is taken whatever its size while nothing else is held.
    pub held_bytes: usize,
    /// Resends that the retry budget saves up at most ([`super::RESENDS_SAVED`]).
    pub resends_saved: u32,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A sender asks. The same request may be asked again, by another stream: both get the answer.
    Ask {
        /// Whom to tell.
        ticket: Ticket,
        /// The request.
        request: Request,
        /// When the sender gives up.
        deadline: Instant,
    },
    /// The asking stream is gone: nobody is to be told.
    Gone(Ticket),
    /// A server's whole answer.
    Answer {
        /// Which server.
        from: ReplicaId,
        /// Its answer.
        answer: Answer,
    },
    /// Votes of a server.
    Votes {
        /// Which server.
        from: ReplicaId,
        /// Its votes.
        votes: Vec<Vote>,
    },
    /// A server leads in that ballot, or does not lead.
    Leads {
        /// Which server.
        from: ReplicaId,
        /// In which ballot.
        ballot: Option<Ballot>,
    },
    /// A server's own word on a request.
    Steer {
        /// Which server.
        from: ReplicaId,
        /// Which request.
        tag: Tag,
        /// Its word.
        steer: Steer,
    },
    /// A server says who the members are, and whether it is about to stop.
    Roster {
        /// Which server.
        from: ReplicaId,
        /// Its word.
        roster: Roster,
    },
    /// A link to a server is up (again): what waits is sent to it, if it is a member.
    Up(ReplicaId),
    /// The link to a server is gone.
    Down(ReplicaId),
    /// No new requests: give unsent ones back.
    Drain,
    /// The deadline passed (or not: harmless).
    Timeout,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a request to a server.
    Send {
        /// Which server.
        to: ReplicaId,
        /// The request.
        request: Request,
        /// Whether it shall send the whole reply.
        whole: bool,
    },
    /// Answer a sender.
    Tell {
        /// Whom.
        ticket: Ticket,
        /// What.
        told: Told,
    },
    /// A server's vote differs from the outcome that won: counted, an alarm.
    Disagreed {
        /// Which server.
        replica: ReplicaId,
        /// Which request.
        tag: Tag,
    },
    /// Enough servers say that these are the members now.
    Seated {
        /// By which version of the configuration.
        edition: (Generation, Epoch),
        /// The members.
        members: Vec<Seat>,
    },
    /// A request was sent again to servers that had not answered: counted.
    Resent,
    /// It was not, because the retry budget is spent: counted.
    Withheld,
}

/// How often a resend's interval doubles at most.
const DOUBLINGS: u32 = 3;

/// A request that waits for its answer.
#[derive(Debug)]
struct Pending {
    request: Request,
    tickets: Vec<Ticket>,
    asked: Instant,
    deadline: Instant,
    /// Whether any server was given the request.
    sent: bool,
    /// Only the leader was.
    narrow: bool,
    tally: Tally,
    /// The server that was asked for the whole reply, while it may still send it.
    whole: Option<ReplicaId>,
    /// What servers said in this round of sending.
    steers: BTreeMap<ReplicaId, Steer>,
    /// The servers whose newest word, in whatever round, is that its number is beyond the session's window.
    beyond: BTreeSet<ReplicaId>,
    round: u32,
    resend_at: Instant,
    /// When another server is asked for the body of an outcome that has won.
    body_at: Option<Instant>,
    /// Its place in the table of timers.
    wake: Instant,
}

/// The SMaRtClient's protocol.
#[derive(Debug)]
pub struct SmartClient {
    config: Config,
    pending: BTreeMap<Tag, Pending>,
    /// Bytes of the bodies in it.
    bytes: usize,
    tickets: BTreeMap<Ticket, Tag>,
    wakes: BTreeSet<(Instant, Tag)>,
    electorate: Electorate,
    /// Servers that a link is up to, members or not.
    up: BTreeSet<ReplicaId>,
    /// Those of them that are about to stop.
    leaving: BTreeSet<ReplicaId>,
    /// Those that are asked: members that are up and stay.
    links: BTreeSet<ReplicaId>,
    /// Who leads, while it is believed to be well.
    leader: Option<ReplicaId>,
    /// The highest ballot that anybody led in.
    ballot: Ballot,
    /// Servers that failed to send a whole reply in time, and until when they are not asked for one.
    slow: BTreeMap<ReplicaId, Instant>,
    draining: bool,
    budget: Budget,
    reads: ReadDesk,
}

impl SmartClient {
    /// One that has no link yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            budget: Budget::new(config.resends_saved),
            electorate: Electorate::of(&config.servers),
            up: BTreeSet::new(),
            leaving: BTreeSet::new(),
            config,
            pending: BTreeMap::new(),
            bytes: 0,
            tickets: BTreeMap::new(),
            wakes: BTreeSet::new(),
            links: BTreeSet::new(),
            leader: None,
            ballot: Ballot::NONE,
            slow: BTreeMap::new(),
            draining: false,
            reads: ReadDesk::default(),
        }
    }

    /// The only door in.
    pub fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Ask { ticket, request, deadline } if request.tag().kind == Kind::Read => {
                self.on_read(now, ticket, request, deadline, out);
            }
            Input::Ask { ticket, request, deadline } => self.on_ask(now, ticket, request, deadline, out),
            Input::Gone(ticket) => self.on_gone(ticket),
            Input::Answer { from, answer } if answer.tag.kind == Kind::Read => self.on_read_answer(from, answer, out),
            Input::Answer { from, answer } => {
                let Answer { tag, slot, form, outcome, signed } = answer;
                self.on_vote(now, from, Vote { tag, slot, form, signed }, Some(outcome), out);
            }
            Input::Votes { from, votes } => {
                for vote in votes {
                    self.on_vote(now, from, vote, None, out);
                }
            }
            Input::Leads { from, ballot } => self.on_leads(now, from, ballot, out),
            Input::Steer { from, tag, steer } if tag.kind == Kind::Read => self.on_unread(now, from, tag, steer, out),
            Input::Steer { from, tag, steer } => self.on_steer(now, from, tag, steer, out),
            Input::Roster { from, roster } => self.on_roster(now, from, roster, out),
            Input::Up(server) => self.on_up(now, server, out),
            Input::Down(server) => self.on_down(now, server, out),
            Input::Drain => self.on_drain(out),
            Input::Timeout => {}
        }
        self.on_timers(now, out);
    }

    /// When [`Input::Timeout`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.wakes.first().map(|(at, _)| *at).into_iter().chain(self.reads.deadline()).min()
    }

    /// Requests that wait for an answer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pending.len() + self.reads.len()
    }

    /// Whether a majority of the servers is reachable, and any that could answer.
    #[must_use]
    pub fn has_quorum(&self) -> bool {
        self.links.len() >= majority(self.electorate.members()) && self.answering().next().is_some()
    }

    /// Those that are asked and can answer.
    fn answering(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.links.iter().copied().filter(|server| self.electorate.answers(*server))
    }

    fn on_ask(&mut self, now: Instant, ticket: Ticket, request: Request, deadline: Instant, out: &mut Vec<Output>) {
        let tag = request.tag();
        if !request.is_bounded() {
            return out.push(Output::Tell { ticket, told: Told::Unknown(Unknown::TooLarge) });
        }
        if let Some(pending) = self.pending.get_mut(&tag) {
            if pending.request.body != request.body {
                return out.push(Output::Tell { ticket, told: Told::Unknown(Unknown::OtherBody) });
            }
            pending.tickets.push(ticket);
            pending.deadline = pending.deadline.max(deadline);
            self.tickets.insert(ticket, tag);
            // Which of two proofs holds is for the servers to say.
            if pending.request.proof != request.proof {
                self.bytes = self.bytes - pending.request.body_bytes() + request.body_bytes();
                pending.request = request;
                pending.steers.clear();
                if self.has_quorum() {
                    self.send_all(now, tag, out);
                }
            }
            return self.set_wake(tag);
        }
        let refused = if self.draining { Some(NothingSent::Stopping) } else { None };
        let bytes = self.bytes.saturating_add(request.body_bytes());
        let full =
            self.pending.len() >= self.config.held || (bytes > self.config.held_bytes && !self.pending.is_empty());
        let full = full.then_some(NothingSent::Busy);
        if let Some(reason) = refused.or(full) {
            return out.push(Output::Tell { ticket, told: Told::NothingSent(reason) });
        }
        let pending = Pending {
            request,
            tickets: vec![ticket],
            asked: now,
            deadline,
            sent: false,
            narrow: false,
            tally: Tally::default(),
            whole: None,
            steers: BTreeMap::new(),
            beyond: BTreeSet::new(),
            round: 0,
            resend_at: now + self.config.resend,
            body_at: None,
            wake: now,
        };
        self.bytes = bytes;
        self.pending.insert(tag, pending);
        self.tickets.insert(ticket, tag);
        self.budget.earn();
        if self.has_quorum() {
            self.send(now, tag, out);
        }
        self.set_wake(tag);
    }

    /// Some reads of one connection. Where every server must agree on a reply, one server's word is not enough.
    fn on_read(&mut self, now: Instant, ticket: Ticket, request: Request, deadline: Instant, out: &mut Vec<Output>) {
        let tag = request.tag();
        let server = self.reads.choose(now, &tag, self.leader, self.answering());
        let full = self.waiting() >= self.config.held;
        let until = Instant::from_nanos(deadline.as_nanos().saturating_sub(self.config.margin.as_nanos() as u64));
        let told = match server {
            _ if self.config.vote == ReplyVote::All => Told::Unread(Unread::Never),
            Some(server) if !self.draining && !full && self.reads.put(tag, ticket, server, until) => {
                self.tickets.insert(ticket, tag);
                return out.push(Output::Send { to: server, request, whole: true });
            }
            _ => Told::Unread(Unread::Now),
        };
        out.push(Output::Tell { ticket, told });
    }

    fn on_read_answer(&mut self, from: ReplicaId, answer: Answer, out: &mut Vec<Output>) {
        if let Some(read) = self.reads.take_of(&answer.tag, from) {
            self.tickets.remove(&read.ticket);
            out.push(Output::Tell { ticket: read.ticket, told: Told::unsigned(answer.outcome) });
        }
    }

    /// A server does not answer a read: it is asked for none for a moment, since its reason may last.
    fn on_unread(&mut self, now: Instant, from: ReplicaId, tag: Tag, steer: Steer, out: &mut Vec<Output>) {
        let why = if steer == Steer::NoRead { Unread::Never } else { Unread::Now };
        self.reads.avoid(from, now + self.config.resend / 4);
        self.end_read(&tag, why, out);
    }

    fn end_read(&mut self, tag: &Tag, why: Unread, out: &mut Vec<Output>) {
        if let Some(read) = self.reads.take(tag) {
            self.tickets.remove(&read.ticket);
            out.push(Output::Tell { ticket: read.ticket, told: Told::Unread(why) });
        }
    }

    /// Sends a new request: to the leader alone, whose proposal brings it to the others, or to all.
    fn send(&mut self, now: Instant, tag: Tag, out: &mut Vec<Output>) {
        let Some(pending) = self.pending.get(&tag) else { return };
        // Signatures are checked by each server where it takes the request in, beside its protocol: it needs it early.
        let narrow = tag.kind == Kind::Call && pending.request.proof.is_none();
        let well = |leader: &ReplicaId| !self.is_slow(now, *leader) && self.answering().any(|able| able == *leader);
        match self.leader.filter(|leader| narrow && well(leader)) {
            Some(to) => {
                let Some(pending) = self.pending.get_mut(&tag) else { return };
                (pending.sent, pending.narrow, pending.whole) = (true, true, Some(to));
                out.push(Output::Send { to, request: pending.request.clone(), whole: true });
            }
            None => self.send_all(now, tag, out),
        }
    }

    /// The leader alone was not enough: the others are asked too, `instead` of it, if given, for the whole reply.
    fn widen(&mut self, now: Instant, tag: Tag, instead: Option<ReplicaId>, out: &mut Vec<Output>) {
        let Some(pending) = self.pending.get_mut(&tag) else { return };
        let asked = pending.whole;
        let whole = instead.or(asked);
        (pending.narrow, pending.whole) = (false, whole);
        let others = self.links.iter().filter(|server| asked != Some(**server));
        let silent = |server: &ReplicaId| !pending.tally.has_voted(*server) && !pending.steers.contains_key(server);
        for to in others.filter(|server| whole == Some(**server) || silent(server)) {
            out.push(Output::Send { to: *to, request: pending.request.clone(), whole: whole == Some(*to) });
        }
        pending.resend_at = now + self.config.resend;
        self.set_wake(tag);
    }

    /// What was sent to a leader alone that is none any more, or not well, may never be proposed. Who leads after it,
    /// if that is known, sends the whole reply: the leader before it may be gone, and its link not yet.
    fn widen_all(&mut self, now: Instant, instead: Option<ReplicaId>, out: &mut Vec<Output>) {
        let narrow = self.pending.iter().filter(|(_, pending)| pending.narrow).map(|(tag, _)| *tag);
        for tag in narrow.collect::<Vec<_>>() {
            self.widen(now, tag, instead, out);
        }
    }

    fn on_leads(&mut self, now: Instant, from: ReplicaId, ballot: Option<Ballot>, out: &mut Vec<Output>) {
        match ballot {
            Some(ballot) if ballot >= self.ballot => {
                let another = self.leader != Some(from);
                (self.leader, self.ballot) = (Some(from), ballot);
                if another {
                    self.widen_all(now, self.links.get(&from).copied(), out);
                }
            }
            _ if self.leader == Some(from) => {
                self.leader = None;
                self.widen_all(now, None, out);
            }
            _ => {}
        }
    }

    /// Sends a request to every linked server that has not voted on it.
    fn send_all(&mut self, now: Instant, tag: Tag, out: &mut Vec<Output>) {
        let whole = self.pick_whole(now, &tag);
        let Some(pending) = self.pending.get_mut(&tag) else { return };
        (pending.sent, pending.narrow, pending.whole) = (true, false, whole);
        for server in &self.links {
            let is_whole = whole == Some(*server);
            if pending.tally.has_voted(*server) && !is_whole {
                continue;
            }
            out.push(Output::Send { to: *server, request: pending.request.clone(), whole: is_whole });
        }
    }

    /// The server that sends the whole reply: the session's name picks it among those that can be asked (rule 30).
    fn pick_whole(&self, now: Instant, tag: &Tag) -> Option<ReplicaId> {
        let voters = self.pending.get(tag).and_then(|pending| pending.tally.winner(self.needed()));
        let able = |server: &ReplicaId| match voters {
            Some(form) => self.pending[tag].tally.votes_for(*server, form),
            None => !self.is_slow(now, *server),
        };
        let mut able: Vec<ReplicaId> = self.answering().filter(able).collect();
        if let Some(pending) = self.pending.get(tag) {
            // Who was asked and did not deliver is asked again only when nobody else is left.
            let fresh = |server: &ReplicaId| pending.whole != Some(*server) && !pending.steers.contains_key(server);
            if able.iter().any(fresh) {
                able.retain(fresh);
            }
        }
        if able.is_empty() {
            able = self.answering().collect();
        }
        let hash = (tag.client.0 as u64) ^ ((tag.client.0 >> 64) as u64);
        let index = usize::try_from(hash % (able.len().max(1) as u64)).unwrap_or_default();
        able.get(index).copied()
    }

    /// Whether it failed to send a whole reply lately.
    fn is_slow(&self, now: Instant, server: ReplicaId) -> bool {
        self.slow.get(&server).is_some_and(|until| *until > now)
    }

    fn needed(&self) -> usize {
        self.config.vote.needed(self.electorate.answering())
    }

    fn on_gone(&mut self, ticket: Ticket) {
        let Some(tag) = self.tickets.remove(&ticket) else { return };
        self.reads.take(&tag);
        let Some(pending) = self.pending.get_mut(&tag) else { return };
        pending.tickets.retain(|other| *other != ticket);
        if pending.tickets.is_empty() {
            self.forget(&tag);
        }
    }

    fn forget(&mut self, tag: &Tag) -> Option<Pending> {
        let pending = self.pending.remove(tag)?;
        self.bytes -= pending.request.body_bytes();
        self.wakes.remove(&(pending.wake, *tag));
        for ticket in &pending.tickets {
            self.tickets.remove(ticket);
        }
        Some(pending)
    }

    fn tell(&mut self, tag: &Tag, told: &Told, out: &mut Vec<Output>) {
        let Some(pending) = self.forget(tag) else { return };
        for ticket in pending.tickets {
            out.push(Output::Tell { ticket, told: told.clone() });
        }
    }

    fn on_vote(&mut self, now: Instant, from: ReplicaId, vote: Vote, body: Option<Outcome>, out: &mut Vec<Output>) {
        if !self.electorate.answers(from) {
            return;
        }
        let Some(pending) = self.pending.get_mut(&vote.tag) else { return };
        let tag = vote.tag;
        // Its newest word: one that lacked the session when it was asked may get the request by a proposal.
        pending.beyond.remove(&from);
        pending.steers.remove(&from);
        pending.tally.vote(from, vote, body);
        self.decide(now, tag, out);
    }

    /// Answers if an outcome has won and its body is here; sees to the body if it is not.
    fn decide(&mut self, now: Instant, tag: Tag, out: &mut Vec<Output>) {
        let (needed, servers) = (self.needed(), self.electorate.answering());
        let Some(pending) = self.pending.get_mut(&tag) else { return };
        let Some(form) = pending.tally.winner(needed) else {
            if pending.tally.is_hopeless(needed, servers) {
                self.tell(&tag, &Told::Unknown(Unknown::Disagreement), out);
            }
            return;
        };
        if let Some(outcome) = pending.tally.body(form) {
            let told = Told::Outcome { outcome: outcome.clone(), vouched: pending.tally.vouched(form) };
            out.extend(pending.tally.against(form).map(|replica| Output::Disagreed { replica, tag }));
            return self.tell(&tag, &told, out);
        }
        // Who voted for it and cannot give it any more will not be able to later.
        let word = |voter: ReplicaId| pending.steers.get(&voter).copied();
        if pending.tally.voters(form).all(|voter| matches!(word(voter), Some(Steer::TooOld | Steer::NoSession))) {
            let too_old = pending.tally.voters(form).any(|voter| word(voter) == Some(Steer::TooOld));
            let unknown = if too_old { Unknown::TooOld } else { Unknown::SessionGone };
            return self.tell(&tag, &Told::Unknown(unknown), out);
        }
        let expected = pending.whole.is_some_and(|whole| self.links.contains(&whole));
        let able = |voter: ReplicaId| self.links.contains(&voter) && word(voter).is_none();
        if !expected && pending.tally.voters(form).any(able) {
            return self.ask_for_body(now, tag, out);
        }
        // Somebody is asked already, or all have said that they cannot now: they are not asked again at once.
        if pending.body_at.is_none_or(|at| at <= now) {
            // Where all take long, one may be behind the others by more: the leader's machine has the most to do. One that
            // was silent until the others had to be asked is not waited for.
            let took = if pending.narrow { now.since(pending.asked) } else { Duration::ZERO };
            pending.body_at = Some(now + (took * 2).clamp(self.config.resend / 8, self.config.resend));
            self.set_wake(tag);
        }
    }

    /// The outcome has won and nobody sent its body: any server that voted for it can.
    fn ask_for_body(&mut self, now: Instant, tag: Tag, out: &mut Vec<Output>) {
        let whole = self.pick_whole(now, &tag);
        let Some(pending) = self.pending.get_mut(&tag) else { return };
        pending.body_at = Some(now + self.config.resend);
        pending.whole = whole;
        if let Some(to) = whole {
            out.push(Output::Send { to, request: pending.request.clone(), whole: true });
        }
        self.set_wake(tag);
    }

    fn on_steer(&mut self, now: Instant, from: ReplicaId, tag: Tag, steer: Steer, out: &mut Vec<Output>) {
        let (quorum, needed) = (self.has_quorum(), self.needed());
        let Some(pending) = self.pending.get_mut(&tag) else { return };
        pending.steers.insert(from, steer);
        if steer == Steer::OutOfWindow {
            pending.beyond.insert(from);
            self.set_wake(tag);
        } else {
            pending.beyond.remove(&from);
        }
        let Some(pending) = self.pending.get_mut(&tag) else { return };
        if pending.whole == Some(from) {
            pending.whole = None;
        }
        if pending.narrow && steer != Steer::Busy {
            self.widen(now, tag, None, out);
        }
        let Some(pending) = self.pending.get(&tag) else { return };
        // What every reachable server says that has no outcome, and they are a majority, is believed; it makes the
        // outcome unknown only.
        let final_word = match steer {
            Steer::NoSession => Some(Unknown::SessionGone),
            Steer::TooOld => Some(Unknown::TooOld),
            Steer::OtherBody => Some(Unknown::OtherBody),
            Steer::TooLarge => Some(Unknown::TooLarge),
            Steer::Rejected(why) => Some(Unknown::Rejected(why)),
            Steer::Busy | Steer::OutOfWindow | Steer::NotReady | Steer::Unread | Steer::NoRead | Steer::NoRequest => {
                None
            }
        };
        let says = |server: &ReplicaId| pending.steers.get(server) == Some(&steer);
        // A session that some have ended already is unknown to them when they are asked again.
        let ends = matches!(tag.kind, Kind::Close | Kind::Cancel);
        let agrees = |server: &ReplicaId| says(server) || ends && pending.tally.has_voted(*server);
        let unanimous = self.links.iter().filter(|server| self.electorate.answers(**server)).all(agrees);
        if let Some(unknown) = final_word
            && unanimous
            && quorum
            && pending.tally.winner(needed).is_none()
        {
            return self.tell(&tag, &Told::Unknown(unknown), out);
        }
        self.decide(now, tag, out);
    }

    fn on_up(&mut self, now: Instant, server: ReplicaId, out: &mut Vec<Output>) {
        self.up.insert(server);
        if self.links.contains(&server) {
            // Over another link than before.
            self.link(now, server, out);
        }
        self.reseat(now, out);
    }

    fn on_down(&mut self, now: Instant, server: ReplicaId, out: &mut Vec<Output>) {
        self.up.remove(&server);
        self.leaving.remove(&server);
        self.electorate.forget(server);
        self.reseat(now, out);
    }

    fn on_roster(&mut self, now: Instant, from: ReplicaId, roster: Roster, out: &mut Vec<Output>) {
        if !self.up.contains(&from) {
            return;
        }
        if roster.leaving {
            self.leaving.insert(from);
        } else {
            self.leaving.remove(&from);
        }
        self.electorate.hear(from, roster.edition(), roster.members);
        self.reseat(now, out);
    }

    /// Who is asked and who counts may have changed.
    fn reseat(&mut self, now: Instant, out: &mut Vec<Output>) {
        let changed = self.electorate.judge(&self.up);
        let links: BTreeSet<ReplicaId> = self.up.difference(&self.leaving).copied().collect();
        let links: BTreeSet<ReplicaId> = links.into_iter().filter(|server| self.electorate.has(*server)).collect();
        let gone: Vec<ReplicaId> = self.links.difference(&links).copied().collect();
        let new: Vec<ReplicaId> = links.difference(&self.links).copied().collect();
        gone.into_iter().for_each(|server| self.unlink(now, server, out));
        new.into_iter().for_each(|server| self.link(now, server, out));
        if !changed {
            return;
        }
        if let (Some(edition), members) = self.electorate.believed() {
            out.push(Output::Seated { edition, members: members.to_vec() });
        }
        // What was not enough may be so now.
        let waiting: Vec<Tag> = self.pending.keys().copied().collect();
        for tag in waiting {
            if let Some(pending) = self.pending.get_mut(&tag) {
                pending.tally.retain(|server| self.electorate.answers(server));
                self.decide(now, tag, out);
            }
        }
    }

    fn link(&mut self, now: Instant, server: ReplicaId, out: &mut Vec<Output>) {
        let had_quorum = self.has_quorum();
        self.links.insert(server);
        if !self.has_quorum() {
            return;
        }
        let waiting: Vec<Tag> = self.pending.keys().copied().collect();
        for tag in waiting {
            let pending = &self.pending[&tag];
            if !had_quorum && !pending.sent {
                self.send_all(now, tag, out);
            } else if pending.sent && !pending.tally.has_voted(server) {
                let whole = pending.whole == Some(server);
                out.push(Output::Send { to: server, request: pending.request.clone(), whole });
            }
            self.set_wake(tag);
        }
    }

    /// It is not asked any more. What it still says counts.
    fn unlink(&mut self, now: Instant, server: ReplicaId, out: &mut Vec<Output>) {
        self.links.remove(&server);
        if self.leader == Some(server) {
            self.leader = None;
            self.widen_all(now, None, out);
        }
        self.reads.of(server).iter().for_each(|tag| self.end_read(tag, Unread::Now, out));
        let bereft: Vec<Tag> =
            self.pending.iter().filter(|(_, pending)| pending.whole == Some(server)).map(|(tag, _)| *tag).collect();
        for tag in bereft {
            let Some(pending) = self.pending.get_mut(&tag) else { continue };
            pending.steers.insert(server, Steer::NotReady);
            pending.whole = None;
            self.ask_for_body(now, tag, out);
        }
    }

    fn on_drain(&mut self, out: &mut Vec<Output>) {
        self.draining = true;
        let unsent: Vec<Tag> = self.pending.iter().filter(|(_, pending)| !pending.sent).map(|(tag, _)| *tag).collect();
        for tag in unsent {
            self.tell(&tag, &Told::NothingSent(NothingSent::Stopping), out);
        }
    }

    fn no_quorum(&self) -> NothingSent {
        let small = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let members = self.electorate.members();
        NothingSent::NoQuorum {
            reachable: small(self.links.len()),
            members: small(members),
            needed: small(majority(members)),
        }
    }

    /// Puts a request's next time into the table of timers.
    fn set_wake(&mut self, tag: Tag) {
        let majority = majority(self.electorate.answering());
        let Some(pending) = self.pending.get_mut(&tag) else { return };
        let margin = pending.margin(self.config.margin, majority);
        let give_up = Instant::from_nanos(pending.deadline.as_nanos().saturating_sub(margin.as_nanos() as u64));
        let wake = give_up.min(pending.resend_at).min(pending.body_at.unwrap_or(give_up));
        self.wakes.remove(&(pending.wake, tag));
        pending.wake = wake;
        self.wakes.insert((wake, tag));
    }

    fn on_timers(&mut self, now: Instant, out: &mut Vec<Output>) {
        while let Some(tag) = self.reads.late(now) {
            if let Some(read) = self.reads.take(&tag) {
                self.reads.avoid(read.server, now + self.config.resend);
                self.tickets.remove(&read.ticket);
                out.push(Output::Tell { ticket: read.ticket, told: Told::Unread(Unread::Now) });
            }
        }
        while let Some((_, tag)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            let Some(pending) = self.pending.get_mut(&tag) else { return };
            let majority = majority(self.electorate.answering());
            if now + pending.margin(self.config.margin, majority) >= pending.deadline {
                let told = match pending.sent {
                    false => Told::NothingSent(self.no_quorum()),
                    true if pending.beyond.len() >= majority => Told::Unknown(Unknown::OutOfWindow),
                    true => Told::Unknown(Unknown::Deadline),
                };
                self.tell(&tag, &told, out);
                continue;
            }
            if pending.body_at.is_some_and(|at| at <= now) {
                if let Some(slow) = pending.whole {
                    self.slow.insert(slow, now + self.config.resend * 4);
                }
                self.ask_for_body(now, tag, out);
            } else {
                self.resend(now, tag, out);
            }
            self.set_wake(tag);
        }
    }

    /// Asks those again that have not answered, as far as the budget goes.
    fn resend(&mut self, now: Instant, tag: Tag, out: &mut Vec<Output>) {
        let (needed, quorum) = (self.needed(), self.has_quorum());
        let Some(pending) = self.pending.get_mut(&tag) else { return };
        if pending.narrow {
            // In the place of having asked all at once, not beside it: no matter of the budget. Until the leader says
            // something again, others are not left to it.
            self.leader = self.leader.filter(|leader| pending.whole != Some(*leader));
            let instead = self.pick_whole(now, &tag);
            return self.widen(now, tag, instead, out);
        }
        if pending.sent && !self.budget.spend(now) {
            pending.resend_at = now + self.config.resend * 2;
            return out.push(Output::Withheld);
        }
        pending.round += 1;
        pending.resend_at = now + self.config.resend * (1 << pending.round.min(DOUBLINGS));
        pending.steers.clear();
        pending.whole = None;
        if pending.round > 1 && pending.tally.winner(needed).is_none() {
            // Votes of several slots, of a request that was ordered more than once, may never agree: count anew.
            pending.tally.clear();
        }
        if pending.sent || quorum {
            if pending.sent {
                out.push(Output::Resent);
            }
            self.send_all(now, tag, out);
        }
    }
}

impl Pending {
    /// How long before its deadline it is given up: what is news to the sender must reach it before its own time is up.
    fn margin(&self, margin: Duration, majority: usize) -> Duration {
        if self.sent && self.beyond.len() < majority { Duration::ZERO } else { margin }
    }
}
