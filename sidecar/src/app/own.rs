//! The connections that sessions have of their own. What each of them remembers is kept (rule 27), so that another one
//! can take its place: after the application was brought back to a snapshot, or closed one that was idle for too long.

use super::Settings;
use super::conversation::Conversation;
use super::exchange::{Answer, Loss, Patience, connect, exchange, is_closed};
use super::resp::shorten;
use anyhow::{Context, anyhow};
use bytes::{Bytes, BytesMut};
use mesh::framing::{ConnectionState, Replayed};
use mesh::ids::{ClientId, Opening};
use mesh::order::AppReply;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use tokio::net::TcpStream;

pub(super) type Session = (ClientId, Opening);
/// What the connections of sessions remember, as a snapshot has it.
pub(super) type States = BTreeMap<Session, ConnectionState>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OwnConnections {
    sessions: HashMap<Session, Own>,
    /// What all of them remember, in bytes.
    kept: usize,
}

#[derive(Debug, Default)]
struct Own {
    state: ConnectionState,
    /// `None` until it is needed.
    link: Option<Link>,
}

#[derive(Debug)]
struct Link {
    stream: TcpStream,
    /// What was read and belongs to no reply yet.
    input: BytesMut,
}

impl OwnConnections {
    /// Those that a snapshot knows, to be made when they are needed.
    pub(super) fn new(states: States) -> Self {
        let kept = states.values().map(ConnectionState::bytes).fold(0, usize::saturating_add);
        let sessions = states.into_iter().map(|(session, state)| (session, Own { state, link: None })).collect();
        Self { sessions, kept }
    }

    /// One request of a session, and its whole reply.
    pub(super) async fn call(
        &mut self,
        settings: &Settings,
        address: SocketAddr,
        session: Session,
        request: &Bytes,
        patience: Patience,
    ) -> Result<Answer, Loss> {
        let adapter = &settings.adapter;
        if !self.sessions.contains_key(&session) && self.sessions.len() >= settings.sessions {
            return Err(Loss::Sessions(settings.sessions));
        }
        let Own { state, link } = self.sessions.entry(session).or_default();
        if let Some(old) = link
            && is_closed(&old.stream)?
        {
            if state.is_watching() {
                return Err(Loss::Watching);
            }
            *link = None;
        }
        let link = match link {
            Some(link) => link,
            None => link.insert(Link::make(settings, address, state).await?),
        };
        let instead = adapter.instead(state, request, self.kept);
        let asked = instead.as_ref().unwrap_or(request);
        let Answer { reply, closed } = exchange(&mut link.stream, adapter, asked, &mut link.input, patience).await?;
        if !link.input.is_empty() {
            return Err(Loss::Unasked);
        }
        let before = state.bytes();
        let bytes = adapter.executed(state, request, instead.as_ref(), reply.bytes);
        self.kept = self.kept.saturating_sub(before).saturating_add(state.bytes());
        let form = if instead.is_some() { adapter.form(request, &bytes) } else { reply.form };
        Ok(Answer { reply: AppReply { bytes, form }, closed })
    }

    /// The session is over.
    pub(super) fn end(&mut self, session: &Session) {
        if let Some(own) = self.sessions.remove(session) {
            self.kept = self.kept.saturating_sub(own.state.bytes());
        }
    }

    /// Makes the connections that must be there while others execute: what they watch may change by that.
    pub(super) async fn watch(&mut self, settings: &Settings, address: SocketAddr) -> Result<(), Loss> {
        for Own { state, link } in self.sessions.values_mut() {
            if state.is_watching() && link.is_none() {
                *link = Some(Link::make(settings, address, state).await?);
            }
        }
        Ok(())
    }

    /// Whether the application closed one that watches.
    pub(super) fn has_lost_a_watch(&self) -> bool {
        let closed = |link: &Link| is_closed(&link.stream).unwrap_or(true);
        self.sessions.values().any(|own| own.state.is_watching() && own.link.as_ref().is_some_and(closed))
    }

    /// What all of them remember, for a snapshot. Nothing may be under way.
    ///
    /// # Errors
    /// Some watch something, and the application does not tell whether it has changed.
    pub(super) async fn states(&self, settings: &Settings, address: SocketAddr) -> anyhow::Result<States> {
        let remembering = self.sessions.iter().filter(|(_, own)| !own.state.is_empty());
        let mut states: States = remembering.map(|(session, own)| (*session, own.state.clone())).collect();
        if !states.values().any(ConnectionState::is_watching) {
            return Ok(states);
        }
        let question = settings.adapter.watch_question().context("the protocol has no question for it")?;
        let answer = Conversation::new(address, settings, settings.timeout).ask(&question).await?;
        for (session, state) in states.iter_mut().filter(|(_, state)| state.is_watching()) {
            let link =
                self.sessions.get(session).and_then(|own| own.link.as_ref()).context("a connection is missing")?;
            let changed = settings.adapter.watch_answer(&answer, link.stream.local_addr()?).ok_or_else(|| {
                let answer = shorten(&answer);
                anyhow!("a client watches keys, and the application does not tell whether they have changed: {answer}")
            })?;
            if changed {
                state.set_void();
            }
        }
        Ok(states)
    }
}

impl Link {
    /// A new connection, brought to where another one was.
    async fn make(settings: &Settings, address: SocketAddr, state: &ConnectionState) -> Result<Self, Loss> {
        let mut link = Self { stream: connect(address, settings.timeout).await?, input: BytesMut::new() };
        let patience = Some(settings.timeout);
        for Replayed { request, fails } in state.replayed() {
            let Self { stream, input } = &mut link;
            let answer = exchange(stream, &settings.adapter, request, input, patience).await;
            let reply = answer.map_err(|loss| Loss::State(loss.to_string()))?.reply.bytes;
            if settings.adapter.is_error(&reply) != fails {
                // The request is not shown: it may be a password.
                return Err(Loss::State(format!("what succeeded before was answered with {}", shorten(&reply))));
            }
        }
        Ok(link)
    }
}
