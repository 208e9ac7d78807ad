//! The clients' side of the protocol, and the native client.
//!
//! The protocol is without input and output: what an ingress or a native client does to get each request executed once
//! ([`Sender`]), what a SMaRtClient does to find the right answer ([`SmartClient`]), what a session of one's own is
//! ([`own`]). It stands beside the ordering core, and not in the processes that run it, because the simulator runs them
//! together.
//!
//! # The native client
//!
//! Feature `net` has it running: [`Client`], for programs that need no TCP and no ingress.
//!
//! [`Client::invoke`] is the simple way. However often the request has to be sent, to however many SMaRtClients, it is
//! executed once at most, and its reply is the one that the servers voted for. Its errors are *definite* (it did not
//! run and never will) or *unknown*. But when this program dies before the reply, its next life cannot find out.
//!
//! A [`Session`] can. It is opened on the servers and has a name; its requests are numbered, one after the other; the
//! servers run each number once, and keep the reply of the newest for whoever asks again. Therefore:
//!
//! 1. Store the session's name, the number ([`Session::next`]) and the request, durably, **before** [`Session::invoke`].
//! 2. Use the reply, then store that the number is settled.
//! 3. After a crash, take the session up with what was stored ([`Client::resume_in_doubt`]) and either invoke the same
//!    request again, which returns its reply if it ran and runs it if it did not; or [settle](Session::settle) it, which
//!    tells whether it ran, and if not, that it never will.
//!
//! The same holds, without a crash, after an unknown outcome or when the future of an `invoke` was dropped: the session
//! refuses any other request until the one in doubt is invoked again or settled.
//!
//! ```no_run
//! use mesh::client::{Client, ClientConfig, InvokeError, Session, SessionName};
//! use mesh::ids::Seq;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # fn stored() -> Option<(SessionName, Seq, Option<Vec<u8>>)> { None }
//! # fn store(_: SessionName, _: Seq, _: Option<&[u8]>) {}
//! let client = Client::connect(ClientConfig::new("demo", "0", "pki/client/0", ["127.0.0.1:7510"])).await?;
//!
//! // Nothing to remember:
//! let reply = client.invoke("GET visits\n").await?;
//!
//! // Exactly once, whatever happens to this program. `stored` and `store` are a file, written atomically and synced.
//! let mut session = match stored() {
//!     None => client.open_session().await?,
//!     Some((name, next, None)) => client.resume_settled(name, next),
//!     Some((name, seq, Some(request))) => {
//!         let mut session = client.resume_in_doubt(name, seq, request);
//!         let settled = session.settle().await?; // It ran, and this is the reply; or it never will.
//!         println!("the request in doubt: {settled:?}");
//!         store(session.name(), session.next(), None);
//!         session
//!     }
//! };
//! let request = b"INCR visits\n";
//! store(session.name(), session.next(), Some(request));
//! match session.invoke(&request[..]).await {
//!     Ok(reply) => println!("{reply:?}"),
//!     Err(InvokeError::NotRun(why)) => println!("it did not run: {why}"),
//!     Err(InvokeError::Unknown(why)) => return Err(why.into()), // Still stored: the next life settles it.
//! }
//! store(session.name(), session.next(), None);
//! # Ok(())
//! # }
//! ```
//!
//! What cannot be learned any more, and therefore stays unknown for ever: a request of a session that was closed, or
//! evicted because the table of sessions was full and none was idle for longer ([`Unknown::SessionGone`]); one that is
//! older than the replies that are kept ([`Unknown::TooOld`]); one whose reply is larger than what is kept. Numbers leave
//! no gaps: one that is ahead of its predecessors waits for them until its deadline, and one that is far ahead ends as
//! [`Unknown::OutOfWindow`]. A session belongs to one caller at a time: whoever uses a number that another one used with
//! another request is told so ([`Unknown::OtherBody`]) and runs nothing.

mod budget;
mod electorate;
mod machine;
#[cfg(feature = "net")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
mod native;
pub mod own;
mod read_desk;
#[cfg(feature = "net")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod running;
pub mod sender;
pub mod smart_client;
mod tally;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_leader;
#[cfg(test)]
mod tests_reads;

pub use budget::SAVED as RESENDS_SAVED;
pub use machine::Machine;
#[cfg(feature = "net")]
pub use native::{Client, ClientConfig, CloseError, ConnectError, Session};
pub use own::{InvokeError, NotRun, SessionName, Settled, Unknown};
pub use sender::Sender;
pub use smart_client::SmartClient;
pub use tally::ReplyVote;
