//! A SMaRtClient inside an ingress: the same protocol and links to the servers, but no link and no process between the two.
//!
//! It has a certificate of its own, because servers take requests of SMaRtClients only.

use super::driver::{AskerId, Event, View, Way};
use super::{Metrics, Setup, by_id, start};
use crate::smart_client::servers::Standings;
use anyhow::Context;
use bytes::Bytes;
use mesh::client::ReplyVote;
use mesh::client::running::{self, Running};
use mesh::client::sender::Endpoint as Number;
use mesh::net::{Endpoint, Files, Role, kept};
use mesh::node::Registry;
use mesh::node::identity::{self, Expected};
use mesh::wire::client::FromSmartClient;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Settings of a SMaRtClient inside an ingress.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its id, as in its certificate.
    pub id: String,
    /// Its certificate, in `pki/smart-client/<id>`, and whom it trusts.
    pub files: Files,
    /// The servers: ids and HOST:PORT.
    pub servers: Vec<(u32, String)>,
}

/// What it shares with the ingress around it.
pub(crate) struct Shared<'a> {
    /// The cluster's name.
    pub(crate) cluster: &'a str,
    /// Links are replaced before they are this old.
    pub(crate) link_max_age: Duration,
    /// How many equal replies make an answer.
    pub(crate) vote: ReplyVote,
}

/// It runs as long as this lives.
pub(crate) struct Inside {
    id: String,
    endpoint: Endpoint,
    view: Arc<View>,
    standings: Standings,
    metrics: Metrics,
    _tasks: JoinSet<()>,
}

impl Inside {
    /// Starts one that `running` asks. Its metrics are those of a SMaRtClient, with that in front of their names.
    ///
    /// # Errors
    /// Its settings or certificate cannot be used.
    pub(crate) async fn start(
        config: &Config,
        shared: &Shared<'_>,
        running: &Running,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        let registry = registry.sub_registry_with_prefix("smart_client");
        let servers = by_id(&config.servers)?;
        let expected = Expected { cluster: shared.cluster, role: Role::SmartClient, id: &config.id };
        let limits = kept::limits(shared.link_max_age);
        let endpoint = identity::bind(&expected, &config.files, identity::any_address(), &[], limits, registry)
            .context("the SMaRtClient inside this ingress cannot start")?;
        let metrics = Metrics::new(registry, &servers);
        let setup = Setup { servers: &config.servers, vote: shared.vote, pki: &config.files.dir };
        let mut started = start(&setup, &endpoint, &metrics)?;
        let (number, questions) = running.take_in().await;
        started.tasks.spawn(ask(questions, number, running.events.clone(), started.events));
        started.tasks.spawn(introduce(number, started.shown, running.events.clone()));
        let (view, standings, _tasks) = (started.view, started.standings, started.tasks);
        Ok(Self { id: config.id.clone(), endpoint, view, standings, metrics, _tasks })
    }

    /// The `smart_client` of the ingress' `/status`.
    pub(crate) fn status(&self) -> Value {
        json!({
            "id": self.id,
            "tls": self.endpoint.tls_status(),
            "udp": self.endpoint.udp_status(),
            "quorum": self.view.has_quorum.load(Ordering::Relaxed),
            "peers": self.standings.all().iter().map(|(_, standing)| standing.status()).collect::<Vec<_>>(),
            "requests": self.metrics.requests.status(),
            "resends": self.metrics.requests.resends.get(),
        })
    }

    /// Whether a majority of the servers is reachable.
    pub(crate) fn has_quorum(&self) -> bool {
        self.view.has_quorum.load(Ordering::Relaxed)
    }

    /// Closes its links.
    pub(crate) async fn close(&self) {
        self.endpoint.close().await;
    }
}

/// Hands the sender's questions on. What the sender holds is bounded, and so is what waits here.
async fn ask(
    mut questions: mpsc::Receiver<running::Asking>,
    number: Number,
    sender: mpsc::Sender<running::Event>,
    events: mpsc::Sender<Event>,
) {
    let asker = AskerId(0);
    if events.send(Event::Came(asker, Way::Near(sender, number))).await.is_err() {
        return;
    }
    while let Some(question) = questions.recv().await {
        let (request, within) = question.into_request();
        if events.send(Event::Ask { request, within, asker, share: None }).await.is_err() {
            return;
        }
    }
}

/// Shows the sender the servers' signing certificates, and again whenever there is another.
async fn introduce(number: Number, mut signers: watch::Receiver<Bytes>, sender: mpsc::Sender<running::Event>) {
    signers.mark_changed();
    while signers.changed().await.is_ok() {
        let message = signers.borrow_and_update().clone();
        let Ok(FromSmartClient::Signers(certificates)) = mesh::wire::decode(&message) else { continue };
        if sender.send(running::Event::Signers(number, certificates)).await.is_err() {
            return;
        }
    }
}
