//! `lockstep inject`: a user's StatefulSet made a replicated one. Reads manifests, prints them again with the sidecar in; asks no
//! cluster anything, so the same input always gives the same output.

mod change;
mod check;
mod node;
mod note;
mod parts;
mod print;
mod read;

use crate::exit::{Exit, Failure};
use crate::parts::adapter::{Connections, Durability, Protocol, Sizes};
use crate::parts::common::cluster_name;
use crate::parts::recovery::Recovery;
use anyhow::Context;
use node::Node;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The image of this version.
const IMAGE: &str = concat!("lockstep:", env!("CARGO_PKG_VERSION"));
/// Bytes of manifests.
const INPUT_BYTES_MAX: u64 = 16 << 20;

/// Settings of `inject`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Manifests in YAML or JSON, with one StatefulSet among them; - for stdin. Everything else is printed as it is, without
    /// comments
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    options: Options,
}

/// What the transformation is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Name of the cluster, as in the certificates; by default the StatefulSet's
    #[arg(long, value_name = "NAME", value_parser = cluster_name)]
    cluster: Option<String>,
    /// The container that is the application, where there are several
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// Where the application listens; by default the only TCP port that its container declares
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    app_port: Option<u16>,
    /// The application's protocol
    #[arg(long, value_enum)]
    protocol: Protocol,
    /// How the application's connections are used; by default as the protocol allows
    #[arg(long, value_enum, value_name = "POLICY")]
    app_connections: Option<Connections>,
    #[command(flatten)]
    sizes: Sizes,
    /// Whether lockstep exec runs the application, so that a reset takes milliseconds and meets no back-off; without it the
    /// application's container is restarted by its liveness probe. By default true where the container has a command. What
    /// the application writes to its container's own file system outlives such a reset
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    supervise: Option<bool>,
    /// Take the place of the container's own livenessProbe and preStop hook
    #[arg(long)]
    replace_probes: bool,
    /// The application begins empty each time it starts, whatever its writable volumes hold
    #[arg(long)]
    state_in_volume_is_reset: bool,
    /// Allow an even number of replicas: one more that may fail no more often
    #[arg(long)]
    allow_even: bool,
    /// The image of Lockstep
    #[arg(long, value_name = "IMAGE", default_value = IMAGE)]
    image: String,
    /// The certificates are in the Secrets PREFIX-server-0 and so on; by default the cluster's name, as lockstep certs secret
    /// has it
    #[arg(long, value_name = "PREFIX", value_parser = secret_prefix)]
    secret_prefix: Option<String>,
    /// Size of each replica's volume for the log and snapshots
    #[arg(long, value_name = "QUANTITY", default_value = "10Gi", value_parser = quantity)]
    storage: String,
    /// Its storage class; by default that of the Kubernetes cluster
    #[arg(long, value_name = "CLASS")]
    storage_class: Option<String>,
    /// How writes reach the disk before they are acknowledged
    #[arg(long, value_enum, value_name = "MODE", default_value = "sync")]
    durability: Durability,
    #[command(flatten)]
    recovery: Recovery,
}

/// Why there is no output; each a sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The input or the settings are not what they should be.
    Usage(Vec<String>),
    /// They are, and the outcome would not do what its user expects.
    Refused(Vec<String>),
}

impl Problem {
    fn usage(what: impl Into<String>) -> Self {
        Self::Usage(vec![what.into()])
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let (exit, sentences) = match problem {
            Problem::Usage(sentences) => (Exit::Usage, sentences),
            Problem::Refused(sentences) => (Exit::Refused, sentences),
        };
        Self::new(exit, sentences.join("\nerror: "))
    }
}

/// What came of the input.
#[derive(Clone, Debug)]
pub(crate) struct Injected {
    /// All documents, in the order of the input.
    documents: Vec<Node>,
    /// What has to be done beside applying them.
    note: String,
}

/// The transformation.
pub(crate) fn inject(mut documents: Vec<Node>, options: &Options) -> Result<Injected, Problem> {
    let found = check::find(&documents, options)?;
    let service = parts::service(&documents[found.index], &found);
    change::change(&mut documents[found.index], &found, options);
    documents.insert(found.index, service);
    Ok(Injected { documents, note: note::note(&found) })
}

/// Prints the manifests on stdout and what else is to be done on stderr.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let text = input(&args.file)?;
    let injected = inject(read::read(&text)?, &args.options)?;
    std::io::stdout().write_all(print::print(&injected.documents).as_bytes()).context("cannot write to stdout")?;
    // A closed stderr leaves nobody to tell.
    let _ = std::io::stderr().write_all(injected.note.as_bytes());
    Ok(())
}

fn input(file: &Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|opened| opened.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes))
    };
    let name = file.display();
    read.map_err(|error| Failure::new(Exit::Usage, format!("--file: cannot read {name}: {error}")))?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure::new(Exit::Usage, format!("--file: {name} has more than {INPUT_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line =
            1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        Failure::new(Exit::Usage, format!("line {line}: this is no UTF-8"))
    })
}

/// A size as Kubernetes writes it.
fn quantity(text: &str) -> Result<String, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = &text[..text.len() - unit.len()];
    let known = ["", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].contains(&unit);
    if known && number.contains(|digit| digit != '0') {
        Ok(text.to_owned())
    } else {
        Err(format!("\"{text}\" is no size of a volume: write a number and a unit, such as 10Gi"))
    }
}

/// What a Secret's name can begin with.
fn secret_prefix(text: &str) -> Result<String, String> {
    let fits = text.len() <= 180 && mesh::names::check_cluster(text).is_ok();
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("\"{text}\" cannot be in the name of a Secret: use DNS labels"))
    }
}
