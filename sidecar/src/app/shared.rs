//! One persistent connection: the calls of a slot, and of the slots after it, are written before their replies come.

use super::Command;
use super::exchange::{Loss, READ_BYTES, connect, take_reply};
use super::worker::{End, Live};
use bytes::{Buf, Bytes, BytesMut};
use mesh::framing::Scan;
use mesh::ids::{Run, Slot};
use mesh::order::{AppReply, Operation};
use std::collections::VecDeque;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::Instant;

/// No further slot is taken while so many bytes wait to be written to the application.
const OUTPUT_BYTES: usize = 4 << 20;

/// A slot whose replies are not all here.
struct Pending {
    run: Run,
    slot: Slot,
    begun: Instant,
    /// Requests whose replies are to come, in order.
    requests: VecDeque<Bytes>,
    replies: Vec<AppReply>,
}

/// What is under way on the connection.
#[derive(Default)]
struct Pipeline {
    slots: VecDeque<Pending>,
    output: BytesMut,
    input: BytesMut,
    scan: Scan,
    /// When the application last showed life, or was first asked after a pause.
    heard: Option<Instant>,
}

/// Executes until the application is lost, or reset by order.
pub(super) async fn serve(live: &mut Live<'_>) -> End {
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
        match serve_connection(live, &mut stream).await {
            Ok(()) => tracing::info!("the application closed its idle connection; connecting again"),
            Err(end) => return end,
        }
        if !live.keeper.same() {
            return End::Lost(Loss::Restarted);
        }
    }
}

/// Executes on one connection; `Ok` when the application closed it with nothing under way.
async fn serve_connection(live: &mut Live<'_>, stream: &mut TcpStream) -> Result<(), End> {
    let (mut reader, mut writer) = stream.split();
    let mut pipeline = Pipeline::default();
    loop {
        let turn = turn(live, &mut pipeline, &mut reader, &mut writer).await?;
        while let Some(done) = pipeline.next_done() {
            live.settings.metrics.execute.observe(done.begun.elapsed().as_secs_f64());
            live.executed(done.run, done.slot, done.replies).await.map_err(|()| End::Stopped)?;
        }
        match turn {
            Turn::Closed if pipeline.slots.is_empty() => return Ok(()),
            Turn::Closed => return Err(End::Lost(Loss::Closed(pipeline.unanswered()))),
            Turn::On => {}
        }
    }
}

enum Turn {
    On,
    Closed,
}

/// Waits for one thing to happen, and does what follows.
async fn turn(
    live: &mut Live<'_>,
    pipeline: &mut Pipeline,
    reader: &mut ReadHalf<'_>,
    writer: &mut WriteHalf<'_>,
) -> Result<Turn, End> {
    let failed = |error: std::io::Error| End::Lost(Loss::Link(error.to_string()));
    let silent = pipeline.heard.map_or_else(Instant::now, |heard| heard + live.settings.timeout);
    pipeline.input.reserve(READ_BYTES);
    tokio::select! {
        biased;
        read = reader.read_buf(&mut pipeline.input) => {
            let closed = read.map_err(failed)? == 0;
            pipeline.cut(live, closed).map_err(End::Lost)?;
            return Ok(if closed { Turn::Closed } else { Turn::On });
        }
        written = writer.write_buf(&mut pipeline.output), if pipeline.output.has_remaining() => {
            written.map_err(failed)?;
        }
        command = live.commands.recv(), if pipeline.output.len() < OUTPUT_BYTES => {
            pipeline.take(live, command)?;
            // Whatever else waits goes out in the same write.
            while pipeline.output.len() < OUTPUT_BYTES && let Ok(command) = live.commands.try_recv() {
                pipeline.take(live, Some(command))?;
            }
        }
        ended = live.keeper.exited() => return Err(End::Lost(Loss::Ended(ended))),
        () = tokio::time::sleep_until(silent), if pipeline.heard.is_some() => {
            return Err(End::Lost(Loss::Silent(live.settings.timeout)));
        }
    }
    Ok(Turn::On)
}

impl Pipeline {
    fn take(&mut self, live: &mut Live<'_>, command: Option<Command>) -> Result<(), End> {
        match command {
            None => Err(End::Stopped),
            Some(Command::Reset { run, .. } | Command::Resume { run }) => Err(End::Reset(run)),
            Some(Command::Dump { .. }) => Ok(()),
            Some(Command::Execute { run, .. }) if run != live.run => Ok(()),
            Some(Command::Execute { run, slot, operations, .. }) => {
                live.mark_used().map_err(End::Lost)?;
                let now = Instant::now();
                let requests: VecDeque<Bytes> = operations
                    .into_iter()
                    .filter_map(|operation| match operation {
                        Operation::Call { bytes, .. } => Some(bytes),
                        Operation::End { .. } => None,
                    })
                    .collect();
                for request in &requests {
                    self.output.extend_from_slice(request);
                }
                if !requests.is_empty() {
                    self.heard.get_or_insert(now);
                }
                self.slots.push_back(Pending {
                    run,
                    slot,
                    begun: now,
                    replies: Vec::with_capacity(requests.len()),
                    requests,
                });
                Ok(())
            }
        }
    }

    /// Takes every whole reply out of what was read.
    fn cut(&mut self, live: &Live<'_>, closed: bool) -> Result<(), Loss> {
        for pending in &mut self.slots {
            while let Some(request) = pending.requests.front() {
                let adapter = &live.settings.adapter;
                let Some(reply) = take_reply(adapter, &mut self.scan, request, &mut self.input, closed)? else {
                    self.heard = Some(Instant::now());
                    return Ok(());
                };
                pending.replies.push(reply);
                pending.requests.pop_front();
            }
        }
        self.heard = None;
        if self.input.is_empty() { Ok(()) } else { Err(Loss::Unasked) }
    }

    /// The first slot, if all its replies are here.
    fn next_done(&mut self) -> Option<Pending> {
        if self.slots.front().is_some_and(|pending| pending.requests.is_empty()) {
            self.slots.pop_front()
        } else {
            None
        }
    }

    fn unanswered(&self) -> usize {
        self.slots.iter().map(|pending| pending.requests.len()).sum()
    }
}
