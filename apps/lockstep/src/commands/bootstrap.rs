//! `lockstep bootstrap`: the explicit first start of a cluster.

use crate::exit::Failure;
use crate::parts::addresses::{Target, servers, target};
use crate::parts::common::{Identity, Logging, Patience, flag};
use mesh::net::Files;
use mesh::node::config::{Problems, SettingsError};
use mesh::node::human;
use sidecar::bootstrap::BootstrapConfig;
use std::time::Duration;

/// Settings of the bootstrap.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    identity: Identity,
    #[command(flatten)]
    patience: Patience,
    /// QUIC addresses of all members: HOST:PORT in the order of the ids, or ID=HOST:PORT
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true, value_parser = target)]
    seeds: Vec<Target>,
    /// How many members there must be: a cluster is begun by all of them or not at all
    #[arg(long, value_name = "N")]
    expect: usize,
    /// Give up after this; without it, wait for as long as it takes
    #[arg(long, value_name = "DURATION", value_parser = human::parse_positive_duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    logging: Logging,
}

/// Done when the cluster has history.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let config = config(&args)?;
    args.logging.init()?;
    let files = Files::new(&config.pki, config.trust_bundle.as_deref(), config.crl.as_deref());
    args.patience.wait("admin", &args.identity.id().unwrap_or_default(), &files).await;
    Ok(sidecar::bootstrap::run(config).await?)
}

fn config(args: &Args) -> Result<BootstrapConfig, SettingsError> {
    let mut problems = Problems::default();
    let id = flag(&mut problems, "id", args.identity.id());
    let members = flag(&mut problems, "seeds", servers(&args.seeds));
    let given = args.seeds.len();
    problems.check(
        given == args.expect,
        format!("--expect: {} members are expected, and --seeds names {given}", args.expect),
    );
    let complete = id.zip(members).map(|(id, members)| BootstrapConfig {
        cluster: args.identity.cluster.clone(),
        pki: args.identity.certificate("admin", &id),
        trust_bundle: args.identity.trust_bundle.clone(),
        crl: Some(args.identity.revocations("admin", &id)),
        members,
        timeout: args.timeout,
    });
    problems.into_result(complete)
}
