//! The stateless, possibly untrusted side of Lockstep: the processes between external clients and the servers.
//!
//! Three ways in, all around the pure protocols of [`mesh::client`]: [`ingress`] takes TCP connections of unmodified
//! clients, [`smart_client`] asks the servers and votes on their replies, [`call`] is one request of a native client.
//! Nothing here outlives its process, and nothing here may be trusted with what must not be lost.

pub mod call;
pub mod ingress;
pub mod smart_client;

mod admin;
mod process;
#[cfg(test)]
mod tests;
