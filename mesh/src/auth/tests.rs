//! What a proof binds, and who may open and use a session.

use super::*;
use crate::ids::{Generation, ReplicaId, Seq, Slot};
use crate::wire::{Kind, Outcome, Tag};

fn key(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number; 32]).unwrap()
}

fn owner(of: &SecretKey) -> Owner {
    Owner { key: of.public(), nonce: 7, certificate: Bytes::from_static(b"certificate") }
}

fn signed(mut request: Request, key: &SecretKey) -> Request {
    let proof = sign(key, &[request_statement("demo", &request)]).remove(0);
    request.proof = Some(SharedProof::new(proof));
    request
}

fn call(bytes: &'static [u8]) -> Request {
    let client = owner(&key(1)).client();
    Request {
        client,
        opened: Generation::FIRST.at(Slot(3)),
        seq: Seq(5),
        body: Body::Call(Bytes::from_static(bytes)),
        proof: None,
    }
}

fn judged(request: Request, needed: Needed) -> Result<Verified, Rejected> {
    match check(request, needed, Signatures::Required, "demo", &Verifier::default())? {
        Checked::Verified(verified) => Ok(verified),
        Checked::Sought(seeking) => seeking.finish(),
    }
}

#[test]
fn a_request_is_believed_as_it_was_signed_and_in_no_other_form() {
    let needed = Needed::Key(key(1).public());
    let good = signed(call(b"PUT a 1\n"), &key(1));
    assert!(judged(good.clone(), needed).is_ok());
    let changed = [
        Request { body: Body::Call(Bytes::from_static(b"PUT a 2\n")), ..good.clone() },
        Request { seq: Seq(6), ..good.clone() },
        Request { opened: Generation::FIRST.at(Slot(4)), ..good.clone() },
        Request { opened: Generation::FIRST.next(7).at(Slot(3)), ..good.clone() },
        Request { opened: Generation { mark: 7, ..Generation::FIRST }.at(Slot(3)), ..good.clone() },
        Request { client: ClientId(9), ..good.clone() },
        Request { body: Body::Cancel, ..good.clone() },
        Request { body: Body::Close, ..good.clone() },
        signed(call(b"PUT a 1\n"), &key(2)),
        Request { proof: signed(call(b"PUT a 2\n"), &key(1)).proof, ..good.clone() },
    ];
    for request in changed {
        assert_eq!(judged(request, needed), Err(Rejected::BadSignature));
    }
    assert_eq!(judged(call(b"PUT a 1\n"), needed), Err(Rejected::Unsigned));
    let elsewhere = check(good, needed, Signatures::Required, "other", &Verifier::default());
    let Ok(Checked::Sought(elsewhere)) = elsewhere else { panic!("it is a question") };
    assert_eq!(elsewhere.finish(), Err(Rejected::BadSignature), "the proof is of another cluster");
}

#[test]
fn nobody_but_a_leader_refuses_in_a_sessions_name() {
    let refusal = Body::Refused(crate::wire::Refusal::LogFull);
    for needed in [Needed::Nothing, Needed::Key(key(1).public())] {
        let request = signed(Request { body: refusal.clone(), ..call(b"") }, &key(1));
        assert_eq!(judged(request, needed), Err(Rejected::NotForClients));
    }
}

#[test]
fn a_session_is_opened_under_its_keys_id_and_with_its_keys_signature() {
    let (one, other) = (key(1), key(2));
    let open = |client, owner| Request::open(client, 4, owner);
    let id = owner(&one).client();
    assert!(id.is_owned() && owner(&other).client() != id);
    let good = signed(open(id, Some(owner(&one))), &one);
    assert!(judged(good.clone(), Needed::Nothing).is_ok());
    assert_eq!(judged(open(id, Some(owner(&one))), Needed::Nothing), Err(Rejected::Unsigned));
    let bad = signed(open(id, Some(owner(&one))), &other);
    assert_eq!(judged(bad, Needed::Nothing), Err(Rejected::BadSignature));
    let stolen = signed(open(id, Some(owner(&other))), &other);
    assert_eq!(judged(stolen, Needed::Nothing), Err(Rejected::WrongClient));
    let anothers_nonce = Owner { nonce: 8, ..owner(&one) };
    assert_eq!(opening(&open(id, Some(anothers_nonce)), Signatures::Required), Err(Rejected::WrongClient));
    assert_eq!(opening(&open(ClientId::unowned(5), None), Signatures::Required), Err(Rejected::Unsigned));
    assert_eq!(opening(&open(ClientId::unowned(5), None), Signatures::Optional), Ok(None));
    assert_eq!(opening(&open(id, None), Signatures::Optional), Err(Rejected::WrongClient), "a key will want it");
    assert_eq!(opening(&open(id, None), Signatures::Off), Ok(None));
}

/// Mutant: a known root must not let an opening by without a look at its certificate.
#[test]
fn an_opening_is_always_a_question() {
    let one = key(1);
    let request = signed(Request::open(owner(&one).client(), 4, Some(owner(&one))), &one);
    let mut known = Verifier::default();
    let statement = request_statement("demo", &request);
    assert!(known.holds(request.proof.as_ref().unwrap(), &statement, &one.public()));
    let checked = check(request, Needed::Nothing, Signatures::Required, "demo", &known).unwrap();
    let Checked::Sought(seeking) = checked else { panic!("the certificate would not be looked at") };
    assert_eq!(seeking.opener().map(|owner| owner.key), Some(one.public()));
}

#[test]
fn a_reply_is_bound_to_everything_that_makes_it_one() {
    let tag = Tag { client: ClientId(1), opened: Generation::FIRST.at(Slot(3)), seq: Seq(5), kind: Kind::Call };
    let outcome = Outcome::Executed(Bytes::from_static(b"OK\n"));
    let (form, content) = (Digest::of(b"OK\n"), outcome.content());
    let server = key(9);
    let said = reply_statement("demo", ReplicaId(2), &tag, Slot(8), 3, &form, &content);
    let proof = SharedProof::new(sign(&server, &[said]).remove(0));
    let word = Vouched { replica: ReplicaId(2), slot: Slot(8), electorate: 3, form, content, proof };
    let holds =
        |word: &Vouched, cluster, tag: &Tag| word.holds(cluster, tag, &server.public(), &mut Verifier::default());
    assert!(holds(&word, "demo", &tag));
    assert!(!holds(&word, "other", &tag));
    for other in [
        Tag { seq: Seq(6), ..tag },
        Tag { opened: Generation::FIRST.at(Slot(4)), ..tag },
        Tag { opened: Generation::FIRST.next(0).at(Slot(3)), ..tag },
        Tag { client: ClientId(2), ..tag },
        Tag { kind: Kind::Cancel, ..tag },
    ] {
        assert!(!holds(&word, "demo", &other));
    }
    for other in [
        Vouched { replica: ReplicaId(1), ..word.clone() },
        Vouched { slot: Slot(9), ..word.clone() },
        Vouched { electorate: 1, ..word.clone() },
        Vouched { form: Digest::of(b"NO\n"), ..word.clone() },
        Vouched { content: Digest::of(b"NO\n"), ..word.clone() },
    ] {
        assert!(!holds(&other, "demo", &tag));
    }
}

#[test]
fn no_reply_of_an_application_passes_for_an_outcome_of_another_kind() {
    let closed = Outcome::Closed;
    let imitations = [
        crate::wire::encode(&closed),
        Bytes::copy_from_slice(&closed.form().0),
        Bytes::from([&closed.form().0[..], b"not executed"].concat()),
    ];
    for bytes in imitations {
        assert_ne!(Outcome::Executed(bytes).content(), closed.content());
    }
}
