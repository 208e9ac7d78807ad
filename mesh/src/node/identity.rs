//! Who a process is, and the numbers that nobody can guess: what it starts with before it has a link.

use super::Registry;
use crate::net::{Credentials, Endpoint, Files, LinkKind, LinkLimits, NetError, Role};
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// Four numbers that nobody can guess and that never come again.
///
/// # Errors
/// When the system's source of chance cannot be read.
pub fn seed() -> std::io::Result<[u64; 4]> {
    let mut bytes = [[0; 8]; 4];
    let mut source = std::fs::File::open("/dev/urandom")?;
    for part in &mut bytes {
        source.read_exact(part)?;
    }
    Ok(bytes.map(u64::from_ne_bytes))
}

/// The host's name, which a process keeps when it is started again; empty where the system does not tell.
#[must_use]
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Any port on any address, for an endpoint that only dials: both families where the machine has IPv6.
#[must_use]
pub fn any_address() -> SocketAddr {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    match std::net::UdpSocket::bind(both) {
        Ok(_) => both,
        Err(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
    }
}

/// Who this process must be.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Its cluster.
    pub cluster: &'a str,
    /// Its role.
    pub role: Role,
    /// Its id.
    pub id: &'a str,
}

/// Why a process has no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Its certificate cannot be used.
    #[error("cannot load the identity in {} (`lockstep certs issue` makes one): {error}", dir.display())]
    Unusable {
        /// Where it is.
        dir: PathBuf,
        /// Why not.
        error: Box<NetError>,
    },
    /// It is somebody else's.
    #[error("the certificate in {} is for {found}, and this is {expected}: give the matching --pki, --id and --cluster", dir.display())]
    Another {
        /// Where it is.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it must be.
        expected: String,
    },
    /// The QUIC port cannot be opened.
    #[error("cannot open the QUIC port {at}: {error}")]
    Port {
        /// Its address.
        at: SocketAddr,
        /// Why not.
        error: Box<NetError>,
    },
}

/// Loads the certificate that `files` name, sees that it is `expected`'s, and opens the QUIC endpoint at `quic`.
///
/// # Errors
/// See [`IdentityError`].
pub fn bind(
    expected: &Expected<'_>,
    files: &Files,
    quic: SocketAddr,
    kinds: &[LinkKind],
    limits: LinkLimits,
    registry: &mut Registry,
) -> Result<Endpoint, IdentityError> {
    let credentials = Credentials::of(files)
        .map_err(|error| IdentityError::Unusable { dir: files.dir.clone(), error: error.into() })?;
    let found = credentials.identity();
    if found.cluster != expected.cluster || found.role != expected.role || found.id != expected.id {
        let name = |role: Role, id: &str, cluster: &str| format!("{role}/{id} of cluster {cluster}");
        return Err(IdentityError::Another {
            dir: files.dir.clone(),
            found: name(found.role, &found.id, &found.cluster),
            expected: name(expected.role, expected.id, expected.cluster),
        });
    }
    Endpoint::bind(quic, credentials, kinds, limits, registry)
        .map_err(|error| IdentityError::Port { at: quic, error: error.into() })
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_differ() {
        assert_ne!(super::seed().unwrap(), super::seed().unwrap());
    }
}
