//! The links to the servers: each request on a stream of its own, whole replies back on it, hashes as bundled votes.

use super::driver::Event;
use bytes::Bytes;
use mesh::ids::ReplicaId;
use mesh::net::kept::{Line, Question};
use mesh::node::counts::Counts;
use mesh::wire::Tag;
use mesh::wire::submit::{FromServer, Reply, Submit};
use tokio::sync::mpsc;
use tracing::warn;

/// A request on its way to a server.
#[derive(Debug)]
pub(super) struct Submission {
    /// What is sent.
    pub(super) submit: Submit,
    /// When its stream is given up.
    pub(super) until: tokio::time::Instant,
}

impl Question for Submission {
    fn tag(&self) -> Tag {
        self.submit.request.tag()
    }
    fn encode(&self) -> Bytes {
        mesh::wire::encode(&self.submit)
    }
    fn until(&self) -> tokio::time::Instant {
        self.until
    }
}

/// A link to one server.
pub(super) struct ToServer {
    id: ReplicaId,
    rejected: Counts,
}

impl ToServer {
    /// The link to server `id`.
    pub(super) fn new(id: ReplicaId, rejected: Counts) -> Self {
        Self { id, rejected }
    }

    fn malformed(&self) {
        self.rejected.count("malformed");
        warn!(server = %self.id, "a server sent bytes that are no answer; do both run the same version?");
    }
}

impl Line for ToServer {
    type Question = Submission;
    type Event = Event;

    fn up(&self, queue: mpsc::Sender<Submission>) -> Event {
        Event::Up(self.id, queue)
    }

    fn down(&self) -> Event {
        Event::Down(self.id)
    }

    fn answered(&self, tag: Tag, answer: Bytes) -> Option<Event> {
        if answer.is_empty() {
            // This server sends only the hash, as a vote.
            return None;
        }
        match mesh::wire::decode(&answer) {
            Ok(Reply::Whole(answer)) if answer.tag == tag => Some(Event::Answer { from: self.id, answer }),
            Ok(Reply::Steer(steer)) => Some(Event::Steer { from: self.id, tag, steer }),
            Ok(Reply::Whole(_)) | Err(_) => {
                self.malformed();
                None
            }
        }
    }

    fn received(&self, message: Bytes) -> Option<Event> {
        match mesh::wire::decode(&message) {
            Ok(FromServer::Votes(votes)) => Some(Event::Votes { from: self.id, votes }),
            Ok(FromServer::Signer(certificate)) => Some(Event::Signer { from: self.id, certificate }),
            Err(_) => {
                self.malformed();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::ids::{ClientId, Digest, Generation, Seq, Slot};
    use mesh::wire::submit::{Answer, Steer, Vote};
    use mesh::wire::{Kind, Outcome, encode};

    fn line() -> ToServer {
        let mut registry = mesh::node::Registry::default();
        ToServer::new(ReplicaId(2), Counts::new(&mut registry, "rejected", "", "reason", &["malformed"]))
    }

    fn tag(seq: u64) -> Tag {
        Tag { client: ClientId(1), opened: Generation::FIRST.at(Slot(1)), seq: Seq(seq), kind: Kind::Call }
    }

    fn answer(seq: u64) -> Answer {
        let outcome = Outcome::Executed(Bytes::from_static(b"OK"));
        Answer { tag: tag(seq), slot: Slot(9), form: Digest::of(b"OK"), outcome, signed: None }
    }

    #[test]
    fn an_empty_answer_means_that_a_vote_comes_instead() {
        assert!(line().answered(tag(1), Bytes::new()).is_none());
    }

    #[test]
    fn a_whole_answer_and_a_steer_reach_the_driver_with_their_server() {
        let whole = line().answered(tag(1), encode(&Reply::Whole(answer(1))));
        assert!(matches!(whole, Some(Event::Answer { from: ReplicaId(2), answer: got }) if got == answer(1)));
        let steer = line().answered(tag(1), encode(&Reply::Steer(Steer::Busy)));
        assert!(matches!(steer, Some(Event::Steer { from: ReplicaId(2), steer: Steer::Busy, .. })));
    }

    #[test]
    fn an_answer_to_another_question_and_rubbish_are_dropped_and_counted() {
        let line = line();
        assert!(line.answered(tag(1), encode(&Reply::Whole(answer(2)))).is_none());
        assert!(line.answered(tag(1), Bytes::from_static(b"\xff\xff")).is_none());
        assert!(line.received(Bytes::from_static(b"\xff\xff")).is_none());
        assert_eq!(line.rejected.of("malformed"), 3);
    }

    #[test]
    fn votes_reach_the_driver_together() {
        let votes: Vec<_> =
            (1..4).map(|seq| Vote { tag: tag(seq), slot: Slot(seq), form: Digest::of(b"OK"), signed: None }).collect();
        let event = line().received(encode(&FromServer::Votes(votes.clone())));
        assert!(matches!(event, Some(Event::Votes { from: ReplicaId(2), votes: got }) if got == votes));
    }

    #[test]
    fn a_certificate_reaches_the_driver_with_its_server() {
        let event = line().received(encode(&FromServer::Signer(Bytes::from_static(b"certificate"))));
        assert!(
            matches!(event, Some(Event::Signer { from: ReplicaId(2), certificate }) if certificate == "certificate")
        );
    }
}
