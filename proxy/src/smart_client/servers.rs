//! The servers: which links are kept, where they are dialled, and what comes over them: each request on a stream of its
//! own, replies and votes back bundled.

use super::driver::Event;
use bytes::Bytes;
use mesh::directory::Directory;
use mesh::ids::{Epoch, Generation, ReplicaId};
use mesh::net::kept::{self, Line, Question, Standing, Target};
use mesh::net::{Backoff, Endpoint, LinkKind};
use mesh::node::Quiet;
use mesh::node::counts::Counts;
use mesh::rng::Rng;
use mesh::wire::Tag;
use mesh::wire::roster::{PLACES_MAX, Roster, Seat};
use mesh::wire::submit::FromServer;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

/// How the links stand, for `/status`.
#[derive(Clone, Debug, Default)]
pub(super) struct Standings(Arc<Mutex<BTreeMap<ReplicaId, Arc<Standing>>>>);

impl Standings {
    /// All of them, in order of the servers' ids.
    pub(super) fn all(&self) -> Vec<(ReplicaId, Arc<Standing>)> {
        self.lock().iter().map(|(id, standing)| (*id, standing.clone())).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ReplicaId, Arc<Standing>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What links to servers are kept with.
pub(super) struct Servers {
    endpoint: Endpoint,
    /// The driver's.
    events: mpsc::Sender<Event>,
    rejected: Counts,
    rng: Rng,
    directory: Directory,
    /// The members that are believed, once enough servers have said so.
    seated: Option<((Generation, Epoch), BTreeSet<ReplicaId>)>,
    kept: BTreeMap<ReplicaId, Kept>,
    standings: Standings,
}

/// A link that is kept.
struct Kept {
    standing: Arc<Standing>,
    /// `None`: it is being ended.
    task: Option<Task>,
}

/// A task that ends with its handle.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Servers {
    /// Keeps links to the servers that are configured.
    pub(super) fn start(
        configured: &[(u32, String)],
        endpoint: &Endpoint,
        events: &mpsc::Sender<Event>,
        rejected: &Counts,
        rng: Rng,
    ) -> Self {
        let mut servers = Self {
            endpoint: endpoint.clone(),
            events: events.clone(),
            rejected: rejected.clone(),
            rng,
            directory: Directory::new(configured.iter().map(|(id, address)| (ReplicaId(*id), address.clone()))),
            seated: None,
            kept: BTreeMap::new(),
            standings: Standings::default(),
        };
        servers.look_after();
        servers
    }

    /// How they stand.
    pub(super) fn standings(&self) -> Standings {
        self.standings.clone()
    }

    /// A server says who and where the servers are. False if a newer word overtook it.
    pub(super) fn hear(&mut self, from: ReplicaId, roster: Roster) -> bool {
        let news = self.directory.hear(from, roster);
        if news {
            self.look_after();
        }
        news
    }

    /// These are the members by the word of enough of them.
    pub(super) fn seat(&mut self, edition: (Generation, Epoch), members: &[Seat]) {
        let members: BTreeSet<ReplicaId> = members.iter().map(|seat| seat.id).collect();
        let (generation, epoch) = edition;
        info!(%generation, %epoch, ?members, "these are the servers now");
        self.seated = Some((edition, members));
        // Words of those that are gone are of no use, and there is room for so many only.
        let wanted = self.wanted();
        self.directory.retain(|server| wanted.contains(&server));
        self.look_after();
    }

    /// A link that was let go has ended.
    pub(super) fn ended(&mut self, server: ReplicaId) {
        self.kept.remove(&server);
        self.look_after();
    }

    /// Keeps links to those that should have one, where they are by now, and lets go of the others.
    fn look_after(&mut self) {
        let wanted = self.wanted();
        for id in &wanted {
            let addresses = self.directory.addresses(*id);
            match self.kept.get(id) {
                Some(kept) => kept.standing.found_at(addresses),
                None if self.kept.len() < PLACES_MAX => self.keep(*id, addresses),
                None => {}
            }
        }
        for (id, kept) in self.kept.iter_mut().filter(|(id, _)| !wanted.contains(id)) {
            let Some(mut task) = kept.task.take() else { continue };
            info!(server = %id, "it is no member any more");
            self.standings.lock().remove(id);
            let (id, events) = (*id, self.events.clone());
            tokio::spawn(async move {
                task.0.abort();
                // Cancelled, of course.
                let _ = (&mut task.0).await;
                let _ = events.send(Event::Ended(id)).await;
            });
        }
    }

    /// Who should have a link: the members that are believed, and whoever is said to be one by a later word, since that
    /// is believed only when they say so themselves.
    fn wanted(&self) -> BTreeSet<ReplicaId> {
        let mut wanted: BTreeSet<ReplicaId> = match &self.seated {
            Some((_, members)) => members.clone(),
            None => self.directory.configured().collect(),
        };
        let later = |roster: &&Roster| self.seated.as_ref().is_none_or(|(edition, _)| roster.edition() > *edition);
        let words = self.directory.words().map(|(_, roster)| roster).filter(later);
        wanted.extend(words.flat_map(|roster| roster.members.iter().map(|seat| seat.id)));
        wanted
    }

    fn keep(&mut self, id: ReplicaId, addresses: Vec<String>) {
        let address = addresses.first().cloned().unwrap_or_default();
        let standing = Standing::new(Target { kind: LinkKind::Submit, address, id: Some(id.to_string()) });
        standing.found_at(addresses);
        let line = ToServer::new(id, self.rejected.clone());
        let pauses = Backoff::new(self.rng.next_u64());
        let keeping = kept::keep(line, self.endpoint.clone(), standing.clone(), self.events.clone(), pauses);
        let task = Some(Task(tokio::spawn(keeping)));
        self.standings.lock().insert(id, standing.clone());
        self.kept.insert(id, Kept { standing, task });
    }
}

/// A server of another version would fill the log.
static MALFORMED: Quiet = Quiet::new();

/// A message on its way to a server.
#[derive(Debug)]
pub(super) struct Submission {
    /// Which request's whole reply is asked for, if one is.
    pub(super) asks: Option<Tag>,
    /// What is sent: a [`mesh::wire::submit::ToServer`].
    pub(super) message: Bytes,
    /// When the answer is given up.
    pub(super) until: tokio::time::Instant,
}

impl Question for Submission {
    fn tag(&self) -> Option<Tag> {
        self.asks
    }
    fn encode(&self) -> Bytes {
        self.message.clone()
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

    fn received(&self, message: Bytes, answered: &mut dyn FnMut(&Tag)) -> Option<Event> {
        match mesh::wire::decode(&message) {
            Ok(FromServer::Said(said)) => {
                said.answered().for_each(answered);
                Some(Event::Said { from: self.id, said })
            }
            Ok(FromServer::Signer(certificate)) => Some(Event::Signer { from: self.id, certificate }),
            Ok(FromServer::Roster(roster)) => Some(Event::Roster { from: self.id, roster }),
            Err(_) => {
                self.rejected.count("malformed");
                if let Some(suppressed) = MALFORMED.may_speak() {
                    warn!(server = %self.id, suppressed, "a server sent bytes that are no answer; do both run the same version?");
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::ids::{ClientId, Digest, Generation, Seq, Slot};
    use mesh::wire::submit::{Answer, Said, Steer};
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

    /// Mutant: a steer that leaves its question waiting, until there is no room for others.
    #[test]
    fn what_a_server_says_reaches_the_driver_and_ends_the_questions_that_it_answers() {
        let vote = mesh::wire::submit::Vote { tag: tag(3), slot: Slot(3), form: Digest::of(b"OK"), signed: None };
        let said =
            Said { leads: None, answers: vec![answer(1)], votes: vec![vote], steers: vec![(tag(2), Steer::NotReady)] };
        let mut ended = Vec::new();
        let event = line().received(encode(&FromServer::Said(said.clone())), &mut |tag| ended.push(*tag));
        assert!(matches!(event, Some(Event::Said { from: ReplicaId(2), said: got }) if got == said));
        assert_eq!(ended, [tag(1), tag(2)], "a vote answers nothing");
    }

    #[test]
    fn rubbish_is_dropped_and_counted() {
        let line = line();
        assert!(line.received(Bytes::from_static(b"\xff\xff"), &mut |_| panic!("no answer")).is_none());
        assert_eq!(line.rejected.of("malformed"), 1);
    }

    #[test]
    fn a_certificate_reaches_the_driver_with_its_server() {
        let certificate = encode(&FromServer::Signer(Bytes::from_static(b"certificate")));
        let event = line().received(certificate, &mut |_| panic!("no answer"));
        assert!(
            matches!(event, Some(Event::Signer { from: ReplicaId(2), certificate }) if certificate == "certificate")
        );
    }
}
