//! `lockstep ingress`: takes TCP connections of unmodified clients.

use super::adapter::{self, Connections, Protocol, Sizes};
use super::addresses::{Target, target, tcp_address};
use super::common::{Identity, Life, Logging, begin, flag};
use crate::exit::Failure;
use mesh::node::config::{Problems, SettingsError};
use mesh::node::human;
use std::net::SocketAddr;
use std::time::Duration;

/// Settings of an ingress.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    identity: Identity,
    /// Where clients come in, over TCP
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:7000", value_parser = tcp_address)]
    listen: SocketAddr,
    /// QUIC addresses of the SMaRtClients: HOST:PORT or ID=HOST:PORT
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true, value_parser = target)]
    smart_clients: Vec<Target>,
    /// The application's protocol
    #[arg(long, value_enum)]
    protocol: Protocol,
    /// How the application's connections are used; as the sidecars are told
    #[arg(long, value_enum, value_name = "POLICY")]
    app_connections: Option<Connections>,
    #[command(flatten)]
    sizes: Sizes,
    /// After this a client is told what is known of its request
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = human::parse_positive_duration)]
    deadline: Duration,
    /// Connections of clients at one time
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections_max: u32,
    #[command(flatten)]
    life: Life,
    #[command(flatten)]
    logging: Logging,
}

/// Runs until SIGTERM, and drains.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let config = config(&args)?;
    begin("ingress", &args.logging, &args.life)?;
    tracing::info!(?config, "effective configuration");
    Ok(proxy::ingress::run(config).await?)
}

fn config(args: &Args) -> Result<proxy::ingress::Config, SettingsError> {
    let mut problems = Problems::default();
    let id = flag(&mut problems, "id", args.identity.id());
    let adapter =
        flag(&mut problems, "app-connections", adapter::adapter(args.protocol, args.app_connections, args.sizes));
    let complete = id.zip(adapter).map(|(id, adapter)| proxy::ingress::Config {
        cluster: args.identity.cluster.clone(),
        pki: args.identity.certificate("ingress", &id),
        id,
        trust_bundle: args.identity.trust_bundle.clone(),
        admin: args.life.admin,
        listen: args.listen,
        smart_clients: args.smart_clients.iter().cloned().map(|target| (target.id, target.address)).collect(),
        adapter,
        deadline: args.deadline,
        drain_timeout: args.life.drain_timeout,
        connections_max: args.connections_max as usize,
    });
    problems.into_result(complete)
}
