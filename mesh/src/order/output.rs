//! What comes out of [`super::Replica::step`]: plain data, in order, without conditions. What must wait for the disk is
//! produced when `Input::Persisted` comes back, never before.

use super::input::Record;
use crate::ids::{Ballot, ClientId, Digest, Lsn, ReplicaId, Run, Slot};
use crate::wire::submit::Steer;
use crate::wire::{Message, Outcome, Tag};
use bytes::Bytes;

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send a message; losing it is harmless.
    Send {
        /// To whom.
        to: To,
        /// What.
        message: Message,
    },
    /// Append a record to the journal, make it durable, then say [`super::Input::Persisted`].
    Persist {
        /// Its place; consecutive.
        lsn: Lsn,
        /// The record.
        record: Record,
    },
    /// Bring the application to its initial state, forget every call of earlier runs, say [`super::Input::Restored`].
    Reset {
        /// The number of the run that then begins.
        run: Run,
    },
    /// Let the application execute these, after those of the slots before; then say [`super::Input::Executed`] with one
    /// reply for each [`Operation::Call`], in order.
    Execute {
        /// The run.
        run: Run,
        /// The slot.
        slot: Slot,
        /// The effective time of the slot, Unix time in ns (rule 7).
        time: u64,
        /// What to execute, in order; at least one.
        operations: Vec<Operation>,
    },
    /// The ordered outcome of a request, for whoever waits for it here; nobody may.
    Reply {
        /// Which request.
        tag: Tag,
        /// The slot that ordered it.
        slot: Slot,
        /// The hash of the outcome's comparison form.
        form: Digest,
        /// The outcome, or `None` if only its hash was kept.
        outcome: Option<Outcome>,
    },
    /// A word on a request that was not taken; decides nothing.
    Steer {
        /// Which request.
        tag: Tag,
        /// What to say.
        steer: Steer,
    },
    /// Something worth a log line or a counter.
    Event(Event),
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// One member.
    One(ReplicaId),
    /// Every other member.
    Others,
}

/// One step of the application.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A request; it has a reply.
    Call {
        /// The session, for applications with a connection per session: (client id, opening slot).
        session: (ClientId, Slot),
        /// The request's bytes.
        bytes: Bytes,
    },
    /// The session ended: a connection of its own can go. It has no reply.
    End {
        /// The session.
        session: (ClientId, Slot),
    },
}

/// What people and metrics are told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// This replica stands for election.
    Standing {
        /// Its ballot.
        ballot: Ballot,
    },
    /// This replica leads.
    Leading {
        /// Its ballot.
        ballot: Ballot,
    },
    /// This replica follows.
    Following {
        /// The leader's ballot.
        ballot: Ballot,
    },
    /// This replica no longer leads.
    SteppedDown {
        /// The ballot it led in.
        ballot: Ballot,
        /// Why.
        reason: &'static str,
    },
    /// A leader is suspected because a request is not ordered.
    Suspected {
        /// The leader's ballot.
        ballot: Ballot,
        /// The oldest waiting request.
        tag: Tag,
    },
    /// The same number came with another body (rule 20): a broken or malicious client. Alarm.
    OtherBody {
        /// The request.
        tag: Tag,
    },
    /// A replay of the application gave another reply than the first time. Alarm.
    ReplayDiffers {
        /// The request.
        tag: Tag,
        /// Its slot.
        slot: Slot,
    },
    /// A peer sent what no correct peer sends; the message was dropped.
    Nonsense {
        /// Who.
        from: ReplicaId,
        /// What, shortly.
        what: &'static str,
    },
}
