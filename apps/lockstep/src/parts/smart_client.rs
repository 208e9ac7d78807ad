//! `lockstep smart-client`: asks all servers, votes on their replies.

use super::adapter::Vote;
use super::addresses::{Target, quic_address, servers, target};
use super::common::{Identity, Life, Logging, Patience, begin, flag};
use crate::exit::Failure;
use mesh::node::config::{Problems, SettingsError};
use std::net::SocketAddr;

/// Settings of a SMaRtClient.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    identity: Identity,
    #[command(flatten)]
    patience: Patience,
    /// Where ingresses and native clients come in, over QUIC
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:7500", value_parser = quic_address)]
    quic: SocketAddr,
    /// QUIC addresses of the servers: HOST:PORT in the order of the ids, or ID=HOST:PORT. Those that are missing, or have
    /// moved, are found through the others
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true, value_parser = target)]
    servers: Vec<Target>,
    /// How many equal replies make an answer
    #[arg(long, value_enum, value_name = "RULE", default_value = "majority")]
    reply_vote: Vote,
    #[command(flatten)]
    life: Life,
    #[command(flatten)]
    logging: Logging,
}

impl Args {
    /// Settings that do not go together.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        config(self).map(drop)
    }
}

/// Runs until SIGTERM, and drains.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let config = config(&args)?;
    begin("smart-client", &args.logging, &args.life)?;
    tracing::info!(?config, "effective configuration");
    args.patience.wait("smart-client", &config.id, &config.files).await;
    Ok(proxy::smart_client::run(config).await?)
}

fn config(args: &Args) -> Result<proxy::smart_client::Config, SettingsError> {
    let mut problems = Problems::default();
    let id = flag(&mut problems, "id", args.identity.id());
    let servers = flag(&mut problems, "servers", servers(&args.servers));
    let complete = id.zip(servers).map(|(id, servers)| proxy::smart_client::Config {
        cluster: args.identity.cluster.clone(),
        files: args.identity.files("smart-client", &id),
        link_max_age: args.life.link_max_age,
        id,
        quic: args.quic,
        admin: args.life.admin,
        servers,
        vote: args.reply_vote.into(),
        drain_timeout: args.life.drain_timeout,
    });
    problems.into_result(complete)
}
