//! The clients' side of the protocol, without input and output: what an ingress or a native client does to get each
//! request executed once ([`Sender`]), and what a SMaRtClient does to find the right answer ([`SmartClient`]).
//!
//! It stands beside the ordering core, and not in the processes that run it, because the simulator runs them together.

mod machine;
#[cfg(feature = "net")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod running;
pub mod sender;
pub mod smart_client;
mod tally;
#[cfg(test)]
mod tests;

pub use machine::Machine;
pub use sender::Sender;
pub use smart_client::SmartClient;
pub use tally::ReplyVote;
