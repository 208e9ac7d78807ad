//! What goes into [`super::Replica::step`].

use super::Image;
use crate::auth::Verified;
use crate::ids::{Ballot, Digest, Life, Lsn, Position, ReadId, ReplicaId, Run, Slot};
use crate::wire::Message;
use crate::wire::peer::{Batch, Change};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Something that happened. Late, early, doubled and lost messages are harmless, and so is whatever an earlier run of the
/// application did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A peer's message; `from` is the identity of the link's certificate.
    Message {
        /// Who sent it.
        from: ReplicaId,
        /// In which of its lives.
        life: Life,
        /// What.
        message: Message,
    },
    /// Every record up to `lsn` is as durable as the configuration asks.
    Persisted {
        /// The last durable record.
        lsn: Lsn,
    },
    /// Requests of SMaRtClients, all that came since the last step, so that they make one batch.
    Requests(Vec<Verified>),
    /// Reads of clients, which enter no log (rule 32). Each ends with [`super::Output::ReadAnswer`] or
    /// [`super::Output::ReadVoid`]. What they ask, and that they change nothing, is the driver's to know.
    Reads(Vec<ReadId>),
    /// The application answered a read, behind everything that it was given before.
    ReadDone {
        /// The run in which it did.
        run: Run,
        /// Which.
        read: ReadId,
    },
    /// The application runs: in the state that [`super::Output::Reset`] asked for, or as [`super::Output::Resume`] found
    /// it.
    Restored {
        /// The reset's number.
        run: Run,
    },
    /// The application executed a slot's calls. Of one run each slot comes once, in order.
    Executed {
        /// The run in which it did.
        run: Run,
        /// The slot.
        slot: Slot,
        /// One reply for each call, in order.
        replies: Vec<AppReply>,
    },
    /// The application did not answer a call in time, or ended with the call unanswered.
    AppSilent {
        /// The run.
        run: Run,
        /// The slot.
        slot: Slot,
        /// So many calls of the slot were answered before.
        answered: usize,
    },
    /// The application, or the proof of what it executed, is lost, and no call is to blame.
    AppLost {
        /// The run that was lost.
        run: Run,
    },
    /// A snapshot cannot be used: it is damaged or gone. Where [`super::Output::Reset`] asked for it, another reset follows.
    SnapshotLost {
        /// Its slot.
        slot: Slot,
    },
    /// The snapshot that [`super::Output::Dump`] asked for is stored, and was read back and verified.
    Dumped {
        /// Its slot.
        slot: Slot,
    },
    /// It could not be taken or stored. The application still runs, or [`Input::AppLost`] says otherwise.
    DumpFailed {
        /// Its slot.
        slot: Slot,
    },
    /// A peer's snapshot was fetched as [`super::Output::Transfer`] asked, is stored and verified.
    Received {
        /// What of it is the core's.
        image: Box<Image>,
    },
    /// That peer's snapshot could not be fetched.
    TransferFailed {
        /// The peer.
        from: ReplicaId,
    },
    /// Snapshots down to this slot are being served to peers: the log above it is not cut (rule 10). `None`: no more.
    Serving {
        /// The lowest of them.
        slot: Option<Slot>,
    },
    /// Take a snapshot soon, whether or not one is due.
    Save,
    /// An operator demands that a request of an unsettled slot is aborted (rule 23).
    Abort {
        /// Where it is.
        at: Position,
    },
    /// An operator asks this leader for a change of the configuration. Answered once with [`super::Output::Changed`]: at once
    /// if it is refused, else when it is done.
    Change {
        /// Names the question in the answer.
        token: u64,
        /// The change.
        change: Change,
    },
    /// An operator asks this leader to hand over to a certain voter. Answered like [`Input::Change`].
    TransferLeader {
        /// Names the question in the answer.
        token: u64,
        /// Who is to lead.
        to: ReplicaId,
    },
    /// The driver stops soon: hand leadership over, stand in no election.
    Drain,
    /// A member said goodbye, and is gone: nothing more comes from it.
    Left {
        /// Which one.
        member: ReplicaId,
    },
    /// The deadline passed (or not: harmless).
    Timeout,
}

/// The application's reply to one call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AppReply {
    /// The reply as the application gave it.
    pub bytes: Bytes,
    /// The hash of its comparison form (rule 28).
    pub form: Digest,
}

/// A record of the journal: the core asks for it with [`super::Output::Persist`] and gets them back, in order, at the
/// next start.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Record {
    /// No vote in any ballot below.
    Promised {
        /// The ballot.
        ballot: Ballot,
    },
    /// A vote, or a decided value that was fetched.
    Accepted {
        /// The slot.
        slot: Slot,
        /// The ballot.
        ballot: Ballot,
        /// The value.
        batch: Arc<Batch>,
    },
    /// For every slot up to here the last [`Record::Accepted`] holds the decided value.
    Decided {
        /// The slot.
        slot: Slot,
    },
    /// The application fell silent on a request: neither executed nor answered here until its outcome is known (rule 23).
    /// The last of these counts; one of slot 0 says that there is none.
    Silent {
        /// Where it is.
        at: Position,
    },
    /// This replica goes on from a peer's snapshot: it holds every slot up to here in that form, and whatever it voted for
    /// there before may be another value than the decided one.
    Jumped {
        /// The snapshot's slot.
        slot: Slot,
    },
    /// Another life of this member has got its incarnation: this one is over (rule 12).
    Superseded,
    /// An operator has another generation begin behind this slot (rule 14): what was accepted above it is given up, and
    /// neither that a life was over nor that the application fell silent counts any more.
    Restarted {
        /// The last slot that is kept.
        slot: Slot,
    },
}

/// What a replica knows when it starts. Its journal is whole: who cannot prove that begins another life with an empty
/// one, and may keep its snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The highest promise.
    pub promised: Ballot,
    /// Every value of the journal: the last one of each slot, in order of slots.
    pub entries: Vec<(Slot, Ballot, Arc<Batch>)>,
    /// The last decided mark in the journal.
    pub decided: Slot,
    /// The last request that the application fell silent on.
    pub silent: Option<Position>,
    /// This life is over.
    pub superseded: bool,
    /// What of the newest verified snapshot is the core's.
    pub image: Option<Box<Image>>,
    /// Every slot up to here may have been answered before the restart: the application's silence there is not stated
    /// (rule 23). Where nothing is known, the last slot of the journal.
    pub answered: Slot,
    /// The application still runs, and this is what it executed (rule 25).
    pub resumed: Option<Resumed>,
}

/// What the execution marker proves: the application has executed exactly so far since the newest snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Every slot up to here was executed.
    pub executed: Slot,
    /// The replies of the slots after the newest snapshot, in order; slots without a call may be left out.
    pub replies: Vec<(Slot, Vec<AppReply>)>,
}

impl Recovered {
    /// What a whole journal's records say, in the order in which they were written.
    #[must_use]
    pub fn from_records(records: impl IntoIterator<Item = Record>) -> Self {
        let mut recovered = Self::default();
        let mut entries = std::collections::BTreeMap::new();
        for record in records {
            match record {
                Record::Promised { ballot } => recovered.promised = recovered.promised.max(ballot),
                // A vote is a promise too, not to vote in any lower ballot.
                Record::Accepted { slot, ballot, batch } => {
                    recovered.promised = recovered.promised.max(ballot);
                    entries.insert(slot, (ballot, batch));
                }
                Record::Decided { slot } => recovered.decided = recovered.decided.max(slot),
                Record::Silent { at } => recovered.silent = (at.slot > Slot(0)).then_some(at),
                Record::Jumped { slot } => {
                    recovered.decided = recovered.decided.max(slot);
                    entries = entries.split_off(&slot.next());
                }
                Record::Superseded => recovered.superseded = true,
                Record::Restarted { slot } => {
                    recovered.decided = slot;
                    entries.split_off(&slot.next());
                    (recovered.superseded, recovered.silent) = (false, None);
                }
            }
        }
        recovered.answered = entries.last_key_value().map_or(Slot(0), |(slot, _)| *slot);
        recovered.entries = entries.into_iter().map(|(slot, (ballot, batch))| (slot, ballot, batch)).collect();
        recovered
    }
}
