//! Requests on their way: asked, asked again elsewhere, answered, given up.

use super::{Answer, Carried, Endpoint, Flight, Output, Refused, Sender, Whom};
use crate::auth::Rejected;
use crate::time::Instant;
use crate::wire::client::{NothingSent, Told, Unknown, Unread};
use crate::wire::{Kind, Outcome, Request, Tag};

/// How often a resend's interval doubles at most.
const DOUBLINGS: u32 = 3;

impl Sender {
    pub(super) fn on_carry(&mut self, now: Instant, request: Request, deadline: Instant, out: &mut Vec<Output>) {
        let tag = request.tag();
        if tag.kind == Kind::Read {
            // It is nobody's session's.
            let why = Unknown::Rejected(Rejected::NotForClients);
            return out.push(Output::Carried { tag, end: Carried::Unknown(why) });
        }
        match self.flights.get_mut(&tag) {
            Some(flight) if flight.request == request => {
                flight.deadline = Some(deadline);
                flight.resend_at = flight.resend_at.min(now + self.config.resend);
                self.set_wake(tag);
            }
            Some(_) => out.push(Output::Carried { tag, end: Carried::Unknown(Unknown::OtherBody) }),
            None => self.launch(now, request, Whom::Owner, Some(deadline), out),
        }
    }

    pub(super) fn on_drop(&mut self, tag: &Tag) {
        if self.flights.get(tag).is_some_and(|flight| flight.whom == Whom::Owner) {
            self.land(tag);
        }
    }

    /// Starts to ask for a request.
    pub(super) fn launch(
        &mut self,
        now: Instant,
        request: Request,
        whom: Whom,
        deadline: Option<Instant>,
        out: &mut Vec<Output>,
    ) {
        let tag = request.tag();
        let flight = Flight {
            request,
            whom,
            deadline,
            asked: Vec::new(),
            latest: None,
            blamed: false,
            tries: 0,
            unsure: false,
            nothing_sent: None,
            launched: now,
            resend_at: now,
            wake: now,
        };
        self.in_flight += usize::from(whom.is_a_connection());
        self.serving += usize::from(whom == Whom::Session);
        self.flights.insert(tag, flight);
        self.budget.earn();
        self.ask(now, tag, out);
    }

    /// Asks a SMaRtClient, another one than last time if there is one.
    fn ask(&mut self, now: Instant, tag: Tag, out: &mut Vec<Output>) {
        let Some(flight) = self.flights.get(&tag) else { return };
        let latest = flight.latest;
        // An attempt so late would only leave the outcome in doubt.
        let too_late = flight.deadline.is_some_and(|deadline| deadline.since(now) < self.config.resend / 2);
        let chosen = match latest {
            Some(_) if too_late => None,
            _ => self.endpoints.choose(now, latest, &mut self.choices),
        };
        // A copy of it shows whether one that failed is well again.
        let probed = chosen.and_then(|_| self.endpoints.probe(now, tag, self.config.resend));
        let Some(flight) = self.flights.get_mut(&tag) else { return };
        let patience = self.config.resend * (1 << flight.tries.min(DOUBLINGS));
        flight.resend_at = now + patience;
        if let Some(endpoint) = chosen {
            if flight.latest.is_some() {
                out.push(Output::Resent);
            }
            flight.tries += 1;
            flight.latest = Some(endpoint);
            flight.blamed = false;
        }
        // Requests that serve the session have no deadline of their own: an attempt lasts until the next one.
        let within = flight.deadline.map_or(patience * 2, |deadline| deadline.since(now));
        let key = self.sessions.get(&tag.client).and_then(|session| session.key);
        for endpoint in chosen.into_iter().chain(probed.filter(|probed| chosen != Some(*probed))) {
            match flight.asked.iter_mut().find(|(asked, _)| *asked == endpoint) {
                // It goes on without end, and nobody will ask whether it was sent.
                Some((_, at)) if flight.deadline.is_none() => *at = now,
                // Each attempt has a word of its own: all of them must say that nothing was sent.
                _ => {
                    flight.asked.push((endpoint, now));
                    self.endpoints.asked(endpoint);
                }
            }
            out.push(Output::Send { endpoint, request: flight.request.clone(), key, within });
        }
        self.set_wake(tag);
    }

    /// Its time has run out, or its attempt came to nothing: it is asked again, as far as the budget goes.
    fn ask_again(&mut self, now: Instant, tag: Tag, out: &mut Vec<Output>) {
        let Some(flight) = self.flights.get_mut(&tag) else { return };
        let latest = flight.asked.iter().rfind(|(endpoint, _)| Some(*endpoint) == flight.latest);
        if let Some((endpoint, at)) = latest.copied()
            && !flight.blamed
        {
            flight.blamed = true;
            self.endpoints.failed(now, endpoint, now.since(at));
        }
        if flight.latest.is_none() || self.endpoints.is_empty() || self.budget.spend(now) {
            return self.ask(now, tag, out);
        }
        flight.resend_at = now + self.config.resend / 2;
        self.set_wake(tag);
        out.push(Output::Withheld);
    }

    pub(super) fn on_up(&mut self, now: Instant, endpoint: Endpoint, out: &mut Vec<Output>) {
        self.endpoints.up(now, endpoint);
        let unasked = self.flights.iter().filter(|(_, flight)| flight.asked.is_empty());
        let unasked: Vec<Tag> = unasked.map(|(tag, _)| *tag).collect();
        for tag in unasked {
            self.ask(now, tag, out);
        }
    }

    pub(super) fn on_down(&mut self, now: Instant, endpoint: Endpoint, out: &mut Vec<Output>) {
        self.endpoints.down(endpoint);
        let mut bereft = Vec::new();
        for (tag, flight) in &mut self.flights {
            if flight.forget(endpoint).is_some() {
                while flight.forget(endpoint).is_some() {}
                // Whether it passed the request on is not known.
                flight.unsure = true;
                if flight.latest == Some(endpoint) {
                    bereft.push(*tag);
                }
            }
        }
        // In the place of the lost attempts, not beside them: no matter of the budget.
        for tag in bereft {
            if tag.kind == Kind::Read {
                self.on_unread(now, tag, Unread::Now, out);
            } else {
                self.ask(now, tag, out);
            }
        }
    }

    pub(super) fn on_told(&mut self, now: Instant, endpoint: Endpoint, tag: Tag, told: Told, out: &mut Vec<Output>) {
        let well = !matches!(told, Told::NothingSent(_) | Told::Unknown(Unknown::Deadline | Unknown::Lost));
        if well {
            self.endpoints.told(now, endpoint, tag);
        }
        let Some(flight) = self.flights.get_mut(&tag) else { return };
        if let Some(at) = flight.forget(endpoint) {
            self.endpoints.released(endpoint);
            match told {
                _ if well => self.endpoints.answered(now, endpoint, now.since(at)),
                Told::NothingSent(NothingSent::Busy) => self.endpoints.busy(now, endpoint, self.config.resend),
                // It is not to blame for stopping.
                Told::NothingSent(NothingSent::Stopping) => {}
                _ => self.endpoints.failed(now, endpoint, now.since(at)),
            }
        }
        self.nothing_sent = if let Told::NothingSent(reason) = &told { Some(*reason) } else { None };
        match told {
            Told::Outcome { outcome: Outcome::Read(replies), .. } if tag.kind == Kind::Read => {
                self.on_read(now, tag, replies, out);
            }
            Told::Unread(why) if tag.kind == Kind::Read => self.on_unread(now, tag, why, out),
            _ if tag.kind == Kind::Read => self.on_unread(now, tag, Unread::Now, out),
            Told::Outcome { outcome, .. } => self.on_outcome(now, tag, outcome, out),
            Told::NothingSent(reason) => {
                flight.nothing_sent = Some(reason);
                flight.unsure |= self.config.doubts;
                if reason == NothingSent::Stopping {
                    self.endpoints.leaving(endpoint, true);
                }
                let latest = flight.latest == Some(endpoint);
                if reason == NothingSent::Stopping && latest && self.endpoints.has_other(endpoint) {
                    // It goes to one that stays, in the place of this attempt: no matter of the budget.
                    self.ask(now, tag, out);
                } else {
                    self.retry_soon(now, tag);
                }
            }
            // The latter is no word on anything but a read.
            Told::Unknown(Unknown::Deadline | Unknown::Lost) | Told::Unread(_) => {
                flight.unsure = true;
                self.retry_soon(now, tag);
            }
            Told::Unknown(reason) => self.on_lost(now, tag, reason, out),
        }
    }

    /// What it says may be true, so nobody is blamed; until others were asked it counts as a slow one.
    pub(super) fn on_doubted(&mut self, now: Instant, endpoint: Endpoint, tag: Tag) {
        let Some(flight) = self.flights.get_mut(&tag) else { return };
        if flight.forget(endpoint).is_some() {
            self.endpoints.released(endpoint);
            self.endpoints.busy(now, endpoint, self.config.resend);
        }
        flight.unsure = true;
        self.retry_soon(now, tag);
    }

    /// In the place of the attempt that it spoilt, as after a lost link: no matter of the budget.
    pub(super) fn on_lied(&mut self, now: Instant, endpoint: Endpoint, tag: Tag, out: &mut Vec<Output>) {
        let alone = !self.endpoints.lied(now, endpoint, &mut self.choices);
        let Some(flight) = self.flights.get_mut(&tag) else { return };
        let asked = flight.forget(endpoint).is_some();
        flight.unsure = true;
        let latest = flight.latest == Some(endpoint);
        if asked {
            self.endpoints.released(endpoint);
        }
        if alone {
            self.retry_soon(now, tag);
        } else if asked && latest {
            self.ask(now, tag, out);
        }
    }

    /// An attempt came to nothing: the next one follows after a breath, not at once, so that refusals do not spin.
    pub(super) fn retry_soon(&mut self, now: Instant, tag: Tag) {
        let Some(flight) = self.flights.get_mut(&tag) else { return };
        flight.resend_at = flight.resend_at.min(now + self.config.resend / 4);
        self.set_wake(tag);
    }

    pub(super) fn land(&mut self, tag: &Tag) -> Option<Flight> {
        let flight = self.flights.remove(tag)?;
        self.wakes.remove(&(flight.wake, *tag));
        self.in_flight -= usize::from(flight.whom.is_a_connection());
        self.serving -= usize::from(flight.whom == Whom::Session);
        for (endpoint, _) in &flight.asked {
            self.endpoints.released(*endpoint);
        }
        if tag.kind == Kind::Call
            && let Some(session) = self.sessions.get_mut(&tag.client)
        {
            session.outstanding.remove(&tag.seq);
        }
        Some(flight)
    }

    /// The ordered outcome of a request.
    pub(super) fn on_outcome(&mut self, now: Instant, tag: Tag, outcome: Outcome, out: &mut Vec<Output>) {
        let ours = self.flights.get(&tag).is_some_and(|flight| flight.whom == Whom::Session);
        if ours && tag.kind == Kind::Open && !matches!(outcome, Outcome::Opened { .. }) && !self.queue.is_empty() {
            // The table is full of sessions that were active lately: that passes, and connections wait.
            return self.retry_soon(now, tag);
        }
        if !outcome.fits(tag.kind) {
            // No server that is whole says so: it is the word of whoever carried it.
            return self.on_lost(now, tag, Unknown::Disagreement, out);
        }
        let Some(flight) = self.land(&tag) else { return };
        if tag.kind == Kind::Call {
            self.pace.answered(now, now.since(flight.launched));
        }
        if flight.whom == Whom::Owner {
            return out.push(Output::Carried { tag, end: Carried::Outcome(outcome) });
        }
        match (tag.kind, outcome) {
            (Kind::Call, outcome) => {
                let answer = match outcome {
                    Outcome::Executed(bytes) => Answer::Reply(bytes),
                    Outcome::Refused(refusal) => Answer::Refused(Refused::Ordered(refusal)),
                    Outcome::Aborted => Answer::Refused(Refused::Aborted),
                    _ => Answer::Refused(Refused::Cancelled),
                };
                if let Whom::Call(connection, number) = flight.whom {
                    self.end_call(now, connection, number, answer, out);
                    self.serve(now, connection, out);
                }
            }
            (Kind::Open, Outcome::Opened { opened, window }) => {
                if let Some(session) = self.sessions.get_mut(&tag.client) {
                    self.opening -= usize::from(session.opened.is_none());
                    session.opened = Some(opened);
                    session.window = window.clamp(1, session.window);
                    self.offer(now, tag.client, out);
                }
            }
            (Kind::Open | Kind::Close, _) => self.drop_session(now, tag.client, out),
            (Kind::Cancel, _) => self.on_settled(now, tag, out),
            // Answered where it is told: a read has no ordered outcome.
            (Kind::Read, _) => {}
        }
    }

    /// The request's outcome cannot be learned any more.
    pub(super) fn on_lost(&mut self, now: Instant, tag: Tag, reason: Unknown, out: &mut Vec<Output>) {
        if self.flights.get(&tag).is_some_and(|flight| flight.whom == Whom::Owner) {
            self.land(&tag);
            out.push(Output::Carried { tag, end: Carried::Unknown(reason) });
        } else if tag.kind == Kind::Call {
            let session_gone = reason == Unknown::SessionGone;
            let Some(flight) = self.land(&tag) else { return };
            if session_gone {
                self.drop_session(now, tag.client, out);
            } else {
                self.settle(now, tag.client, out);
            }
            if let Whom::Call(connection, number) = flight.whom {
                self.end_call(now, connection, number, Answer::Unknown(reason), out);
            }
        } else if reason == Unknown::SessionGone && tag.kind != Kind::Open {
            self.land(&tag);
            let lent = self.sessions.get(&tag.client).and_then(|session| session.lent);
            self.drop_session(now, tag.client, out);
            if let Some(connection) = lent {
                self.serve(now, connection, out);
                self.take_back(now, connection, out);
            }
        } else {
            self.retry_soon(now, tag);
        }
    }

    pub(super) fn set_wake(&mut self, tag: Tag) {
        let Some(flight) = self.flights.get_mut(&tag) else { return };
        let wake = flight.deadline.map_or(flight.resend_at, |deadline| deadline.min(flight.resend_at));
        self.wakes.remove(&(flight.wake, tag));
        flight.wake = wake;
        self.wakes.insert((wake, tag));
    }

    pub(super) fn on_timers(&mut self, now: Instant, out: &mut Vec<Output>) {
        while let Some((_, tag)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            let overdue = |flight: &Flight| flight.deadline.is_some_and(|deadline| deadline <= now);
            if self.flights.get(&tag).is_some_and(overdue) {
                if tag.kind == Kind::Read {
                    self.on_read_late(now, tag, out);
                } else {
                    self.on_deadline(now, tag, out);
                }
            } else {
                self.ask_again(now, tag, out);
            }
        }
        while let Some((_, connection)) = self.waits.first().copied().filter(|(at, _)| *at <= now) {
            self.on_wait_over(now, connection, out);
        }
    }

    /// A call's deadline passed: definite if no server can have been given it, unknown otherwise (rule 22).
    pub(super) fn on_deadline(&mut self, now: Instant, tag: Tag, out: &mut Vec<Output>) {
        let Some(flight) = self.land(&tag) else { return };
        let sent_nothing = !flight.unsure && flight.asked.is_empty();
        let refused = flight.nothing_sent.map_or(Refused::NoSmartClient, Refused::NothingSent);
        match flight.whom {
            Whom::Owner => {
                let unknown = Carried::Unknown(Unknown::Deadline);
                let end = if sent_nothing { Carried::Refused(refused) } else { unknown };
                out.push(Output::Carried { tag, end });
            }
            Whom::Call(connection, number) => {
                // Even where nothing was sent the number was given out, and the next one must not leave a gap.
                self.settle(now, tag.client, out);
                let unknown = Answer::Unknown(Unknown::Deadline);
                let answer = if sent_nothing { Answer::Refused(refused) } else { unknown };
                self.end_call(now, connection, number, answer, out);
            }
            Whom::Session | Whom::Reads(..) => {}
        }
    }
}

impl Whom {
    /// Whether it is for a connection.
    fn is_a_connection(self) -> bool {
        matches!(self, Self::Call(..) | Self::Reads(..))
    }
}

impl Flight {
    /// An attempt over a SMaRtClient is not waited for any more: since when it was, if there is one.
    fn forget(&mut self, endpoint: Endpoint) -> Option<Instant> {
        let index = self.asked.iter().rposition(|(asked, _)| *asked == endpoint)?;
        Some(self.asked.remove(index).1)
    }
}
