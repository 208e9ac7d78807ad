//! Proof that a request was checked: the core only takes [`Verified`] ones, and only this module makes them.

use crate::wire::Request;

/// A value whose origin was checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// The value.
    pub fn into_inner(self) -> T {
        self.0
    }

    /// A look at the value.
    pub fn get(&self) -> &T {
        &self.0
    }
}

/// Accepts a request on the word of the mutually authenticated link that it came over: the peer's certificate names
/// it a SMaRtClient (or a member that forwards). Says nothing about what a malicious SMaRtClient made up.
#[must_use]
pub fn by_transport(request: Request) -> Verified<Request> {
    Verified(request)
}
