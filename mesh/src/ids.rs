//! Identifiers: small value types, each with the unit that it counts.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A member of the cluster: the number in its certificate and its StatefulSet ordinal.
    ReplicaId(u32)
}
number! {
    /// Which life of a member this is. A member that cannot prove that it has every vote it ever sent gets a new one
    /// (rule 12). The first is 1.
    Incarnation(u32)
}
number! {
    /// Names one life of a member: drawn at random when its journal is made, 0 where the bootstrap made it. A life knows
    /// every promise and vote that it ever sent; whoever cannot prove that begins another one (rule 12).
    Life(u64)
}
number! {
    /// A place in the log. The first is 1; 0 means "none".
    Slot(u64)
}
number! {
    /// A version of the configuration, counted by its changes.
    Epoch(u64)
}
number! {
    /// The number of a request within its session. The first is 1; 0 means "none".
    Seq(u64)
}
number! {
    /// A position in a replica's own journal: records carry consecutive ones, in the order they were asked for.
    Lsn(u64)
}
number! {
    /// How often the application was reset: ties results to the application that gave them.
    Run(u64)
}
number! {
    /// Names one read of a client, or some that it made together, at one replica.
    ReadId(u64)
}

impl Slot {
    /// The slot after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The slot before this one; 0 stays 0.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// A request of the log: the `call`-th, from 0, of a slot's batch. Ordered as they are executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The slot.
    pub slot: Slot,
    /// The place in its batch.
    pub call: u32,
}

impl Position {
    /// The place behind every request up to `slot`.
    #[must_use]
    pub const fn after(slot: Slot) -> Self {
        Self { slot: slot.next(), call: 0 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.call)
    }
}

impl Seq {
    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A leader's term, unique even across a member that forgot everything (rule 1). Ordered by round first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Counts elections; 0 is before the first.
    pub round: u64,
    /// Who leads in it.
    pub replica: ReplicaId,
    /// Which life of that member leads.
    pub incarnation: Incarnation,
}

impl Ballot {
    /// Below every ballot that anybody can lead in.
    pub const NONE: Self = Self { round: 0, replica: ReplicaId(0), incarnation: Incarnation(0) };
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.round, self.replica, self.incarnation)
    }
}

/// The name that a session's opener chose at random; unique together with the slot of the session's opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(pub u128);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that is no client id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a client id is a number of up to 32 hexadecimal digits")]
pub struct ClientIdError;

impl std::str::FromStr for ClientId {
    type Err = ClientIdError;

    fn from_str(text: &str) -> Result<Self, ClientIdError> {
        let is_hex = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|_| is_hex);
        number.map(Self).ok_or(ClientIdError)
    }
}

/// Names one history of a cluster. The bootstrap mints the first; a forced recovery and a restore begin another one,
/// because what they go on from may lack requests that were acknowledged, and what is of an older one is refused for ever
/// (rule 14). Ordered: of two generations one is the newer.
///
/// As text: how many there were before it and one, `-`, the mark in hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation {
    /// One more than that of the generation that it goes on from; 0 only in what names none.
    pub count: u32,
    /// Drawn at random: two that go on from the same one are two.
    pub mark: u64,
}

impl Generation {
    /// That of a cluster that no operator began: of tests.
    pub const FIRST: Self = Self { count: 1, mark: 0 };

    /// What is opened in a slot of it.
    #[must_use]
    pub const fn at(self, slot: Slot) -> Opening {
        Opening { generation: self, slot }
    }

    /// The generation that follows this one.
    #[must_use]
    pub const fn next(self, mark: u64) -> Self {
        Self { count: self.count.saturating_add(1), mark }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.count, self.mark)
    }
}

/// A text that is no generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a generation is a number, -, and 16 hexadecimal digits")]
pub struct GenerationError;

impl std::str::FromStr for Generation {
    type Err = GenerationError;

    fn from_str(text: &str) -> Result<Self, GenerationError> {
        let (count, mark) = text.split_once('-').ok_or(GenerationError)?;
        let is_number = !count.is_empty() && count.bytes().all(|digit| digit.is_ascii_digit());
        let is_hex = mark.len() == 16 && mark.bytes().all(|digit| digit.is_ascii_hexdigit());
        let count = count.parse().ok().filter(|_| is_number).ok_or(GenerationError)?;
        let mark = u64::from_str_radix(mark, 16).ok().filter(|_| is_hex).ok_or(GenerationError)?;
        Ok(Self { count, mark })
    }
}

/// Where a session was opened: with its client id, its name. Slots are used again where a generation goes on from an
/// older state, names are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Opening {
    /// In which history of the cluster.
    pub generation: Generation,
    /// The slot that ordered it.
    pub slot: Slot,
}

impl Opening {
    /// Of what opens a session, and so has none yet.
    pub const NONE: Self = Generation { count: 0, mark: 0 }.at(Slot(0));
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.slot, self.generation)
    }
}

/// A blake3 hash (256 bits).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The hash of this hash followed by `bytes`: a link of a chain.
    #[must_use]
    pub fn chain(&self, bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(bytes);
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}{:02x}{:02x}…", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}
