//! What is said of bad certificates on the disk.

use super::*;
use rcgen::{SerialNumber, date_time_ymd};
use std::path::Path;

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

fn look(dir: &Path, crl: Option<&Path>) -> Finding {
    let expected = Identity::new("c1", Role::Server, "1").unwrap();
    examine(&Files::new(dir, None, crl), Some(&expected), now())
}

#[test]
fn each_bad_certificate_is_called_by_its_own_name() {
    let pki = Pki::new();
    let list = pki.revoke(77);
    let days = |days: i64| {
        move |params: &mut rcgen::CertificateParams| {
            params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(80);
            params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(days);
        }
    };
    let issue = |cluster, role, id| pki.issue_for(cluster, role, id, days(10_000));
    let swapped = issue("c1", Role::Server, "1");
    std::fs::copy(issue("c1", Role::Server, "1").dir().join("tls.key"), swapped.dir().join("tls.key")).unwrap();
    let open = issue("c1", Role::Server, "1");
    open.key_mode(0o644);
    let gone = issue("c1", Role::Server, "1");
    std::fs::remove_file(gone.dir().join("tls.crt")).unwrap();
    let foreign = issue("c1", Role::Server, "1");
    foreign.trust(&Pki::new().authority_pem());
    let cases = [
        ("good", issue("c1", Role::Server, "1")),
        ("due", pki.issue_for("c1", Role::Server, "1", days(10))),
        ("expired", pki.issue_for("c1", Role::Server, "1", days(-1))),
        (
            "not_yet_valid",
            pki.issue_for("c1", Role::Server, "1", |params| params.not_before = date_time_ymd(4000, 1, 1)),
        ),
        (
            "revoked",
            pki.issue_for("c1", Role::Server, "1", |params| params.serial_number = Some(SerialNumber::from(77))),
        ),
        ("wrong_cluster", issue("c2", Role::Server, "1")),
        ("wrong_role", issue("c1", Role::SmartClient, "1")),
        ("wrong_id", issue("c1", Role::Server, "2")),
        ("self_signed", pki.self_signed(Role::Server, "1")),
        ("altered", issue("c1", Role::Server, "3").altered("server-3", "server-1")),
        ("key_mismatch", swapped),
        ("insecure", open),
        ("unreadable", gone),
    ];
    for (label, leaf) in &cases {
        let found = look(leaf.dir(), Some(&list));
        assert_eq!(found.label, *label, "{found:?}");
        let standing = match *label {
            "good" => Standing::Good,
            "due" => Standing::Due,
            _ => Standing::Bad,
        };
        assert_eq!(found.standing, standing, "{found:?}");
        assert!(!found.text.contains("OtherError"), "{}", found.text);
    }
    // The authorities of these tests have one name: that of another looks like an altered one.
    assert_eq!(look(foreign.dir(), None).label, "altered");
}
