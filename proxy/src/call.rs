//! The native client, once: one request in a session of its own, without TCP and without an ingress.

use crate::process::{self, Bound};
use anyhow::{Context, anyhow, ensure};
use bytes::Bytes;
use mesh::client::running::{self, Event};
use mesh::client::sender::{Answer, Connection, Lending};
use mesh::net::Role;
use mesh::node;
use mesh::node::identity::{self, Expected};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a SMaRtClient has for an answer before another one is asked.
const RESEND: Duration = Duration::from_secs(1);

/// Settings of a call.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name, as in its certificates.
    pub cluster: String,
    /// The client's id, as in its certificate.
    pub id: String,
    /// The directory of its certificate: `pki/client/<id>`.
    pub pki: PathBuf,
    /// Whom to trust instead of the certificate's own `ca.crt`.
    pub trust_bundle: Option<PathBuf>,
    /// The SMaRtClients: their ids where known, HOST:PORT.
    pub smart_clients: Vec<(Option<String>, String)>,
    /// After this the call ends with what is known.
    pub deadline: Duration,
    /// The request in the application's protocol.
    pub bytes: Bytes,
}

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Definite: it did not run and never will (exit code 7).
    #[error("refused: {0}")]
    Refused(String),
    /// It may have run, or not (exit code 6).
    #[error("outcome unknown: {0}; read before you try again")]
    Unknown(String),
    /// The call was not made: settings, certificate, ports.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// Makes one call and returns the application's reply.
///
/// # Errors
/// Every end of a call but a reply.
pub async fn run(config: Config) -> Result<Bytes, CallError> {
    let (endpoint, answer) = ask(config).await?;
    endpoint.close().await;
    match answer {
        Answer::Reply(bytes) => Ok(bytes),
        Answer::Refused(why) => Err(CallError::Refused(why.to_string())),
        Answer::Unknown(why) => Err(CallError::Unknown(why.to_string())),
    }
}

async fn ask(config: Config) -> anyhow::Result<(mesh::net::Endpoint, Answer)> {
    ensure!(!config.smart_clients.is_empty(), "no SMaRtClients: name them with --smart-clients HOST:PORT,…");
    let most = mesh::limits::REQUEST_BYTES_MAX;
    ensure!(config.bytes.len() <= most, "a request may have {most} bytes at most; this one has {}", config.bytes.len());
    let mut registry = node::registry();
    let expected = Expected { cluster: &config.cluster, role: Role::Client, id: &config.id };
    let trust = config.trust_bundle.as_deref();
    let Bound { endpoint, .. } =
        process::bind(&expected, &config.pki, trust, identity::any_address(), &[], &mut registry)?;
    let metrics = running::Metrics::new(&mut registry);
    let settings =
        mesh::client::sender::Config { lending: Lending::Own, window: 1, sessions: 1, held: 1, resend: RESEND };
    let running = running::start(settings, config.deadline, config.smart_clients, &endpoint, &metrics)?;
    let (answer, answered) = oneshot::channel();
    let call = Event::Call { connection: Connection(0), bytes: config.bytes, answer };
    running.events.send(call).await.map_err(|_| anyhow!("the sender ended"))?;
    let answer = answered.await.context("the sender ended")?;
    Ok((endpoint, answer))
}
