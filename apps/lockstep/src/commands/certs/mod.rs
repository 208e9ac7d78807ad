//! `lockstep certs`: the certificate authority and the certificates of the parts.

mod args;
mod in_cluster;
mod inspect;
mod output;

pub(crate) use args::Command;

use crate::exit::{Exit, Failure};
use crate::up::output::Format;
use args::{Place, Rotate};
use certs::{Access, Action, CertsError, Change, Passphrase, Pki, Plan, Request, Revoke, Selection, Setup};
use mesh::node::human::parse_positive_duration;
use output::{say, say_changes};
use std::io::{IsTerminal, Write};

/// Does it.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Init { cluster, trust_domain, lifetime, force, place } => {
            let setup = Setup::new(&cluster);
            let trust_domain = trust_domain.unwrap_or_else(|| setup.trust_domain.clone());
            let setup = Setup { trust_domain, lifetime: lifetime.unwrap_or(setup.lifetime), force, ..setup };
            let pki = access(&place)?.init(&setup).map_err(failure)?;
            let text = format!("certificate authority of {cluster} in {}", place.dir.display());
            output::say_made(place.output, &text, &pki.rotation().map_err(failure)?);
            Ok(())
        }
        Command::Issue { role, id, san, lifetime, signing, force, place } => {
            let request = Request { role, id, sans: san, lifetime, signing, force };
            finish(&place, &open(&place)?.issue_as(&request).map_err(failure)?)
        }
        Command::Apply { file, place } => {
            let plan = Plan::read(&file, parse_positive_duration).map_err(failure)?;
            let pki = access(&place)?.open_or_init(&plan.setup).map_err(failure)?;
            finish(&place, &pki.apply(&plan).map_err(failure)?)
        }
        Command::Renew { parts, all, lifetime, place } => {
            let selection = match (all, parts.is_empty()) {
                (true, _) => Selection::All,
                (false, true) => Selection::Due,
                (false, false) => Selection::These(parts),
            };
            finish(&place, &open(&place)?.renew(&selection, lifetime).map_err(failure)?)
        }
        Command::RotateCa { step } => rotate(&step),
        Command::Revoke { target, serial, place } => {
            let which = match (target, serial) {
                (_, Some(serial)) => Revoke::Serial(serial),
                (Some((role, id)), None) => Revoke::Part { role, id },
                (None, None) => return Err(Failure::new(Exit::Usage, "say what to revoke: ROLE/ID or --serial")),
            };
            finish(&place, &open(&place)?.revoke(&which).map_err(failure)?)
        }
        Command::Crl { place } => finish(&place, &[open(&place)?.write_crl().map_err(failure)?]),
        Command::List { all, dir, output } => {
            let listed = Access::new(&dir).view().and_then(|pki| pki.list(all)).map_err(failure)?;
            output::say_listed(output, &listed);
            Ok(())
        }
        Command::Inspect { target, output } => inspect::inspect(&target, output).await,
        Command::Verify { files, dir, trust_bundle, crl, output } => {
            inspect::verify(&files, &dir, trust_bundle.as_deref(), crl.as_deref(), output)
        }
        Command::InCluster(args) => in_cluster::run(args).await,
        Command::Secret { parts, all: _, namespace, dir } => {
            let selection = if parts.is_empty() { Selection::All } else { Selection::These(parts) };
            let pki = Access::new(&dir).view().map_err(failure)?;
            let yaml = pki.secrets(&selection, namespace.as_deref()).map_err(failure)?;
            if std::io::stdout().is_terminal() {
                let warning = "warning: private keys follow; better: lockstep certs secret … | kubectl apply -f -";
                let _ = writeln!(std::io::stderr(), "{warning}");
            }
            say(&yaml);
            Ok(())
        }
    }
}

fn rotate(step: &Rotate) -> Result<(), Failure> {
    match step {
        Rotate::Start { lifetime, place } => {
            let changes = open(place)?.rotation_start(*lifetime).map_err(failure)?;
            finish(place, &changes)?;
            if place.output == Format::Text {
                say(
                    "both authorities are trusted now. Next: give every part its new ca.crt, then `lockstep certs renew --all`,\n\
                     give every part its new certificate, then `lockstep certs rotate-ca finish`\n",
                );
            }
            Ok(())
        }
        Rotate::Finish { place } => finish(place, &open(place)?.rotation_finish().map_err(failure)?),
        Rotate::Abort { place } => finish(place, &open(place)?.rotation_abort().map_err(failure)?),
        Rotate::Status { dir, output } => {
            let rotation = Access::new(dir).view().and_then(|pki| pki.rotation()).map_err(failure)?;
            output::say_rotation(*output, &rotation);
            Ok(())
        }
    }
}

fn access(place: &Place) -> Result<Access, Failure> {
    let passphrase = place.passphrase_file.as_deref().map(Passphrase::read).transpose().map_err(failure)?;
    Ok(Access::new(&place.dir).with_passphrase(passphrase))
}

fn open(place: &Place) -> Result<Pki, Failure> {
    access(place)?.open().map_err(failure)
}

/// Says what was done, and fails if something could not be.
fn finish(place: &Place, changes: &[Change]) -> Result<(), Failure> {
    say_changes(place.output, changes);
    let failed = changes.iter().filter(|change| change.action == Action::Failed).count();
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("{failed} of {} could not be done", changes.len())))
}

fn failure(error: CertsError) -> Failure {
    match error {
        CertsError::Exists(_) | CertsError::OtherCluster { .. } | CertsError::Refused(_) | CertsError::Busy(_) => {
            Failure::new(Exit::Refused, error)
        }
        CertsError::Name(_) | CertsError::Usage(_) | CertsError::PassphraseMissing(_) => {
            Failure::new(Exit::Usage, error)
        }
        CertsError::Insecure { .. } | CertsError::Unusable { .. } | CertsError::PassphraseWrong(_) => {
            Failure::new(Exit::Invalid, error)
        }
        other => Failure::from(anyhow::Error::from(other)),
    }
}
