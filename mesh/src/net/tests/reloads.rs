//! Certificates, authorities and revocations that change while links live.

use super::*;
use rcgen::SerialNumber;
use std::fs;

fn serial(number: u64) -> impl FnOnce(&mut rcgen::CertificateParams) {
    move |params| params.serial_number = Some(SerialNumber::from(number))
}

fn reloads(part: &Part, result: &str) -> u64 {
    part.metric(&format!("tls_reloads_total{{result=\"{result}\"}}"))
}

/// Puts the certificate and key of `from` in the place of those of `to`.
fn put(from: &pki::Leaf, to: &pki::Leaf) {
    for file in ["tls.key", "tls.crt"] {
        fs::rename(from.dir().join(file), to.dir().join(file)).unwrap();
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_used_for_new_links_and_live_ones_go_on_and_are_due() {
    let pki = Pki::new();
    let leaf = pki.issue(Role::Server, "1");
    let one = Part::new(leaf.load());
    let two = Part::new(pki.issue(Role::Server, "2").load());
    let (dialled, accepted) = join(&one, LinkKind::Peer, &two).await;
    put(&pki.issue_for("c1", Role::Server, "1", serial(0xabc)), &leaf);
    eventually("it is taken", || reloads(&one, "ok") == 1).await;
    assert_eq!(one.endpoint.tls_status()["serial"], "0ABC");
    soon("the live link is due", dialled.due()).await;
    dialled.send("still here".into()).await.unwrap();
    assert_eq!(soon("a message", accepted.receive()).await.unwrap(), "still here");
    let (_, newer) = join(&one, LinkKind::Peer, &two).await;
    let shown = newer
        .connection()
        .peer_identity()
        .unwrap()
        .downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
        .unwrap();
    let on_disk = fs::read(leaf.dir().join("tls.crt")).unwrap();
    assert_eq!(*shown, identity::certificates(leaf.dir(), &on_disk).unwrap());
    assert_eq!((reloads(&one, "failed"), one.all_refused(), two.all_refused()), (0, 0, 0));
}

#[tokio::test]
async fn a_bad_set_is_not_used_and_is_counted_once() {
    let pki = Pki::new();
    let (leaf, other, stranger) = (pki.issue(Role::Server, "1"), pki.issue(Role::Server, "3"), Pki::new());
    let expired = pki.issue_for("c1", Role::Server, "1", |params| params.not_after = rcgen::date_time_ymd(2021, 1, 1));
    let one = Part::new(leaf.load());
    let good = ["tls.crt", "tls.key"].map(|file| fs::read(leaf.dir().join(file)).unwrap());
    let mut said = 0;
    // Another member's, an expired one, one of another authority.
    for bad in [&other, &expired, &stranger.issue(Role::Server, "1")] {
        put(bad, &leaf);
        said += 1;
        eventually("it is counted", || reloads(&one, "failed") == said).await;
    }
    // Rubbish instead of a certificate; and nothing at all.
    fs::write(leaf.dir().join("tls.crt"), "rubbish").unwrap();
    eventually("it is counted", || reloads(&one, "failed") == said + 1).await;
    fs::remove_file(leaf.dir().join("tls.crt")).unwrap();
    eventually("it is counted", || reloads(&one, "failed") == said + 2).await;
    // A key that does not fit stays for a good while: said once.
    fs::write(leaf.dir().join("tls.crt"), &good[0]).unwrap();
    eventually("it is counted", || reloads(&one, "failed") == said + 3).await;
    tokio::time::sleep(POLL * 10).await;
    assert_eq!((reloads(&one, "ok"), reloads(&one, "failed")), (0, said + 3));
    // The old set is in use all the time, and again when its files are back.
    let two = Part::new(pki.issue(Role::Server, "2").load());
    join(&one, LinkKind::Peer, &two).await;
    fs::write(leaf.dir().join("tls.key"), &good[1]).unwrap();
    put(&pki.issue(Role::Server, "1"), &leaf);
    eventually("a good one is taken", || reloads(&one, "ok") == 1).await;
    assert_eq!(reloads(&one, "failed"), said + 3);
}

#[tokio::test]
async fn a_key_without_its_certificate_for_a_moment_is_no_alarm() {
    let pki = Pki::new();
    let (leaf, next) = (pki.issue(Role::Server, "1"), pki.issue(Role::Server, "1"));
    let one = Part::new(leaf.load());
    fs::rename(next.dir().join("tls.key"), leaf.dir().join("tls.key")).unwrap();
    tokio::time::sleep(POLL * 5).await;
    fs::rename(next.dir().join("tls.crt"), leaf.dir().join("tls.crt")).unwrap();
    eventually("it is taken", || reloads(&one, "ok") == 1).await;
    assert_eq!(reloads(&one, "failed"), 0);
}

#[tokio::test]
async fn the_link_of_one_who_is_revoked_is_closed_and_he_is_told_why() {
    let pki = Pki::new();
    let bad = Part::new(pki.issue_for("c1", Role::SmartClient, "a", serial(77)).load());
    let good = Part::new(pki.issue(Role::SmartClient, "b").load());
    // The file comes later.
    let server = Part::new(pki.issue(Role::Server, "2").load_with(&pki.crl()));
    assert_eq!(server.endpoint.tls_status()["crl_number"], serde_json::Value::Null);
    let (theirs, ours) = join(&bad, LinkKind::Submit, &server).await;
    let (others, _kept) = join(&good, LinkKind::Submit, &server).await;
    pki.revoke(77);
    let reason = soon("the link is closed", theirs.closed()).await;
    assert!(reason.contains("revoked"), "{reason}");
    assert!(ours.receive().await.is_err());
    assert_eq!((server.refused("revoked"), server.all_refused()), (1, 1));
    assert_eq!(server.endpoint.tls_status()["crl_number"], 1);
    others.send("still here".into()).await.unwrap();
    let again = bad.endpoint.dial(LinkKind::Submit, &server.address(), None).await;
    assert!(
        matches!(&again, Err(NetError::Refused { refusal, .. }) if refusal.reason == RefusalReason::Revoked),
        "{again:?}"
    );
    // A list that is gone, or signed by another of the same name, revokes nobody and pardons nobody.
    fs::remove_file(pki.crl()).unwrap();
    eventually("it is counted", || reloads(&server, "failed") == 1).await;
    fs::copy(Pki::new().revoke(1), pki.crl()).unwrap();
    eventually("it is counted", || reloads(&server, "failed") == 2).await;
    let again = bad.endpoint.dial(LinkKind::Submit, &server.address(), None).await;
    assert!(matches!(again, Err(NetError::Refused { .. })), "{again:?}");
}

#[tokio::test]
async fn an_authority_is_replaced_in_three_steps_and_the_old_one_loses_its_links() {
    let (old, new) = (Pki::new(), Pki::new());
    let both = old.authority_pem() + &new.authority_pem();
    let (one, two) = (old.issue(Role::Server, "1"), old.issue(Role::Server, "2"));
    let (first, second) = (Part::new(one.load()), Part::new(two.load()));
    let (link, _theirs) = join(&first, LinkKind::Peer, &second).await;
    one.trust(&both);
    two.trust(&both);
    let taken = |part: &Part, count| reloads(part, "ok") == count;
    eventually("both are trusted", || taken(&first, 1) && taken(&second, 1)).await;
    assert_eq!(first.endpoint.tls_status()["bundle_sha256"].as_array().unwrap().len(), 2);
    put(&new.issue(Role::Server, "1"), &one);
    eventually("one is renewed", || taken(&first, 2)).await;
    let (renewed, _kept) = join(&first, LinkKind::Peer, &second).await;
    // The second one still needs the old authority: it does not let go of it.
    two.trust(&new.authority_pem());
    eventually("it is counted", || reloads(&second, "failed") == 1).await;
    put(&new.issue(Role::Server, "2"), &two);
    eventually("the old one is trusted no more", || taken(&second, 2)).await;
    let reason = soon("the link of the old authority ends", link.closed()).await;
    assert!(reason.contains("unknown_ca"), "{reason}");
    assert_eq!((second.refused("unknown_ca"), second.all_refused()), (1, 1));
    // The dialler of the renewed link trusts the certificate that it was shown then.
    renewed.send("still here".into()).await.unwrap();
    assert_eq!(first.all_refused(), 0, "it refused nobody");
}

#[tokio::test]
async fn a_link_ends_when_the_certificate_at_its_other_end_expires() {
    let pki = Pki::new();
    let short = pki.issue_for("c1", Role::SmartClient, "a", |params| {
        params.not_after = (std::time::SystemTime::now() + Duration::from_secs(3)).into();
    });
    let one = Part::new(short.load());
    let server = Part::new(pki.issue(Role::Server, "2").load());
    let (theirs, _ours) = join(&one, LinkKind::Submit, &server).await;
    let reason = soon("it ends", theirs.closed()).await;
    assert!(reason.contains("expired"), "{reason}");
    assert_eq!((server.refused("expired"), server.all_refused()), (1, 1));
}

#[tokio::test]
async fn a_link_is_due_before_it_is_too_old_and_is_closed_when_nobody_replaces_it() {
    let pki = Pki::new();
    let one = Part::new(pki.issue(Role::Server, "1").load());
    let limits = LinkLimits { max_age: Duration::from_millis(500), ..limits() };
    let two = Part::with_limits(pki.issue(Role::Server, "2").load(), limits);
    let (theirs, ours) = join(&one, LinkKind::Peer, &two).await;
    soon("it is due", ours.due()).await;
    let reason = soon("it is closed", theirs.closed()).await;
    assert!(reason.contains("too old"), "{reason}");
    assert_eq!(two.all_refused(), 0);
}
