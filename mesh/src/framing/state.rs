//! What a connection to the application remembers (rule 27), so that another connection can be brought to the same place.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Bytes of requests that the connections of all sessions keep at most, and of one of them. Part of the semantics of
/// execution: a request beyond is answered with an error.
pub(super) const STATE_BYTES: usize = 64 << 20;
pub(super) const STATE_BYTES_EACH: usize = 16 << 20;
/// What a kept request costs beside its own bytes.
const ENTRY_BYTES: usize = 64;

/// The state of one connection: a function of the requests that were executed on it and of their replies. Empty when it
/// is as good as a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionState {
    /// Requests that were executed and still count, in their order.
    pub(super) kept: Vec<Kept>,
    /// The requests of an open transaction, the one that opened it first; nothing of them was executed.
    pub(super) queue: Vec<Queued>,
    /// A key that the transaction depends on has changed: nothing of it may run.
    pub(super) void: bool,
    /// There was no room for a request of the transaction.
    pub(super) doomed: bool,
    bytes: u64,
}

/// A request that counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub aspect: Aspect,
    pub request: Bytes,
}

/// What a kept request decides; a later one of the same takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Aspect {
    /// Who speaks.
    User,
    /// The protocol's version.
    Protocol,
    /// The database.
    Database,
    /// The connection's name.
    Name,
    /// Whether it may be evicted.
    Eviction,
    /// Whether its reads count as a use of a key.
    Touch,
    /// Keys that must not change before the transaction; each counts beside the others.
    Watch,
}

impl Aspect {
    /// Whether what a later request of this aspect does depends on an earlier one of `on`: that one is kept then, even if
    /// there is a newer one.
    fn depends(self, on: Self) -> bool {
        match on {
            // Another user might not have been allowed to.
            Self::User => self != Self::User,
            Self::Database => self == Self::Watch,
            _ => false,
        }
    }
}

/// A request of an open transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Queued {
    pub request: Bytes,
    /// It was answered with an error.
    pub failed: bool,
}

/// One request of those that bring a new connection to the state of an old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed<'a> {
    /// The request.
    pub request: &'a Bytes,
    /// Whether it must be answered with an error, as it was before.
    pub fails: bool,
}

impl ConnectionState {
    /// Whether a new connection is as good.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.queue.is_empty() && !self.void
    }

    /// How much it keeps, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }

    /// Whether only the application knows all of it: whether something that it looks at for this connection has changed
    /// meanwhile. Such a connection must be there while others execute.
    #[must_use]
    pub fn is_watching(&self) -> bool {
        !self.void && self.kept.iter().any(|kept| kept.aspect == Aspect::Watch)
    }

    /// What it looked at has changed.
    pub fn set_void(&mut self) {
        if self.is_watching() {
            self.unwatch();
            self.void = true;
        }
    }

    /// What to ask of a new connection, in this order.
    pub fn replayed(&self) -> impl Iterator<Item = Replayed<'_>> {
        let kept = self.kept.iter().map(|kept| Replayed { request: &kept.request, fails: false });
        kept.chain(self.queue.iter().map(|queued| Replayed { request: &queued.request, fails: queued.failed }))
    }

    /// Whether there is room for a request of that length, where the connections of all sessions keep so much.
    pub(super) fn has_room(&self, length: usize, all: usize) -> bool {
        let cost = length.saturating_add(ENTRY_BYTES);
        let fits = |used: usize, limit| used.saturating_add(cost) <= limit;
        fits(self.bytes(), STATE_BYTES_EACH) && fits(all, STATE_BYTES)
    }

    pub(super) fn keep(&mut self, aspect: Aspect, request: &[u8]) {
        // A copy: the original is a piece of a larger message.
        self.kept.push(Kept { aspect, request: Bytes::copy_from_slice(request) });
        self.forget_superseded();
        self.count();
    }

    /// Opens a transaction, or adds to it.
    pub(super) fn queue(&mut self, request: &[u8], failed: bool) {
        if !self.doomed {
            self.bytes = self.bytes.saturating_add(cost(request));
            self.queue.push(Queued { request: Bytes::copy_from_slice(request), failed });
        }
    }

    /// Because of this request the open transaction will be refused: no other one of it makes a difference any more.
    pub(super) fn doom(&mut self, request: &Bytes) {
        if !self.doomed && !self.queue.is_empty() {
            self.queue.truncate(1);
            self.count();
            self.queue(request, true);
            self.doomed = true;
        }
    }

    /// Whether the open transaction will be refused.
    pub(super) fn will_be_refused(&self) -> bool {
        self.queue.iter().any(|queued| queued.failed)
    }

    pub(super) fn unwatch(&mut self) {
        self.void = false;
        self.kept.retain(|kept| kept.aspect != Aspect::Watch);
        self.forget_superseded();
        self.count();
    }

    /// The transaction is over: its requests, which the caller may still need.
    pub(super) fn end_transaction(&mut self) -> Vec<Queued> {
        let queue = std::mem::take(&mut self.queue);
        self.doomed = false;
        self.unwatch();
        queue
    }

    fn forget_superseded(&mut self) {
        // From the end, because what is kept depends on what is before it.
        for at in (0..self.kept.len()).rev() {
            if is_superseded(&self.kept[at], &self.kept[at + 1..]) {
                self.kept.remove(at);
            }
        }
    }

    fn count(&mut self) {
        let requests =
            self.kept.iter().map(|kept| &kept.request).chain(self.queue.iter().map(|queued| &queued.request));
        self.bytes = requests.map(|request| cost(request)).sum();
    }
}

/// Whether a request makes no difference any more, for those that followed it.
fn is_superseded(kept: &Kept, later: &[Kept]) -> bool {
    let next = later.iter().position(|next| match kept.aspect {
        // The same keys again, of the same database.
        Aspect::Watch => next.aspect == Aspect::Database || next.request == kept.request,
        aspect => next.aspect == aspect,
    });
    let Some(next) = next else { return false };
    later[next].aspect == kept.aspect && !later[..next].iter().any(|between| between.aspect.depends(kept.aspect))
}

fn cost(request: &[u8]) -> u64 {
    (request.len() + ENTRY_BYTES) as u64
}
