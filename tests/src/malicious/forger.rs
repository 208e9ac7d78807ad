//! Signatures that hold, by a key that nobody trusts: with certificates of its own making.

use bytes::Bytes;
use mesh::auth::{self, Owner, SecretKey, SharedProof, Vouched};
use mesh::ids::{ClientId, Opening, ReplicaId, Seq};
use mesh::names::{DEFAULT_TRUST_DOMAIN, Identity, Role};
use mesh::wire::client::Told;
use mesh::wire::{Body, Outcome, Request, Tag};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, PKCS_ED25519, SanType};

/// id-kp-documentSigning (RFC 9336).
const DOCUMENT_SIGNING: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 36];

/// See the module.
pub(super) struct Forger {
    cluster: String,
    pair: KeyPair,
    key: SecretKey,
    /// As an ingress.
    ingress: Bytes,
}

impl Forger {
    /// Makes a key, and says that it is an ingress'.
    pub(super) fn new(cluster: &str) -> anyhow::Result<Self> {
        let pair = KeyPair::generate_for(&PKCS_ED25519)?;
        let key = SecretKey::from_pkcs8(&pair.serialize_der())?;
        let ingress = certificate(cluster, &pair, Role::Ingress, "0")?;
        Ok(Self { cluster: cluster.to_owned(), pair, key, ingress })
    }

    /// Opens a session that belongs to the key.
    pub(super) fn open(&self, nonce: u128) -> Request {
        let owner = Owner { key: self.key.public(), nonce, certificate: self.ingress.clone() };
        self.signed(Request::open(owner.client(), 8, Some(owner)))
    }

    /// The first call in such a session.
    pub(super) fn call(&self, client: ClientId, opened: Opening, body: Bytes) -> Request {
        self.signed(Request { client, opened, seq: Seq(1), body: Body::Call(body), proof: None })
    }

    fn signed(&self, request: Request) -> Request {
        let statement = auth::request_statement(&self.cluster, &request);
        let proof = auth::sign(&self.key, &[statement]).into_iter().next().map(SharedProof::new);
        Request { proof, ..request }
    }

    /// Certificates of the servers.
    pub(super) fn servers(&self, servers: impl Iterator<Item = u32>) -> Vec<(ReplicaId, Bytes)> {
        let made = |id: u32| {
            Some((ReplicaId(id), certificate(&self.cluster, &self.pair, Role::Server, &id.to_string()).ok()?))
        };
        servers.filter_map(made).collect()
    }

    /// A reply that all these servers have signed.
    pub(super) fn told(&self, servers: impl Iterator<Item = u32>, tag: &Tag, outcome: Outcome) -> Told {
        let servers: Vec<u32> = servers.collect();
        let electorate = u16::try_from(servers.len()).unwrap_or(u16::MAX);
        let (slot, form, content) = (tag.opened.slot.next(), outcome.form(), outcome.content());
        let one = |id: u32| {
            let replica = ReplicaId(id);
            let statement = auth::reply_statement(&self.cluster, replica, tag, slot, electorate, &form, &content);
            let proof = SharedProof::new(auth::sign(&self.key, &[statement]).into_iter().next()?);
            Some(Vouched { replica, slot, electorate, form, content, proof })
        };
        Told::Outcome { vouched: servers.into_iter().filter_map(one).collect(), outcome }
    }
}

/// A signing certificate that only its own key has signed.
fn certificate(cluster: &str, pair: &KeyPair, role: Role, id: &str) -> anyhow::Result<Bytes> {
    let who = Identity::new(cluster, role, id)?;
    let mut params = CertificateParams::new(vec![who.dns_name()])?;
    let uri = format!("spiffe://{DEFAULT_TRUST_DOMAIN}/cluster/{cluster}/{role}/{id}");
    params.subject_alt_names.push(SanType::URI(uri.try_into()?));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(DOCUMENT_SIGNING.to_vec())];
    Ok(Bytes::copy_from_slice(params.self_signed(pair)?.der()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::auth::{Checked, Needed, Signatures, Verifier};
    use mesh::ids::{Generation, Slot};

    /// All that is wrong with it is whose certificate it is: what it is refused for is the trust, and nothing easier.
    #[test]
    fn what_it_signs_holds_but_for_the_certificate() {
        let forger = Forger::new("local").unwrap();
        let open = forger.open(7);
        let verifier = Verifier::default();
        let checked = auth::check(open.clone(), Needed::Nothing, Signatures::Required, "local", &verifier).unwrap();
        let Checked::Sought(seeking) = checked else { panic!("an opening is looked at") };
        assert_eq!(seeking.opener().map(mesh::auth::Owner::client), Some(open.client));
        seeking.finish().unwrap();

        let tag = forger.call(open.client, Generation::FIRST.at(Slot(3)), Bytes::from_static(b"x\n")).tag();
        let told = forger.told(0..3, &tag, Outcome::Executed(Bytes::from_static(b"OK\n")));
        let Told::Outcome { vouched, .. } = told else { panic!("{told:?}") };
        assert_eq!(vouched.len(), 3);
        for word in vouched {
            assert!(word.holds("local", &tag, &forger.key.public(), &mut Verifier::default()));
        }
    }
}
