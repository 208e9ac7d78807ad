//! Reads past the log: requests that change nothing, asked of one replica (rule 32).
//!
//! A connection asks for all reads that wait at its front in one go, and nothing else meanwhile: so they are answered in their
//! order, and what follows them runs behind them. It does so only while it has nothing else outstanding: what is in the log
//! may run at any time. A read that has no answer in time, or is refused, takes the way of all other requests; its client
//! notices nothing but the time. What the replica, or whoever carries its word, says late is an answer to nobody.

use super::{Answer, Call, Connection, Lending, Output, Sender, Whom};
use crate::ids::{Opening, Seq};
use crate::time::{Duration, Instant};
use crate::wire::client::Unread;
use crate::wire::request::{READS_TOGETHER, READS_TOGETHER_BYTES};
use crate::wire::{Body, Request, Tag};
use bytes::Bytes;

/// Where nobody answers reads, they are tried again after so long.
const NEVER: Duration = Duration::from_secs(60);

impl Sender {
    /// How many of a connection's calls, from the first one on, can be asked now past the log.
    pub(super) fn readable(&self, now: Instant, connection: Connection) -> usize {
        let may = self.config.reads && self.signer.is_none() && self.config.lending == Lending::Pooled;
        if !may || now < self.reads_rest {
            return 0;
        }
        let Some(client) = self.clients.get(&connection).filter(|client| !client.gone) else { return 0 };
        let settles = |id| self.sessions.get(id).is_some_and(|session| session.settling.is_some());
        if client.session.as_ref().is_some_and(settles) || !client.calls.iter().all(Call::is_waiting) {
            return 0;
        }
        let mut room = READS_TOGETHER_BYTES;
        let fits = |(index, call): &(usize, &Call)| match call {
            Call::Waiting { bytes, read: true, .. } => {
                let fits = *index == 0 || bytes.len() <= room;
                room = room.saturating_sub(bytes.len());
                fits
            }
            _ => false,
        };
        client.calls.iter().enumerate().take(READS_TOGETHER).take_while(fits).count()
    }

    /// Asks for a connection's first calls, which are all reads.
    pub(super) fn send_reads(&mut self, now: Instant, connection: Connection, count: usize, out: &mut Vec<Output>) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        let (first, mut until) = (client.first, now + self.config.resend / 2);
        let mut requests = Vec::with_capacity(count);
        for call in client.calls.iter_mut().take(count) {
            let Call::Waiting { bytes, deadline, .. } = call else { continue };
            requests.push(std::mem::take(bytes));
            until = until.min(*deadline);
            *call = Call::Reading { deadline: *deadline };
        }
        self.set_wait(connection);
        self.reads_asked += 1;
        let (client, seq) = (self.reader, Seq(self.reads_asked));
        let request = Request { client, opened: Opening::NONE, seq, body: Body::Read(requests), proof: None };
        self.launch(now, request, Whom::Reads(connection, first), Some(until), out);
    }

    /// A replica's replies.
    pub(super) fn on_read(&mut self, now: Instant, tag: Tag, replies: Vec<Bytes>, out: &mut Vec<Output>) {
        let asked = self.flights.get(&tag).map(|flight| match &flight.request.body {
            Body::Read(requests) => requests.len(),
            _ => 0,
        });
        if asked != Some(replies.len()) {
            return self.on_unread(now, tag, Unread::Now, out);
        }
        let Some(flight) = self.land(&tag) else { return };
        let Whom::Reads(connection, first) = flight.whom else { return };
        out.push(Output::Read { answered: true });
        for (number, reply) in (first..).zip(replies) {
            self.pace.answered(now, now.since(flight.launched));
            self.end_call(now, connection, number, Answer::Reply(reply), out);
        }
        self.serve(now, connection, out);
    }

    /// They are not answered so: they go through the log, where they would have gone.
    pub(super) fn on_unread(&mut self, now: Instant, tag: Tag, why: Unread, out: &mut Vec<Output>) {
        let Some(flight) = self.land(&tag) else { return };
        let (Whom::Reads(connection, _), Body::Read(requests)) = (flight.whom, flight.request.body) else { return };
        if why == Unread::Never {
            self.reads_rest = now + NEVER;
        }
        out.push(Output::Read { answered: false });
        let Some(client) = self.clients.get_mut(&connection) else { return };
        // They are the first, since nothing overtakes them.
        for (call, bytes) in client.calls.iter_mut().zip(requests) {
            if let Call::Reading { deadline } = *call {
                *call = Call::Waiting { bytes, deadline, read: false };
            }
        }
        if client.gone {
            return self.on_gone(now, connection, out);
        }
        self.set_wait(connection);
        self.serve(now, connection, out);
    }

    /// Nobody has answered in time. So it may well go on for a while, and each read would lose that time.
    pub(super) fn on_read_late(&mut self, now: Instant, tag: Tag, out: &mut Vec<Output>) {
        self.reads_rest = now + self.config.resend;
        self.on_unread(now, tag, Unread::Now, out);
    }
}
