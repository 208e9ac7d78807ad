//! `lockstep call`: one request through the native client, with a session of its own.

use crate::exit::{Exit, Failure};
use crate::parts::addresses::{Target, target};
use crate::parts::common::{Logging, certificate, cluster_name};
use crate::up::state::State;
use anyhow::Context;
use bytes::Bytes;
use mesh::node::config::Problems;
use mesh::node::human;
use proxy::call::{CallError, Config};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Settings of a call.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Data directory of a running `up`: says the cluster, its SMaRtClients and a certificate
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Name of the cluster
    #[arg(long, value_name = "NAME", value_parser = cluster_name)]
    cluster: Option<String>,
    /// The client's id, as in its certificate
    #[arg(long, value_name = "ID", default_value = "0")]
    id: String,
    /// Directory with the client's certificate, or one with client/ID in it; pki where nothing else says more
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,
    /// Trusted certificate authorities, instead of ca.crt beside the certificate
    #[arg(long, value_name = "FILE")]
    trust_bundle: Option<PathBuf>,
    /// QUIC addresses of the SMaRtClients: HOST:PORT or ID=HOST:PORT
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', value_parser = target)]
    smart_clients: Vec<Target>,
    /// After this the outcome is what is known by then
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = human::parse_positive_duration)]
    deadline: Duration,
    /// Send REQUEST as it is, without a line end behind it
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    logging: Logging,
    /// The request, a line; without it the request is read from stdin, as it is
    #[arg(value_name = "REQUEST")]
    request: Option<String>,
}

/// Prints the reply.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut args = args;
    // A reply on stdout needs no report of success beside it.
    args.logging.log.get_or_insert_with(|| "warn".to_owned());
    args.logging.init()?;
    let config = config(args)?;
    let reply = proxy::call::run(config).await.map_err(|error| match error {
        CallError::Refused(_) => Failure::new(Exit::RefusedByService, error),
        CallError::Unknown(_) => Failure::new(Exit::UnknownOutcome, error),
        CallError::Other(error) => Failure::from(error),
    })?;
    std::io::stdout().write_all(&reply).and_then(|()| std::io::stdout().flush()).context("cannot print the reply")?;
    Ok(())
}

fn config(args: Args) -> Result<Config, Failure> {
    let state = match &args.data_dir {
        Some(dir) => Some(State::of_running(dir)?),
        None => None,
    };
    let given: Vec<_> = args.smart_clients.into_iter().map(|target| (target.id, target.address)).collect();
    let known = || state.as_ref().map(State::smart_clients).unwrap_or_default();
    let smart_clients = if given.is_empty() { known() } else { given };
    let cluster = args.cluster.or_else(|| state.as_ref().map(|state| state.cluster.clone()));
    let pki = args.pki.or_else(|| state.as_ref().map(|state| state.pki.clone())).unwrap_or_else(|| "pki".into());
    let mut problems = Problems::default();
    problems.check(cluster.is_some(), "--cluster is missing: give it, or --data-dir of a running up");
    problems.check(!smart_clients.is_empty(), "--smart-clients is missing: give it, or --data-dir of a running up");
    let cluster = problems.into_result(cluster)?;
    Ok(Config {
        cluster,
        pki: certificate(&pki, "client", &args.id),
        id: args.id,
        trust_bundle: args.trust_bundle,
        smart_clients,
        deadline: args.deadline,
        bytes: request(args.request, args.raw)?,
    })
}

/// The request's bytes, from the command line or from stdin; never more than any configuration takes.
fn request(given: Option<String>, raw: bool) -> anyhow::Result<Bytes> {
    if let Some(mut line) = given {
        if !raw && !line.ends_with('\n') {
            line.push('\n');
        }
        return Ok(line.into());
    }
    let most = mesh::limits::REQUEST_BYTES_MAX;
    let mut bytes = Vec::new();
    std::io::stdin().take(most as u64 + 1).read_to_end(&mut bytes).context("cannot read the request from stdin")?;
    anyhow::ensure!(bytes.len() <= most, "a request has {} at most", human::format_size(most as u64));
    Ok(bytes.into())
}
