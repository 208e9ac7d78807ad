//! Connections per request and per session: strictly one call at a time.

use super::ahead::Ahead;
use super::exchange::{Answer, Loss, exchange};
use super::keeper::Keeper;
use super::orders::Task;
use super::own::{OwnConnections, Session};
use super::worker::{End, Left, Live};
use super::{Event, Settings, dump};
use bytes::{Bytes, BytesMut};
use mesh::framing::Connections;
use mesh::ids::{ReadId, Slot};
use mesh::order::{AppReply, Operation};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The connections that sessions have, where they have their own, and those that calls are about to have.
struct Sequential {
    own: OwnConnections,
    ahead: Ahead,
    /// What is read over a call's own connection, one call after the other.
    input: BytesMut,
}

/// How a slot failed: why, and how many of its calls were answered before; `None`: no call is to blame.
struct Failure {
    loss: Loss,
    answered: Option<usize>,
}

/// Executes until the application is lost, or reset by order.
pub(super) async fn serve(live: &mut Live<'_>) -> End {
    let mut connections = Sequential {
        own: OwnConnections::new(std::mem::take(live.states)),
        ahead: Ahead::default(),
        input: BytesMut::new(),
    };
    if let Err(end) = watch(live, &mut connections).await {
        return end;
    }
    loop {
        let task = tokio::select! {
            biased;
            ended = live.keeper.exited() => return End::Lost(Loss::Ended(ended)),
            task = live.orders.next(live.run) => match task {
                Ok(task) => task,
                Err(end) => return end,
            },
        };
        match task {
            Task::Dump(image) => {
                if let Err(end) = dump::take(live, image, Some(&mut connections.own)).await {
                    return end;
                }
                if let Err(end) = watch(live, &mut connections).await {
                    return end;
                }
            }
            Task::Execute { slot, operations, patient } => {
                if let Err(end) = execute(live, &mut connections, slot, &operations, patient).await {
                    return end;
                }
            }
            Task::Read { read, requests } => {
                if let Err(end) = answer(live, &mut connections, read, &requests).await {
                    return end;
                }
            }
        }
    }
}

/// Answers reads, and tells the driver. Whatever goes wrong is no call's fault: the application is lost.
async fn answer(
    live: &mut Live<'_>,
    connections: &mut Sequential,
    read: ReadId,
    requests: &[Bytes],
) -> Result<(), End> {
    let mut replies = Vec::with_capacity(requests.len());
    let (settings, address) = (live.settings, live.keeper.address());
    *live.left = Left::Busy;
    for (index, request) in requests.iter().enumerate() {
        let more = requests.len() - index - 1;
        let exchanged = connections.ask(settings, address, request, Some(settings.timeout), more);
        let Answer { reply, .. } = tokio::select! {
            biased;
            answer = exchanged => answer.map_err(|loss| {
                if matches!(loss, Loss::Silent(_)) {
                    *live.left = Left::Hung;
                }
                End::Lost(loss)
            })?,
            ended = live.keeper.exited() => return Err(End::Lost(Loss::Ended(ended))),
            end = live.orders.watch(live.run) => return Err(end),
        };
        replies.push(reply.bytes);
    }
    // Each connection was new: nothing but this proves that all of them met the application of the calls before (rule 24).
    if !live.keeper.same() {
        return Err(End::Lost(Loss::Restarted));
    }
    *live.left = Left::Clean;
    live.read(read, replies).await
}

/// Makes the connections that must be there before anything is executed.
async fn watch(live: &mut Live<'_>, connections: &mut Sequential) -> Result<(), End> {
    let (settings, address) = (live.settings, live.keeper.address());
    tokio::select! {
        biased;
        end = live.orders.watch(live.run) => Err(end),
        made = connections.own.watch(settings, address) => made.map_err(End::Lost),
    }
}

/// Executes one slot, and tells the driver. An order to begin anew is taken at once.
async fn execute(
    live: &mut Live<'_>,
    connections: &mut Sequential,
    slot: Slot,
    operations: &[Operation],
    patient: usize,
) -> Result<(), End> {
    live.intend(slot)?;
    let begun = Instant::now();
    *live.left = Left::Busy;
    let mut replies = Vec::with_capacity(operations.len());
    let (settings, keeper) = (live.settings, &mut *live.keeper);
    let executed = tokio::select! {
        biased;
        executed = connections.run(settings, keeper, operations, patient, &mut replies) => executed,
        // While it works at a slot the orders that come meanwhile are kept.
        end = live.orders.watch(live.run) => return Err(end),
    };
    match executed {
        Ok(()) => {
            *live.left = Left::Clean;
            live.settings.metrics.execute.observe(begun.elapsed().as_secs_f64());
            let requests = operations.iter().filter_map(|operation| match operation {
                Operation::Call { bytes, .. } => Some(bytes),
                Operation::End { .. } => None,
            });
            live.executed(slot, requests, replies).await
        }
        Err(Failure { loss, answered: Some(answered) }) => {
            if matches!(loss, Loss::Silent(_)) {
                *live.left = Left::Hung;
            }
            Err(End::Silent { slot, answered, loss })
        }
        Err(Failure { loss, answered: None }) => Err(End::Lost(loss)),
    }
}

impl Sequential {
    async fn run(
        &mut self,
        settings: &Settings,
        keeper: &mut Keeper,
        operations: &[Operation],
        patient: usize,
        replies: &mut Vec<AppReply>,
    ) -> Result<(), Failure> {
        // Whether the last reply ended with the connection, which the death of the application would look like.
        let mut ended_by_close = false;
        let mut calls = operations.iter().filter(|operation| matches!(operation, Operation::Call { .. })).count();
        for operation in operations {
            match operation {
                Operation::Call { session, bytes } => {
                    calls -= 1;
                    let patience = (replies.len() >= patient).then_some(settings.timeout);
                    let address = keeper.address();
                    let answer = tokio::select! {
                        biased;
                        answer = self.call((settings, address), *session, bytes, patience, calls) => answer,
                        ended = keeper.exited() => Err(Loss::Ended(ended)),
                    };
                    match answer {
                        Ok(Answer { closed: true, .. }) if keeper.is_known_dead() => {
                            let loss = Loss::Ended("the application ended instead of answering".to_owned());
                            return Err(failure(loss, replies.len(), false));
                        }
                        Ok(Answer { reply, closed }) => {
                            replies.push(reply);
                            ended_by_close = closed;
                        }
                        Err(loss) => return Err(failure(loss, replies.len(), ended_by_close)),
                    }
                }
                Operation::End { session } => {
                    self.own.end(session);
                }
            }
        }
        // Each connection was new: nothing but this proves that all of them met the same application (rule 24).
        if keeper.same() { Ok(()) } else { Err(failure(Loss::Restarted, replies.len(), ended_by_close)) }
    }

    /// One call, which `more` follow at once.
    async fn call(
        &mut self,
        (settings, address): (&Settings, SocketAddr),
        session: Session,
        request: &Bytes,
        patience: Option<Duration>,
        more: usize,
    ) -> Result<Answer, Loss> {
        if settings.adapter.connections == Connections::PerSession {
            return self.own.call(settings, address, session, request, patience).await;
        }
        self.ask(settings, address, request, patience, more).await
    }

    /// One request over a connection of its own.
    async fn ask(
        &mut self,
        settings: &Settings,
        address: SocketAddr,
        request: &Bytes,
        patience: Option<Duration>,
        more: usize,
    ) -> Result<Answer, Loss> {
        let mut stream = self.ahead.take(address, settings.timeout, more).await?;
        self.input.clear();
        exchange(&mut stream, &settings.adapter, request, &mut self.input, patience).await
    }
}

/// Which call is to blame: the one under way, or the one before it, if its reply was the close of an application that
/// is gone now.
fn failure(loss: Loss, answered: usize, ended_by_close: bool) -> Failure {
    let blamed = if loss.blames_call() {
        Some(answered)
    } else if matches!(loss, Loss::Connect(_) | Loss::Restarted) && ended_by_close {
        answered.checked_sub(1)
    } else {
        None
    };
    Failure { loss, answered: blamed }
}

impl Live<'_> {
    /// Tells the driver. No marker knows of reads: whether one was under way changes nothing.
    pub(super) async fn read(&mut self, read: ReadId, replies: Vec<Bytes>) -> Result<(), End> {
        let event = Event::Read { run: self.run, read, replies };
        self.events.send(event).await.map_err(|_| End::Stopped)
    }

    /// Before anything of a slot is sent: from now on only a reset brings the initial state.
    pub(super) fn intend(&mut self, slot: Slot) -> Result<(), End> {
        self.keeper.mark_used().map_err(|error| End::Lost(Loss::Local(format!("{error:#}"))))?;
        self.marker.intend(slot);
        Ok(())
    }

    /// Tells the driver, after the marker (rule 25).
    pub(super) async fn executed(
        &mut self,
        slot: Slot,
        requests: impl Iterator<Item = &Bytes>,
        replies: Vec<AppReply>,
    ) -> Result<(), End> {
        self.marker.outcome(slot, &replies);
        self.settings.evidence.executed(slot, requests, &replies);
        let event = Event::Executed { run: self.run, slot, replies };
        self.events.send(event).await.map_err(|_| End::Stopped)
    }
}
