//! Catch-up: a replica that lacks decided slots fetches them from any peer, one bounded bundle at a time.

use super::{Message, Output, Record, Replica, Timer, To};
use crate::ids::{Ballot, ReplicaId, Slot};
use crate::time::Instant;
use crate::wire::peer::Batch;
use std::sync::Arc;

/// A fetch under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetching {
    /// The peer that was asked.
    pub peer: ReplicaId,
    /// When another one is asked.
    pub until: Instant,
}

/// How many repair times a peer has to answer a fetch.
const PATIENCE: u32 = 5;

impl Replica {
    /// Somebody has decided up to here. What is missing is given a moment to arrive by itself.
    pub(super) fn note_known_decided(&mut self, now: Instant, decided: Slot, by: ReplicaId) {
        if decided > self.known_decided {
            (self.known_decided, self.known_by) = (decided, Some(by).filter(|by| *by != self.config.id));
        }
        if self.known_decided > self.log.decided() {
            self.timers.set_if_stopped(Timer::Repair, now + self.config.timing.repair);
        }
    }

    /// Slots may be missing for longer than they should.
    pub(super) fn on_repair(&mut self, now: Instant, out: &mut Vec<Output>) {
        let lacks_snapshot = self.execution.base.is_none();
        if self.own().is_none() {
            self.on_removed_look(now, out);
        }
        if self.known_decided <= self.log.decided() && !lacks_snapshot {
            self.fetching = None;
            return;
        }
        self.timers.set(Timer::Repair, now + self.config.timing.repair);
        if self.transfers() {
            return;
        }
        if lacks_snapshot && self.known_decided <= self.log.decided() {
            return self.need_snapshot(out);
        }
        let recent = now.since(self.last_decided) < self.config.timing.repair;
        match self.fetching {
            Some(fetching) if now < fetching.until => {}
            // Slots still arrive by themselves.
            None if recent => {}
            Some(Fetching { peer, .. }) => self.fetch(now, self.after(peer), out),
            None => self.fetch(now, self.leader.or(self.known_by).filter(|peer| *peer != self.config.id), out),
        }
    }

    /// Whom slots and snapshots can be asked of: the other members, and whoever said that there are more slots, who may be
    /// none: all that are known here as members may have gone.
    fn sources(&self) -> Vec<ReplicaId> {
        let members = self.configuration.cluster.members.iter().map(|member| member.id);
        let mut sources: Vec<ReplicaId> = members.chain(self.known_by).filter(|id| *id != self.config.id).collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    /// Asks a peer for the next decided slots; without one, a member drawn by chance.
    pub(super) fn fetch(&mut self, now: Instant, peer: Option<ReplicaId>, out: &mut Vec<Output>) {
        let sources = self.sources();
        let Some(peer) = peer.or_else(|| self.rng.choose(&sources).copied()) else { return };
        self.fetching = Some(Fetching { peer, until: now + self.config.timing.repair * PATIENCE });
        self.timers.set_if_stopped(Timer::Repair, now + self.config.timing.repair);
        let (from, to) = (self.log.decided().next(), self.known_decided);
        self.send(To::One(peer), Message::Fetch { from, to }, out);
    }

    /// Whether anything is decided beyond what is known here.
    pub(super) fn fetch_beyond(&mut self, out: &mut Vec<Output>) {
        let sources = self.sources();
        let Some(peer) = self.rng.choose(&sources).copied() else { return };
        let next = self.log.decided().next();
        self.send(To::One(peer), Message::Fetch { from: next, to: next }, out);
    }

    /// The next one to ask after `peer`.
    pub(super) fn after(&self, peer: ReplicaId) -> Option<ReplicaId> {
        let sources = self.sources();
        sources.iter().find(|id| **id > peer).or(sources.first()).copied()
    }

    /// The next one to ask for a snapshot after `peer`: a witness has none that an application could begin with.
    pub(super) fn snapshot_after(&self, peer: ReplicaId) -> Option<ReplicaId> {
        let has = |id: &&ReplicaId| self.configuration.cluster.member(**id).is_none_or(|member| member.application);
        let sources = self.sources();
        sources.iter().filter(has).find(|id| **id > peer).or(sources.iter().find(has)).copied()
    }

    pub(super) fn on_fetch(&mut self, from: ReplicaId, first: Slot, to: Slot, out: &mut Vec<Output>) {
        let decided = self.log.decided();
        if first < self.log.first() && self.execution.snapshot() >= first {
            return self.send(To::One(from), Message::Cut { snapshot: self.execution.snapshot() }, out);
        }
        if first < self.log.first() || first > decided {
            return;
        }
        let mut entries = Vec::new();
        let mut bytes = 0;
        for entry in self.log.decided_from(first).take((to.0.saturating_sub(first.0) as usize).saturating_add(1)) {
            bytes += entry.batch.body_bytes() + entry.batch.requests.len() * crate::limits::REQUEST_ENVELOPE_BYTES + 64;
            if bytes > self.config.limits.fetch_bytes && !entries.is_empty() {
                break;
            }
            entries.push((entry.ballot, Arc::clone(&entry.batch)));
        }
        self.send(To::One(from), Message::Fetched { from: first, entries, decided }, out);
    }

    /// Decided values arrive. Each came with a ballot at or above the one it was chosen in, so that to report it as
    /// accepted in that ballot can mislead no candidate: every value of a higher ballot is the same one.
    pub(super) fn on_fetched(
        &mut self,
        now: Instant,
        from: ReplicaId,
        first: Slot,
        entries: Vec<(Ballot, Arc<Batch>)>,
        decided: Slot,
        out: &mut Vec<Output>,
    ) {
        self.confirm_change(decided, out);
        let next = self.log.decided().next();
        if first > next || first == Slot(0) {
            return;
        }
        let mut slot = first;
        for (ballot, batch) in entries {
            if slot >= next && self.log.get(slot).is_none_or(|entry| !entry.decided) {
                let ballot = self.log.get(slot).map_or(ballot, |entry| entry.ballot.max(ballot));
                let record = Record::Accepted { slot, ballot, batch: Arc::clone(&batch) };
                let lsn = self.persist(record, None, out);
                self.log.put(slot, ballot, batch, lsn);
                self.log.decide(slot);
            }
            slot = slot.next();
        }
        self.forget_flights(now, first, slot, out);
        self.advance(now, out);
        self.note_known_decided(now, decided, from);
        if let Some(fetching) = self.fetching.take()
            && self.known_decided > self.log.decided()
            && self.log.decided() >= next
        {
            self.fetch(now, Some(fetching.peer), out);
        }
        self.on_recovery_progress(now, out);
    }
}
