//! Whom a SMaRtClient asks, and among whom it counts replies: what it was started with, until the servers say otherwise.
//!
//! One server's word is not enough. It may lag, and it may be alone because it was removed; one that errs could
//! make itself the only voter. A newer configuration is believed when
//!
//! 1. a majority of its own members say the same of it,
//! 2. more than half of all servers that a link is up to do, and
//! 3. it is not one server alone, unless two were enough for all before: then one of them may be the last.

use crate::ids::{Epoch, Generation, ReplicaId};
use crate::quorum::majority;
use crate::wire::roster::Seat;
use std::collections::{BTreeMap, BTreeSet};

/// Which configuration: the newer one's is greater, also where a newer generation goes on from an older one.
pub(super) type Edition = (Generation, Epoch);

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Electorate {
    /// Of the configuration that is believed; none as long as it is what this process was started with.
    edition: Option<Edition>,
    seats: Vec<Seat>,
    /// What each server says, while its link is up.
    said: BTreeMap<ReplicaId, (Edition, Vec<Seat>)>,
}

impl Electorate {
    /// These, all of them with an application.
    pub(super) fn of(servers: &[ReplicaId]) -> Self {
        let seats = servers.iter().map(|id| Seat { id: *id, answers: true }).collect();
        Self { edition: None, seats, said: BTreeMap::new() }
    }

    /// Members that order.
    pub(super) fn members(&self) -> usize {
        self.seats.len()
    }

    /// Whether it is one of them.
    pub(super) fn has(&self, server: ReplicaId) -> bool {
        self.seats.iter().any(|seat| seat.id == server)
    }

    /// Those among whom replies are counted.
    pub(super) fn answering(&self) -> usize {
        self.seats.iter().filter(|seat| seat.answers).count()
    }

    /// Whether it is one of them.
    pub(super) fn answers(&self, server: ReplicaId) -> bool {
        self.seats.iter().any(|seat| seat.answers && seat.id == server)
    }

    /// What is believed.
    pub(super) fn believed(&self) -> (Option<Edition>, &[Seat]) {
        (self.edition, &self.seats)
    }

    /// A server's word. One that is not part of a cluster says nothing of it; without anybody who answers there is none.
    pub(super) fn hear(&mut self, from: ReplicaId, edition: Edition, seats: Vec<Seat>) {
        if seats.iter().any(|seat| seat.answers) {
            self.said.insert(from, (edition, seats));
        } else {
            self.said.remove(&from);
        }
    }

    /// Its link is gone.
    pub(super) fn forget(&mut self, server: ReplicaId) {
        self.said.remove(&server);
    }

    /// Whether another configuration is to be believed now, with links up to these.
    pub(super) fn judge(&mut self, linked: &BTreeSet<ReplicaId>) -> bool {
        let news = |(edition, _): &&(Edition, Vec<Seat>)| self.edition.is_none_or(|known| *edition > known);
        let believable = |word: &&(Edition, Vec<Seat>)| {
            let same = || self.said.iter().filter(|(_, other)| other == word).map(|(server, _)| *server);
            let (all, seats) = (same().count(), &word.1);
            let own = same().filter(|server| seats.iter().any(|seat| seat.id == *server)).count();
            own >= majority(seats.len()) && all * 2 > linked.len() && (all >= 2 || self.seats.len() <= 2)
        };
        let newest = self.said.values().filter(news).filter(believable).max_by_key(|(edition, _)| *edition).cloned();
        let Some((edition, seats)) = newest else { return false };
        self.edition = Some(edition);
        std::mem::replace(&mut self.seats, seats) != self.seats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u32]) -> Vec<ReplicaId> {
        ids.iter().copied().map(ReplicaId).collect()
    }

    fn seats(of: &[u32]) -> Vec<Seat> {
        ids(of).into_iter().map(|id| Seat { id, answers: true }).collect()
    }

    /// Started with `start`; links are up to `linked`, of whom each of `says` says that `epoch` has `members`.
    fn believed(start: &[u32], linked: &[u32], says: &[u32], members: &[u32]) -> bool {
        let mut electorate = Electorate::of(&ids(start));
        for from in says {
            electorate.hear(ReplicaId(*from), (Generation::FIRST, Epoch(4)), seats(members));
        }
        let changed = electorate.judge(&ids(linked).into_iter().collect());
        assert_eq!(changed, start != members && electorate.seats == seats(members));
        electorate.edition == Some((Generation::FIRST, Epoch(4)))
    }

    #[test]
    fn a_change_is_believed_when_most_servers_say_so() {
        assert!(believed(&[0, 1, 2], &[0, 1, 2], &[0, 1, 2], &[0, 1, 2]));
        assert!(believed(&[0, 1, 2], &[0, 1, 2, 3], &[0, 1, 3], &[0, 1, 2, 3]));
        assert!(!believed(&[0, 1, 2], &[0, 1, 2], &[0, 1], &[0, 1, 2, 3]), "no majority of four");
        assert!(believed(&[0, 1, 2], &[0, 1], &[0, 1], &[0, 1]));
        assert!(believed(&[0, 1], &[0], &[0], &[0]), "of two that one is left");
        assert!(believed(&[0, 1, 2], &[0, 3, 4], &[0, 3, 4], &[0, 3, 4]), "an old list leads to the new members");
    }

    #[test]
    fn no_server_alone_makes_itself_the_electorate() {
        assert!(!believed(&[0, 1, 2], &[2], &[2], &[2]), "not even where no other is reached");
        assert!(!believed(&[0, 1, 2], &[0, 1, 2], &[2], &[2]));
        assert!(!believed(&[0, 1, 2], &[0, 1, 2], &[2], &[2, 7, 8]), "the two others say nothing of it");
        assert!(!believed(&[0, 1], &[0, 1], &[1], &[1]), "the other one is there, and says otherwise");
        assert!(!believed(&[0, 1, 2, 3, 4], &[0, 1, 2, 3, 4], &[3, 4], &[3, 4]), "nor two of five");
    }

    #[test]
    fn an_older_configuration_is_not_believed_again() {
        let mut electorate = Electorate::of(&ids(&[0, 1, 2]));
        let linked: BTreeSet<_> = ids(&[0, 1, 2]).into_iter().collect();
        let mut generation = Generation::FIRST;
        let say = |electorate: &mut Electorate, generation, epoch, members: &[u32]| {
            for from in 0..3 {
                electorate.hear(ReplicaId(from), (generation, Epoch(epoch)), seats(members));
            }
            electorate.judge(&linked)
        };
        assert!(say(&mut electorate, generation, 5, &[0, 1]));
        assert!(!say(&mut electorate, generation, 4, &[0, 1, 2]), "they were started again, and catch up");
        assert_eq!((electorate.members(), electorate.has(ReplicaId(2))), (2, false));
        assert!(say(&mut electorate, generation, 6, &[0, 1, 2]));
        generation = generation.next(7);
        assert!(say(&mut electorate, generation, 1, &[0, 2]), "from a backup, which is older");
        assert!(!say(&mut electorate, Generation::FIRST, 9, &[0, 1, 2]), "nobody listens to the past");
    }

    #[test]
    fn a_witness_orders_and_does_not_answer() {
        let mut electorate = Electorate::of(&ids(&[0, 1]));
        let with_witness: Vec<Seat> =
            ids(&[0, 1, 2]).into_iter().map(|id| Seat { id, answers: id != ReplicaId(2) }).collect();
        for from in 0..2 {
            electorate.hear(ReplicaId(from), (Generation::FIRST, Epoch(1)), with_witness.clone());
        }
        assert!(electorate.judge(&ids(&[0, 1]).into_iter().collect()));
        assert_eq!((electorate.members(), electorate.answering()), (3, 2));
        assert!(electorate.has(ReplicaId(2)) && !electorate.answers(ReplicaId(2)));
    }
}
