//! The deciding half of whoever fetches a snapshot: what to ask next, what to believe, when to give up.

use super::Manifest;
use crate::ids::{Digest, Generation, ReplicaId, Slot};
use crate::time::{Duration, Instant};
use crate::wire::transfer::{TransferAnswer, TransferAsk};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Chunks that are asked for at one time: enough to fill a link, few enough to leave room on it for the ordering.
pub(super) const ASKS_MAX: usize = 4;
/// Without any answer for this long, what was asked is asked again.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Without any useful answer for this long, the peer is given up. One that needs longer for a chunk is too slow.
pub(super) const SILENCE: Duration = Duration::from_secs(6);
/// A question that failed at once is asked again after this.
pub(super) const RETRY: Duration = Duration::from_millis(200);
/// So many times the same chunk may come damaged from one peer.
pub(super) const DAMAGED_MAX: u32 = 3;

/// Fetches one snapshot of one peer. Chunks that were verified are kept when it is told to begin [`Self::again`], and
/// are of use if the manifest is the same then.
#[derive(Clone, Debug)]
pub struct Receiver {
    cluster: String,
    generation: Generation,
    from: ReplicaId,
    least: Slot,
    /// Whether the peer has confirmed `plan` in this attempt.
    agreed: bool,
    plan: Option<Plan>,
    asked: BTreeMap<TransferAsk, Asked>,
    /// Since when the peer owes an answer that is of use.
    waiting: Option<Instant>,
}

/// What is to be fetched, and what of it was verified.
#[derive(Clone, Debug)]
struct Plan {
    manifest: Manifest,
    digest: Digest,
    have: Vec<bool>,
    missing: usize,
    /// Bytes that are there.
    done: u64,
    /// Every chunk below is there or asked for.
    next: usize,
    damaged: BTreeMap<usize, u32>,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    /// It is under way since then.
    Since(Instant),
    /// It failed, and is due again then.
    Again(Instant),
}

/// What an answer is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing: it is late, doubled, or was damaged and is asked for again.
    Nothing,
    /// A snapshot that is begun: room for it is to be made; what was stored of another one is of no use.
    Begin(Manifest),
    /// The snapshot of the attempt before goes on.
    Resume,
    /// A chunk that is right, to be stored.
    Chunk {
        /// Which.
        index: usize,
        /// It.
        bytes: Bytes,
    },
}

/// Why a peer's snapshot is not fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GiveUp {
    /// It has none that is of use.
    #[error("it has no snapshot of slot {0} or later")]
    Nothing(Slot),
    /// It does not serve it any more.
    #[error("it does not serve that snapshot any more")]
    Gone,
    /// Its manifest cannot be used.
    #[error("its manifest cannot be used: {0}")]
    Manifest(#[from] super::BadManifest),
    /// A chunk came damaged again and again.
    #[error("chunk {0} came damaged {DAMAGED_MAX} times")]
    Damaged(usize),
    /// It does not answer, or too slowly.
    #[error("nothing came for {} s", SILENCE.as_nanos() / 1_000_000_000)]
    Silent,
    /// Its answers are none to the questions.
    #[error("it answers another question than the one asked")]
    Nonsense,
}

impl Receiver {
    /// Fetches a snapshot of `from`, of slot `least` or later; whoever asks is of this cluster and generation.
    #[must_use]
    pub fn new(cluster: &str, generation: Generation, from: ReplicaId, least: Slot) -> Self {
        let cluster = cluster.to_owned();
        Self { cluster, generation, from, least, agreed: false, plan: None, asked: BTreeMap::new(), waiting: None }
    }

    /// Begins another attempt, with the same or another peer. Chunks stay if its manifest is the same.
    #[must_use]
    pub fn again(self, from: ReplicaId, least: Slot) -> Self {
        Self { from, least, agreed: false, asked: BTreeMap::new(), waiting: None, ..self }
    }

    /// From whom.
    #[must_use]
    pub const fn from(&self) -> ReplicaId {
        self.from
    }

    /// The slot that is fetched, if it is known yet.
    #[must_use]
    pub fn slot(&self) -> Option<Slot> {
        self.agreed_plan().map(|plan| plan.manifest.slot)
    }

    /// Bytes that were verified, and bytes of all.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        let Some(plan) = self.agreed_plan() else { return (0, 0) };
        (plan.done, plan.manifest.total_len)
    }

    /// Every chunk was verified.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.agreed_plan().is_some_and(|plan| plan.missing == 0)
    }

    /// Bytes that the answer to `ask` will have, about: what it takes of an allowance.
    #[must_use]
    pub fn weight(&self, ask: &TransferAsk) -> usize {
        match (ask, self.agreed_plan()) {
            (TransferAsk::Chunk { index, .. }, Some(plan)) => plan.manifest.chunk_len(*index as usize),
            _ => 0,
        }
    }

    /// The next question to send now, if there is one; it counts as sent. To be called until there is none.
    ///
    /// # Errors
    /// The peer is given up.
    pub fn poll(&mut self, now: Instant) -> Result<Option<TransferAsk>, GiveUp> {
        if self.waiting.is_some_and(|since| now >= since + SILENCE) {
            return Err(GiveUp::Silent);
        }
        if self.is_complete() {
            return Ok(None);
        }
        let due = self.asked.iter().find(|(_, asked)| self.is_due(**asked, now)).map(|(ask, _)| ask.clone());
        let Some(ask) = due.or_else(|| self.fresh()) else { return Ok(None) };
        self.asked.insert(ask.clone(), Asked::Since(now));
        self.waiting.get_or_insert(now);
        Ok(Some(ask))
    }

    /// When [`Self::poll`] has something to say again, if nothing else happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let asked = self.asked.values().map(|asked| match *asked {
            Asked::Since(since) => self.quiet_since(since) + ASK_TIMEOUT,
            Asked::Again(at) => at,
        });
        asked.chain(self.waiting.map(|since| since + SILENCE)).min()
    }

    /// The answer to a question.
    ///
    /// # Errors
    /// The peer is given up.
    pub fn on_answer(&mut self, now: Instant, ask: &TransferAsk, answer: TransferAnswer) -> Result<Taken, GiveUp> {
        if !self.asked.contains_key(ask) {
            return Ok(Taken::Nothing);
        }
        match (ask, answer) {
            (TransferAsk::Manifest { .. }, TransferAnswer::Manifest(manifest)) => {
                let taken = self.on_manifest(*manifest)?;
                self.useful(now, ask);
                Ok(taken)
            }
            (TransferAsk::Chunk { index, .. }, TransferAnswer::Chunk(bytes)) => {
                self.on_chunk(now, ask, *index as usize, bytes)
            }
            (TransferAsk::Manifest { least, .. }, TransferAnswer::Nothing) => Err(GiveUp::Nothing(*least)),
            (_, TransferAnswer::Gone) => Err(GiveUp::Gone),
            _ => Err(GiveUp::Nonsense),
        }
    }

    /// A question was not answered: the link broke, or there is none.
    pub fn on_failure(&mut self, now: Instant, ask: &TransferAsk) {
        if let Some(asked) = self.asked.get_mut(ask) {
            *asked = Asked::Again(now + RETRY);
        }
    }

    fn on_manifest(&mut self, manifest: Manifest) -> Result<Taken, GiveUp> {
        manifest.validate(&self.cluster)?;
        if manifest.slot < self.least {
            return Err(GiveUp::Nonsense);
        }
        self.agreed = true;
        let digest = manifest.digest();
        if let Some(plan) = self.plan.as_mut().filter(|plan| plan.digest == digest) {
            plan.next = 0;
            plan.damaged.clear();
            return Ok(Taken::Resume);
        }
        let chunks = manifest.chunks.len();
        self.plan = Some(Plan {
            manifest: manifest.clone(),
            digest,
            have: vec![false; chunks],
            missing: chunks,
            done: 0,
            next: 0,
            damaged: BTreeMap::new(),
        });
        Ok(Taken::Begin(manifest))
    }

    fn on_chunk(&mut self, now: Instant, ask: &TransferAsk, index: usize, bytes: Bytes) -> Result<Taken, GiveUp> {
        let Some(plan) = self.plan.as_mut() else { return Ok(Taken::Nothing) };
        if !plan.manifest.matches(index, &bytes) {
            let damaged = plan.damaged.entry(index).or_default();
            *damaged += 1;
            if *damaged >= DAMAGED_MAX {
                return Err(GiveUp::Damaged(index));
            }
            self.on_failure(now, ask);
            return Ok(Taken::Nothing);
        }
        // Asked for, so there is such a chunk, and it was not there.
        plan.have[index] = true;
        plan.missing -= 1;
        plan.done += bytes.len() as u64;
        self.useful(now, ask);
        Ok(Taken::Chunk { index, bytes })
    }

    /// The peer gave what it owed.
    fn useful(&mut self, now: Instant, ask: &TransferAsk) {
        self.asked.remove(ask);
        self.waiting = (!self.asked.is_empty()).then_some(now);
    }

    /// A question that was not asked yet.
    fn fresh(&mut self) -> Option<TransferAsk> {
        if !self.agreed {
            let (least, generation) = (self.least, self.generation);
            return self.asked.is_empty().then_some(TransferAsk::Manifest { least, generation });
        }
        if self.asked.len() >= ASKS_MAX {
            return None;
        }
        let plan = self.plan.as_mut()?;
        let index = (plan.next..plan.have.len()).find(|index| !plan.have[*index])?;
        plan.next = index + 1;
        let index = u32::try_from(index).ok()?;
        Some(TransferAsk::Chunk { slot: plan.manifest.slot, manifest: plan.digest, index })
    }

    fn is_due(&self, asked: Asked, now: Instant) -> bool {
        match asked {
            Asked::Since(since) => now >= self.quiet_since(since) + ASK_TIMEOUT,
            Asked::Again(at) => now >= at,
        }
    }

    /// While anything comes, what was asked behind it is only late.
    fn quiet_since(&self, asked: Instant) -> Instant {
        self.waiting.map_or(asked, |waiting| waiting.max(asked))
    }

    fn agreed_plan(&self) -> Option<&Plan> {
        self.plan.as_ref().filter(|_| self.agreed)
    }
}
