//! The processes that run, asked by the names of their Services: whom they trust, and what certificates they have.

use crate::http;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use tokio::net::lookup_host;

/// One process.
#[derive(Debug)]
pub(super) struct Part {
    /// `server/0`, as its certificate has it, and where it answers.
    pub(super) who: String,
    role_and_id: String,
    tls: Value,
}

/// All that run.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) known: Vec<Part>,
    /// Those of which nothing is known: they may trust whatever they like.
    pub(super) silent: Vec<String>,
}

impl Parts {
    /// Asks every address that the names have.
    pub(super) async fn ask(names: &[String]) -> Self {
        let mut parts = Self::default();
        for name in names {
            match lookup_host(name).await {
                Ok(addresses) => {
                    for address in addresses.collect::<BTreeSet<SocketAddr>>() {
                        parts.ask_one(address).await;
                    }
                }
                Err(error) if is_nobody(&error.to_string()) => {}
                Err(error) => parts.silent.push(format!("{name} ({error})")),
            }
        }
        parts
    }

    async fn ask_one(&mut self, address: SocketAddr) {
        match http::get_json(&address.to_string(), "/status").await {
            Ok(status) => {
                let text = |name: &str| status[name].as_str().map(str::to_owned);
                let id = text("id").unwrap_or_else(|| status["id"].to_string());
                let role = match text("kind").as_deref() {
                    Some("sidecar") => "server".to_owned(),
                    other => other.unwrap_or("?").to_owned(),
                };
                let role_and_id = format!("{role}/{id}");
                let who = format!("{role_and_id} at {address}");
                self.known.push(Part { who, role_and_id, tls: status["tls"].clone() });
            }
            // Nothing listens: it has not loaded any certificate yet.
            Err(error) if format!("{error:#}").contains("refused") => {}
            Err(error) => self.silent.push(format!("{address} ({error:#})")),
        }
    }

    /// Those that do not trust this authority, and those of which that is not known.
    pub(super) fn without_trust_in(&self, sha256: &str) -> Vec<String> {
        let strangers = self.known.iter().filter(|part| !part.trusts().any(|one| one.eq_ignore_ascii_case(sha256)));
        strangers.map(|part| part.who.clone()).chain(self.silent.iter().cloned()).collect()
    }

    /// Those that have other certificates than these, which are the newest serial numbers by `role/id`.
    pub(super) fn without(&self, serials: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
        let outdated = |part: &&Part| {
            let newest = serials.get(&part.role_and_id);
            let has = |name: &str| match part.tls[name].as_str() {
                Some(serial) => newest.is_none_or(|newest| newest.contains(&normal(serial))),
                None => true,
            };
            !(has("serial") && has("signing_serial"))
        };
        self.known.iter().filter(outdated).map(|part| part.who.clone()).chain(self.silent.iter().cloned()).collect()
    }

    /// Those that trust anybody.
    pub(super) fn trusting(&self) -> Vec<String> {
        self.known.iter().filter(|part| part.trusts().next().is_some()).map(|part| part.who.clone()).collect()
    }
}

impl Part {
    fn trusts(&self) -> impl Iterator<Item = &str> {
        self.tls["bundle_sha256"].as_array().into_iter().flatten().filter_map(Value::as_str)
    }
}

/// A serial number as two programs may write it.
pub(super) fn normal(serial: &str) -> String {
    serial.trim_start_matches('0').to_ascii_uppercase()
}

/// Whether the resolver says that the name has no address, and not that it could not find out: the C library's words.
fn is_nobody(error: &str) -> bool {
    ["does not resolve", "not known", "no usable address", "No address"].iter().any(|words| error.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parts(tls: &[Value]) -> Parts {
        let part = |tls: &Value| Part { who: "server/0 at a".into(), role_and_id: "server/0".into(), tls: tls.clone() };
        Parts { known: tls.iter().map(part).collect(), silent: Vec::new() }
    }

    #[test]
    fn who_does_not_trust_an_authority_is_waited_for_and_so_is_who_says_nothing() {
        let mut all = parts(&[json!({ "bundle_sha256": ["ab", "CD"] }), json!({ "bundle_sha256": ["ab"] })]);
        assert_eq!(all.without_trust_in("cd").len(), 1);
        assert!(all.without_trust_in("AB").is_empty());
        all.silent.push("b".into());
        assert_eq!(all.without_trust_in("ab"), ["b"]);
        assert_eq!(all.trusting().len(), 2);
    }

    #[test]
    fn whoever_has_an_older_certificate_is_waited_for() {
        let newest = BTreeMap::from([("server/0".to_owned(), BTreeSet::from(["ABC".to_owned(), "2".to_owned()]))]);
        let good = json!({ "serial": "0abc", "signing_serial": "02" });
        let unsigned = json!({ "serial": "ABC", "signing_serial": null });
        assert!(parts(&[good, unsigned]).without(&newest).is_empty());
        assert_eq!(parts(&[json!({ "serial": "ABC", "signing_serial": "3" })]).without(&newest).len(), 1);
        assert_eq!(parts(&[json!({ "serial": "1" })]).without(&newest).len(), 1);
    }

    #[test]
    fn a_name_without_an_address_is_not_a_resolver_that_fails() {
        assert!(is_nobody("failed to lookup address information: Name does not resolve"));
        assert!(is_nobody("failed to lookup address information: Name or service not known"));
        assert!(!is_nobody("failed to lookup address information: Try again"));
    }
}
