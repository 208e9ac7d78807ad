//! The arguments of `lockstep certs`.

use crate::parts::common::cluster_name;
use crate::up::output::Format;
use certs::{Role, San};
use mesh::node::human::parse_positive_duration;
use std::path::PathBuf;
use std::time::Duration;

/// What to do.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a certificate authority; refused where there is one
    Init {
        /// Name of the cluster: DNS labels
        #[arg(long, value_name = "NAME", value_parser = cluster_name)]
        cluster: String,
        /// Trust domain of all SPIFFE names [default: lockstep.local]
        #[arg(long, value_name = "DOMAIN")]
        trust_domain: Option<String>,
        /// How long the authority lives [default: 3650 days]
        #[arg(long, value_name = "DURATION", value_parser = parse_positive_duration)]
        lifetime: Option<Duration>,
        /// Begin anew where there is an authority: it is moved to ca/retired, with its key, and trusted no more
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Make the certificate of one part; refused where there is one
    Issue {
        /// server, smart-client, ingress, client or admin
        role: String,
        /// A number for a server, otherwise a DNS label
        id: String,
        /// More names: DNS names or addresses, beside those of the role and id
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        san: Vec<San>,
        /// How long it lives, at most until its authority ends [default: 90 days]
        #[arg(long, value_name = "DURATION", value_parser = parse_positive_duration)]
        lifetime: Option<Duration>,
        /// Also one for signatures (signing.crt, signing.key)
        #[arg(long)]
        signing: bool,
        /// Replace what is there
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Make what a file asks for and is missing or due; leaves the rest alone; safe to run at any time
    ///
    /// The file is TOML: cluster, trust-domain, signing (true or false), lifetime, ca-lifetime, and for each role
    /// (server, smart-client, ingress, client, admin) a count, a list of names, or a table of count, names,
    /// lifetime, signing and sans. The authority is made if there is none.
    Apply {
        /// The file
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Make new certificates, with new keys, for those that are due, for all, or for those named
    Renew {
        /// Parts to renew whatever their state, revoked ones too; without any, those that are due or expired
        #[arg(value_name = "ROLE/ID", value_parser = part)]
        parts: Vec<(String, String)>,
        /// Renew all but revoked ones
        #[arg(long, conflicts_with = "parts")]
        all: bool,
        /// How long they live [default: as long as those before]
        #[arg(long, value_name = "DURATION", value_parser = parse_positive_duration)]
        lifetime: Option<Duration>,
        #[command(flatten)]
        place: Place,
    },
    /// Replace the certificate authority, with both trusted in between
    RotateCa {
        /// What to do
        #[command(subcommand)]
        step: Rotate,
    },
    /// Revoke all valid certificates of a part, or one by its serial number, and sign the revocation lists anew
    Revoke {
        /// The part
        #[arg(value_name = "ROLE/ID", value_parser = part, required_unless_present = "serial")]
        target: Option<(String, String)>,
        /// The certificate with this serial number, as `list --all` shows it
        #[arg(long, value_name = "HEX", conflicts_with = "target")]
        serial: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Sign the revocation lists anew, under a higher number
    Crl {
        #[command(flatten)]
        place: Place,
    },
    /// Show what there is, and how it is: good, due, expired, revoked
    List {
        /// Also what was superseded, or is expired or revoked and not here
        #[arg(long)]
        all: bool,
        /// Where the certificate authority is
        #[arg(long, value_name = "DIR", default_value = "pki")]
        dir: PathBuf,
        /// How to print it
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
        output: Format,
    },
    /// Show what is in a PEM file, or what certificate a running part presents; verifies nothing
    Inspect {
        /// A file, or HOST:PORT of a part's QUIC port
        #[arg(value_name = "FILE|ADDR")]
        target: String,
        /// How to print it
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
        output: Format,
    },
    /// Verify certificates: chain, validity, names, purpose, revocation, key; exits with 4 if one is invalid, 5 if due
    Verify {
        /// Certificates; their keys are looked for beside them
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Where the certificate authority is
        #[arg(long, value_name = "DIR", default_value = "pki")]
        dir: PathBuf,
        /// Whom to trust [default: bundle.crt of --dir if there is one, otherwise ca.crt beside each file]
        #[arg(long, value_name = "FILE")]
        trust_bundle: Option<PathBuf>,
        /// What is revoked [default: crl.pem of --dir if there is one]
        #[arg(long, value_name = "FILE")]
        crl: Option<PathBuf>,
        /// How to print it
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
        output: Format,
    },
    /// Keep the certificates of a cluster on Kubernetes, in Secrets that are there: what the chart's Job runs
    ///
    /// Makes what is missing or due; never replaces an authority's key, nor a certificate with more than a third of its life
    /// left. Safe to run at any time, and again where it ended. Runs in a pod whose service account may get and patch the
    /// Secrets.
    InCluster(super::in_cluster::Args),
    /// Print Kubernetes Secrets in YAML, one for each part; has private keys in it
    Secret {
        /// Parts; without any, all
        #[arg(value_name = "ROLE/ID", value_parser = part)]
        parts: Vec<(String, String)>,
        /// All parts, which is the default
        #[arg(long, conflicts_with = "parts")]
        all: bool,
        /// Namespace to write into them
        #[arg(short, long, value_name = "NAME")]
        namespace: Option<String>,
        /// Where the certificate authority is
        #[arg(long, value_name = "DIR", default_value = "pki")]
        dir: PathBuf,
    },
}

/// A step of a rotation.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Rotate {
    /// Make a new authority; everybody trusts both, new certificates come from the new one
    Start {
        /// How long the authority lives [default: 3650 days]
        #[arg(long, value_name = "DURATION", value_parser = parse_positive_duration)]
        lifetime: Option<Duration>,
        #[command(flatten)]
        place: Place,
    },
    /// End the trust in the old authority; refused while a live certificate is from it
    Finish {
        #[command(flatten)]
        place: Place,
    },
    /// Show which authorities are trusted, and whose certificates are from which
    Status {
        /// Where the certificate authority is
        #[arg(long, value_name = "DIR", default_value = "pki")]
        dir: PathBuf,
        /// How to print it
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
        output: Format,
    },
    /// Go back to the old authority; refused while a live certificate is from the new one
    Abort {
        #[command(flatten)]
        place: Place,
    },
}

/// Where, with what, and how to say it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Place {
    /// Where the certificate authority is
    #[arg(long, value_name = "DIR", default_value = "pki")]
    pub(crate) dir: PathBuf,
    /// File with the passphrase, in its first line, of the authority's key; new ones are encrypted with it
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// How to print what was done
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: Format,
}

/// `ROLE/ID`.
pub(super) fn part(text: &str) -> Result<(String, String), String> {
    let (role, id) = text.split_once('/').ok_or("write it as ROLE/ID, such as server/0")?;
    role.parse::<Role>().map_err(|problem| problem.to_string())?;
    Ok((role.to_owned(), id.to_owned()))
}
