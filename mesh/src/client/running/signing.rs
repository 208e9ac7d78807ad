//! Signs requests on their way out: all of one turn with one signature, for each key.

use crate::auth::{self, BATCH_MAX, PublicKey, SharedProof};
use crate::client::sender::Endpoint;
use crate::net::Signer;
use crate::time::Duration;
use crate::wire::Request;
use std::sync::Arc;

/// A request that is to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) endpoint: Endpoint,
    pub(super) request: Request,
    /// The key of its session; the newest one where that is not known.
    pub(super) key: Option<PublicKey>,
    pub(super) within: Duration,
}

/// The keys of this life of the process, and what waits to be signed with them.
#[derive(Debug)]
pub(super) struct Pen {
    cluster: String,
    /// The newest at the end: sessions keep the key that opened them.
    signers: Vec<Arc<Signer>>,
    waiting: Vec<Outgoing>,
}

impl Pen {
    /// Without a signer requests go out as they are.
    pub(super) fn new(cluster: &str, signer: Option<Arc<Signer>>) -> Self {
        let mut pen = Self { cluster: cluster.to_owned(), signers: Vec::new(), waiting: Vec::new() };
        signer.into_iter().for_each(|signer| pen.take(signer));
        pen
    }

    /// Signs with another key from now on, where the session does not have one.
    pub(super) fn take(&mut self, signer: Arc<Signer>) {
        self.signers.retain(|known| known.key().public() != signer.key().public());
        signer.is_in_use();
        self.signers.push(signer);
    }

    pub(super) fn add(&mut self, outgoing: Outgoing) {
        self.waiting.push(outgoing);
    }

    /// What was added since the last time, signed.
    pub(super) fn sign(&mut self) -> Vec<Outgoing> {
        let mut waiting = std::mem::take(&mut self.waiting);
        let Some(newest) = self.signers.last() else { return waiting };
        for signer in &self.signers {
            let key = signer.key().public();
            let own = |outgoing: &&mut Outgoing| match outgoing.key {
                Some(wanted) => wanted == key,
                None => Arc::ptr_eq(signer, newest),
            };
            let mut own: Vec<&mut Outgoing> = waiting.iter_mut().filter(own).collect();
            for batch in own.chunks_mut(BATCH_MAX) {
                let statements: Vec<_> =
                    batch.iter().map(|outgoing| auth::request_statement(&self.cluster, &outgoing.request)).collect();
                for (outgoing, proof) in batch.iter_mut().zip(auth::sign(signer.key(), &statements)) {
                    outgoing.request.proof = Some(SharedProof::new(proof));
                }
            }
        }
        waiting
    }
}
