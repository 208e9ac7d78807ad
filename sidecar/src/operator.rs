//! An operator's side of the admin links: what commands ask of members, with a certificate of role `admin`.

use crate::run::link_limits;
use anyhow::{Context, bail, ensure};
use mesh::net::{Credentials, Endpoint, Files, LINK_MAX_AGE, Link, LinkKind, Role};
use mesh::wire::admin::{AdminReply, SnapshotsView};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

pub use crate::backup::Backed;
pub use mesh::config::{Configuration, Member};
pub use mesh::ids::{Position, ReplicaId, Slot};
pub use mesh::wire::admin::{AdminRequest, MembersView};
pub use mesh::wire::peer::Change;

/// How long one member has for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a link to one member may take to make: nobody answers for one that does not run.
const LINK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a change of the members may take, from the order to the answer; and how long a leader is looked for.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// What is said when a change was asked for and no answer came.
const UNKNOWN_CHANGE: &str =
    "the leader was asked and gave no answer: `lockstep members list` shows whether it was done";
/// Between two questions how far a member is.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Whom an operator reaches, and as whom.
#[derive(Clone, Debug)]
pub struct Access {
    /// The cluster's name.
    pub cluster: String,
    /// The directory with the operator's certificate (`pki/admin/<id>`).
    pub pki: PathBuf,
    /// Whom to trust, if not the `ca.crt` beside the certificate.
    pub trust_bundle: Option<PathBuf>,
    /// Revocation lists (`pki/crl.pem`).
    pub crl: Option<PathBuf>,
    /// Members' ids and HOST:PORT.
    pub members: Vec<(u32, String)>,
}

/// What a request of an operator came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// It is done.
    Done(T),
    /// The member refuses, and says why.
    Refused(String),
}

impl Access {
    /// A socket of the operator's.
    ///
    /// # Errors
    /// The certificate cannot be used for this.
    pub(crate) fn bind(&self) -> anyhow::Result<Endpoint> {
        let files = Files::new(&self.pki, self.trust_bundle.as_deref(), self.crl.as_deref());
        let credentials = Credentials::of(&files)?;
        let identity = credentials.identity();
        ensure!(
            identity.role == Role::Admin && identity.cluster == self.cluster,
            "the certificate in {} is of {} of cluster {}, an operator needs one of role admin of cluster {}",
            self.pki.display(),
            identity.role,
            identity.cluster,
            self.cluster
        );
        Ok(Endpoint::bind(
            self.own_address(),
            credentials,
            &[],
            link_limits(LINK_MAX_AGE),
            &mut mesh::node::registry(),
        )?)
    }

    /// Any port, of the kind of address that the members have.
    fn own_address(&self) -> SocketAddr {
        let v6 = |(_, address): &(u32, String)| address.parse().is_ok_and(|address: SocketAddr| address.is_ipv6());
        if self.members.iter().all(v6) { ([0u16; 8], 0).into() } else { ([0u8; 4], 0).into() }
    }

    /// Has one member take a snapshot, and waits until it is taken and verified: its slot. `progress` is told the bytes
    /// so far.
    ///
    /// # Errors
    /// The member does not answer, or could not take it.
    pub async fn save(&self, member: &(u32, String), progress: &mut dyn FnMut(u64)) -> anyhow::Result<Answer<Slot>> {
        let endpoint = self.bind()?;
        let link = dial(&endpoint, member.0, &member.1).await?;
        let before = match view(&link, &AdminRequest::Save).await? {
            Answer::Done(view) => view,
            Answer::Refused(why) => return Ok(Answer::Refused(why)),
        };
        if before.newest >= before.executed {
            return Ok(Answer::Done(before.newest));
        }
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = match view(&link, &AdminRequest::Snapshots).await? {
                Answer::Done(view) => view,
                Answer::Refused(why) => return Ok(Answer::Refused(why)),
            };
            if now.newest > before.newest {
                return Ok(Answer::Done(now.newest));
            }
            ensure!(now.failed == before.failed, "it could not take a snapshot: its log says why");
            progress(now.writing.unwrap_or_default());
        }
    }

    /// Asks the leader for an abort; every member is asked, since only the leader takes it.
    ///
    /// # Errors
    /// No member answers.
    pub async fn abort(&self, at: Position) -> anyhow::Result<Answer<u32>> {
        let endpoint = self.bind()?;
        let (mut refused, mut silent) = (Vec::new(), Vec::new());
        for (id, address) in &self.members {
            let answer = async {
                let link = dial(&endpoint, *id, address).await?;
                ask(&link, &AdminRequest::Abort { at }).await
            };
            match answer.await {
                Ok(AdminReply::Done) => return Ok(Answer::Done(*id)),
                Ok(reply) => refused.push(format!("member {id}: {}", words(reply))),
                Err(error) => silent.push(format!("member {id}: {error:#}")),
            }
        }
        if refused.is_empty() {
            bail!("no member answers: {}", silent.join("; "));
        }
        refused.append(&mut silent);
        Ok(Answer::Refused(refused.join("; ")))
    }
}

/// Who the members are, and their change, asked of whoever leads.
impl Access {
    /// The members, as the leader knows them, or else whoever answers with the newest configuration.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn members(&self) -> anyhow::Result<MembersView> {
        let endpoint = self.bind()?;
        let (mut newest, mut silent) = (None::<MembersView>, Vec::new());
        for (id, address) in &self.members {
            match ask_one(&endpoint, *id, address, &AdminRequest::Members).await {
                Ok(AdminReply::Members(view)) if view.leader == Some(ReplicaId(*id)) => return Ok(view),
                Ok(AdminReply::Members(view)) => {
                    let newer = |known: &MembersView| known.configuration.edition() < view.configuration.edition();
                    if newest.as_ref().is_none_or(newer) {
                        newest = Some(view);
                    }
                }
                Ok(reply) => silent.push(format!("member {id}: {}", words(reply))),
                Err(error) => silent.push(format!("member {id}: {error:#}")),
            }
        }
        newest.with_context(|| format!("no member answers: {}", silent.join("; ")))
    }

    /// What every member says of the members, and whoever else is named: those that a configuration knows are asked where it
    /// knows them to be.
    ///
    /// # Errors
    /// The certificate cannot be used for this.
    pub async fn survey(&self) -> anyhow::Result<BTreeMap<u32, Surveyed>> {
        let endpoint = self.bind()?;
        let mut heard = survey(&endpoint, self.members.iter().cloned()).await;
        let silent = |heard: &BTreeMap<u32, Surveyed>, id: u32| !matches!(heard.get(&id), Some(Surveyed::Member(_)));
        let told: BTreeMap<u32, String> = heard
            .values()
            .filter_map(|word| if let Surveyed::Member(view) = word { Some(view) } else { None })
            .flat_map(|view| view.places.iter().map(|(id, address)| (id.0, address.clone())))
            .filter(|(id, _)| silent(&heard, *id))
            .collect();
        for (id, word) in survey(&endpoint, told.into_iter()).await {
            if silent(&heard, id) {
                heard.insert(id, word);
            }
        }
        Ok(heard)
    }

    /// Has the configuration changed, or leadership handed over. A change that is under way, or an election, is waited
    /// for.
    ///
    /// # Errors
    /// Nobody answers, or what became of it is not known.
    pub async fn change(&self, request: &AdminRequest) -> anyhow::Result<Answer<()>> {
        let endpoint = self.bind()?;
        let end = Instant::now() + CHANGE_TIMEOUT;
        let mut places: BTreeMap<u32, String> = self.members.iter().cloned().collect();
        loop {
            let mut said = Vec::new();
            for (id, address) in places.clone() {
                match ask_one(&endpoint, id, &address, &AdminRequest::Members).await {
                    Ok(AdminReply::Members(view)) => {
                        for (id, address) in view.places {
                            places.entry(id.0).or_insert(address);
                        }
                        if view.leader != Some(ReplicaId(id)) {
                            said.push(format!("member {id}: it does not lead"));
                            continue;
                        }
                    }
                    Ok(reply) => {
                        said.push(format!("member {id}: {}", words(reply)));
                        continue;
                    }
                    Err(error) => {
                        said.push(format!("member {id}: {error:#}"));
                        continue;
                    }
                }
                let link = dial(&endpoint, id, &address).await?;
                let answer = timeout(CHANGE_TIMEOUT, link.ask(mesh::wire::encode(request))).await;
                let answer = answer.context(UNKNOWN_CHANGE)?.context(UNKNOWN_CHANGE)?;
                match mesh::wire::decode(&answer)
                    .context("its answer does not decode: does it run the same version?")?
                {
                    AdminReply::Done => return Ok(Answer::Done(())),
                    reply @ (AdminReply::NotLeader { .. } | AdminReply::NotYet(_)) => {
                        said.push(format!("member {id}: {}", words(reply)));
                    }
                    AdminReply::Refused(why) => return Ok(Answer::Refused(why)),
                    reply => bail!("it gives {}", words(reply)),
                }
            }
            if Instant::now() >= end {
                bail!("it could not be done in time: {}", said.join("; "));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// What a member said of the members.
#[derive(Debug)]
pub enum Surveyed {
    /// Who they are, as it knows them.
    Member(Box<MembersView>),
    /// It is part of no cluster, and says why.
    Outside(String),
    /// It does not answer.
    Silent(String),
}

/// Asks all of them at once.
async fn survey(endpoint: &Endpoint, places: impl Iterator<Item = (u32, String)>) -> BTreeMap<u32, Surveyed> {
    let mut asks = JoinSet::new();
    for (id, address) in places {
        let endpoint = endpoint.clone();
        asks.spawn(async move {
            let word = match ask_one(&endpoint, id, &address, &AdminRequest::Members).await {
                Ok(AdminReply::Members(view)) => Surveyed::Member(Box::new(view)),
                Ok(reply) => Surveyed::Outside(words(reply)),
                Err(error) => Surveyed::Silent(format!("{error:#}")),
            };
            (id, word)
        });
    }
    let mut heard = BTreeMap::new();
    while let Some(answer) = asks.join_next().await {
        // A task that ended without an answer is one that did not answer.
        heard.extend(answer.ok());
    }
    heard
}

/// One question over a link of its own.
async fn ask_one(endpoint: &Endpoint, id: u32, address: &str, request: &AdminRequest) -> anyhow::Result<AdminReply> {
    let link = dial(endpoint, id, address).await?;
    ask(&link, request).await
}

pub(crate) async fn view(link: &Link, request: &AdminRequest) -> anyhow::Result<Answer<SnapshotsView>> {
    match ask(link, request).await? {
        AdminReply::Snapshots(view) => Ok(Answer::Done(view)),
        AdminReply::Refused(why) => Ok(Answer::Refused(why)),
        reply => bail!("it gives {}", words(reply)),
    }
}

/// A link to a member.
pub(crate) async fn dial(endpoint: &Endpoint, id: u32, address: &str) -> anyhow::Result<Link> {
    let dialled = timeout(LINK_TIMEOUT, endpoint.dial(LinkKind::Admin, address, Some(&id.to_string()))).await;
    Ok(dialled.context("no answer")??)
}

/// One question.
pub(crate) async fn ask(link: &Link, request: &AdminRequest) -> anyhow::Result<AdminReply> {
    let answer = timeout(ANSWER_TIMEOUT, link.ask(mesh::wire::encode(request))).await.context("no answer")??;
    mesh::wire::decode(&answer).context("its answer does not decode: does it run the same version?")
}

/// An answer for people.
pub(crate) fn words(reply: AdminReply) -> String {
    match reply {
        AdminReply::Refused(reason) | AdminReply::NotYet(reason) => reason,
        AdminReply::Done => "done".to_owned(),
        AdminReply::NotLeader { leader } => {
            let leader = leader.map_or("nobody".to_owned(), |leader| format!("member {leader}"));
            format!("this member does not lead, {leader} does")
        }
        AdminReply::Described { .. } | AdminReply::Snapshots(_) | AdminReply::Members(_) | AdminReply::Fetched(_) => {
            "an answer to another question".to_owned()
        }
    }
}
