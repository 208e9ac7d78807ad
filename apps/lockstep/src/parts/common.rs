//! What every part is told: who it is, how it logs, how long it drains; and the beginning of its life.

use super::addresses::admin_address;
use crate::exit::{Exit, Failure};
use crate::process::die_with_parent;
use mesh::net::Files;
use mesh::node::config::Problems;
use mesh::node::identity::host;
use mesh::node::logging::{self, LogFormat};
use mesh::node::{human, version};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two looks for a certificate, and between two words about it.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const SAY_EVERY: Duration = Duration::from_secs(10);
/// The least age at which links are replaced.
const LINK_AGE_LEAST: Duration = Duration::from_secs(1);

/// Settings of every subcommand that logs.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Logging {
    /// File with settings in TOML: the flags with _ instead of -
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// What to log on stderr: a level, or target=level pairs; RUST_LOG counts where this is not given
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// How log lines look
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

impl Logging {
    /// Begins logging.
    pub(crate) fn init(&self) -> Result<(), Failure> {
        logging::init(self.log_format, self.log.as_deref()).map_err(|error| Failure::new(Exit::Usage, error))
    }
}

/// Who a process is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Identity {
    /// Name of the cluster: DNS labels, as in the certificates
    #[arg(long, value_name = "NAME", value_parser = cluster_name)]
    pub(crate) cluster: String,
    /// Which one this is; without it the number at the end of the host's name
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Directory with tls.crt, tls.key and ca.crt, or one with ROLE/ID in it
    #[arg(long, value_name = "DIR", default_value = "pki")]
    pub(crate) pki: PathBuf,
    /// Trusted certificate authorities, instead of ca.crt beside the certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) trust_bundle: Option<PathBuf>,
    /// Revocation lists, as pki/crl.pem; crl.pem beside the certificate where this is not given. While there is no such file
    /// nobody counts as revoked
    #[arg(long, value_name = "FILE")]
    pub(crate) crl: Option<PathBuf>,
}

/// Settings of a part that may be started before its certificate is made.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Patience {
    /// Wait so long for the certificate, if it is not there yet
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = human::parse_duration)]
    certificate_wait: Duration,
}

impl Patience {
    /// Returns when there is a certificate, or nothing to wait for any more: what is missing then is said by whoever loads it.
    pub(crate) async fn wait(&self, role: &str, id: &str, files: &Files) {
        let end = tokio::time::Instant::now() + self.certificate_wait;
        let missing = || [files.certificate(), files.key(), files.bundle()].into_iter().find(|path| !path.exists());
        let mut said = tokio::time::Instant::now();
        let mut stop = std::pin::pin!(mesh::node::stop_signal());
        while let Some(path) = missing().filter(|_| tokio::time::Instant::now() < end) {
            if tokio::time::Instant::now() >= said {
                tracing::info!("waiting for certificate {role}/{id}: {} is not there yet", path.display());
                said += SAY_EVERY;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                // Nothing has begun that would have to be ended.
                () = &mut stop => std::process::exit(0),
            }
        }
    }
}

impl Identity {
    /// The id: what was given, else the number at the end of the host's name.
    pub(crate) fn id(&self) -> Result<String, String> {
        self.id.clone().or_else(|| number_of_host(&host())).ok_or_else(|| {
            "is missing, and the host's name does not end in -NUMBER: give the flag or set LOCKSTEP_ID".to_owned()
        })
    }

    /// Certificate and trust of this role and id.
    pub(crate) fn files(&self, role: &str, id: &str) -> Files {
        Files::new(&self.certificate(role, id), self.trust_bundle.as_deref(), Some(&self.revocations(role, id)))
    }

    /// Those in another directory, with the same trust.
    pub(crate) fn files_in(&self, pki: &Path) -> Files {
        let revocations = self.crl.clone().unwrap_or_else(|| pki.join("crl.pem"));
        Files::new(pki, self.trust_bundle.as_deref(), Some(&revocations))
    }

    /// Where its revocation lists are, once there are any.
    pub(crate) fn revocations(&self, role: &str, id: &str) -> PathBuf {
        self.crl.clone().unwrap_or_else(|| self.certificate(role, id).join("crl.pem"))
    }

    /// The directory of the certificate of this role and id.
    pub(crate) fn certificate(&self, role: &str, id: &str) -> PathBuf {
        certificate(&self.pki, role, id)
    }
}

/// A cluster's name that can stand in a certificate.
pub(crate) fn cluster_name(text: &str) -> Result<String, String> {
    mesh::names::check_cluster(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

/// `pki` itself if it holds a certificate, else its ROLE/ID, where one may come.
pub(crate) fn certificate(pki: &Path, role: &str, id: &str) -> PathBuf {
    if pki.join("tls.crt").exists() { pki.to_owned() } else { pki.join(role).join(id) }
}

/// Shorter lives would be spent on handshakes.
pub(crate) fn link_max_age(text: &str) -> Result<Duration, String> {
    let age = human::parse_positive_duration(text)?;
    if age < LINK_AGE_LEAST { Err(format!("must be {} at least", LINK_AGE_LEAST.as_secs())) } else { Ok(age) }
}

fn number_of_host(host: &str) -> Option<String> {
    let (_, number) = host.rsplit_once('-')?;
    let number: u32 = number.parse().ok()?;
    Some(number.to_string())
}

/// The life of a part.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Life {
    /// Where probes, metrics and status are answered over HTTP
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9400", value_parser = admin_address)]
    pub(crate) admin: SocketAddr,
    /// How long what is in flight may take after SIGTERM
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = human::parse_duration)]
    pub(crate) drain_timeout: Duration,
    /// Replace every link before it is this old, without losing anything
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = link_max_age)]
    pub(crate) link_max_age: Duration,
    /// After anything happened, look for so long without a pause for what comes next before sleeping: quicker answers to few
    /// clients, where processors have nothing else to do
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = human::parse_duration)]
    pub(crate) spin: Duration,
    /// End when this process, the parent, does
    #[arg(long, hide = true)]
    pub(crate) parent_pid: Option<u32>,
}

/// The beginning of a part: ties it to its parent, begins logging.
pub(crate) fn begin(part: &str, logging: &Logging, life: &Life) -> Result<(), Failure> {
    logging.init()?;
    if let Some(parent) = life.parent_pid {
        die_with_parent(parent)?;
    }
    mesh::node::spin::spin(life.spin);
    tracing::info!(part, version = %version(), pid = std::process::id(), "starting");
    Ok(())
}

/// Notes problems under `--name`.
pub(crate) fn flag<T>(problems: &mut Problems, name: &str, result: Result<T, String>) -> Option<T> {
    problems.take(&format!("--{name}"), result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_host_is_at_the_end_of_its_name() {
        assert_eq!(number_of_host("server-12").as_deref(), Some("12"));
        assert_eq!(number_of_host("my-server-007").as_deref(), Some("7"));
        assert_eq!(number_of_host("server"), None);
        assert_eq!(number_of_host("server-7f9c"), None);
    }
}
