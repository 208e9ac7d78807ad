//! What a lying SMaRtClient can make of signed replies: nothing but a refusal.

use super::*;
use crate::auth::{self, SecretKey, SharedProof};
use crate::ids::{ClientId, Digest, Generation, Seq, Slot};
use crate::names::{DEFAULT_TRUST_DOMAIN, Identity, Role};
use crate::net::Trusted;
use crate::wire::Kind;
use crate::wire::client::NothingSent;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, PKCS_ED25519,
    SanType, date_time_ymd,
};
use rustls::RootCertStore;

const T0: Instant = Instant::ZERO;
const E: Endpoint = Endpoint(1);
const ALL: [Endpoint; 3] = [E, Endpoint(2), Endpoint(3)];
const CLUSTER: &str = "c1";

fn tag(seq: u64) -> Tag {
    Tag { client: ClientId(1), opened: Generation::FIRST.at(Slot(1)), seq: Seq(seq), kind: Kind::Call }
}

fn outcome(text: &'static str) -> Outcome {
    Outcome::Executed(Bytes::from_static(text.as_bytes()))
}

fn key(server: u32) -> SecretKey {
    SecretKey::from_seed(&[server as u8 + 1; 32]).unwrap()
}

/// A server's word on an outcome, in a cluster of `electorate`.
fn word_of(key: &SecretKey, server: u32, electorate: u16, tag: &Tag, form: Digest, content: Digest) -> Vouched {
    let (replica, slot) = (ReplicaId(server), Slot(7));
    let said = auth::reply_statement(CLUSTER, replica, tag, slot, electorate, &form, &content);
    let proof = SharedProof::new(auth::sign(key, &[said]).remove(0));
    Vouched { replica, slot, electorate, form, content, proof }
}

/// Of one of three servers, in a protocol whose replies are compared as they are.
fn word(server: u32, tag: &Tag, text: &'static str) -> Vouched {
    word_of(&key(server), server, 3, tag, Digest::of(text.as_bytes()), outcome(text).content())
}

fn words(servers: &[u32], tag: &Tag, text: &'static str) -> Vec<Vouched> {
    servers.iter().map(|server| word(*server, tag, text)).collect()
}

/// One that knows the keys of the servers 0, 1 and 2, until the second 1000.
fn witness(mode: Signatures) -> Witness {
    let mut witness = Witness::new(CLUSTER, mode, ReplyVote::Majority, believing_nobody());
    witness.keys.at(|| 1000);
    for server in 0..3 {
        let identity = Identity::new(CLUSTER, Role::Server, &server.to_string()).unwrap();
        let trusted = Trusted { identity, key: key(server).public(), not_after: 1000 };
        witness.keys.learn(ReplicaId(server), Bytes::copy_from_slice(&[server as u8]), &trusted);
    }
    witness
}

/// Why the reply to request 1 is not believed.
fn refused(witness: &mut Witness, text: &'static str, vouched: Vec<Vouched>) -> Option<Unbelieved> {
    let told = Told::Outcome { outcome: outcome(text), vouched };
    match witness.judge(T0, (E, &ALL), &tag(1), told.clone()) {
        Judged::Believed(same) => {
            assert_eq!(same, told);
            None
        }
        Judged::Rejected(why) => Some(why),
        Judged::Doubted => panic!("an outcome is never doubted"),
    }
}

fn required(text: &'static str, vouched: Vec<Vouched>) -> Option<Unbelieved> {
    refused(&mut witness(Signatures::Required), text, vouched)
}

#[test]
fn an_outcome_needs_the_words_of_as_many_servers_as_the_rule_says() {
    assert_eq!(required("OK", words(&[0, 2], &tag(1), "OK")), None);
    assert_eq!(required("OK", words(&[0, 1, 2], &tag(1), "OK")), None);
    assert_eq!(required("OK", words(&[1], &tag(1), "OK")), Some(Unbelieved::TooFew));
    assert_eq!(required("OK", words(&[1, 1, 1], &tag(1), "OK")), Some(Unbelieved::TooFew), "one server, not three");
    let mut all = witness(Signatures::Required);
    all.vote = ReplyVote::All;
    assert_eq!(refused(&mut all, "OK", words(&[0, 1], &tag(1), "OK")), Some(Unbelieved::TooFew));
    all.vote = ReplyVote::First;
    assert_eq!(refused(&mut all, "OK", words(&[0], &tag(1), "OK")), None);
}

#[test]
fn forged_and_altered_and_swapped_words_are_not_believed() {
    let forged = word_of(&key(7), 1, 3, &tag(1), Digest::of(b"OK"), outcome("OK").content());
    let with_forged = vec![word(0, &tag(1), "OK"), forged.clone()];
    assert_eq!(required("OK", with_forged.clone()), Some(Unbelieved::BadSignature));
    let enough = [with_forged, words(&[2], &tag(1), "OK")].concat();
    assert_eq!(required("OK", enough.clone()), None, "a lie beside the truth changes nothing");
    assert_eq!(refused(&mut witness(Signatures::Optional), "OK", enough), Some(Unbelieved::BadSignature));
    assert_eq!(required("KO", words(&[0, 1, 2], &tag(1), "OK")), Some(Unbelieved::Altered));
    // The reply to another request, of this client or another one's.
    assert_eq!(required("OK", words(&[0, 1, 2], &tag(2), "OK")), Some(Unbelieved::BadSignature));
    let other = Tag { client: ClientId(2), ..tag(1) };
    assert_eq!(required("OK", words(&[0, 1, 2], &other, "OK")), Some(Unbelieved::BadSignature));
    // One server's word under the names of all.
    let borrowed = (0..3).map(|server| Vouched { replica: ReplicaId(server), ..word(0, &tag(1), "OK") }).collect();
    assert_eq!(required("OK", borrowed), Some(Unbelieved::BadSignature));
}

#[test]
fn the_electorate_is_signed_and_the_largest_counts() {
    let altered = Vouched { electorate: 1, ..word(0, &tag(1), "OK") };
    assert_eq!(required("OK", vec![altered]), Some(Unbelieved::BadSignature));
    let of = |server, electorate| {
        word_of(&key(server), server, electorate, &tag(1), Digest::of(b"OK"), outcome("OK").content())
    };
    assert_eq!(required("OK", vec![of(0, 1), of(1, 5)]), Some(Unbelieved::TooFew), "of five three are needed");
    assert_eq!(required("OK", vec![of(0, 1), of(1, 5), of(2, 5)]), None);
    assert_eq!(required("OK", vec![of(0, 0)]), None, "of no more than itself one is needed");
}

#[test]
fn words_count_for_their_form_and_one_of_them_must_be_about_the_bytes() {
    let of = |server, form: &[u8], content| word_of(&key(server), server, 3, &tag(1), Digest::of(form), content);
    let (ok, other) = (outcome("OK").content(), outcome("OK 2").content());
    assert_eq!(required("OK", vec![of(0, b"a", ok), of(1, b"b", ok)]), Some(Unbelieved::TooFew));
    assert_eq!(required("OK", vec![of(0, b"a", ok), of(1, b"a", other)]), None, "not compared byte by byte");
    let hash = |server| of(server, b"a", auth::no_content(&Digest::of(b"a")));
    assert_eq!(required("OK", vec![of(0, b"a", ok), hash(1)]), None);
    assert_eq!(required("OK", vec![hash(0), hash(1)]), Some(Unbelieved::Altered), "a hash vouches for no bytes");
    // A majority for another outcome, and one server for these bytes.
    let mixed = vec![of(0, b"a", ok), of(1, b"b", other), of(2, b"b", other)];
    assert_eq!(required("OK", mixed), Some(Unbelieved::Altered));
}

#[test]
fn a_server_without_a_valid_certificate_is_nobody() {
    let stranger = vec![word(0, &tag(1), "OK"), word(7, &tag(1), "OK")];
    assert_eq!(required("OK", stranger), Some(Unbelieved::UnknownSigner));
    let mut later = witness(Signatures::Required);
    later.keys.at(|| 1001);
    assert_eq!(refused(&mut later, "OK", words(&[0, 1, 2], &tag(1), "OK")), Some(Unbelieved::UnknownSigner));
}

#[test]
fn what_is_not_signed_is_believed_unless_signatures_are_required() {
    assert_eq!(required("OK", Vec::new()), Some(Unbelieved::Unsigned));
    let mut optional = witness(Signatures::Optional);
    assert_eq!(refused(&mut optional, "OK", Vec::new()), None);
    assert_eq!(refused(&mut optional, "OK", words(&[1], &tag(1), "OK")), None, "the others do not sign yet");
    assert_eq!(refused(&mut optional, "KO", words(&[1, 2], &tag(1), "OK")), Some(Unbelieved::Altered));
    assert_eq!(refused(&mut optional, "OK", words(&[1, 2], &tag(2), "OK")), Some(Unbelieved::BadSignature));
    assert_eq!(refused(&mut witness(Signatures::Off), "KO", words(&[1, 2], &tag(2), "OK")), None);
}

#[test]
fn the_final_word_of_one_smart_client_is_doubted_until_others_say_the_same() {
    let gone = || Told::Unknown(Unknown::SessionGone);
    let mut witness = witness(Signatures::Required);
    let mut said = |endpoint, told| witness.judge(T0, (Endpoint(endpoint), &ALL), &tag(1), told);
    assert_eq!(said(1, gone()), Judged::Doubted);
    assert_eq!(said(1, gone()), Judged::Doubted, "however often");
    assert_eq!(said(2, Told::Unknown(Unknown::TooOld)), Judged::Doubted);
    assert_eq!(said(2, gone()), Judged::Doubted);
    assert_eq!(said(3, gone()), Judged::Believed(gone()));
    let nothing = Told::NothingSent(NothingSent::Busy);
    assert_eq!(said(1, nothing.clone()), Judged::Believed(nothing), "the sender makes nothing definite of it");
    let mut optional = super::Witness::new(CLUSTER, Signatures::Optional, ReplyVote::Majority, believing_nobody());
    assert_eq!(optional.judge(T0, (E, &ALL), &tag(1), gone()), Judged::Believed(gone()));
}

/// Mutant: one for whom only those count that are asked, however many have not been heard.
#[test]
fn who_is_not_asked_any_more_is_not_believed_alone() {
    let gone = || Told::Unknown(Unknown::SessionGone);
    let mut witness = witness(Signatures::Required);
    let mut said = |endpoint, seq| witness.judge(T0, (Endpoint(endpoint), &[Endpoint(2)]), &tag(seq), gone());
    assert_eq!(said(1, 1), Judged::Doubted, "the other one may know better");
    assert_eq!(said(2, 1), Judged::Believed(gone()), "it says the same");
    assert_eq!(said(2, 2), Judged::Believed(gone()), "there is nobody else to ask");
}

/// Whom a witness believes whose keys are given to it.
fn believing_nobody() -> Arc<SignerTrust> {
    Arc::new(SignerTrust::new((CLUSTER, DEFAULT_TRUST_DOMAIN), Arc::new(RootCertStore::empty()), &[]).unwrap())
}

/// An authority.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// A signing leaf and its key.
    fn issue(&self, role: Role, id: &str, spoil: impl FnOnce(&mut CertificateParams)) -> (Bytes, SecretKey) {
        let who = Identity::new(CLUSTER, role, id).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![
            SanType::DnsName(who.dns_name().try_into().unwrap()),
            SanType::URI(who.uri(DEFAULT_TRUST_DOMAIN).try_into().unwrap()),
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 36])];
        spoil(&mut params);
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (Bytes::copy_from_slice(certificate.der()), SecretKey::from_pkcs8(key.serialized_der()).unwrap())
    }

    fn trust(&self) -> Arc<SignerTrust> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        Arc::new(SignerTrust::new((CLUSTER, DEFAULT_TRUST_DOMAIN), Arc::new(roots), &[]).unwrap())
    }
}

/// Whether a word that is signed with a key is believed once its certificate was shown as server 0's.
fn certified(trust: &Authority, (certificate, key): (Bytes, SecretKey)) -> Option<Unbelieved> {
    let mut witness = Witness::new(CLUSTER, Signatures::Required, ReplyVote::First, trust.trust());
    witness.shown(T0, E, vec![(ReplicaId(0), certificate)]);
    let word = word_of(&key, 0, 3, &tag(1), Digest::of(b"OK"), outcome("OK").content());
    refused(&mut witness, "OK", vec![word])
}

#[test]
fn only_a_certificate_of_that_server_from_our_authority_makes_a_key_known() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let unknown = Some(Unbelieved::UnknownSigner);
    assert_eq!(certified(&ours, ours.issue(Role::Server, "0", |_| {})), None);
    assert_eq!(certified(&ours, theirs.issue(Role::Server, "0", |_| {})), unknown);
    assert_eq!(certified(&ours, ours.issue(Role::Server, "1", |_| {})), unknown, "another server's");
    assert_eq!(certified(&ours, ours.issue(Role::SmartClient, "0", |_| {})), unknown, "a SMaRtClient signs nothing");
    let ended = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    assert_eq!(certified(&ours, ours.issue(Role::Server, "0", ended)), unknown);
    let tls = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    };
    assert_eq!(certified(&ours, ours.issue(Role::Server, "0", tls)), unknown, "no certificate for signing");
    let elsewhere = |params: &mut CertificateParams| {
        let uri = Identity::new(CLUSTER, Role::Server, "0").unwrap().uri("elsewhere.example");
        params.subject_alt_names[1] = SanType::URI(uri.try_into().unwrap());
    };
    assert_eq!(certified(&ours, ours.issue(Role::Server, "0", elsewhere)), unknown, "of another trust domain");
    let rubbish = (Bytes::from_static(b"rubbish"), key(0));
    assert_eq!(certified(&ours, rubbish), unknown);
}

#[test]
fn certificates_that_came_too_fast_are_looked_at_when_a_word_needs_them_and_old_ones_do_not_push_the_newest_out() {
    let ours = Authority::new();
    let mut witness = Witness::new(CLUSTER, Signatures::Required, ReplyVote::First, ours.trust());
    let until = |year| ours.issue(Role::Server, "0", |params| params.not_after = date_time_ymd(year, 1, 1));
    let (newest, key) = until(3000);
    // A key of this server is known, so that the new one's words would look like forged ones.
    witness.shown(T0, E, vec![(ReplicaId(0), until(2980).0)]);
    assert!(witness.keys.knows(ReplicaId(0)));
    let soon = T0 + crate::time::Duration::from_millis(1);
    witness.shown(soon, E, vec![(ReplicaId(0), newest)]);
    let told = || {
        let word = word_of(&key, 0, 3, &tag(1), Digest::of(b"OK"), outcome("OK").content());
        Told::Outcome { outcome: outcome("OK"), vouched: vec![word] }
    };
    let unknown = Judged::Rejected(Unbelieved::UnknownSigner);
    assert_eq!(witness.judge(soon, (E, &ALL), &tag(1), told()), unknown, "the work is bounded");
    let later = T0 + crate::time::Duration::from_secs(1);
    assert_eq!(witness.judge(later, (E, &ALL), &tag(1), told()), Judged::Believed(told()));
    let old: Vec<_> = (0..6).map(|number| (ReplicaId(0), until(2990 + number).0)).collect();
    witness.shown(later + crate::time::Duration::from_secs(1), E, old);
    assert_eq!(witness.keys.of(ReplicaId(0)).len(), 4);
    assert_eq!(witness.judge(later, (E, &ALL), &tag(1), told()), Judged::Believed(told()));
}
