//! What goes into [`super::Replica::step`].

use crate::auth::Verified;
use crate::ids::{Ballot, Digest, Lsn, ReplicaId, Run, Slot};
use crate::wire::peer::Batch;
use crate::wire::{Message, Request};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Something that happened. Late, early, doubled and lost ones are harmless.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A peer's message; `from` is the identity of the link's certificate.
    Message {
        /// Who sent it.
        from: ReplicaId,
        /// What.
        message: Message,
    },
    /// Every record up to `lsn` is as durable as the configuration asks.
    Persisted {
        /// The last durable record.
        lsn: Lsn,
    },
    /// Requests of SMaRtClients, all that came since the last step, so that they make one batch.
    Requests(Vec<Verified<Request>>),
    /// The application was reset as [`super::Output::Reset`] asked, is in its initial state and running.
    Restored {
        /// The reset's number.
        run: Run,
    },
    /// The application executed a slot's calls.
    Executed {
        /// The run in which it did.
        run: Run,
        /// The slot.
        slot: Slot,
        /// One reply for each call, in order.
        replies: Vec<AppReply>,
    },
    /// The application, or the proof of what it executed, is lost.
    AppLost {
        /// The run that was lost.
        run: Run,
    },
    /// The driver stops soon: hand leadership over, stand in no election.
    Drain,
    /// The deadline passed (or not: harmless).
    Timeout,
}

/// The application's reply to one call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
}

/// What a replica knows when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Whether every promise and vote that this incarnation ever sent is known: if not, it never votes (rule 12).
    pub voting: bool,
    /// The highest promise.
    pub promised: Ballot,
    /// Every value of the journal: the last one of each slot, in order of slots.
    pub entries: Vec<(Slot, Ballot, Arc<Batch>)>,
    /// The last decided mark in the journal.
    pub decided: Slot,
}

impl Recovered {
    /// A member of a new cluster: it never promised or voted.
    #[must_use]
    pub fn first_start() -> Self {
        Self { voting: true, ..Self::default() }
    }

    /// A member that cannot prove what it promised: it learns and executes, and never votes.
    #[must_use]
    pub fn amnesiac() -> Self {
        Self::default()
    }

    /// What a whole journal's records say, in the order in which they were written.
    #[must_use]
    pub fn from_records(records: impl IntoIterator<Item = Record>) -> Self {
        let mut promised = Ballot::NONE;
        let mut decided = Slot(0);
        let mut entries = std::collections::BTreeMap::new();
        for record in records {
            match record {
                Record::Promised { ballot } => promised = promised.max(ballot),
                // A vote is a promise too, not to vote in any lower ballot.
                Record::Accepted { slot, ballot, batch } => {
                    promised = promised.max(ballot);
                    entries.insert(slot, (ballot, batch));
                }
                Record::Decided { slot } => decided = decided.max(slot),
            }
        }
        let entries = entries.into_iter().map(|(slot, (ballot, batch))| (slot, ballot, batch)).collect();
        Self { voting: true, promised, entries, decided }
    }
}
