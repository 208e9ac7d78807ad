//! The explicit first start of a cluster: safe to run at any time, and again after it was cut off.
//!
//! Done at once if any member has history: it teaches the others itself. Otherwise nothing happens before every member
//! answers that it has none; then all store the same proposal, and only when all have is it committed at each.

use crate::entropy;
use crate::operator::{Access, ask, dial, words};
use anyhow::{Context, bail, ensure};
use mesh::config::{ClusterConfig, Member};
use mesh::ids::{Generation, ReplicaId};
use mesh::net::{Endpoint, Link};
use mesh::wire::admin::{AdminReply, AdminRequest, History};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Between two rounds.
const ROUND_EVERY: Duration = Duration::from_millis(250);

/// What a bootstrap is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name.
    pub cluster: String,
    /// The directory with the operator's certificate (`pki/admin/<id>`).
    pub pki: PathBuf,
    /// Whom to trust, if not the `ca.crt` beside the certificate.
    pub trust_bundle: Option<PathBuf>,
    /// Revocation lists (`pki/crl.pem`).
    pub crl: Option<PathBuf>,
    /// Every member's id and HOST:PORT: exactly these will be the cluster.
    pub members: Vec<(u32, String)>,
    /// Give up after this time; without it, wait for as long as it takes.
    pub timeout: Option<Duration>,
}

pub use Config as BootstrapConfig;

/// Begins the cluster, unless it has begun.
///
/// # Errors
/// The settings cannot work, members disagree, or the time is over; the message says what to do.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let ids: std::collections::BTreeSet<u32> = config.members.iter().map(|(id, _)| *id).collect();
    ensure!(!ids.is_empty(), "no members: name every one with --seeds");
    ensure!(ids.len() == config.members.len(), "--seeds names a member twice");
    let access = Access {
        cluster: config.cluster.clone(),
        pki: config.pki.clone(),
        trust_bundle: config.trust_bundle.clone(),
        crl: config.crl.clone(),
        members: config.members.clone(),
    };
    let endpoint = access.bind()?;
    let mut bootstrap =
        Bootstrap { config: &config, endpoint: &endpoint, missing: "the members' first answers".to_owned() };
    let result = match config.timeout {
        Some(limit) => match timeout(limit, bootstrap.rounds()).await {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!("not done within {limit:?}: still waiting for {}", bootstrap.missing)),
        },
        None => bootstrap.rounds().await,
    };
    endpoint.close().await;
    result
}

struct Bootstrap<'a> {
    config: &'a Config,
    endpoint: &'a Endpoint,
    /// For whom the last round had to wait.
    missing: String,
}

/// What a member said of itself.
struct Described {
    link: Link,
    history: History,
    seed: ClusterConfig,
    application: bool,
}

impl Bootstrap<'_> {
    async fn rounds(&mut self) -> anyhow::Result<()> {
        loop {
            let Some(missing) = self.round().await? else { return Ok(()) };
            if missing != self.missing {
                tracing::info!("waiting for {missing}");
                self.missing = missing;
            }
            sleep(ROUND_EVERY).await;
        }
    }

    /// One try; for whom it has to wait, or `None` if the cluster has begun.
    async fn round(&self) -> anyhow::Result<Option<String>> {
        let (members, missing) = self.describe_all().await;
        if let Some((id, _)) = members.iter().find(|(_, member)| member.history == History::Started) {
            self.say_begun(*id, &members).await;
            return Ok(None);
        }
        if !missing.is_empty() {
            return Ok(Some(missing.join(", ")));
        }
        let cluster = self.cluster(&members)?;
        let token = u128::from_le_bytes(entropy::bytes().context("no randomness from the system")?);
        for (id, member) in &members {
            match ask(&member.link, &AdminRequest::Propose { token, cluster: cluster.clone() }).await {
                Ok(AdminReply::Done) => {}
                Ok(reply) => return Ok(Some(format!("member {id} to take the proposal ({})", words(reply)))),
                Err(error) => return Ok(Some(format!("member {id} to take the proposal ({error:#})"))),
            }
        }
        // Every member has it: whichever hears of the commit first teaches the others.
        let mut committed = 0;
        let mut last = String::new();
        for (id, member) in &members {
            match ask(&member.link, &AdminRequest::Commit { token }).await {
                Ok(AdminReply::Done) => committed += 1,
                Ok(reply) => last = format!("member {id} to commit ({})", words(reply)),
                Err(error) => last = format!("member {id} to commit ({error:#})"),
            }
        }
        if committed == 0 {
            return Ok(Some(last));
        }
        tracing::info!(members = members.len(), committed, "the cluster has begun");
        Ok(None)
    }

    /// The cluster has its members in its log: what was expected now changes nothing.
    async fn say_begun(&self, member: u32, described: &BTreeMap<u32, Described>) {
        let Some(member_of) = described.get(&member) else { return };
        let Ok(AdminReply::Members(view)) = ask(&member_of.link, &AdminRequest::Members).await else {
            tracing::info!(member, "the cluster has begun already: nothing to do");
            return;
        };
        let cluster = &view.configuration.cluster;
        let has: Vec<u32> = cluster.members.iter().map(|member| member.id.0).collect();
        let expected: Vec<u32> = self.config.members.iter().map(|(id, _)| *id).collect();
        tracing::info!(member, members = ?has, target = cluster.target_members, "the cluster has begun already: nothing to do");
        if cluster.target_members as usize != expected.len() {
            tracing::warn!(
                ?expected,
                target = cluster.target_members,
                "the cluster's own configuration has another number of members than was expected: `lockstep members` changes it"
            );
        }
    }

    /// What every member says of itself, and who does not answer.
    async fn describe_all(&self) -> (BTreeMap<u32, Described>, Vec<String>) {
        let mut asks = JoinSet::new();
        for (id, address) in &self.config.members {
            let (endpoint, id, address) = (self.endpoint.clone(), *id, address.clone());
            asks.spawn(async move { (id, describe(&endpoint, id, &address).await) });
        }
        let (mut members, mut missing) = (BTreeMap::new(), BTreeMap::new());
        while let Some(answer) = asks.join_next().await {
            match answer {
                Ok((id, Ok(described))) => drop(members.insert(id, described)),
                Ok((id, Err(error))) => drop(missing.insert(id, format!("member {id} ({error:#})"))),
                Err(error) => tracing::error!(%error, "a question was lost"),
            }
        }
        (members, missing.into_values().collect())
    }

    /// The configuration that all members' settings agree on.
    fn cluster(&self, members: &BTreeMap<u32, Described>) -> anyhow::Result<ClusterConfig> {
        let Some((first, described)) = members.first_key_value() else { bail!("no member answered") };
        for (id, other) in members {
            let (ours, theirs) = (&described.seed, &other.seed);
            ensure!(
                ours == theirs,
                "members {first} and {id} are set differently: set protocol, connections, durability and limits alike on \
                 all (member {first}: {}, {:?}, requests up to {} bytes; member {id}: {}, {:?}, up to {} bytes)",
                ours.adapter,
                ours.durability,
                ours.request_bytes,
                theirs.adapter,
                theirs.durability,
                theirs.request_bytes
            );
        }
        let target_members = members.last_key_value().map_or(0, |(id, _)| id.saturating_add(1));
        let first = |(id, described): (&u32, &Described)| Member {
            application: described.application,
            ..Member::first(ReplicaId(*id))
        };
        let members = members.iter().map(first).collect();
        let generation = Generation::default().next(entropy::generation().context("no randomness from the system")?);
        let cluster = ClusterConfig { generation, members, target_members, ..described.seed.clone() };
        cluster.validate().context("the members' settings cannot be used")?;
        Ok(cluster)
    }
}

async fn describe(endpoint: &Endpoint, id: u32, address: &str) -> anyhow::Result<Described> {
    let link = dial(endpoint, id, address).await?;
    match ask(&link, &AdminRequest::Describe).await? {
        AdminReply::Described { id: told, history, seed, application } => {
            ensure!(told == ReplicaId(id), "it says that it is member {told}");
            Ok(Described { link, history, seed, application })
        }
        reply => bail!("it does not describe itself: {}", words(reply)),
    }
}
