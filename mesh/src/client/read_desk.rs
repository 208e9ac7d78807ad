//! Reads at a SMaRtClient (rule 32): each is asked of one server, whose word is enough, and once. Whoever asked knows another
//! way, so nothing is tried here for long.

use super::smart_client::Ticket;
use crate::ids::ReplicaId;
use crate::time::Instant;
use crate::wire::Tag;
use std::collections::{BTreeMap, BTreeSet};

/// Reads that the leader is asked for at a time, before others are: it need not ask anybody else for the index, and answers
/// them together, but it is not to do everybody's work.
const AT_LEADER: usize = 64;

/// What waits for one server's word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub ticket: Ticket,
    pub server: ReplicaId,
    until: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ReadDesk {
    reads: BTreeMap<Tag, Read>,
    wakes: BTreeSet<(Instant, Tag)>,
    /// How many of them each server was asked.
    asked: BTreeMap<ReplicaId, usize>,
    /// Servers that did not answer a read, and until when they are asked for none.
    unfit: BTreeMap<ReplicaId, Instant>,
}

impl ReadDesk {
    pub(super) fn len(&self) -> usize {
        self.reads.len()
    }

    /// Which of `able` is asked: the leader, and where it has enough to do each in turn, but for those that did not answer
    /// lately.
    pub(super) fn choose(
        &self,
        now: Instant,
        tag: &Tag,
        leader: Option<ReplicaId>,
        able: impl Iterator<Item = ReplicaId>,
    ) -> Option<ReplicaId> {
        let fit = |server: &ReplicaId| self.unfit.get(server).is_none_or(|until| *until <= now);
        let fit: Vec<ReplicaId> = able.filter(fit).collect();
        let has_room = |leader: &ReplicaId| self.asked.get(leader).is_none_or(|asked| *asked < AT_LEADER);
        if let Some(leader) = leader.filter(|leader| fit.contains(leader) && has_room(leader)) {
            return Some(leader);
        }
        // Connections that came one after the other are not to meet at one server.
        let turn = tag.seq.0 ^ tag.client.0 as u64;
        let index = |of: usize| usize::try_from(turn % (of.max(1) as u64)).unwrap_or_default();
        fit.get(index(fit.len())).copied()
    }

    /// False if one of that name waits already.
    pub(super) fn put(&mut self, tag: Tag, ticket: Ticket, server: ReplicaId, until: Instant) -> bool {
        let new = !self.reads.contains_key(&tag);
        if new {
            self.reads.insert(tag, Read { ticket, server, until });
            self.wakes.insert((until, tag));
            *self.asked.entry(server).or_default() += 1;
        }
        new
    }

    /// It waits no longer.
    pub(super) fn take(&mut self, tag: &Tag) -> Option<Read> {
        let read = self.reads.remove(tag)?;
        self.wakes.remove(&(read.until, *tag));
        if let Some(asked) = self.asked.get_mut(&read.server) {
            *asked -= 1;
        }
        Some(read)
    }

    /// The same, if it is that server's.
    pub(super) fn take_of(&mut self, tag: &Tag, server: ReplicaId) -> Option<Read> {
        if self.reads.get(tag)?.server == server { self.take(tag) } else { None }
    }

    /// What that server was asked.
    pub(super) fn of(&self, server: ReplicaId) -> Vec<Tag> {
        self.reads.iter().filter(|(_, read)| read.server == server).map(|(tag, _)| *tag).collect()
    }

    /// A server is asked for none for a while.
    pub(super) fn avoid(&mut self, server: ReplicaId, until: Instant) {
        let avoided = self.unfit.entry(server).or_insert(until);
        *avoided = until.max(*avoided);
    }

    /// The first that is late.
    pub(super) fn late(&self, now: Instant) -> Option<Tag> {
        self.wakes.first().filter(|(at, _)| *at <= now).map(|(_, tag)| *tag)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.wakes.first().map(|(at, _)| *at)
    }
}
