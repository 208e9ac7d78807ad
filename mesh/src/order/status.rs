//! A look at a replica from outside.

use super::{Replica, State};
use crate::config::Member;
use crate::ids::{Ballot, Digest, Epoch, Generation, Incarnation, Position, ReplicaId, Slot};

/// What a replica is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It proposes.
    Leader,
    /// It follows a leader, or waits for one.
    Follower,
    /// It stands for election.
    Candidate,
    /// It learns and does not vote.
    Learner,
    /// It follows, keeps the log and votes, and has no application.
    Witness,
    /// It is no member any more.
    Removed,
}

/// A look at a replica, for status pages, metrics and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub role: Role,
    /// The highest ballot it promised.
    pub ballot: Ballot,
    /// The leader it knows (itself included).
    pub leader: Option<ReplicaId>,
    /// Whether it leads and has recovered everything: a request would be proposed at once.
    pub ready: bool,
    /// Every slot up to here is decided here.
    pub decided: Slot,
    /// Every slot up to here was executed by the application.
    pub executed: Slot,
    /// The settled mark (rule 9) as known here.
    pub settled: Slot,
    /// The first slot of the log.
    pub log_first: Slot,
    /// The last slot of the log with a value; 0 if it is empty.
    pub log_last: Slot,
    /// Live sessions.
    pub sessions: usize,
    /// Requests held that are not decided.
    pub held: usize,
    /// The application is up (not resetting).
    pub app_running: bool,
    /// Resets asked for so far.
    pub app_resets: u64,
    /// The rolling hash of all reply forms at `executed`.
    pub digest_now: Digest,
    /// The rolling hash at the newest executed slot divisible by 1,000, and that slot.
    pub digest: (Slot, Digest),
    /// The slot of the newest verified snapshot; 0 without one.
    pub snapshot: Slot,
    /// Bytes of the log that is kept.
    pub log_bytes: u64,
    /// The generation that the log is in.
    pub generation: Generation,
    /// Changes of the configuration so far.
    pub epoch: Epoch,
    /// The incarnation that this member has by the configuration; 0 if it is none.
    pub incarnation: Incarnation,
    /// The members.
    pub members: Vec<Member>,
    /// Only ids below this are admitted as new members.
    pub target_members: u32,
    /// A change of the configuration is under way, as far as it is known here.
    pub changing: bool,
    /// The request on which the application fell silent and whose outcome is not known.
    pub silent: Option<Position>,
    /// The application diverged and was not rebuilt yet: nobody is answered from here.
    pub quarantined: bool,
    /// How often it diverged since this process began.
    pub divergences: u64,
    /// Slots that a peer is known to have decided and this replica has not.
    pub behind: u64,
    /// Rounds by which it confirmed for reads that it leads.
    pub read_rounds: u64,
}

impl Replica {
    /// A look at it.
    #[must_use]
    pub fn status(&self) -> Status {
        let role = match &self.state {
            _ if self.own().is_none() => Role::Removed,
            _ if !self.voting => Role::Learner,
            State::Leader(_) => Role::Leader,
            State::Candidate(_) | State::PreCandidate(_) => Role::Candidate,
            State::Follower if !self.application => Role::Witness,
            State::Follower => Role::Follower,
        };
        Status {
            role,
            ballot: self.promised,
            leader: if self.leads() { Some(self.config.id) } else { self.leader },
            ready: self.leads(),
            decided: self.log.decided(),
            executed: self.execution.executed(),
            settled: self.settled,
            log_first: self.log.first(),
            log_last: self.log.last(),
            sessions: self.sessions.len(),
            held: self.intake.len(),
            app_running: self.execution.is_running(),
            app_resets: self.execution.resets(),
            digest_now: self.execution.digest(),
            digest: self.execution.milestone(),
            snapshot: self.execution.snapshot(),
            log_bytes: self.log.bytes(),
            generation: self.sessions.generation(),
            epoch: self.configuration.epoch,
            incarnation: self.own().map_or(Incarnation(0), |own| own.incarnation),
            members: self.configuration.cluster.members.clone(),
            target_members: self.configuration.cluster.target_members,
            changing: self.is_changing(),
            silent: self.execution.silence.map(|silence| silence.at),
            quarantined: self.execution.judgement.is_quarantined(),
            divergences: self.execution.judgement.divergences(),
            behind: self.known_decided.0.saturating_sub(self.log.decided().0),
            read_rounds: self.reads.rounds(),
        }
    }
}
