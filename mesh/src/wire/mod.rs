//! What travels between the parts: versioned messages, one a stream, postcard-encoded.
//!
//! The version is in the ALPN of each kind of link, so a message has none. A stream carries exactly one message; its
//! reader stops at [`crate::limits::Limits::message_bytes`] before anything is allocated for it.

pub mod admin;
pub mod client;
pub mod peer;
pub mod request;
pub mod roster;
pub mod submit;
#[cfg(test)]
mod tests;
pub mod transfer;

pub use peer::Message;
pub use request::{Body, Kind, Outcome, Refusal, Request, Tag};

use bytes::Bytes;
use postcard::ser_flavors::Flavor;
use serde::{Serialize, de::DeserializeOwned};
use std::cell::RefCell;

/// Server to server: consensus messages on unidirectional streams, state transfer on bidirectional ones.
pub const ALPN_PEER: &[u8] = b"lockstep-peer/6";
/// SMaRtClient to server: requests on unidirectional streams, bundled replies and votes back on unidirectional ones.
pub const ALPN_SUBMIT: &[u8] = b"lockstep-submit/6";
/// Ingress or native client to SMaRtClient: the same.
pub const ALPN_CLIENT: &[u8] = b"lockstep-client/6";
/// Operator to server: bootstrap, snapshots, aborts.
pub const ALPN_ADMIN: &[u8] = b"lockstep-admin/4";

/// Bytes that are no message of the expected type: the peer's fault (or its version's), never ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message")]
pub struct Malformed;

/// The bytes of `message`.
///
/// # Panics
/// Never for the types of this module: their encoding cannot fail.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Bytes {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        postcard::serialize_with_flavor(message, Scratch(scratch)).expect("wire types always encode");
        if scratch.len() > SCRATCH_BYTES {
            return std::mem::take(scratch).into();
        }
        Bytes::copy_from_slice(scratch)
    })
}

/// Messages up to here are encoded in a buffer that is used again: a new one would grow in many steps.
const SCRATCH_BYTES: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Scratch<'a>(&'a mut Vec<u8>);

impl Flavor for Scratch<'_> {
    type Output = ();
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// The message that all of `bytes` is.
///
/// # Errors
/// [`Malformed`] if the bytes are anything else, bytes left over included.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err(Malformed),
    }
}
