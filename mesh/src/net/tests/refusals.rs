//! Who may link with whom, and that each refusal is counted at both ends under the right reason.

use super::*;
use bytes::Bytes;
use rcgen::{ExtendedKeyUsagePurpose, SanType, SerialNumber, date_time_ymd};

/// Dials and checks that both ends count one refusal for `reason`, and nothing else.
async fn refused(dialler: &Part, kind: LinkKind, acceptor: &Part, id: Option<&str>, reason: RefusalReason) -> Refusal {
    let target = acceptor.address();
    let dialled = soon("dial", dial::dial_as_anyone(dialler.endpoint.shared(), kind, &target, id)).await;
    let Err(NetError::Refused { refusal, .. }) = dialled else { panic!("{reason}: {dialled:?}") };
    assert_eq!(refusal.reason, reason, "{refusal}");
    eventually("the acceptor counts it", || acceptor.all_refused() == 1).await;
    for (end, part) in [("dialler", dialler), ("acceptor", acceptor)] {
        assert_eq!((part.refused(reason.as_str()), part.all_refused()), (1, 1), "{end}, {reason}");
    }
    refusal
}

#[tokio::test]
async fn links_of_the_right_roles_work_and_say_who_is_at_the_other_end() {
    let pki = Pki::new();
    for (kind, role, acceptor) in [
        (LinkKind::Peer, Role::Server, Role::Server),
        (LinkKind::Submit, Role::SmartClient, Role::Server),
        (LinkKind::Client, Role::Ingress, Role::SmartClient),
        (LinkKind::Client, Role::Client, Role::SmartClient),
        (LinkKind::Admin, Role::Admin, Role::Server),
    ] {
        let one = Part::new(pki.issue(role, "1").load());
        let two = Part::new(pki.issue(acceptor, "2").load());
        let (dialled, accepted) = join(&one, kind, &two).await;
        assert_eq!(dialled.peer(), &Identity::new("c1", acceptor, "2").unwrap());
        assert_eq!(accepted.peer(), &Identity::new("c1", role, "1").unwrap());
        assert_eq!((dialled.kind(), accepted.kind()), (kind, kind));
        assert_eq!((one.all_refused(), two.all_refused()), (0, 0));
    }
}

#[tokio::test]
async fn the_expected_id_is_accepted_and_another_is_refused() {
    let pki = Pki::new();
    let one = Part::new(pki.issue(Role::Server, "1").load());
    let two = Part::new(pki.issue(Role::Server, "2").load());
    one.endpoint.dial(LinkKind::Peer, &two.address(), Some("2")).await.unwrap();
    let refusal = refused(&one, LinkKind::Peer, &two, Some("3"), RefusalReason::WrongId).await;
    assert_eq!(refusal.by, RefusedBy::Us);
    assert_eq!(refusal.claims, Some(Identity::new("c1", Role::Server, "2").unwrap()));
}

#[tokio::test]
async fn another_authoritys_certificates_are_refused_at_both_ends() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let stranger = Part::new(theirs.issue(Role::Server, "1").load());
    let server = Part::new(ours.issue(Role::Server, "2").load());
    refused(&stranger, LinkKind::Peer, &server, None, RefusalReason::UnknownCa).await;
    // One that trusts us, but whom we do not trust: it is the acceptor that refuses.
    let guest = theirs.issue(Role::Server, "1");
    let guest = Part::new(guest.trust(&ours.authority_pem()).load());
    let server = Part::new(ours.issue(Role::Server, "2").load());
    let refusal = refused(&guest, LinkKind::Peer, &server, None, RefusalReason::UnknownCa).await;
    assert_eq!(refusal.by, RefusedBy::Peer);
}

#[tokio::test]
async fn a_self_signed_certificate_and_an_altered_one_are_refused_in_words_of_their_own() {
    let pki = Pki::new();
    let server = || Part::new(pki.issue(Role::Server, "2").load());
    for (leaf, words) in [
        (pki.self_signed(Role::Server, "1"), "self-signed"),
        (pki.issue(Role::Server, "3").altered("server-3", "server-1"), "altered"),
    ] {
        let dialler = Part::new(leaf.load());
        let refusal = refused(&dialler, LinkKind::Peer, &server(), None, RefusalReason::UnknownCa).await;
        assert!(refusal.detail.contains(words) && refusal.by == RefusedBy::Peer, "{refusal}");
        let acceptor = Part::new(leaf.load());
        let refusal = refused(&server(), LinkKind::Peer, &acceptor, None, RefusalReason::UnknownCa).await;
        assert!(refusal.detail.contains(words) && refusal.by == RefusedBy::Us, "{refusal}");
    }
}

#[tokio::test]
async fn certificates_outside_their_time_are_refused_at_both_ends() {
    let pki = Pki::new();
    let expired = || {
        pki.issue_for("c1", Role::Server, "1", |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        })
    };
    let future = || pki.issue_for("c1", Role::Server, "1", |params| params.not_before = date_time_ymd(4000, 1, 1));
    let good = || Part::new(pki.issue(Role::Server, "2").load());
    refused(&Part::new(expired().load()), LinkKind::Peer, &good(), None, RefusalReason::Expired).await;
    refused(&good(), LinkKind::Peer, &Part::new(expired().load()), None, RefusalReason::Expired).await;
    refused(&Part::new(future().load()), LinkKind::Peer, &good(), None, RefusalReason::NotYetValid).await;
    refused(&good(), LinkKind::Peer, &Part::new(future().load()), None, RefusalReason::NotYetValid).await;
}

#[tokio::test]
async fn revoked_certificates_are_refused_at_both_ends() {
    let pki = Pki::new();
    let list = pki.revoke(77);
    let revoked =
        || pki.issue_for("c1", Role::Server, "1", |params| params.serial_number = Some(SerialNumber::from(77)));
    let good = || Part::new(pki.issue(Role::Server, "2").load_with(&list));
    refused(&Part::new(revoked().load()), LinkKind::Peer, &good(), None, RefusalReason::Revoked).await;
    refused(&good(), LinkKind::Peer, &Part::new(revoked().load()), None, RefusalReason::Revoked).await;
    // Of several lists of one authority the newest counts, wherever it stands.
    for lists in [[(1, 78), (2, 77)], [(2, 77), (1, 78)]] {
        std::fs::write(&list, lists.map(|(number, serial)| pki.list(number, serial)).concat()).unwrap();
        refused(&good(), LinkKind::Peer, &Part::new(revoked().load()), None, RefusalReason::Revoked).await;
    }
    // Others of the same authority still link.
    let third = Part::new(pki.issue(Role::Server, "3").load());
    join(&good(), LinkKind::Peer, &third).await;
}

#[tokio::test]
async fn a_role_that_may_not_dial_is_refused_by_the_acceptor() {
    let pki = Pki::new();
    for (kind, role) in [
        (LinkKind::Peer, Role::SmartClient),
        (LinkKind::Peer, Role::Ingress),
        (LinkKind::Submit, Role::Ingress),
        (LinkKind::Admin, Role::Server),
    ] {
        let dialler = Part::new(pki.issue(role, "1").load());
        let server = Part::new(pki.issue(Role::Server, "2").load());
        let refusal = refused(&dialler, kind, &server, None, RefusalReason::WrongRole).await;
        assert_eq!(refusal.by, RefusedBy::Peer);
        assert!(refusal.detail.contains(role.as_str()), "{refusal}");
        // And it is not even tried by a part that goes by the rules.
        let dialled = dialler.endpoint.dial(kind, &server.address(), None).await;
        assert!(matches!(dialled, Err(NetError::NotOurRole { .. })));
    }
}

#[tokio::test]
async fn a_role_that_may_not_accept_is_refused_by_the_dialler() {
    let pki = Pki::new();
    let kinds = [LinkKind::Peer];
    let server = || Part::new(pki.issue(Role::Server, "2").load());
    let smart_client = || pki.issue(Role::SmartClient, "1").load();
    let pretender = Part::pretender(smart_client(), &kinds);
    refused(&server(), LinkKind::Peer, &pretender, None, RefusalReason::WrongRole).await;
    let pretender = Part::pretender(smart_client(), &kinds);
    refused(&server(), LinkKind::Peer, &pretender, Some("1"), RefusalReason::WrongRole).await;
    let bound = Endpoint::bind(loopback(), smart_client(), &kinds, limits(), &mut Registry::default());
    assert!(matches!(bound.err(), Some(NetError::NotOurRole { .. })));
}

#[tokio::test]
async fn a_certificate_that_is_not_for_servers_cannot_accept() {
    let pki = Pki::new();
    let client_only = pki.issue_for("c1", Role::Server, "1", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let server = Part::new(pki.issue(Role::Server, "2").load());
    refused(&server, LinkKind::Peer, &Part::new(client_only.load()), None, RefusalReason::WrongRole).await;
}

#[tokio::test]
async fn another_cluster_of_the_same_authority_is_refused_in_both_directions() {
    let pki = Pki::new();
    let ours = || Part::new(pki.issue(Role::Server, "2").load());
    let theirs = || Part::new(pki.issue_for("c2", Role::Server, "1", |_| {}).load());
    refused(&ours(), LinkKind::Peer, &theirs(), None, RefusalReason::WrongCluster).await;
    refused(&ours(), LinkKind::Peer, &theirs(), Some("1"), RefusalReason::WrongCluster).await;
    refused(&theirs(), LinkKind::Peer, &ours(), None, RefusalReason::WrongCluster).await;
}

#[tokio::test]
async fn a_server_does_not_link_with_another_process_of_its_own_id() {
    let pki = Pki::new();
    let one = Part::new(pki.issue(Role::Server, "1").load());
    let double = Part::new(pki.issue(Role::Server, "1").load());
    refused(&one, LinkKind::Peer, &double, None, RefusalReason::WrongId).await;
}

#[tokio::test]
async fn a_kind_of_link_that_is_not_spoken_there_is_refused() {
    let pki = Pki::new();
    let server = Part::new(pki.issue(Role::Server, "1").load());
    let smart_client = Part::new(pki.issue(Role::SmartClient, "a").load());
    refused(&server, LinkKind::Peer, &smart_client, None, RefusalReason::Version).await;
}

/// An endpoint that speaks a version that nobody has made yet, alone or beside ours.
fn from_the_future(mut credentials: Credentials, also_ours: bool) -> Part {
    let speaks: fn(LinkKind) -> Vec<Vec<u8>> = if also_ours {
        |kind| vec![format!("lockstep-{kind}/99").into_bytes(), kind.alpn().to_vec()]
    } else {
        |kind| vec![format!("lockstep-{kind}/99").into_bytes()]
    };
    credentials.speaks = speaks;
    Part::new(credentials)
}

#[tokio::test]
async fn another_version_is_refused_at_both_ends_in_words_that_name_both() {
    let pki = Pki::new();
    let (one, two) = (|| pki.issue(Role::Server, "1").load(), || pki.issue(Role::Server, "2").load());
    let ours = String::from_utf8_lossy(LinkKind::Peer.alpn()).into_owned();
    let future = from_the_future(one(), false);
    let refusal = refused(&future, LinkKind::Peer, &Part::new(two()), None, RefusalReason::Version).await;
    assert!(refusal.by == RefusedBy::Peer && refusal.to_string().contains("lockstep-peer/99"), "{refusal}");
    let refusal =
        refused(&Part::new(two()), LinkKind::Peer, &from_the_future(one(), false), None, RefusalReason::Version).await;
    assert!(refusal.by == RefusedBy::Peer && refusal.to_string().contains(&ours), "{refusal}");
    assert!(refusal.to_string().contains("versions that go together"), "{refusal}");
}

#[tokio::test]
async fn two_versions_settle_on_the_one_that_both_know() {
    let pki = Pki::new();
    let future = from_the_future(pki.issue(Role::Server, "1").load(), true);
    let today = Part::new(pki.issue(Role::Server, "2").load());
    join(&future, LinkKind::Peer, &today).await;
    join(&today, LinkKind::Peer, &future).await;
    assert_eq!((future.all_refused(), today.all_refused()), (0, 0));
}

#[tokio::test]
async fn a_refused_dialler_does_not_hold_up_others() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let server = Part::new(ours.issue(Role::Server, "2").load());
    let stranger = Part::new(theirs.issue(Role::Server, "1").load());
    for _ in 0..20 {
        assert!(stranger.endpoint.dial(LinkKind::Peer, &server.address(), None).await.is_err());
    }
    let one = Part::new(ours.issue(Role::Server, "1").load());
    join(&one, LinkKind::Peer, &server).await;
    eventually("all are counted", || server.refused("unknown_ca") == 20).await;
}

#[tokio::test]
async fn many_who_come_at_once_all_get_in() {
    let pki = Pki::new();
    let server = Part::new(pki.issue(Role::Server, "0").load());
    let one = Part::new(pki.issue(Role::Server, "1").load());
    // More than may shake hands before they must prove their address, and more than may wait to be accepted.
    let mut dials = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (endpoint, target) = (one.endpoint.clone(), server.address());
        dials.spawn(async move {
            // On a busy machine an attempt may take too long; a refusal never comes.
            loop {
                match endpoint.dial(LinkKind::Peer, &target, Some("0")).await {
                    Ok(link) => return link,
                    Err(NetError::Unreachable { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    let mut accepted = Vec::new();
    let accepting = async {
        while let Some(link) = server.endpoint.accept().await {
            accepted.push(link);
        }
    };
    tokio::select! {
        () = accepting => panic!("the endpoint closed"),
        links = soon("all get in", dials.join_all()) => assert_eq!(links.len(), 100),
    }
}

#[tokio::test]
async fn nobody_at_an_address_is_no_refusal() {
    let pki = Pki::new();
    let one = Part::new(pki.issue(Role::Server, "1").load());
    let socket = std::net::UdpSocket::bind(loopback()).unwrap();
    let dialled =
        soon("dial", one.endpoint.dial(LinkKind::Peer, &socket.local_addr().unwrap().to_string(), None)).await;
    assert!(matches!(dialled, Err(NetError::Unreachable { .. })), "{dialled:?}");
    let dialled = soon("dial", one.endpoint.dial(LinkKind::Peer, "no.such.host.invalid:1", None)).await;
    assert!(matches!(dialled, Err(NetError::Resolve { .. })), "{dialled:?}");
    let dialled = one.endpoint.dial(LinkKind::Peer, "127.0.0.1:1", Some("x")).await;
    assert!(matches!(dialled, Err(NetError::Name(_))), "{dialled:?}");
    assert_eq!(one.all_refused(), 0);
}

#[test]
fn credentials_that_cannot_be_right_are_not_loaded() {
    let pki = Pki::new();
    let complaint = |dir: &std::path::Path| Credentials::load(dir, None).unwrap_err().to_string();
    for mode in [0o604, 0o644, 0o660, 0o602, 0o601] {
        let leaf = pki.issue(Role::Server, "1");
        leaf.key_mode(mode);
        assert!(complaint(leaf.dir()).contains("chmod"), "{mode:o}");
    }
    for mode in [0o440, 0o400, 0o640] {
        let leaf = pki.issue(Role::Server, "1");
        leaf.key_mode(mode);
        leaf.load();
    }
    let contradiction = pki.issue_for("c1", Role::Server, "1", |params| {
        params.subject_alt_names[0] = SanType::DnsName("server-2.c1.lockstep".try_into().unwrap());
    });
    assert!(complaint(contradiction.dir()).contains("contradict"));
    let nameless = pki.issue_for("c1", Role::Server, "1", |params| params.subject_alt_names.truncate(1));
    assert!(complaint(nameless.dir()).contains("lacks"));
    let (one, two) = (pki.issue(Role::Server, "1"), pki.issue(Role::Server, "2"));
    std::fs::copy(two.dir().join("tls.key"), one.dir().join("tls.key")).unwrap();
    assert!(complaint(one.dir()).contains("cannot be used with"));
    std::fs::remove_file(one.dir().join("tls.key")).unwrap();
    assert!(complaint(one.dir()).contains("tls.key"));
    assert!(complaint(two.trust("").dir()).contains("ca.crt"));
}

#[tokio::test]
async fn the_expiry_of_our_certificate_is_a_metric() {
    let pki = Pki::new();
    let part =
        Part::new(pki.issue_for("c1", Role::Server, "1", |params| params.not_after = date_time_ymd(2100, 1, 1)).load());
    assert_eq!(part.metric("tls_certificate_expiry_timestamp_seconds"), 4_102_444_800);
}

/// Mutant: without the bound one certificate takes the places of all.
#[tokio::test]
async fn of_too_many_links_of_one_identity_the_oldest_goes() {
    let pki = Pki::new();
    let server = Part::new(pki.issue(Role::Server, "0").load());
    let (one, other) =
        (Part::new(pki.issue(Role::SmartClient, "1").load()), Part::new(pki.issue(Role::SmartClient, "2").load()));
    let (others, others_there) = join(&other, LinkKind::Submit, &server).await;
    let mut links = Vec::new();
    for _ in 0..=crate::net::live::LINKS_OF_IDENTITY {
        links.push(soon("a link", join(&one, LinkKind::Submit, &server)).await);
    }
    soon("the oldest goes", links[0].0.closed()).await;
    // The next one and another identity's still carry messages.
    for (link, there) in [(&links[1].0, &links[1].1), (&others, &others_there)] {
        link.send(Bytes::from_static(b"still here")).await.unwrap();
        assert_eq!(soon("a message", there.receive()).await.unwrap(), Bytes::from_static(b"still here"));
    }
}
