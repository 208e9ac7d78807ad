//! What is signed: the hash of everything about a request or a reply that matters.

use super::merkle::SharedProof;
use super::{PublicKey, Verifier};
use crate::ids::{Digest, Opening, ReplicaId, Slot};
use crate::wire::{Body, Outcome, Request, Tag};
use serde::{Deserialize, Serialize};

/// The statement of a request: its cluster, its name, which has the generation, its kind and the hash of its body.
#[must_use]
pub fn request(cluster: &str, request: &Request) -> Digest {
    let mut hasher = begin(b"lockstep request v2\0", cluster, &request.tag());
    match &request.body {
        Body::Call(bytes) => hasher.update(blake3::hash(bytes).as_bytes()),
        Body::Open { window, owner } => {
            hasher.update(&window.to_le_bytes());
            // The certificate is signed by its authority; here it is the key that counts.
            let owner = owner.as_deref();
            let key = owner.map_or([0; 32], |owner| owner.key.0);
            hasher.update(&key).update(&owner.map_or(0, |owner| owner.nonce).to_le_bytes())
        }
        // The latter is of nobody's session, and so nobody's to sign.
        Body::Cancel | Body::Close | Body::Refused(_) | Body::Read(_) => &mut hasher,
    };
    Digest(*hasher.finalize().as_bytes())
}

/// A server's word on the outcome of a request, for whoever does not trust the SMaRtClient that carries it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Vouched {
    /// Which server.
    pub replica: ReplicaId,
    /// The slot that ordered the request.
    pub slot: Slot,
    /// The members with an application at that time: of so many the reply rule counts a majority.
    pub electorate: u16,
    /// The hash of the outcome's comparison form.
    pub form: Digest,
    /// [`Outcome::content`].
    pub content: Digest,
    /// That server's signature.
    pub proof: SharedProof,
}

/// The statement of a reply.
#[must_use]
#[allow(clippy::too_many_arguments, reason = "one for each thing that is bound")]
pub fn reply(
    cluster: &str,
    replica: ReplicaId,
    tag: &Tag,
    slot: Slot,
    electorate: u16,
    form: &Digest,
    content: &Digest,
) -> Digest {
    let mut hasher = begin(b"lockstep reply v2\0", cluster, tag);
    hasher.update(&replica.0.to_le_bytes()).update(&slot.0.to_le_bytes()).update(&electorate.to_le_bytes());
    hasher.update(&form.0).update(&content.0);
    Digest(*hasher.finalize().as_bytes())
}

impl Vouched {
    /// Whether `key` has signed this word on the request `tag`.
    pub fn holds(&self, cluster: &str, tag: &Tag, key: &PublicKey, verifier: &mut Verifier) -> bool {
        let said = reply(cluster, self.replica, tag, self.slot, self.electorate, &self.form, &self.content);
        verifier.holds(&self.proof, &said, key)
    }
}

impl Outcome {
    /// The hash of all of the outcome, not only of its comparison form. No reply of an application has the hash of an
    /// outcome that is none.
    #[must_use]
    pub fn content(&self) -> Digest {
        match self {
            Self::Executed(bytes) => Digest::of(bytes).chain(b"executed"),
            other => other.form().chain(b"not executed"),
        }
    }
}

/// What a server vouches for that kept only the hash of an outcome, in the place of [`Outcome::content`]: its word counts
/// for the form, and for no bytes, since no outcome has this content.
#[must_use]
pub fn no_content(form: &Digest) -> Digest {
    form.chain(b"hash only")
}

fn begin(domain: &[u8], cluster: &str, tag: &Tag) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(domain).update(&(cluster.len() as u64).to_le_bytes()).update(cluster.as_bytes());
    hasher.update(&tag.client.0.to_le_bytes());
    // No request that opens a session names a generation, and the answer to it does: what is of another one is void.
    let Opening { generation, slot } = tag.opened;
    hasher.update(&generation.count.to_le_bytes()).update(&generation.mark.to_le_bytes()).update(&slot.0.to_le_bytes());
    hasher.update(&tag.seq.0.to_le_bytes()).update(&[tag.kind as u8]);
    hasher
}
