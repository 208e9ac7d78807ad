//! One client's connection: requests in, answers out in the same order, however the cluster answers them.
//!
//! Everything that a client can make us hold is bounded: requests in flight by the window, bytes of requests by a
//! budget of the whole process, bytes of answers by a mark above which no further request is read. A connection
//! without a request holds no buffer at all.

use super::intake::{Cut, Intake};
use crate::metrics::Counts;
use crate::sender::Event;
use bytes::{Buf, Bytes, BytesMut};
use mesh::client::sender::{Answer, Connection};
use mesh::framing::{Adapter, FramingError, Handling, Manner};
use mesh::wire::client::Unknown;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

/// Bytes of answers that wait for a slow reader: above this no further request is read and no further answer taken.
const OUTPUT: usize = 256 << 10;
/// Bytes taken from a connection at once.
const READ: usize = 64 << 10;
/// Requests up to this size are bounded by their number alone; larger ones take from the budget.
const SMALL: usize = 4 << 10;
/// Requests on one connection that may be unanswered where the protocol lets clients pipeline.
pub(super) const WINDOW: u16 = 64;
/// After our last word, what the client still sends is read and dropped for this long, and at most this many bytes:
/// closing at once would make the kernel reset the connection and the last words be lost.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// What all connections of an ingress share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The protocol.
    pub(super) adapter: Adapter,
    /// The way to the sender.
    pub(super) events: mpsc::Sender<Event>,
    /// Bytes of large requests that may be held.
    pub(super) budget: Arc<Semaphore>,
    /// How long half a request, or an answer that is not read, may stand still.
    pub(super) patience: Duration,
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
    /// Half a request, and then nothing.
    SlowRequest,
    /// It did not read its answers.
    SlowReader,
    /// The connection broke.
    Lost,
}

/// A place in the order of answers.
#[derive(Debug)]
enum Place {
    /// Answered here.
    Ready(Bytes),
    /// Answered by the cluster; how the answer must be given.
    Waiting(Manner, oneshot::Receiver<Answer>),
}

/// Handing a request to the sender while there is no room: resolves when it was handed over.
type Admission = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What woke a connection.
enum Woken {
    Stop,
    Written(io::Result<usize>),
    Answered(Answer),
    Admitted,
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
    W: AsyncWrite + Unpin,
{
    let mut conversation = Conversation::new(id, shared.clone(), stop);
    let ending = conversation.run(&mut reader, &mut writer).await;
    if conversation.called {
        // The sender lives as long as the process; if not, there is nobody to tell.
        let _ = shared.events.send(Event::Gone(id)).await;
    }
    let heard = conversation.intake.has_ended();
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
    /// Answers to come, in order.
    places: VecDeque<Place>,
    /// Answers to write.
    output: BytesMut,
    /// A request that there was no room for.
    admission: Option<Admission>,
    /// No further request is cut; the connection ends when every answer was written, and like this.
    ending: Option<Ending>,
    /// Since when half a request waits for its rest.
    partial_since: Option<Instant>,
    /// When the client last took something of what waits for it.
    output_moved: Instant,
    /// Whether the sender knows of this connection.
    called: bool,
}

impl Conversation {
    fn new(id: Connection, shared: Arc<Shared>, stop: watch::Receiver<bool>) -> Self {
        Self {
            id,
            intake: Intake::new(shared.adapter),
            shared,
            stop,
            places: VecDeque::new(),
            output: BytesMut::new(),
            admission: None,
            ending: None,
            partial_since: None,
            output_moved: Instant::now(),
            called: false,
        }
    }

    async fn run<R, W>(&mut self, reader: &mut R, writer: &mut W) -> Ending
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if *self.stop.borrow_and_update() {
            return Ending::Closed;
        }
        loop {
            self.take_requests();
            self.collect_answers();
            if let Some(ending) = self.over() {
                return ending;
            }
            match self.wait(reader, writer).await {
                Woken::Stop => self.end(Ending::Closed),
                Woken::Answered(answer) => self.on_answer(answer),
                Woken::Admitted => self.admission = None,
                Woken::Written(Ok(taken)) if taken > 0 => self.on_written(taken),
                Woken::Read(Ok(0)) => self.intake.end(),
                Woken::Read(Ok(_)) => {}
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
        let reads = self.may_take() && !self.intake.has_ended();
        let writes = !self.output.is_empty();
        let limit = self.limit(reads);
        let roomy = self.output.len() < OUTPUT;
        let front = match self.places.front_mut() {
            Some(Place::Waiting(_, answer)) if roomy => Some(answer),
            _ => None,
        };
        let answers = front.is_some();
        let admits = self.admission.is_some();
        tokio::select! {
            biased;
            written = write_some(writer, &self.output), if writes => Woken::Written(written),
            answer = answered(front), if answers => Woken::Answered(answer),
            () = admitted(&mut self.admission), if admits => Woken::Admitted,
            read = read_some(reader, &mut self.intake), if reads => Woken::Read(read),
            _ = self.stop.changed(), if self.ending.is_none() => Woken::Stop,
            () = until(limit), if limit.is_some() => Woken::Late,
        }
    }

    /// Whether another request may be taken on.
    fn may_take(&self) -> bool {
        self.ending.is_none()
            && self.admission.is_none()
            && self.places.len() < self.shared.window()
            && self.output.len() < OUTPUT
    }

    /// Cuts and hands on what may be taken on.
    fn take_requests(&mut self) {
        while self.may_take() {
            match self.intake.cut() {
                Ok(Cut::Request(request)) => {
                    self.partial_since = None;
                    self.take(request);
                }
                Ok(Cut::More) => {
                    if !self.intake.is_partial() {
                        self.partial_since = None;
                    } else if self.partial_since.is_none() {
                        self.partial_since = Some(Instant::now());
                    }
                    return;
                }
                Ok(Cut::Interim(words)) => self.places.push_back(Place::Ready(words)),
                Ok(Cut::End) => self.end(Ending::Closed),
                Err(error) => self.refuse_bytes(&error),
            }
        }
    }

    /// One whole request.
    fn take(&mut self, request: Bytes) {
        let adapter = self.shared.adapter;
        let manner = adapter.manner(&request);
        match adapter.handle(&request) {
            Handling::Order => self.call(request, manner),
            Handling::OrderAs(normal) => self.call(normal, manner),
            Handling::Local(reply) => self.places.push_back(Place::Ready(reply)),
            Handling::LocalThenClose(reply) => {
                self.places.push_back(Place::Ready(reply));
                self.end(Ending::Closed);
            }
            Handling::Refuse(error) => {
                self.shared.refused.count("command");
                self.places.push_back(Place::Ready(error));
            }
        }
        if manner.last {
            self.end(Ending::Closed);
        }
    }

    /// Gives a request to the sender, now or when there is room.
    fn call(&mut self, request: Bytes, manner: Manner) {
        self.called = true;
        let (answer, waiting) = oneshot::channel();
        self.places.push_back(Place::Waiting(manner, waiting));
        let connection = self.id;
        let cost = u32::try_from(request.len()).unwrap_or(u32::MAX);
        let budget = self.shared.budget.clone();
        let events = self.shared.events.clone();
        if request.len() <= SMALL {
            let Err(mpsc::error::TrySendError::Full(event)) =
                self.shared.events.try_send(Event::Call { connection, bytes: request, answer })
            else {
                return;
            };
            self.admission = Some(Box::pin(async move {
                let _ = events.send(event).await;
            }));
            return;
        }
        self.admission = Some(Box::pin(async move {
            // Neither the budget nor the sender goes away before the process does.
            let Ok(permit) = budget.acquire_many_owned(cost).await else { return };
            let bytes = Bytes::from_owner(Budgeted { bytes: request, _permit: permit });
            let _ = events.send(Event::Call { connection, bytes, answer }).await;
        }));
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

    /// Moves answers that are there to the output, in order.
    fn collect_answers(&mut self) {
        while self.output.len() < OUTPUT {
            match self.places.front_mut() {
                Some(Place::Ready(_)) => {
                    if let Some(Place::Ready(reply)) = self.places.pop_front() {
                        self.write(reply);
                    }
                }
                Some(Place::Waiting(_, answer)) => match answer.try_recv() {
                    Ok(answer) => self.on_answer(answer),
                    Err(oneshot::error::TryRecvError::Empty) => return,
                    Err(oneshot::error::TryRecvError::Closed) => self.on_answer(Answer::Unknown(Unknown::Lost)),
                },
                None => return,
            }
        }
    }

    /// The answer to the oldest request.
    fn on_answer(&mut self, answer: Answer) {
        let Some(Place::Waiting(mut manner, _)) = self.places.pop_front() else { return };
        manner.last |= self.ending.is_some() && self.places.is_empty();
        let adapter = self.shared.adapter;
        match answer {
            Answer::Reply(reply) => self.write(adapter.deliver(manner, reply)),
            Answer::Refused(why) => match adapter.refusal(manner, &why.to_string()) {
                Some(error) => self.write(error),
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

    /// The oldest request gets no answer, and so none of the later ones can have one.
    fn give_up(&mut self) {
        self.places.clear();
        self.admission = None;
        self.end(Ending::Unanswered);
    }

    /// No further request is cut.
    fn end(&mut self, ending: Ending) {
        self.intake.discard();
        self.partial_since = None;
        self.ending = Some(ending);
    }

    /// How the connection ended, when everything was said.
    fn over(&self) -> Option<Ending> {
        self.ending.filter(|_| self.places.is_empty() && self.output.is_empty() && self.admission.is_none())
    }

    fn write(&mut self, bytes: Bytes) {
        if self.output.is_empty() {
            self.output_moved = Instant::now();
            // The usual case, one reply, is not copied where nobody else holds it.
            self.output = BytesMut::from(bytes);
        } else {
            self.output.extend_from_slice(&bytes);
        }
    }

    fn on_written(&mut self, taken: usize) {
        self.output.advance(taken);
        self.output_moved = Instant::now();
        if self.output.is_empty() {
            self.output = BytesMut::new();
        }
    }

    /// When patience with the client ends.
    fn limit(&self, reads: bool) -> Option<Instant> {
        let partial = self.partial_since.filter(|_| reads);
        let output = (!self.output.is_empty()).then_some(self.output_moved);
        [partial, output].into_iter().flatten().min().map(|since| since + self.shared.patience)
    }

    /// A limit passed: which one.
    fn late(&mut self) -> Option<Ending> {
        let now = Instant::now();
        if !self.output.is_empty() && self.output_moved + self.shared.patience <= now {
            self.shared.refused.count("slow_reader");
            return Some(Ending::SlowReader);
        }
        if self.partial_since.is_some_and(|since| since + self.shared.patience <= now) {
            self.shared.refused.count("slow_request");
            self.end(Ending::SlowRequest);
        }
        None
    }
}

/// Bytes that give their share of the budget back when the last holder lets go of them.
struct Budgeted {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Budgeted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

thread_local! {
    /// Where bytes land before they are appended to their connection's buffer, so that a connection that waits for
    /// its next request needs none.
    static LANDING: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// Reads what is there, at least one byte; 0 is the end.
async fn read_some<R: AsyncRead + Unpin>(reader: &mut R, intake: &mut Intake) -> io::Result<usize> {
    poll_fn(|cx| {
        LANDING.with_borrow_mut(|landing| {
            let mut buffer = ReadBuf::new(landing);
            ready!(Pin::new(&mut *reader).poll_read(cx, &mut buffer))?;
            intake.feed(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    })
    .await
}

async fn write_some<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8]) -> io::Result<usize> {
    poll_fn(|cx| Pin::new(&mut *writer).poll_write(cx, bytes)).await
}

/// The answer at the front; a sender that went away without one leaves the outcome unknown.
async fn answered(front: Option<&mut oneshot::Receiver<Answer>>) -> Answer {
    match front {
        Some(answer) => answer.await.unwrap_or(Answer::Unknown(Unknown::Lost)),
        None => std::future::pending().await,
    }
}

async fn admitted(admission: &mut Option<Admission>) {
    match admission {
        Some(admission) => admission.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn until(limit: Option<Instant>) {
    match limit {
        Some(limit) => tokio::time::sleep_until(limit).await,
        None => std::future::pending().await,
    }
}

/// Ends our side, and lets the client's bytes run out for a moment.
async fn part<R, W>(reader: &mut R, writer: &mut W, heard: bool)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let parting = async {
        if writer.shutdown().await.is_err() || heard {
            return;
        }
        let mut dropped = 0;
        while dropped < LINGER_BYTES {
            let read = poll_fn(|cx| {
                LANDING.with_borrow_mut(|landing| {
                    let mut buffer = ReadBuf::new(landing);
                    ready!(Pin::new(&mut *reader).poll_read(cx, &mut buffer))?;
                    Poll::Ready(io::Result::Ok(buffer.filled().len()))
                })
            });
            match read.await {
                Ok(0) | Err(_) => return,
                Ok(read) => dropped += read,
            }
        }
    };
    // Time-out or not, the connection is closed now.
    let _ = tokio::time::timeout(LINGER, parting).await;
}
