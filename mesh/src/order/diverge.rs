//! Divergence (rule 31): the rolling hash of all replies, as a majority of applications has it, rides in the log; whoever
//! has another one is quarantined and rebuilt.

use super::{Event, Output, Replica, State};
use crate::config::Divergence;
use crate::ids::{Digest, Slot};
use crate::quorum::{ELECTORATE_MIN, majority};
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};

/// What is known of the others' replies.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// Hashes that a majority agreed on, the newest of them.
    agreed: BTreeMap<Slot, Digest>,
    /// This run of the application was judged up to here.
    judged: Slot,
    /// The last slot on which it agreed with the majority.
    matched: Slot,
    /// It differed on this slot; until it agrees there it answers nobody.
    quarantined: Option<Slot>,
    /// It is not to be used any more.
    stopped: bool,
    /// It differed when it was last judged: no snapshot is taken of it.
    differs: bool,
    /// When it was rebuilt lately.
    rebuilds: VecDeque<Instant>,
    divergences: u64,
    /// Something was agreed since the last look.
    fresh: bool,
}

/// Agreed hashes that are kept.
const AGREED: usize = 4096;
/// More rebuilds than this within [`WINDOW`]: the policy falls to alarm.
const REBUILDS: usize = 3;
const WINDOW: Duration = Duration::from_secs(600);

impl Judgement {
    pub(super) fn is_quarantined(&self) -> bool {
        self.quarantined.is_some()
    }
    pub(super) fn differs(&self) -> bool {
        self.differs
    }
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }
    pub(super) fn matched(&self) -> Slot {
        self.matched
    }
    pub(super) fn divergences(&self) -> u64 {
        self.divergences
    }

    /// A new run begins behind this slot.
    pub(super) fn begin(&mut self, base: Slot) {
        self.judged = base.previous();
        self.fresh = true;
    }

    /// Rebuilds of the last while, before one more.
    fn lately(&mut self, now: Instant) -> usize {
        self.rebuilds.retain(|at| now.since(*at) < WINDOW);
        self.rebuilds.len()
    }
}

impl Replica {
    /// The log says what a majority has.
    pub(super) fn on_agreed(&mut self, slot: Slot, digest: Digest) {
        let judgement = &mut self.execution.judgement;
        judgement.agreed.insert(slot, digest);
        judgement.fresh = true;
        if judgement.agreed.len() > AGREED {
            judgement.agreed.pop_first();
        }
    }

    /// Compares, if there is anything new to compare.
    pub(super) fn judge_fresh(&mut self, now: Instant, out: &mut Vec<Output>) {
        if std::mem::take(&mut self.execution.judgement.fresh) {
            self.judge(now, out);
        }
    }

    /// Compares what the application replied with what the majority agreed on.
    pub(super) fn judge(&mut self, now: Instant, out: &mut Vec<Output>) {
        let executed = self.execution.executed();
        loop {
            let from = self.execution.judgement.judged.next();
            let Some((slot, majority)) = next_between(&self.execution.judgement.agreed, from, executed) else { return };
            let own = self.digest_at(slot);
            let judgement = &mut self.execution.judgement;
            judgement.judged = slot;
            match own {
                None => {}
                Some(own) if own == majority => {
                    judgement.matched = judgement.matched.max(slot);
                    judgement.differs = false;
                    if judgement.quarantined.is_some_and(|differed| slot >= differed) && !judgement.stopped {
                        judgement.quarantined = None;
                        out.push(Output::Event(Event::Rebuilt { slot }));
                    }
                }
                Some(own) => return self.diverged(now, slot, (own, majority), out),
            }
        }
    }

    fn diverged(&mut self, now: Instant, slot: Slot, (own, majority): (Digest, Digest), out: &mut Vec<Output>) {
        let judgement = &mut self.execution.judgement;
        let lately = judgement.lately(now);
        // Of two, none is a minority.
        let judges = self.configuration.cluster.electorate() >= ELECTORATE_MIN;
        let policy = match self.config.divergence {
            Divergence::Rebuild if lately >= REBUILDS || !judges => Divergence::Alarm,
            policy => policy,
        };
        let (agreed, rebuild) = (judgement.matched, policy == Divergence::Rebuild);
        judgement.divergences += 1;
        judgement.differs = true;
        let again = judgement.quarantined.is_some();
        self.execution.dumping = None;
        let judgement = &mut self.execution.judgement;
        out.push(Output::Event(Event::Diverged { slot, agreed, own, majority, rebuild }));
        match policy {
            // It goes on by the majority of each reply.
            Divergence::Alarm => judgement.quarantined = None,
            Divergence::Stop => {
                judgement.quarantined = Some(slot);
                judgement.stopped = true;
                self.execution.stop();
            }
            Divergence::Rebuild => {
                judgement.quarantined = judgement.quarantined.max(Some(slot));
                judgement.rebuilds.push_back(now);
                // Rebuilt in vain before: then nothing of its own is trusted.
                let agreed = if again { Slot(0) } else { agreed };
                out.push(Output::Discard { after: agreed });
                if self.execution.snapshot() > agreed {
                    self.begin_from_log(now);
                }
                self.sessions.unreply(agreed.next(), &self.config.limits);
                self.restart_app(out);
            }
        }
    }

    /// The leader's look at what it heard since its last heartbeat, which asked for the hash at `compare`. Who is quarantined
    /// does not count, but is heard: once it has what the majority has, it is told so.
    pub(super) fn compare_digests(&mut self, out: &mut Vec<Output>) {
        let own = self.own_index();
        let electorate = self.configuration.cluster.electorate();
        let State::Leader(leading) = &self.state else { return };
        let (compare, fresh) = (leading.compare, leading.compare > leading.compared);
        if compare == Slot(0) {
            return;
        }
        let own_digest = self.digest_at(compare).map(|digest| (digest, !self.execution.judgement.is_quarantined()));
        let heard = self.heard_of_applications(leading).filter_map(|(index, marks)| {
            if index == own {
                return own_digest;
            }
            let digest = marks.digest.filter(|(slot, _)| *slot == compare);
            digest.map(|(_, digest)| (digest, marks.executed >= compare))
        });
        let (counting, quarantined): (Vec<_>, Vec<_>) = heard.partition(|(_, counts)| *counts);
        let count = |digest: &Digest| counting.iter().filter(|(other, _)| other == digest).count();
        let agreed = counting.iter().map(|(digest, _)| *digest).find(|digest| count(digest) >= majority(electorate));
        let differ = counting.windows(2).any(|pair| pair[0] != pair[1]);
        let all = counting.len() == electorate;
        let State::Leader(leading) = &mut self.state else { return };
        match agreed {
            Some(digest) => {
                let rebuilt = quarantined.iter().any(|(other, _)| *other == digest);
                // Who differs is told once, also if it came by later than the others.
                let wrong = differ && leading.urged != Some(digest);
                if fresh || rebuilt || wrong {
                    leading.compared = compare;
                    leading.agreed = Some((compare, digest));
                }
                if rebuilt || wrong {
                    // With nothing to order it would not be noticed for as long.
                    leading.urgent = true;
                }
                if wrong {
                    leading.urged = Some(digest);
                }
            }
            None if fresh && all && differ => {
                leading.compared = compare;
                out.push(Output::Event(Event::NoAgreement { slot: compare }));
            }
            None => {}
        }
    }
}

fn next_between(agreed: &BTreeMap<Slot, Digest>, from: Slot, to: Slot) -> Option<(Slot, Digest)> {
    if from > to {
        return None;
    }
    agreed.range(from..=to).next().map(|(slot, digest)| (*slot, *digest))
}
