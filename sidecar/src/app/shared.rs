//! One persistent connection: the calls of a slot, and of the slots after it, are written before their replies come.

use super::dump;
use super::exchange::{Loss, READ_BYTES, connect, drain, take_reply, told};
use super::orders::{Orders, Task};
use super::worker::{End, Left, Live};
use bytes::{Buf, Bytes, BytesMut};
use mesh::framing::{Adapter, Scan};
use mesh::ids::{ReadId, Run, Slot};
use mesh::order::{AppReply, Image, Operation};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::Instant;

/// Nothing further is handed to the connection while so many bytes wait to be written to the application.
const OUTPUT_BYTES: usize = 4 << 20;

/// What replies are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// The calls of a slot.
    Slot(Slot),
    /// Reads, which leave nothing behind. They may be asked again, `once` on another connection.
    Read { read: ReadId, once: bool },
}

/// A slot, or reads, whose replies are not all here.
struct Pending {
    of: Of,
    begun: Instant,
    /// So many of the first calls have no time limit.
    patient: usize,
    requests: Vec<Bytes>,
    /// Those of the first requests.
    replies: Vec<AppReply>,
}

impl Pending {
    /// The first request without a reply.
    fn waiting(&self) -> Option<&Bytes> {
        self.requests.get(self.replies.len())
    }
}

/// What is under way on the connection.
#[derive(Default)]
struct Pipeline {
    slots: VecDeque<Pending>,
    output: BytesMut,
    input: BytesMut,
    scan: Scan,
    /// Since when the first call without a reply is waited for.
    since: Option<Instant>,
}

/// Why a connection is left.
enum Leave {
    /// The application closed it with nothing under way.
    Closed,
    /// The application said that it takes no further request on it, and so ran none of those behind.
    Last,
    /// A snapshot is wanted. The application may serve one connection only.
    Dump(Box<Image>),
}

/// Executes until the application is lost, or reset by order.
pub(super) async fn serve(live: &mut Live<'_>) -> End {
    let mut pipeline = Pipeline::default();
    loop {
        let address = live.keeper.address();
        let mut stream = match connect(address, live.settings.timeout).await {
            Ok(stream) => stream,
            Err(loss) => return End::Lost(loss),
        };
        // The connection must have met the incarnation that was reset; from now on it proves that by being open.
        if !live.keeper.same() {
            return End::Lost(Loss::Restarted);
        }
        pipeline.begin();
        let left = serve_connection(live, &mut pipeline, &mut stream).await;
        drop(stream);
        let taken = match left {
            Ok(Leave::Last) => Ok(()),
            Ok(Leave::Closed) => {
                tracing::info!("the application closed its idle connection; connecting again");
                Ok(())
            }
            Ok(Leave::Dump(image)) => dump::take(live, image, None).await,
            Err(end) => Err(end),
        };
        if let Err(end) = taken {
            return end;
        }
        if !live.keeper.same() {
            return End::Lost(Loss::Restarted);
        }
    }
}

/// Executes on one connection.
async fn serve_connection(live: &mut Live<'_>, pipeline: &mut Pipeline, stream: &mut TcpStream) -> Result<Leave, End> {
    let (mut reader, mut writer) = stream.split();
    loop {
        let turned = turn(live, pipeline, &mut reader, &mut writer).await;
        // What was answered whole counts, however the turn ended.
        while let Some(done) = pipeline.next_done() {
            match done.of {
                Of::Slot(slot) => {
                    live.settings.metrics.execute.observe(done.begun.elapsed().as_secs_f64());
                    live.executed(slot, done.requests.iter(), done.replies).await?;
                }
                Of::Read { read, .. } => {
                    live.read(read, done.replies.into_iter().map(|reply| reply.bytes).collect()).await?;
                }
            }
        }
        *live.left = if pipeline.slots.is_empty() { Left::Clean } else { Left::Busy };
        match turned {
            Ok(Turn::On) => {}
            Ok(Turn::Last) => return Ok(Leave::Last),
            Ok(Turn::Dump(image)) => return Ok(Leave::Dump(image)),
            Ok(Turn::Closed) if pipeline.may_ask_again() => return Ok(Leave::Closed),
            Ok(Turn::Closed) => return Err(pipeline.blame(live, Loss::Closed(pipeline.unanswered()))),
            Err(Broken::End(end)) => return Err(end),
            Err(Broken::Loss(loss)) => return Err(pipeline.blame(live, loss)),
        }
    }
}

enum Turn {
    On,
    Last,
    Closed,
    Dump(Box<Image>),
}

enum Broken {
    End(End),
    Loss(Loss),
}

impl From<End> for Broken {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

impl From<Loss> for Broken {
    fn from(loss: Loss) -> Self {
        Self::Loss(loss)
    }
}

/// Waits for one thing to happen, and does what follows.
async fn turn(
    live: &mut Live<'_>,
    pipeline: &mut Pipeline,
    reader: &mut ReadHalf<'_>,
    writer: &mut WriteHalf<'_>,
) -> Result<Turn, Broken> {
    let adapter = &live.settings.adapter;
    let silent = pipeline.silent_at(live.settings.timeout);
    pipeline.input.reserve(READ_BYTES);
    let full = pipeline.output.len() >= OUTPUT_BYTES;
    tokio::select! {
        biased;
        read = reader.read_buf(&mut pipeline.input) => {
            let closed = match read {
                Ok(count) => count == 0,
                Err(error) => {
                    // A partial reply in front of the break is none.
                    return Err(Loss::Link(error.to_string()).into());
                }
            };
            let last = pipeline.cut(adapter, closed)?;
            return Ok(if last {
                Turn::Last
            } else if closed {
                Turn::Closed
            } else {
                Turn::On
            });
        }
        written = writer.write_buf(&mut pipeline.output), if pipeline.output.has_remaining() => {
            if let Err(error) = written {
                // Whoever reads no more may have answered before.
                drain(reader, &mut pipeline.input).await;
                if pipeline.cut(adapter, true)? {
                    return Ok(Turn::Last);
                }
                return Err(Loss::Link(error.to_string()).into());
            }
        }
        task = next(live.orders, live.run, full) => {
            let mut next = Some(task?);
            // Whatever else waits goes out in the same write.
            while let Some(task) = next {
                match task {
                    Task::Execute { slot, operations, patient } => pipeline.take(live, slot, operations, patient)?,
                    Task::Read { read, requests } => pipeline.read(read, requests),
                    Task::Dump(image) => return Ok(pipeline.dump(live, image).await?),
                }
                let full = pipeline.output.len() >= OUTPUT_BYTES;
                next = if full { None } else { live.orders.try_next(live.run)? };
            }
        }
        ended = live.keeper.exited() => return Err(Loss::Ended(ended).into()),
        () = tokio::time::sleep_until(silent.unwrap_or_else(Instant::now)), if silent.is_some() => {
            return Err(Loss::Silent(live.settings.timeout).into());
        }
    }
    Ok(Turn::On)
}

/// The next task; while the application is behind they are only kept, and a new beginning is still taken at once.
async fn next(orders: &mut Orders, run: Run, full: bool) -> Result<Task, End> {
    if full { Err(orders.watch(run).await) } else { orders.next(run).await }
}

impl Pipeline {
    /// On a new connection: what has no reply is sent again. It did not run: the last connection ended with a reply
    /// behind which the application takes nothing.
    fn begin(&mut self) {
        self.input.clear();
        self.output.clear();
        self.scan = Scan::default();
        for request in self.slots.iter().flat_map(|pending| &pending.requests[pending.replies.len()..]) {
            self.output.extend_from_slice(request);
        }
    }

    fn take(&mut self, live: &mut Live<'_>, slot: Slot, operations: Vec<Operation>, patient: usize) -> Result<(), End> {
        live.intend(slot)?;
        let begun = Instant::now();
        let calls = operations.into_iter().filter_map(|operation| match operation {
            Operation::Call { bytes, .. } => Some(bytes),
            Operation::End { .. } => None,
        });
        self.put(Of::Slot(slot), begun, patient, calls.collect());
        Ok(())
    }

    /// Behind everything that the connection was given before. Nothing of a read is marked: it changes nothing.
    fn read(&mut self, read: ReadId, requests: Vec<Bytes>) {
        self.put(Of::Read { read, once: false }, Instant::now(), 0, requests);
    }

    fn put(&mut self, of: Of, begun: Instant, patient: usize, requests: Vec<Bytes>) {
        for request in &requests {
            self.output.extend_from_slice(request);
        }
        if !requests.is_empty() {
            self.since.get_or_insert(begun);
        }
        self.slots.push_back(Pending { of, begun, patient, replies: Vec::with_capacity(requests.len()), requests });
    }

    /// Whether nothing is under way on a connection that the application closed, or reads alone, which are then asked
    /// again; but no read closes one connection after the other.
    fn may_ask_again(&mut self) -> bool {
        self.slots.iter_mut().all(|pending| match &mut pending.of {
            Of::Slot(_) => false,
            Of::Read { once, .. } => !std::mem::replace(once, true),
        })
    }

    /// The core asks for a snapshot only when everything before is executed. Reads are void then.
    async fn dump(&mut self, live: &Live<'_>, image: Box<Image>) -> Result<Turn, End> {
        self.slots.retain(|pending| matches!(pending.of, Of::Slot(_)));
        if self.slots.is_empty() {
            return Ok(Turn::Dump(image));
        }
        tracing::error!(slot = %image.slot, "a snapshot was asked for while calls were under way: it is not taken");
        live.dump_failed(image.slot).await.map(|()| Turn::On)
    }

    /// Takes every whole reply out of what was read; whether one of them is the connection's last.
    fn cut(&mut self, adapter: &Adapter, closed: bool) -> Result<bool, Loss> {
        let mut last = false;
        for pending in &mut self.slots {
            while let (false, Some(request)) = (last, pending.waiting()) {
                let Some(reply) = take_reply(adapter, &mut self.scan, request, &mut self.input, closed)? else {
                    return Ok(false);
                };
                last = reply.last;
                pending.replies.push(told(reply));
                self.since = Some(Instant::now());
            }
        }
        if self.first_waiting().is_none() {
            self.since = None;
        }
        if self.input.is_empty() { Ok(last) } else { Err(Loss::Unasked) }
    }

    /// When the first call without a reply has been waited for long enough, if it has a limit.
    fn silent_at(&self, timeout: Duration) -> Option<Instant> {
        let first = self.first_waiting()?;
        if first.replies.len() < first.patient { None } else { Some(self.since? + timeout) }
    }

    fn first_waiting(&self) -> Option<&Pending> {
        self.slots.iter().find(|pending| pending.waiting().is_some())
    }

    /// The first slot, if all its replies are here.
    fn next_done(&mut self) -> Option<Pending> {
        if self.slots.front().is_some_and(|pending| pending.waiting().is_none()) {
            self.slots.pop_front()
        } else {
            None
        }
    }

    fn unanswered(&self) -> usize {
        self.slots.iter().map(|pending| pending.requests.len() - pending.replies.len()).sum()
    }

    /// The end of the run: the fault of the first call without a reply, if there is one (rule 23).
    fn blame(&self, live: &mut Live<'_>, loss: Loss) -> End {
        match self.first_waiting() {
            Some(pending) if loss.blames_call() => {
                if matches!(loss, Loss::Silent(_)) {
                    *live.left = Left::Hung;
                }
                match pending.of {
                    Of::Slot(slot) => End::Silent { slot, answered: pending.replies.len(), loss },
                    // No ordered call is to blame: it is lost, and the reads are void.
                    Of::Read { .. } => End::Lost(loss),
                }
            }
            _ => End::Lost(loss),
        }
    }
}
