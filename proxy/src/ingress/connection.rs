//! One client's connection: requests in, answers out in the same order, however the cluster answers them.
//!
//! Everything that a client can make us hold is bounded: requests in flight by the window, its bytes by rooms that all
//! connections share, and a connection that has to wait for room is not read from. A connection without a request
//! holds no buffer at all.

use super::intake::{Cut, Intake};
use super::limits::Limits;
use super::patience::{Late, Patience, Standing};
use super::pipe::{LastWords, READ, part, read_some, write_some};
use super::room::{self, Admitted, FREE, Rooms, Share};
use bytes::{Buf, Bytes, BytesMut};
use mesh::client::running::Event;
use mesh::client::sender::{Answer, Connection, Refused};
use mesh::framing::{Adapter, Connections, FramingError, Handling, Manner, ReadOnly};
use mesh::node::counts::Counts;
use mesh::wire::client::Unknown;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;

/// Bytes of answers that wait for a slow reader: above this no further request is taken on.
const OUTPUT: usize = 256 << 10;
/// Bytes of answers that a connection may wait for, as far as their size can be told before.
const ANSWERS: usize = 1 << 20;
/// Requests on one connection that may be unanswered where the protocol lets clients pipeline.
pub(super) const WINDOW: u16 = 64;
/// When the ingress stops, a connection without a request has this long to bring another one: behind its reply the
/// connection ends, where the client sees it before it sends the next.
const PARTING: Duration = Duration::from_secs(1);

/// What all connections of an ingress share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The protocol.
    pub(super) adapter: Adapter,
    /// What changes nothing, if that is asked past the log.
    pub(super) read_only: Option<ReadOnly>,
    /// The way to the sender.
    pub(super) events: mpsc::Sender<Event>,
    /// What all connections may hold together.
    pub(super) rooms: Rooms,
    /// What one client may take.
    pub(super) limits: Limits,
    /// How long a request may wait for room.
    pub(super) deadline: Duration,
    /// What was refused, and why.
    pub(super) refused: Counts,
}

impl Shared {
    fn window(&self) -> usize {
        if self.adapter.closes_after_reply() { 1 } else { WINDOW.into() }
    }
}

/// How a connection ended, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Both sides said all they had to.
    Closed,
    /// The client's bytes made no sense.
    Malformed,
    /// An outcome is unknown, or a refusal cannot be said in the protocol.
    Unanswered,
    /// Half a request, and then nothing, or too little.
    SlowRequest,
    /// It did not read its answers.
    SlowReader,
    /// It asked for nothing for too long.
    Idle,
    /// The connection broke.
    Lost,
}

/// A place in the order of answers.
#[derive(Debug)]
enum Place {
    /// Answered here.
    Ready(Bytes),
    /// Answered by the cluster, with about so many bytes; and how the answer must be given.
    Waiting { answer: oneshot::Receiver<Answer>, expected: usize, manner: Manner },
}

/// Something that is waited for.
type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A request that is handed to the sender when there is room.
struct Admission {
    /// Resolves when it was handed over, to room for its answer.
    handing_over: Waiting<Option<Share>>,
    /// What its answer is taken for, if there is no room for that yet.
    lacks_for: usize,
    /// It waits no longer.
    until: Instant,
}

/// What woke a connection.
enum Woken {
    Stop,
    Written(io::Result<usize>),
    Answered(Answer),
    Admitted(Option<Share>),
    Reserved(Option<OwnedSemaphorePermit>),
    Read(io::Result<usize>),
    Late,
}

/// Serves one connection until it ends.
pub(super) async fn serve<R, W>(
    mut reader: R,
    mut writer: W,
    id: Connection,
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
) -> Ending
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + LastWords + Unpin,
{
    let mut conversation = Conversation::new(id, shared.clone(), stop);
    let ending = conversation.run(&mut reader, &mut writer).await;
    if conversation.called {
        // The sender lives as long as the process; if not, there is nobody to tell.
        let _ = shared.events.send(Event::Gone(id)).await;
    }
    let heard = conversation.intake.has_ended() && !conversation.quiet;
    drop(conversation);
    if !matches!(ending, Ending::Lost | Ending::SlowReader) {
        part(&mut reader, &mut writer, heard).await;
    }
    ending
}

/// Where one connection stands.
struct Conversation {
    id: Connection,
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
    intake: Intake,
    /// The client's silence, not its half-close, ended its side.
    quiet: bool,
    /// Room for the rest of a large request.
    large: Option<OwnedSemaphorePermit>,
    /// Waiting for that.
    reservation: Option<Waiting<Option<OwnedSemaphorePermit>>>,
    /// Answers to come, in order.
    places: VecDeque<Place>,
    /// About how many bytes they have.
    expected: usize,
    /// About how many the next one will have, after the first.
    learned: Option<usize>,
    /// Answers that are there, in order.
    answers: VecDeque<Bytes>,
    /// Those of them that are being written, together.
    output: BytesMut,
    /// Bytes of both.
    unread: usize,
    /// Room for what is to come and what is there.
    share: Share,
    /// A request that there was no room for.
    admission: Option<Admission>,
    /// The ingress stops: the connection ends between two requests, by then.
    parting: Option<Instant>,
    /// No further request is cut; the connection ends when every answer was written, and like this.
    ending: Option<Ending>,
    patience: Patience,
    /// Whether the sender knows of this connection.
    called: bool,
    /// Whether a transaction is open on it.
    transaction: bool,
}

impl Conversation {
    fn new(id: Connection, shared: Arc<Shared>, stop: watch::Receiver<bool>) -> Self {
        Self {
            id,
            stop,
            intake: Intake::new(shared.adapter),
            quiet: false,
            large: None,
            reservation: None,
            places: VecDeque::new(),
            expected: 0,
            learned: None,
            answers: VecDeque::new(),
            output: BytesMut::new(),
            unread: 0,
            share: Share::new(shared.rooms.answers.clone()),
            admission: None,
            parting: None,
            ending: None,
            patience: Patience::new(shared.limits, Instant::now()),
            called: false,
            transaction: false,
            shared,
        }
    }

    async fn run<R, W>(&mut self, reader: &mut R, writer: &mut W) -> Ending
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + LastWords + Unpin,
    {
        if *self.stop.borrow_and_update() {
            self.parting = Some(Instant::now() + PARTING);
        }
        let mut held_back = false;
        loop {
            self.take_requests();
            self.collect_answers();
            self.settle();
            if let Some(ending) = self.over() {
                return ending;
            }
            if self.ending.is_some() && self.places.is_empty() && !std::mem::replace(&mut held_back, true) {
                writer.hold_back();
            }
            match self.wait(reader, writer).await {
                Woken::Stop => self.parting = Some(Instant::now() + PARTING),
                Woken::Answered(answer) => self.on_answer(answer),
                Woken::Admitted(share) => self.on_admitted(share),
                Woken::Reserved(room) => (self.large, self.reservation) = (room, None),
                Woken::Written(Ok(taken)) if taken > 0 => self.on_written(taken),
                Woken::Read(Ok(0)) => self.intake.end(),
                Woken::Read(Ok(_)) => self.patience.on_read(Instant::now()),
                Woken::Written(_) | Woken::Read(Err(_)) => return Ending::Lost,
                Woken::Late => {
                    if let Some(ending) = self.late() {
                        return ending;
                    }
                }
            }
        }
    }

    /// The one place where a connection waits.
    async fn wait<R, W>(&mut self, reader: &mut R, writer: &mut W) -> Woken
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let reads = self.reads();
        let writes = !self.output.is_empty();
        let limit = self.limit();
        let deaf = (!reads && self.patience.has_partial()).then(Instant::now);
        let most = if self.large.is_some() { READ } else { FREE.saturating_sub(self.intake.length()) };
        let front = match self.places.front_mut() {
            Some(Place::Waiting { answer, .. }) => Some(answer),
            _ => None,
        };
        let answers = front.is_some();
        let (admits, reserves) = (self.admission.is_some(), self.reservation.is_some());
        let woken = tokio::select! {
            biased;
            written = write_some(writer, &self.output), if writes => Woken::Written(written),
            answer = answered(front), if answers => Woken::Answered(answer),
            share = granted(self.admission.as_mut().map(|waits| &mut waits.handing_over)), if admits => Woken::Admitted(share),
            room = granted(self.reservation.as_mut()), if reserves => Woken::Reserved(room),
            read = read_some(reader, most, &mut self.intake), if reads => Woken::Read(read),
            _ = self.stop.changed(), if self.parting.is_none() => Woken::Stop,
            () = until(limit), if limit.is_some() => Woken::Late,
        };
        if let Some(since) = deaf {
            self.patience.did_not_read(since.elapsed());
        }
        woken
    }

    /// Whether another request may be taken on.
    fn may_take(&self) -> bool {
        self.ending.is_none()
            && self.admission.is_none()
            && self.places.len() < self.shared.window()
            && self.unread < OUTPUT
            && self.expected + self.unread < ANSWERS
    }

    /// Whether the client's bytes are taken.
    fn reads(&self) -> bool {
        self.may_take() && self.reservation.is_none() && !self.intake.has_ended()
    }

    /// Cuts and hands on what may be taken on.
    fn take_requests(&mut self) {
        while self.may_take() {
            match self.intake.cut() {
                Ok(Cut::Request(request)) => {
                    self.patience.on_request();
                    self.take(request);
                }
                Ok(Cut::More) => {
                    self.patience.on_partial(Instant::now(), self.intake.is_partial());
                    return self.reserve();
                }
                Ok(Cut::Interim(words)) => self.places.push_back(Place::Ready(words)),
                Ok(Cut::End) => self.end(Ending::Closed),
                Err(error) => self.refuse_bytes(&error),
            }
        }
    }

    /// Half a request that becomes large needs room for all that may come of it, before more of it is read: whoever has
    /// room can go on to its end.
    fn reserve(&mut self) {
        if self.intake.length() >= FREE && self.large.is_none() && self.reservation.is_none() {
            self.reservation = Some(Box::pin(self.shared.rooms.clone().large(self.shared.adapter.request_bytes)));
        }
    }

    /// One whole request.
    fn take(&mut self, request: Bytes) {
        // Of the room that was reserved it keeps what it needs.
        let large = self.large.take().and_then(|mut room| {
            let keep = request.len().min(room.num_permits());
            room.split(keep)
        });
        let adapter = self.shared.adapter;
        let manner = adapter.manner(&request);
        self.transaction = adapter.in_transaction(self.transaction, &request);
        match adapter.handle(&request) {
            Handling::Order => self.call(request, manner, large),
            Handling::OrderAs(normal) => self.call(normal, manner, large),
            Handling::Local(reply) => self.places.push_back(Place::Ready(reply)),
            Handling::LocalThenClose(reply) => {
                self.places.push_back(Place::Ready(reply));
                self.end(Ending::Closed);
            }
            Handling::Refuse(error) => {
                self.shared.refused.count("command");
                self.places.push_back(Place::Ready(error));
                if self.transaction {
                    // The application knows nothing of it and would execute the others: it must not come to that.
                    self.end(Ending::Unanswered);
                }
            }
        }
        if manner.last {
            self.end(Ending::Closed);
        }
    }

    /// About how many bytes the next answer will have. A new connection's first request is on its own account, so that
    /// new clients get in whatever others hold; more of them at once are taken for the worst.
    fn next_expected(&self) -> usize {
        match self.learned {
            Some(learned) => learned,
            None if self.expected == 0 => FREE,
            None => self.shared.rooms.answers.largest_of_late(),
        }
    }

    /// Gives a request to the sender, now or when there is room.
    fn call(&mut self, bytes: Bytes, manner: Manner, large: Option<OwnedSemaphorePermit>) {
        self.called = true;
        let connection = self.id;
        let (answer, waiting) = oneshot::channel();
        let expected = self.next_expected();
        let lacks = self.share.lacks(self.expected + expected + self.unread);
        self.places.push_back(Place::Waiting { answer: waiting, expected, manner });
        self.expected += expected;
        let rooms = self.shared.rooms.clone();
        let events = self.shared.events.clone();
        let adapter = &self.shared.adapter;
        let read = self.shared.read_only.as_ref().is_some_and(|read_only| read_only.is_read(adapter, &bytes));
        let handing_on = move |admitted: Admitted| {
            let (bytes, share) = room::held(bytes, admitted, large);
            (Event::Call { connection, bytes, read, answer }, share)
        };
        let until = Instant::now() + self.shared.deadline;
        let admission = match rooms.try_admit(lacks) {
            Some(admitted) => {
                let (event, share) = handing_on(admitted);
                self.share.join(share);
                let Err(mpsc::error::TrySendError::Full(event)) = events.try_send(event) else { return };
                let handing_over = async move { events.send(event).await.ok().and(None) };
                Admission { handing_over: Box::pin(handing_over), lacks_for: 0, until }
            }
            None => {
                let handing_over = async move {
                    let (event, share) = handing_on(rooms.admit(lacks).await?);
                    events.send(event).await.ok()?;
                    Some(share)
                };
                Admission { handing_over: Box::pin(handing_over), lacks_for: expected, until }
            }
        };
        self.admission = Some(admission);
    }

    fn on_admitted(&mut self, share: Option<Share>) {
        self.admission = None;
        if let Some(share) = share {
            self.share.join(share);
        }
    }

    /// There was no room for the newest request for as long as it may take: it was not run.
    fn turn_down(&mut self) {
        self.admission = None;
        self.shared.refused.count("overloaded");
        let (told, answer) = oneshot::channel();
        // The other end is right here.
        let _ = told.send(Answer::Refused(Refused::Overloaded));
        if let Some(Place::Waiting { expected, manner, .. }) = self.places.pop_back() {
            self.expected -= expected;
            self.places.push_back(Place::Waiting { answer, expected: 0, manner });
        }
    }

    /// The client's bytes are no request: what came before is answered, then it is told, then the connection ends.
    fn refuse_bytes(&mut self, error: &FramingError) {
        self.shared.refused.count(match error {
            FramingError::TooLong { .. } => "too_long",
            FramingError::Malformed(_) => "malformed",
            FramingError::Truncated => "truncated",
        });
        if let Some(text) = self.shared.adapter.protocol_error(error) {
            self.places.push_back(Place::Ready(text));
        }
        self.end(Ending::Malformed);
    }

    /// Takes all answers that are there, in order, and moves what fits to the output.
    fn collect_answers(&mut self) {
        while let Some(place) = self.places.front_mut() {
            let answer = match place {
                Place::Waiting { answer, .. } => answer.try_recv(),
                Place::Ready(reply) => {
                    let reply = std::mem::take(reply);
                    self.places.pop_front();
                    self.write(reply);
                    self.end_if_parting();
                    continue;
                }
            };
            match answer {
                Ok(answer) => self.on_answer(answer),
                Err(oneshot::error::TryRecvError::Empty) => break,
                Err(oneshot::error::TryRecvError::Closed) => self.on_answer(Answer::Unknown(Unknown::Lost)),
            }
        }
        while self.output.len() < OUTPUT
            && let Some(reply) = self.answers.pop_front()
        {
            if self.output.is_empty() {
                // The usual case, one reply, is not copied where nobody else holds it.
                self.output = BytesMut::from(reply);
            } else {
                self.output.extend_from_slice(&reply);
            }
        }
    }

    /// The answer to the oldest request.
    fn on_answer(&mut self, answer: Answer) {
        let Some(Place::Waiting { expected, mut manner, .. }) = self.places.pop_front() else { return };
        self.expected -= expected;
        if let Answer::Reply(reply) = &answer {
            let before = self.learned.unwrap_or(0);
            self.learned = Some(self.shared.rooms.answers.next_expected(before, reply.len()));
        }
        self.end_if_parting();
        manner.last |= self.ending.is_some() && self.places.is_empty();
        let adapter = self.shared.adapter;
        match answer {
            Answer::Reply(reply) => self.write(adapter.deliver(manner, reply)),
            Answer::Refused(why) => match adapter.refusal(manner, &why.to_string()) {
                Some(error) => {
                    self.write(error);
                    // What it was to do to the connection (`SELECT`, `MULTI`) is missing for what follows.
                    if adapter.connections == Connections::PerSession {
                        self.end(Ending::Unanswered);
                    }
                }
                None => return self.give_up(),
            },
            Answer::Unknown(why) => {
                if let Some(words) = adapter.unknown(manner, &why.to_string()) {
                    self.write(words);
                }
                return self.give_up();
            }
        }
        if self.shared.adapter.closes_after_reply() {
            self.end(Ending::Closed);
        }
    }

    /// Behind an answer, when the ingress stops: the connection ends, unless the client's next request is on its way.
    fn end_if_parting(&mut self) {
        let Some(until) = self.parting.filter(|_| self.ending.is_none() && self.places.is_empty()) else { return };
        if !self.intake.is_partial() || until <= Instant::now() {
            self.end(Ending::Closed);
        }
    }

    /// The oldest request gets no answer, and so none of the later ones can have one.
    fn give_up(&mut self) {
        self.places.clear();
        self.expected = 0;
        self.admission = None;
        self.end(Ending::Unanswered);
    }

    /// No further request is cut.
    fn end(&mut self, ending: Ending) {
        self.intake.discard();
        (self.large, self.reservation) = (None, None);
        self.patience.on_request();
        self.ending = Some(ending);
    }

    /// How the connection ended, when everything was said.
    fn over(&self) -> Option<Ending> {
        self.ending.filter(|_| self.places.is_empty() && self.unread == 0 && self.admission.is_none())
    }

    fn write(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.unread += bytes.len();
        self.patience.on_output(Instant::now());
        self.answers.push_back(bytes);
    }

    fn on_written(&mut self, taken: usize) {
        self.output.advance(taken);
        self.unread -= taken;
        self.patience.on_taken(Instant::now(), taken, self.unread == 0);
        if self.output.is_empty() {
            self.output = BytesMut::new();
        }
    }

    /// Room for what is to come and what is there, and not for what still waits for room.
    fn settle(&mut self) {
        let waits = self.admission.as_ref().map_or(0, |admission| admission.lacks_for);
        self.share.settle(self.expected.saturating_sub(waits), self.unread);
    }

    fn standing(&self) -> Standing {
        let owes = !self.places.is_empty() || self.unread > 0;
        Standing {
            reads: self.reads(),
            is_idle: self.ending.is_none() && !owes && !self.intake.is_partial(),
            is_tight: self.shared.rooms.answers.is_tight(),
        }
    }

    /// When something is late.
    fn limit(&self) -> Option<Instant> {
        let patience = self.patience.limit(Instant::now(), self.standing());
        let admission = self.admission.as_ref().map(|admission| admission.until);
        let parting = self.parting.filter(|_| self.ending.is_none() && self.places.is_empty());
        patience.into_iter().chain(admission).chain(parting).min()
    }

    /// Something is late: what.
    fn late(&mut self) -> Option<Ending> {
        let now = Instant::now();
        if self.admission.as_ref().is_some_and(|admission| admission.until <= now) {
            self.turn_down();
        }
        if self.parting.is_some_and(|until| until <= now) && self.ending.is_none() && self.places.is_empty() {
            self.end(Ending::Closed);
        }
        let refused = &self.shared.refused;
        match self.patience.late(now, self.standing())? {
            Late::SlowReader => {
                refused.count("slow_reader");
                return Some(Ending::SlowReader);
            }
            Late::SlowRequest => {
                refused.count("slow_request");
                self.end(Ending::SlowRequest);
            }
            Late::Idle => {
                refused.count("idle_timeout");
                self.end(Ending::Idle);
            }
            Late::Quiet => {
                self.intake.end();
                self.quiet = true;
            }
            Late::Look => {}
        }
        None
    }
}

/// What was waited for.
async fn granted<T>(waiting: Option<&mut Waiting<T>>) -> T {
    match waiting {
        Some(waiting) => waiting.as_mut().await,
        None => std::future::pending().await,
    }
}

/// The answer at the front; a sender that went away without one leaves the outcome unknown.
async fn answered(front: Option<&mut oneshot::Receiver<Answer>>) -> Answer {
    match front {
        Some(answer) => answer.await.unwrap_or(Answer::Unknown(Unknown::Lost)),
        None => std::future::pending().await,
    }
}

async fn until(limit: Option<Instant>) {
    match limit {
        Some(limit) => tokio::time::sleep_until(limit).await,
        None => std::future::pending().await,
    }
}
