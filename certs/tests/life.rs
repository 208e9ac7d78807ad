//! The life of certificates: due, renewed, rotated, revoked, lost; under a passphrase; by two commands at once.

mod common;

use certs::{
    Access, Action, Block, CertsError, Change, Moment, Passphrase, Pki, Plan, Request, Revoke, Selection, Setup, State,
    Verifier, inspect,
};
use common::Dir;
use mesh::net::{Credentials, Endpoint, LinkKind, LinkLimits, presented_certificates};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

const START: Moment = Moment(1_800_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn at(dir: &Dir, days: u32) -> Pki {
    Access::new(&dir.0).at(START.plus(DAY * days)).open().unwrap()
}

fn new_at_start() -> Dir {
    let dir = Dir::new();
    Access::new(&dir.0).at(START).init(&Setup::new("shop.main")).unwrap();
    dir
}

fn part(role: &str, id: &str) -> Revoke {
    Revoke::Part { role: role.to_owned(), id: id.to_owned() }
}

fn these(role: &str, id: &str) -> Selection {
    Selection::These(vec![(role.to_owned(), id.to_owned())])
}

fn request(role: &str, id: &str) -> Request {
    Request { role: role.to_owned(), id: id.to_owned(), ..Request::default() }
}

fn states(pki: &Pki) -> Vec<(String, Option<State>)> {
    let listed = pki.list(false).unwrap();
    listed
        .into_iter()
        .map(|listed| (format!("{}/{} {}", listed.role, listed.id, listed.kind.as_str()), listed.state))
        .collect()
}

fn actions(changes: &[Change]) -> Vec<(Action, &str)> {
    changes.iter().map(|change| (change.action, change.what.as_str())).collect()
}

fn serial(path: &Path) -> String {
    match &inspect(path).unwrap()[0] {
        Block::Certificate(facts) => facts.serial.clone(),
        other => panic!("{other:?}"),
    }
}

/// Issuer, number and serials of each list.
fn crl(pki: &Pki) -> Vec<(u64, Vec<String>)> {
    let lists = inspect(&pki.crl_path()).unwrap().into_iter().map(|block| match block {
        Block::Crl(list) => (list.number.unwrap(), list.revoked.into_iter().map(|revoked| revoked.serial).collect()),
        other => panic!("{other:?}"),
    });
    lists.collect()
}

#[test]
fn a_leaf_is_good_then_due_then_expired() {
    let dir = new_at_start();
    at(&dir, 0).ensure_signing("server", "0").unwrap();
    for (day, state) in [(0, State::Good), (59, State::Good), (61, State::Due), (89, State::Due), (91, State::Expired)]
    {
        let listed = states(&at(&dir, day));
        assert_eq!(listed.len(), 2);
        assert!(listed.iter().all(|(_, found)| *found == Some(state)), "day {day}: {listed:?}");
    }
    let verifier = Verifier::new(&dir.0.join("bundle.crt"), Some(&dir.0.join("crl.pem"))).unwrap();
    for file in ["tls.crt", "signing.crt"] {
        let path = dir.0.join("server/0").join(file);
        assert_eq!(verifier.verify(&path, START).state, Some(State::Good));
        assert_eq!(verifier.verify(&path, START.plus(DAY * 61)).state, Some(State::Due));
        let expired = verifier.verify(&path, START.plus(DAY * 91));
        assert!(expired.state.is_none() && expired.problems[0].contains("certs renew server/0"), "{expired:?}");
        let early = verifier.verify(&path, START.minus(DAY));
        assert!(early.state.is_none() && early.problems[0].contains("compare the clocks"), "{early:?}");
    }
}

#[test]
fn renewal_keeps_names_and_lifetime_and_takes_what_is_due_alone() {
    let dir = new_at_start();
    let sans = vec!["shop.example".parse().unwrap(), "192.0.2.7".parse().unwrap()];
    let short = Request { sans, lifetime: Some(DAY * 10), ..request("ingress", "a") };
    at(&dir, 0).issue_as(&short).unwrap();
    at(&dir, 0).ensure("server", "0").unwrap();
    let (due, good) = (dir.0.join("ingress/a/tls.crt"), dir.0.join("server/0/tls.crt"));
    let before = (serial(&due), serial(&good), fs::read(dir.0.join("ingress/a/tls.key")).unwrap());
    let changes = at(&dir, 8).renew(&Selection::Due, None).unwrap();
    assert_eq!(actions(&changes), [(Action::Renewed, "ingress/a tls")]);
    assert_ne!(serial(&due), before.0);
    assert_eq!(serial(&good), before.1);
    assert_ne!(fs::read(dir.0.join("ingress/a/tls.key")).unwrap(), before.2, "a new key");
    let Block::Certificate(facts) = &inspect(&due).unwrap()[0] else { panic!() };
    assert!(facts.dns_names.contains(&"shop.example".to_owned()));
    assert_eq!(facts.ip_addresses, ["192.0.2.7".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(facts.not_after, START.plus(DAY * 18));
    assert!(at(&dir, 8).renew(&Selection::Due, None).unwrap().is_empty());
    assert!(matches!(at(&dir, 8).renew(&these("server", "9"), None), Err(CertsError::Refused(_))));
}

#[test]
fn nothing_is_replaced_unless_forced_and_the_key_of_an_authority_never() {
    let dir = new_at_start();
    let pki = at(&dir, 0);
    pki.issue("server", "0").unwrap();
    let key = fs::read(dir.0.join("server/0/tls.key")).unwrap();
    assert!(matches!(pki.issue_as(&request("server", "0")), Err(CertsError::Exists(_))));
    assert_eq!(fs::read(dir.0.join("server/0/tls.key")).unwrap(), key);
    // What is not there yet may be added.
    let signing = Request { signing: true, ..request("server", "0") };
    assert_eq!(actions(&pki.issue_as(&signing).unwrap()), [(Action::Issued, "server/0 signing")]);
    assert_eq!(fs::read(dir.0.join("server/0/tls.key")).unwrap(), key);
    assert!(matches!(pki.issue_as(&signing), Err(CertsError::Exists(_))));
    pki.issue_as(&Request { force: true, ..request("server", "0") }).unwrap();
    assert_ne!(fs::read(dir.0.join("server/0/tls.key")).unwrap(), key);
    let authority = fs::read(dir.0.join("ca/1/ca.key")).unwrap();
    let setup = Setup { force: true, ..Setup::new("shop.main") };
    Access::new(&dir.0).at(START).init(&setup).unwrap();
    assert_eq!(fs::read(dir.0.join("ca/retired/1/ca.key")).unwrap(), authority);
    assert!(dir.0.join("ca/2/ca.key").exists() && !dir.0.join("ca/1").exists());
    assert_eq!(states(&at(&dir, 0))[0].1, Some(State::Due), "nobody knows its issuer any more");
}

#[test]
fn names_of_the_scheme_cannot_be_asked_for_by_hand() {
    for san in ["server-1.shop.main.lockstep", "x.LOCKSTEP", "a..b", "", "-a", "a b", "*"] {
        assert!(san.parse::<certs::San>().is_err(), "{san}");
    }
}

#[test]
fn a_rotation_from_start_to_finish() {
    let dir = new_at_start();
    let pki = at(&dir, 1);
    pki.ensure_signing("server", "0").unwrap();
    pki.ensure("client", "lost").unwrap();
    pki.rotation_start(None).unwrap();
    assert!(matches!(pki.rotation_start(None), Err(CertsError::Refused(_))), "one at a time");
    let bundle = fs::read_to_string(dir.0.join("bundle.crt")).unwrap();
    assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(fs::read_to_string(dir.0.join("server/0/ca.crt")).unwrap(), bundle);
    assert_eq!(crl(&pki).len(), 2, "a revocation list of each");
    // New ones come from the new one; both are good.
    pki.ensure("server", "1").unwrap();
    let verifier = Verifier::new(&dir.0.join("bundle.crt"), Some(&pki.crl_path())).unwrap();
    for id in ["0", "1"] {
        let verdict = verifier.verify(&dir.0.join("server").join(id).join("tls.crt"), START.plus(DAY));
        assert_eq!(verdict.state, Some(State::Good), "{verdict:?}");
    }
    let by = |id: &str| pki.list(false).unwrap().into_iter().find(|listed| listed.id == id).unwrap().ca;
    assert_eq!((by("0"), by("1")), (Some(1), Some(2)));
    let Err(CertsError::Refused(why)) = pki.rotation_finish() else { panic!("it cut off live leaves") };
    assert!(why.contains("certs renew client/lost server/0"), "{why}");
    let Err(CertsError::Refused(why)) = pki.rotation_abort() else { panic!("it cut off server/1") };
    assert!(why.contains("server/1"), "{why}");
    pki.renew(&these("server", "0"), None).unwrap();
    // Files that are gone do not make a certificate dead.
    fs::remove_dir_all(dir.0.join("client/lost")).unwrap();
    let Err(CertsError::Refused(why)) = pki.rotation_finish() else { panic!("it forgot a lost leaf") };
    assert!(why.contains("client/lost") && !why.contains("server/0"), "{why}");
    pki.revoke(&part("client", "lost")).unwrap();
    pki.rotation_finish().unwrap();
    let bundle = fs::read_to_string(dir.0.join("bundle.crt")).unwrap();
    assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 1);
    assert_eq!(fs::read_to_string(dir.0.join("server/0/ca.crt")).unwrap(), bundle);
    assert_eq!(crl(&pki).len(), 1);
    assert!(dir.0.join("ca/retired/1/ca.key").exists());
    assert!(pki.rotation_finish().unwrap().is_empty(), "nothing more to do");
}

#[test]
fn a_rotation_can_be_given_up_while_nobody_depends_on_it() {
    let dir = new_at_start();
    let pki = at(&dir, 1);
    pki.ensure("server", "0").unwrap();
    pki.rotation_start(None).unwrap();
    pki.rotation_abort().unwrap();
    let rotation = pki.rotation().unwrap();
    assert_eq!((rotation.issuing, rotation.rotating), (1, false));
    assert!(dir.0.join("ca/retired/2/ca.key").exists());
    pki.rotation_start(None).unwrap();
    assert_eq!(pki.rotation().unwrap().issuing, 3, "numbers are not used again");
    assert!(pki.rotation_abort().unwrap()[0].what == "ca/3");
    assert!(pki.rotation_abort().unwrap().is_empty());
}

#[test]
fn revoked_leaves_are_listed_under_rising_numbers_and_come_back_only_by_name() {
    let dir = new_at_start();
    let pki = at(&dir, 1);
    pki.ensure_signing("server", "0").unwrap();
    let first = serial(&dir.0.join("server/0/tls.crt"));
    pki.renew(&these("server", "0"), None).unwrap();
    assert_eq!(crl(&pki), [(1, vec![])]);
    let changes = pki.revoke(&part("server", "0")).unwrap();
    assert_eq!(changes.iter().filter(|change| change.action == Action::Revoked).count(), 4, "superseded ones too");
    let (number, revoked) = crl(&pki).remove(0);
    assert_eq!((number, revoked.len()), (2, 4));
    assert!(revoked.contains(&first));
    assert_eq!(states(&pki)[0].1, Some(State::Revoked));
    let verifier = Verifier::new(&dir.0.join("bundle.crt"), Some(&pki.crl_path())).unwrap();
    let verdict = verifier.verify(&dir.0.join("server/0/signing.crt"), START.plus(DAY));
    assert!(verdict.problems[0].contains("revoked"), "{verdict:?}");
    // Neither by itself, nor with all others.
    pki.ensure("server", "0").unwrap();
    let all = pki.renew(&Selection::All, None).unwrap();
    assert!(all.iter().all(|change| change.action == Action::Kept), "{all:?}");
    assert_eq!(states(&pki)[0].1, Some(State::Revoked));
    assert!(matches!(pki.secrets(&Selection::All, None), Err(CertsError::Refused(_))));
    pki.renew(&these("server", "0"), None).unwrap();
    assert_eq!(states(&pki)[0].1, Some(State::Good));
    // Again, by number, and what is unknown.
    let again = pki.revoke(&Revoke::Serial(first.to_uppercase())).unwrap();
    assert_eq!(again[0].action, Action::Kept);
    assert!(matches!(pki.revoke(&Revoke::Serial("beef".to_owned())), Err(CertsError::Refused(_))));
    assert!(matches!(pki.revoke(&Revoke::Serial("server".to_owned())), Err(CertsError::Usage(_))));
    assert!(matches!(pki.revoke(&part("server", "7")), Err(CertsError::Refused(_))));
    pki.write_crl().unwrap();
    assert_eq!(crl(&pki)[0].0, 4);
    // A lost list does not set the number back.
    fs::remove_file(pki.crl_path()).unwrap();
    pki.write_crl().unwrap();
    assert_eq!(crl(&pki)[0].0, 5);
}

#[test]
fn an_old_revocation_list_is_signed_anew_along_with_a_renewal() {
    let dir = new_at_start();
    assert!(at(&dir, 50).renew(&Selection::Due, None).unwrap().is_empty());
    let changes = at(&dir, 61).renew(&Selection::Due, None).unwrap();
    assert_eq!(actions(&changes), [(Action::Issued, "crl.pem")]);
}

#[test]
fn half_a_line_of_the_record_is_forgotten_and_anything_else_is_not() {
    let dir = new_at_start();
    at(&dir, 0).ensure("server", "0").unwrap();
    let path = dir.0.join("issued.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{whole}{{\"event\":\"iss")).unwrap();
    at(&dir, 0).ensure("server", "1").unwrap();
    let now = fs::read_to_string(&path).unwrap();
    assert!(now.starts_with(&whole) && now.lines().count() == whole.lines().count() + 1, "{now}");
    fs::write(&path, format!("nonsense\n{now}")).unwrap();
    let Err(CertsError::Unusable { problem, .. }) = Access::new(&dir.0).view() else { panic!("it was believed") };
    assert!(problem.contains("line 1"), "{problem}");
}

fn passphrase(dir: &Dir, text: &str) -> Option<Passphrase> {
    let path = dir.0.join("passphrase");
    let _ = fs::remove_file(&path);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    Some(Passphrase::read(&path).unwrap())
}

#[test]
fn an_authority_under_a_passphrase_needs_it_to_sign_and_for_nothing_else() {
    let (dir, notes) = (Dir::new(), Dir::new());
    let access = |phrase| Access::new(&dir.0).with_passphrase(phrase);
    let pki = access(passphrase(&notes, "correct horse\n")).init(&Setup::new("c")).unwrap();
    pki.ensure("server", "0").unwrap();
    let key = fs::read_to_string(dir.0.join("ca/1/ca.key")).unwrap();
    assert!(key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "{key}");
    let without = access(None).open().unwrap();
    without.ensure("server", "0").unwrap();
    assert_eq!(without.list(false).unwrap().len(), 1);
    assert!(matches!(without.ensure("server", "1"), Err(CertsError::PassphraseMissing(_))));
    assert!(matches!(without.revoke(&part("server", "0")), Err(CertsError::PassphraseMissing(_))));
    assert!(matches!(without.rotation_start(None), Err(CertsError::PassphraseMissing(_))));
    assert_eq!(without.list(false).unwrap()[0].state, Some(State::Good), "nothing was half done");
    let wrong = access(passphrase(&notes, "wrong horse")).open().unwrap();
    assert!(matches!(wrong.ensure("server", "1"), Err(CertsError::PassphraseWrong(_))));
    let right = access(passphrase(&notes, "correct horse")).open().unwrap();
    right.rotation_start(None).unwrap();
    right.ensure("server", "1").unwrap();
    assert!(fs::read_to_string(dir.0.join("ca/2/ca.key")).unwrap().contains("ENCRYPTED"));
    fs::set_permissions(notes.0.join("passphrase"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(Passphrase::read(&notes.0.join("passphrase")), Err(CertsError::Insecure { .. })));
}

fn parse_days(text: &str) -> Result<Duration, String> {
    text.strip_suffix('d').and_then(|days| days.parse().ok()).map(|days| DAY * days).ok_or("days".to_owned())
}

fn plan(dir: &Dir, text: &str) -> Result<Plan, CertsError> {
    let path = dir.0.join("cluster.toml");
    fs::write(&path, text).unwrap();
    Plan::read(&path, parse_days)
}

#[test]
fn a_file_says_what_there_is_to_be() {
    let (dir, notes) = (new_at_start(), Dir::new());
    let text = "cluster = \"shop.main\"\nsigning = true\nlifetime = \"30d\"\nserver = 2\ningress = [\"a\"]\n\
                client = { names = [\"till\"], signing = false, lifetime = \"9d\", sans = [\"till.example\"] }\n";
    let made = at(&dir, 0).apply(&plan(&notes, text).unwrap()).unwrap();
    assert_eq!(made.len(), 7, "{made:?}");
    assert!(made.iter().all(|change| change.action == Action::Issued));
    let kept = at(&dir, 1).apply(&plan(&notes, text).unwrap()).unwrap();
    assert!(kept.len() == 7 && kept.iter().all(|change| change.action == Action::Kept), "{kept:?}");
    let due = at(&dir, 8).apply(&plan(&notes, text).unwrap()).unwrap();
    let renewed: Vec<_> = due.iter().filter(|change| change.action == Action::Renewed).collect();
    assert!(renewed.len() == 1 && renewed[0].what == "client/till tls", "{due:?}");
    // Who is not in the file is left alone, and said.
    let fewer = at(&dir, 8).apply(&plan(&notes, "cluster = \"shop.main\"\nserver = 1\n").unwrap()).unwrap();
    assert_eq!(fewer.iter().filter(|change| change.reason.is_some()).count(), 3, "{fewer:?}");
    for bad in [
        "server = 1",
        "cluster = \"c\"\nqueen = 1",
        "cluster = \"c\"\nserver = [\"a\"]",
        "cluster = \"c\"\nlifetime = \"soon\"",
        "cluster = \"c\"\nserver = 4000000000",
        "cluster = \"c\"\nadmin = { names = [\"a\"], sans = [\"b.lockstep\"] }",
    ] {
        assert!(matches!(plan(&notes, bad), Err(CertsError::Usage(_))), "{bad}");
    }
    let other = plan(&notes, "cluster = \"other\"\n").unwrap();
    assert!(matches!(at(&dir, 0).apply(&other), Err(CertsError::OtherCluster { .. })));
}

#[test]
fn two_commands_at_once_lose_nothing() {
    // Catches a command that works on what it read before it had the lock: records or leaves would be missing.
    let dir = new_at_start();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let dir = &dir;
            scope.spawn(move || {
                let pki = at(dir, 0);
                for id in 0..5 {
                    pki.ensure("server", &(worker * 5 + id).to_string()).unwrap();
                }
                pki.ensure_signing("ingress", "shared").unwrap();
                pki.write_crl().unwrap();
            });
        }
    });
    let pki = at(&dir, 0);
    assert_eq!(pki.list(true).unwrap().len(), 22, "twenty servers, and one ingress with two");
    assert_eq!(crl(&pki)[0].0, 5, "each list had a number of its own");
}

#[test]
fn secrets_have_the_files_of_each_part() {
    let dir = new_at_start();
    let pki = at(&dir, 0);
    pki.ensure_signing("server", "0").unwrap();
    pki.ensure("ingress", "a").unwrap();
    let yaml = pki.secrets(&Selection::All, Some("prod")).unwrap();
    let documents: Vec<&str> = yaml.split("---\n").collect();
    assert_eq!(documents.len(), 2);
    assert!(documents[0].contains("  name: shop.main-server-0\n  namespace: \"prod\"\n"), "{}", documents[0]);
    for (document, keys) in documents.iter().zip([
        &["ca.crt", "crl.pem", "signing.crt", "signing.key", "tls.crt", "tls.key"][..],
        &["ca.crt", "crl.pem", "tls.crt", "tls.key"],
    ]) {
        let data: Vec<&str> = document
            .split("\ndata:\n")
            .nth(1)
            .unwrap()
            .lines()
            .map(|line| line.trim().split(':').next().unwrap())
            .collect();
        assert_eq!(data, keys);
    }
    assert!(matches!(pki.secrets(&Selection::All, Some("a\": b")), Err(CertsError::Usage(_))));
}

fn credentials(pki: &Pki, role: &str, id: &str) -> Credentials {
    Credentials::load(&pki.ensure(role, id).unwrap().dir, None).unwrap()
}

fn bind(credentials: Credentials, kinds: &[LinkKind]) -> Endpoint {
    let limits = LinkLimits { message_bytes: 1000, uni_streams: 4, bidi_streams: 4, max_age: mesh::net::LINK_MAX_AGE };
    let mut registry = mesh::node::Registry::default();
    Endpoint::bind("127.0.0.1:0".parse().unwrap(), credentials, kinds, limits, &mut registry).unwrap()
}

#[tokio::test]
async fn links_live_through_a_rotation_and_refuse_the_revoked_and_the_signing_leaves() {
    let dir = Dir::new();
    let pki = Pki::init(&dir.0, "shop").unwrap();
    pki.ensure("server", "0").unwrap();
    pki.ensure("admin", "old").unwrap();
    pki.rotation_start(None).unwrap();
    let server = credentials(&pki, "server", "0").with_revocations(&pki.crl_path()).unwrap();
    let server = bind(server, &[LinkKind::Peer, LinkKind::Admin]);
    let target = server.local_addr().to_string();
    for id in ["old", "new"] {
        let dialler = bind(credentials(&pki, "admin", id), &[]);
        dialler.dial(LinkKind::Admin, &target, Some("0")).await.unwrap();
    }
    // What it presents can be seen without a certificate.
    let (_, chain) = presented_certificates(&target).await.unwrap();
    assert_eq!(certs::Facts::of(&chain[0]).unwrap().serial, serial(&dir.0.join("server/0/tls.crt")));
    // A leaf for signatures opens no link.
    let signing = pki.ensure_signing("admin", "sly").unwrap();
    fs::copy(&signing.signing_certificate, &signing.certificate).unwrap();
    fs::copy(&signing.signing_key, &signing.key).unwrap();
    let sly = bind(Credentials::load(&signing.dir, None).unwrap(), &[]);
    assert!(sly.dial(LinkKind::Admin, &target, Some("0")).await.is_err());
    // Revoked under each of the two authorities.
    let revoked = [bind(credentials(&pki, "admin", "old"), &[]), bind(credentials(&pki, "admin", "new"), &[])];
    pki.revoke(&part("admin", "old")).unwrap();
    pki.revoke(&part("admin", "new")).unwrap();
    let strict = credentials(&pki, "server", "0").with_revocations(&pki.crl_path()).unwrap();
    let strict = bind(strict, &[LinkKind::Admin]);
    for dialler in revoked {
        let refused = dialler.dial(LinkKind::Admin, &strict.local_addr().to_string(), Some("0")).await;
        assert!(refused.is_err_and(|problem| problem.to_string().contains("revoked")));
    }
    let good = bind(credentials(&pki, "admin", "other"), &[]);
    good.dial(LinkKind::Admin, &strict.local_addr().to_string(), Some("0")).await.unwrap();
}

#[test]
fn what_does_not_fit_is_not_verified() {
    let dir = new_at_start();
    let pki = at(&dir, 0);
    let (mine, other) = (pki.ensure("server", "0").unwrap(), pki.ensure("client", "a").unwrap());
    let verifier = Verifier::new(&pki.bundle_path(), None).unwrap();
    let problem = |path: &Path| verifier.verify(path, START).problems.join("; ");
    assert_eq!(problem(&mine.certificate), "");
    // Another one's key.
    let key = fs::read(&mine.key).unwrap();
    fs::copy(&other.key, &mine.key).unwrap();
    assert!(problem(&mine.certificate).contains("is not its key"));
    fs::write(&mine.key, key).unwrap();
    // A name altered after it was signed.
    let text = fs::read(&mine.certificate).unwrap();
    let der = x509_parser::pem::parse_x509_pem(&text).unwrap().1.contents;
    let at = der.windows(8).position(|window| window == b"server/0").unwrap();
    let mut altered = der.clone();
    altered[at + 7] = b'1';
    let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &altered);
    fs::write(&mine.certificate, format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")).unwrap();
    assert!(problem(&mine.certificate).contains("altered"), "{}", problem(&mine.certificate));
    assert!(problem(&mine.certificate).contains("contradict"), "{}", problem(&mine.certificate));
    // Another authority.
    let stranger = new_at_start();
    let theirs = Verifier::new(&stranger.0.join("bundle.crt"), None).unwrap();
    assert!(theirs.verify(&other.certificate, START).problems[0].contains("no trusted authority"));
    assert!(theirs.verify(&dir.0.join("ca/1/ca.crt"), START).problems[0].contains("not in the bundle"));
}
