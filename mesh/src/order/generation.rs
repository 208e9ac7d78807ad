//! Generations (rule 14): after the loss of a majority, or from a backup, an operator has the cluster begin again with
//! what is left. That is an entry of the log like any other, put behind what is kept in the journals of the members that
//! go on; whoever replays it ends every session and takes on the configuration there.

use super::{Event, Output, Record, Recovered, Replica};
use crate::config::Configuration;
use crate::ids::{Ballot, ClientId, Epoch, Generation, Life, Opening, ReplicaId, Slot};
use crate::limits::MEMBER_IDS;
use crate::time::Instant;
use crate::wire::peer::{Batch, Change, Command};
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
    /// The members, and the lives in which they vote; not empty. The first one begins it, the others are added to it.
    pub members: Vec<(ReplicaId, Life)>,
}

/// What the journals of all who go on have to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The records.
    pub records: Vec<Record>,
    /// The configuration that they come to.
    pub configuration: Configuration,
}

impl Restart {
    /// How the log goes on in this generation behind the slot `after`, where the configuration is `before`; `promised` is
    /// the highest promise of whoever goes on. `None`: the configuration admits no such members.
    #[must_use]
    pub fn begin(&self, before: &Configuration, after: Slot, promised: Ballot) -> Option<Begun> {
        let ((member, life), others) = self.members.split_first()?;
        let (member, life) = (*member, *life);
        let mut commands = vec![Command::Restart { generation: self.generation, member, life }];
        let (mut cluster, mut epoch) = (before.cluster.clone(), Epoch(before.epoch.0 + 1));
        cluster.restart(member, life);
        for (member, life) in others.iter().copied() {
            for change in [Change::Add { member, life, application: true }, Change::Promote { member, life }] {
                commands.push(Command::Configure { against: epoch, change });
                epoch = Epoch(epoch.0 + 1);
                if !cluster.apply(&change) {
                    return None;
                }
            }
        }
        let incarnation = cluster.member(member)?.incarnation;
        let ballot = Ballot { round: promised.round.saturating_add(1), replica: member, incarnation };
        let mut records = vec![Record::Restarted { slot: after }, Record::Promised { ballot }];
        let mut slot = after;
        for command in commands {
            slot = slot.next();
            let batch = Arc::new(Batch { command: Some(command), ..Batch::default() });
            records.push(Record::Accepted { slot, ballot, batch });
        }
        records.push(Record::Decided { slot });
        let configuration =
            Configuration { cluster, generation: self.generation, epoch, configured: slot, elected: slot };
        Some(Begun { records, configuration })
    }
}

impl Replica {
    /// Another generation begins: the sessions that end with the one before. An entry that nobody can have put there does
    /// nothing.
    pub(super) fn restart(
        &mut self,
        now: Instant,
        slot: Slot,
        generation: Generation,
        (member, life): (ReplicaId, Life),
        out: &mut Vec<Output>,
    ) -> Vec<(ClientId, Opening)> {
        if generation <= self.sessions.generation() || member.0 >= MEMBER_IDS {
            return Vec::new();
        }
        let void = self.sessions.restart(generation).collect();
        out.push(Output::Event(Event::Restarted { generation }));
        if slot > self.configuration.configured {
            self.reconfigure_alone(now, slot, generation, (member, life), out);
        }
        self.settle_all_held(out);
        void
    }

    /// From here on that member is the only one.
    fn reconfigure_alone(
        &mut self,
        now: Instant,
        slot: Slot,
        generation: Generation,
        (member, life): (ReplicaId, Life),
        out: &mut Vec<Output>,
    ) {
        self.leave_ballot(now, member != self.config.id, out);
        self.voters_before = self.configuration.cluster.voter_count();
        self.configuration.cluster.restart(member, life);
        let epoch = Epoch(self.configuration.epoch.0 + 1);
        (self.configuration.generation, self.configuration.epoch) = (generation, epoch);
        (self.configuration.configured, self.configuration.elected) = (slot, slot);
        self.configuration_changed(now, out);
    }
}
