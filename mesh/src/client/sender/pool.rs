//! The pool of sessions: opened as connections need them, lent, settled, taken back (rules 18 and 21).

use super::{Call, Card, Connection, Lending, Output, Sender, Session, Whom};
use crate::auth::Owner;
use crate::ids::{ClientId, Seq};
use crate::time::Instant;
use crate::wire::{Body, Request, Tag};
use std::collections::BTreeSet;

impl Sender {
    /// Lends a free session to a connection, opens a new one, or lets the connection wait in line.
    pub(super) fn borrow_session(&mut self, now: Instant, connection: Connection, out: &mut Vec<Output>) {
        if let Some(id) = self.free.pop() {
            self.lend(id, connection);
            return self.serve(now, connection, out);
        }
        let Some(client) = self.clients.get_mut(&connection) else { return };
        if client.queued.is_none() {
            client.queued = Some(self.next_place);
            self.queue.insert(self.next_place, connection);
            self.next_place += 1;
        }
        self.open_sessions(now, out);
    }

    /// As many sessions are on their way as connections wait, and never more than may be.
    pub(super) fn open_sessions(&mut self, now: Instant, out: &mut Vec<Output>) {
        let room = self.config.sessions.saturating_sub(self.sessions.len());
        for _ in 0..self.queue.len().saturating_sub(self.opening).min(room) {
            self.open_session(now, out);
        }
    }

    pub(super) fn lend(&mut self, id: ClientId, connection: Connection) {
        if let (Some(session), Some(client)) = (self.sessions.get_mut(&id), self.clients.get_mut(&connection)) {
            session.lent = Some(connection);
            session.given = 0;
            client.session = Some(id);
            client.queued = None;
        }
    }

    pub(super) fn open_session(&mut self, now: Instant, out: &mut Vec<Output>) {
        let chance = self.ids.next();
        let owner = self.signer.as_ref().map(|signer| signer.owner(chance));
        let id = owner.as_ref().map_or_else(|| ClientId::unowned(chance), Owner::client);
        let session = Session {
            opened: None,
            key: owner.as_ref().map(|owner| owner.key),
            window: self.config.window,
            next: Seq(1),
            outstanding: BTreeSet::new(),
            settling: None,
            lent: None,
            given: 0,
        };
        self.sessions.insert(id, session);
        self.opening += 1;
        let request = Request::open(id, self.config.window, owner);
        self.launch(now, request, Whom::Session, None, out);
    }

    /// Sessions are opened with another key from now on. Openings under way with the old one are given up: its
    /// certificate may have ended, and then no server will ever take them.
    pub(super) fn on_signer(&mut self, now: Instant, card: Card, out: &mut Vec<Output>) {
        let key = Some(card.key);
        self.signer = Some(card);
        let old =
            |(id, session): (&ClientId, &Session)| (session.opened.is_none() && session.key != key).then_some(*id);
        let given_up: Vec<ClientId> = self.sessions.iter().filter_map(old).collect();
        for client in given_up {
            self.land(&Request::open(client, 0, None).tag());
            self.drop_session(now, client, out);
        }
    }

    /// A session is nobody's: the next connection in line gets it.
    pub(super) fn offer(&mut self, now: Instant, id: ClientId, out: &mut Vec<Output>) {
        while let Some((_, connection)) = self.queue.pop_first() {
            let Some(client) = self.clients.get_mut(&connection) else { continue };
            client.queued = None;
            if client.has_waiting() {
                self.lend(id, connection);
                return self.serve(now, connection, out);
            }
        }
        self.free.push(id);
    }

    /// Takes a session back from a connection that has nothing outstanding.
    pub(super) fn take_back(&mut self, now: Instant, connection: Connection, out: &mut Vec<Output>) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        if client.calls.iter().any(Call::is_sent) {
            return;
        }
        let keep = self.config.lending == Lending::Own && !client.gone;
        if let Some(id) = client.session {
            let yields = self.yields(id);
            let Some(client) = self.clients.get_mut(&connection) else { return };
            let Some(session) = self.sessions.get_mut(&id) else { return };
            let settling = session.settling.is_some();
            // Its waiting calls run after what is being settled, so that the order is kept.
            if keep || (client.has_waiting() && !client.gone && !yields) {
                return;
            }
            client.session = None;
            session.lent = None;
            if !settling {
                self.retire(now, id, out);
            }
        }
        let Some(client) = self.clients.get(&connection) else { return };
        if client.calls.is_empty() {
            // Who has nothing to send waits for no session.
            if let Some(place) = client.queued {
                self.queue.remove(&place);
            }
            self.clients.remove(&connection);
        } else {
            self.serve(now, connection, out);
        }
    }

    /// A session that no connection has and that has nothing to settle: back to the pool, or closed where each
    /// connection has its own.
    pub(super) fn retire(&mut self, now: Instant, id: ClientId, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.get(&id) else { return };
        let Some(opened) = session.opened else { return };
        match self.config.lending {
            Lending::Pooled => self.offer(now, id, out),
            Lending::Own if session.next == Seq(1) => self.offer(now, id, out),
            Lending::Own => {
                let request = Request { client: id, opened, seq: session.next, body: Body::Close, proof: None };
                self.launch(now, request, Whom::Session, None, out);
            }
        }
    }

    /// What may have run or not was settled: the session can be used again.
    pub(super) fn on_settled(&mut self, now: Instant, tag: Tag, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.get_mut(&tag.client) else { return };
        let newest = Seq(session.next.0 - 1);
        if newest > tag.seq {
            return self.settle(now, tag.client, out);
        }
        session.settling = None;
        match session.lent {
            Some(connection) => {
                self.serve(now, connection, out);
                self.take_back(now, connection, out);
            }
            None => self.retire(now, tag.client, out),
        }
    }

    /// Settles everything that the session has outstanding (rule 21).
    pub(super) fn settle(&mut self, now: Instant, id: ClientId, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(opened) = session.opened else { return };
        let seq = Seq(session.next.0 - 1);
        if session.settling != Some(seq) {
            session.settling = Some(seq);
            let request = Request { client: id, opened, seq, body: Body::Cancel, proof: None };
            self.launch(now, request, Whom::Session, None, out);
        }
    }

    /// A session is gone: that makes room for another one.
    pub(super) fn drop_session(&mut self, now: Instant, id: ClientId, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.opening -= usize::from(session.opened.is_none());
        self.free.retain(|free| *free != id);
        if let Some(client) = session.lent.and_then(|connection| self.clients.get_mut(&connection)) {
            client.session = None;
        }
        self.open_sessions(now, out);
    }
}

impl Session {
    /// Whether a further number may be given out.
    pub(super) fn has_room(&self) -> bool {
        let spread = self.outstanding.first().map_or(0, |first| self.next.0 - first.0);
        self.settling.is_none() && spread < u64::from(self.window)
    }
}
