//! Further links to the servers, with the same certificate: for requests that no client sent and bytes that are none.

use super::behaviour::Behaviour;
use super::malice::Malice;
use bytes::Bytes;
use mesh::net::{Endpoint, Link, LinkKind, NetError};
use mesh::wire::submit::{FromServer, Said, Submit, ToServer};
use mesh::wire::{Outcome, Request, Tag};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Forged requests that are waited for at once; further ones are left out.
const WAITING_MAX: usize = 256;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Before a lost link is dialled again.
const PAUSE: Duration = Duration::from_millis(100);

/// Links to all servers. Cheap to clone.
#[derive(Clone)]
pub(super) struct Accomplices {
    malice: Arc<Malice>,
    links: Arc<[Place]>,
    places: Arc<Semaphore>,
}

/// The link to one server, while it is up, and who waits for what it says.
#[derive(Clone, Default)]
struct Place(Arc<Mutex<Option<Link>>>, Arc<Mutex<Waiting>>);

/// Who waits for an answer to which request.
type Waiting = HashMap<Tag, Vec<oneshot::Sender<Heard>>>;
/// An answer in a word, and the outcome if it is one.
type Heard = (String, Option<Outcome>);

impl Place {
    fn set(&self, link: Option<Link>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }

    fn get(&self) -> Option<Link> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, said: Said) {
        let answers = said.answers.into_iter().map(|answer| {
            let word = word(&answer.outcome).to_owned();
            (answer.tag, (word, Some(answer.outcome)))
        });
        let steers = said.steers.into_iter().map(|(tag, steer)| (tag, (format!("{steer:?}"), None)));
        for (tag, heard) in answers.chain(steers) {
            for waiter in self.waiting().remove(&tag).unwrap_or_default() {
                let _ = waiter.send(heard.clone());
            }
        }
    }
}

impl Accomplices {
    /// Starts to keep a link to each server, until the tasks are dropped.
    pub(super) fn start(malice: &Arc<Malice>, endpoint: &Endpoint, tasks: &mut JoinSet<()>) -> Self {
        let mut links = Vec::new();
        for (id, address) in &malice.options.servers {
            let place = Place::default();
            tasks.spawn(keep(endpoint.clone(), id.to_string(), address.clone(), place.clone()));
            links.push(place);
        }
        Self { malice: malice.clone(), links: links.into(), places: Arc::new(Semaphore::new(WAITING_MAX)) }
    }

    /// The links that are up.
    pub(super) fn links(&self) -> Vec<Link> {
        self.links.iter().filter_map(Place::get).collect()
    }

    /// Sends requests one after the other to every server, each as `next` makes it of the outcome of the one before, as long
    /// as it does. Returns at once.
    pub(super) fn submit(
        &self,
        behaviour: Behaviour,
        first: Request,
        next: impl FnOnce(&Outcome) -> Option<Request> + Send + 'static,
    ) {
        let (Ok(place), false) = (Arc::clone(&self.places).try_acquire_owned(), self.links().is_empty()) else {
            return;
        };
        let this = self.clone();
        tokio::spawn(async move {
            let _place = place;
            let outcome = this.ask_all(behaviour, first).await;
            if let Some(second) = outcome.as_ref().and_then(next) {
                this.ask_all(behaviour, second).await;
            }
        });
    }

    /// Asks every server for the whole reply; the first outcome that one of them gives.
    async fn ask_all(&self, behaviour: Behaviour, request: Request) -> Option<Outcome> {
        self.malice.tally.did(behaviour);
        let (tag, within_ms) = (request.tag(), PATIENCE.as_millis() as u32);
        let message = mesh::wire::encode(&ToServer::Submit(Submit { request, whole: true, within_ms }));
        let mut asked = JoinSet::new();
        for place in self.links.iter() {
            if let Some(link) = place.get() {
                asked.spawn(ask(place.clone(), link, tag, message.clone()));
            }
        }
        let mut outcome = None;
        while let Some(Ok((word, found))) = asked.join_next().await {
            self.malice.tally.heard(behaviour, &word);
            outcome = outcome.or(found);
        }
        outcome
    }

    /// Sends bytes that are no request to every server, and notes what comes of it.
    pub(super) async fn shout(&self, behaviour: Behaviour, message: Bytes) {
        for link in self.links() {
            self.malice.tally.did(behaviour);
            // Nobody answers what is no request.
            let sent = link.send(message.clone()).await;
            self.malice.tally.heard(behaviour, failed(&sent).unwrap_or("silence"));
        }
    }
}

async fn keep(endpoint: Endpoint, id: String, address: String, place: Place) {
    loop {
        if let Ok(link) = endpoint.dial(LinkKind::Submit, &address, Some(&id)).await {
            place.set(Some(link.clone()));
            while let Ok(message) = link.receive().await {
                if let Ok(FromServer::Said(said)) = mesh::wire::decode(&message) {
                    place.hear(said);
                }
            }
            place.set(None);
            place.waiting().clear();
        }
        sleep(PAUSE).await;
    }
}

/// One question, and what came of it.
async fn ask(place: Place, link: Link, tag: Tag, message: Bytes) -> Heard {
    let (tell, told) = oneshot::channel();
    place.waiting().entry(tag).or_default().push(tell);
    if let Some(word) = failed(&link.send(message).await) {
        return (word.to_owned(), None);
    }
    match timeout(PATIENCE, told).await {
        Err(_) => ("silence".to_owned(), None),
        Ok(Err(_)) => ("link gone".to_owned(), None),
        Ok(Ok(heard)) => heard,
    }
}

/// Why a message did not go out, in a word.
fn failed(sent: &Result<(), NetError>) -> Option<&'static str> {
    match sent {
        Ok(()) => None,
        Err(NetError::Gone(_)) => Some("link gone"),
        Err(_) => Some("not sent"),
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Executed(_) => "executed",
        Outcome::Opened { .. } => "opened",
        Outcome::Settled => "settled",
        Outcome::Cancelled => "cancelled",
        Outcome::Closed => "closed",
        Outcome::Refused(_) => "refused",
        Outcome::Aborted => "aborted",
        Outcome::Read(_) => "read",
    }
}
