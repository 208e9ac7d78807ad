//! The certificate authority of a cluster and the leaves of every role, as files:
//!
//! ```text
//! pki/ca/<n>/{ca.crt,ca.key}                  the authorities; the highest number issues
//! pki/bundle.crt                              all of them: whom to trust
//! pki/<role>/<id>/{tls.crt,tls.key,ca.crt}    a leaf, its key, a copy of the bundle
//! ```
//!
//! Keys are ECDSA P-256, created with mode 0600 and never overwritten in place. A process that is killed at any point
//! leaves nothing that the next run cannot go on from.

mod authority;
mod error;
mod files;
mod leaf;
mod pem;
mod pki;

pub use error::CertsError;
pub use mesh::names::Role;
pub use pki::{IssuedPaths, Pki};
