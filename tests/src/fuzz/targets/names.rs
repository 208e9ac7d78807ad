//! Names, and the certificates that carry them.

use super::SMALL;
use crate::fuzz::{Bound, Seen, Target};
use mesh::client::SessionName;
use mesh::framing::Adapter;
use mesh::ids::ClientId;
use mesh::names::{Identity, Role, parse_cluster_uri};
use mesh::net::fuzzing;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "names",
        about: "names of parts, sessions, adapters",
        seeds: name_seeds,
        words: &[
            b".lockstep",
            b"spiffe://",
            b"/cluster/",
            b"server-",
            b"smart-client-",
            b"client-",
            b"admin",
            b"-",
            b".",
            b"/",
            b"@",
        ],
        longest: 600,
        bound: SMALL,
        run: names,
    },
    Target {
        name: "certificate",
        about: "certificates of whoever dials, read before they are verified",
        // In the corpus: whoever makes one draws a key.
        seeds: Vec::new,
        words: &[
            b"\x06\x03\x55\x1d\x11",
            b"\x82\x18server-1.shop.lockstep",
            b"\x86\x30spiffe://lockstep.local/cluster/shop/server/1",
            b"\x30\x82",
            b"\x30\x80",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x17\x0d491231235959Z",
            b"\x18\x0f99991231235959Z",
            b"\x18\x1300000000000000+9999",
            b"\x01\x01\xff",
            b"\x04\x00",
        ],
        longest: 4096,
        bound: Bound { per_byte: 64, base: 64 << 10 },
        run: certificate,
    },
    Target {
        name: "link-refusals",
        about: "alerts, close codes and reasons of the other end of a handshake",
        seeds: refusal_seeds,
        words: &[b"wrong_role", b"wrong_cluster", b"expired", b"revoked", b"NotValidYet", b"\x1b[31m", b"\n", b"\xff"],
        longest: 2000,
        bound: SMALL,
        run: refusals,
    },
];

fn name_seeds() -> Vec<Vec<u8>> {
    let mut texts = Vec::new();
    for (role, id) in Role::ALL.into_iter().zip(["1", "edge-a", "i0", "0", "ops"]) {
        if let Ok(who) = Identity::new("shop.main", role, id) {
            texts.extend([who.dns_name(), who.uri("lockstep.local")]);
        }
    }
    let more = [
        "spiffe://example.org/cluster/a.b",
        "2a@7",
        "0000000000000000000000000000002a@7",
        "resp/per-session",
        "http/shared",
    ];
    texts.extend(more.map(str::to_owned));
    texts.into_iter().map(String::into_bytes).collect()
}

fn names(bytes: &[u8], seen: &mut Seen) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Identity::from_dns_name(text) {
        Ok(who) => {
            assert_eq!(who.dns_name(), text, "a name is spelled in one way");
            assert!(text.len() <= 253 && Identity::claims_dns_name(text));
            seen.note(("dns", who.role, who.cluster.len() / 16));
        }
        Err(error) => seen.shape("dns", &error),
    }
    match Identity::from_uri(text) {
        Ok((domain, who)) => {
            assert_eq!(who.uri(&domain), text, "a name is spelled in one way");
            assert_eq!(Identity::from_dns_name(&who.dns_name()), Ok(who.clone()), "whoever has one name has the other");
            seen.note(("uri", who.role, domain.len() / 16));
        }
        Err(error) => seen.shape("uri", &error),
    }
    seen.shape("cluster", &parse_cluster_uri(text).map(drop));
    seen.note(("session", text.parse::<SessionName>().is_ok_and(|name| name.to_string().parse() == Ok(name))));
    seen.note(("client", text.parse::<ClientId>().is_ok()));
    if let Ok(adapter) = Adapter::from_name(text, 100, 100) {
        assert_eq!(adapter.name(), text);
        seen.note(("adapter", text));
    }
}

fn certificate(bytes: &[u8], seen: &mut Seen) {
    match fuzzing::names(bytes) {
        Ok((who, domain, not_after)) => {
            assert_eq!(Identity::from_uri(&who.uri(&domain)), Ok((domain, who.clone())));
            seen.note(("named", who.role, not_after.unsigned_abs().checked_ilog2()));
        }
        Err(problem) => seen.note((problem, bytes.len().checked_ilog2())),
    }
    seen.note((bytes.first(), bytes.get(1), bytes.get(4)));
}

fn refusal_seeds() -> Vec<Vec<u8>> {
    let texts =
        ["invalid peer certificate: Other(OtherError(wrong_role: x))", "certificate not valid yet", "", "a\nb\x1b[31m"];
    let codes = [0x100_u64, 0x100 + 42, 0x100 + 46, 0x100 + 120, 0, u64::MAX];
    codes.iter().flat_map(|code| texts.map(|text| [&code.to_le_bytes()[..], text.as_bytes()].concat())).collect()
}

fn refusals(bytes: &[u8], seen: &mut Seen) {
    let Some((code, text)) = bytes.split_first_chunk::<8>() else { return };
    let code = u64::from_le_bytes(*code);
    let logged = fuzzing::logged(text);
    assert!(logged.len() <= 900 && !logged.contains(char::is_control), "foreign text neither fills nor forges a log");
    seen.note(("alert", fuzzing::alert(code, &logged).map(mesh::net::RefusalReason::as_str)));
    seen.note(("close", fuzzing::close(code).map(mesh::net::RefusalReason::as_str)));
}
