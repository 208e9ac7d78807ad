//! The stateless, possibly untrusted side of Lockstep: the processes between external clients and the servers.
//!
//! Two processes around the pure protocols of [`mesh::client`]: [`ingress`] takes TCP connections of unmodified clients,
//! [`smart_client`] asks the servers and votes on their replies. (Native clients have [`mesh::client::Client`].)
//! Nothing here outlives its process, and nothing here may be trusted with what must not be lost.

pub mod ingress;
pub mod smart_client;

mod admin;
#[cfg(test)]
mod tests;
