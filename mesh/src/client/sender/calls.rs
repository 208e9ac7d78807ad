//! Connections and their calls: taken in order, sent as far as there is room, in turns, answered in order.

use super::{Answer, Call, Client, Connection, Lending, Output, Refused, Sender, Whom};
use crate::ids::ClientId;
use crate::time::Instant;
use crate::wire::{Body, Request};

/// How a call is sent.
#[derive(Clone, Copy)]
enum Way {
    /// With a number of that session.
    In(ClientId),
    /// With so many more that are reads as well: past the log.
    Past(usize),
}

impl Sender {
    pub(super) fn on_call(
        &mut self,
        now: Instant,
        connection: Connection,
        call: Call,
        deadline: Instant,
        out: &mut Vec<Output>,
    ) {
        // One that would miss its deadline is told so at once: it costs the cluster nothing, and its client can act.
        let hopeless = !self.pace.can_make_it(now, self.outstanding, deadline.since(now));
        let full = self.outstanding >= self.config.held;
        self.outstanding += 1;
        let own = self.config.lending == Lending::Own;
        let client = self.clients.entry(connection).or_default();
        client.calls.push_back(call);
        if full || hopeless || client.broken {
            client.end(client.calls.len() - 1, Answer::Refused(Refused::Overloaded), own);
            self.set_wait(connection);
            return self.answer(now, connection, out);
        }
        self.serve(now, connection, out);
        self.set_wait(connection);
    }

    /// Sends a connection's waiting calls, as far as its session and the pace have room; sees to a session first.
    pub(super) fn serve(&mut self, now: Instant, connection: Connection, out: &mut Vec<Output>) {
        while let Some(way) = self.able(now, connection, out) {
            // Also while the last in line are served: who comes by their end waits for its turn, however short that is.
            if self.lined || self.in_flight >= self.pace.limit() {
                return self.stand_in_line(connection);
            }
            self.send_next(now, connection, way, out);
        }
    }

    /// How a connection's next waiting call could be sent now.
    fn able(&mut self, now: Instant, connection: Connection, out: &mut Vec<Output>) -> Option<Way> {
        let client = self.clients.get(&connection)?;
        if !client.has_waiting() || client.calls.iter().any(Call::is_reading) {
            return None;
        }
        let reads = self.readable(now, connection);
        if reads > 0 {
            return Some(Way::Past(reads));
        }
        let client = self.clients.get(&connection)?;
        let idle = !client.calls.iter().any(Call::is_sent);
        let Some(id) = client.session else {
            // Earlier calls run in a session that takes no more: theirs first, so that the order is kept.
            if idle {
                self.borrow_session(now, connection, out);
            }
            return None;
        };
        if self.yields(id) {
            if idle {
                self.take_back(now, connection, out);
            }
            return None;
        }
        let session = self.sessions.get(&id)?;
        (session.opened.is_some() && session.has_room()).then_some(Way::In(id))
    }

    /// Whether a session was used for long enough while others wait for one.
    pub(super) fn yields(&self, id: ClientId) -> bool {
        self.config.lending == Lending::Pooled
            && !self.queue.is_empty()
            && self
                .sessions
                .get(&id)
                .is_some_and(|session| session.given >= self.config.turn && session.settling.is_none())
    }

    fn stand_in_line(&mut self, connection: Connection) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        if !client.in_line {
            client.in_line = true;
            self.line.push_back(connection);
            self.lined = true;
        }
    }

    /// Lets those in line send as far as there is room, each one call before anybody has a second.
    pub(super) fn take_turns(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.line.is_empty() {
            return;
        }
        while self.in_flight < self.pace.limit() {
            let Some(connection) = self.line.pop_front() else { break };
            let Some(client) = self.clients.get_mut(&connection) else { continue };
            client.in_line = false;
            if let Some(way) = self.able(now, connection, out) {
                self.send_next(now, connection, way, out);
                if self.able(now, connection, out).is_some() {
                    self.stand_in_line(connection);
                }
            }
        }
        if self.line.is_empty() {
            self.lined = false;
        }
    }

    /// Gives a connection's next waiting call a number and sends it; or the reads that it has in front, without one.
    fn send_next(&mut self, now: Instant, connection: Connection, way: Way, out: &mut Vec<Output>) {
        let id = match way {
            Way::In(id) => id,
            Way::Past(reads) => return self.send_reads(now, connection, reads, out),
        };
        let (Some(client), Some(session)) = (self.clients.get_mut(&connection), self.sessions.get(&id)) else {
            return;
        };
        let (Some(opened), Some(index)) = (session.opened, client.calls.iter().position(Call::is_waiting)) else {
            return;
        };
        let call = std::mem::replace(&mut client.calls[index], Call::Sent);
        let Call::Waiting { bytes, deadline, .. } = call else { return };
        let own = self.config.lending == Lending::Own;
        let in_time = self.pace.in_time(deadline.since(now));
        if !in_time {
            client.end(index, Answer::Refused(Refused::Overloaded), own);
        }
        let (seq, number) = (session.next, client.first + index as u64);
        if client.wait.is_some() {
            self.set_wait(connection);
        }
        if !in_time {
            return self.answer(now, connection, out);
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.next = seq.next();
            session.given += 1;
            session.outstanding.insert(seq);
        }
        let request = Request { client: id, opened, seq, body: Body::Call(bytes), proof: None };
        self.launch(now, request, Whom::Call(connection, number), Some(deadline), out);
    }

    /// Brings a connection's entry in the table of waits up to date.
    pub(super) fn set_wait(&mut self, connection: Connection) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        let deadline = |call: &Call| match call {
            Call::Waiting { deadline, .. } => Some(*deadline),
            Call::Sent | Call::Reading { .. } | Call::Ended(_) => None,
        };
        let wait = client.calls.iter().filter_map(deadline).min();
        if let Some(old) = client.wait {
            self.waits.remove(&(old, connection));
        }
        if let Some(new) = wait {
            self.waits.insert((new, connection));
        }
        client.wait = wait;
    }

    pub(super) fn on_gone(&mut self, now: Instant, connection: Connection, out: &mut Vec<Output>) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        client.gone = true;
        if let Some(place) = client.queued.take() {
            self.queue.remove(&place);
        }
        let before = client.calls.len();
        client.calls.retain(|call| !call.is_waiting());
        self.outstanding -= before - client.calls.len();
        self.set_wait(connection);
        self.answer(now, connection, out);
        self.take_back(now, connection, out);
    }

    /// Answers a connection's calls as far as they ended, in their order.
    fn answer(&mut self, now: Instant, connection: Connection, out: &mut Vec<Output>) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        while let Some(Call::Ended(_)) = client.calls.front() {
            let Some(Call::Ended(answer)) = client.calls.pop_front() else { return };
            client.first += 1;
            self.outstanding -= 1;
            if !client.gone {
                out.push(Output::Answer { connection, answer });
            }
        }
        self.take_back(now, connection, out);
    }

    pub(super) fn end_call(
        &mut self,
        now: Instant,
        connection: Connection,
        number: u64,
        answer: Answer,
        out: &mut Vec<Output>,
    ) {
        let own = self.config.lending == Lending::Own;
        let Some(client) = self.clients.get_mut(&connection) else { return };
        client.end(usize::try_from(number - client.first).unwrap_or(usize::MAX), answer, own);
        if client.wait.is_some() {
            self.set_wait(connection);
        }
        self.answer(now, connection, out);
    }

    /// Calls that were given to nobody in time are refused.
    pub(super) fn on_wait_over(&mut self, now: Instant, connection: Connection, out: &mut Vec<Output>) {
        let linked = !self.endpoints.is_empty();
        // Why sessions do not come: the servers' state, if a SMaRtClient told of it lately.
        let reason = self.nothing_sent;
        let unanswered = self.serving > 0;
        let own = self.config.lending == Lending::Own;
        let Some(client) = self.clients.get_mut(&connection) else {
            // It has none: an entry without its client would be due for ever.
            self.waits.retain(|(_, waiting)| *waiting != connection);
            return;
        };
        for index in 0..client.calls.len() {
            if matches!(client.calls[index], Call::Waiting { deadline, .. } if deadline <= now) {
                let refused = match reason {
                    _ if !linked => Refused::NoSmartClient,
                    Some(reason) => Refused::NothingSent(reason),
                    None if client.in_line => Refused::Overloaded,
                    None if unanswered => Refused::NoAnswer,
                    None => Refused::NoSession,
                };
                client.end(index, Answer::Refused(refused), own);
            }
        }
        self.set_wait(connection);
        self.answer(now, connection, out);
    }
}

impl Client {
    /// A call ended. What it was to do to a connection that is the session's `own` (`SELECT`, `MULTI`) may be missing if it
    /// did not end with a reply: nothing that follows it may run.
    fn end(&mut self, index: usize, answer: Answer, own: bool) {
        let broken = own && !matches!(answer, Answer::Reply(_));
        if let Some(call) = self.calls.get_mut(index) {
            *call =
                Call::Ended(if self.broken && call.is_waiting() { Answer::Refused(Refused::Broken) } else { answer });
        }
        if broken {
            self.broken = true;
            for call in self.calls.iter_mut().filter(|call| call.is_waiting()) {
                *call = Call::Ended(Answer::Refused(Refused::Broken));
            }
        }
    }

    pub(super) fn has_waiting(&self) -> bool {
        self.calls.iter().any(Call::is_waiting)
    }
}

impl Call {
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting { .. })
    }

    pub(super) fn is_sent(&self) -> bool {
        matches!(self, Self::Sent)
    }

    pub(super) fn is_reading(&self) -> bool {
        matches!(self, Self::Reading { .. })
    }
}
