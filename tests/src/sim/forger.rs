//! Signatures: senders sign, servers check, and a SMaRtClient of another's making forges what it saw.

use super::World;
use crate::check::{Verdict, Violation};
use bytes::Bytes;
use mesh::auth::{self, Checked, Owner, Proof, Rejected, SecretKey, SharedProof, Signatures, Verified};
use mesh::client::sender::Card;
use mesh::ids::{ClientId, Seq};
use mesh::wire::{Body, Refusal, Request};
use std::collections::BTreeSet;

/// The name of the simulated cluster.
pub(super) const CLUSTER: &str = "simulated";

/// What was forged: none of it may be executed.
#[derive(Debug, Default)]
pub struct Forger {
    forged: BTreeSet<Bytes>,
}

/// The key of a sender, through all its lives.
fn key(sender: usize) -> SecretKey {
    SecretKey::from_seed(&[sender as u8 + 1; 32]).expect("any seed makes a key")
}

/// Signs requests that leave together.
pub(super) fn sign<'a>(sender: usize, requests: impl Iterator<Item = &'a mut Request>) {
    let mut requests: Vec<_> = requests.collect();
    let statements: Vec<_> = requests.iter().map(|request| auth::request_statement(CLUSTER, request)).collect();
    for (request, proof) in requests.iter_mut().zip(auth::sign(&key(sender), &statements)) {
        request.proof = Some(SharedProof::new(proof));
    }
}

/// A proof with its path, and another signature.
fn garbled(proof: &Proof) -> SharedProof {
    let mut bytes = mesh::wire::encode(proof).to_vec();
    bytes[40] ^= 1;
    SharedProof::new(mesh::wire::decode(&bytes).expect("it has the same shape"))
}

impl World {
    pub(super) fn signs(&self) -> bool {
        self.options.cluster.request_signatures != Signatures::Off
    }

    /// What a sender shows of itself, with signatures.
    pub(super) fn card(&self, sender: usize) -> Option<Card> {
        // Nobody looks at certificates here.
        self.signs().then(|| Card { key: key(sender).public(), certificate: Bytes::from_static(b"certificate") })
    }

    /// Who opens a session of one's own, and its client id.
    pub(super) fn opener(&self, sender: usize, chance: u128) -> (ClientId, Option<Owner>) {
        let owner = self.card(sender).map(|card| card.owner(chance));
        (owner.as_ref().map_or_else(|| ClientId::unowned(chance), Owner::client), owner)
    }

    /// What a server makes of a request that came from outside.
    pub(super) fn believe(&self, server: usize, request: Request) -> Result<Verified, Rejected> {
        let Some(replica) = &self.servers[server].replica else { return Ok(auth::by_transport(request)) };
        let mode = self.options.cluster.request_signatures;
        let needed = replica.needed(&request);
        match auth::check(request, needed, mode, CLUSTER, replica.verifier())? {
            Checked::Verified(verified) => Ok(verified),
            Checked::Sought(seeking) => seeking.finish(),
        }
    }

    /// What a malicious SMaRtClient makes of a request that it saw, if it does.
    pub(super) fn forge(&mut self, request: &Request) -> Option<Request> {
        if !self.signs() || self.healed || !self.chance.chance(30) {
            return None;
        }
        self.counters.forgeries += 1;
        self.values += 1;
        let bytes = Bytes::from(format!("PUT 0 {}\n", self.values));
        self.forger.forged.insert(bytes.clone());
        let call = Body::Call(bytes);
        let forged = request.clone();
        Some(match self.chance.below(8) {
            0 => Request { body: call, ..forged },
            1 => Request { body: call, seq: Seq(request.seq.0 + 1), ..forged },
            2 => Request { body: call, proof: None, ..forged },
            3 => Request { body: Body::Cancel, ..forged },
            4 => Request { body: Body::Close, proof: None, ..forged },
            5 => Request { body: Body::Refused(Refusal::LogFull), ..forged },
            // The request itself under another signature: nobody may take it, not even who knows the root.
            6 => Request { proof: request.proof.as_deref().map(garbled), ..forged },
            _ => Request { seq: Seq(request.seq.0 + 1), ..forged },
        })
    }
}

impl Forger {
    /// An application is given a call.
    pub fn on_call(&self, bytes: &Bytes) -> Verdict {
        if self.forged.contains(bytes) {
            let what = format!("{bytes:?} was made up and is executed");
            return Err(Violation { check: "forged", what });
        }
        Ok(())
    }
}
