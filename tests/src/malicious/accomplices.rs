//! Further links to the servers, with the same certificate: for requests that no client sent and bytes that are none.

use super::behaviour::Behaviour;
use super::malice::Malice;
use bytes::Bytes;
use mesh::net::{Endpoint, Link, LinkKind, NetError};
use mesh::wire::submit::{Reply, Submit};
use mesh::wire::{Outcome, Request};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
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

/// The link to one server, while it is up.
#[derive(Clone, Default)]
struct Place(Arc<Mutex<Option<Link>>>);

impl Place {
    fn set(&self, link: Option<Link>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }

    fn get(&self) -> Option<Link> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        let message = mesh::wire::encode(&Submit { request });
        let mut asked = JoinSet::new();
        for link in self.links() {
            asked.spawn(ask(link, message.clone()));
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
        let mut asked = JoinSet::new();
        for link in self.links() {
            self.malice.tally.did(behaviour);
            asked.spawn(ask(link, message.clone()));
        }
        while let Some(Ok((word, _))) = asked.join_next().await {
            self.malice.tally.heard(behaviour, &word);
        }
    }
}

async fn keep(endpoint: Endpoint, id: String, address: String, place: Place) {
    loop {
        if let Ok(link) = endpoint.dial(LinkKind::Submit, &address, Some(&id)).await {
            place.set(Some(link.clone()));
            // Votes are of no use here, but their streams are to be given back.
            while link.receive().await.is_ok() {}
            place.set(None);
        }
        sleep(PAUSE).await;
    }
}

/// One question, and what came of it in a word.
async fn ask(link: Link, message: Bytes) -> (String, Option<Outcome>) {
    match timeout(PATIENCE, link.ask(message)).await {
        Err(_) => ("silence".to_owned(), None),
        Ok(Err(NetError::Abandoned(code))) => (format!("stream reset ({code})"), None),
        Ok(Err(NetError::Gone(_))) => ("link gone".to_owned(), None),
        Ok(Err(_)) => ("not sent".to_owned(), None),
        Ok(Ok(answer)) => match mesh::wire::decode(&answer) {
            Ok(Reply::Whole(answer)) => (word(&answer.outcome).to_owned(), Some(answer.outcome)),
            Ok(Reply::Steer(steer)) => (format!("{steer:?}"), None),
            Err(_) => ("no answer".to_owned(), None),
        },
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
