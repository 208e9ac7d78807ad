//! Which SMaRtClients there are: one link to each address that the configured names stand for.
//!
//! Names are asked again and again, since SMaRtClients come and go. A name whose holder's id is known stands for that
//! one alone; it is resolved anew whenever its link is dialled.

use super::{Event, ToSmartClient};
use crate::client::sender::Endpoint as Number;
use crate::net::kept::{self, Standing, Target};
use crate::net::{Backoff, Endpoint, LinkKind};
use crate::node::counts::{Counts, Endpoints};
use crate::node::grid;
use crate::rng::Rng;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

/// How often a name is asked again.
const ASK: Duration = Duration::from_secs(5);
/// How often a name that stands for nobody is asked again.
const ASK_NOBODY: Duration = Duration::from_millis(500);
/// Addresses of one name that are used at most.
const ADDRESSES_MAX: usize = 64;

/// The links of a process, for `/status` and metrics.
#[derive(Debug)]
pub(super) struct Roster {
    places: Mutex<Vec<Place>>,
    /// How many the sender uses.
    ready: AtomicUsize,
    gauges: Endpoints,
}

/// One link, and how the sender regards it.
#[derive(Debug)]
struct Place {
    number: Number,
    standing: Arc<Standing>,
    ejected: bool,
}

impl Roster {
    /// An empty one.
    pub(super) fn new(gauges: Endpoints) -> Arc<Self> {
        Arc::new(Self { places: Mutex::default(), ready: AtomicUsize::new(0), gauges })
    }

    /// The `peers` of `/status`.
    pub(super) fn status(&self) -> Vec<Value> {
        let status = |place: &Place| {
            let mut status = place.standing.status();
            status["ejected"] = place.ejected.into();
            status
        };
        self.places().iter().map(status).collect()
    }

    /// How many the sender uses, and which it leaves alone for a while.
    pub(super) fn show(&self, ready: usize, ejected: &BTreeSet<Number>) {
        let mut places = self.places();
        for place in places.iter_mut() {
            let now = ejected.contains(&place.number);
            if now != place.ejected {
                place.ejected = now;
                let target = place.standing.address();
                if now {
                    warn!(target, "this SMaRtClient fails while others answer: left alone until it answers a probe");
                } else {
                    info!(target, "this SMaRtClient is asked again");
                }
            }
        }
        self.ready.store(ready, Ordering::Relaxed);
        self.gauges.show(ready, places.len());
    }

    /// Where a link is dialled; empty if there is none any more.
    pub(super) fn address(&self, number: Number) -> String {
        let places = self.places();
        places.iter().find(|place| place.number == number).map_or_else(String::new, |place| place.standing.address())
    }

    fn add(&self, number: Number, target: Target) -> Arc<Standing> {
        let standing = Standing::new(target);
        let mut places = self.places();
        places.push(Place { number, standing: standing.clone(), ejected: false });
        self.gauges.show(self.ready.load(Ordering::Relaxed), places.len());
        standing
    }

    /// One in this process.
    pub(super) fn add_near(&self, number: Number) {
        let target = Target { kind: LinkKind::Client, address: "this process".to_owned(), id: None };
        self.add(number, target).is_near();
    }

    fn remove(&self, number: Number) {
        let mut places = self.places();
        places.retain(|place| place.number != number);
        self.gauges.show(self.ready.load(Ordering::Relaxed), places.len());
    }

    fn places(&self) -> std::sync::MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What links are kept with.
#[derive(Clone)]
pub(super) struct Keeper {
    /// Our end.
    pub(super) endpoint: Endpoint,
    /// The sender's driver.
    pub(super) events: mpsc::Sender<Event>,
    /// Where the links are listed.
    pub(super) roster: Arc<Roster>,
    /// What is refused and dropped.
    pub(super) refused: Counts,
    /// The next link's number.
    pub(super) numbers: Arc<AtomicU64>,
}

impl Keeper {
    /// Keeps the links to one configured address, until it is dropped.
    pub(super) async fn keep(self, id: Option<String>, address: String, mut rng: Rng) {
        if id.is_some() || address.parse::<SocketAddr>().is_ok() {
            let number = self.number();
            let standing = self.roster.add(number, Target { kind: LinkKind::Client, address, id });
            return self.link(number, standing, &mut rng).await;
        }
        let mut kept = HashMap::new();
        loop {
            let found = resolve(&address).await;
            self.take_on(&found, &mut kept, &mut rng);
            self.let_go(&found, &mut kept).await;
            grid::sleep(if found.is_empty() { ASK_NOBODY } else { ASK }).await;
        }
    }

    /// Starts links to the addresses that are new.
    fn take_on(&self, found: &BTreeSet<SocketAddr>, kept: &mut HashMap<SocketAddr, Kept>, rng: &mut Rng) {
        for address in found {
            if kept.contains_key(address) || kept.len() >= ADDRESSES_MAX {
                continue;
            }
            info!(%address, "a new SMaRtClient by name");
            let target = Target { kind: LinkKind::Client, address: address.to_string(), id: None };
            let number = self.number();
            let standing = self.roster.add(number, target);
            let task = Task(tokio::spawn(self.link(number, standing.clone(), rng)));
            kept.insert(*address, Kept { number, standing, task });
        }
    }

    /// Ends links to addresses that the name does not stand for any more, once they are down: a name service that
    /// forgets somebody for a moment breaks no working link.
    async fn let_go(&self, found: &BTreeSet<SocketAddr>, kept: &mut HashMap<SocketAddr, Kept>) {
        let gone: Vec<SocketAddr> =
            kept.iter().filter(|(at, kept)| !found.contains(at) && !kept.standing.is_up()).map(|(at, _)| *at).collect();
        for address in gone {
            if let Some(mut kept) = kept.remove(&address) {
                info!(%address, "a SMaRtClient is gone by name");
                kept.task.0.abort();
                // Cancelled, of course.
                let _ = (&mut kept.task.0).await;
                self.roster.remove(kept.number);
                let _ = self.events.send(Event::Down(kept.number)).await;
            }
        }
    }

    fn link(&self, number: Number, standing: Arc<Standing>, rng: &mut Rng) -> impl Future<Output = ()> + use<> {
        let line = ToSmartClient::new(number, self.refused.clone());
        kept::keep(line, self.endpoint.clone(), standing, self.events.clone(), Backoff::new(rng.next_u64()))
    }

    fn number(&self) -> Number {
        Number(self.numbers.fetch_add(1, Ordering::Relaxed))
    }
}

/// One link that is kept to an address of a name.
struct Kept {
    number: Number,
    standing: Arc<Standing>,
    task: Task,
}

/// A task that ends with its handle.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn resolve(address: &str) -> BTreeSet<SocketAddr> {
    match lookup_host(address).await {
        Ok(found) => found.collect(),
        Err(error) => {
            debug!(address, %error, "the name stands for nobody");
            BTreeSet::new()
        }
    }
}
