//! Every part that can be asked: is it ready, and what do all of them say together?

use super::cluster::{judge, name};
use super::line::{Category, Check};
use crate::commands::status::{Known, ask, plain};
use crate::http;

/// One check for each word of `/readyz` of every part, and those on their statuses.
pub(super) async fn check(parts: &[Known]) -> Vec<Check> {
    let mut checks = Vec::new();
    if parts.is_empty() {
        return checks;
    }
    let found = ask(parts).await;
    for part in found.parts().filter(|part| part["error"].is_null()) {
        let name = name(part);
        match http::get(&plain(&part["admin"]), "/readyz?verbose").await {
            Ok((_, body)) => checks.extend(readiness(&name, &String::from_utf8_lossy(&body))),
            Err(error) => {
                let hint = "it answered a moment ago: see its log";
                checks.push(Check::bad(Category::Parts, name, "unreachable", format!("{error:#}"), hint));
            }
        }
    }
    checks.extend(judge(&found));
    checks
}

/// The lines of `/readyz?verbose`.
fn readiness(name: &str, body: &str) -> Vec<Check> {
    let line = |line: &str| {
        let (mark, what) = line.split_at_checked(3)?;
        let what = what.trim();
        match mark {
            "[+]" => Some(Check::good(Category::Parts, name, "ready", what)),
            "[-]" => Some(Check::bad(Category::Parts, name, "not_ready", what, hint(what))),
            _ => None,
        }
    };
    body.lines().filter_map(line).collect()
}

/// What to do about a word that does not hold.
fn hint(what: &str) -> &'static str {
    match what.strip_suffix(" failed").unwrap_or(what) {
        "member" => {
            "it is part of no cluster yet, or does not vote: `lockstep status` says what it waits for; a cluster \
                     that was never started needs `lockstep bootstrap --expect N`"
        }
        "caught_up" => "it catches up by itself: see the lines about lag and links",
        "application" => {
            "its application is down, or does not answer: see the application's own log and `lockstep status`"
        }
        "leader" => "no leader for 3 s: start the members that are down, and see the lines about links",
        "not draining" => "a drain was asked for on its admin port; without a SIGTERM it ends by itself after 60 s",
        "reaches a quorum of the servers" => {
            "start the servers that are down, and see the lines about links: --servers"
        }
        "reaches a SMaRtClient" => "start the SMaRtClients, and see the lines about links: --smart-clients",
        _ => "see its log and `lockstep status`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_that_does_not_hold_has_a_hint() {
        let body = "[+]member ok\n[-]caught_up failed\n[-]application failed\nfailed: caught_up, application\n";
        let checks = readiness("sidecar 1", body);
        assert_eq!(checks.iter().map(Check::is_good).collect::<Vec<_>>(), [true, false, false]);
        assert!(checks[1].hint.as_ref().is_some_and(|hint| hint.contains("lag")), "{checks:?}");
        assert!(checks[2].hint.as_ref().is_some_and(|hint| hint.contains("application")), "{checks:?}");
        let words = ["member", "leader", "not draining", "reaches a quorum of the servers", "reaches a SMaRtClient"];
        for what in words {
            assert!(hint(what).len() > 40 && hint(&format!("{what} failed")) == hint(what), "{what}");
        }
    }
}
