//! What the processes of this crate start and stop with.

use crate::links;
use anyhow::{Context, ensure};
use mesh::net::{Credentials, Endpoint, LinkKind, Role};
use mesh::node::Registry;
use serde_json::{Value, json};
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Four numbers that nobody can guess and that never come again.
pub(crate) fn seed() -> std::io::Result<[u64; 4]> {
    let mut bytes = [[0; 8]; 4];
    let mut source = std::fs::File::open("/dev/urandom")?;
    for part in &mut bytes {
        source.read_exact(part)?;
    }
    Ok(bytes.map(u64::from_ne_bytes))
}

/// Any port on any address, for an endpoint that only dials: both families where the machine has IPv6.
pub(crate) fn any_address() -> SocketAddr {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    match std::net::UdpSocket::bind(both) {
        Ok(_) => both,
        Err(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
    }
}

/// Who this process must be.
pub(crate) struct Expected<'a> {
    /// Its cluster.
    pub(crate) cluster: &'a str,
    /// Its role.
    pub(crate) role: Role,
    /// Its id.
    pub(crate) id: &'a str,
}

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
) -> anyhow::Result<Bound> {
    let credentials = Credentials::load(pki, trust_bundle)
        .with_context(|| format!("cannot load the identity in {} (`lockstep certs issue` makes one)", pki.display()))?;
    let found = credentials.identity();
    ensure!(
        found.cluster == expected.cluster && found.role == expected.role && found.id == expected.id,
        "the certificate in {} is for {:?} {:?} of cluster {:?}, and this is {:?} {:?} of cluster {:?}: \
         give the matching --pki, --id and --cluster",
        pki.display(),
        found.role,
        found.id,
        found.cluster,
        expected.role,
        expected.id,
        expected.cluster,
    );
    let not_after = OffsetDateTime::from_unix_timestamp(credentials.expires_at()).ok();
    let not_after = not_after.and_then(|time| time.format(&Rfc3339).ok());
    let endpoint = Endpoint::bind(quic, credentials, kinds, links::limits(), registry)
        .with_context(|| format!("cannot open the QUIC port {quic}"))?;
    let tls = json!({ "serial": null, "not_after": not_after, "bundle_sha256": [], "crl_number": null });
    Ok(Bound { endpoint, tls })
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_differ() {
        assert_ne!(super::seed().unwrap(), super::seed().unwrap());
    }
}
