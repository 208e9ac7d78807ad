//! The side where ingresses and native clients come in: what becomes of each request before and after it is asked, and of
//! each reply.

use super::accomplices::Accomplices;
use super::behaviour::Behaviour;
use super::driver::{Event, Signers};
use super::forger::Forger;
use super::malice::{Malice, altered};
use bytes::Bytes;
use mesh::client::smart_client::Ticket;
use mesh::ids::{ClientId, Generation, Seq, Slot};
use mesh::limits::Limits;
use mesh::net::{Endpoint, Link};
use mesh::wire::client::{Ask, FromSmartClient, NothingSent, Told, Unknown};
use mesh::wire::{Body, Kind, Outcome, Refusal, Request, Tag};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{interval, sleep, timeout};

/// A sender's patience counts up to here.
const PATIENCE_MAX: Duration = Duration::from_secs(300);
/// How long a request waits for the one that is to overtake it, and a reply for the one that it is swapped with.
const PARTNER: Duration = Duration::from_millis(300);
/// Between two handfuls of a flood.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// Bytes of a message that is larger than any part takes.
pub(super) const OVERSIZE: usize = Limits::DEFAULT.message_bytes + 1;

/// A reply that waits for another one, whose receiver it is told to.
type Swap = (Tag, Told, oneshot::Sender<Told>);

/// What serving a link needs. Cheap to clone.
#[derive(Clone)]
pub(super) struct Desk {
    malice: Arc<Malice>,
    accomplices: Accomplices,
    forger: Arc<Forger>,
    events: mpsc::Sender<Event>,
    tickets: Arc<AtomicU64>,
    swap: Arc<Mutex<Option<Swap>>>,
    overtaken: Arc<Mutex<Option<oneshot::Sender<()>>>>,
}

impl Desk {
    pub(super) fn new(
        malice: Arc<Malice>,
        accomplices: Accomplices,
        forger: Arc<Forger>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let (tickets, swap, overtaken) = Default::default();
        Self { malice, accomplices, forger, events, tickets, swap, overtaken }
    }

    /// Accepts links until the endpoint is closed.
    pub(super) async fn accept(self, endpoint: Endpoint, signers: Signers) {
        while let Some(link) = endpoint.accept().await {
            tokio::spawn(self.clone().introduce(link.clone(), signers.clone()));
            if self.malice.may(Behaviour::FloodIngress) {
                tokio::spawn(flood(link.clone(), self.malice.clone()));
            }
            tokio::spawn(self.clone().serve(link));
        }
    }

    /// Says who the servers are that sign, or says it of others.
    async fn introduce(self, link: Link, signers: Signers) {
        let mut known = signers.subscribe();
        loop {
            let mut certificates: Vec<_> = known.borrow_and_update().clone().into_iter().collect();
            if self.malice.may(Behaviour::InventServers) {
                certificates = self.forger.servers(self.servers());
            }
            let said = certificates.is_empty()
                || link.send(mesh::wire::encode(&FromSmartClient::Signers(certificates))).await.is_ok();
            if !said || known.changed().await.is_err() {
                return;
            }
        }
    }

    fn servers(&self) -> impl Iterator<Item = u32> + '_ {
        self.malice.options.servers.iter().map(|(id, _)| *id)
    }

    async fn serve(self, link: Link) {
        while let Ok(bytes) = link.receive().await {
            if let Ok(ask) = mesh::wire::decode(&bytes) {
                tokio::spawn(self.clone().handle(ask, link.clone()));
            }
        }
    }

    async fn handle(self, Ask { request, within_ms }: Ask, link: Link) {
        let malice = &self.malice;
        let tag = request.tag();
        malice.recall(|memory, _| memory.request(&request));
        self.forge(&tag);
        if malice.does(Behaviour::Drop) {
            return;
        }
        if malice.does(Behaviour::HangUp) {
            return link.close("hung up");
        }
        if malice.does(Behaviour::Delay) {
            sleep(malice.options.late).await;
        }
        self.reorder().await;
        let within = Duration::from_millis(within_ms.into()).min(PATIENCE_MAX);
        let told = match self.invent(tag) {
            Some(told) => told,
            None => {
                let Some(told) = self.ask(self.alter(request), within, &link).await else { return };
                self.lie(tag, told).await
            }
        };
        // Whoever is gone does not hear it.
        let _ = link.send(self.encode(tag, told)).await;
    }

    /// Has the servers asked; none if the client left meanwhile.
    async fn ask(&self, request: Request, within: Duration, link: &Link) -> Option<Told> {
        let ticket = Ticket(self.tickets.fetch_add(1, Ordering::Relaxed));
        let (answer, told) = oneshot::channel();
        self.events.send(Event::Ask { ticket, request, within, answer }).await.ok()?;
        tokio::select! {
            biased;
            told = told => told.ok(),
            _ = link.closed() => {
                let _ = self.events.send(Event::Gone(ticket)).await;
                None
            }
        }
    }

    /// A client's request is an occasion to send others, of nobody or of somebody else.
    fn forge(&self, tag: &Tag) {
        let malice = &self.malice;
        let as_another = |body| malice.recall(|memory, dice| memory.next_of_another(tag, body, dice));
        let forged = malice.forged();
        if malice.wants(Behaviour::ForgeSession) {
            let client = ClientId::unowned(malice.chance().next_u64().into());
            let body = Body::Call(forged.clone());
            self.accomplices.submit(Behaviour::ForgeSession, Request::open(client, 8, None), move |outcome| {
                let Outcome::Opened { opened, .. } = outcome else { return None };
                Some(Request { client, opened: *opened, seq: Seq(1), body, proof: None })
            });
        }
        if malice.wants(Behaviour::ForgeOwner) {
            let open = self.forger.open(malice.chance().next_u64().into());
            let (client, body, forger) = (open.client, forged.clone(), self.forger.clone());
            self.accomplices.submit(Behaviour::ForgeOwner, open, move |outcome| {
                let Outcome::Opened { opened, .. } = outcome else { return None };
                Some(forger.call(client, *opened, body))
            });
        }
        let bodies = [
            (Behaviour::ForgeCall, Body::Call(forged)),
            (Behaviour::ForgeRefused, Body::Refused(Refusal::LogFull)),
            (Behaviour::ForgeCancel, Body::Cancel),
            (Behaviour::ForgeClose, Body::Close),
        ];
        for (behaviour, body) in bodies {
            if malice.wants(behaviour)
                && let Some(request) = as_another(body)
            {
                self.accomplices.submit(behaviour, request, |_| None);
            }
        }
        if malice.wants(Behaviour::Replay)
            && let Some(request) = malice.recall(|memory, dice| memory.old_request(dice))
        {
            self.accomplices.submit(Behaviour::Replay, request, |_| None);
        }
    }

    /// Lets the next request overtake this one, if it is to be.
    async fn reorder(&self) {
        let wants = self.malice.wants(Behaviour::Reorder);
        let (passed, overtaken) = oneshot::channel();
        let waiting = {
            let mut place = self.overtaken.lock().unwrap_or_else(PoisonError::into_inner);
            let waiting = place.take();
            if waiting.is_none() && wants {
                *place = Some(passed);
            }
            waiting
        };
        match waiting {
            // This one overtakes; the other follows once this one is on its way.
            Some(waiting) => {
                let malice = self.malice.clone();
                tokio::spawn(async move {
                    sleep(TICK).await;
                    if waiting.send(()).is_ok() {
                        malice.tally.did(Behaviour::Reorder);
                    }
                });
            }
            None if wants => drop(timeout(PARTNER, overtaken).await),
            None => {}
        }
    }

    /// An answer without asking anybody.
    fn invent(&self, tag: Tag) -> Option<Told> {
        let invented = || Outcome::Executed(format!("{}\n", self.malice.options.invented).into());
        match tag.kind {
            Kind::Call if self.malice.does(Behaviour::InventReply) => Some(Told::unsigned(invented())),
            Kind::Call if self.malice.does(Behaviour::InventServers) => {
                Some(self.forger.told(self.servers(), &tag, invented()))
            }
            Kind::Open if self.malice.does(Behaviour::InventSession) => {
                let opened = Generation::FIRST.at(Slot(1 + self.malice.chance().below(1000)));
                Some(Told::unsigned(Outcome::Opened { opened, window: 8 }))
            }
            _ => None,
        }
    }

    /// The request as the servers are to have it.
    fn alter(&self, mut request: Request) -> Request {
        let tag = request.tag();
        if let Body::Open { owner, .. } = &mut request.body
            && self.malice.does(Behaviour::StripOwner)
        {
            (*owner, request.proof) = (None, None);
        }
        let Body::Call(bytes) = &request.body else { return request };
        if self.malice.does(Behaviour::StripProof) {
            // What else is done to it nobody could tell: an alteration is to be found by its signature.
            return Request { proof: None, ..request };
        }
        if self.malice.does(Behaviour::AlterBody) {
            request.body = Body::Call(altered(bytes));
        }
        if self.malice.does(Behaviour::AlterNumber) {
            request.seq = request.seq.next();
        }
        if self.malice.wants(Behaviour::AlterSession) {
            let body = request.body.clone();
            if let Some(moved) = self.malice.recall(|memory, dice| memory.next_of_another(&tag, body, dice)) {
                self.malice.tally.did(Behaviour::AlterSession);
                request = Request { body: request.body, proof: request.proof, ..moved };
            }
        }
        request
    }

    /// What the client is told in the place of what is true.
    async fn lie(&self, tag: Tag, told: Told) -> Told {
        if tag.kind != Kind::Call {
            return told;
        }
        let malice = &self.malice;
        if malice.does(Behaviour::SayNothingSent) {
            return Told::NothingSent(NothingSent::NoQuorum { reachable: 0, members: 3, needed: 2 });
        }
        if malice.does(Behaviour::SayUnknown) {
            let unknowns = [Unknown::SessionGone, Unknown::OtherBody, Unknown::TooOld, Unknown::Deadline];
            return Told::Unknown(malice.chance().choose(&unknowns).copied().unwrap_or(Unknown::Lost));
        }
        if malice.does(Behaviour::SayRefused) {
            return Told::unsigned(Outcome::Refused(Refusal::LogFull));
        }
        let Told::Outcome { outcome: Outcome::Executed(bytes), vouched } = &told else { return told };
        if malice.wants(Behaviour::OtherReply)
            && let Some(other) = malice.recall(|memory, _| memory.reply_of_another(&tag))
        {
            malice.tally.did(Behaviour::OtherReply);
            return other;
        }
        malice.recall(|memory, _| memory.reply(&tag, &told));
        if malice.does(Behaviour::AlterReply) {
            return Told::Outcome { outcome: Outcome::Executed(altered(bytes)), vouched: vouched.clone() };
        }
        if let Some(first) = vouched.first()
            && malice.does(Behaviour::RepeatVoucher)
        {
            let vouched = vec![first.clone(); vouched.len()];
            return Told::Outcome { outcome: Outcome::Executed(bytes.clone()), vouched };
        }
        if malice.wants(Behaviour::SwapReplies) {
            return self.swap(tag, told).await;
        }
        told
    }

    /// The reply of another client that waits for one, or comes within a moment.
    async fn swap(&self, tag: Tag, told: Told) -> Told {
        let place = || self.swap.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = place().take_if(|(other, ..)| other.client != tag.client);
        if let Some((_, others, give)) = waiting {
            return match give.send(told) {
                Ok(()) => {
                    self.malice.tally.did(Behaviour::SwapReplies);
                    others
                }
                Err(told) => told,
            };
        }
        let (give, given) = oneshot::channel();
        {
            let mut place = place();
            if place.as_ref().is_some_and(|(_, _, waiting)| !waiting.is_closed()) {
                return told;
            }
            *place = Some((tag, told.clone(), give));
        }
        match timeout(PARTNER, given).await {
            Ok(Ok(others)) => others,
            _ => told,
        }
    }

    /// The bytes of an answer, or others.
    fn encode(&self, tag: Tag, told: Told) -> Bytes {
        if self.malice.does(Behaviour::GarbageIngress) {
            let length = self.malice.chance().below(200) as usize;
            return self.malice.noise(length);
        }
        if self.malice.does(Behaviour::OversizeIngress) {
            return vec![0; OVERSIZE].into();
        }
        mesh::wire::encode(&FromSmartClient::Told(vec![(tag, told)]))
    }
}

/// Messages that the other end did not ask for.
async fn flood(link: Link, malice: Arc<Malice>) {
    let handful = malice.options.flood.div_ceil(100);
    let mut ticks = interval(TICK);
    loop {
        ticks.tick().await;
        for _ in 0..handful {
            if !malice.wants(Behaviour::FloodIngress) {
                continue;
            }
            let answer = mesh::wire::encode(&Told::unsigned(Outcome::Executed(malice.forged())));
            let sent = if malice.chance().chance(500) { answer } else { malice.noise(1000) };
            match link.send(sent).await {
                Ok(()) => malice.tally.did(Behaviour::FloodIngress),
                Err(mesh::net::NetError::Gone(_)) => return,
                Err(_) => {}
            }
        }
    }
}
