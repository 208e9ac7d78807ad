//! What the processes of this crate start with.

use mesh::net::{Endpoint, LinkKind};
use mesh::node::Registry;
use mesh::node::identity::{self, Expected, IdentityError};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// An open QUIC endpoint and what `/status` says of its certificate.
pub(crate) struct Bound {
    /// The endpoint.
    pub(crate) endpoint: Endpoint,
    /// The `tls` of `/status`.
    pub(crate) tls: Value,
}

/// Loads the certificate in `pki`, sees that it is ours, and opens the QUIC endpoint.
pub(crate) fn bind(
    expected: &Expected<'_>,
    pki: &Path,
    trust_bundle: Option<&Path>,
    quic: SocketAddr,
    kinds: &[LinkKind],
    registry: &mut Registry,
) -> Result<Bound, IdentityError> {
    let (endpoint, expires_at) = identity::bind(expected, pki, trust_bundle, quic, kinds, registry)?;
    let not_after = OffsetDateTime::from_unix_timestamp(expires_at).ok();
    let not_after = not_after.and_then(|time| time.format(&Rfc3339).ok());
    let tls = json!({ "serial": null, "not_after": not_after, "bundle_sha256": [], "crl_number": null });
    Ok(Bound { endpoint, tls })
}
