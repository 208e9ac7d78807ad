//! Voting on replies.

use crate::auth::Vouched;
use crate::ids::{Digest, ReplicaId};
use crate::wire::Outcome;
use crate::wire::submit::Vote;
use std::collections::BTreeMap;

/// How many equal replies of the members with an application make an answer (rule 29).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyVote {
    /// Any one: the fastest. An execution may be shown that an ordered abort takes back.
    First,
    /// A majority; of fewer than three any one.
    Majority,
    /// All of them.
    All,
}

impl ReplyVote {
    /// Equal replies needed of `electorate` members.
    #[must_use]
    pub const fn needed(self, electorate: usize) -> usize {
        match self {
            Self::First => 1,
            Self::Majority => crate::quorum::deciding(electorate),
            Self::All => electorate,
        }
    }
}

/// The votes on one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Each server's latest vote: an idempotent request may be ordered twice, with another outcome the second time.
    votes: BTreeMap<ReplicaId, Vote>,
    bodies: BTreeMap<Digest, Outcome>,
}

impl Tally {
    pub(super) fn vote(&mut self, from: ReplicaId, vote: Vote, body: Option<Outcome>) {
        if let Some(body) = body {
            // The newest: the server's word beside it is about these bytes.
            self.bodies.insert(vote.form, body);
        }
        self.votes.insert(from, vote);
    }

    /// The signed words of those who voted for an outcome.
    pub(super) fn vouched(&self, form: Digest) -> Vec<Vouched> {
        let voters = self.votes.iter().filter(|(_, vote)| vote.form == form);
        voters.filter_map(|(server, vote)| vote.vouched(*server)).collect()
    }

    /// Forgets who voted for what.
    pub(super) fn clear(&mut self) {
        self.votes.clear();
    }

    /// Keeps the votes of these servers alone.
    pub(super) fn retain(&mut self, counts: impl Fn(ReplicaId) -> bool) {
        self.votes.retain(|server, _| counts(*server));
    }

    pub(super) fn has_voted(&self, server: ReplicaId) -> bool {
        self.votes.contains_key(&server)
    }

    pub(super) fn votes_for(&self, server: ReplicaId, form: Digest) -> bool {
        self.votes.get(&server).is_some_and(|vote| vote.form == form)
    }

    /// The outcome with enough votes.
    pub(super) fn winner(&self, needed: usize) -> Option<Digest> {
        self.votes.values().map(|vote| vote.form).find(|form| self.voters(*form).count() >= needed)
    }

    /// Whether no outcome can get enough votes any more.
    pub(super) fn is_hopeless(&self, needed: usize, servers: usize) -> bool {
        let best = self.votes.values().map(|vote| self.voters(vote.form).count()).max().unwrap_or(0);
        best + servers.saturating_sub(self.votes.len()) < needed
    }

    pub(super) fn voters(&self, form: Digest) -> impl Iterator<Item = ReplicaId> + '_ {
        self.votes.iter().filter(move |(_, vote)| vote.form == form).map(|(server, _)| *server)
    }

    /// The servers that say something else of the same slot: theirs is another application, or a broken one.
    pub(super) fn against(&self, form: Digest) -> impl Iterator<Item = ReplicaId> + '_ {
        let slot = self.votes.values().find(|vote| vote.form == form).map(|vote| vote.slot);
        let differs = move |vote: &Vote| Some(vote.slot) == slot && vote.form != form;
        self.votes.iter().filter(move |(_, vote)| differs(vote)).map(|(server, _)| *server)
    }

    pub(super) fn body(&self, form: Digest) -> Option<&Outcome> {
        self.bodies.get(&form)
    }
}
