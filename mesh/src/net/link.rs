//! An authenticated link: messages on streams of their own.

use super::LinkKind;
use super::error::NetError;
use super::inbox::{Budget, Inbox, Reading, Unread};
use super::live::Term;
use super::metrics::{LinkCounters, Metrics};
use super::outgoing::{AT_ONCE_BYTES, Outgoing, Responder, TOO_LARGE, patiently};
use super::refusal::describe;
use crate::names::Identity;
use bytes::Bytes;
use futures_util::FutureExt;
use quinn::{Connection, ConnectionError, SendStream, VarInt};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// Application close code of an orderly end.
pub(super) const CLOSE_ORDERLY: VarInt = VarInt::from_u32(0);

/// Bytes of a reason that are sent along with a close.
const REASON_BYTES_MAX: usize = 200;

/// Which end of a link we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// We dialled.
    Dialled,
    /// We accepted.
    Accepted,
}

/// An authenticated link. Cheap to clone; the link ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Link(Arc<LinkInner>);

#[derive(Debug)]
pub(super) struct LinkInner {
    connection: Connection,
    peer: Identity,
    kind: LinkKind,
    side: Side,
    term: Term,
    budget: Budget,
    counters: LinkCounters,
    losses_counted: AtomicU64,
    messages: Mutex<Inbox<()>>,
    requests: Mutex<Inbox<SendStream>>,
}

impl LinkInner {
    pub(super) const fn peer(&self) -> &Identity {
        &self.peer
    }

    pub(super) const fn kind(&self) -> LinkKind {
        self.kind
    }

    pub(super) const fn side(&self) -> Side {
        self.side
    }

    pub(super) const fn term(&self) -> &Term {
        &self.term
    }

    pub(super) const fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// Adds the packets lost since the last call to the metric.
    pub(super) fn count_losses(&self) {
        let lost = self.connection.stats().path.lost_packets;
        let counted = self.losses_counted.swap(lost, Ordering::Relaxed);
        self.counters.lost.inc_by(lost.saturating_sub(counted));
    }
}

impl Drop for LinkInner {
    fn drop(&mut self) {
        self.count_losses();
    }
}

impl Link {
    pub(super) fn new(
        connection: Connection,
        peer: Identity,
        (kind, side): (LinkKind, Side),
        term: Term,
        bytes: usize,
        metrics: &Metrics,
    ) -> Self {
        let inner = Arc::new(LinkInner {
            connection,
            peer,
            kind,
            side,
            term,
            budget: Budget::new(bytes),
            counters: metrics.counters(kind),
            losses_counted: AtomicU64::new(0),
            messages: Mutex::new(Inbox::new()),
            requests: Mutex::new(Inbox::new()),
        });
        metrics.established(&inner.peer, inner.connection.remote_address().ip());
        Self(inner)
    }

    pub(super) const fn inner(&self) -> &Arc<LinkInner> {
        &self.0
    }

    /// Who is at the other end, by its certificate.
    #[must_use]
    pub fn peer(&self) -> &Identity {
        &self.0.peer
    }

    /// What the link is for.
    #[must_use]
    pub fn kind(&self) -> LinkKind {
        self.0.kind
    }

    /// Where the other end is now.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.0.connection.remote_address()
    }

    /// The current estimate of the round-trip time.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.0.rtt()
    }

    /// Sends one message on a unidirectional stream of its own. Waits for stream credit and room (two seconds without
    /// progress at most), not for delivery: `Ok` only means that the message is on its way. Dropping the future
    /// before it is ready resets the stream; the other end then sees no message.
    ///
    /// # Errors
    /// [`NetError::TooLarge`] is the caller's fault, [`NetError::Stalled`] and [`NetError::Abandoned`] cost this
    /// message only, [`NetError::Gone`] is for good.
    pub async fn send(&self, message: Bytes) -> Result<(), NetError> {
        self.check_size(&message)?;
        let stream = patiently(self.0.connection.open_uni()).await??;
        self.0.counters.opened.inc();
        Outgoing::new(stream).write(message).await
    }

    /// Sends one message on a unidirectional stream of its own if all of it can go at once.
    ///
    /// # Errors
    /// It cannot, and the other end sees no message: here it is for [`Self::send`], which waits, or says what is wrong.
    pub fn send_now(&self, message: Bytes) -> Result<(), Bytes> {
        if message.len() > AT_ONCE_BYTES.min(self.0.budget.message_bytes()) {
            return Err(message);
        }
        let Some(Ok(stream)) = self.0.connection.open_uni().now_or_never() else { return Err(message) };
        self.0.counters.opened.inc();
        if Outgoing::new(stream).write_now(message.clone()) { Ok(()) } else { Err(message) }
    }

    /// The next whole message of a unidirectional stream, in order of completion. One that is larger than allowed is
    /// counted and skipped, one whose sender gave up is skipped. Cancel-safe. Only one task calls this.
    ///
    /// # Errors
    /// [`NetError::Gone`], for good.
    pub async fn receive(&self) -> Result<Bytes, NetError> {
        let link = &*self.0;
        let mut inbox = link.messages.lock().await;
        loop {
            let accept = async || {
                let stream = link.connection.accept_uni().await?;
                link.counters.accepted.inc();
                Ok((stream, ()))
            };
            match inbox.next(&link.budget, accept).await? {
                ((), Ok(message)) => return Ok(message),
                ((), Err(Unread::Gone(reason))) => return Err(NetError::Gone(reason)),
                ((), Err(Unread::Reset(_))) => {}
                ((), Err(Unread::TooLarge)) => self.count_oversized("message"),
            }
        }
    }

    /// Sends a request on a bidirectional stream of its own, returns the whole answer (may be empty). Waits for the
    /// answer as long as it takes; dropping the future tells the other end that nobody waits.
    ///
    /// # Errors
    /// As for [`Self::send`]; [`NetError::Abandoned`] also when the other end dropped the request unanswered. None of
    /// them says that the request was not seen.
    pub async fn ask(&self, request: Bytes) -> Result<Bytes, NetError> {
        self.check_size(&request)?;
        let (send, answer) = patiently(self.0.connection.open_bi()).await??;
        self.0.counters.opened.inc();
        Outgoing::new(send).write(request).await?;
        self.whole(Reading::new(answer, (), &self.0.budget).await.1)
    }

    /// What came of an answer.
    fn whole(&self, answer: Result<Bytes, Unread>) -> Result<Bytes, NetError> {
        answer.map_err(|unread| match unread {
            Unread::Gone(reason) => NetError::Gone(reason),
            Unread::Reset(code) => NetError::Abandoned(code),
            Unread::TooLarge => {
                self.count_oversized("answer");
                NetError::AnswerTooLarge { limit: self.0.budget.message_bytes() }
            }
        })
    }

    /// The next whole request of a bidirectional stream, in order of completion. One that is larger than allowed is
    /// counted and its stream reset. Cancel-safe. Only one task calls this.
    ///
    /// # Errors
    /// [`NetError::Gone`], for good.
    pub async fn accept_ask(&self) -> Result<(Bytes, Responder), NetError> {
        let link = &*self.0;
        let mut inbox = link.requests.lock().await;
        loop {
            let accept = async || {
                let (answer, request) = link.connection.accept_bi().await?;
                link.counters.accepted.inc();
                Ok((request, answer))
            };
            let (answer, request) = inbox.next(&link.budget, accept).await?;
            let responder = Responder::new(answer, link.budget.message_bytes());
            match request {
                Ok(request) => return Ok((request, responder)),
                Err(Unread::Gone(reason)) => return Err(NetError::Gone(reason)),
                Err(Unread::Reset(_)) => {}
                Err(Unread::TooLarge) => {
                    self.count_oversized("request");
                    responder.too_large();
                }
            }
        }
    }

    /// Resolves when the link is gone; the reason for people.
    pub async fn closed(&self) -> String {
        describe(&self.0.connection.closed().await)
    }

    /// Whether the other end has ended the link in an orderly way.
    #[must_use]
    pub fn was_left(&self) -> bool {
        let reason = self.0.connection.close_reason();
        matches!(reason, Some(ConnectionError::ApplicationClosed(theirs)) if theirs.error_code == CLOSE_ORDERLY)
    }

    /// Resolves when the link should be replaced by a new one: it is old, a certificate of either end nears its end, or
    /// we have a new one. Whoever is told opens the new link before the old one is given up.
    pub async fn due(&self) {
        self.0.term.is_due().await;
    }

    /// Ends the link at once; what was not delivered is lost. The other end is told `reason`.
    pub fn close(&self, reason: &str) {
        let end = reason.floor_char_boundary(REASON_BYTES_MAX);
        self.0.connection.close(CLOSE_ORDERLY, &reason.as_bytes()[..end]);
    }

    /// Whether two handles are the same link.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.0.connection
    }

    fn check_size(&self, message: &Bytes) -> Result<(), NetError> {
        let limit = self.0.budget.message_bytes();
        if message.len() > limit { Err(NetError::TooLarge { bytes: message.len(), limit }) } else { Ok(()) }
    }

    fn count_oversized(&self, what: &'static str) {
        self.0.counters.oversized.inc();
        let limit = self.0.budget.message_bytes();
        tracing::debug!(peer = %self.0.peer, code = TOO_LARGE.into_inner(), limit, "a {what} beyond the bound was refused");
    }
}

impl From<ConnectionError> for NetError {
    fn from(error: ConnectionError) -> Self {
        Self::Gone(describe(&error))
    }
}
