//! Certificates for tests, good and bad ones, in a directory of their own that goes away.

use super::super::Credentials;
use crate::names::{DEFAULT_TRUST_DOMAIN, Identity, Role};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, ExtendedKeyUsagePurpose,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// An authority and a directory of leaves.
pub(super) struct Pki {
    dir: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(super) fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("lockstep-net-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { dir, authority }
    }

    /// A good leaf of cluster `c1`.
    pub(super) fn issue(&self, role: Role, id: &str) -> Leaf {
        self.issue_for("c1", role, id, |_| {})
    }

    /// A leaf that `spoil` may change before it is signed.
    pub(super) fn issue_for(
        &self,
        cluster: &str,
        role: Role,
        id: &str,
        spoil: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        let who = Identity::new(cluster, role, id).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![
            SanType::DnsName(who.dns_name().try_into().unwrap()),
            SanType::URI(who.uri(DEFAULT_TRUST_DOMAIN).try_into().unwrap()),
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        spoil(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let dir = self.dir.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("tls.crt"), certificate.pem()).unwrap();
        fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
        fs::write(dir.join("ca.crt"), self.authority.pem()).unwrap();
        let leaf = Leaf { dir };
        leaf.key_mode(0o600);
        leaf
    }

    /// A leaf that is its own authority; it trusts ours.
    pub(super) fn self_signed(&self, role: Role, id: &str) -> Leaf {
        let leaf = self.issue(role, id);
        let who = Identity::new("c1", role, id).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![
            SanType::DnsName(who.dns_name().try_into().unwrap()),
            SanType::URI(who.uri(DEFAULT_TRUST_DOMAIN).try_into().unwrap()),
        ];
        let key = KeyPair::from_pem(&fs::read_to_string(leaf.dir.join("tls.key")).unwrap()).unwrap();
        fs::write(leaf.dir.join("tls.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        leaf
    }

    pub(super) fn authority_pem(&self) -> String {
        self.authority.pem()
    }

    /// Where the revocation list is, or will be.
    pub(super) fn crl(&self) -> PathBuf {
        self.dir.join("crl.pem")
    }

    /// A revocation list with one serial number.
    pub(super) fn revoke(&self, serial: u64) -> PathBuf {
        let file = self.crl();
        fs::write(&file, self.list(1, serial)).unwrap();
        file
    }

    /// The text of one, under a number.
    pub(super) fn list(&self, number: u64, serial: u64) -> String {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.authority).unwrap().pem().unwrap()
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The directory of one leaf.
pub(super) struct Leaf {
    dir: PathBuf,
}

impl Leaf {
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn load(&self) -> Credentials {
        Credentials::load(&self.dir, None).unwrap()
    }

    /// With other names of the same length in the place of those that were signed.
    pub(super) fn altered(self, from: &str, to: &str) -> Self {
        let file = self.dir.join("tls.crt");
        let mut der = CertificateDer::from_pem_file(&file).unwrap().to_vec();
        for (from, to) in [(from, to), (&from.replace('-', "/"), &to.replace('-', "/"))] {
            let at = der.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            der[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
        fs::write(file, pem::encode(&pem::Pem::new("CERTIFICATE", der))).unwrap();
        self
    }

    /// With these revocation lists.
    pub(super) fn load_with(&self, crl: &Path) -> Credentials {
        self.load().with_revocations(crl).unwrap()
    }

    pub(super) fn trust(&self, bundle: &str) -> &Self {
        fs::write(self.dir.join("ca.crt"), bundle).unwrap();
        self
    }

    pub(super) fn key_mode(&self, mode: u32) {
        fs::set_permissions(self.dir.join("tls.key"), fs::Permissions::from_mode(mode)).unwrap();
    }
}
