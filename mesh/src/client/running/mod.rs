//! A running [`Sender`]: its driver, its links to SMaRtClients. What an ingress and a native client have in common.

mod doubts;
mod keys;
mod roster;
mod signing;
mod witness;

use crate::auth::{PublicKey, Rejected, Signatures};
use crate::client::ReplyVote;
use crate::client::Sender;
use crate::client::sender::{Answer, Card, Carried, Config, Connection, Endpoint, Input, Output, Refused};
use crate::ids::ReplicaId;
use crate::net::kept::{Line, Question};
use crate::net::{self, Files, Followed, NetError, Signer, SignerTrust};
use crate::node::counts::{Counts, Ended, Endpoints, Requests};
use crate::node::drive::{self, EVENTS, Shell};
use crate::node::{Clock, Quiet};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::client::{Ask, FromSmartClient, Told, Unknown};
use crate::wire::{Outcome, Request, Tag};
use bytes::Bytes;
use roster::{Keeper, Roster};
use signing::{Outgoing, Pen};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::warn;
use witness::{Judged, Unbelieved, Witness};

/// A SMaRtClient may send what it likes, as often as it likes.
static MALFORMED: Quiet = Quiet::new();
/// Between two complaints about signatures.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// What the tasks around the sender tell it.
#[derive(Debug)]
pub enum Event {
    /// A client's next request.
    Call {
        /// Its connection.
        connection: Connection,
        /// The request.
        bytes: Bytes,
        /// Whether it changes nothing, by the protocol's adapter: it may be asked past the log.
        read: bool,
        /// Where its answer goes.
        answer: oneshot::Sender<Answer>,
    },
    /// A request whose session and number are its owner's business; at most one of a tag at a time.
    Carry {
        /// The request.
        request: Request,
        /// How long its owner waits.
        within: Duration,
        /// The key that its session was opened with; the newest one where that is not known.
        key: Option<PublicKey>,
        /// Where its end is told.
        end: oneshot::Sender<Carried>,
    },
    /// Nobody waits for it any more.
    Drop(Tag),
    /// The client is gone.
    Gone(Connection),
    /// A SMaRtClient's words on requests.
    Told {
        /// Which SMaRtClient.
        endpoint: Endpoint,
        /// On which requests, and what.
        told: Vec<(Tag, Told)>,
    },
    /// A SMaRtClient shows the servers' signing certificates.
    Signers(Endpoint, Vec<(ReplicaId, Bytes)>),
    /// A SMaRtClient is about to stop, or not any more.
    Leaving(Endpoint, bool),
    /// A link is up; what is sent over it goes into the queue.
    Up(Endpoint, mpsc::Sender<Asking>),
    /// A link is gone.
    Down(Endpoint),
    /// Sessions are opened with this key from now on.
    Signer(Arc<Signer>),
    /// Servers are believed by these authorities from now on.
    Trust(Arc<SignerTrust>),
}

/// A request on its way to a SMaRtClient.
#[derive(Debug)]
pub struct Asking {
    request: Request,
    until: tokio::time::Instant,
}

impl Asking {
    /// The request, and how long its sender still waits.
    #[must_use]
    pub fn into_request(self) -> (Request, Duration) {
        (self.request, self.until.saturating_duration_since(tokio::time::Instant::now()))
    }
}

impl Question for Asking {
    fn tag(&self) -> Option<Tag> {
        Some(self.request.tag())
    }
    fn encode(&self) -> Bytes {
        let within = self.until.saturating_duration_since(tokio::time::Instant::now());
        let within_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
        crate::wire::encode(&Ask { request: self.request.clone(), within_ms })
    }
    fn until(&self) -> tokio::time::Instant {
        self.until
    }
}

/// A link to one SMaRtClient.
pub struct ToSmartClient {
    endpoint: Endpoint,
    refused: Counts,
}

impl ToSmartClient {
    /// The link with that number.
    pub fn new(endpoint: Endpoint, refused: Counts) -> Self {
        Self { endpoint, refused }
    }
}

impl Line for ToSmartClient {
    type Question = Asking;
    type Event = Event;
    fn up(&self, queue: mpsc::Sender<Asking>) -> Event {
        Event::Up(self.endpoint, queue)
    }
    fn down(&self) -> Event {
        Event::Down(self.endpoint)
    }
    fn received(&self, message: Bytes, answered: &mut dyn FnMut(&Tag)) -> Option<Event> {
        match crate::wire::decode(&message) {
            Ok(FromSmartClient::Told(told)) => {
                told.iter().for_each(|(tag, _)| answered(tag));
                Some(Event::Told { endpoint: self.endpoint, told })
            }
            Ok(FromSmartClient::Signers(certificates)) => Some(Event::Signers(self.endpoint, certificates)),
            Ok(FromSmartClient::Leaving(leaving)) => Some(Event::Leaving(self.endpoint, leaving)),
            Err(_) => {
                self.refused.count("malformed");
                if let Some(suppressed) = MALFORMED.may_speak() {
                    warn!(
                        suppressed,
                        "a SMaRtClient answered with bytes that are no answer; do both run the same version?"
                    );
                }
                None
            }
        }
    }
}

/// What of the sender its neighbours may see, as of the driver's last turn.
#[derive(Debug, Default)]
pub struct View {
    /// Calls without an answer.
    pub outstanding: AtomicUsize,
    /// SMaRtClients that a link is up to.
    pub reachable: AtomicUsize,
}

/// A call whose answer is awaited.
#[derive(Debug)]
struct Waiting {
    answer: oneshot::Sender<Answer>,
    since: Instant,
}

/// A carried request whose end is awaited.
#[derive(Debug)]
struct Carrying {
    end: oneshot::Sender<Carried>,
    key: Option<PublicKey>,
    since: Instant,
}

/// Between the sender and its links and connections.
struct Around {
    clock: Clock,
    /// How long a call may take.
    patience: Duration,
    calls: HashMap<Connection, VecDeque<Waiting>>,
    carried: HashMap<Tag, Carrying>,
    pen: Pen,
    card: watch::Sender<Option<Card>>,
    witness: Witness,
    /// When signatures were complained about last.
    complained: Option<Instant>,
    queues: HashMap<Endpoint, mpsc::Sender<Asking>>,
    roster: Arc<Roster>,
    /// [`Sender::standings`] when they were shown last.
    standings: u64,
    view: Arc<View>,
    /// SMaRtClients that are asked, as of the last turn.
    ready: Vec<Endpoint>,
    requests: Requests,
    reads: Counts,
    refused: Counts,
    signature_failures: Counts,
}

impl Shell<Sender> for Around {
    type Event = Event;

    fn on_event(&mut self, now: Instant, event: Event, inputs: &mut Vec<Input>) {
        inputs.push(match event {
            Event::Call { connection, bytes, read, answer } => {
                self.calls.entry(connection).or_default().push_back(Waiting { answer, since: now });
                Input::Call { connection, bytes, read, deadline: now + self.patience }
            }
            Event::Carry { request, within, key, end } => {
                self.carried.insert(request.tag(), Carrying { end, key, since: now });
                Input::Carry { request, deadline: now + within }
            }
            Event::Drop(tag) => {
                let Some(_) = self.carried.remove(&tag) else { return };
                Input::Drop(tag)
            }
            Event::Gone(connection) => {
                self.calls.remove(&connection);
                Input::Gone(connection)
            }
            Event::Told { endpoint, told } => {
                inputs.extend(told.into_iter().map(|(tag, told)| self.told(now, endpoint, tag, told)));
                return;
            }
            Event::Signers(endpoint, certificates) => {
                self.witness.shown(now, endpoint, certificates);
                return;
            }
            Event::Leaving(endpoint, leaving) => Input::Leaving { endpoint, leaving },
            Event::Up(endpoint, queue) => {
                self.queues.insert(endpoint, queue);
                Input::Up(endpoint)
            }
            Event::Down(endpoint) => {
                self.queues.remove(&endpoint);
                self.witness.down(endpoint);
                Input::Down(endpoint)
            }
            Event::Trust(trust) => {
                self.witness.trust(now, trust);
                return;
            }
            Event::Signer(signer) => {
                let card = signer.card();
                self.pen.take(signer);
                self.card.send_replace(Some(card.clone()));
                Input::Signer(card)
            }
        });
    }

    fn on_output(&mut self, now: Instant, output: Output) {
        match output {
            Output::Send { endpoint, request, key, within } => {
                let key = key.or_else(|| self.carried.get(&request.tag())?.key);
                self.pen.add(Outgoing { endpoint, request, key, within });
            }
            Output::Answer { connection, answer } => self.answer(now, connection, answer),
            Output::Carried { tag, end } => self.carried(now, tag, end),
            Output::Resent => {
                self.requests.resends.inc();
            }
            Output::Withheld => {
                self.requests.withheld.inc();
            }
            Output::Read { answered } => self.reads.count(if answered { "index" } else { "log" }),
        }
    }

    fn after_turn(&mut self, sender: &Sender) {
        let now = self.clock.now();
        for Outgoing { endpoint, request, within, .. } in self.pen.sign() {
            let asking = Asking { request, until: self.clock.timer(now + within) };
            // Full or just gone: the protocol sends it again, elsewhere.
            if self.queues.get(&endpoint).is_none_or(|queue| queue.try_send(asking).is_err()) {
                self.refused.count("queue_full");
            }
        }
        self.view.outstanding.store(sender.outstanding(), Ordering::Relaxed);
        self.view.reachable.store(self.queues.len(), Ordering::Relaxed);
        if self.standings != sender.standings() {
            self.standings = sender.standings();
            self.ready = sender.ready().to_vec();
            self.roster.show(self.ready.len(), &sender.ejected().collect());
        }
    }
}

impl Around {
    /// What a SMaRtClient's word is for the sender.
    fn told(&mut self, now: Instant, endpoint: Endpoint, tag: Tag, told: Told) -> Input {
        match self.witness.judge(now, (endpoint, &self.ready), &tag, told) {
            Judged::Believed(told) => {
                if let Told::Unknown(Unknown::Rejected(why)) = told {
                    self.rejected(now, why);
                }
                Input::Told { endpoint, tag, told }
            }
            Judged::Doubted => Input::Doubted { endpoint, tag },
            Judged::Rejected(why) => {
                self.signature_failures.count("reply");
                self.refused.count(why.as_str());
                if self.may_complain(now) {
                    let target = self.roster.address(endpoint);
                    warn!(
                        target,
                        reason = why.as_str(),
                        "a reply without the signatures that it needs, asked again elsewhere: check --reply-signatures \
                         and the signing certificates of the servers, --reply-vote, the clock; otherwise this \
                         SMaRtClient alters replies"
                    );
                }
                // Whether it passed the request on is not known, and others may do better.
                match why {
                    Unbelieved::Altered | Unbelieved::BadSignature => Input::Lied { endpoint, tag },
                    _ => Input::Told { endpoint, tag, told: Told::Unknown(Unknown::Lost) },
                }
            }
        }
    }

    /// The servers do not believe that a request is ours.
    fn rejected(&mut self, now: Instant, why: Rejected) {
        self.signature_failures.count("request");
        if self.may_complain(now) {
            warn!(
                %why,
                "the servers do not accept our requests: check --request-signatures (the same everywhere), the signing \
                 certificate, and the clocks"
            );
        }
    }

    fn may_complain(&mut self, now: Instant) -> bool {
        let may = self.complained.is_none_or(|last| now.since(last) >= COMPLAIN_EVERY);
        if may {
            self.complained = Some(now);
        }
        may
    }

    /// Tells whoever had a request carried.
    fn carried(&mut self, now: Instant, tag: Tag, end: Carried) {
        let Some(Carrying { end: waiting, since, .. }) = self.carried.remove(&tag) else { return };
        let how = match &end {
            Carried::Outcome(Outcome::Refused(_) | Outcome::Aborted | Outcome::Cancelled) => Ended::Refused,
            Carried::Outcome(_) => Ended::Ok,
            Carried::Refused(why) => {
                self.refused.count(reason(why));
                Ended::Refused
            }
            Carried::Unknown(_) => Ended::Unknown,
        };
        self.requests.ended(how, now.since(since));
        let _ = waiting.send(end);
    }

    /// Answers the oldest call of a connection, unless its client is gone.
    fn answer(&mut self, now: Instant, connection: Connection, answer: Answer) {
        let Some(calls) = self.calls.get_mut(&connection) else { return };
        let Some(waiting) = calls.pop_front() else { return };
        if calls.is_empty() {
            self.calls.remove(&connection);
        }
        let how = match &answer {
            Answer::Reply(_) => Ended::Ok,
            Answer::Refused(why) => {
                self.refused.count(reason(why));
                Ended::Refused
            }
            Answer::Unknown(_) => Ended::Unknown,
        };
        self.requests.ended(how, now.since(waiting.since));
        let _ = waiting.answer.send(answer);
    }
}

/// The label of a refusal.
fn reason(why: &Refused) -> &'static str {
    match why {
        Refused::NoSmartClient => "no_smart_client",
        Refused::NothingSent(_) => "nothing_sent",
        Refused::Overloaded => "overloaded",
        Refused::NoSession => "no_session",
        Refused::NoAnswer => "no_answer",
        Refused::Broken => "broken",
        Refused::Ordered(_) => "ordered",
        Refused::Cancelled => "cancelled",
        Refused::Aborted => "aborted",
    }
}

/// What counts calls.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Calls.
    pub requests: Requests,
    /// Reads that were asked past the log, and whether they were answered so or went through the log after all.
    pub reads: Counts,
    /// What was refused, and why.
    pub refused: Counts,
    /// Signatures that are missing or do not hold, by whose they are.
    pub signature_failures: Counts,
    /// The links.
    pub endpoints: Endpoints,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut crate::node::Registry) -> Self {
        let mut reasons = vec![
            "broken",
            "command",
            "connections_max",
            "malformed",
            "no_session",
            "no_smart_client",
            "nothing_sent",
            "ordered",
            "overloaded",
            "queue_full",
            "slow_reader",
            "slow_request",
            "too_long",
            "truncated",
        ];
        reasons.extend(Unbelieved::ALL.map(Unbelieved::as_str));
        let help = "Requests and connections that were refused, and messages that were dropped, by reason";
        Self {
            requests: Requests::new(registry),
            reads: Counts::new(
                registry,
                "reads",
                "Groups of reads that were asked past the log, and how they were answered after all",
                "result",
                &["index", "log"],
            ),
            refused: Counts::new(registry, "refused", help, "reason", &reasons),
            signature_failures: Counts::new(
                registry,
                "signature_failures",
                "Replies without the signatures that they need, and requests that the servers did not accept as ours",
                "who",
                &["reply", "request"],
            ),
            endpoints: Endpoints::new(registry),
        }
    }
}

/// A running sender.
pub struct Running {
    /// The way to it.
    pub events: mpsc::Sender<Event>,
    /// What it shows.
    pub view: Arc<View>,
    /// What it opens sessions with.
    pub card: watch::Receiver<Option<Card>>,
    /// Its links.
    roster: Arc<Roster>,
    /// The next link's number.
    numbers: Arc<AtomicU64>,
    /// Its tasks, which end with this.
    _tasks: JoinSet<()>,
}

impl Running {
    /// The `peers` of `/status`.
    #[must_use]
    pub fn peers(&self) -> Vec<serde_json::Value> {
        self.roster.status()
    }

    /// From now on a SMaRtClient in this process is asked like any other: its number, and the questions for it. It answers
    /// with [`Event::Told`].
    pub async fn take_in(&self) -> (Endpoint, mpsc::Receiver<Asking>) {
        let endpoint = Endpoint(self.numbers.fetch_add(1, Ordering::Relaxed));
        self.roster.add_near(endpoint);
        let (queue, questions) = mpsc::channel(EVENTS);
        // The driver ends with this handle.
        let _ = self.events.send(Event::Up(endpoint, queue)).await;
        (endpoint, questions)
    }
}

/// What a running sender signs with, and what it asks of replies.
#[derive(Debug)]
pub struct Signing {
    /// Signs requests, if they are to be signed, and where the key comes from.
    signer: Option<(Arc<Signer>, Followed)>,
    /// Whether replies must be signed.
    replies: Signatures,
    /// So many servers must have signed one.
    vote: ReplyVote,
}

impl Signing {
    /// Reads what `endpoint` signs with from the files that its identity comes from.
    ///
    /// # Errors
    /// A file that is missing or cannot be used.
    pub fn load(
        endpoint: &net::Endpoint,
        files: &Files,
        (requests, replies): (Signatures, Signatures),
        vote: ReplyVote,
    ) -> Result<Self, NetError> {
        let signer = match requests {
            Signatures::Off => None,
            Signatures::Optional | Signatures::Required => {
                let followed = Followed::new(files);
                Some((Arc::new(Signer::load(files, endpoint)?), followed))
            }
        };
        Ok(Self { signer, replies, vote })
    }

    /// What it shows of itself.
    #[must_use]
    pub fn card(&self) -> Option<Card> {
        self.signer.as_ref().map(|(signer, _)| signer.card())
    }
}

/// Tells of every new set of authorities.
async fn follow_trust(mut trust: watch::Receiver<Arc<SignerTrust>>, events: mpsc::Sender<Event>) {
    while trust.changed().await.is_ok() {
        let new = trust.borrow_and_update().clone();
        if events.send(Event::Trust(new)).await.is_err() {
            return;
        }
    }
}

/// Starts a sender with a link to each of `smart_clients` (id where known, HOST:PORT); a call may take `patience`.
pub fn start(
    mut config: Config,
    patience: Duration,
    smart_clients: Vec<(Option<String>, String)>,
    endpoint: &net::Endpoint,
    signing: Signing,
    metrics: &Metrics,
) -> std::io::Result<Running> {
    let seed = crate::node::seed()?;
    let mut rng = Rng::from_seed(crate::node::seed()?[0]);
    let clock = Clock::start();
    let (events, inbox) = mpsc::channel(EVENTS);
    let view = Arc::new(View::default());
    let roster = Roster::new(metrics.endpoints.clone());
    let (cluster, trust) = (&endpoint.identity().cluster, endpoint.signer_trust());
    let (card, shown) = watch::channel(signing.card());
    let around = Around {
        clock,
        card,
        patience,
        calls: HashMap::new(),
        carried: HashMap::new(),
        pen: Pen::new(cluster, signing.signer.as_ref().map(|(signer, _)| signer.clone())),
        witness: Witness::new(cluster, signing.replies, signing.vote, trust.borrow().clone()),
        complained: None,
        queues: HashMap::new(),
        roster: roster.clone(),
        standings: 0,
        view: view.clone(),
        ready: Vec::new(),
        requests: metrics.requests.clone(),
        reads: metrics.reads.clone(),
        refused: metrics.refused.clone(),
        signature_failures: metrics.signature_failures.clone(),
    };
    let mut tasks = JoinSet::new();
    if signing.replies != Signatures::Off {
        tasks.spawn(follow_trust(trust, events.clone()));
    }
    config.doubts = signing.replies != Signatures::Off;
    // One server's word, which nobody has signed, is enough only where all who carry it are believed.
    config.reads &= signing.signer.is_none() && !config.doubts && signing.vote != ReplyVote::All;
    let mut sender = Sender::new(config, seed);
    if let Some((signer, followed)) = signing.signer {
        sender.step(clock.now(), Input::Signer(signer.card()), &mut Vec::new());
        tasks.spawn(followed.follow(endpoint.clone(), events.clone(), Event::Signer));
    }
    tasks.spawn(drive::drive(sender, around, clock, inbox));
    let numbers = Arc::new(AtomicU64::new(0));
    let keeper = Keeper {
        endpoint: endpoint.clone(),
        events: events.clone(),
        roster: roster.clone(),
        refused: metrics.refused.clone(),
        numbers: numbers.clone(),
    };
    for (id, address) in smart_clients {
        tasks.spawn(keeper.clone().keep(id, address, rng.fork()));
    }
    Ok(Running { events, view, card: shown, roster, numbers, _tasks: tasks })
}
