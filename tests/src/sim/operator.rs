//! An operator who changes the cluster while faults strike: adds, removes and replaces members, hands leadership over; and
//! the processes that wait to become members.

use super::event::Event;
use super::{Process, World};
use crate::check::Verdict;
use crate::check::membership::{Configuration as Members, Member};
use mesh::config::Configuration;
use mesh::ids::ReplicaId;
use mesh::order::{ChangeRefused, Input};
use mesh::quorum::tolerated;
use mesh::time::Duration;
use mesh::wire::Message;
use mesh::wire::peer::Change;
use std::collections::BTreeMap;

/// How often a process that waits asks its peers.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// What was asked of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Remove { member: usize, replace: bool },
    SetTarget,
    Transfer,
}

/// What the operator knows.
#[derive(Debug, Default)]
pub struct Operator {
    next: u64,
    // Questions without an answer, and which process was asked, in which life.
    open: BTreeMap<u64, (usize, u32, Asked)>,
    // Members whose removal may still be ordered, whether or not anybody answers.
    removing: Vec<usize>,
    // The configuration that the SMaRtClients go by.
    told: u64,
}

impl World {
    fn is_member(&self, index: usize) -> bool {
        self.checks.membership().current().members.contains_key(&index)
    }

    /// Members of a configuration that lost something that they held, and have not got it back.
    fn lost(&self, configuration: &Members) -> usize {
        let lost = |(index, member): &(&usize, &Member)| {
            let server = &self.servers[**index];
            // A new member's process that only begins has lost nothing.
            let begins = !member.votes && member.life == server.member_life && !server.is_unsound();
            // One that is drained is going to end.
            let ends = server.draining && server.disk.forgets(false);
            ends || member.life != server.member_life || (server.is_damaged() && !begins)
        };
        configuration.members.iter().filter(lost).count()
    }

    /// Whether a configuration would bear so many losses, also when what is asked for is done.
    fn bears(&self, configuration: &Members, lost: usize) -> bool {
        let voters = configuration.voters().count();
        let removing = self.operator.removing.len().min(voters);
        (voters - removing..=voters).all(|voters| lost <= tolerated(voters))
    }

    /// Whether the budget lets this replica lose what it holds: in the newest configuration, and in the one before it until
    /// the change is known to enough of the newest.
    pub(super) fn may_damage(&self, victim: usize) -> bool {
        if !self.is_member(victim) {
            // One that was removed is needed until that is confirmed.
            return !self.checks.membership().was_member(victim) || self.checks.is_confirmed();
        }
        self.checks.needed().all(|configuration| {
            let mut others = configuration.clone();
            others.members.remove(&victim);
            self.bears(configuration, self.lost(&others) + 1)
        })
    }

    /// How many applications may answer wrongly.
    pub(super) fn may_differ(&self, victim: usize) -> bool {
        // Also when those that are being removed are gone.
        let applications = self.checks.membership().current().applications().count();
        let applications = applications.saturating_sub(self.operator.removing.len());
        !self.servers[victim].differed && outvoted(self.differed() + 1, applications)
    }

    /// Applications that answered wrongly.
    fn differed(&self) -> usize {
        self.servers.iter().filter(|server| server.differed).count()
    }

    /// The member that an operator asks: mostly the leader.
    fn asked_member(&mut self) -> Option<usize> {
        let leads = |index: &usize| self.servers[*index].replica.as_ref().is_some_and(|replica| replica.status().ready);
        let leader = (0..self.servers.len()).find(leads);
        let anybody = self.chance.below(self.servers.len() as u64) as usize;
        let asked = if self.healed || self.chance.chance(850) { leader } else { Some(anybody) };
        asked.filter(|index| self.servers[*index].replica.is_some() && self.servers[*index].paused_until <= self.now)
    }

    fn ask_member(&mut self, asked: Asked, input: impl FnOnce(u64) -> Input) -> Verdict {
        let Some(index) = self.asked_member() else { return Ok(()) };
        self.operator.next += 1;
        let token = self.operator.next;
        self.operator.open.insert(token, (index, self.servers[index].life, asked));
        if let Asked::Remove { member, .. } = asked {
            self.operator.removing.push(member);
        }
        self.counters.changes_asked += 1;
        self.step_server(index, input(token))
    }

    /// An operator changes something.
    pub(super) fn reconfigure(&mut self) -> Verdict {
        let n = self.servers.len() as u64;
        match self.chance.below(10) {
            0..=2 => self.bring_in(),
            3..=5 => {
                let voters: Vec<usize> = self.checks.membership().current().members.keys().copied().collect();
                let Some(member) = self.chance.choose(&voters).copied() else { return Ok(()) };
                let replace = self.chance.chance(400);
                self.remove(member, replace)
            }
            6 => {
                // The leader itself.
                let leads = |server: &super::Server| server.replica.as_ref().is_some_and(|r| r.status().ready);
                let leader = self.servers.iter().position(leads);
                leader.map_or(Ok(()), |member| self.remove(member, false))
            }
            7 | 8 => {
                let to = ReplicaId(self.chance.below(n) as u32);
                self.ask_member(Asked::Transfer, |token| Input::TransferLeader { token, to })
            }
            _ => {
                let members = self.chance.between(1, n) as u32;
                self.set_target(members)
            }
        }
    }

    fn set_target(&mut self, members: u32) -> Verdict {
        let change = Change::SetTarget { members };
        self.ask_member(Asked::SetTarget, |token| Input::Change { token, change })
    }

    fn remove(&mut self, member: usize, replace: bool) -> Verdict {
        let mut left = self.checks.membership().current().clone();
        left.members.remove(&member);
        // Nobody takes the last but those that are lost.
        let bears = self.bears(&left, self.lost(&left)) && outvoted(self.differed(), left.applications().count());
        if !self.operator.removing.is_empty() || !bears || !self.checks.is_confirmed() {
            return Ok(());
        }
        let change = Change::Remove { member: ReplicaId(member as u32) };
        self.ask_member(Asked::Remove { member, replace }, |token| Input::Change { token, change })
    }

    /// A process is started that is no member.
    fn bring_in(&mut self) -> Verdict {
        let outside: Vec<usize> = (0..self.servers.len()).filter(|index| !self.is_member(*index)).collect();
        let Some(index) = self.chance.choose(&outside).copied() else { return Ok(()) };
        if !self.may_damage(index) || self.operator.removing.contains(&index) {
            return Ok(());
        }
        if !self.servers[index].waiting {
            self.retire(index)?;
            self.servers[index].retired = false;
            self.start_server(index)?;
        }
        if index as u32 >= self.checks.membership().current().target {
            return self.set_target(self.servers.len() as u32);
        }
        Ok(())
    }

    /// One that was removed stops for good, and its disk is used for something else.
    fn retire(&mut self, index: usize) -> Verdict {
        self.end_process(index)?;
        let server = &mut self.servers[index];
        server.retired = true;
        server.snapshots.clear();
        server.disk = server.disk.anew();
        server.history = None;
        self.trace.line(self.now, format_args!("server {index} is retired"));
        Ok(())
    }

    /// A member answers the operator.
    pub(super) fn on_changed(&mut self, token: u64, result: Result<(), ChangeRefused>) -> Verdict {
        let Some((_, _, asked)) = self.operator.open.remove(&token) else {
            let what = format!("question {token} was answered twice");
            return crate::check::Violation::raise("operator", what);
        };
        match result {
            Ok(()) => self.counters.changes += 1,
            Err(_) => self.counters.changes_refused += 1,
        }
        match asked {
            Asked::Remove { member, replace } => {
                if result == Err(ChangeRefused::Unknown) {
                    // It may still be ordered.
                    return Ok(());
                }
                if result.is_err() {
                    self.operator.removing.retain(|other| *other != member);
                    return Ok(());
                }
                self.counters.removals += 1;
                self.checks.on_removed(member)?;
                if replace || self.chance.chance(500) {
                    self.queue.push(self.now + super::TICK, Event::Retire { server: member, replace });
                }
                Ok(())
            }
            Asked::Transfer => {
                self.counters.handovers += u64::from(result.is_ok());
                Ok(())
            }
            Asked::SetTarget => Ok(()),
        }
    }

    /// One that was removed stops.
    pub(super) fn on_retire(&mut self, index: usize, replace: bool) -> Verdict {
        if self.is_member(index) {
            return Ok(());
        }
        self.retire(index)?;
        if replace {
            self.servers[index].retired = false;
            return self.start_server(index);
        }
        Ok(())
    }

    /// Something was ordered: the SMaRtClients are told whose replies count.
    pub(super) fn look_at_membership(&mut self) {
        let current = self.checks.membership().current();
        if current.epoch == self.operator.told {
            return;
        }
        self.operator.told = current.epoch;
        let (members, learners) = (current.members.clone(), current.members.len() - current.voters().count());
        self.operator.removing.retain(|member| members.contains_key(member));
        self.counters.learners += learners as u64;
        let servers: Vec<ReplicaId> = current.applications().map(|index| ReplicaId(index as u32)).collect();
        if servers == self.options.smart_client.servers {
            return;
        }
        self.options.smart_client.servers = servers;
        for index in 0..self.smarts.len() {
            if self.smarts[index].core.is_some() {
                self.crash_smart(index);
                self.start_smart(index);
            }
        }
    }

    /// After healing: whoever waits is let in, and whoever is a member runs.
    pub(super) fn operate_members(&mut self) -> Verdict {
        let target = self.checks.membership().current().target;
        if self.servers.iter().skip(target as usize).any(|server| server.waiting) {
            self.set_target(self.servers.len() as u32)?;
        }
        for index in 0..self.servers.len() {
            if self.is_member(index) && self.servers[index].retired {
                // Its late word made it one again.
                self.servers[index].retired = false;
                self.start_server(index)?;
            }
        }
        Ok(())
    }

    /// Whether nothing of the configuration is under way.
    pub(super) fn is_settled(&self) -> bool {
        let open = self
            .operator
            .open
            .values()
            .any(|(index, life, _)| self.servers[*index].life == *life && self.servers[*index].replica.is_some());
        let waits = self.servers.iter().any(|server| server.waiting);
        !open && !waits && self.checks.membership().current().members.values().all(|member| member.votes)
    }

    /// A process without history waits until it is a member.
    pub(super) fn begin_waiting(&mut self, index: usize) {
        let server = &mut self.servers[index];
        server.waiting = true;
        let life = server.life;
        self.counters.joiners += 1;
        self.trace.line(self.now, format_args!("server {index} waits"));
        self.queue.push(self.now + super::TICK, Event::Waits { server: index, life });
    }

    pub(super) fn on_waits(&mut self, index: usize) {
        if !self.servers[index].waiting {
            return;
        }
        let life = self.servers[index].life;
        self.queue.push(self.now + ASK_EVERY, Event::Waits { server: index, life });
        for other in 0..self.servers.len() {
            let reached = !self.network.blocked(Process::Server(index), Process::Server(other));
            if other != index && self.servers[other].replica.is_some() && reached {
                let (at, other_life) = (self.now + self.network.delay(), self.servers[other].life);
                let event = Event::WhichCluster { server: other, life: other_life, by: index, by_life: life };
                self.queue.push(at, event);
            }
        }
    }

    pub(super) fn on_which_cluster(&mut self, index: usize, by: usize, by_life: u32) {
        let Some(replica) = &self.servers[index].replica else { return };
        if self.network.blocked(Process::Server(index), Process::Server(by)) {
            return;
        }
        let configuration = Box::new(replica.configuration().clone());
        let at = self.now + self.network.delay();
        self.queue.push(at, Event::Cluster { server: by, life: by_life, from: index, configuration });
    }

    pub(super) fn on_cluster(&mut self, index: usize, from: usize, configuration: Configuration) -> Verdict {
        let server = &mut self.servers[index];
        if !server.waiting {
            return Ok(());
        }
        if configuration.cluster.member(ReplicaId(index as u32)).is_some() {
            server.waiting = false;
            server.history = Some(configuration);
            return self.start_replica(index);
        }
        let join = Message::Join { application: !server.witness };
        self.send_peer(index, mesh::order::To::One(ReplicaId(from as u32)), &join);
        Ok(())
    }
}

/// Whether so many wrong answers are outvoted among so many applications. Of fewer than three one reply is enough (rule 29).
fn outvoted(differed: usize, applications: usize) -> bool {
    differed == 0 || (applications >= 3 && differed <= tolerated(applications))
}
