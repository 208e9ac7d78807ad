//! Names: what a certificate says its holder is. Built and read here alone, so that the certificate authority and the
//! links cannot differ. Pure text; nothing here parses a certificate.

use std::fmt;
use std::str::FromStr;

/// The trust domain of the SPIFFE names, unless the operator chose another.
pub const DEFAULT_TRUST_DOMAIN: &str = "lockstep.local";

/// What ends every DNS name of a part.
const SUFFIX: &str = ".lockstep";

/// What a certificate allows its holder to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A SMaRtServer: orders, logs, executes.
    Server,
    /// A SMaRtClient: fans out and votes.
    SmartClient,
    /// An ingress: speaks for outside clients.
    Ingress,
    /// A native client.
    Client,
    /// An operator.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Server, Self::SmartClient, Self::Ingress, Self::Client, Self::Admin];

    /// The role's name in certificates, paths and commands.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::SmartClient => "smart-client",
            Self::Ingress => "ingress",
            Self::Client => "client",
            Self::Admin => "admin",
        }
    }

    /// Whether others open links to this role (it then needs a certificate for the server side of TLS).
    #[must_use]
    pub const fn accepts_links(self) -> bool {
        matches!(self, Self::Server | Self::SmartClient)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(NameError::Role)
    }
}

/// Why something is no name of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No such role.
    #[error("not a role: use server, smart-client, ingress, client or admin")]
    Role,
    /// The id does not fit the role.
    #[error("not an id: a server's is a number without leading zeros, any other is a DNS label in lower case")]
    Id,
    /// The cluster's name cannot stand in a DNS name.
    #[error("not a cluster name: use DNS labels in lower case, joined by dots")]
    Cluster,
    /// The trust domain cannot stand in a SPIFFE name.
    #[error("not a trust domain: use DNS labels in lower case, joined by dots")]
    TrustDomain,
    /// The parts are well-formed, their sum is too long.
    #[error(
        "the name is too long for DNS (63 bytes for `<role>-<id>`, 253 in all): shorten the id or the cluster's name"
    )]
    TooLong,
    /// Not of the form `<role>-<id>.<cluster>.lockstep`.
    #[error("not of the form <role>-<id>.<cluster>.lockstep")]
    Dns,
    /// Not of the form `spiffe://<trust-domain>/cluster/<cluster>/<role>/<id>`.
    #[error("not of the form spiffe://<trust-domain>/cluster/<cluster>/<role>/<id>")]
    Uri,
}

/// Who someone is: what the SANs of a certificate say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The cluster's name, a sequence of DNS labels.
    pub cluster: String,
    /// The role, which decides what links may be opened and accepted.
    pub role: Role,
    /// A number for servers, otherwise a DNS label.
    pub id: String,
}

impl Identity {
    /// A name made of parts that were checked.
    ///
    /// # Errors
    /// The first part that cannot stand in a certificate.
    pub fn new(cluster: &str, role: Role, id: &str) -> Result<Self, NameError> {
        check_cluster(cluster)?;
        let fits = match role {
            Role::Server => id.parse::<u32>().is_ok_and(|number| number.to_string() == id),
            _ => is_label(id),
        };
        if !fits {
            return Err(NameError::Id);
        }
        let identity = Self { cluster: cluster.to_owned(), role, id: id.to_owned() };
        if role.as_str().len() + 1 + id.len() > 63 || identity.dns_name().len() > 253 {
            return Err(NameError::TooLong);
        }
        Ok(identity)
    }

    /// `<role>-<id>.<cluster>.lockstep`, the DNS SAN.
    #[must_use]
    pub fn dns_name(&self) -> String {
        format!("{}-{}.{}{SUFFIX}", self.role, self.id, self.cluster)
    }

    /// `spiffe://<trust-domain>/cluster/<cluster>/<role>/<id>`, the URI SAN.
    #[must_use]
    pub fn uri(&self, trust_domain: &str) -> String {
        format!("{}/{}/{}", cluster_uri(trust_domain, &self.cluster), self.role, self.id)
    }

    /// Reads a DNS SAN.
    ///
    /// # Errors
    /// [`NameError`] if it is no name of a part.
    pub fn from_dns_name(name: &str) -> Result<Self, NameError> {
        let (label, cluster) = name.strip_suffix(SUFFIX).and_then(|rest| rest.split_once('.')).ok_or(NameError::Dns)?;
        let (role, id) = Role::ALL
            .into_iter()
            .find_map(|role| Some((role, label.strip_prefix(role.as_str())?.strip_prefix('-')?)))
            .ok_or(NameError::Dns)?;
        Self::new(cluster, role, id)
    }

    /// Reads a URI SAN: the trust domain and who.
    ///
    /// # Errors
    /// [`NameError`] if it is no name of a part.
    pub fn from_uri(uri: &str) -> Result<(String, Self), NameError> {
        let (trust_domain, cluster, rest) = split_cluster_uri(uri)?;
        let (role, id) = rest.and_then(|rest| rest.split_once('/')).ok_or(NameError::Uri)?;
        Ok((trust_domain.to_owned(), Self::new(cluster, role.parse()?, id)?))
    }

    /// Whether a DNS SAN claims to be a name of this scheme (and so must be a well-formed one).
    #[must_use]
    pub fn claims_dns_name(name: &str) -> bool {
        name.ends_with(SUFFIX)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.dns_name())
    }
}

/// `spiffe://<trust-domain>/cluster/<cluster>`: the URI SAN of a cluster's certificate authority.
#[must_use]
pub fn cluster_uri(trust_domain: &str, cluster: &str) -> String {
    format!("spiffe://{trust_domain}/cluster/{cluster}")
}

/// Reads the URI SAN of a cluster's certificate authority: the trust domain and the cluster.
///
/// # Errors
/// [`NameError`] if it is none.
pub fn parse_cluster_uri(uri: &str) -> Result<(String, String), NameError> {
    match split_cluster_uri(uri)? {
        (trust_domain, cluster, None) => Ok((trust_domain.to_owned(), cluster.to_owned())),
        _ => Err(NameError::Uri),
    }
}

/// Refuses what cannot be a cluster's name.
///
/// # Errors
/// [`NameError::Cluster`] or [`NameError::TooLong`].
pub fn check_cluster(cluster: &str) -> Result<(), NameError> {
    if cluster.len() > 180 {
        return Err(NameError::TooLong);
    }
    if cluster.split('.').all(is_label) { Ok(()) } else { Err(NameError::Cluster) }
}

/// Refuses what cannot be a trust domain.
///
/// # Errors
/// [`NameError::TrustDomain`].
pub fn check_trust_domain(trust_domain: &str) -> Result<(), NameError> {
    let fits = trust_domain.len() <= 253 && trust_domain.split('.').all(is_label);
    if fits { Ok(()) } else { Err(NameError::TrustDomain) }
}

/// Trust domain, cluster and what follows them.
fn split_cluster_uri(uri: &str) -> Result<(&str, &str, Option<&str>), NameError> {
    let (trust_domain, path) =
        uri.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).ok_or(NameError::Uri)?;
    check_trust_domain(trust_domain)?;
    let path = path.strip_prefix("cluster/").ok_or(NameError::Uri)?;
    let (cluster, rest) = match path.split_once('/') {
        Some((cluster, rest)) => (cluster, Some(rest)),
        None => (path, None),
    };
    check_cluster(cluster)?;
    Ok((trust_domain, cluster, rest))
}

/// A DNS label in lower case.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_of_every_role_are_read_back() {
        for role in Role::ALL {
            let who = Identity::new("shop.main", role, "7").unwrap();
            assert_eq!(Identity::from_dns_name(&who.dns_name()), Ok(who.clone()));
            assert_eq!(Identity::from_uri(&who.uri("lockstep.local")), Ok(("lockstep.local".to_owned(), who.clone())));
            assert_eq!(role.as_str().parse(), Ok(role));
        }
    }

    #[test]
    fn names_are_spelled_as_the_interface_says() {
        let who = Identity::new("c1", Role::SmartClient, "edge-a").unwrap();
        assert_eq!(who.dns_name(), "smart-client-edge-a.c1.lockstep");
        assert_eq!(who.uri(DEFAULT_TRUST_DOMAIN), "spiffe://lockstep.local/cluster/c1/smart-client/edge-a");
    }

    #[test]
    fn a_servers_id_is_a_number_in_its_shortest_form() {
        for id in ["01", "a", "", "-1", "+1", "4294967296"] {
            assert_eq!(Identity::new("c", Role::Server, id), Err(NameError::Id), "{id}");
        }
        assert!(Identity::new("c", Role::Server, "4294967295").is_ok());
    }

    #[test]
    fn what_cannot_stand_in_dns_is_refused() {
        for cluster in ["", "a..b", "A", "a_b", "-a", "a-", "a/b", ".", "a."] {
            assert_eq!(check_cluster(cluster), Err(NameError::Cluster), "{cluster}");
        }
        assert_eq!(check_cluster(&"a.".repeat(120)), Err(NameError::TooLong));
        assert_eq!(Identity::new("c", Role::SmartClient, &"a".repeat(60)), Err(NameError::TooLong));
        assert_eq!(Identity::new("c", Role::Client, "a.b"), Err(NameError::Id));
    }

    #[test]
    fn other_peoples_names_are_not_ours() {
        for name in ["server-1.c", "server1.c.lockstep", "server-1.lockstep", "queen-1.c.lockstep", "*.c.lockstep"] {
            assert!(Identity::from_dns_name(name).is_err(), "{name}");
        }
        for uri in [
            "https://lockstep.local/cluster/c/server/1",
            "spiffe://lockstep.local/cluster/c/server",
            "spiffe://lockstep.local/cluster/c/server/1/2",
            "spiffe://lockstep.local/c/server/1",
            "spiffe:///cluster/c/server/1",
        ] {
            assert!(Identity::from_uri(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn the_authority_of_a_cluster_names_it() {
        let uri = cluster_uri("example.org", "a.b");
        assert_eq!(parse_cluster_uri(&uri), Ok(("example.org".to_owned(), "a.b".to_owned())));
        assert!(parse_cluster_uri("spiffe://example.org/cluster/a/server/1").is_err());
    }
}
