//! Every certificate of a directory, each with what is wrong with it and the command that mends it.

use super::Args;
use super::line::{Category, Check, Verdict};
use mesh::names::{Identity, Role};
use mesh::net::{Files, Finding, Standing, examine, unix_now};
use std::path::{Path, PathBuf};

/// A certificate, and whose it should be.
struct Leaf {
    dir: PathBuf,
    /// Role and id, by its place.
    place: Option<(Role, String)>,
}

/// One check for each certificate in `pki`.
pub(super) fn check(pki: &Path, args: &Args) -> Vec<Check> {
    let leaves = leaves(pki);
    if leaves.is_empty() {
        let hint = "run `lockstep certs init` and `lockstep certs issue`, or check --pki";
        let name = format!("certificates in {}", pki.display());
        let none = Check::bad(Category::Certificates, name, "none", "there are none", hint);
        return vec![Check { state: Verdict::Invalid, ..none }];
    }
    let now = unix_now();
    let crl = args.crl.clone().or_else(|| Some(pki.join("crl.pem")).filter(|path| path.exists()));
    let files = |leaf: &Leaf| Files::new(&leaf.dir, args.trust_bundle.as_deref(), crl.as_deref());
    let cluster =
        args.cluster.clone().or_else(|| usual_cluster(leaves.iter().map(|leaf| examine(&files(leaf), None, now))));
    let judge = |leaf: &Leaf| {
        let expected = leaf.place.as_ref().zip(cluster.as_ref());
        let expected = expected.and_then(|((role, id), cluster)| Identity::new(cluster, *role, id).ok());
        shown(leaf, examine(&files(leaf), expected.as_ref(), now), expected.as_ref(), pki)
    };
    let mut checks: Vec<Check> = leaves.iter().map(judge).collect();
    checks.extend(authorities(pki));
    checks
}

/// One authority, or a rotation that is under way, where the directory is one of `lockstep certs`.
fn authorities(pki: &Path) -> Option<Check> {
    let bundle = std::fs::read_to_string(pki.join("bundle.crt")).ok()?;
    let count = bundle.matches("-----BEGIN CERTIFICATE-----").count();
    let (label, text) = if count > 1 {
        let dir = pki.display();
        let next = format!("`lockstep certs rotate-ca status --dir {dir}` says what its end waits for");
        ("rotation", format!("{count} are trusted: a rotation is under way; {next}"))
    } else {
        ("one_authority", "one is trusted".to_owned())
    };
    Some(Check::good(Category::Certificates, "certificate authorities", label, text))
}

/// The certificates in a directory: its own, or those in ROLE/ID.
fn leaves(pki: &Path) -> Vec<Leaf> {
    if pki.join("tls.crt").exists() {
        let absolute = pki.canonicalize().unwrap_or_else(|_| pki.to_owned());
        let mut names = absolute.iter().rev().filter_map(|name| name.to_str());
        let (id, role) = (names.next(), names.next().and_then(|role| role.parse::<Role>().ok()));
        let place = role.zip(id.map(str::to_owned));
        return vec![Leaf { dir: pki.to_owned(), place }];
    }
    let mut leaves = Vec::new();
    for role in Role::ALL {
        let Ok(entries) = std::fs::read_dir(pki.join(role.as_str())) else { continue };
        let ids = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut ids: Vec<String> = ids.filter(|id| !id.starts_with('.')).collect();
        ids.sort_by_key(|id| (id.len(), id.clone()));
        let of = |id: String| Leaf { dir: pki.join(role.as_str()).join(&id), place: Some((role, id)) };
        leaves.extend(ids.into_iter().map(of));
    }
    leaves
}

/// The cluster that most certificates are of.
fn usual_cluster(found: impl Iterator<Item = Finding>) -> Option<String> {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for who in found.filter_map(|finding| finding.who) {
        *counts.entry(who.cluster).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(cluster, _)| cluster)
}

fn shown(leaf: &Leaf, found: Finding, expected: Option<&Identity>, pki: &Path) -> Check {
    let who = expected.or(found.who.as_ref());
    let name = leaf.place.as_ref().map(|(role, id)| format!("{role}/{id}"));
    let name = name.or_else(|| who.map(|who| format!("{}/{}", who.role, who.id)));
    let name = name.unwrap_or_else(|| leaf.dir.display().to_string());
    let state = match found.standing {
        Standing::Good => Verdict::Ok,
        Standing::Due => Verdict::Unhealthy,
        Standing::Bad => Verdict::Invalid,
    };
    let hint = (state != Verdict::Ok).then(|| hint(found.label, &name, leaf, pki));
    let (category, name) = (Category::Certificates, format!("certificate of {name}"));
    Check { category, name, state, label: found.label.to_owned(), text: found.text, hint }
}

/// The command that mends it.
fn hint(label: &str, name: &str, leaf: &Leaf, pki: &Path) -> String {
    let dir = if leaf.dir == pki { String::new() } else { format!(" --dir {}", pki.display()) };
    let (renew, place) = (format!("`lockstep certs renew {name}{dir}`"), leaf.dir.display());
    match label {
        "insecure" => format!("run `chmod 0600 {}`", leaf.dir.join("tls.key").display()),
        "not_yet_valid" => format!("check the clock of this machine; if it is right, run {renew}"),
        "unknown_ca" => {
            format!("run {renew}, or put its authority into the trust bundle (`lockstep certs rotate-ca status{dir}`)")
        }
        "wrong_role" | "wrong_cluster" | "wrong_id" => {
            let words = name.replacen('/', " ", 1);
            format!("move {place} away and run `lockstep certs issue {words}{dir}`; were two Secrets swapped?")
        }
        "unreadable" | "unusable" => {
            let words = name.replacen('/', " ", 1);
            format!("if a file is missing or damaged, move {place} away and run `lockstep certs issue {words}{dir}`")
        }
        // Expired, due, revoked, self-signed, altered, a key that does not fit.
        _ => format!("run {renew}"),
    }
}
