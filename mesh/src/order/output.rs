//! What comes out of [`super::Replica::step`]: plain data, in order, without conditions. What must wait for the disk is
//! produced when `Input::Persisted` comes back, never before.

use super::input::{AppReply, Record};
use super::{ChangeRefused, Image, Unread};
use crate::auth::Rejected;
use crate::config::Configuration;
use crate::ids::{
    Ballot, ClientId, Digest, Epoch, Generation, Incarnation, Lsn, Opening, Position, ReadId, ReplicaId, Run, Slot,
};
use crate::wire::peer::Change;
use crate::wire::submit::Steer;
use crate::wire::{Message, Outcome, Tag};
use bytes::Bytes;

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Bring the application to its initial state, load the snapshot if one is named, forget every call of earlier runs,
    /// say [`super::Input::Restored`]; or [`super::Input::SnapshotLost`], then another reset is asked for.
    Reset {
        /// The number of the run that then begins.
        run: Run,
        /// The slot of the snapshot to load.
        snapshot: Option<Slot>,
    },
    /// The application that was found running is in the state that the marker says: use it as it is, if it still is the
    /// same, and say [`super::Input::Restored`]; or [`super::Input::AppLost`].
    Resume {
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
        /// So many of the first calls have no time limit: a majority executed them already (rule 23).
        patient: usize,
    },
    /// Let the application answer a read, behind everything that it was given before; then say [`super::Input::ReadDone`]. No
    /// time limit of a call is its: an application that does not answer is lost ([`super::Input::AppLost`]).
    Read {
        /// The run.
        run: Run,
        /// Which.
        read: ReadId,
    },
    /// What the application answered to a read may be given to whoever asked.
    ReadAnswer {
        /// Which.
        read: ReadId,
        /// The slot behind which it was read.
        slot: Slot,
    },
    /// A read has no answer and will have none, whatever the application says: it must go through the log.
    ReadVoid {
        /// Which.
        read: ReadId,
        /// Why.
        why: Unread,
    },
    /// Take a snapshot: the application has executed exactly up to its slot, and gets nothing until
    /// [`super::Input::Dumped`] or [`super::Input::DumpFailed`]. Reads that it has are void.
    Dump {
        /// The run.
        run: Run,
        /// What of the snapshot is the core's; its slot names it.
        image: Box<Image>,
    },
    /// Every slot up to here is covered by snapshots: the journal and older snapshots than the newest verified one at or
    /// above it may go.
    Cut {
        /// The slot.
        through: Slot,
    },
    /// Fetch a snapshot of this peer, of `least` or a later slot; say [`super::Input::Received`] or
    /// [`super::Input::TransferFailed`]. A new one takes the place of one under way.
    Transfer {
        /// The peer.
        from: ReplicaId,
        /// The lowest slot that is of use.
        least: Slot,
    },
    /// Snapshots of slots after this one are of a diverged application: delete them,
    /// and give up one that is being taken.
    Discard {
        /// The last slot on which the application agreed with a majority.
        after: Slot,
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
    /// The end of what an operator asked for with [`super::Input::Change`] or [`super::Input::TransferLeader`]. A removal is
    /// done when a majority of the configuration without the member holds it: then it may stop.
    Changed {
        /// The question's name.
        token: u64,
        /// Done, or why not.
        result: Result<(), ChangeRefused>,
    },
    /// The configuration is another one: from now on [`To::Others`] are its other members. What a removed member was being
    /// served need not be kept for it.
    Reconfigured(Box<Configuration>),
    /// Something worth a log line or a counter.
    Event(Event),
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// One member.
    One(ReplicaId),
    /// Every other member of the configuration, as [`super::Replica::configuration`] and [`Output::Reconfigured`] last said.
    Others,
}

/// One step of the application.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A request; it has a reply.
    Call {
        /// The session, for applications with a connection per session: (client id, opening slot).
        session: (ClientId, Opening),
        /// The request's bytes.
        bytes: Bytes,
    },
    /// The session ended: a connection of its own can go. It has no reply.
    End {
        /// The session.
        session: (ClientId, Opening),
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
    /// An ordered request is not its session's owner's, and is passed over by all alike (rule 16): the leader that
    /// ordered it did not check it. Alarm.
    Forged {
        /// The request.
        tag: Tag,
        /// What is wrong.
        why: Rejected,
    },
    /// A replay of the application gave another reply than the first time. Alarm.
    ReplayDiffers {
        /// The request.
        tag: Tag,
        /// Its slot.
        slot: Slot,
        /// The reply that was given first, if its bytes are still there.
        before: Option<Bytes>,
        /// The reply now.
        now: AppReply,
    },
    /// The application's replies up to a slot differ from those of a majority (rule 31). Alarm.
    Diverged {
        /// The slot.
        slot: Slot,
        /// The last slot on which it agreed.
        agreed: Slot,
        /// The rolling hash here.
        own: Digest,
        /// The majority's.
        majority: Digest,
        /// What follows: it is rebuilt.
        rebuild: bool,
    },
    /// A diverged application was rebuilt and agrees with the majority again.
    Rebuilt {
        /// On this slot.
        slot: Slot,
    },
    /// The applications' replies differ and no majority agrees (rule 31). Alarm.
    NoAgreement {
        /// Up to this slot.
        slot: Slot,
    },
    /// The application fell silent on a request (rule 23).
    Silent {
        /// Where it is.
        at: Position,
    },
    /// A request was aborted by order (rule 23).
    Aborted {
        /// Where it was.
        at: Position,
        /// Its name.
        tag: Tag,
    },
    /// A member's new life was granted an incarnation (rule 12).
    Rejoined {
        /// The member.
        member: ReplicaId,
        /// The incarnation.
        incarnation: Incarnation,
        /// It is this replica.
        own: bool,
    },
    /// The members, or what they are, changed by order (rule 11).
    Configured {
        /// The configuration's number from now on.
        epoch: Epoch,
        /// The change.
        change: Change,
    },
    /// Another life of this member was granted the incarnation: this one is over and must not go on.
    Superseded,
    /// Another generation of the cluster begins: every session has ended (rule 14).
    Restarted {
        /// Which.
        generation: Generation,
    },
    /// The application cannot be brought back: the log was cut behind a snapshot that is gone, and there is no peer to
    /// fetch one from. Alarm.
    NoSnapshot {
        /// One of this slot or a later one is needed.
        least: Slot,
    },
    /// The log has more than half of the bytes that it may have. Alarm.
    LogGrows {
        /// Its bytes.
        bytes: u64,
    },
    /// A peer sent what no correct peer sends; the message was dropped.
    Nonsense {
        /// Who.
        from: ReplicaId,
        /// What, shortly.
        what: &'static str,
    },
}
