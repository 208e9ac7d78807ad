//! The certificate authority of a cluster and the leaves of every role, as files:
//!
//! ```text
//! pki/ca/<n>/{ca.crt,ca.key}                  the authorities; the highest number issues
//! pki/ca/retired/<n>/                         those that are no longer trusted
//! pki/bundle.crt                              all of them: whom to trust
//! pki/crl.pem                                 what is revoked: a list of each authority
//! pki/issued.jsonl                            what was ever issued and revoked
//! pki/<role>/<id>/{tls.crt,tls.key,ca.crt}    a leaf, its key, a copy of the bundle
//! pki/<role>/<id>/signing.{crt,key}           where signatures are used: a leaf for them, its key
//! ```
//!
//! Keys are created with mode 0600 and never overwritten in place. Whoever changes the directory holds its lock; a
//! process that is killed at any point leaves nothing that the next one cannot go on from, and no key of an authority
//! is ever deleted.

mod archive;
mod authority;
mod clock;
mod error;
mod facts;
mod files;
mod inspect;
mod issue;
mod kubernetes;
mod leaf;
mod list;
mod lock;
mod passphrase;
mod pem;
mod pki;
mod plan;
mod record;
mod revocation;
mod rotation;

#[cfg(test)]
mod interruption_tests;

pub use archive::{pack, unpack};
pub use clock::Moment;
pub use error::CertsError;
pub use facts::Facts;
pub use inspect::{Block, Verdict, Verifier, inspect};
pub use issue::{Action, Change, Request, Selection};
pub use leaf::{Kind, San, State};
pub use list::Listed;
pub use mesh::names::Role;
pub use passphrase::Passphrase;
pub use pki::{Access, IssuedPaths, Pki, Setup};
pub use plan::{ParseDuration, Plan};
pub use revocation::{CrlFacts, Revoke, RevokedFacts};
pub use rotation::{AuthorityFacts, Rotation};
