//! The session table: part of the replicated state, a function of the log alone (rules 17 to 21).

use super::AppReply;
use crate::auth::{PublicKey, Signatures};
use crate::config::SessionLimits;
use crate::ids::{ClientId, Digest, Generation, Opening, Seq, Slot};
use crate::limits::Limits;
use crate::wire::{Body, Kind, Outcome, Refusal, Request, Tag};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// One live session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    /// Where it was opened: with the client id, its name.
    pub opened: Opening,
    /// The only key that may use it, if it is anybody's.
    pub owner: Option<PublicKey>,
    /// k: numbers that may be outstanding, and replies that are kept.
    pub window: u16,
    /// The highest number admitted or cancelled.
    pub last: Seq,
    /// The slot of its last activity.
    active: Slot,
    /// The last k numbers, in order.
    numbers: VecDeque<Number>,
}

/// One number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Number {
    seq: Seq,
    slot: Slot,
    fate: Fate,
}

/// What became of a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Fate {
    /// A call with a body of this hash was ordered; the application has not answered it yet.
    Running { body: Digest },
    /// The application has. The reply's bytes may be gone.
    Replied { body: Digest, form: Digest, bytes: Option<Bytes> },
    /// It was cancelled before it ran.
    Cancelled,
    /// It was refused by order.
    Refused(Refusal),
    /// It was aborted.
    Aborted,
}

/// The live sessions by their client ids: what snapshots hold.
pub(super) type Table = BTreeMap<ClientId, Session>;

/// What the table knows of a request that arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Its ordered outcome. `None`: of the reply only the hash was kept.
    Outcome { slot: Slot, form: Digest, outcome: Option<Outcome> },
    /// It is ordered, and will be answered when it was executed.
    Running,
    /// Not ordered yet and within the window: it may be.
    New,
    /// There is no such session here.
    NoSession,
    /// Its number is beyond the window.
    OutOfWindow,
    /// Its number is older than what is kept.
    TooOld,
    /// Its number was ordered with another body.
    OtherBody,
}

/// What a slot did to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// A call is to be executed.
    Execute,
    /// Nothing: a double, a gap, a session that is gone.
    Skipped,
    /// It is done, with this outcome. The second is the session that ended by it.
    Done(Outcome, Option<(ClientId, Opening)>),
}

/// All live sessions.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    limits: SessionLimits,
    signatures: Signatures,
    /// The generation of all of them.
    generation: Generation,
    table: Table,
    /// Numbers whose replies' bytes are kept, oldest first, and how many bytes that is. Not part of the replicated
    /// state: whether the bytes are still there decides no outcome.
    kept: VecDeque<(ClientId, Opening, Seq, usize)>,
    kept_bytes: usize,
}

impl Session {
    fn number(&self, seq: Seq) -> Option<&Number> {
        let first = self.numbers.front()?.seq;
        self.numbers.get(usize::try_from(seq.0.checked_sub(first.0)?).ok()?)
    }

    fn number_mut(&mut self, seq: Seq) -> Option<&mut Number> {
        let first = self.numbers.front()?.seq;
        self.numbers.get_mut(usize::try_from(seq.0.checked_sub(first.0)?).ok()?)
    }

    fn push(&mut self, number: Number) {
        self.last = number.seq;
        self.active = number.slot;
        self.numbers.push_back(number);
        if self.numbers.len() > usize::from(self.window) {
            self.numbers.pop_front();
        }
    }

    fn in_window(&self, seq: Seq) -> bool {
        seq.0.saturating_sub(self.last.0) <= u64::from(self.window)
    }
}

impl Sessions {
    pub(super) fn new(limits: SessionLimits, signatures: Signatures, generation: Generation) -> Self {
        Self { limits, signatures, generation, table: BTreeMap::new(), kept: VecDeque::new(), kept_bytes: 0 }
    }

    /// The generation that the log is in.
    pub(super) fn generation(&self) -> Generation {
        self.generation
    }

    /// Another generation begins: all sessions are void, and end. Whose they were may count on requests that are lost.
    pub(super) fn restart(&mut self, generation: Generation) -> impl Iterator<Item = (ClientId, Opening)> + use<> {
        let void = std::mem::replace(self, Self::new(self.limits, self.signatures, generation));
        void.table.into_iter().map(|(client, session)| (client, session.opened))
    }

    /// As a snapshot has it.
    pub(super) fn restore(self, table: Table, bounds: &Limits) -> Self {
        let mut sessions = Self { table, ..Self::new(self.limits, self.signatures, self.generation) };
        let mut kept = Vec::new();
        for (client, session) in &sessions.table {
            for number in &session.numbers {
                if let Fate::Replied { bytes: Some(bytes), .. } = &number.fate {
                    kept.push((number.slot, (*client, session.opened, number.seq, bytes.len())));
                }
            }
        }
        kept.sort_unstable_by_key(|(slot, _)| *slot);
        sessions.kept_bytes = kept.iter().map(|(_, (.., bytes))| bytes).sum();
        sessions.kept = kept.into_iter().map(|(_, kept)| kept).collect();
        sessions.forget_replies(bounds);
        sessions
    }

    /// What is known of the kept replies, anew from the table.
    fn rebuild(&mut self, bounds: &Limits) {
        let table = std::mem::take(&mut self.table);
        let empty = Self::new(self.limits, self.signatures, self.generation);
        *self = empty.restore(table, bounds);
    }

    /// The table for a snapshot, out of a copy that was made for it.
    pub(super) fn take_table(&mut self) -> Table {
        std::mem::take(&mut self.table)
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// The live session that `tag` names.
    pub(super) fn get(&self, tag: &Tag) -> Option<&Session> {
        self.table.get(&tag.client).filter(|session| session.opened == tag.opened)
    }

    /// What is known of a request that arrives from a client.
    pub(super) fn look_up(&self, request: &Request) -> Known {
        let tag = request.tag();
        if tag.kind == Kind::Open {
            return self.table.get(&tag.client).map_or(Known::New, |session| {
                let (opened, window) = (session.opened, session.window);
                done(opened.slot, Outcome::Opened { opened, window })
            });
        }
        let Some(session) = self.get(&tag) else { return Known::NoSession };
        match &request.body {
            Body::Close => Known::New,
            Body::Call(_) if super::mutant::on(super::Mutant::SessionCheckSkipped) => Known::New,
            _ if tag.seq == Seq(0) => Known::TooOld,
            _ if !session.in_window(tag.seq) => Known::OutOfWindow,
            _ if tag.seq > session.last => Known::New,
            Body::Cancel => done(session.active, Outcome::Settled),
            Body::Call(bytes) => session.number(tag.seq).map_or(Known::TooOld, |number| number.known(bytes)),
            // The latter are refused before they are looked up, and an ordered refusal came as a call.
            Body::Open { .. } | Body::Refused(_) | Body::Read(_) => Known::New,
        }
    }

    /// Lets one ordered request take effect on the table.
    pub(super) fn admit(&mut self, slot: Slot, request: &Request) -> Admitted {
        let tag = request.tag();
        if let Body::Open { window, owner } = &request.body {
            return self.open(slot, tag.client, *window, owner.as_ref().map(|owner| owner.key));
        }
        let Some(session) = self.table.get_mut(&tag.client).filter(|session| session.opened == tag.opened) else {
            return Admitted::Skipped;
        };
        match &request.body {
            Body::Call(bytes) => {
                if tag.seq != session.last.next() && !super::mutant::on(super::Mutant::SessionCheckSkipped) {
                    return Admitted::Skipped;
                }
                session.push(Number { seq: tag.seq, slot, fate: Fate::Running { body: Digest::of(bytes) } });
                Admitted::Execute
            }
            Body::Refused(refusal) => {
                if tag.seq != session.last.next() {
                    return Admitted::Skipped;
                }
                session.push(Number { seq: tag.seq, slot, fate: Fate::Refused(*refusal) });
                Admitted::Done(Outcome::Refused(*refusal), None)
            }
            Body::Cancel => {
                if !session.in_window(tag.seq) {
                    return Admitted::Skipped;
                }
                while session.last < tag.seq {
                    session.push(Number { seq: session.last.next(), slot, fate: Fate::Cancelled });
                }
                Admitted::Done(Outcome::Settled, None)
            }
            Body::Close => {
                self.table.remove(&tag.client);
                Admitted::Done(Outcome::Closed, Some((tag.client, tag.opened)))
            }
            // No leader orders the latter.
            Body::Open { .. } | Body::Read(_) => Admitted::Skipped,
        }
    }

    /// Opens a session; where the table is full, in the place of the one idle for most slots (rule 19).
    fn open(&mut self, slot: Slot, client: ClientId, window: u16, owner: Option<PublicKey>) -> Admitted {
        if let Some(session) = self.table.get(&client) {
            let (opened, window) = (session.opened, session.window);
            return Admitted::Done(Outcome::Opened { opened, window }, None);
        }
        let mut evicted = None;
        if self.table.len() >= self.limits.sessions as usize {
            let idle = self.table.iter().min_by_key(|(client, session)| (session.active, **client));
            let Some((idle, session)) =
                idle.filter(|(_, session)| slot.0.saturating_sub(session.active.0) > self.limits.retention_slots)
            else {
                return Admitted::Done(Outcome::Refused(Refusal::SessionsFull), None);
            };
            evicted = Some((*idle, session.opened));
        }
        if let Some((idle, _)) = evicted {
            self.table.remove(&idle);
        }
        let window = window.clamp(1, self.limits.window);
        let owner = owner.filter(|_| self.signatures != Signatures::Off);
        let opened = self.generation.at(slot);
        let session = Session { opened, owner, window, last: Seq(0), active: slot, numbers: VecDeque::new() };
        self.table.insert(client, session);
        Admitted::Done(Outcome::Opened { opened, window }, evicted)
    }

    fn number_mut(&mut self, tag: &Tag) -> Option<&mut Number> {
        let session = self.table.get_mut(&tag.client).filter(|session| session.opened == tag.opened)?;
        session.number_mut(tag.seq)
    }

    /// Keeps the reply of an admitted call. If another one was given before (this is a replay), the new one takes its
    /// place: it is what the rolling hash has, by which this application is judged (rule 31), and what is in no hash must
    /// not travel with a snapshot.
    ///
    /// # Errors
    /// The first reply differs: its bytes, as far as they are there.
    pub(super) fn replied(&mut self, tag: &Tag, reply: &AppReply, limits: &Limits) -> Result<(), Option<Bytes>> {
        let Some(number) = self.number_mut(tag) else { return Ok(()) };
        let (body, before) = match &number.fate {
            Fate::Running { body } => (*body, None),
            Fate::Replied { body, form, bytes } if *form != reply.form => (*body, Some(bytes.clone())),
            Fate::Replied { .. } | Fate::Cancelled | Fate::Refused(_) | Fate::Aborted => return Ok(()),
        };
        let keep = reply.bytes.len() <= limits.reply_kept_bytes;
        let bytes = keep.then(|| reply.bytes.clone());
        number.fate = Fate::Replied { body, form: reply.form, bytes };
        if keep {
            self.kept.push_back((tag.client, tag.opened, tag.seq, reply.bytes.len()));
            self.kept_bytes += reply.bytes.len();
            self.forget_replies(limits);
        }
        before.map_or(Ok(()), Err)
    }

    /// Replies from this slot on are of a state of the application that does not count: they are given anew.
    pub(super) fn unreply(&mut self, from: Slot, limits: &Limits) {
        for session in self.table.values_mut() {
            for number in session.numbers.iter_mut().filter(|number| number.slot >= from) {
                if let Fate::Replied { body, .. } = &number.fate {
                    number.fate = Fate::Running { body: *body };
                }
            }
        }
        self.rebuild(limits);
    }

    /// Takes the replies that are missing here from a snapshot's table.
    pub(super) fn take_replies(&mut self, table: &Table, limits: &Limits) {
        for (client, session) in &mut self.table {
            let Some(other) = table.get(client).filter(|other| other.opened == session.opened) else { continue };
            for number in session.numbers.iter_mut().filter(|number| matches!(number.fate, Fate::Running { .. })) {
                if let Some(known) = other.number(number.seq) {
                    number.fate = known.fate.clone();
                }
            }
        }
        self.rebuild(limits);
    }

    /// An ordered call is undone: its stored reply is that (rule 23).
    pub(super) fn aborted(&mut self, tag: &Tag) {
        if let Some(number) = self.number_mut(tag) {
            number.fate = Fate::Aborted;
        }
    }

    /// Lets go of the oldest replies' bytes above the bound.
    fn forget_replies(&mut self, limits: &Limits) {
        while self.kept_bytes > limits.replies_kept_bytes || self.kept.len() > limits.replies_kept {
            let Some((client, opened, seq, length)) = self.kept.pop_front() else { return };
            self.kept_bytes -= length;
            let session = self.table.get_mut(&client).filter(|session| session.opened == opened);
            if let Some(Number { fate: Fate::Replied { bytes, .. }, .. }) =
                session.and_then(|session| session.number_mut(seq))
            {
                *bytes = None;
            }
        }
    }
}

impl Number {
    fn known(&self, body: &Bytes) -> Known {
        match &self.fate {
            Fate::Cancelled => done(self.slot, Outcome::Cancelled),
            Fate::Refused(refusal) => done(self.slot, Outcome::Refused(*refusal)),
            Fate::Aborted => done(self.slot, Outcome::Aborted),
            Fate::Running { body: ordered } | Fate::Replied { body: ordered, .. } if *ordered != Digest::of(body) => {
                Known::OtherBody
            }
            Fate::Running { .. } => Known::Running,
            Fate::Replied { form, bytes, .. } => {
                Known::Outcome { slot: self.slot, form: *form, outcome: bytes.clone().map(Outcome::Executed) }
            }
        }
    }
}

fn done(slot: Slot, outcome: Outcome) -> Known {
    Known::Outcome { slot, form: outcome.form(), outcome: Some(outcome) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClientId;

    /// Mutant: where the first reply stays, a snapshot carries it to others beside a rolling hash that has the second, and
    /// two replicas vote for what one application made up (the simulator's seed 1078 before).
    #[test]
    fn a_replay_that_differs_is_what_is_kept_from_then_on() {
        let limits = SessionLimits { sessions: 2, window: 4, retention_slots: 8 };
        let mut sessions = Sessions::new(limits, Signatures::Off, Generation::FIRST);
        sessions.admit(Slot(1), &Request::open(ClientId(7), 4, None));
        let body = Body::Call(Bytes::from_static(b"GET a\n"));
        let call =
            Request { client: ClientId(7), opened: Generation::FIRST.at(Slot(1)), seq: Seq(1), body, proof: None };
        assert_eq!(sessions.admit(Slot(2), &call), Admitted::Execute);
        let reply = |bytes: &'static [u8]| AppReply { bytes: Bytes::from_static(bytes), form: Digest::of(bytes) };
        assert_eq!(sessions.replied(&call.tag(), &reply(b"WRONG"), &Limits::DEFAULT), Ok(()));
        let before = Bytes::from_static(b"WRONG");
        assert_eq!(sessions.replied(&call.tag(), &reply(b"1"), &Limits::DEFAULT), Err(Some(before)));
        let Known::Outcome { form, outcome, .. } = sessions.look_up(&call) else { panic!("it has a reply") };
        assert_eq!((form, outcome), (Digest::of(b"1"), Some(Outcome::Executed(Bytes::from_static(b"1")))));
        assert_eq!(sessions.replied(&call.tag(), &reply(b"1"), &Limits::DEFAULT), Ok(()));
    }
}
