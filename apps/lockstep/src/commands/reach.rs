//! How a command of an operator finds the members: those of a running `up`, or those that are named.

use crate::exit::{Exit, Failure};
use crate::parts::addresses::{Target, servers, target};
use crate::parts::common::{Patience, certificate, cluster_name};
use crate::up::state::{Role, State};
use mesh::net::Files;
use sidecar::operator::Access;
use std::path::{Path, PathBuf};

/// The operator that is waited for where none is named.
const OPERATOR: &str = "0";
/// The id of `up`'s own certificate of role admin.
const UP: &str = "up";

/// Settings of every command that asks members.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Reach {
    /// Data directory of a running `up`: its members are asked, with its certificate
    #[arg(long, value_name = "DIR", conflicts_with = "seeds")]
    data_dir: Option<PathBuf>,
    /// QUIC addresses of the members: HOST:PORT in the order of the ids, or ID=HOST:PORT
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', value_parser = target)]
    seeds: Vec<Target>,
    /// Name of the cluster; with --seeds
    #[arg(long, value_name = "NAME", value_parser = cluster_name)]
    cluster: Option<String>,
    /// Which operator this is, as in the certificate; by default the only one that --pki has. With --seeds
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Directory with tls.crt, tls.key and ca.crt, or one with admin/ID in it; with --seeds
    #[arg(long, value_name = "DIR", default_value = "pki")]
    pki: PathBuf,
    /// Trusted certificate authorities, instead of ca.crt beside the certificate
    #[arg(long, value_name = "FILE")]
    trust_bundle: Option<PathBuf>,
    /// Revocation lists, as pki/crl.pem; with --seeds
    #[arg(long, value_name = "FILE")]
    crl: Option<PathBuf>,
    #[command(flatten)]
    patience: Patience,
}

impl Reach {
    /// Whom to ask, and as whom, once there is a certificate for that or the time for it is over.
    pub(crate) async fn access_when_certified(&self) -> Result<Access, Failure> {
        let id = self.id.clone().unwrap_or_else(|| OPERATOR.to_owned());
        let files = Files::new(&certificate(&self.pki, "admin", &id), self.trust_bundle.as_deref(), None);
        self.patience.wait("admin", &id, &files).await;
        self.access()
    }

    /// Whom to ask, and as whom.
    pub(crate) fn access(&self) -> Result<Access, Failure> {
        if let Some(dir) = &self.data_dir {
            return of_up(dir);
        }
        let usage = |text: &str| Failure::new(Exit::Usage, text);
        if self.seeds.is_empty() {
            return Err(usage("whom to ask? give --data-dir of a running `lockstep up`, or --seeds"));
        }
        let members = servers(&self.seeds).map_err(|error| usage(&format!("--seeds: {error}")))?;
        Ok(Access {
            cluster: self.cluster.clone().ok_or_else(|| usage("--cluster is missing: it goes with --seeds"))?,
            pki: operator(&self.pki, self.id.as_deref())?,
            trust_bundle: self.trust_bundle.clone(),
            crl: self.crl.clone(),
            members,
        })
    }
}

/// The directory of the operator's certificate.
fn operator(pki: &Path, id: Option<&str>) -> Result<PathBuf, Failure> {
    if let Some(id) = id {
        return Ok(certificate(pki, "admin", id));
    }
    if pki.join("tls.crt").exists() {
        return Ok(pki.to_owned());
    }
    let entries = std::fs::read_dir(pki.join("admin")).into_iter().flatten().flatten();
    let mut found = entries.map(|entry| entry.path()).filter(|path| path.join("tls.crt").exists());
    let (first, more) = (found.next(), found.next().is_some());
    let dir = pki.display();
    match first {
        Some(only) if !more => Ok(only),
        Some(_) => Err(Failure::new(Exit::Usage, format!("{dir}/admin has several operators: say which with --id"))),
        None => {
            let text = format!(
                "{dir} has no operator's certificate: make one with `lockstep certs issue admin ID`, or say where it is with \
                 --pki"
            );
            Err(Failure::new(Exit::Usage, text))
        }
    }
}

fn of_up(dir: &Path) -> Result<Access, Failure> {
    let state = State::of_running(dir)?;
    let sidecars = state.parts.iter().filter(|part| part.role == Role::Sidecar);
    Ok(Access {
        cluster: state.cluster.clone(),
        pki: certificate(&state.pki, "admin", UP),
        trust_bundle: None,
        crl: Some(state.revocations()),
        members: sidecars.filter_map(|part| Some((part.id, part.quic?.to_string()))).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_operator_need_not_be_named() {
        let pki = std::env::temp_dir().join(format!("lockstep-operators-{}", std::process::id()));
        let pki = pki.as_path();
        let issue = |id: &str| {
            std::fs::create_dir_all(pki.join("admin").join(id)).expect("room");
            std::fs::write(pki.join("admin").join(id).join("tls.crt"), "").expect("room");
        };
        let why = |result: Result<PathBuf, Failure>| format!("{:?}", result.expect_err("it is not known"));
        assert!(why(operator(pki, None)).contains("lockstep certs issue admin ID"));
        issue("7");
        assert_eq!(operator(pki, None).ok(), Some(pki.join("admin/7")));
        issue("8");
        assert!(why(operator(pki, None)).contains("say which with --id"));
        assert_eq!(operator(pki, Some("8")).ok(), Some(pki.join("admin/8")));
        std::fs::remove_dir_all(pki).expect("it is there");
    }
}
