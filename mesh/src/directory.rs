//! Where the servers are: by what was configured, by their own words and by those of the others. Servers and SMaRtClients
//! find a member that moved with it, and one that they never heard of.
//!
//! Nothing in it is trusted: whoever dials an address wants the certificate of the server that he looks for. So a wrong
//! word costs an attempt, and no word takes the place of what was configured; both are tried.

use crate::ids::ReplicaId;
use crate::wire::roster::{PLACES_MAX, Place, Roster};
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    configured: BTreeMap<ReplicaId, String>,
    /// The newest word of each server.
    said: BTreeMap<ReplicaId, Roster>,
}

impl Directory {
    /// One that knows what was configured.
    #[must_use]
    pub fn new(configured: impl IntoIterator<Item = (ReplicaId, String)>) -> Self {
        Self { configured: configured.into_iter().collect(), said: BTreeMap::new() }
    }

    /// Takes the word of a server, over its own link. False if a newer one overtook it, or no server would give it.
    pub fn hear(&mut self, from: ReplicaId, roster: Roster) -> bool {
        let known = self.said.get(&from);
        let older = known.is_some_and(|known| known.process == roster.process && known.version > roster.version);
        let full = known.is_none() && self.said.len() >= PLACES_MAX;
        if older || full || !roster.is_bounded() {
            return false;
        }
        self.said.insert(from, roster);
        true
    }

    /// Keeps the words of these servers alone.
    pub fn retain(&mut self, keep: impl Fn(ReplicaId) -> bool) {
        self.said.retain(|server, _| keep(*server));
    }

    /// The newest word of a server.
    #[must_use]
    pub fn word(&self, of: ReplicaId) -> Option<&Roster> {
        self.said.get(&of)
    }

    /// Every server's newest word.
    pub fn words(&self) -> impl Iterator<Item = (ReplicaId, &Roster)> {
        self.said.iter().map(|(server, roster)| (*server, roster))
    }

    /// Those that were configured.
    pub fn configured(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.configured.keys().copied()
    }

    /// What servers said of themselves.
    #[must_use]
    pub fn first_hand(&self) -> Vec<Place> {
        self.said.iter().filter_map(|(server, roster)| roster.place(*server).cloned()).collect()
    }

    /// Where to look for a server, the likeliest first: where it says that it moved, where others say so, what was
    /// configured. What nobody advertises is of use only where nothing is configured.
    #[must_use]
    pub fn addresses(&self, id: ReplicaId) -> Vec<String> {
        let own = self.said.get(&id).and_then(|roster| roster.place(id));
        let others = self.said.iter().filter(|(server, _)| **server != id).filter_map(|(_, roster)| roster.place(id));
        let told: Vec<&Place> = own.into_iter().chain(others).collect();
        let advertised = told.iter().filter(|place| place.advertised).map(|place| &place.address);
        let configured = self.configured.get(&id);
        let rest = told.iter().filter(|place| !place.advertised && configured.is_none()).map(|place| &place.address);
        let mut seen = BTreeSet::new();
        advertised.chain(configured).chain(rest).filter(|address| seen.insert(*address)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ReplicaId = ReplicaId(0);
    const B: ReplicaId = ReplicaId(1);
    const C: ReplicaId = ReplicaId(2);

    fn place(id: ReplicaId, address: &str, advertised: bool) -> Place {
        Place { id, address: address.to_owned(), advertised }
    }

    fn said(process: u64, version: u64, places: Vec<Place>) -> Roster {
        Roster { process, version, places, ..Roster::default() }
    }

    fn directory() -> Directory {
        Directory::new([(A, "a:1".to_owned()), (B, "b:1".to_owned())])
    }

    #[test]
    fn an_advertised_address_is_tried_before_the_configured_one_and_not_instead_of_it() {
        let mut directory = directory();
        assert_eq!(directory.addresses(B), ["b:1"]);
        assert!(directory.hear(B, said(1, 1, vec![place(B, "b:2", true)])));
        assert_eq!(directory.addresses(B), ["b:2", "b:1"]);
        // A third one heard of a later place.
        assert!(directory.hear(A, said(1, 1, vec![place(A, "a:1", false), place(B, "b:3", true)])));
        assert_eq!(directory.addresses(B), ["b:2", "b:3", "b:1"]);
        assert_eq!(directory.first_hand(), [place(A, "a:1", false), place(B, "b:2", true)]);
        directory.retain(|server| server == A);
        assert_eq!(directory.addresses(B), ["b:3", "b:1"]);
    }

    #[test]
    fn what_is_not_advertised_is_used_only_for_servers_that_are_not_configured() {
        let mut directory = directory();
        assert!(directory.hear(B, said(1, 1, vec![place(B, "b:9", false), place(C, "c:9", false)])));
        assert_eq!((directory.addresses(B), directory.addresses(C)), (vec!["b:1".to_owned()], vec!["c:9".to_owned()]));
    }

    #[test]
    fn the_newest_word_of_a_process_counts_and_any_of_the_next_process() {
        let mut directory = directory();
        assert!(directory.hear(B, said(7, 2, vec![place(B, "b:2", true)])));
        assert!(!directory.hear(B, said(7, 1, vec![place(B, "b:1", true)])), "it was overtaken");
        assert!(directory.hear(B, said(3, 1, vec![place(B, "b:3", true)])), "it was started again");
        assert_eq!(directory.addresses(B)[0], "b:3");
        let many = (0..).take(PLACES_MAX + 1).map(|id| place(ReplicaId(id), "x:1", false)).collect();
        assert!(!directory.hear(B, said(4, 1, many)), "no server knows so many");
    }
}
