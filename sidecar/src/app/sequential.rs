//! Connections per request and per session: strictly one call at a time.

use super::exchange::{Loss, connect, exchange};
use super::worker::{End, Live};
use super::{Command, Event};
use bytes::{Bytes, BytesMut};
use mesh::framing::Connections;
use mesh::ids::{ClientId, Run, Slot};
use mesh::order::{AppReply, Operation};
use std::collections::HashMap;
use std::time::Instant;
use tokio::net::TcpStream;

type Session = (ClientId, Slot);

/// The connections that sessions have, where they have their own.
struct Sequential {
    sessions: HashMap<Session, (TcpStream, BytesMut)>,
}

/// Executes until the application is lost, or reset by order.
pub(super) async fn serve(live: &mut Live<'_>) -> End {
    let mut connections = Sequential { sessions: HashMap::new() };
    loop {
        let command = tokio::select! {
            biased;
            ended = live.keeper.exited() => return End::Lost(Loss::Ended(ended)),
            command = live.commands.recv() => command,
        };
        match command {
            None => return End::Stopped,
            Some(Command::Reset { run, .. } | Command::Resume { run }) => return End::Reset(run),
            Some(Command::Dump { .. }) => {}
            Some(Command::Execute { run, .. }) if run != live.run => {}
            Some(Command::Execute { run, slot, operations, .. }) => {
                let begun = Instant::now();
                match connections.execute(live, &operations).await {
                    Ok(replies) => {
                        live.settings.metrics.execute.observe(begun.elapsed().as_secs_f64());
                        if live.executed(run, slot, replies).await.is_err() {
                            return End::Stopped;
                        }
                    }
                    Err(loss) => return End::Lost(loss),
                }
            }
        }
    }
}

impl Sequential {
    async fn execute(&mut self, live: &mut Live<'_>, operations: &[Operation]) -> Result<Vec<AppReply>, Loss> {
        live.mark_used()?;
        let mut replies = Vec::with_capacity(operations.len());
        for operation in operations {
            match operation {
                Operation::Call { session, bytes } => replies.push(self.call(live, *session, bytes).await?),
                Operation::End { session } => {
                    self.sessions.remove(session);
                }
            }
        }
        // Each connection was new: nothing but this proves that all of them met the same application (rule 24).
        if live.keeper.same() { Ok(replies) } else { Err(Loss::Restarted) }
    }

    async fn call(&mut self, live: &mut Live<'_>, session: Session, request: &Bytes) -> Result<AppReply, Loss> {
        let (settings, address) = (live.settings, live.keeper.address());
        let adapter = &settings.adapter;
        if adapter.connections != Connections::PerSession {
            let mut stream = connect(address, settings.timeout).await?;
            return exchange(&mut stream, adapter, request, &mut BytesMut::new(), settings.timeout).await;
        }
        if !self.sessions.contains_key(&session) {
            if self.sessions.len() >= settings.sessions {
                return Err(Loss::Sessions(settings.sessions));
            }
            self.sessions.insert(session, (connect(address, settings.timeout).await?, BytesMut::new()));
        }
        let (stream, input) = self.sessions.get_mut(&session).expect("inserted just now");
        let reply = exchange(stream, adapter, request, input, settings.timeout).await?;
        if input.is_empty() { Ok(reply) } else { Err(Loss::Unasked) }
    }
}

impl Live<'_> {
    /// Before anything is sent: from now on only a reset brings the initial state.
    pub(super) fn mark_used(&mut self) -> Result<(), Loss> {
        self.keeper.mark_used().map_err(|error| Loss::Local(format!("{error:#}")))
    }

    /// Tells the driver; fails when it is gone.
    pub(super) async fn executed(&self, run: Run, slot: Slot, replies: Vec<AppReply>) -> Result<(), ()> {
        self.events.send(Event::Executed { run, slot, replies }).await.map_err(|_| ())
    }
}
