//! `lockstep ingress`: takes TCP connections of unmodified clients.

use super::adapter::{self, Connections, Protocol, Sizes, Vote};
use super::addresses::{Target, servers, target, tcp_address};
use super::common::{Identity, Life, Logging, Patience, begin, flag};
use super::reads::{Reads, Words};
use super::signatures::Modes;
use crate::exit::Failure;
use mesh::net::OutsideFiles;
use mesh::node::config::{Problems, SettingsError};
use mesh::node::human;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of an ingress.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    identity: Identity,
    #[command(flatten)]
    patience: Patience,
    /// Where clients come in, over TCP
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:7000", value_parser = tcp_address)]
    listen: SocketAddr,
    /// QUIC addresses of the SMaRtClients: HOST:PORT or ID=HOST:PORT
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        required_unless_present = "smart_client_pki",
        value_parser = target
    )]
    smart_clients: Vec<Target>,
    /// Have a SMaRtClient in this process, with the certificate in this directory (PKI/smart-client/ID): saves a link and a
    /// process on the way of each request. It is asked beside those of --smart-clients
    #[arg(long, value_name = "DIR", requires = "servers")]
    smart_client_pki: Option<PathBuf>,
    /// For --smart-client-pki: the id in that certificate; by default this ingress' own
    #[arg(long, value_name = "ID", requires = "smart_client_pki")]
    smart_client_id: Option<String>,
    /// For --smart-client-pki: QUIC addresses of the servers: HOST:PORT in the order of the ids, or ID=HOST:PORT
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', requires = "smart_client_pki", value_parser = target)]
    servers: Vec<Target>,
    /// The application's protocol
    #[arg(long, value_enum)]
    protocol: Protocol,
    /// How the application's connections are used; as the sidecars are told
    #[arg(long, value_enum, value_name = "POLICY")]
    app_connections: Option<Connections>,
    #[command(flatten)]
    sizes: Sizes,
    /// How requests that change nothing are answered. Where anything is signed, or --reply-vote is all, they go through the
    /// log in any case
    #[arg(long, value_enum, value_name = "WAY", default_value = "index")]
    reads: Reads,
    #[command(flatten)]
    words: Words,
    /// After this a client is told what is known of its request
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = human::parse_positive_duration)]
    deadline: Duration,
    #[command(flatten)]
    clients: Clients,
    #[command(flatten)]
    signatures: Modes,
    /// How many equal replies make an answer; with signatures, so many servers must have signed it
    #[arg(long, value_enum, value_name = "RULE", default_value = "majority")]
    reply_vote: Vote,
    #[command(flatten)]
    tls: ListenTls,
    /// How long to stay open after SIGTERM, not ready any more, before connections are ended: as long as whoever sends
    /// clients here takes to notice. On Kubernetes about 5s
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = human::parse_duration)]
    drain_delay: Duration,
    #[command(flatten)]
    life: Life,
    #[command(flatten)]
    logging: Logging,
}

/// TLS for outside clients.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ListenTls {
    /// Speak TLS with clients, with this certificate and those between it and its authority; followed while it runs
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl ListenTls {
    /// Both or neither.
    pub(crate) fn files(&self) -> Option<OutsideFiles> {
        let (certificate, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(OutsideFiles { certificate, key })
    }
}

/// What one client may take, in connections and in time.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Clients {
    /// Connections of clients at one time
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections_max: u32,
    /// Of these from one address; by default as many as there may be, since many clients may share one address
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections_per_address: Option<u32>,
    /// Close a connection that asks for nothing for so long; by default never
    #[arg(long, value_name = "DURATION", value_parser = human::parse_positive_duration)]
    idle_timeout: Option<Duration>,
    /// A request must be whole this long after its first byte
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = human::parse_positive_duration)]
    request_timeout: Duration,
    /// In this time a client must read 64 KiB of the replies that wait for it, or all of them. While such replies of all
    /// clients fill half of their room in memory it has 2s at most
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = human::parse_positive_duration)]
    reply_timeout: Duration,
    /// Protocol close: so much silence after a byte ends a request as the client's half-close does; by default only that
    #[arg(long, value_name = "DURATION", value_parser = human::parse_positive_duration)]
    quiet_period: Option<Duration>,
}

impl Clients {
    /// What is wrong with them.
    pub(crate) fn check(&self, protocol: Protocol, problems: &mut Problems) {
        let Some(quiet) = self.quiet_period else { return };
        problems.check(
            protocol == Protocol::Close,
            format!("--quiet-period: requests of {} end by themselves; it is for close", adapter::name(&protocol)),
        );
        problems.check(quiet < self.request_timeout, "--quiet-period: must be less than --request-timeout");
    }

    /// As an ingress has them.
    pub(crate) fn limits(&self) -> proxy::ingress::Limits {
        proxy::ingress::Limits {
            connections_max: self.connections_max as usize,
            connections_per_address: self.connections_per_address.map(|most| most as usize),
            idle_timeout: self.idle_timeout,
            request_timeout: self.request_timeout,
            reply_timeout: self.reply_timeout,
            quiet_period: self.quiet_period,
        }
    }

    /// As flags of `lockstep ingress`.
    pub(crate) fn flags(&self) -> Vec<(&'static str, String)> {
        let time = |time: Duration| Some(human::format_duration(time));
        let flags = [
            ("connections-max", Some(self.connections_max.to_string())),
            ("connections-per-address", self.connections_per_address.map(|most| most.to_string())),
            ("idle-timeout", self.idle_timeout.and_then(time)),
            ("request-timeout", time(self.request_timeout)),
            ("reply-timeout", time(self.reply_timeout)),
            ("quiet-period", self.quiet_period.and_then(time)),
        ];
        flags.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
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
    begin("ingress", &args.logging, &args.life)?;
    tracing::info!(?config, "effective configuration");
    args.patience.wait("ingress", &config.id, &config.files).await;
    Ok(proxy::ingress::run(config).await?)
}

fn config(args: &Args) -> Result<proxy::ingress::Config, SettingsError> {
    let mut problems = Problems::default();
    args.clients.check(args.protocol, &mut problems);
    let read_only = args.words.check(args.protocol, &mut problems);
    let id = flag(&mut problems, "id", args.identity.id());
    let adapter =
        flag(&mut problems, "app-connections", adapter::adapter(args.protocol, args.app_connections, args.sizes));
    let servers = flag(&mut problems, "servers", servers(&args.servers)).unwrap_or_default();
    let complete = id.zip(adapter).map(|(id, adapter)| proxy::ingress::Config {
        inside: args.smart_client_pki.as_ref().map(|pki| proxy::smart_client::InsideConfig {
            id: args.smart_client_id.clone().unwrap_or_else(|| id.clone()),
            files: args.identity.files_in(pki),
            servers,
        }),
        cluster: args.identity.cluster.clone(),
        files: args.identity.files("ingress", &id),
        link_max_age: args.life.link_max_age,
        tls: args.tls.files(),
        id,
        admin: args.life.admin,
        listen: args.listen,
        smart_clients: args.smart_clients.iter().cloned().map(|target| (target.id, target.address)).collect(),
        adapter,
        read_only: (args.reads == Reads::Index).then_some(read_only),
        deadline: args.deadline,
        drain_timeout: args.life.drain_timeout,
        drain_delay: args.drain_delay,
        limits: args.clients.limits(),
        request_signatures: args.signatures.requests.into(),
        reply_signatures: args.signatures.replies.into(),
        reply_vote: args.reply_vote.into(),
    });
    problems.into_result(complete)
}
