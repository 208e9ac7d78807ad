//! What is issued, how it lies on the disk, and that links take it.

mod common;

use certs::{CertsError, IssuedPaths, Pki, Role};
use common::Dir;
use mesh::net::{Credentials, Endpoint, LinkKind};
use rcgen::{CertificateParams, Issuer, KeyPair, date_time_ymd};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use x509_parser::pem::Pem;

fn new_pki() -> (Dir, Pki) {
    let dir = Dir::new();
    let pki = Pki::init(&dir.0, "shop.main").unwrap();
    (dir, pki)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn certificate(path: &Path) -> Pem {
    Pem::iter_from_buffer(&fs::read(path).unwrap()).next().unwrap().unwrap()
}

fn serial(path: &Path) -> Vec<u8> {
    certificate(path).parse_x509().unwrap().raw_serial().to_vec()
}

/// Puts another certificate for the same key and names in place of the issued one.
fn reissue(dir: &Dir, paths: &IssuedPaths, change: impl FnOnce(&mut CertificateParams)) {
    let authority = dir.0.join("ca/1");
    let key = KeyPair::from_pem(&fs::read_to_string(authority.join("ca.key")).unwrap()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&fs::read_to_string(authority.join("ca.crt")).unwrap(), key).unwrap();
    let der = certificate(&paths.certificate).contents;
    let mut params = CertificateParams::default();
    let parsed = x509_parser::parse_x509_certificate(&der).unwrap().1;
    for name in &parsed.subject_alternative_name().unwrap().unwrap().value.general_names {
        params.subject_alt_names.push(match name {
            x509_parser::extensions::GeneralName::URI(uri) => rcgen::SanType::URI((*uri).try_into().unwrap()),
            x509_parser::extensions::GeneralName::DNSName(dns) => rcgen::SanType::DnsName((*dns).try_into().unwrap()),
            other => panic!("{other:?}"),
        });
    }
    params.use_authority_key_identifier_extension = true;
    change(&mut params);
    let key = KeyPair::from_pem(&fs::read_to_string(&paths.key).unwrap()).unwrap();
    fs::write(&paths.certificate, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
}

#[test]
fn the_files_are_where_and_what_the_interface_says() {
    let (dir, pki) = new_pki();
    let paths = pki.issue("smart-client", "edge-a").unwrap();
    assert_eq!(paths.dir, dir.0.join("smart-client/edge-a"));
    assert_eq!(mode(&paths.key), 0o600);
    assert_eq!(mode(&dir.0.join("ca/1/ca.key")), 0o600);
    assert_eq!(fs::read(&paths.authorities).unwrap(), fs::read(dir.0.join("bundle.crt")).unwrap());
    assert_eq!(fs::read(dir.0.join("ca/1/ca.crt")).unwrap(), fs::read(pki.bundle_path()).unwrap());
    let pem = certificate(&paths.certificate);
    let leaf = pem.parse_x509().unwrap();
    let names = format!("{:?}", leaf.subject_alternative_name().unwrap().unwrap().value.general_names);
    assert!(names.contains("\"spiffe://lockstep.local/cluster/shop.main/smart-client/edge-a\""), "{names}");
    assert!(names.contains("\"smart-client-edge-a.shop.main.lockstep\""), "{names}");
    let days = (leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp()) / 86_400;
    assert_eq!(days, 90);
    assert!(leaf.raw_serial().len() >= 14 && leaf.raw_serial().len() <= 17);
    let hidden = fs::read_dir(dir.0.join("smart-client")).unwrap().count();
    assert_eq!(hidden, 1, "something was left behind");
}

#[test]
fn only_roles_that_accept_links_get_certificates_for_servers() {
    let (_dir, pki) = new_pki();
    for role in Role::ALL {
        let paths = pki.issue(role.as_str(), "1").unwrap();
        let pem = certificate(&paths.certificate);
        let leaf = pem.parse_x509().unwrap();
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        let accepts = matches!(role, Role::Server | Role::SmartClient);
        assert_eq!((usage.client_auth, usage.server_auth), (true, accepts), "{role}");
        assert!(leaf.key_usage().unwrap().unwrap().value.digital_signature());
    }
}

#[test]
fn a_leaf_for_signatures_has_the_same_names_and_no_use_in_tls() {
    let (_dir, pki) = new_pki();
    let paths = pki.ensure_signing("server", "0").unwrap();
    assert_eq!(mode(&paths.signing_key), 0o600);
    let (tls, signing) = (certificate(&paths.certificate), certificate(&paths.signing_certificate));
    let (tls, signing) = (tls.parse_x509().unwrap(), signing.parse_x509().unwrap());
    let names = |leaf: &x509_parser::prelude::X509Certificate<'_>| {
        format!("{:?}", leaf.subject_alternative_name().unwrap().unwrap().value.general_names)
    };
    assert_eq!(names(&tls), names(&signing));
    assert_eq!(signing.public_key().algorithm.algorithm.to_id_string(), "1.3.101.112");
    let usage = signing.extended_key_usage().unwrap().unwrap().value;
    assert!(!usage.any && !usage.client_auth && !usage.server_auth);
    assert_eq!(
        usage.other.iter().map(x509_parser::oid_registry::Oid::to_id_string).collect::<Vec<_>>(),
        ["1.3.6.1.5.5.7.3.36"]
    );
    assert_eq!(signing.key_usage().unwrap().unwrap().value.flags, 1, "digitalSignature alone");
    // Left alone while it is good.
    let before = serial(&paths.signing_certificate);
    pki.ensure_signing("server", "0").unwrap();
    assert_eq!(serial(&paths.signing_certificate), before);
}

#[test]
fn nothing_is_overwritten() {
    let (dir, pki) = new_pki();
    let paths = pki.issue("server", "0").unwrap();
    let before = serial(&paths.certificate);
    assert!(matches!(pki.issue("server", "0"), Err(CertsError::Exists(_))));
    assert!(matches!(Pki::init(&dir.0, "shop.main"), Err(CertsError::Exists(_))));
    assert_eq!(serial(&paths.certificate), before);
    assert_eq!(pki.ensure("server", "0").unwrap(), paths);
    assert_eq!(serial(&paths.certificate), before);
}

#[test]
fn what_cannot_be_named_is_not_issued() {
    let (_dir, pki) = new_pki();
    for (role, id) in [("server", "a"), ("queen", "1"), ("client", "../x"), ("client", ""), ("server", "007")] {
        assert!(matches!(pki.issue(role, id), Err(CertsError::Name(_))), "{role} {id}");
    }
    assert!(matches!(Pki::init(&Dir::new().0, "a/b"), Err(CertsError::Name(_))));
}

#[test]
fn an_authority_is_found_again_and_another_cluster_does_not_get_it() {
    let (dir, pki) = new_pki();
    let first = pki.issue("server", "0").unwrap();
    drop(pki);
    fs::remove_file(dir.0.join("bundle.crt")).unwrap();
    let pki = Pki::open_or_init(&dir.0, "shop.main").unwrap();
    assert_eq!(pki.cluster(), "shop.main");
    assert!(pki.bundle_path().exists());
    let second = pki.issue("server", "1").unwrap();
    assert_eq!(fs::read(first.authorities).unwrap(), fs::read(second.authorities).unwrap());
    assert!(matches!(Pki::open_or_init(&dir.0, "other"), Err(CertsError::OtherCluster { .. })));
    let empty = Dir::new();
    assert!(matches!(Pki::open(&empty.0), Err(CertsError::NoAuthority(_))));
    assert_eq!(Pki::open_or_init(&empty.0, "other").unwrap().cluster(), "other");
}

#[test]
fn keys_that_others_may_read_are_refused() {
    let (dir, pki) = new_pki();
    let paths = pki.issue("server", "0").unwrap();
    let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    allow(&paths.key, 0o644);
    assert!(matches!(pki.ensure("server", "0"), Err(CertsError::Insecure { mode: 0o644, .. })));
    let key = dir.0.join("ca/1/ca.key");
    allow(&key, 0o660);
    assert!(matches!(Pki::open(&dir.0), Err(CertsError::Insecure { mode: 0o660, .. })));
    // As Kubernetes mounts a Secret.
    allow(&key, 0o440);
    fs::rename(&key, dir.0.join("secret")).unwrap();
    symlink(dir.0.join("secret"), &key).unwrap();
    Pki::open(&dir.0).unwrap();
}

#[test]
fn a_leaf_is_replaced_when_it_is_due() {
    let (dir, pki) = new_pki();
    let paths = pki.issue("server", "0").unwrap();
    reissue(&dir, &paths, |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(4000, 1, 1);
    });
    let before = serial(&paths.certificate);
    pki.ensure("server", "0").unwrap();
    assert_eq!(serial(&paths.certificate), before, "it was good for long");
    reissue(&dir, &paths, |params| {
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2027, 1, 1);
    });
    let before = serial(&paths.certificate);
    pki.ensure("server", "0").unwrap();
    assert_ne!(serial(&paths.certificate), before, "it had little of its life left");
    assert_eq!(mode(&paths.key), 0o600);
    Credentials::load(&paths.dir, None).unwrap();
}

#[test]
fn what_an_interruption_left_is_mended() {
    let (_dir, pki) = new_pki();
    let paths = pki.issue("server", "0").unwrap();
    let other = pki.issue("server", "1").unwrap();
    // Killed between the two renames of a renewal: key and certificate do not fit.
    fs::copy(&other.key, &paths.key).unwrap();
    assert!(Credentials::load(&paths.dir, None).is_err());
    pki.ensure("server", "0").unwrap();
    Credentials::load(&paths.dir, None).unwrap();
    for file in [&paths.key, &paths.certificate, &paths.authorities] {
        fs::remove_file(file).unwrap();
        pki.ensure("server", "0").unwrap();
        Credentials::load(&paths.dir, None).unwrap();
    }
}

#[test]
fn a_leaf_of_somebody_else_is_not_touched() {
    let (_dir, pki) = new_pki();
    let (paths, other) = (pki.issue("server", "0").unwrap(), pki.issue("server", "1").unwrap());
    fs::copy(&other.certificate, &paths.certificate).unwrap();
    assert!(matches!(pki.ensure("server", "0"), Err(CertsError::Unusable { .. })));
    assert_eq!(serial(&paths.certificate), serial(&other.certificate));
}

#[test]
fn a_leaf_of_a_forgotten_authority_is_replaced() {
    let (dir, pki) = new_pki();
    let paths = pki.issue("server", "0").unwrap();
    let before = serial(&paths.certificate);
    drop(pki);
    fs::remove_dir_all(dir.0.join("ca")).unwrap();
    fs::remove_file(dir.0.join("bundle.crt")).unwrap();
    let pki = Pki::init(&dir.0, "shop.main").unwrap();
    pki.ensure("server", "0").unwrap();
    assert_ne!(serial(&paths.certificate), before);
    assert_eq!(fs::read(paths.authorities).unwrap(), fs::read(pki.bundle_path()).unwrap());
}

#[tokio::test]
async fn links_take_what_is_issued() {
    let (_dir, pki) = new_pki();
    let bind = |role: &str, id: &str, kinds: &[LinkKind]| {
        let credentials = Credentials::load(&pki.issue(role, id).unwrap().dir, None).unwrap();
        let limits = mesh::net::kept::limits(mesh::net::LINK_MAX_AGE);
        let mut registry = mesh::node::Registry::default();
        Endpoint::bind("127.0.0.1:0".parse().unwrap(), credentials, kinds, limits, &mut registry).unwrap()
    };
    let server = bind("server", "0", &[LinkKind::Peer, LinkKind::Submit, LinkKind::Admin]);
    let smart_client = bind("smart-client", "a", &[LinkKind::Client]);
    for (dialler, kind, acceptor, id) in [
        (&bind("server", "1", &[]), LinkKind::Peer, &server, "0"),
        (&smart_client, LinkKind::Submit, &server, "0"),
        (&bind("admin", "ann", &[]), LinkKind::Admin, &server, "0"),
        (&bind("ingress", "0", &[]), LinkKind::Client, &smart_client, "a"),
        (&bind("client", "bob", &[]), LinkKind::Client, &smart_client, "a"),
    ] {
        let target = acceptor.local_addr().to_string();
        let link = dialler.dial(kind, &target, Some(id)).await.unwrap();
        assert_eq!(link.peer(), acceptor.identity());
        assert_eq!(acceptor.accept().await.unwrap().peer(), dialler.identity());
    }
}
