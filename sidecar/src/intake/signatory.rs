//! Signs this server's words on outcomes: those of a turn together, so that a turn costs one signature.

use mesh::auth::{self, BATCH_MAX, SharedProof};
use mesh::ids::{Digest, ReplicaId, Slot};
use mesh::net::Signer;
use mesh::time::{Duration, Instant};
use mesh::wire::submit::Signed;
use mesh::wire::{Outcome, Tag};
use std::sync::Arc;

/// From the announcement of a key to its first use: its certificate takes two links to those who check it.
const NOTICE: Duration = Duration::from_secs(2);

/// What is said of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Saying {
    pub(crate) tag: Tag,
    pub(crate) slot: Slot,
    pub(crate) form: Digest,
}

/// Whose words they are.
#[derive(Debug)]
pub(crate) struct Voice {
    /// The cluster's name.
    pub(crate) cluster: String,
    pub(crate) replica: ReplicaId,
    /// The members with an application, among which replies are counted (rule 29).
    pub(crate) electorate: u16,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Signatory {
    voice: Voice,
    signer: Arc<Signer>,
    /// What signs next, and from when on.
    next: Option<(Instant, Arc<Signer>)>,
}

impl Signatory {
    /// Signs with that key until told of another.
    pub(crate) fn new(voice: Voice, signer: Arc<Signer>) -> Self {
        signer.is_in_use();
        Self { voice, signer, next: None }
    }

    /// So many members' replies count from now on.
    pub(crate) fn set_electorate(&mut self, electorate: usize) {
        self.voice.electorate = u16::try_from(electorate).unwrap_or(u16::MAX);
    }

    /// What signs now and what will soon.
    pub(crate) fn signers(&self) -> impl Iterator<Item = &Signer> {
        std::iter::once(&*self.signer).chain(self.next.iter().map(|(_, signer)| &**signer))
    }

    /// Another key signs before long.
    pub(crate) fn succeed(&mut self, now: Instant, signer: Arc<Signer>) {
        self.next = Some((now + NOTICE, signer));
    }

    /// Takes the next key if it is time. To be called about once a second.
    pub(crate) fn look_at_the_time(&mut self, now: Instant) {
        if let Some((_, signer)) = self.next.take_if(|(from, _)| *from <= now) {
            tracing::info!(key = %signer.key().public(), "replies are signed with another key from now on");
            signer.is_in_use();
            self.signer = signer;
        }
    }

    /// Signs words, each with the outcome where its bytes are still there; in their order.
    pub(crate) fn sign<'a>(&self, words: impl Iterator<Item = (&'a Saying, Option<&'a Outcome>)>) -> Vec<Signed> {
        let Voice { cluster, replica, electorate } = &self.voice;
        let (mut contents, mut statements) = (Vec::new(), Vec::new());
        for (Saying { tag, slot, form }, outcome) in words {
            let content = outcome.map_or_else(|| auth::no_content(form), Outcome::content);
            statements.push(auth::reply_statement(cluster, *replica, tag, *slot, *electorate, form, &content));
            contents.push(content);
        }
        let proofs = statements.chunks(BATCH_MAX).flat_map(|batch| auth::sign(self.signer.key(), batch));
        let signed = |(content, proof)| Signed { electorate: *electorate, content, proof: SharedProof::new(proof) };
        contents.into_iter().zip(proofs).map(signed).collect()
    }
}
