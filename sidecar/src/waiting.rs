//! A member that is not part of a cluster yet: it waits for the operator's bootstrap, or for a peer that has history.
//!
//! "Nobody answers" is never taken for "this is a new cluster". A blank member that hears of a cluster cannot know
//! whether it voted there before its disk was lost: it becomes a learner (rule 12), and so does one whose journal was
//! damaged. One that holds a proposal has
//! provably never voted with it, and takes the word of a member that started with the same configuration as the commit.
//! One whose id is none of the cluster's members' asks to be one, under a life that it keeps: the leader admits it if its id
//! is below the target.

use crate::Config;
use crate::inputs::{AdminAsk, Control, Inputs};
use crate::intake::{self, Waiters};
use crate::journal::{Entry, History};
use crate::peers::{Incoming, Peers};
use crate::snapshot::Snapshots;
use crate::store::{Membership, Store};
use anyhow::Context;
use mesh::config::ClusterConfig;
use mesh::ids::{Epoch, Generation, Life, ReplicaId};
use mesh::net::Signer;
use mesh::order::To;
use mesh::wire::admin::{self, AdminReply, AdminRequest};
use mesh::wire::peer::{Message, PeerFrame};
use mesh::wire::submit::Steer;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// How often the peers are asked.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// What a member says that does not know whether it was part of a cluster.
const LOST: &str = "this member's journal was damaged and set aside, and nothing in it tells whether it was part of a \
                    cluster: it joins one as soon as a member of it answers. If none was ever begun, empty its data directory";

/// See the module.
pub(crate) struct Waiting<'a> {
    pub(crate) config: &'a Config,
    pub(crate) store: &'a mut Store,
    pub(crate) history: History,
    /// Its snapshots, which it goes on from if they are of the cluster that it joins.
    pub(crate) snapshots: Option<&'a Snapshots>,
    pub(crate) peers: &'a Peers,
    pub(crate) waiters: &'a mut Waiters,
    pub(crate) inputs: &'a mut Inputs,
    /// What signs replies later.
    pub(crate) signer: &'a mut Option<Arc<Signer>>,
    /// The life that it begins if it has to.
    pub(crate) life: Life,
    /// The target that it was told last of a cluster of which it is no member.
    pub(crate) target: Option<u32>,
    /// The newest configuration of that.
    pub(crate) edition: Option<(Generation, Epoch)>,
}

impl Waiting<'_> {
    /// Waits until this member is part of a cluster; `None` if it was told to stop before.
    ///
    /// # Errors
    /// The cluster does not fit this member's settings, or the journal could not be written.
    pub(crate) async fn run(mut self) -> anyhow::Result<Option<Membership>> {
        if self.history == History::Lost {
            tracing::warn!("{LOST}");
        }
        let mut tick = interval(ASK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let History::Started { configuration, life } = &self.history {
                return Ok(Some(Membership { configuration: configuration.clone(), life: *life }));
            }
            tokio::select! {
                Some(ask) = self.inputs.admin.recv() => self.on_admin(ask)?,
                Some(Incoming { from, frame, .. }) = self.inputs.peers.recv() => {
                    if let Some(frame) = frame {
                        self.on_peer(from, frame)?;
                    }
                }
                Some(event) = self.inputs.requests.recv() => self.on_request(event),
                Some(control) = self.inputs.control.recv() => match control {
                    Control::Drain(done) => {
                        // There is nothing to hand over.
                        let _ = done.send(());
                    }
                    Control::Sign(signer) => *self.signer = Some(signer),
                    Control::Stop => return Ok(None),
                },
                _ = tick.tick() => self.peers.send_frame(To::Others, "which_cluster", &PeerFrame::WhichCluster),
                else => return Ok(None),
            }
            self.waiters.finish_turn();
        }
    }

    fn store(&mut self, entry: &Entry) -> anyhow::Result<()> {
        self.store.append(entry)?;
        self.history = self.history.clone().after(entry);
        Ok(())
    }

    fn on_admin(&mut self, ask: AdminAsk) -> anyhow::Result<()> {
        let reply = match &ask.request {
            AdminRequest::Describe => self.describe(),
            AdminRequest::Propose { token, cluster } => self.on_propose(*token, cluster)?,
            AdminRequest::Commit { token } => self.on_commit(*token)?,
            AdminRequest::Save
            | AdminRequest::Snapshots
            | AdminRequest::Abort { .. }
            | AdminRequest::Fetch(_)
            | AdminRequest::Members
            | AdminRequest::Change(_)
            | AdminRequest::TransferLeader { .. } => {
                AdminReply::Refused("this member is not part of a cluster yet: run `lockstep bootstrap`".to_owned())
            }
        };
        ask.answer(&reply);
        Ok(())
    }

    fn describe(&self) -> AdminReply {
        let history = match &self.history {
            History::Blank => admin::History::Blank,
            History::Proposed { token, .. } => admin::History::Proposed { token: *token },
            // It may be part of a cluster, so no other one is to be begun with it.
            History::Started { .. } | History::Lost => admin::History::Started,
        };
        described(self.config, history)
    }

    fn on_propose(&mut self, token: u128, cluster: &ClusterConfig) -> anyhow::Result<AdminReply> {
        match self.history {
            History::Started { .. } => return Ok(refused_started()),
            History::Lost => return Ok(AdminReply::Refused(LOST.to_owned())),
            History::Blank | History::Proposed { .. } => {}
        }
        if self.snapshots.is_some_and(|snapshots| snapshots.newest().is_some()) {
            return Ok(AdminReply::Refused(
                "this member has snapshots of a cluster that has begun, and waits for its other members. To begin a new \
                 cluster, move the directory snapshots out of its data directory"
                    .to_owned(),
            ));
        }
        if let Err(error) = self.config.check_cluster(cluster) {
            return Ok(AdminReply::Refused(format!("{error:#}")));
        }
        if cluster.member(self.config.replica()).is_none() {
            return Ok(AdminReply::Refused("it is a cluster without this member".to_owned()));
        }
        self.store(&Entry::Proposed { token, cluster: cluster.clone() })?;
        Ok(AdminReply::Done)
    }

    fn on_commit(&mut self, token: u128) -> anyhow::Result<AdminReply> {
        match &self.history {
            History::Proposed { token: own, .. } if *own == token => {
                self.store(&Entry::Started)?;
                tracing::info!("the cluster is bootstrapped");
                Ok(AdminReply::Done)
            }
            History::Proposed { .. } => {
                Ok(AdminReply::Refused("another proposal took the place of this one".to_owned()))
            }
            History::Blank => Ok(AdminReply::Refused("there is no proposal to commit".to_owned())),
            History::Lost => Ok(AdminReply::Refused(LOST.to_owned())),
            History::Started { .. } => Ok(AdminReply::Done),
        }
    }

    fn on_peer(&mut self, from: ReplicaId, frame: PeerFrame) -> anyhow::Result<()> {
        match (frame, &self.history) {
            (PeerFrame::Cluster(configuration), history) => {
                if self.edition.is_some_and(|(known, _)| known > configuration.generation) {
                    // It was left behind, and does not know.
                    return Ok(());
                }
                let cluster = &configuration.cluster;
                self.config.check_cluster(cluster).with_context(|| {
                    format!("member {from} is part of a cluster that this member's settings do not fit")
                })?;
                let own = cluster.member(self.config.replica()).copied();
                let entry = match (history, own) {
                    (History::Proposed { cluster: proposed, .. }, _)
                        if configuration.edition() == (proposed.generation, Epoch(0)) && proposed == cluster =>
                    {
                        tracing::info!(from = %from, "the proposal was committed");
                        Entry::Started
                    }
                    (_, None) => {
                        let target = cluster.target_members;
                        // The leader, who admits it, may be none of those that it was told of.
                        if self.edition.is_none_or(|edition| edition < configuration.edition()) {
                            self.edition = Some(configuration.edition());
                            self.peers.seek(cluster.members.iter().map(|member| member.id).collect());
                        }
                        self.ask_to_join(from, configuration.generation, target);
                        return Ok(());
                    }
                    (_, Some(own)) => {
                        if own.life == self.life {
                            tracing::info!(from = %from, epoch = %configuration.epoch, "this member was admitted as a learner");
                        } else {
                            tracing::warn!(
                                from = %from,
                                "the cluster exists and this member has no history: it may have forgotten votes, so it \
                                 joins as a learner"
                            );
                        }
                        self.leave_others(configuration.generation)?;
                        Entry::Learner { configuration, life: self.life }
                    }
                };
                self.store(&entry)
            }
            (PeerFrame::Core(..) | PeerFrame::Proposal(..), History::Proposed { .. }) => {
                // It has started, so the proposal was committed; its answer says so.
                self.peers.send_frame(To::One(from), "which_cluster", &PeerFrame::WhichCluster);
                Ok(())
            }
            (PeerFrame::Core(..) | PeerFrame::Proposal(..) | PeerFrame::WhichCluster | PeerFrame::Roster(_), _) => {
                Ok(())
            }
        }
    }

    /// Its id is none of the members'. Everybody who is one is asked, and the leader is among them.
    fn ask_to_join(&mut self, from: ReplicaId, generation: Generation, target: u32) {
        let id = self.config.id;
        if self.target != Some(target) {
            self.target = Some(target);
            if id < target {
                tracing::info!("this member is none of the cluster yet, and asks to be admitted");
            } else {
                tracing::warn!(
                    id,
                    target,
                    "this member is none of the cluster's, which admits ids below its target only: \
                     `lockstep members add` raises that; until then it waits"
                );
            }
        }
        if id < target {
            let join = Message::Join { application: self.config.app.is_some() };
            self.peers.send_frame(To::One(from), "join", &PeerFrame::Core(generation, self.life, join));
        }
    }

    /// Snapshots of another generation may hold what this one does not.
    fn leave_others(&self, generation: Generation) -> anyhow::Result<()> {
        self.snapshots.map_or(Ok(()), |snapshots| snapshots.leave_others(generation))
    }

    fn on_request(&mut self, event: intake::Event) {
        match event {
            intake::Event::Up(link, out) => self.waiters.link_up(link, out),
            intake::Event::Desk(link, desk) => self.waiters.set_desk(link, desk),
            intake::Event::Down(link) => self.waiters.link_down(link),
            intake::Event::Ask(ask) => {
                self.waiters.refuse(ask.link, ask.submit.request.tag(), Steer::NotReady);
            }
        }
    }
}

/// The answer to the questions of a bootstrap of a member that is part of a cluster; `None` to all others.
pub(crate) fn answer_started(request: &AdminRequest, config: &Config) -> Option<AdminReply> {
    match request {
        AdminRequest::Describe => Some(described(config, admin::History::Started)),
        AdminRequest::Propose { .. } => Some(refused_started()),
        AdminRequest::Commit { .. } => Some(AdminReply::Done),
        AdminRequest::Save
        | AdminRequest::Snapshots
        | AdminRequest::Abort { .. }
        | AdminRequest::Fetch(_)
        | AdminRequest::Members
        | AdminRequest::Change(_)
        | AdminRequest::TransferLeader { .. } => None,
    }
}

fn described(config: &Config, history: admin::History) -> AdminReply {
    AdminReply::Described { id: config.replica(), history, seed: config.seed(), application: config.app.is_some() }
}

fn refused_started() -> AdminReply {
    AdminReply::Refused("this member is part of a cluster already".to_owned())
}
