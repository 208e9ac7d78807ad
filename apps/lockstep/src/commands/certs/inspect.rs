//! Certificates shown and verified.

use super::failure;
use super::output::{say, say_json, table};
use crate::exit::{Exit, Failure};
use crate::up::output::Format;
use certs::{Block, CertsError, CrlFacts, Facts, Moment, State, Verdict, Verifier};
use mesh::net::presented_certificates;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Shows what is in a file, or what is presented at an address.
pub(super) async fn inspect(target: &str, output: Format) -> Result<(), Failure> {
    let path = Path::new(target);
    let is_address = !path.exists() && target.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let (address, blocks) = if is_address {
        let (address, chain) = presented_certificates(target).await.map_err(anyhow::Error::from)?;
        let blocks: Result<Vec<_>, _> = chain.iter().map(|der| Facts::of(der)).collect();
        let blocks = blocks.map_err(|problem| Failure::new(Exit::Invalid, format!("{target} presents {problem}")))?;
        (Some(address), blocks.into_iter().map(|facts| Block::Certificate(Box::new(facts))).collect())
    } else {
        (None, certs::inspect(path).map_err(not_found)?)
    };
    match output {
        Format::Json => say_json(&json!({ "target": target, "address": address, "blocks": blocks })),
        Format::Text => say(&blocks.iter().map(shown).collect::<Vec<_>>().join("\n")),
    }
    Ok(())
}

/// A file that is not there was perhaps meant as an address.
fn not_found(problem: CertsError) -> Failure {
    match problem {
        CertsError::Io { .. } => Failure::new(Exit::Failed, format!("{problem} (an address is HOST:PORT)")),
        other => failure(other),
    }
}

fn shown(block: &Block) -> String {
    match block {
        Block::Certificate(facts) => table(&certificate(facts)),
        Block::Crl(list) => table(&revocations(list)),
        Block::PrivateKey { encrypted: true } => "private key, encrypted\n".to_owned(),
        Block::PrivateKey { encrypted: false } => "private key, not encrypted\n".to_owned(),
        Block::Other { label } => format!("{label}\n"),
    }
}

fn certificate(facts: &Facts) -> Vec<Vec<String>> {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let names = facts.uris.iter().chain(&facts.dns_names).cloned();
    let names: Vec<String> = names.chain(facts.ip_addresses.iter().map(ToString::to_string)).collect();
    let path_len = facts.path_len.map(|length| format!(", path length {length}")).unwrap_or_default();
    let rows = [
        ("certificate", facts.kind.to_owned()),
        ("cluster", or_none(&facts.cluster)),
        ("role", or_none(&facts.role)),
        ("id", or_none(&facts.id)),
        ("subject", facts.subject.clone()),
        ("issuer", facts.issuer.clone()),
        ("serial", facts.serial.clone()),
        ("not before", facts.not_before.to_string()),
        ("not after", facts.not_after.to_string()),
        ("key", facts.key.clone()),
        ("names", names.join(", ")),
        ("authority", if facts.ca { format!("yes{path_len}") } else { "no".to_owned() }),
        ("key usage", facts.key_usage.join(", ")),
        ("extended key usage", facts.extended_key_usage.join(", ")),
        ("subject key id", or_none(&facts.subject_key_id)),
        ("authority key id", or_none(&facts.authority_key_id)),
        ("sha256", facts.sha256.clone()),
    ];
    rows.map(|(name, value)| vec![name.to_owned(), value]).to_vec()
}

fn revocations(list: &CrlFacts) -> Vec<Vec<String>> {
    let head = [
        ("revocation list of", list.issuer.clone()),
        ("number", list.number.map_or_else(|| "-".to_owned(), |number| number.to_string())),
        ("this update", list.this_update.to_string()),
        ("next update", list.next_update.map_or_else(|| "-".to_owned(), |update| update.to_string())),
    ];
    let head = head.map(|(name, value)| vec![name.to_owned(), value]);
    let revoked = list.revoked.iter().map(|revoked| vec![format!("revoked {}", revoked.at), revoked.serial.clone()]);
    head.into_iter().chain(revoked).collect()
}

/// Verifies files. Every file is judged and shown before the exit code is made of the worst.
pub(super) fn verify(
    files: &[PathBuf],
    dir: &Path,
    trust_bundle: Option<&Path>,
    crl: Option<&Path>,
    output: Format,
) -> Result<(), Failure> {
    let default_crl = dir.join("crl.pem");
    let crl = crl.or_else(|| default_crl.exists().then_some(&default_crl));
    let default_bundle = dir.join("bundle.crt");
    let bundle = trust_bundle.or_else(|| default_bundle.exists().then_some(&default_bundle));
    let mut verdicts = Vec::new();
    for file in files {
        let beside = file.with_file_name("ca.crt");
        let verifier = Verifier::new(bundle.unwrap_or(&beside), crl).map_err(failure)?;
        verdicts.push(verifier.verify(file, Moment::now()));
    }
    match output {
        Format::Json => say_json(&json!({ "verdicts": verdicts })),
        Format::Text => say(&verdicts.iter().map(line).collect::<String>()),
    }
    let bad = verdicts.iter().filter(|verdict| verdict.state.is_none()).count();
    let due = verdicts.iter().filter(|verdict| verdict.state == Some(State::Due)).count();
    if bad > 0 {
        return Err(Failure::new(Exit::Invalid, format!("{bad} of {} cannot be used", verdicts.len())));
    }
    if due > 0 {
        let problem = format!("{due} of {} will expire soon: `lockstep certs renew`", verdicts.len());
        return Err(Failure::new(Exit::Unhealthy, problem));
    }
    Ok(())
}

fn line(verdict: &Verdict) -> String {
    let file = verdict.file.display();
    match (verdict.state, &verdict.certificate) {
        (Some(state), Some(facts)) => format!("{file}: {}, until {}\n", state.as_str(), facts.not_after),
        _ => format!("{file}: invalid: {}\n", verdict.problems.join("; ")),
    }
}
