//! Whether a SMaRtClient's word is believed. With signed replies it can delay, and nothing else: an outcome needs the
//! words of as many servers as the reply rule says (rule 29), and what no server signs is not definite (rule 22).

#[cfg(test)]
mod tests;

use super::doubts::Doubts;
use super::keys::Keys;
use crate::auth::{Signatures, Verifier, Vouched};
use crate::client::ReplyVote;
use crate::client::sender::Endpoint;
use crate::ids::{Digest, ReplicaId};
use crate::limits::MEMBERS_MAX;
use crate::net::SignerTrust;
use crate::time::Instant;
use crate::wire::client::{Told, Unknown};
use crate::wire::{Outcome, Tag};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Why an outcome is not believed. The names are labels of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unbelieved {
    /// No server's word is with it, and that is demanded.
    Unsigned,
    /// A server's word is signed with a key that is not known to be its own.
    UnknownSigner,
    /// A signature does not hold: it is of another request, or altered.
    BadSignature,
    /// The servers' words are about other bytes.
    Altered,
    /// Fewer servers than the reply rule needs say so.
    TooFew,
}

impl Unbelieved {
    /// Every reason.
    pub(super) const ALL: [Self; 5] =
        [Self::Unsigned, Self::UnknownSigner, Self::BadSignature, Self::Altered, Self::TooFew];

    /// The label.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Unsigned => "reply_unsigned",
            Self::UnknownSigner => "reply_unknown_signer",
            Self::BadSignature => "reply_bad_signature",
            Self::Altered => "reply_altered",
            Self::TooFew => "reply_too_few_signers",
        }
    }
}

/// What to make of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// It is as good as if it came from the servers.
    Believed(Told),
    /// One SMaRtClient says so: others are to be asked.
    Doubted,
    /// It is proved to be no word of the servers', or not proved to be one.
    Rejected(Unbelieved),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Witness {
    cluster: String,
    mode: Signatures,
    vote: ReplyVote,
    keys: Keys,
    verifier: Verifier,
    doubts: Doubts,
}

impl Witness {
    /// Believes the servers whose certificates `trust` accepts.
    pub(super) fn new(cluster: &str, mode: Signatures, vote: ReplyVote, trust: Arc<SignerTrust>) -> Self {
        let (keys, verifier, doubts) = (Keys::new(trust), Verifier::default(), Doubts::default());
        Self { cluster: cluster.to_owned(), mode, vote, keys, verifier, doubts }
    }

    /// A SMaRtClient shows the servers' certificates.
    pub(super) fn shown(&mut self, now: Instant, endpoint: Endpoint, certificates: Vec<(ReplicaId, Bytes)>) {
        if self.mode != Signatures::Off {
            self.keys.shown(now, endpoint, certificates);
        }
    }

    /// Believes other authorities from now on, and those servers only whose certificates they accept.
    pub(super) fn trust(&mut self, now: Instant, trust: Arc<SignerTrust>) {
        self.keys.trust(now, trust);
    }

    /// A SMaRtClient is gone.
    pub(super) fn down(&mut self, endpoint: Endpoint) {
        self.keys.down(endpoint);
    }

    /// Judges what a SMaRtClient told of the request `tag`, while those of `ready` are asked.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        (endpoint, ready): (Endpoint, &[Endpoint]),
        tag: &Tag,
        told: Told,
    ) -> Judged {
        if self.mode == Signatures::Off {
            return Judged::Believed(told);
        }
        match &told {
            Told::Outcome { outcome, vouched } => {
                if self.keys.has_news(endpoint) || vouched.iter().any(|word| !self.keys.knows(word.replica)) {
                    // Its certificate may have come while others were looked at.
                    self.keys.look_again(now, endpoint);
                }
                match self.weigh(tag, outcome, vouched) {
                    Ok(()) => {
                        self.doubts.settled(tag);
                        Judged::Believed(told)
                    }
                    // It may be signed with a key that could not be looked at yet: no lie.
                    Err(Unbelieved::BadSignature) if self.keys.has_news(endpoint) => {
                        Judged::Rejected(Unbelieved::UnknownSigner)
                    }
                    Err(why) => Judged::Rejected(why),
                }
            }
            // What the sender makes of these is never definite here: it has been told that SMaRtClients may lie.
            Told::NothingSent(_) | Told::Unknown(Unknown::Deadline | Unknown::Lost) | Told::Unread(_) => {
                Judged::Believed(told)
            }
            Told::Unknown(word) => {
                let single = self.mode == Signatures::Required;
                // One that is not asked any more may have been caught at a lie: the others have still to be heard.
                let others = ready.iter().filter(|other| **other != endpoint).count();
                if single && !self.doubts.said(now, endpoint, *tag, *word, others + 1) {
                    return Judged::Doubted;
                }
                self.doubts.settled(tag);
                Judged::Believed(told)
            }
        }
    }

    /// Whether enough servers have signed this outcome of this request.
    fn weigh(&mut self, tag: &Tag, outcome: &Outcome, vouched: &[Vouched]) -> Result<(), Unbelieved> {
        if vouched.is_empty() {
            return if self.mode == Signatures::Required { Err(Unbelieved::Unsigned) } else { Ok(()) };
        }
        let content = outcome.content();
        let vote = self.vote;
        let needed = |words: &[&Vouched]| {
            let electorate = words.iter().map(|word| word.electorate).max().unwrap_or_default();
            vote.needed(usize::from(electorate)).max(1)
        };
        // Of each server the first word counts.
        let mut seen = BTreeSet::new();
        let words: Vec<&Vouched> = vouched.iter().filter(|word| seen.insert(word.replica)).take(MEMBERS_MAX).collect();
        let most_needed = needed(&words);
        let mut worst = None;
        let mut held: Vec<&Vouched> = Vec::new();
        for word in words {
            match self.holds(tag, word) {
                Ok(()) => held.push(word),
                Err(why) => worst = Some(why),
            }
            // What is proved stays so, whatever the rest is: each word costs a verification.
            if self.mode == Signatures::Required && agreed(&held, Some(&content)) >= most_needed {
                return Ok(());
            }
        }
        let needed = needed(&held);
        let most = agreed(&held, None);
        let proved = agreed(&held, Some(&content)) >= needed;
        match (proved, worst) {
            (true, None) => Ok(()),
            // One that is signed as it must be stays so, whatever else is said of it.
            (true, Some(_)) if self.mode == Signatures::Required => Ok(()),
            (_, Some(why)) => Err(why),
            (false, None) if most >= needed => Err(Unbelieved::Altered),
            // Some servers sign and others do not yet.
            (false, None) if self.mode == Signatures::Optional => Ok(()),
            (false, None) => Err(Unbelieved::TooFew),
        }
    }

    fn holds(&mut self, tag: &Tag, word: &Vouched) -> Result<(), Unbelieved> {
        let mut known = false;
        for key in self.keys.of(word.replica) {
            known = true;
            if word.holds(&self.cluster, tag, &key, &mut self.verifier) {
                return Ok(());
            }
        }
        Err(if known { Unbelieved::BadSignature } else { Unbelieved::UnknownSigner })
    }
}

/// How many words say the same form, at most: of those forms that one of them says of these very bytes, if any are named.
fn agreed(words: &[&Vouched], content: Option<&Digest>) -> usize {
    let named = |word: &&&Vouched| content.is_none_or(|content| word.content == *content);
    let same = |word: &&Vouched| words.iter().filter(|other| other.form == word.form).count();
    words.iter().filter(named).map(same).max().unwrap_or_default()
}
