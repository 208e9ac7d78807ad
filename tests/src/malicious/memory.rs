//! What a malicious SMaRtClient has seen go by: the names of sessions, requests, replies.

use mesh::ids::{ClientId, Opening, Seq};
use mesh::rng::Rng;
use mesh::wire::client::Told;
use mesh::wire::{Body, Kind, Request, Tag};
use std::collections::{BTreeMap, VecDeque};

/// Sessions, requests and replies that are remembered.
const SESSIONS_MAX: usize = 1024;
const REQUESTS_MAX: usize = 2048;
const REPLIES_MAX: usize = 256;

/// The name of a session.
pub(super) type Name = (ClientId, Opening);

/// The session that a request is of.
pub(super) fn name(tag: &Tag) -> Name {
    (tag.client, tag.opened)
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The highest number seen in each session.
    sessions: BTreeMap<Name, Seq>,
    /// Them in the order in which they came.
    order: VecDeque<Name>,
    requests: VecDeque<Request>,
    replies: VecDeque<(Name, Told)>,
}

impl Memory {
    /// A client sent this.
    pub(super) fn request(&mut self, request: &Request) {
        if self.requests.len() >= REQUESTS_MAX {
            self.requests.pop_front();
        }
        self.requests.push_back(request.clone());
        let tag = request.tag();
        if tag.kind == Kind::Open {
            return;
        }
        if let Some(seq) = self.sessions.get_mut(&name(&tag)) {
            *seq = tag.seq.max(*seq);
            return;
        }
        if self.order.len() >= SESSIONS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.sessions.remove(&oldest);
        }
        self.sessions.insert(name(&tag), tag.seq);
        self.order.push_back(name(&tag));
    }

    /// The servers replied this.
    pub(super) fn reply(&mut self, tag: &Tag, told: &Told) {
        if self.replies.len() >= REPLIES_MAX {
            self.replies.pop_front();
        }
        self.replies.push_back((name(tag), told.clone()));
    }

    /// The next request of a session other than that of `tag`, with this body. The newest sessions are the likeliest to live.
    pub(super) fn next_of_another(&self, tag: &Tag, body: Body, chance: &mut Rng) -> Option<Request> {
        let others: Vec<_> = self.order.iter().rev().filter(|other| **other != name(tag)).take(16).collect();
        let other = **chance.choose(&others)?;
        let seq = self.sessions.get(&other)?.next();
        Some(Request { client: other.0, opened: other.1, seq, body, proof: None })
    }

    /// A request that was seen.
    pub(super) fn old_request(&self, chance: &mut Rng) -> Option<Request> {
        let index = usize::try_from(chance.below(self.requests.len() as u64)).ok()?;
        self.requests.get(index).cloned()
    }

    /// A reply in a session other than that of `tag`.
    pub(super) fn reply_of_another(&self, tag: &Tag) -> Option<Told> {
        let mut others = self.replies.iter().rev().filter(|(other, _)| *other != name(tag));
        others.next().map(|(_, told)| told.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use mesh::ids::{Generation, Slot};
    use mesh::wire::Outcome;

    fn call(client: u128, seq: u64) -> Request {
        let body = Body::Call(Bytes::from_static(b"x\n"));
        Request { client: ClientId(client), opened: Generation::FIRST.at(Slot(9)), seq: Seq(seq), body, proof: None }
    }

    fn one() -> Told {
        Told::unsigned(Outcome::Executed(Bytes::from_static(b"one")))
    }

    #[test]
    fn the_next_number_of_somebody_else() {
        let (mut memory, mut chance) = (Memory::default(), Rng::from_seed(1));
        let mine = call(1, 4);
        memory.request(&mine);
        assert_eq!(memory.next_of_another(&mine.tag(), Body::Cancel, &mut chance), None);
        memory.request(&call(2, 7));
        memory.request(&call(2, 6));
        let next = memory.next_of_another(&mine.tag(), Body::Cancel, &mut chance).expect("there is another");
        assert_eq!((next.client, next.opened, next.seq), (ClientId(2), Generation::FIRST.at(Slot(9)), Seq(8)));
    }

    #[test]
    fn replies_of_others_and_old_requests() {
        let (mut memory, mut chance) = (Memory::default(), Rng::from_seed(1));
        assert_eq!(memory.old_request(&mut chance), None);
        memory.request(&call(1, 1));
        assert_eq!(memory.old_request(&mut chance), Some(call(1, 1)));
        memory.reply(&call(1, 1).tag(), &one());
        assert_eq!(memory.reply_of_another(&call(1, 2).tag()), None);
        assert_eq!(memory.reply_of_another(&call(2, 2).tag()), Some(one()));
    }

    #[test]
    fn it_is_bounded() {
        let mut memory = Memory::default();
        for client in 0..5000 {
            memory.request(&call(client, 1));
            memory.reply(&call(client, 1).tag(), &one());
        }
        assert_eq!((memory.sessions.len(), memory.order.len()), (SESSIONS_MAX, SESSIONS_MAX));
        assert_eq!((memory.requests.len(), memory.replies.len()), (REQUESTS_MAX, REPLIES_MAX));
    }
}
