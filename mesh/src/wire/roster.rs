//! What a server says of itself and of where the others are: to its peers and to SMaRtClients, first of all on each link,
//! and again whenever it changes.

use crate::ids::{Epoch, Generation, ReplicaId};
use crate::limits::MEMBERS_MAX;
use serde::{Deserialize, Serialize};

/// Servers whose places one roster names, at most: members, and some that join or were removed.
pub const PLACES_MAX: usize = 2 * MEMBERS_MAX;
/// Bytes of HOST:PORT: a DNS name and what is around it.
pub const ADDRESS_BYTES_MAX: usize = 262;

/// A server's word. The newest one of a server takes the place of those before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// Names the server's process: drawn when it starts.
    pub process: u64,
    /// Counts what this process said: messages overtake each other.
    pub version: u64,
    /// The generation of the cluster that `members` is of.
    pub generation: Generation,
    /// The version of the configuration in it.
    pub epoch: Epoch,
    /// The members that order, in order of their ids; none while the server is not part of a cluster.
    pub members: Vec<Seat>,
    /// Where servers are, at first hand: what each said of itself over its own link; this one's own place among them.
    pub places: Vec<Place>,
    /// It is about to stop, and not to be asked any more.
    pub leaving: bool,
}

/// A member's place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Which one.
    pub id: ReplicaId,
    /// It has an application, and is one of those among whom replies are counted (rule 29).
    pub answers: bool,
}

/// Where a server is to be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which one.
    pub id: ReplicaId,
    /// HOST:PORT.
    pub address: String,
    /// It was told to say so (`--advertise`), which goes before what others have configured. Without that it is only
    /// what the server itself was configured with, and helps those who know nothing else.
    pub advertised: bool,
}

impl Roster {
    /// Whether it keeps its bounds: whoever sends another one is no server of ours.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let ascending = self.members.windows(2).all(|pair| pair[0].id < pair[1].id);
        let short = |place: &Place| place.address.len() <= ADDRESS_BYTES_MAX;
        ascending
            && self.members.len() <= MEMBERS_MAX
            && self.places.len() <= PLACES_MAX
            && self.places.iter().all(short)
    }

    /// Of two configurations of one cluster, the newer one's is greater.
    #[must_use]
    pub const fn edition(&self) -> (Generation, Epoch) {
        (self.generation, self.epoch)
    }

    /// What it says of where `id` is.
    #[must_use]
    pub fn place(&self, id: ReplicaId) -> Option<&Place> {
        self.places.iter().find(|place| place.id == id)
    }
}
