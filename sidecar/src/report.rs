//! The core's events for people: log lines and counters. What a broken or malicious party can cause at will is logged
//! at most once a second.

use crate::metrics::{Metrics, Reason};
use mesh::ids::{Generation, ReplicaId};
use mesh::order::Event;
use mesh::time::{Duration, Instant};

/// Between two log lines of what others can cause.
const QUIET: Duration = Duration::from_secs(1);

/// Why a member must end whose place another life of it took (rule 12).
pub(crate) const SUPERSEDED: &str = "another life of this member was granted its vote, so this one is over: a second process runs with the same --id, or \
     this data directory is an old copy. If no other process has this --id, move the data directory away and start again: \
     the member is then filled by the others";

/// What a member can do whose generation is over (rule 14).
pub(crate) const LEFT_BEHIND: &str = "the cluster was started anew, or restored, without what this member holds, so this member is refused for ever: \
     stop it, set its data aside with `lockstep members set-aside`, and start it again: it is then filled by the others. \
     If nobody did that, its address or certificate is used by another cluster";
/// Why a member that was removed ends although its id is to have one.
pub(crate) const JOINS_ANEW: &str =
    "this member was removed from the cluster, which admits its id: it ends, and joins anew when it is started again";

/// Why a member that had no vote yet ends when it hears of a newer generation (rule 14).
pub(crate) const FOLLOWED_THE_PAST: &str = "the cluster goes on in another generation than the one that this member joined, and it has no vote there yet: it \
     ends, and joins anew when it is started again";

/// See the module.
pub(crate) struct Reporter {
    metrics: Metrics,
    next: Instant,
    suppressed: u64,
}

impl Reporter {
    pub(crate) const fn new(metrics: Metrics) -> Self {
        Self { metrics, next: Instant::ZERO, suppressed: 0 }
    }

    /// An event of the core.
    pub(crate) fn event(&mut self, now: Instant, event: &Event) {
        match event {
            Event::Standing { ballot } => tracing::info!(%ballot, "standing for election"),
            Event::Leading { ballot } => {
                self.metrics.leader_changes.inc();
                tracing::info!(%ballot, "elected: this member leads");
            }
            Event::Following { ballot } => {
                self.metrics.leader_changes.inc();
                tracing::info!(%ballot, leader = %ballot.replica, "following a new leader");
            }
            Event::SteppedDown { ballot, reason } => tracing::warn!(%ballot, reason, "no longer leading"),
            Event::Suspected { ballot, tag } => {
                tracing::warn!(%ballot, client = %tag.client, seq = %tag.seq, "the leader is suspected: a request is not ordered");
            }
            Event::OtherBody { tag } => {
                self.count("other_body");
                if let Some(suppressed) = self.may_speak(now) {
                    tracing::warn!(client = %tag.client, seq = %tag.seq, suppressed, "a number was used again with another body: broken or malicious client");
                }
            }
            Event::Forged { tag, why } => {
                self.count("forged");
                if let Some(suppressed) = self.may_speak(now) {
                    tracing::error!(
                        client = %tag.client, seq = %tag.seq, suppressed,
                        "an ordered request is not its session's owner's and is not executed: {why}. A member's checks failed: compare the versions of the members"
                    );
                }
            }
            Event::ReplayDiffers { tag, slot, .. } => {
                self.metrics.divergences.inc();
                if let Some(suppressed) = self.may_speak(now) {
                    tracing::error!(
                        client = %tag.client, seq = %tag.seq, %slot, suppressed,
                        "the application gave another reply in the replay than before: it is not deterministic"
                    );
                }
            }
            Event::NoSnapshot { least } => tracing::error!(
                %least,
                "the application cannot be brought back: the log is cut, the snapshot before it is gone, and there is no \
                 other member to fetch one from. Put a snapshot file into the snapshots directory and start again"
            ),
            Event::Diverged { .. } | Event::Rebuilt { .. } | Event::NoAgreement { .. } => self.divergence(event),
            Event::Silent { .. } | Event::Aborted { .. } => self.silence(event),
            Event::Rejoined { .. } | Event::Configured { .. } | Event::Superseded | Event::Restarted { .. } => {
                life(event);
            }
            Event::LogGrows { bytes } => tracing::warn!(
                bytes,
                "the log has more than half of the bytes it may have (--log-max-bytes); at the whole new requests are \
                 refused. `lockstep status` says what makes room"
            ),
            Event::Nonsense { from, what } => {
                self.count("nonsense");
                if let Some(suppressed) = self.may_speak(now) {
                    tracing::warn!(%from, what, suppressed, "a peer sent what no correct peer sends; dropped");
                }
            }
        }
    }

    fn divergence(&self, event: &Event) {
        match event {
            Event::Diverged { slot, agreed, own, majority, rebuild } => {
                self.metrics.divergences.inc();
                let next = if *rebuild {
                    "it is taken out and rebuilt from the majority's state"
                } else {
                    "it is not rebuilt: by policy, or because it was too often lately"
                };
                tracing::error!(
                    %slot, %agreed, own = %own, majority = %majority,
                    "the application diverged: up to this slot its replies differ from the majority's; {next}. Is it \
                     deterministic?"
                );
            }
            Event::Rebuilt { slot } => {
                tracing::info!(%slot, "the diverged application was rebuilt and agrees with the majority again");
            }
            Event::NoAgreement { slot } => {
                self.metrics.divergences.inc();
                tracing::error!(
                    %slot,
                    "the applications' replies differ and no majority agrees: nobody can be rebuilt from another. The \
                     application is not deterministic, or its copies were not all the same from the beginning"
                );
            }
            _ => {}
        }
    }

    fn silence(&self, event: &Event) {
        match event {
            Event::Silent { at } => tracing::warn!(
                %at,
                "the application does not answer this request, or died on it: said to the others; their answers decide \
                 whether it is run again or aborted"
            ),
            Event::Aborted { at, tag } => {
                self.metrics.aborted_requests.inc();
                tracing::error!(
                    %at, client = %tag.client, seq = %tag.seq,
                    "a request was aborted by order: the applications of a majority fell silent on it, or an operator \
                     gave it up. It is skipped everywhere, now and in every replay, and its client is told"
                );
            }
            _ => {}
        }
    }

    /// A peer says that the cluster is another one.
    pub(crate) fn other_cluster(&mut self, now: Instant, from: ReplicaId) {
        self.count("other_cluster");
        if let Some(suppressed) = self.may_speak(now) {
            tracing::error!(%from, suppressed, "a peer was started with another configuration of the cluster: one of both has a foreign data directory");
        }
    }

    /// A peer speaks in another generation of the cluster than this member.
    pub(crate) fn other_generation(&mut self, now: Instant, from: ReplicaId, (other, own): (Generation, Generation)) {
        self.count("generation");
        let Some(suppressed) = self.may_speak(now) else { return };
        if other > own {
            tracing::error!(%from, generation = %other, %own, suppressed, "{LEFT_BEHIND}");
        } else {
            tracing::warn!(
                %from, generation = %other, %own, suppressed,
                "a member that was left behind when the cluster was started anew, or restored, is refused: stop it, and \
                 set its data aside with `lockstep members set-aside`"
            );
        }
    }

    /// A request is not one of the protocol.
    pub(crate) fn not_orderable(&mut self, now: Instant, link: crate::intake::LinkId) {
        self.count("not_orderable");
        if let Some(suppressed) = self.may_speak(now) {
            let link = link.0;
            tracing::warn!(
                link,
                suppressed,
                "a request is not exactly one of the protocol; not taken. Is the ingress set to the same --protocol?"
            );
        }
    }

    fn count(&self, reason: &'static str) {
        self.metrics.rejected.get_or_create(&Reason { reason }).inc();
    }

    /// How many lines were left out since the last one, if it is time for one.
    fn may_speak(&mut self, now: Instant) -> Option<u64> {
        if now < self.next {
            self.suppressed += 1;
            return None;
        }
        self.next = now + QUIET;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// What becomes of members that lost their memory (rule 12).
fn life(event: &Event) {
    match event {
        Event::Rejoined { incarnation, own: true, .. } => {
            tracing::info!(%incarnation, "this member was granted a new incarnation and votes again");
        }
        Event::Rejoined { member, incarnation, .. } => {
            tracing::info!(%member, %incarnation, "a member that lost its memory was granted a new incarnation");
        }
        Event::Configured { epoch, change } => tracing::info!(%epoch, %change, "the configuration changed"),
        Event::Superseded => tracing::error!("{SUPERSEDED}"),
        Event::Restarted { generation } => {
            tracing::info!(%generation, "the log goes on in another generation: the sessions before it are void");
        }
        _ => {}
    }
}
