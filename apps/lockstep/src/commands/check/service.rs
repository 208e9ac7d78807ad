//! Every part that can be asked: is it ready, and what does its status say?

use super::{Check, Verdict};
use crate::commands::status::{Found, Known, ask, plain};
use crate::http;

/// One check for each word of `/readyz` of every part, and one for each problem of the whole.
pub(super) async fn check(admins: &[String]) -> Vec<Check> {
    let mut checks = Vec::new();
    if admins.is_empty() {
        return checks;
    }
    let known: Vec<Known> = admins.iter().map(|admin| Known::at(admin)).collect();
    let found = ask(&known).await;
    for part in found.parts() {
        let admin = plain(&part["admin"]);
        if !part["error"].is_null() {
            // Among the problems below.
            continue;
        }
        let name = format!("{} {}", plain(&part["kind"]), plain(&part["id"]));
        match http::get(&admin, "/readyz?verbose").await {
            Ok((_, body)) => checks.extend(readiness(&name, &String::from_utf8_lossy(&body))),
            Err(error) => checks.push(failed(&name, "unreachable", &format!("{error:#}"), "is it running?")),
        }
    }
    checks.extend(whole(&found));
    checks
}

/// What the parts say together.
fn whole(found: &Found) -> Vec<Check> {
    let hints = found.hints();
    let hint =
        if hints.is_empty() { "see `lockstep status` and the log of that part".to_owned() } else { hints.join("; ") };
    let problems = found.problems();
    if problems.is_empty() {
        let text = "all parts agree that it is healthy".to_owned();
        return vec![Check {
            name: "service".to_owned(),
            state: Verdict::Ok,
            label: "healthy".to_owned(),
            text,
            hint: None,
        }];
    }
    problems.iter().map(|problem| failed("service", "problem", problem, &hint)).collect()
}

/// The lines of `/readyz?verbose`.
fn readiness(name: &str, body: &str) -> Vec<Check> {
    let line = |line: &str| {
        let (mark, what) = line.split_at_checked(3)?;
        let what = what.trim();
        match mark {
            "[+]" => Some(Check {
                name: name.to_owned(),
                state: Verdict::Ok,
                label: "ready".to_owned(),
                text: what.to_owned(),
                hint: None,
            }),
            "[-]" => Some(failed(name, "not_ready", what, "see its log and `lockstep status`")),
            _ => None,
        }
    };
    body.lines().filter_map(line).collect()
}

fn failed(name: &str, label: &str, text: &str, hint: &str) -> Check {
    Check {
        name: name.to_owned(),
        state: Verdict::Unhealthy,
        label: label.to_owned(),
        text: text.to_owned(),
        hint: Some(hint.to_owned()),
    }
}
