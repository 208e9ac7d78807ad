//! Links that are kept: dialled, served, dialled again with growing, jittered pauses.
//!
//! Every link that comes up gets a queue of its own, which is handed to the driver and dies with the link: nothing of
//! an old link is ever sent over a new one without the protocol's wish. A link that is due is replaced while it works:
//! the new one is up before the driver lets go of the old one's queue, and the old one ends when it has been answered.

use super::{Backoff, Endpoint, Link, LinkKind, LinkLimits};
use crate::wire::Tag;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, sleep_until, timeout_at};
use tracing::{debug, info, warn};

/// Messages that may be on their way over a link: just above what really is.
const STREAMS: u32 = 256;
/// Questions that may wait for their answers over one link. What is more waits in its queue.
pub(super) const ASKED: usize = 512;
/// Questions that may wait in the queue of a link.
const QUEUE: usize = 16_384;
/// A link that lived this long was a good one: the pauses start again from the first.
const LIVED: Duration = Duration::from_secs(5);
/// One attempt to dial may take this long.
const DIAL: Duration = Duration::from_secs(5);
/// One attempt at an end that was linked before and is not far: most likely it is being started again. QUIC asks a silent
/// end more and more rarely, so a new attempt finds it sooner.
const DIAL_AGAIN: Duration = Duration::from_millis(500);
/// So many round trips fit into one attempt.
const DIAL_ROUND_TRIPS: u32 = 20;

/// Questions that are taken from the queue at once.
const TAKEN: usize = 64;
/// Between two looks for questions that nobody waits for any more.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// How long an old link, asked nothing any more, is listened to: votes come without a question.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// The bounds of every link of these processes.
#[must_use]
pub const fn limits(max_age: Duration) -> LinkLimits {
    LinkLimits {
        message_bytes: crate::limits::Limits::DEFAULT.message_bytes,
        uni_streams: STREAMS,
        // Nothing is asked on a stream of both directions.
        bidi_streams: 1,
        max_age,
    }
}

/// A question for the other end of a link.
pub trait Question: Send + 'static {
    /// The request that it is about; none: it is no question, and has no answer.
    fn tag(&self) -> Option<Tag>;
    /// Its bytes on the wire.
    fn encode(&self) -> Bytes;
    /// When nobody waits for the answer any more.
    fn until(&self) -> Instant;
}

/// What a kept link means to the driver that uses it.
pub trait Line: Send + Sync + 'static {
    /// What is asked over it.
    type Question: Question;
    /// What the driver is told.
    type Event: Send + 'static;
    /// It came up; questions go into `queue`.
    fn up(&self, queue: mpsc::Sender<Self::Question>) -> Self::Event;
    /// It is gone.
    fn down(&self) -> Self::Event;
    /// A message came; the questions that it answers are named to `answered`. None: nothing that the driver must know.
    fn received(&self, message: Bytes, answered: &mut dyn FnMut(&Tag)) -> Option<Self::Event>;
}

/// Whom a link is kept to.
#[derive(Clone, Debug)]
pub struct Target {
    /// What the link is for.
    pub kind: LinkKind,
    /// HOST:PORT, resolved anew at every attempt.
    pub address: String,
    /// The only acceptable id of the other end, where it is known.
    pub id: Option<String>,
}

/// How a kept link stands, for `/status`.
#[derive(Debug)]
pub struct Standing {
    kind: LinkKind,
    id: Option<String>,
    state: Mutex<State>,
    /// The other end may be elsewhere: no reason to wait before the next attempt.
    found: Notify,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// HOST:PORT, the likeliest first.
    addresses: Vec<String>,
    /// The round trip when it was linked last.
    rtt: Option<Duration>,
    /// Id and address of the other end while the link is up.
    up: Option<(String, String)>,
    error: Option<String>,
}

impl Standing {
    /// Of a link that was never up.
    pub fn new(target: Target) -> Arc<Self> {
        let Target { kind, address, id } = target;
        let state = State { addresses: vec![address], ..State::default() };
        Arc::new(Self { kind, id, state: Mutex::new(state), found: Notify::new() })
    }

    /// The address that is dialled first.
    #[must_use]
    pub fn address(&self) -> String {
        self.state().addresses.first().cloned().unwrap_or_default()
    }

    /// From now on these are dialled, the likeliest first.
    pub fn found_at(&self, addresses: Vec<String>) {
        let mut state = self.state();
        if state.addresses != addresses {
            state.addresses = addresses;
            drop(state);
            self.found.notify_one();
        }
    }

    /// There is no link: the other end is in this process, and up as long as it lasts.
    pub(crate) fn is_near(&self) {
        let mut state = self.state();
        state.up = Some((String::new(), state.addresses.concat()));
    }

    /// Whether the link is up.
    pub fn is_up(&self) -> bool {
        self.state().up.is_some()
    }

    /// The `peers` entry of `/status`.
    pub fn status(&self) -> Value {
        let state = self.state().clone();
        let (id, remote) = state.up.clone().unzip();
        json!({
            "address": state.addresses.first(),
            "id": id.or_else(|| self.id.clone()),
            "remote": remote,
            "up": state.up.is_some(),
            "error": state.error,
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn came_up(&self, link: &Link) {
        let at = link.remote_address();
        let at = SocketAddr::new(at.ip().to_canonical(), at.port());
        let remote = (link.peer().id.clone(), at.to_string());
        info!(remote = %remote.1, id = %remote.0, "link is up");
        let mut state = self.state();
        (state.up, state.error) = (Some(remote), None);
    }

    fn went_down(&self, reason: String, rtt: Duration) {
        warn!(target = %self.address(), %reason, "link is gone; dialling again");
        let mut state = self.state();
        (state.up, state.error, state.rtt) = (None, Some(reason), Some(rtt));
    }

    /// Says why an attempt failed, loudly only when the reason is news.
    fn not_reached(&self, reason: String) {
        let mut state = self.state();
        let target = state.addresses.join(" or ");
        if state.error.as_ref() == Some(&reason) {
            debug!(target, %reason, "not reached");
        } else {
            warn!(target, %reason, "not reached; trying again");
            state.error = Some(reason);
        }
    }

    /// One attempt, at every address that is known by now.
    async fn dial(&self, endpoint: &Endpoint) -> Result<Link, String> {
        let (addresses, rtt) = {
            let state = self.state();
            (state.addresses.clone(), state.rtt)
        };
        // Each address has its turn within it.
        let several = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let again = |rtt: Duration| (rtt * DIAL_ROUND_TRIPS).max(DIAL_AGAIN).saturating_mul(several).min(DIAL);
        let patience = rtt.map_or(DIAL, again);
        match tokio::time::timeout(patience, endpoint.dial_any(self.kind, &addresses, self.id.as_deref())).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(error)) => Err(error.to_string()),
            // No number: it is news once only.
            Err(_) => Err("no answer".to_owned()),
        }
    }
}

/// Keeps a link to the target of `standing` until the driver's end of `events` is gone.
pub async fn keep<L: Line>(
    line: L,
    endpoint: Endpoint,
    standing: Arc<Standing>,
    events: mpsc::Sender<L::Event>,
    mut pauses: Backoff,
) {
    let line = Arc::new(line);
    loop {
        match standing.dial(&endpoint).await {
            Ok(link) => {
                let (since, rtt) = (Instant::now(), link.rtt());
                standing.came_up(&link);
                let reason = serve(&line, link, &endpoint, &standing, &events, pauses.clone()).await;
                standing.went_down(reason, rtt);
                if events.send(line.down()).await.is_err() {
                    return;
                }
                if since.elapsed() >= LIVED {
                    pauses.reset();
                }
            }
            Err(reason) => standing.not_reached(reason),
        }
        if events.is_closed() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pauses.next_delay()) => {}
            () = standing.found.notified() => {}
        }
    }
}

/// Serves a link, and those that replace it, until there is none; returns why not.
async fn serve<L: Line>(
    line: &Arc<L>,
    link: Link,
    endpoint: &Endpoint,
    standing: &Standing,
    events: &mpsc::Sender<L::Event>,
    pauses: Backoff,
) -> String {
    let Some(mut serving) = Serving::begin(line, link, events).await else { return "stopping".to_owned() };
    loop {
        let old = serving.link.clone();
        let newer = tokio::select! {
            reason = serving.ended() => return reason,
            newer = replacement(endpoint, standing, &old, pauses.clone()) => newer,
        };
        standing.came_up(&newer);
        let Some(next) = Serving::begin(line, newer, events).await else { return "stopping".to_owned() };
        std::mem::replace(&mut serving, next).leave();
    }
}

/// A new link in the place of one that is due.
async fn replacement(endpoint: &Endpoint, standing: &Standing, old: &Link, mut pauses: Backoff) -> Link {
    old.due().await;
    loop {
        match standing.dial(endpoint).await {
            Ok(link) => return link,
            Err(reason) => debug!(target = %standing.address(), %reason, "no new link yet in the place of an old one"),
        }
        tokio::time::sleep(pauses.next_delay()).await;
    }
}

/// A link and the task that serves it, which ends with this.
struct Serving {
    link: Link,
    task: Option<JoinHandle<String>>,
}

impl Serving {
    /// None: the driver is gone.
    async fn begin<L: Line>(line: &Arc<L>, link: Link, events: &mpsc::Sender<L::Event>) -> Option<Self> {
        let (queue, questions) = mpsc::channel(QUEUE);
        if events.send(line.up(queue)).await.is_err() {
            link.close("stopping");
            return None;
        }
        let task = tokio::spawn(hold(line.clone(), link.clone(), events.clone(), questions));
        Some(Self { link, task: Some(task) })
    }

    /// Why the link is gone.
    async fn ended(&mut self) -> String {
        match &mut self.task {
            Some(task) => task.await.unwrap_or_else(|_| "its task ended".to_owned()),
            None => std::future::pending().await,
        }
    }

    /// Lets the link come to its end by itself: its queue has been replaced.
    fn leave(mut self) {
        self.task = None;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Serves one link until it is gone, or until its queue is and everything was answered; returns why.
async fn hold<L: Line>(
    line: Arc<L>,
    link: Link,
    events: mpsc::Sender<L::Event>,
    questions: mpsc::Receiver<L::Question>,
) -> String {
    let reason = tokio::select! {
        reason = link.closed() => return reason,
        reason = talk(&line, &link, &events, questions) => reason,
    };
    link.close(&reason);
    reason
}

/// Asks what the queue holds, each question on a stream of its own, as many at a time as may be, and hands on what comes.
/// Returns when the link is gone, or the queue is and every question was answered or nobody waits for it any more.
async fn talk<L: Line>(
    line: &Arc<L>,
    link: &Link,
    events: &mpsc::Sender<L::Event>,
    mut questions: mpsc::Receiver<L::Question>,
) -> String {
    let mut asked = Asked::new(link);
    let mut sweep = interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut taken = Vec::with_capacity(TAKEN);
    let (mut open, mut ends) = (true, None);
    loop {
        let (waits, room) = (!asked.is_empty(), asked.room().min(TAKEN));
        if !open && !waits && ends.is_none() {
            ends = Some(Instant::now() + LAST_WORDS);
        }
        tokio::select! {
            biased;
            message = link.receive() => match message {
                Ok(message) => {
                    let event = line.received(message, &mut |tag| asked.answered(tag));
                    if let Some(event) = event
                        && events.send(event).await.is_err()
                    {
                        return "stopping".to_owned();
                    }
                }
                Err(error) => return error.to_string(),
            },
            count = questions.recv_many(&mut taken, room), if open && room > 0 => {
                open = count > 0;
                let now = Instant::now();
                taken.drain(..).filter(|question| question.until() > now).for_each(|question| asked.ask(&question));
            }
            Some(()) = asked.slow.next(), if !asked.slow.is_empty() => {}
            now = sweep.tick(), if waits => asked.give_up(now),
            () = sleep_until(ends.unwrap_or_else(Instant::now)), if ends.is_some() => {
                return "replaced by a newer link".to_owned();
            }
        }
    }
}

/// The questions of a link that wait for their answers.
struct Asked<'a> {
    link: &'a Link,
    /// Each with when nobody waits for it any more.
    waiting: HashMap<Tag, Instant>,
    /// What could not go at once, which is hardly ever so: it waits for credit or room.
    slow: FuturesUnordered<BoxFuture<'a, ()>>,
}

impl<'a> Asked<'a> {
    fn new(link: &'a Link) -> Self {
        Self { link, waiting: HashMap::new(), slow: FuturesUnordered::new() }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.slow.is_empty()
    }

    /// So many more may be asked.
    fn room(&self) -> usize {
        ASKED.saturating_sub(self.waiting.len().max(self.slow.len()))
    }

    fn ask(&mut self, question: &impl Question) {
        let (until, message) = (question.until(), question.encode());
        if let Some(tag) = question.tag() {
            self.waiting.insert(tag, until);
        }
        if let Err(message) = self.link.send_now(message) {
            let link = self.link;
            self.slow.push(Box::pin(async move {
                // What is not sent is nothing to report: the protocol asks again in its own time.
                let _ = timeout_at(until, link.send(message)).await;
            }));
        }
    }

    fn answered(&mut self, tag: &Tag) {
        self.waiting.remove(tag);
    }

    /// Nobody waits any more for what is due by now.
    fn give_up(&mut self, now: Instant) {
        self.waiting.retain(|_, until| *until > now);
    }
}
