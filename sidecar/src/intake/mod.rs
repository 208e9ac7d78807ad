//! Requests of SMaRtClients: taken from their links, answered by the turn.

mod checker;
mod link;
mod outbox;
mod signatory;
mod waiters;

pub(crate) use checker::{Checker, Held, Judged};
pub(crate) use link::{Ask, Event, LinkId, serve};
pub(crate) use signatory::Voice;
pub(crate) use waiters::{WAIT_MAX, Waiters};
