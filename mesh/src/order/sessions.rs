//! The session table: part of the replicated state, a function of the log alone (rules 17 to 21).

use crate::config::SessionLimits;
use crate::ids::{ClientId, Digest, Seq, Slot};
use crate::wire::{Body, Kind, Outcome, Refusal, Request, Tag};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// One live session.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// The slot that opened it: with the client id, its name.
    pub opened: Slot,
    /// k: numbers that may be outstanding, and replies that are kept.
    pub window: u16,
    /// The highest number admitted or cancelled.
    pub last: Seq,
    /// The slot of its last activity.
    active: Slot,
    /// The last k numbers, in order.
    numbers: VecDeque<Number>,
}

/// What became of one number.
#[derive(Clone, Debug)]
pub(super) struct Number {
    seq: Seq,
    slot: Slot,
    /// The hash of the body that was ordered; `None` where the number was cancelled.
    body: Option<Digest>,
    reply: Option<KeptReply>,
}

#[derive(Clone, Debug)]
struct KeptReply {
    form: Digest,
    bytes: Option<Bytes>,
}

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
    Done(Outcome, Option<(ClientId, Slot)>),
}

/// All live sessions.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    limits: SessionLimits,
    table: BTreeMap<ClientId, Session>,
    /// Numbers whose replies' bytes are kept, oldest first, and how many bytes that is. Not part of the replicated
    /// state: whether the bytes are still there decides no outcome.
    kept: VecDeque<(ClientId, Slot, Seq, usize)>,
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
    pub(super) fn new(limits: SessionLimits) -> Self {
        Self { limits, table: BTreeMap::new(), kept: VecDeque::new(), kept_bytes: 0 }
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
                done(opened, Outcome::Opened { opened, window })
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
            Body::Open { .. } => Known::New,
        }
    }

    /// Lets one ordered request take effect on the table.
    pub(super) fn admit(&mut self, slot: Slot, request: &Request) -> Admitted {
        let tag = request.tag();
        if let Body::Open { window } = request.body {
            return self.open(slot, tag.client, window);
        }
        let Some(session) = self.table.get_mut(&tag.client).filter(|session| session.opened == tag.opened) else {
            return Admitted::Skipped;
        };
        match &request.body {
            Body::Call(bytes) => {
                if tag.seq != session.last.next() && !super::mutant::on(super::Mutant::SessionCheckSkipped) {
                    return Admitted::Skipped;
                }
                session.push(Number { seq: tag.seq, slot, body: Some(Digest::of(bytes)), reply: None });
                Admitted::Execute
            }
            Body::Cancel => {
                if !session.in_window(tag.seq) {
                    return Admitted::Skipped;
                }
                while session.last < tag.seq {
                    session.push(Number { seq: session.last.next(), slot, body: None, reply: None });
                }
                Admitted::Done(Outcome::Settled, None)
            }
            Body::Close => {
                self.table.remove(&tag.client);
                Admitted::Done(Outcome::Closed, Some((tag.client, tag.opened)))
            }
            Body::Open { .. } => Admitted::Skipped,
        }
    }

    /// Opens a session; where the table is full, in the place of the one idle for most slots (rule 19).
    fn open(&mut self, slot: Slot, client: ClientId, window: u16) -> Admitted {
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
        let session = Session { opened: slot, window, last: Seq(0), active: slot, numbers: VecDeque::new() };
        self.table.insert(client, session);
        Admitted::Done(Outcome::Opened { opened: slot, window }, evicted)
    }

    /// Keeps the reply of an admitted call. Returns whether it is the first or the same as before (a replay).
    pub(super) fn replied(&mut self, tag: &Tag, form: Digest, bytes: &Bytes, limits: &crate::limits::Limits) -> bool {
        let Some(session) = self.table.get_mut(&tag.client).filter(|session| session.opened == tag.opened) else {
            return true;
        };
        let Some(number) = session.number_mut(tag.seq) else { return true };
        if let Some(before) = &number.reply {
            return before.form == form;
        }
        let keep = bytes.len() <= limits.reply_kept_bytes;
        number.reply = Some(KeptReply { form, bytes: keep.then(|| bytes.clone()) });
        if keep {
            self.kept.push_back((tag.client, tag.opened, tag.seq, bytes.len()));
            self.kept_bytes += bytes.len();
            self.forget_replies(limits);
        }
        true
    }

    /// Lets go of the oldest replies' bytes above the bound.
    fn forget_replies(&mut self, limits: &crate::limits::Limits) {
        while self.kept_bytes > limits.replies_kept_bytes || self.kept.len() > limits.replies_kept {
            let Some((client, opened, seq, bytes)) = self.kept.pop_front() else { return };
            self.kept_bytes -= bytes;
            let session = self.table.get_mut(&client).filter(|session| session.opened == opened);
            if let Some(KeptReply { bytes, .. }) =
                session.and_then(|session| session.number_mut(seq)).and_then(|number| number.reply.as_mut())
            {
                *bytes = None;
            }
        }
    }
}

impl Number {
    fn known(&self, body: &Bytes) -> Known {
        let Some(digest) = self.body else { return done(self.slot, Outcome::Cancelled) };
        if digest != Digest::of(body) {
            return Known::OtherBody;
        }
        self.reply.as_ref().map_or(Known::Running, |reply| Known::Outcome {
            slot: self.slot,
            form: reply.form,
            outcome: reply.bytes.clone().map(Outcome::Executed),
        })
    }
}

fn done(slot: Slot, outcome: Outcome) -> Known {
    Known::Outcome { slot, form: outcome.form(), outcome: Some(outcome) }
}
