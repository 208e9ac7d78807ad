//! Generations (rule 14): after the loss of a majority, or from a backup, an operator has the cluster begin again with
//! what is left. That is an entry of the log like any other, put behind what is kept in the journals of the members that
//! go on; whoever replays it ends every session and takes on the configuration there.

use super::{Event, Output, Record, Recovered, Replica};
use crate::config::Member;
use crate::ids::{Ballot, ClientId, Epoch, Generation, Incarnation, Life, Opening, ReplicaId, Slot};
use crate::limits::MEMBERS_MAX;
use crate::time::Instant;
use crate::wire::peer::{Batch, Command};
use std::sync::Arc;

/// What a journal and its newest snapshot hold that another generation can go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The slot of the snapshot that the log is replayed on; 0 without one.
    pub base: Slot,
    /// The member knew that every slot up to here is decided.
    pub decided: Slot,
    /// Every slot up to here can be replayed. Those above `decided` were accepted and may never have been decided; one
    /// that was acknowledged is not given up while it is here.
    pub through: Slot,
    /// The highest slot that was accepted: what lies beyond a gap is given up, since it was never executed here.
    pub last: Slot,
}

impl Recovered {
    /// What can be gone on from. `None`: the log is cut, and the snapshot that covers what is missing is gone.
    #[must_use]
    pub fn kept(&self) -> Option<Kept> {
        let base = self.image.as_ref().map_or(Slot(0), |image| image.slot);
        let mut through = base;
        for (slot, ..) in self.entries.iter().filter(|(slot, ..)| *slot > base) {
            if *slot != through.next() {
                break;
            }
            through = *slot;
        }
        let last = self.entries.last().map_or(base, |(slot, ..)| (*slot).max(base));
        let lacks_all = through == Slot(0) && last.max(self.decided) > Slot(0);
        (!lacks_all).then_some(Kept { base, decided: self.decided.max(base), through, last })
    }
}

/// The beginning of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Which.
    pub generation: Generation,
    /// The members, and the lives in which they vote, in order of their ids; not empty.
    pub members: Vec<(ReplicaId, Life)>,
}

impl Restart {
    /// The members that follow those of the configuration `before`.
    #[must_use]
    pub fn members_after(&self, before: &[Member]) -> Vec<Member> {
        members_after(before, &self.members)
    }

    /// What a member's journal has to say for its log to go on in this generation behind the slot `after`; `promised` is
    /// its highest promise.
    ///
    /// # Panics
    /// If it has no members.
    #[must_use]
    pub fn records(&self, after: Slot, promised: Ballot) -> [Record; 4] {
        let replica = self.members.first().expect("a cluster has members").0;
        let ballot = Ballot { round: promised.round.saturating_add(1), replica, incarnation: Incarnation(1) };
        let command = Command::Restart { generation: self.generation, members: self.members.clone() };
        let batch = Arc::new(Batch { command: Some(command), ..Batch::default() });
        let slot = after.next();
        [
            Record::Restarted { slot: after },
            Record::Promised { ballot },
            Record::Accepted { slot, ballot, batch },
            Record::Decided { slot },
        ]
    }
}

fn members_after(before: &[Member], members: &[(ReplicaId, Life)]) -> Vec<Member> {
    let member = |(id, life): &(ReplicaId, Life)| {
        let known = before.iter().find(|member| member.id == *id);
        let incarnation = Incarnation(known.map_or(0, |member| member.incarnation.0).saturating_add(1));
        Member { id: *id, incarnation, life: *life }
    };
    members.iter().map(member).collect()
}

impl Replica {
    /// Another generation begins: the sessions that end with the one before. Whoever is none of its members ends, as a life
    /// that is over does. An entry that nobody can have put there does nothing.
    pub(super) fn restart(
        &mut self,
        now: Instant,
        slot: Slot,
        generation: Generation,
        members: &[(ReplicaId, Life)],
        out: &mut Vec<Output>,
    ) -> Vec<(ClientId, Opening)> {
        let ascending = members.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let fits = ascending && (1..=MEMBERS_MAX).contains(&members.len());
        if !fits || generation <= self.sessions.generation() {
            return Vec::new();
        }
        // What it did by the places of the members before.
        self.step_down(now);
        self.configured = slot;
        if members.iter().any(|(id, _)| *id == self.config.id) {
            self.config.cluster.members = members_after(&self.config.cluster.members, members);
        } else {
            let own = self.own_index();
            self.config.cluster.members[own].life = Life(!self.config.life.0);
        }
        self.epoch = Epoch(self.epoch.0 + 1);
        let void = self.sessions.restart(generation).collect();
        out.push(Output::Event(Event::Restarted { generation }));
        self.settle_all_held(out);
        self.configuration_changed(now, out);
        void
    }
}
