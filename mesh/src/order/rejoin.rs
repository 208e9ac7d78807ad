//! Lives and incarnations (rule 12): whoever cannot prove that it has every vote it ever sent begins a new life, learns,
//! and votes again when the order has given that life the member's next incarnation.

use super::{Event, Message, Mutant, Output, Record, Replica, State, To, mutant};
use crate::ids::{Epoch, Incarnation, Life, ReplicaId, Slot};
use crate::time::Instant;
use crate::wire::peer::Command;

impl Replica {
    /// Whether the configuration gives this life the incarnation.
    pub(super) fn has_incarnation(&self) -> bool {
        let own = &self.config.cluster.members[self.own_index()];
        own.life == self.config.life || mutant::on(Mutant::VoteAfterAmnesia)
    }

    /// Whether a message of `from` in this life may count as a vote.
    pub(super) fn is_current(&self, from: ReplicaId, life: Life) -> bool {
        let member = self.index_of(from).map(|index| self.config.cluster.members[index]);
        member.is_some_and(|member| member.life == life) || mutant::on(Mutant::VoteAfterAmnesia)
    }

    /// A learner that has what the leader decided asks for its vote.
    pub(super) fn ask_to_rejoin(&self, leader: ReplicaId, decided: Slot, out: &mut Vec<Output>) {
        if !self.voting && !self.superseded && self.log.decided() >= decided {
            let over = self.config.cluster.members[self.own_index()].life;
            self.send(To::One(leader), Message::Rejoin { over }, out);
        }
    }

    pub(super) fn on_rejoin(
        &mut self,
        now: Instant,
        (from, life): (ReplicaId, Life),
        over: Life,
        out: &mut Vec<Output>,
    ) {
        if self.leads() && self.is_current(from, over) && life != over {
            self.order(Command::Rejoin { member: from, life, over });
            self.propose(now, out);
        }
    }

    /// A change of the configuration takes effect.
    pub(super) fn rejoin(
        &mut self,
        now: Instant,
        slot: Slot,
        member: ReplicaId,
        (life, over): (Life, Life),
        out: &mut Vec<Output>,
    ) {
        let Some(index) = self.index_of(member) else { return };
        // Also where nothing changes: whoever proposed it waits for that to prepare anew.
        self.configured = slot;
        let entry = &mut self.config.cluster.members[index];
        if entry.life != over || life == over {
            return;
        }
        entry.incarnation = Incarnation(entry.incarnation.0 + 1);
        entry.life = life;
        let incarnation = entry.incarnation;
        self.epoch = Epoch(self.epoch.0 + 1);
        let own = member == self.config.id;
        out.push(Output::Event(Event::Rejoined { member, incarnation, own: own && life == self.config.life }));
        self.configuration_changed(now, out);
    }

    /// Whether this life votes may have changed.
    pub(super) fn configuration_changed(&mut self, now: Instant, out: &mut Vec<Output>) {
        let votes = self.has_incarnation() && !self.superseded;
        let voted = std::mem::replace(&mut self.voting, votes);
        if voted && !self.voting {
            self.superseded = true;
            self.step_down(now);
            self.persist(Record::Superseded, None, out);
            out.push(Output::Event(Event::Superseded));
        } else if !voted && self.voting {
            // What an earlier life may have answered is not called silent (rule 23).
            self.execution.answered = self.execution.answered.max(self.configured);
            // Before the first vote: one that starts again must not wait for others to say that it has its vote, since
            // they may be too few without it.
            self.record_decided(out);
            self.arm_election(now);
        }
    }

    /// Whoever led or stood while the configuration changed prepares again: its promises are of the one before
    /// (rule 11).
    pub(super) fn stand_anew(&mut self, now: Instant, out: &mut Vec<Output>) {
        if !matches!(self.state, State::Leader(_) | State::Candidate(_)) {
            return;
        }
        self.tell_decisions(out);
        let round = self.promised.round.max(self.round_seen) + 1;
        self.step_down(now);
        if self.voting && self.draining.is_none() {
            self.stand(now, round, out);
        }
    }
}
