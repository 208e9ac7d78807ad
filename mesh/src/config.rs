//! Configuration: what is ordered (the same on every member, part of the log) and what is local.

use crate::auth::Signatures;
use crate::ids::{Epoch, Generation, Incarnation, Life, ReplicaId, Slot};
use crate::limits::{Limits, MEMBER_IDS, MEMBERS_MAX, REQUEST_BYTES_MAX, Timing};
use crate::quorum::{deciding, majority, tolerated};
use crate::wire::peer::Change;
use serde::{Deserialize, Serialize};

/// The version of the semantics of execution (core and adapters). A member refuses a cluster of another one.
pub const EXECUTION_VERSION: u32 = 4;

/// How writes reach the disk before they are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// Synced before every promise and vote.
    Sync,
    /// Written, not synced: survives the process, not the machine.
    Async,
    /// Not written at all: survives the loss of a minority only.
    Memory,
}

/// One member of the cluster, in the life whose word counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Its number.
    pub id: ReplicaId,
    /// The only incarnation whose votes count.
    pub incarnation: Incarnation,
    /// The life that has this incarnation; 0 since the bootstrap.
    pub life: Life,
    /// Whether it votes; a learner does not yet.
    pub votes: bool,
    /// Whether it has an application; a witness has none: it keeps the log and votes.
    pub application: bool,
}

impl Member {
    /// One that votes and has an application, as the bootstrap makes it.
    #[must_use]
    pub const fn first(id: ReplicaId) -> Self {
        Self { id, incarnation: Incarnation(1), life: Life(0), votes: true, application: true }
    }

    /// Whether its replies, silence and rolling hash count (rule 29).
    #[must_use]
    pub const fn elects(&self) -> bool {
        self.votes && self.application
    }
}

/// A member that was removed. An id that comes back gets a higher incarnation: the old one is refused for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Retired {
    /// Its number.
    pub id: ReplicaId,
    /// The last incarnation that it had.
    pub incarnation: Incarnation,
    /// The life that had it.
    pub life: Life,
}

/// Bounds of the session table (rules 17 to 20).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLimits {
    /// Live sessions at most.
    pub sessions: u32,
    /// The largest window k that an opener gets.
    pub window: u16,
    /// A session active within this many last slots is never evicted (R).
    pub retention_slots: u64,
}

/// What decides outcomes and therefore is the same on every member (rule 15). Local settings seed it at the
/// bootstrap; afterwards the journal has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// The generation that the bootstrap minted; those that followed it are in the log (rule 14).
    pub generation: Generation,
    /// The members, in order of their ids.
    pub members: Vec<Member>,
    /// Only ids below this are admitted as new members; who is one already stays.
    pub target_members: u32,
    /// Those that were removed, in order of their ids.
    pub retired: Vec<Retired>,
    /// Bounds of the session table.
    pub sessions: SessionLimits,
    /// Bytes of one request's body.
    pub request_bytes: u32,
    /// The framing adapter's name, connection policy included.
    pub adapter: String,
    /// [`EXECUTION_VERSION`] of the members.
    pub execution_version: u32,
    /// How all members write. Ordered because early decisions (rule 6) rest on it.
    pub durability: Durability,
    /// Whether requests are signed. Ordered because it decides which are executed.
    pub request_signatures: Signatures,
}

/// Why a [`ClusterConfig`] cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No members, too many, unsorted or doubled, ids out of bounds.
    #[error(
        "the member list must have 1 to {MEMBERS_MAX} members in ascending order of their ids, each below {MEMBER_IDS}"
    )]
    Members,
    /// Nobody would vote, or nobody would execute.
    #[error("at least one member that votes must have an application")]
    NoApplication,
    /// A bound is zero or above what the wire carries.
    #[error("{0} is out of bounds")]
    Bound(&'static str),
    /// Another version of the execution semantics.
    #[error(
        "the cluster executes with version {0}, this program with {EXECUTION_VERSION}: run the version that the other members run"
    )]
    ExecutionVersion(u32),
}

impl ClusterConfig {
    /// A configuration of `n` members with ids 0 to n − 1, for the bootstrap and for tests.
    #[must_use]
    pub fn of(n: u32, adapter: &str, durability: Durability) -> Self {
        Self {
            generation: Generation::FIRST,
            members: (0..n).map(|id| Member::first(ReplicaId(id))).collect(),
            target_members: n,
            retired: Vec::new(),
            sessions: SessionLimits { sessions: 8192, window: 64, retention_slots: 1024 },
            request_bytes: 1 << 20,
            adapter: adapter.to_owned(),
            execution_version: EXECUTION_VERSION,
            durability,
            request_signatures: Signatures::Off,
        }
    }

    /// Refuses what no member could run.
    ///
    /// # Errors
    /// The first bound that does not hold.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let ascending = self.members.windows(2).all(|pair| pair[0].id < pair[1].id)
            && self.retired.windows(2).all(|pair| pair[0].id < pair[1].id);
        let last = self.members.last().map(|member| member.id).max(self.retired.last().map(|retired| retired.id));
        if self.members.is_empty()
            || self.members.len() > MEMBERS_MAX
            || !ascending
            || last.is_some_and(|id| id.0 >= MEMBER_IDS)
            || self.retired.iter().any(|retired| self.member(retired.id).is_some())
        {
            return Err(ConfigError::Members);
        }
        if self.electorate() == 0 {
            return Err(ConfigError::NoApplication);
        }
        if self.target_members > MEMBER_IDS {
            return Err(ConfigError::Bound("target_members"));
        }
        if self.sessions.sessions == 0 {
            return Err(ConfigError::Bound("sessions.sessions"));
        }
        if self.sessions.window == 0 || self.sessions.window > 1024 {
            return Err(ConfigError::Bound("sessions.window"));
        }
        if self.request_bytes == 0 || self.request_bytes as usize > REQUEST_BYTES_MAX {
            return Err(ConfigError::Bound("request_bytes"));
        }
        if self.execution_version != EXECUTION_VERSION {
            return Err(ConfigError::ExecutionVersion(self.execution_version));
        }
        Ok(())
    }

    /// Whether both may be configurations of one cluster: what no change changes is the same.
    #[must_use]
    pub fn is_of_one_cluster(&self, other: &Self) -> bool {
        let parts = |cluster: &Self| {
            (
                cluster.sessions,
                cluster.request_bytes,
                cluster.execution_version,
                cluster.durability,
                cluster.request_signatures,
            )
        };
        self.adapter == other.adapter && parts(self) == parts(other)
    }

    /// The member with this id.
    #[must_use]
    pub fn member(&self, id: ReplicaId) -> Option<&Member> {
        self.members.binary_search_by_key(&id, |member| member.id).ok().map(|index| &self.members[index])
    }

    /// The members that vote: promises, votes and a leader's followers are counted among these.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.votes)
    }

    /// The members that vote and have an application: what was executed, silence, divergence and snapshots are counted
    /// among these (rule 29).
    pub fn applications(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.elects())
    }

    /// How many voters there are.
    #[must_use]
    pub fn voter_count(&self) -> usize {
        self.voters().count()
    }

    /// a: how many members there are whose replies count (rule 29). With fewer than [`crate::quorum::ELECTORATE_MIN`] a
    /// majority of them decides nothing by itself.
    #[must_use]
    pub fn electorate(&self) -> usize {
        self.applications().count()
    }

    /// How many applications must have a snapshot of what is cut (rule 10): a majority of them; and, where witnesses vote too,
    /// so many that the loss of a tolerated minority of the voters leaves one, since a witness has no state to give. Of two
    /// these are both.
    #[must_use]
    pub fn covering(&self) -> usize {
        let electorate = self.electorate();
        majority(electorate).max(tolerated(self.voter_count()) + 1).min(electorate)
    }

    /// How many applications must have executed a slot for it to be settled (rule 9).
    #[must_use]
    pub fn settling(&self) -> usize {
        deciding(self.electorate())
    }

    /// Lets an ordered change take effect, alike on everybody: whether there is one. What does not fit the configuration as
    /// it is changes nothing.
    pub fn apply(&mut self, change: &Change) -> bool {
        match *change {
            Change::Rejoin { member, life, over } => {
                let entry = self.member_mut(member).filter(|entry| entry.life == over && life != over);
                let Some(entry) = entry else { return false };
                entry.incarnation = Incarnation(entry.incarnation.0.saturating_add(1));
                entry.life = life;
                true
            }
            Change::Add { member, life, application } => self.add(member, life, application),
            Change::Promote { member, life } => {
                let entry = self.member_mut(member).filter(|entry| entry.life == life && !entry.votes);
                let Some(entry) = entry else { return false };
                entry.votes = true;
                true
            }
            Change::Remove { member } => self.remove(member),
            Change::SetTarget { members } => {
                let fits = (1..=MEMBER_IDS).contains(&members) && members != self.target_members;
                if fits {
                    self.target_members = members;
                }
                fits
            }
        }
    }

    /// Another generation begins with this member alone, in this life; the others are retired.
    pub(crate) fn restart(&mut self, id: ReplicaId, life: Life) {
        let known = self.member(id).copied();
        let before = self.retired.iter().find(|retired| retired.id == id).map(|retired| retired.incarnation);
        let before = known.map(|member| member.incarnation).or(before).unwrap_or_default();
        for Member { id, incarnation, life, .. } in std::mem::take(&mut self.members) {
            if let Err(place) = self.retired.binary_search_by_key(&id, |retired| retired.id) {
                self.retired.insert(place, Retired { id, incarnation, life });
            }
        }
        self.retired.retain(|retired| retired.id != id);
        let (incarnation, votes) = (Incarnation(before.0.saturating_add(1)), true);
        let application = known.is_none_or(|member| member.application);
        self.members = vec![Member { id, incarnation, life, votes, application }];
        self.target_members = self.target_members.max(id.0.saturating_add(1));
    }

    fn member_mut(&mut self, id: ReplicaId) -> Option<&mut Member> {
        self.members.binary_search_by_key(&id, |member| member.id).ok().map(|index| &mut self.members[index])
    }

    fn add(&mut self, id: ReplicaId, life: Life, application: bool) -> bool {
        let Err(place) = self.members.binary_search_by_key(&id, |member| member.id) else { return false };
        if id.0 >= self.target_members.min(MEMBER_IDS) || self.members.len() >= MEMBERS_MAX {
            return false;
        }
        let before = self.retired.binary_search_by_key(&id, |retired| retired.id).ok();
        let before = before.map_or(Incarnation(0), |index| self.retired.remove(index).incarnation);
        let incarnation = Incarnation(before.0.saturating_add(1));
        self.members.insert(place, Member { id, incarnation, life, votes: false, application });
        true
    }

    fn remove(&mut self, id: ReplicaId) -> bool {
        let Ok(place) = self.members.binary_search_by_key(&id, |member| member.id) else { return false };
        if !self.applications().any(|member| member.id != id) {
            return false;
        }
        let Member { incarnation, life, .. } = self.members.remove(place);
        if let Err(place) = self.retired.binary_search_by_key(&id, |retired| retired.id) {
            self.retired.insert(place, Retired { id, incarnation, life });
        }
        true
    }
}

/// A configuration, and where in the log it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// What it says.
    pub cluster: ClusterConfig,
    /// The generation of the cluster that it is of.
    pub generation: Generation,
    /// Changes since the bootstrap.
    pub epoch: Epoch,
    /// The slot of the last ordered change up to which it is the cluster's, whether or not that changed anything; 0 before
    /// any. Changes up to there are in it, and are not applied again by whoever begins with it further below.
    pub configured: Slot,
    /// The slot of the last of them after which other members' replies count.
    pub elected: Slot,
}

impl Configuration {
    /// That of a bootstrap.
    #[must_use]
    pub const fn first(cluster: ClusterConfig) -> Self {
        Self { generation: cluster.generation, cluster, epoch: Epoch(0), configured: Slot(0), elected: Slot(0) }
    }

    /// Of two configurations of one cluster, the newer one's is greater.
    #[must_use]
    pub const fn edition(&self) -> (Generation, Epoch) {
        (self.generation, self.epoch)
    }
}

/// When a replica takes a snapshot: whenever so much was ordered since the last. Local.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshots {
    /// Requests.
    pub every_requests: u64,
    /// Bytes of their bodies.
    pub every_bytes: u64,
}

/// What a replica does when a majority's rolling hash differs from its own (rule 31). Local.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Divergence {
    /// It is quarantined and rebuilt.
    #[default]
    Rebuild,
    /// It only says so.
    Alarm,
    /// It is quarantined until an operator looks.
    Stop,
}

/// What one replica of the ordering core is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name, to which signatures are bound.
    pub name: String,
    /// Which member this is.
    pub id: ReplicaId,
    /// Its life, as its journal names it. It votes while the ordered configuration gives that life the incarnation.
    pub life: Life,
    /// The configuration that it begins with: the bootstrap's, or the one in which it joined. Later changes are in the log
    /// and in snapshots.
    pub configuration: Configuration,
    /// Local time-outs.
    pub timing: Timing,
    /// Local bounds.
    pub limits: Limits,
    /// When this replica takes snapshots; `None` keeps the log whole.
    pub snapshots: Option<Snapshots>,
    /// What it does when its application diverged.
    pub divergence: Divergence,
    /// The wall clock (Unix time, ns) at [`crate::time::Instant::ZERO`]: batches carry the leader's time (rule 7).
    pub wall_base: u64,
}
