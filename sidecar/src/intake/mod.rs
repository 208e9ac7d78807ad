//! Requests of SMaRtClients: taken from their links, answered on their streams, their votes bundled.

mod link;
mod signatory;
mod waiters;

pub(crate) use link::{Ask, Event, LinkId, serve};
pub(crate) use signatory::Voice;
pub(crate) use waiters::{Delivery, Waiters};
