//! `lockstep certs`: the certificate authority and the certificates of the parts.

use crate::exit::{Exit, Failure};
use crate::parts::common::cluster_name;
use certs::{CertsError, Pki};
use std::io::Write;
use std::path::PathBuf;

/// What to do.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a certificate authority; refused where there is one
    Init {
        /// Name of the cluster: DNS labels
        #[arg(long, value_name = "NAME", value_parser = cluster_name)]
        cluster: String,
        /// Where to keep it
        #[arg(long, value_name = "DIR", default_value = "pki")]
        dir: PathBuf,
    },
    /// Make the certificate of one part, unless there is a good one
    Issue {
        /// server, smart-client, ingress, client or admin
        role: String,
        /// A number for a server, otherwise a DNS label
        id: String,
        /// Where the certificate authority is
        #[arg(long, value_name = "DIR", default_value = "pki")]
        dir: PathBuf,
    },
}

/// Does it, and says where the result is.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    let said = match command {
        Command::Init { cluster, dir } => {
            Pki::init(&dir, &cluster).map_err(failure)?;
            format!("certificate authority of {cluster} in {}", dir.display())
        }
        Command::Issue { role, id, dir } => {
            let pki = Pki::open(&dir).map_err(failure)?;
            pki.ensure(&role, &id).map_err(failure)?;
            format!("certificate of {role}/{id} in {}", dir.join(&role).join(&id).display())
        }
    };
    // A closed stdout leaves nobody to tell.
    let _ = writeln!(std::io::stdout(), "{said}");
    Ok(())
}

fn failure(error: CertsError) -> Failure {
    match error {
        CertsError::Exists(_) => Failure::new(Exit::Refused, error),
        CertsError::Name(_) => Failure::new(Exit::Usage, error),
        CertsError::Insecure { .. } | CertsError::Unusable { .. } => Failure::new(Exit::Invalid, error),
        other => Failure::from(anyhow::Error::from(other)),
    }
}
