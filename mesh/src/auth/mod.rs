//! Who said something: proofs of requests and replies, and the type that only checked requests have.
//!
//! With signatures a request carries a proof that the owner of its session made it, and a reply carries proofs that
//! servers gave it; SMaRtClients in between can then only delay. Everything here is a pure function of bytes and keys.
//! Whether a certificate is to be trusted is asked elsewhere, once, when a session is opened (rule 16).

mod key;
mod merkle;
mod statement;
#[cfg(test)]
mod tests;

pub use key::{BadKey, PublicKey, SecretKey, Signature};
pub use merkle::{Answered, Asked, BATCH_MAX, Proof, Question, SharedProof, Verifier, sign};
pub use statement::{Vouched, no_content, reply as reply_statement, request as request_statement};

use crate::ids::{ClientId, Digest};
use crate::wire::{Body, Request};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Whether signatures are made and demanded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signatures {
    /// They are neither made nor looked at.
    #[default]
    Off,
    /// They are made; what is unsigned is taken, what is badly signed is not.
    Optional,
    /// They are made, and demanded.
    Required,
}

/// Who opens a session: its requests are signed with this key, and no others are executed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The key.
    pub key: PublicKey,
    /// Makes the client id: see [`Owner::client`].
    pub nonce: u128,
    /// The signing certificate that has the key (DER). The leader looks at it before it orders the opening; nobody
    /// does afterwards (rule 16).
    pub certificate: Bytes,
}

/// Bytes of a signing certificate at most.
pub const CERTIFICATE_BYTES_MAX: usize = 4096;

/// Client ids with this bit belong to keys, those without to nobody.
const OWNED: u128 = 1 << 127;

impl Owner {
    /// The client id that belongs to the key and the nonce, and to no other key (rule 17).
    #[must_use]
    pub fn client(&self) -> ClientId {
        let digest = Digest::of(b"lockstep client v1\0").chain(&self.key.0).chain(&self.nonce.to_le_bytes());
        let mut first = [0; 16];
        first.copy_from_slice(&digest.0[..16]);
        ClientId(u128::from_le_bytes(first) | OWNED)
    }
}

impl ClientId {
    /// An id that belongs to no key.
    #[must_use]
    pub fn unowned(chance: u128) -> Self {
        Self(chance & !OWNED)
    }

    /// Whether it belongs to a key.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        self.0 & OWNED != 0
    }
}

/// Why a request or a reply is not believed. The names are labels of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Rejected {
    /// It carries no proof where one is demanded.
    #[error("it is not signed")]
    Unsigned,
    /// Its proof does not hold.
    #[error("its signature does not hold")]
    BadSignature,
    /// It opens a session under a client id that is not its key's.
    #[error("its client id is not the one of its key")]
    WrongClient,
    /// Its signer's certificate is not to be trusted.
    #[error("its signer's certificate is not trusted")]
    UntrustedSigner,
    /// Only a leader makes such requests.
    #[error("no client may send it")]
    NotForClients,
}

impl Rejected {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::Unsigned, Self::BadSignature, Self::WrongClient, Self::UntrustedSigner, Self::NotForClients];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::BadSignature => "bad_signature",
            Self::WrongClient => "wrong_client",
            Self::UntrustedSigner => "untrusted_signer",
            Self::NotForClients => "not_for_clients",
        }
    }
}

/// A request that was checked at the intake: the core takes no other from outside.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Verified {
    request: Request,
    /// What was found out about its proof.
    held: Option<Answered>,
}

impl Verified {
    /// The request, and what the core's own [`Verifier`] need not find out again.
    #[must_use]
    pub fn into_parts(self) -> (Request, Option<Answered>) {
        (self.request, self.held)
    }

    /// A look at the request.
    #[must_use]
    pub fn get(&self) -> &Request {
        &self.request
    }
}

/// The first half of the check of a request that came from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It may be ordered.
    Verified(Verified),
    /// It may, if the answer is yes.
    Sought(Seeking),
}

/// A request and what is to be found out about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeking {
    request: Request,
    question: Question,
}

impl Seeking {
    /// Whose certificate is to be looked at too: of whoever opens a session.
    #[must_use]
    pub fn opener(&self) -> Option<&Owner> {
        match &self.request.body {
            Body::Open { owner, .. } => owner.as_deref(),
            _ => None,
        }
    }

    /// What the request is.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// What is to be found out.
    #[must_use]
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// The request, if this is the answer to its question. A signer's certificate is not looked at here.
    ///
    /// # Errors
    /// [`Rejected::BadSignature`]: it is the answer to another one.
    pub fn settle(self, answered: &Answered) -> Result<Verified, Rejected> {
        if *answered.question() != self.question {
            return Err(Rejected::BadSignature);
        }
        Ok(Verified { request: self.request, held: Some(*answered) })
    }

    /// Finds it out here and now.
    ///
    /// # Errors
    /// [`Rejected::BadSignature`].
    pub fn finish(self) -> Result<Verified, Rejected> {
        let answered = self.question.answer().ok_or(Rejected::BadSignature)?;
        self.settle(&answered)
    }
}

/// Whose request it must be, as far as is known where it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// Nobody's in particular: signatures are off, or its session has no owner, or no such session is known here and it
    /// will be turned away for that.
    Nothing,
    /// The owner's of its session.
    Key(PublicKey),
}

/// Judges a request that came from outside (a SMaRtClient), as far as that is cheap. Opening requests always go all
/// the way: their signers' certificates are looked at each time.
///
/// # Errors
/// It is not to be ordered.
pub fn check(
    request: Request,
    needed: Needed,
    mode: Signatures,
    cluster: &str,
    known: &Verifier,
) -> Result<Checked, Rejected> {
    if matches!(request.body, Body::Refused(_) | Body::Read(_)) {
        return Err(Rejected::NotForClients);
    }
    if !request.is_bounded() {
        return Err(Rejected::BadSignature);
    }
    let (key, opens) = match (opening(&request, mode)?, needed) {
        (Some(key), _) => (key, true),
        (None, Needed::Key(key)) if !matches!(request.body, Body::Open { .. }) => (key, false),
        _ => return Ok(Checked::Verified(Verified { request, held: None })),
    };
    let proof = request.proof.as_ref().ok_or(Rejected::Unsigned)?;
    match known.question(proof, &request_statement(cluster, &request), &key) {
        Asked::Nonsense => Err(Rejected::BadSignature),
        Asked::Known if !opens => Ok(Checked::Verified(Verified { request, held: None })),
        Asked::Known => {
            let question = Question::of(proof, &request_statement(cluster, &request), &key);
            Ok(Checked::Sought(Seeking { question: question.ok_or(Rejected::BadSignature)?, request }))
        }
        Asked::Sought(question) => Ok(Checked::Sought(Seeking { request, question })),
    }
}

/// Takes an unchecked request for a checked one: for tests of what comes after the check.
#[must_use]
pub fn by_transport(request: Request) -> Verified {
    Verified { request, held: None }
}

/// The key that an opening request must be signed with; none for those of sessions without an owner, and for requests
/// that open nothing.
///
/// # Errors
/// It cannot open a session.
pub fn opening(request: &Request, mode: Signatures) -> Result<Option<PublicKey>, Rejected> {
    let Body::Open { owner, .. } = &request.body else { return Ok(None) };
    match (mode, owner) {
        (Signatures::Off, _) => Ok(None),
        (_, Some(owner)) if owner.client() != request.client => Err(Rejected::WrongClient),
        (_, Some(owner)) => Ok(Some(owner.key)),
        (Signatures::Required, None) => Err(Rejected::Unsigned),
        // Nobody may sit on an id that a key will want.
        (Signatures::Optional, None) if request.client.is_owned() => Err(Rejected::WrongClient),
        (Signatures::Optional, None) => Ok(None),
    }
}
