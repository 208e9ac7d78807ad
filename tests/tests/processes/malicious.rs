//! A SMaRtClient that lies, beside an honest one.
//!
//! Without signatures a SMaRtClient is believed: which lies then succeed is recorded (`cargo run --bin trial` prints the
//! table that SECURITY.md quotes), and demanded is only what must hold anyway. With signatures no lie may succeed.

use super::binary::lockstep;
use super::up::machine;
use lockstep_tests::malicious::trial::{Bench, Programs, Verdict, table};
use lockstep_tests::malicious::{Behaviour, Group, Wish};

/// Not everything finds its occasion each time: sessions are opened in one moment, which go to one SMaRtClient.
const TRIES: usize = 10;

fn programs() -> Programs {
    Programs {
        lockstep: lockstep().clone(),
        application: env!("CARGO_BIN_EXE_misbehave").into(),
        malicious: env!("CARGO_BIN_EXE_malicious").into(),
    }
}

/// Tries each behaviour of a group alone, and several lists of them together.
fn try_all(signatures: bool, group: Group, mixed: &[&[Wish]]) -> Vec<Verdict> {
    let _machine = machine();
    let mut bench = Bench::start(programs(), signatures).expect("a cluster");
    // Not signed, there are no vouchers to repeat.
    let members = group.members().filter(|one| signatures || *one != Behaviour::RepeatVoucher);
    let alone = members.map(|behaviour| vec![Wish::always(behaviour)]);
    let verdicts = alone.chain(mixed.iter().map(|wishes| wishes.to_vec())).map(|wishes| {
        let names: Vec<_> = wishes.iter().map(ToString::to_string).collect();
        for _ in 0..TRIES {
            let verdict = bench.try_out(&wishes).unwrap_or_else(|error| panic!("{}: {error:#}", names.join(" ")));
            if verdict.done() > 0 {
                return verdict;
            }
            // An honest one, this time.
            nothing_forged(&verdict);
            assert_eq!(verdict.failed, 0, "calls failed though both were honest: {verdict:#?}");
        }
        panic!("it did not happen: {}", names.join(" "));
    });
    let verdicts: Vec<_> = verdicts.collect();
    let rows: Vec<_> = verdicts.iter().map(|verdict| (signatures, verdict.clone())).collect();
    println!("{}", table(&rows));
    verdicts
}

fn is(verdict: &Verdict, behaviour: Behaviour) -> bool {
    verdict.wishes.len() == 1 && verdict.wishes[0].behaviour == behaviour
}

/// What the clients were told is true, and nothing ran that they did not ask for.
fn nothing_forged(verdict: &Verdict) {
    assert_eq!((verdict.wrong, verdict.forged, verdict.lost), (0, 0, 0), "{verdict:#?}");
    assert!(verdict.answered > 0, "the service stood still: {verdict:#?}");
}

fn counted(verdict: &Verdict, names: &[&str]) {
    let found = names.iter().any(|name| verdict.counted(name) > 0);
    assert!(found, "none of {names:?} was counted: {verdict:#?}");
}

fn rarely(behaviour: Behaviour) -> Wish {
    Wish { behaviour, per_mille: 200 }
}

mod without_signatures {
    use super::*;

    fn survives(group: Group) {
        // Whatever was tried, the cluster goes on as before: the trial itself sees to that.
        try_all(false, group, &[]);
    }

    #[test]
    fn altered_requests_end_nothing() {
        survives(Group::Requests);
    }

    #[test]
    fn altered_replies_end_nothing() {
        survives(Group::Replies);
    }

    #[test]
    fn forged_requests_end_nothing_and_replays_run_nothing_twice() {
        for verdict in try_all(false, Group::Forgery, &[]) {
            if is(&verdict, Behaviour::Replay) {
                nothing_forged(&verdict);
            }
        }
    }

    #[test]
    fn requests_that_come_late_or_never_run_once_through_the_honest_one() {
        let mixed = [rarely(Behaviour::Drop), rarely(Behaviour::HangUp), rarely(Behaviour::Reorder)];
        try_all(false, Group::Delivery, &[&mixed]).iter().for_each(nothing_forged);
    }

    #[test]
    fn garbage_is_counted_and_harms_nobody() {
        for verdict in try_all(false, Group::Garbage, &[]) {
            nothing_forged(&verdict);
            let name = match verdict.wishes[0].behaviour {
                Behaviour::GarbageServers => "sidecar malformed",
                Behaviour::GarbageIngress => "ingress refused{reason=\"malformed\"}",
                Behaviour::OversizeServers => "sidecar quic_oversized_messages",
                _ => "ingress quic_oversized_messages",
            };
            counted(&verdict, &[name]);
        }
    }

    #[test]
    fn floods_pass() {
        for verdict in try_all(false, Group::Floods, &[]) {
            nothing_forged(&verdict);
            if is(&verdict, Behaviour::FloodIngress) {
                counted(&verdict, &["ingress refused{reason=\"unasked\"}", "ingress refused{reason=\"malformed\"}"]);
            }
        }
    }

    #[test]
    fn nobody_is_let_in_as_somebody_else() {
        for verdict in try_all(false, Group::Roles, &[]) {
            nothing_forged(&verdict);
            let name = match verdict.wishes[0].behaviour {
                Behaviour::ClaimRole => "sidecar links_refused{reason=\"unknown_ca\"}",
                Behaviour::ClientAlpn => "sidecar links_refused{reason=\"version\"}",
                _ => "sidecar links_refused{reason=\"wrong_role\"}",
            };
            counted(&verdict, &[name]);
            assert!(!verdict.did.to_string().contains("let in"), "{verdict:#?}");
        }
    }
}

mod with_signatures {
    use super::*;

    /// No lie succeeds, each is counted under a name of its own, and every call is answered in time by the honest one.
    fn stands(group: Group, mixed: &[&[Wish]], name: impl Fn(Behaviour) -> &'static [&'static str]) {
        for verdict in try_all(true, group, mixed) {
            nothing_forged(&verdict);
            assert_eq!(verdict.failed, 0, "calls failed though there was an honest one: {verdict:#?}");
            // Of several at once not each finds its occasion.
            for behaviour in verdict.wishes.iter().map(|wish| wish.behaviour).filter(|one| verdict.done_of(*one) > 0) {
                let names = name(behaviour);
                if !names.is_empty() {
                    counted(&verdict, names);
                }
            }
        }
    }

    const REPLIES: &[&str] = &["ingress signature_failures{who=\"reply\"}"];

    #[test]
    fn altered_requests_are_not_executed() {
        let mixed = Group::Requests.members().map(rarely).collect::<Vec<_>>();
        stands(Group::Requests, &[&mixed], |behaviour| match behaviour {
            Behaviour::StripProof | Behaviour::StripOwner => &["sidecar rejected{reason=\"unsigned\"}"],
            _ => &["sidecar rejected{reason=\"bad_signature\"}"],
        });
    }

    #[test]
    fn altered_replies_reach_nobody() {
        let mixed = Group::Replies.members().map(rarely).collect::<Vec<_>>();
        stands(Group::Replies, &[&mixed], |behaviour| match behaviour {
            // What it says of itself proves nothing, and is no lie that could be told from the truth.
            Behaviour::SayNothingSent | Behaviour::SayUnknown => &[],
            _ => REPLIES,
        });
    }

    #[test]
    fn forged_requests_are_not_executed() {
        let mixed = Group::Forgery.members().map(rarely).collect::<Vec<_>>();
        stands(Group::Forgery, &[&mixed], |behaviour| match behaviour {
            // A leader's own word: no call of the application's protocol, whoever signs.
            Behaviour::ForgeRefused => {
                &["sidecar rejected{reason=\"not_orderable\"}", "sidecar rejected{reason=\"not_for_clients\"}"]
            }
            Behaviour::ForgeOwner => &["sidecar rejected{reason=\"untrusted_signer\"}"],
            // Old requests are good ones: they run nothing.
            Behaviour::Replay => &[],
            _ => &["sidecar rejected{reason=\"unsigned\"}"],
        });
    }

    #[test]
    fn late_and_lost_requests_run_once() {
        stands(Group::Delivery, &[&Group::Delivery.members().map(rarely).collect::<Vec<_>>()], |_| &[]);
    }

    #[test]
    fn floods_and_garbage_pass() {
        stands(Group::Floods, &[], |_| &[]);
        stands(Group::Garbage, &[], |_| &[]);
    }
}
