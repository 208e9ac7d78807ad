//! Enough happened for the run to count: a cluster that does nothing passes every other check.

use super::{Verdict, Violation};
use std::fmt;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What happened in a run, or in many.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters { $($(#[$doc])* pub $name: u64),* }

        impl Counters {
            /// Adds another run's.
            pub fn add(&mut self, other: &Self) { $(self.$name += other.$name;)* }
        }

        impl fmt::Display for Counters {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let all = [$((stringify!($name), self.$name)),*];
                let mut shown = all.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name}={count}"));
                f.write_str(&shown.by_ref().collect::<Vec<_>>().join(" "))
            }
        }
    };
}

counters! {
    /// Inputs given to replicas.
    steps,
    /// Messages between replicas.
    messages,
    /// Of those lost.
    drops,
    /// Of those delivered twice.
    doubles,
    /// Slots decided.
    slots,
    /// Calls made.
    calls,
    /// Calls answered with a reply.
    replies,
    /// Calls refused definitely.
    refused,
    /// Calls with an unknown outcome.
    unknown,
    /// Times that a replica began to lead.
    elections,
    /// Records made durable.
    records,
    /// Replica processes ended.
    crashes,
    /// Requests forged.
    forgeries,
    /// Records that a crash took.
    lost_records,
    /// Members that forgot their votes.
    amnesia,
    /// SMaRtClients ended.
    smart_crashes,
    /// Senders ended.
    sender_crashes,
    /// Partitions.
    partitions,
    /// Links cut.
    link_cuts,
    /// Processes paused.
    pauses,
    /// Applications lost.
    app_losses,
    /// Answers of old runs delivered.
    late_answers,
    /// Applications reset.
    resets,
    /// Replicas drained.
    drains,
    /// Disks that stood still.
    stalls,
    /// Sessions ended in the applications.
    ends,
    /// Requests that SMaRtClients or senders sent again.
    resends,
    /// Calls whose sender found its session gone.
    session_gone,
    /// Native clients that died.
    native_crashes,
    /// Sessions taken up with a request in doubt.
    native_doubts,
    /// Requests in doubt that were settled by order.
    native_settled,
    /// Of those, requests that never ran.
    native_cancelled,
    /// Requests of native clients answered with a reply.
    native_replies,
    /// Leaders suspected because of a waiting request.
    suspicions,
    /// Groups of reads answered past the log.
    reads,
    /// Of those, such that had to go through the log after all.
    unread,
    /// Of those that servers were asked for, void.
    void_reads,
    /// Snapshots stored.
    snapshots,
    /// Snapshots that could not be taken.
    failed_snapshots,
    /// Snapshots that rotted on their disk.
    rotten_snapshots,
    /// Resets that found their snapshot rotten or gone.
    lost_snapshots,
    /// Snapshots loaded.
    loads,
    /// Snapshots fetched from a peer.
    transfers,
    /// Fetches that failed.
    failed_transfers,
    /// Cuts of a log.
    cuts,
    /// New lives that got their vote.
    rejoins,
    /// Requests on which an application fell silent.
    silences,
    /// Requests aborted, counted on each replica.
    aborts,
    /// Applications found to differ.
    divergences,
    /// Applications rebuilt after that.
    rebuilds,
    /// Applications made to answer wrongly.
    differing,
    /// Applications that were used on as they were found.
    resumes,
    /// Journals damaged in the middle.
    damages,
    /// Torn ends of journals, cut.
    torn,
    /// Disks lost.
    lost_disks,
    /// Questions of an operator who changes the cluster.
    changes_asked,
    /// Of those, done.
    changes,
    /// Of those, refused.
    changes_refused,
    /// Members removed, as an operator was told.
    removals,
    /// Leaders that handed over to a certain member.
    handovers,
    /// Processes that waited to become members.
    joiners,
    /// Learners in the configurations that were ordered.
    learners,
    /// Processes that ended while they had no vote.
    joiner_crashes,
    /// Processes ended by a full disk.
    full_disks,
    /// Processes ended by a sync that failed.
    failed_syncs,
}

/// What a run must reach at least.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand {
    /// The same counters; each a lower bound.
    pub least: Counters,
}

impl Demand {
    /// Judges a run.
    ///
    /// # Errors
    /// The first bound that was not reached.
    pub fn check(&self, seen: &Counters) -> Verdict {
        let pairs = [
            ("slots", seen.slots, self.least.slots),
            ("replies", seen.replies, self.least.replies),
            ("elections", seen.elections, self.least.elections),
            ("drops", seen.drops, self.least.drops),
            ("doubles", seen.doubles, self.least.doubles),
            ("crashes", seen.crashes, self.least.crashes),
            ("smart_crashes", seen.smart_crashes, self.least.smart_crashes),
            ("sender_crashes", seen.sender_crashes, self.least.sender_crashes),
            ("partitions", seen.partitions, self.least.partitions),
            ("link_cuts", seen.link_cuts, self.least.link_cuts),
            ("pauses", seen.pauses, self.least.pauses),
            ("app_losses", seen.app_losses, self.least.app_losses),
            ("drains", seen.drains, self.least.drains),
            ("stalls", seen.stalls, self.least.stalls),
            ("damages", seen.damages, self.least.damages),
            ("lost_disks", seen.lost_disks, self.least.lost_disks),
            ("differing", seen.differing, self.least.differing),
            ("rotten_snapshots", seen.rotten_snapshots, self.least.rotten_snapshots),
        ];
        match pairs.iter().find(|(_, seen, least)| seen < least) {
            Some((name, seen, least)) => {
                Violation::raise("enough", format!("too little happened: {name} is {seen}, at least {least} wanted"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_in_which_too_little_happened_is_caught() {
        let demand = Demand { least: Counters { replies: 2, crashes: 1, ..Counters::default() } };
        demand.check(&Counters { replies: 2, crashes: 1, ..Counters::default() }).unwrap();
        assert!(demand.check(&Counters { replies: 1, crashes: 1, ..Counters::default() }).is_err());
        assert!(demand.check(&Counters { replies: 9, ..Counters::default() }).is_err());
    }
}
